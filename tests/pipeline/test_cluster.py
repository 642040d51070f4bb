"""Reaching Ray: a wrong address is told at once, code travels, starts are whole, unshared paths are refused."""

from __future__ import annotations

import http.server
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipeline.cluster import Cluster
from pipeline.cluster_error import ClusterError
from pipeline.connection import PACKAGES, code_for_workers, prepare_connection
from pipeline.shared_paths import check_shared
from pipeline.signals import held_back

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("address", ["http://head:8265", "ray://head:10001"])
def test_an_address_for_other_clients_is_told_with_what_would_be_right(address):
    with pytest.raises(ClusterError, match=r"HOST:PORT of its head.*ray job submit --address"):
        prepare_connection(address)


@pytest.mark.parametrize("address", ["head", ":6379", "head:port", "head:"])
def test_what_is_no_address_is_told(address):
    with pytest.raises(ClusterError, match="is no address of a cluster; it looks like HOST:PORT"):
        prepare_connection(address)


@pytest.fixture
def free_port():
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        yield closed.getsockname()[1]


def test_a_port_where_nothing_listens_is_told(free_port):
    with pytest.raises(ClusterError, match=f"no Ray cluster at 127.0.0.1:{free_port} .*Is it up"):
        Cluster(f"127.0.0.1:{free_port}").ray()


@pytest.mark.parametrize("port", ["999999", "0"])
def test_a_port_that_cannot_be_is_told(port):
    with pytest.raises(ClusterError, match="no Ray cluster at"):
        prepare_connection(f"127.0.0.1:{port}")


def test_another_server_than_rays_is_told():
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with pytest.raises(ClusterError, match=r"is no Ray head\. Its port is 6379 mostly; 8265 is the dashboard's"):
            prepare_connection(f"127.0.0.1:{server.server_port}")
        server.shutdown()


def test_rays_own_head_passes(ray):
    prepare_connection(ray.get_runtime_context().gcs_address)


def test_without_an_address_ray_is_local_and_never_waits(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    for cluster in (Cluster(), Cluster("local"), Cluster(None, 5.0)):
        assert (cluster.address, cluster.wait_minutes, cluster.started) == (None, None, False)
        assert cluster.describe() is None
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    assert (Cluster(None, 5.0).address, Cluster(None, 5.0).wait_minutes) == ("head:6379", 5.0)
    assert Cluster("other:6379").address == "other:6379"


def test_a_ray_that_was_there_is_described_and_left_running(ray):
    cluster = Cluster()
    assert cluster.ray() is ray
    assert cluster.describe() == {"nodes": 1, "cpus": 2.0, "gpus": 0.0, "address": None}
    cluster.stop()
    assert ray.is_initialized()
    assert cluster.describe()["cpus"] == 2.0


def test_code_travels_to_workers_but_not_twice(monkeypatch, tmp_path):
    monkeypatch.delenv("RAY_JOB_CONFIG_JSON_ENV_VAR", raising=False)
    folders = [str(REPOSITORY / name) for name in PACKAGES]
    ours = {"py_modules": folders, "working_dir": "nothing", "excludes": ["__pycache__"]}
    assert code_for_workers("nothing") == ours

    def in_a_job(**environment) -> dict:
        monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps({"runtime_env": environment}))
        return code_for_workers("nothing")

    monkeypatch.chdir(REPOSITORY)
    assert in_a_job(working_dir="gcs://_ray_pkg.zip") == {}
    monkeypatch.chdir(tmp_path)
    assert in_a_job(working_dir="gcs://_ray_pkg.zip") == {"py_modules": folders, "excludes": ["__pycache__"]}
    assert in_a_job(py_modules=["gcs://_ray_pkg.zip"]) == {}
    assert in_a_job(excludes=["data"]) == {"py_modules": folders, "working_dir": "nothing"}
    assert in_a_job(env_vars={"A": "b"}) == ours


class Interrupted(Exception):
    """What a test's own handler raises."""


def test_signals_that_come_inside_arrive_at_the_end_at_the_handlers_of_before():
    def handler(number, frame):
        raise Interrupted(number)

    done, before = [], {kind: signal.signal(kind, handler) for kind in (signal.SIGINT, signal.SIGTERM)}

    def interrupted() -> None:
        with held_back():
            signal.raise_signal(signal.SIGINT)
            done.append("the rest")

    def overridden() -> None:
        with held_back():
            signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(number))  # as Ray does
            signal.raise_signal(signal.SIGTERM)

    try:
        with pytest.raises(Interrupted, match=str(int(signal.SIGINT))):
            interrupted()
        with pytest.raises(Interrupted, match=str(int(signal.SIGTERM))):
            overridden()
        assert signal.getsignal(signal.SIGTERM) is handler
    finally:
        for kind, former in before.items():
            signal.signal(kind, former)
    assert done == ["the rest"]


def test_ctrl_c_while_ray_starts_leaves_no_process(tmp_path):
    code = (
        "import signal, threading, os\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # which those started in the background lack
        "from pipeline.cluster import Cluster\n"
        "import ray\n"
        "start = ray.init\n"
        "def init(*args, **keys):\n"
        "    found = start(*args, **keys)\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    print('started', flush=True)\n"
        "    return found\n"
        "ray.init = init\n"
        "try: Cluster().ray()\n"
        "except KeyboardInterrupt: print('stopped', ray.is_initialized(), flush=True)\n"
        "import psutil\n"
        "print(len(psutil.Process().children(recursive=True)))\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=200, check=True
    )
    assert done.stdout.splitlines()[-1:] == ["0"], done.stdout + done.stderr
    assert "stopped False" in done.stdout
    assert "Traceback" not in done.stderr


def test_keys_stay_with_the_process_that_has_them(tmp_path):
    code = (
        "import os\n"
        "from pipeline.cluster import Cluster\n"
        "cluster = Cluster(keys=['MY_KEY'])\n"
        "ray = cluster.ray()\n"
        "look = ray.remote(lambda: ('MY_KEY' in os.environ, os.environ['OTHER']))\n"
        "found = ray.get(look.remote()), os.environ['MY_KEY']\n"
        "cluster.stop()\n"
        "print(found)\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    environment |= {"MY_KEY": "secret", "OTHER": "seen"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=200
    )
    assert done.stdout.splitlines()[-1:] == ["((False, 'seen'), 'secret')"], done.stdout + done.stderr


def node(identity: str, cpus: float = 1.0) -> dict:
    return {"NodeID": identity, "Alive": True, "Resources": {"CPU": cpus}, "NodeManagerAddress": "10.0.0.1"}


def on_one_node() -> SimpleNamespace:
    """A cluster where nobody but this node runs tasks."""
    context = SimpleNamespace(get_node_id=lambda: "here")
    return SimpleNamespace(nodes=lambda: [node("here"), node("head", 0.0)], get_runtime_context=lambda: context)


def test_with_one_node_nothing_is_asked():
    check_shared(on_one_node(), {"store": "/not/there", "model.name": "/nor/there"})


def test_a_store_in_a_jobs_working_directory_is_refused_on_one_node_as_well():
    store = "/tmp/ray/session_1/runtime_resources/working_dir_files/_ray_pkg_1/examples/runs"
    with pytest.raises(ClusterError, match=r"store: .* lies in the copy that Ray makes .* s3://bucket/prefix"):
        check_shared(on_one_node(), {"store": store})
