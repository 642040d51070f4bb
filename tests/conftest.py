"""What tests of several rooms share: small pictures in folders, a tiny CLIP on disk, job files, a job that has run."""

from __future__ import annotations

import io
import json
import os
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

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=300_000_000)
    yield ray
    ray.shutdown()


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
        resources={"encode": {"batch": 5}},
    )
    run_job(load_job(job), LogWatcher(Console(file=io.StringIO())), Cluster())
    return job
