"""Join a Ray cluster by its address, quickly or with a reason, and bring this code to its workers."""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import socket
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

from pipeline.cluster_error import ClusterError

SECONDS_TO_ANSWER = 10.0
PACKAGES = ("pipeline", "stages", "prompts", "storage")
"""what tasks and actors are made of"""

# What every server that speaks gRPC answers at once: HTTP/2's greeting with empty settings, by settings of its own.
_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
_SETTINGS = 0x04


def prepare_connection(address: str) -> None:
    """See that a cluster can be there, before Ray tries for minutes. Raises ClusterError."""
    if "://" in address:
        raise ClusterError(
            f"{address}: a job joins a cluster by HOST:PORT of its head, 6379 mostly, from one of its nodes. From "
            "elsewhere submit it: ray job submit --address http://HEAD:8265 --working-dir . -- "
            "python run_pipeline.py run JOB"
        )
    # Asked before `ray` is imported, which reads it then: one try, not twenty of forty seconds.
    os.environ.setdefault("RAY_NUM_REDIS_GET_RETRIES", "1")
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise ClusterError(f"{address!r} is no address of a cluster; it looks like HOST:PORT, for example head:6379")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), SECONDS_TO_ANSWER) as connection:
            answers = bool(os.environ.get("RAY_USE_TLS", "0") != "0") or _speaks_grpc(connection)
    except (OSError, OverflowError) as error:
        raise ClusterError(
            f"no Ray cluster at {address} ({error}). Is it up, and is this the address that `ray start --head` told?"
        ) from None
    if not answers:
        raise ClusterError(
            f"what answers at {address} is no Ray head. Its port is 6379 mostly; 8265 is the dashboard's, for "
            "`ray job submit`"
        )


def _speaks_grpc(connection: socket.socket) -> bool:
    connection.sendall(_GREETING)
    answer = b""
    while len(answer) < 4:
        more = connection.recv(9)
        if not more:
            return False
        answer += more
    return answer[3] == _SETTINGS


def connect(ray: ModuleType, address: str) -> str | None:
    """Join the cluster; returns the url of its dashboard, if it has one. Raises ClusterError."""
    try:
        with tempfile.TemporaryDirectory() as nothing:
            Path(nothing, "nothing.txt").write_text("Workers import from py_modules alone.\n")
            environment = code_for_workers(nothing)
            context = ray.init(
                address=address, runtime_env=environment, logging_level=logging.ERROR, log_to_driver=False
            )
    except ConnectionError as error:
        raise ClusterError(f"no Ray cluster at {address}: {error}") from None
    except RuntimeError as error:
        if "Version mismatch" not in str(error):
            raise
        told = "; ".join(line.strip() for line in str(error).splitlines() if line.strip())
        raise ClusterError(
            f"the cluster at {address} is of another Ray or Python: {told}. Install the same versions here"
        ) from None
    return f"http://{context.dashboard_url}" if context.dashboard_url else None


def code_for_workers(nothing: str) -> dict[str, Any]:
    """The runtime environment that brings this code to workers; empty in a Ray job that brings it already.

    Without a working directory Ray has workers look in the driver's folders first, where another node may have other
    code: hence one with `nothing` in it. A Ray job's own environment is joined with this one by Ray, which refuses a
    key that both have.
    """
    job = json.loads(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR") or "{}").get("runtime_env") or {}
    folders = [Path(importlib.util.find_spec(name).submodule_search_locations[0]).resolve() for name in PACKAGES]
    brought = "working_dir" in job and all(folder.parent == Path.cwd().resolve() for folder in folders)
    if brought or "py_modules" in job:
        return {}
    ours = {"py_modules": [str(folder) for folder in folders], "working_dir": nothing, "excludes": ["__pycache__"]}
    return {key: value for key, value in ours.items() if key not in job}
