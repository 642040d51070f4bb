"""What tests of several rooms share: small pictures in folders, a tiny CLIP on disk, job files, a job that has run."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import secrets
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from rich.console import Console

TINY_CLIP = {
    "model_cfg": {
        "embed_dim": 24,
        "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
        "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
    },
    "preprocess_cfg": {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.25, 0.3]},
}
MARKS = {
    "blue jay": ["a blue crest", "a grey breast", "a black collar"],
    "red robin": ["a red breast"],
    "wren": ["a short tail", "a brown back"],
}


@pytest.fixture(scope="session")
def ray():
    """A local Ray of two CPUs that all tests of a session share; jobs find it running and leave it so."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=300_000_000)
    yield ray
    ray.shutdown()


@pytest.fixture(scope="session")
def s3_server():
    """The address of an S3 server that this session's tests share."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    yield "http://{}:{}".format(*server.get_host_and_port())
    server.stop()


@pytest.fixture
def bucket(s3_server, monkeypatch) -> str:
    """`s3://NAME` of an empty bucket of the test's own, with an environment that leads there."""
    import pyarrow.fs

    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server)
    name = f"test-{secrets.token_hex(8)}"
    address = s3_server.removeprefix("http://")
    maker = pyarrow.fs.S3FileSystem(
        endpoint_override=address, scheme="http", region="us-east-1", allow_bucket_creation=True
    )
    maker.create_dir(name)
    return f"s3://{name}"


@pytest.fixture
def asked(bucket):
    """What the S3 server is asked for from now on: a growing list of lines such as `GET /name/key`, without queries."""
    lines: list[str] = []

    class Notes(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found = re.search(r"(GET|HEAD|PUT|POST|DELETE) ([^ ?]+)", record.getMessage())
            lines.append(f"{found[1]} {found[2]}")

    logger, notes = logging.getLogger("werkzeug"), Notes()
    logger.setLevel(logging.INFO)
    logger.addHandler(notes)
    yield lines
    logger.removeHandler(notes)


@pytest.fixture(scope="session")
def picture():
    """`picture(name, width, height)` -> uint8 [H, W, 3], the same for the same arguments, smooth with some noise."""

    def draw(name: str, width: int = 20, height: int = 16) -> np.ndarray:
        rng = np.random.default_rng(list(name.encode()))
        corners = Image.fromarray(rng.integers(0, 256, (3, 3, 3), dtype=np.uint8))
        smooth = np.asarray(corners.resize((width, height), Image.Resampling.BICUBIC)).astype(int)
        return np.clip(smooth + rng.integers(-10, 11, smooth.shape), 0, 255).astype(np.uint8)

    return draw


@pytest.fixture(scope="session")
def write_photos(picture):
    """`write_photos(folder, names)` writes a picture for each relative name, and returns the folder."""

    def write(folder: Path, names: list[str]) -> Path:
        for name in names:
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture(name)).save(path)
        return folder

    return write


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory) -> Path:
    """The folder of a CLIP with random weights, as `local-dir:` wants it: 32 px, patch 8, two blocks, d = 24."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    model = open_clip.CLIP(**TINY_CLIP["model_cfg"])
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    (folder / "open_clip_config.json").write_text(json.dumps(TINY_CLIP))
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return folder


@pytest.fixture(scope="session")
def write_job():
    """`write_job(folder, **keys)` writes these keys as `folder/job.yaml`, and returns its path."""

    def write(folder: Path, **keys) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "job.yaml"
        path.write_text(yaml.safe_dump(keys, sort_keys=False, allow_unicode=True), encoding="utf-8")
        return path

    return write


@pytest.fixture(scope="session")
def stub_model(tmp_path_factory) -> Path:
    """A folder with the two files of a local model, for what never loads it: any bytes have a hash."""
    folder = tmp_path_factory.mktemp("stub")
    (folder / "open_clip_config.json").write_text("{}")
    (folder / "open_clip_model.safetensors").write_bytes(b"weights")
    return folder


@pytest.fixture
def small_job(tmp_path, write_photos, stub_model, write_job):
    """`small_job(**keys)` -> a job file for six labelled pictures of three birds, whose model is never loaded."""

    def write(**keys) -> Path:
        names = [f"{bird}/{number}.png" for bird in MARKS for number in range(2)]
        write_photos(tmp_path / "photos", names)
        (tmp_path / "marks.json").write_text(json.dumps(MARKS))
        defaults = {
            "dataset": {"path": "photos"},
            "model": {"name": f"local-dir:{stub_model}"},
            "descriptors": {"marks": {"provider": "file", "path": "marks.json"}},
            "views": {
                "random": {"kind": "random", "crops": 3},
                "guided": {"kind": "guided", "guide": "clip", "crops": 2},
            },
        }
        chosen = {name: value for name, value in (defaults | keys).items() if value is not None}
        return write_job(tmp_path, **chosen)

    return write


@pytest.fixture(scope="session")
def finished_job(ray, tmp_path_factory, write_photos, tiny_model, write_job) -> Path:
    """The job file of a job that has run: twelve pictures of three birds, one file that is no picture, five methods."""
    from pipeline.cluster import Cluster
    from pipeline.job_file import load_job
    from pipeline.run import run_job
    from pipeline.watch import LogWatcher

    folder = tmp_path_factory.mktemp("finished")
    write_photos(folder / "photos/test", [f"{bird}/{number}.png" for bird in MARKS for number in range(4)])
    write_photos(folder / "photos/train", [f"{bird}/{number}.png" for bird in MARKS for number in range(1)])
    (folder / "photos/test/wren/broken.png").write_bytes(b"no picture")
    (folder / "marks.json").write_text(json.dumps(MARKS))
    job = write_job(
        folder,
        name="birds",
        dataset={"path": "photos", "splits": {"query": "test", "support": "train"}},
        model={"name": f"local-dir:{tiny_model}"},
        descriptors={"marks": {"provider": "file", "path": "marks.json"}},
        methods=["clip", "cupl", "crops_mean", "dnd", "abs"],
        views={
            "random": {"kind": "random", "crops": 3},
            "guided": {"kind": "guided", "guide": "clip", "crops": 2},
        },
        resources={"encode": {"batch": 5, "actors": 1}},
    )
    run_job(load_job(job), LogWatcher(Console(file=io.StringIO())), Cluster())
    return job
