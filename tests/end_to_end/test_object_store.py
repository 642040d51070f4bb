"""A whole job whose images and store lie in a bucket of a real S3 server: driver, Ray workers and LanceDB go there."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from PIL import Image

from storage.files import list_files, list_folders, read_bytes, write_atomic
from storage.objects import listing

BIRDS = ("blue jay", "red robin", "wren")
SECRET = "a-word-that-nobody-may-read"

CHILD = """
import contextlib, io, json, os, sys
import pyarrow as pa
import ray

ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=200_000_000)
from pipeline.cli import main
from pipeline.feature_store import FeatureStore
from storage.files import list_files, list_folders, read_bytes, remove_file

JOB, STORE = sys.argv[1:]

def fieldmark(command, *arguments):
    sys.argv = ["fieldmark", command, JOB, "--json", *arguments]
    with contextlib.redirect_stdout(io.StringIO()) as out:
        try:
            main()
        except SystemExit as ending:
            assert not ending.code, (command, ending.code)
    return json.loads(out.getvalue())

def computed():
    return {stage["stage"]: (stage["computed"], stage["rejected"]) for stage in fieldmark("run")["stages"]}

def lose_a_shard(stage):
    path = list_files(list_folders(f"{STORE}/tables/{stage}")[0], ".arrow")[0]
    rows = pa.ipc.open_file(read_bytes(path)).read_all().num_rows
    remove_file(path)
    return rows

told = {"first": computed(), "second": computed(), "before": fieldmark("predict")}
told["hits"] = fieldmark("query", "a red breast", "-k", "3")["hits"]
told["opened"] = FeatureStore.open(STORE).search("a red breast", k=3)
told["lost"] = {stage: lose_a_shard(stage) for stage in ("encode_images", "score")}
told["third"] = computed()
told["after"] = fieldmark("predict")
print(json.dumps(told))
"""


@pytest.fixture
def job(bucket, picture, tiny_model, write_job, tmp_path, monkeypatch):
    """The job file, its bucket filled with six pictures of three birds and one file that is no picture."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    for bird in BIRDS:
        for number in range(2):
            Image.fromarray(picture(f"{bird}/{number}.png")).save(tmp_path / "a.png")
            write_atomic(f"{bucket}/photos/{bird}/{number}.png", (tmp_path / "a.png").read_bytes(), run="r")
    write_atomic(f"{bucket}/photos/wren/broken.png", b"no picture", run="r")
    (tmp_path / "marks.json").write_text(json.dumps({bird: [f"a mark of the {bird}"] for bird in BIRDS}))
    return write_job(
        tmp_path,
        name="birds",
        store=f"{bucket}/runs/birds",
        dataset={"path": f"{bucket}/photos"},
        model={"name": f"local-dir:{tiny_model}"},
        descriptors={"marks": {"provider": "file", "path": "marks.json"}},
        methods=["clip", "crops_mean"],
        views={"random": {"kind": "random", "crops": 2}},
        resources={"encode": {"batch": 4, "actors": 1}},
    )


def test_a_job_in_a_bucket_runs_resumes_and_answers_and_keeps_its_secrets(job, bucket):
    store = f"{bucket}/runs/birds"
    child = subprocess.run(
        [sys.executable, "-c", CHILD, str(job), store], capture_output=True, text=True, cwd=job.parent, timeout=300
    )
    assert child.returncode == 0, child.stderr[-4000:]
    told = json.loads(child.stdout.splitlines()[-1])

    assert told["first"]["encode_images"] == [12, 1]  # 6 images, whole and in views; one rejected
    assert told["first"]["score"] == [12, 0]
    assert {computed for computed, _ in told["second"].values()} == {0}

    assert {stage: computed for stage, (computed, _) in told["third"].items() if computed} == told["lost"]
    assert 0 < told["lost"]["encode_images"] < 6
    assert told["after"] == told["before"]

    assert len(told["hits"]) == 3
    assert told["opened"] == told["hits"]
    _check_the_bucket(bucket, store)
    assert SECRET not in child.stdout + child.stderr
    assert sorted(os.listdir(job.parent)) == ["a.png", "job.yaml", "marks.json"]  # no folder is called `s3:`


def _check_the_bucket(bucket: str, store: str) -> None:
    """Everything lies in the store, nothing half written, and no object holds the secret."""
    assert list_folders(bucket) == [f"{bucket}/photos", f"{bucket}/runs"]
    assert {os.path.basename(folder) for folder in list_folders(store)} >= {"tables", "lance", "runs"}
    assert list_files(store, "weights.json") == [f"{store}/weights.json"]
    objects = [uri for uri, info in listing(store, recursive=True) if info.is_file]
    assert not [uri for uri in objects if ".tmp-" in uri]
    assert not [uri for uri in objects if SECRET.encode() in read_bytes(uri)]
