from __future__ import annotations

import pytest

from storage.records import new_run_id, read_records, write_record


@pytest.mark.parametrize("kind", ["disk", "s3"])
def test_records_come_back_newest_last_and_a_later_write_replaces_an_earlier(kind, tmp_path, request):
    store = str(tmp_path / "store") if kind == "disk" else f"{request.getfixturevalue('bucket')}/store"
    assert read_records(store) == []
    first, second = new_run_id(), new_run_id()
    write_record(store, second, {"state": "started"})
    write_record(store, first, {"state": "failed"})
    write_record(store, second, {"state": "done", "stages": [{"stage": "score", "computed": 3}]})
    assert read_records(store) == [
        {"state": "failed", "run": first},
        {"state": "done", "stages": [{"stage": "score", "computed": 3}], "run": second},
    ]


def test_run_ids_sort_by_time_and_never_repeat():
    ids = [new_run_id() for _ in range(1000)]
    times = [name.split("_")[0] for name in ids]
    assert times == sorted(times)
    assert len(set(ids)) == len(ids)


def test_a_record_that_is_no_json_is_refused_and_a_broken_file_is_named(tmp_path):
    for value in (float("nan"), {1, 2}):
        with pytest.raises((TypeError, ValueError)):
            write_record(str(tmp_path), "r", {"value": value})
    assert read_records(str(tmp_path)) == []
    write_record(str(tmp_path), "r", {})
    (tmp_path / "runs" / "r.json").write_bytes(b"{")
    with pytest.raises(ValueError, match=r"r\.json is no run record"):
        read_records(str(tmp_path))
