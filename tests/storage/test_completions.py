"""Stored completions: whole, found, compacted without a loss, by any number of runs."""

from __future__ import annotations

import os
import threading

import pytest

from storage import files
from storage.completions import BrokenCompletion, CompletionStore, completion_key

KEYS = [completion_key("http://host/v1", {"n": number}, 0) for number in range(40)]


def answer(number: int) -> dict:
    return {"content": f"text {number} ä\u2028", "prompt_tokens": number, "refusal": None}


@pytest.fixture(params=["disk", "s3"])
def folder(request, tmp_path) -> str:
    root = str(tmp_path / "store") if request.param == "disk" else f"{request.getfixturevalue('bucket')}/store"
    return f"{root}/completions"


def put_all(store: CompletionStore, numbers=range(6)) -> dict[str, dict]:
    for number in numbers:
        store.put(KEYS[number], answer(number), run="r1")
    return {KEYS[number]: answer(number) for number in numbers}


def names(folder: str, suffix: str = "") -> list[str]:
    return [os.path.basename(path) for path in files.list_files(folder, suffix)]


def test_a_key_is_who_is_asked_what_and_how_often_whatever_the_order():
    body = {"model": "m", "messages": [{"role": "user", "content": "ä"}], "temperature": 0.5}
    key = completion_key("http://host/v1", body, 0)
    assert key == completion_key("http://host/v1", dict(reversed(body.items())), 0)
    others = [("http://other/v1", body, 0), ("http://host/v1", {**body, "seed": 1}, 0), ("http://host/v1", body, 1)]
    assert len({key, *(completion_key(*other) for other in others)}) == 4
    with pytest.raises(ValueError, match="not JSON compliant"):
        completion_key("http://host/v1", {"temperature": float("nan")}, 0)


def test_what_was_put_is_found_at_once_and_after_compacting(folder):
    store = CompletionStore(folder)
    assert store.get_many(KEYS) == {}
    put = put_all(store)
    assert CompletionStore(folder).get_many(KEYS) == put
    assert store.compact("r1") == 6
    assert len(names(folder)) == 1
    assert CompletionStore(folder).get_many(KEYS) == put
    assert CompletionStore(folder).get_many(KEYS[4:9]) == {key: put[key] for key in KEYS[4:6]}
    store.put(KEYS[7], answer(7), "r2")
    assert store.get_many(KEYS) == {**put, KEYS[7]: answer(7)}
    assert store.compact("r2") == 0


def test_the_first_folder_counts_first_and_all_are_written(tmp_path):
    own, cache = str(tmp_path / "own"), str(tmp_path / "cache")
    CompletionStore(cache).put(KEYS[0], answer(10), "other")
    CompletionStore(cache).put(KEYS[1], answer(11), "other")
    CompletionStore(own).put(KEYS[1], answer(1), "r1")
    both = CompletionStore(own, cache)
    both.put(KEYS[2], answer(2), "r1")
    assert both.get_many(KEYS) == {KEYS[0]: answer(10), KEYS[1]: answer(1), KEYS[2]: answer(2)}
    assert f"{KEYS[2]}.json" in names(own)
    assert f"{KEYS[2]}.json" in names(cache)
    both.compact("r1")
    assert both.get_many(KEYS) == {KEYS[0]: answer(10), KEYS[1]: answer(1), KEYS[2]: answer(2)}
    assert (names(own, ".json"), names(cache, ".json")) == ([], [])


def test_many_compacted_files_become_one(tmp_path):
    store = CompletionStore(str(tmp_path))
    put = {}
    for number in range(0, 36, 2):
        put |= put_all(store, range(number, number + 2))
        store.compact("r1")
    assert len(names(str(tmp_path))) < 16
    assert store.get_many(KEYS) == put


def test_compacting_that_was_cut_short_is_done_again(tmp_path):
    store = CompletionStore(str(tmp_path))
    put = put_all(store)
    before = {name: (tmp_path / name).read_bytes() for name in names(str(tmp_path))}
    store.compact("r1")
    for name, data in before.items():  # as if it had died before the first removal
        (tmp_path / name).write_bytes(data)
    assert store.get_many(KEYS) == put
    store.compact("r2")
    assert len(names(str(tmp_path))) == 1
    assert store.get_many(KEYS) == put


def test_readers_never_miss_what_others_are_compacting(tmp_path):
    store = CompletionStore(str(tmp_path))
    put = put_all(store, range(4))
    done = threading.Event()
    errors: list[BaseException] = []

    def write_and_compact(start: int) -> None:
        try:
            for number in [*range(start, 40, 2)] * 3:
                store.put(KEYS[number], answer(number), f"r{start}")
                store.put(KEYS[number % 4], answer(number % 4), f"r{start}")
                CompletionStore(str(tmp_path)).compact(f"r{start}")
        except BaseException as error:
            errors.append(error)

    def read() -> None:
        try:
            while not done.is_set():
                found = CompletionStore(str(tmp_path)).get_many(KEYS[:4])
                assert found == put
        except BaseException as error:
            errors.append(error)

    writers = [threading.Thread(target=write_and_compact, args=(start,)) for start in (4, 5)]
    readers = [threading.Thread(target=read) for _ in range(2)]
    for thread in [*writers, *readers]:
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    for thread in readers:
        thread.join()
    assert errors == []
    assert store.get_many(KEYS) == {KEYS[number]: answer(number) for number in range(40)}


def test_a_broken_file_is_named_where_it_is_asked_for_and_is_in_nobodys_way(tmp_path):
    store = CompletionStore(str(tmp_path))
    put = put_all(store)
    broken = tmp_path / f"{KEYS[3]}.json"
    broken.write_bytes(broken.read_bytes()[:20])
    with pytest.raises(BrokenCompletion, match=rf"{KEYS[3]}\.json is no whole completion.*Remove it, and its question"):
        store.get_many(KEYS)
    assert store.compact("r1") == 5
    assert names(str(tmp_path), ".json") == [broken.name]
    assert store.get_many([*KEYS[:3], KEYS[5]]) == {key: put[key] for key in [*KEYS[:3], KEYS[5]]}
    broken.unlink()
    assert KEYS[3] not in store.get_many(KEYS)
    (compacted,) = tmp_path.glob("*.arrow")
    compacted.write_bytes(compacted.read_bytes()[:200])
    with pytest.raises(BrokenCompletion, match=r"is no whole Arrow file of completions.* the questions in it"):
        store.get_many(KEYS)


def test_only_keys_name_files(tmp_path):
    with pytest.raises(ValueError, match="is no key of a completion"):
        CompletionStore(str(tmp_path)).put("../../elsewhere", {}, "r")
    with pytest.raises(ValueError, match="needs a folder"):
        CompletionStore()


def test_what_is_collected_as_garbage_is_never_what_was_answered(tmp_path):
    from pipeline.gc import find_garbage, remove_garbage

    store = CompletionStore(str(tmp_path / "completions"))
    put = put_all(store)
    garbage = find_garbage(str(tmp_path), [])
    assert garbage.unreached == ()
    remove_garbage(garbage, [])
    assert store.get_many(KEYS) == put
