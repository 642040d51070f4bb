"""Jobs that ask a language model, from the command line: what it would take, who is asked first, what was left out."""

from __future__ import annotations

import io
import json

import pyarrow.parquet as pq
import pytest
from rich.console import Console

from benchmarks import chat_server
from benchmarks.chat_server import ChatServer
from pipeline.cluster import Cluster
from pipeline.job_file import load_job
from pipeline.plan import make_plan
from pipeline.run import Selection, run_job
from pipeline.watch import LogWatcher
from pipeline.why import why_missing
from stages.described import read_descriptors

MARKS = {
    "blue jay": ["grey bill", "tall crest"],
    "red robin": ["dark eye", "long tail"],
    "wren": ["tiny bill", "short tail"],
}


@pytest.fixture
def server():
    with ChatServer() as server:
        for bird, words in MARKS.items():
            marks = [{"aspect": "part", "text": text} for text in [*words, "a loud song"]]
            server.misbehave(chat_server.saying(json.dumps({"descriptors": marks})), about=f"Name: {bird}\n")
        yield server


@pytest.fixture
def asking_job(small_job, server, tiny_model):
    """`asking_job(**keys of the set)` -> a job file whose descriptors are asked of the server."""

    def write(describe=None, **settings):
        asked = {"provider": "openai", "model": "test-model", "base_url": server.base_url, "per_class": 2}
        model = {"name": f"local-dir:{tiny_model}"}
        keys = {
            "descriptors": {"marks": asked | settings},
            "model": model,
            "methods": ["clip", "clip_d"],
            "views": None,
        }
        return small_job(**keys, describe=describe)

    return write


def run_until(job, stage: str) -> str:
    said = io.StringIO()
    run_job(load_job(job), LogWatcher(Console(file=said, width=1000)), Cluster(), Selection(until=stage))
    return said.getvalue()


def test_a_dry_run_tells_questions_tokens_and_dollars_and_asks_nothing(asking_job, server, fieldmark):
    job = asking_job(describe={"price": {"prompt": 1000.0, "completion": 1000.0}})
    said = fieldmark("run", job, "--dry-run")
    assert said.status == 0
    assert "would ask descriptors.marks: 3 questions for test-model, about" in said.out
    (asking,) = json.loads(fieldmark("run", job, "--dry-run", "--json").out)["asking"]
    tokens = asking["prompt_tokens"] + asking["completion_tokens"]
    assert asking["dollars"] == pytest.approx(tokens / 1000)
    assert (asking["questions"], asking["stored"]) == (3, 0)
    assert server.asked == []


def test_what_contrast_and_a_sweep_would_ask_is_told_as_well_and_what_they_share_once(asking_job, fieldmark):
    (asking,) = json.loads(fieldmark("run", asking_job(prompt="contrast"), "--dry-run", "--json").out)["asking"]
    assert asking["questions"] == 3
    swept = asking_job()
    swept.write_text(swept.read_text() + "sweep: {descriptors.marks.fallback: [none, names]}\n")
    found = json.loads(fieldmark("run", swept, "--dry-run", "--json").out)["variants"]
    assert [sum(one["questions"] for one in each["asking"]) for each in found] == [3, 0]


def test_above_the_limit_a_person_is_asked_first(asking_job, fieldmark, terminal, monkeypatch):
    from pipeline import run_sweep

    ran = []
    monkeypatch.setattr(run_sweep, "run_job", lambda job, *rest: ran.append(job.name) or [])
    few = asking_job()
    assert "language models will be asked" not in fieldmark("run", few).err
    many = asking_job(describe={"ask_above_tokens": 10})
    assert "language models will be asked" in fieldmark("run", many).err
    assert len(ran) == 2, "where nobody can be asked it is told, and goes on"
    terminal("n\n")
    said = fieldmark("run", many)
    assert (said.status, len(ran)) == (1, 2)
    assert "descriptors.marks: 3 questions for test-model" in said.err
    assert "ask them? [y/N]" in said.err
    assert fieldmark("run", many, "--yes").status == 0
    assert fieldmark("run", many, "--only", "encode_images").status == 0
    assert len(ran) == 4


def test_contrast_asks_about_the_classes_most_like_each_by_name_and_a_rerun_asks_nothing(ray, asking_job, server):
    job = asking_job(prompt="contrast")
    plan = make_plan(load_job(job))
    assert plan.of("describe").unknown == "known after similar_classes"
    said = run_until(job, "describe")
    plan = make_plan(load_job(job))
    assert plan.of("similar_classes").done
    (table,) = plan.of("describe").tables
    assert read_descriptors(table) == MARKS
    questions = {bird: asked.last for bird in MARKS for asked in server.asked if f"Name: {bird}\n" in asked.last}
    assert {other for other in MARKS if other in questions["wren"].split("Easily taken for it:")[1]} == {
        "blue jay",
        "red robin",
    }
    assert "3 not visual" in said
    count = len(server.asked)
    run_until(job, "describe")
    assert len(server.asked) == count


def test_what_was_left_out_is_a_table_with_reasons(ray, asking_job, fieldmark, tmp_path):
    job = asking_job()
    assert fieldmark("export", job, "dropped.marks", "-o", tmp_path / "dropped.parquet").status == 1
    run_until(job, "describe")
    said = fieldmark("export", job, "dropped.marks", "-o", tmp_path / "dropped.parquet")
    assert said.status == 0
    rows = pq.read_table(tmp_path / "dropped.parquet").to_pylist()
    assert [(row["class"], row["text"], row["reason"]) for row in rows] == [
        (bird, "a loud song", "not visual") for bird in MARKS
    ]
    assert fieldmark("export", job, "dropped.other", "-o", tmp_path / "x.parquet").status == 2


def test_status_says_which_class_is_new_and_what_else_changed(ray, asking_job, tmp_path, write_photos):
    job = asking_job()
    run_until(job, "describe")
    write_photos(tmp_path / "photos", ["owl/0.png"])
    (table,) = make_plan(load_job(job)).of("describe").tables
    assert "1 class is new: owl" in why_missing(table, load_job(job).store)
    (table,) = make_plan(load_job(asking_job(per_class=3))).of("describe").tables
    assert "descriptors.marks.per_class 2 -> 3" in why_missing(table, load_job(job).store)


def test_an_openai_set_is_planned_without_heavy_packages(asking_job, server):
    import subprocess
    import sys

    code = (
        "import sys\n"
        f"sys.argv = ['fieldmark', 'run', {str(asking_job(prompt='field_marks'))!r}, '--dry-run']\n"
        "from pipeline.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print(sorted({'openai', 'torch', 'ray', 'lancedb', 'open_clip', 'aiohttp'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert "would ask" in done.stdout
