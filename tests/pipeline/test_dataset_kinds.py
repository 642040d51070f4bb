"""Every kind of data set in a job file: its paths, its mistakes, and a plan made of it without torch."""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.job_error import JobError
from pipeline.job_file import load_job
from pipeline.plan import make_plan

KINDS = {
    "webdataset": "{kind: webdataset, path: 'birds-{000..000}.tar'}",
    "parquet": "{kind: parquet, path: [birds.parquet]}",
    "table": "{kind: table, path: birds.csv}",
    "torchvision": "{kind: torchvision, name: EuroSAT, root: .}",
}


@pytest.fixture
def job(tmp_path, write_photos, stub_model):
    """`job(dataset)` -> a job file beside two photographs in every form there is."""
    write_photos(tmp_path / "eurosat/2750", ["jay/1.png", "wren/2.png"])
    data = {name: (tmp_path / "eurosat/2750" / name).read_bytes() for name in ("jay/1.png", "wren/2.png")}
    with tarfile.open(tmp_path / "birds-000.tar", "w") as tar:
        for name, content in data.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    pq.write_table(pa.table({"image": list(data.values()), "label": ["jay", "wren"]}), tmp_path / "birds.parquet")
    (tmp_path / "birds.csv").write_text("uri,label\neurosat/2750/jay/1.png,jay\neurosat/2750/wren/2.png,wren\n")

    def write(dataset: str):
        (tmp_path / "job.yaml").write_text(f"dataset: {dataset}\nmodel: {{name: 'local-dir:{stub_model}'}}\n")
        return tmp_path / "job.yaml"

    return write


@pytest.mark.parametrize("kind", KINDS)
def test_a_job_on_any_kind_of_data_set_is_planned_from_paths_relative_to_its_file(job, kind, monkeypatch):
    monkeypatch.chdir("/")
    plan = make_plan(load_job(job(KINDS[kind])))
    assert plan.inputs.classes == ("jay", "wren")
    assert plan.inputs.manifest["class"].to_pylist() == ["jay", "wren"]


@pytest.mark.parametrize("kind", KINDS)
def test_status_of_any_kind_of_data_set_imports_neither_torch_nor_ray(job, kind):
    code = (
        "import sys\n"
        "from pipeline.cli import main\n"
        f"sys.argv = ['fieldmark', 'status', {str(job(KINDS[kind]))!r}, '--json']\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code\n"
        "print(sorted({'torch', 'torchvision', 'ray', 'lancedb'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr.strip().splitlines()[-1]) == (0, "[]")


@pytest.mark.parametrize(
    ("dataset", "key"),
    [
        ("{kind: webdataset, path: 's3://b/x.tar'}", "path"),
        ("{kind: parquet, path: [birds.parquet, 'hf://datasets/x.parquet']}", "path"),
        ("{kind: table, path: birds.csv, classes: 'https://host/names.txt'}", "classes"),
        ("{kind: torchvision, name: EuroSAT, root: 'gs://b'}", "root"),
    ],
)
def test_an_address_in_place_of_a_path_is_told_as_such(job, dataset, key):
    with pytest.raises(JobError, match=rf"dataset\.{key}: '\w+://.*' is an address; .* from disks only\. .*`table`"):
        load_job(job(dataset))


@pytest.mark.parametrize(
    ("dataset", "words"),
    [
        ("{kind: webdaset, path: p}", ["dataset.kind", "'webdaset'", "'folder'", "'webdataset'", "'torchvision'"]),
        ("{kind: 7, path: p}", ["dataset.kind", "7"]),
        ("{kind: webdataset, path: p, lable: cls}", ["dataset.lable", "Did you mean 'label'?", "label_key"]),
        ("{kind: webdataset, path: p, label: text}", ["dataset.label", "'text'", "'cls'"]),
        ("{kind: parquet}", ["dataset.path", "is missing"]),
        ("{kind: parquet, path: p, splits: {query: q, test: x}}", ["dataset.splits.test", "unknown key", "query"]),
        ("{kind: table, path: [a, b]}", ["dataset.path", "valid string"]),
        ("{kind: torchvision, root: .}", ["dataset.name", "is missing"]),
        ("{kind: torchvision, root: ., name: CIFAR10}", ["dataset.name", "'CIFAR10'", "'DTD'"]),
        ("{path: p, label: cls}", ["dataset.label", "unknown key", "splits", "classes", "version"]),
    ],
)
def test_a_mistake_in_any_kind_is_told_with_its_key_and_what_is_allowed(job, dataset, words):
    with pytest.raises(JobError) as raised:
        load_job(job(dataset))
    message = str(raised.value)
    assert [word for word in ["job.yaml", *words] if word not in message] == []
    assert "\n" not in message
