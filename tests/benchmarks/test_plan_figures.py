"""What `python -m benchmarks.plan` makes of small measurements."""

from __future__ import annotations

import pytest

from benchmarks import plan, plan_million
from pipeline.job_file import load_job
from pipeline.plan import make_plan


def test_a_store_of_many_shards_is_planned_in_a_process_of_its_own(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(plan, "CLASSES", 10)
    figures = plan.million(tmp_path, images=2000, shards={"encode_images": 7, "score": 5})
    assert list(figures) == ["plan_1m_seconds", "plan_1m_gb"]
    assert 0 < figures["plan_1m_gb"] < 1
    said = capsys.readouterr()
    assert said.out == ""
    for table in ("encode_images/whole", "encode_images/views.guided", "score/methods.clip", "score/methods.abs"):
        assert f"{table}: wanted 2,000, present 1,800, missing 200" in said.err
    folders = {path.parent for path in tmp_path.glob("**/tables/*/*/*.arrow")}
    counts = {(folder.parent.name, len(list(folder.glob("*.arrow")))) for folder in folders}
    assert counts == {("describe", 1), ("encode_images", 7), ("score", 5)}
    found = plan_million.measure(tmp_path)
    assert found["tables"]["score/methods.dnd"] == (2000, 1800, 200, 0)


def test_the_overhead_counts_what_is_written_and_what_all_workers_wait_for():
    phases = {"encode": 70.0, "decode": 26.0, "write": 2.0}
    assert plan.sink_overhead(phases, driver=1.0, workers=2) == pytest.approx((2 + 2) / (98 + 2))


def test_the_driver_is_timed_with_the_plan_and_the_rows_to_compute(small_job, monkeypatch):
    job, asked = small_job(), []
    monkeypatch.setattr("stages.encode_images._rows_lacking", lambda tables, manifest: asked.append(tables) or [])
    assert plan.account_seconds(job) > 0
    assert [[table.name for table in tables] for tables in asked] == [["whole", "views.random", "views.guided"]]
    for table in make_plan(load_job(job)).of("encode_images").tables:
        refused = [{"key": key, "uri": "u", "reason": "r"} for key in table.wanted.to_pylist()]
        table.keeper.reject(refused, "encode_images", "run")
    plan.account_seconds(job)
    assert len(asked) == 1
