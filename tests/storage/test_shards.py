from __future__ import annotations

import io
import os
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import storage.shards
from storage import files
from storage.schemas import fixed_list, to_numpy
from storage.shard_files import CorruptShard
from storage.shards import ShardTable

some_keys = st.lists(st.text(min_size=1, max_size=4), max_size=8, unique=True)


def number(key: str) -> int:
    """What the row of a key holds: a function of the key alone, as the rows of a stage are."""
    return sum(map(ord, key)) % 1000


def rows_for(keys: list[str]) -> pa.Table:
    features = np.array([[number(key), 1] for key in keys], np.float16).reshape(-1, 2)
    return pa.table(
        {
            "key": pa.array(keys, pa.string()),
            "number": [number(key) for key in keys],
            "f": fixed_list(features),
        }
    )


@pytest.fixture
def table(tmp_path) -> ShardTable:
    return ShardTable(str(tmp_path / "table"))


def test_a_table_exists_when_it_was_created_and_keeps_its_first_description(table):
    assert not table.exists
    table.create({"views.guided.crops": 60, "weights": "abc"})
    table.create({"views.guided.crops": 30})
    assert table.exists
    assert ShardTable(table.folder).description() == {"views.guided.crops": 60, "weights": "abc"}
    assert table.rows() == 0
    assert table.modified() is None
    with pytest.raises(LookupError, match="no rows yet"):
        table.read()


def test_rows_are_read_in_the_order_of_the_keys_asked_for(table):
    table.append(rows_for(["c", "a"]), "r")
    table.append(rows_for(["d", "b"]), "r")
    found = table.read(["b", "a", "d", "a"], columns=["f", "key"])
    assert found.column_names == ["f", "key"]
    assert found["key"].to_pylist() == ["b", "a", "d", "a"]
    assert to_numpy(found["f"], (2,))[:, 0].tolist() == [98, 97, 100, 97]
    assert sorted(table.read(columns=["number"])["number"].to_pylist()) == [97, 98, 99, 100]
    assert table.read([]).num_rows == 0
    assert table.read([]).column_names == ["key", "number", "f"]
    assert table.rows() == 4
    assert table.bytes() > 0
    assert table.modified() == max(
        os.stat(os.path.join(table.folder, name)).st_mtime for name in os.listdir(table.folder)
    )


@settings(max_examples=40, deadline=None)
@given(st.lists(some_keys, max_size=5), st.randoms(use_true_random=False))
def test_whatever_is_appended_in_whatever_shards_is_read_back_one_row_a_key(batches, random):
    expected = {key: number(key) for batch in batches for key in batch}
    with tempfile.TemporaryDirectory() as folder:
        table = ShardTable(folder)
        for batch in batches:
            table.append(rows_for(batch), "r")
            if random.random() < 0.5:
                table.keys()  # a reader that looks in between sees the same in the end
        assert set(table.keys().to_pylist()) == set(expected)
        assert table.keys() == ShardTable(folder).keys()
        if not expected:
            return
        everything = table.read()
        assert everything.num_rows == table.rows() == len(expected)
        assert dict(zip(everything["key"].to_pylist(), everything["number"].to_pylist(), strict=True)) == expected
        asked = random.choices(sorted(expected), k=5)
        assert table.read(asked)["number"].to_pylist() == [expected[key] for key in asked]


keys_alike = st.lists(st.sampled_from(["a", "b", "ab", "é", "\U0001f426", "a@1"]) | st.text(min_size=1), max_size=6)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["add", "add", "remove", "reject", "look"]), keys_alike), max_size=12))
def test_what_a_table_knows_of_its_shards_is_what_a_slow_reader_finds(steps):
    """Shards come and go and overlap; the oracle reads every file anew into a dict, the first name last."""
    with tempfile.TemporaryDirectory() as folder:
        table, refused = ShardTable(folder), set()
        for number, (step, drawn) in enumerate(steps):
            keys = list(dict.fromkeys(drawn))
            if step == "add":
                table.append(pa.table({"key": pa.array(keys, pa.string()), "shard": [number] * len(keys)}), "r")
            elif step == "remove" and (names := sorted(Path(folder).glob("*.arrow"))):
                names[len(drawn) % len(names)].unlink()
            elif step == "reject":
                table.reject([{"key": key, "uri": "u", "reason": "bad"} for key in keys], "stage", "r")
                refused.update(keys)
            held = {}
            for path in sorted(Path(folder).glob("*.arrow"), reverse=True):
                rows = pa.ipc.open_file(path.read_bytes()).read_all()
                held |= dict(zip(rows["key"].to_pylist(), rows["shard"].to_pylist(), strict=True))
            wanted = list(dict.fromkeys([*drawn, *held, "never"]))
            for one in (table, ShardTable(folder)):
                assert set(one.keys().to_pylist()) == set(held)
                assert one.rows() == len(held)
                assert one.missing(wanted).to_pylist() == [key for key in wanted if key not in {*held, *refused}]
                if held:
                    asked = [*held, *list(held)[::-1][:3]]
                    assert one.read(asked, ["shard"])["shard"].to_pylist() == [held[key] for key in asked]
                    everything = one.read()
                    assert len(everything) == len(held)
                    assert dict(zip(*everything.to_pydict().values(), strict=True)) == held
                with pytest.raises(KeyError, match="1 of 1 keys"):
                    one.read(["never"])


def test_neighbours_are_looked_for_in_the_shards_that_may_hold_them_alone(table, monkeypatch):
    for start in range(0, 60, 3):
        table.append(rows_for([f"k{number:02}" for number in range(start, start + 3)]), "r")
    opened = []
    real = storage.shards.read_shard
    monkeypatch.setattr(storage.shards, "read_shard", lambda path, fields: opened.append(path) or real(path, fields))
    assert table.read(["k07", "k06", "k09"])["number"].to_pylist() == [number(f"k{n:02}") for n in (7, 6, 9)]
    assert len(opened) == 2


def test_a_table_that_is_known_is_not_listed_again_to_read_rows_by_their_keys(table, monkeypatch):
    table.append(rows_for(["a"]), "r")
    assert table.read(["a"]).num_rows == 1
    ShardTable(table.folder).append(rows_for(["b"]), "r2")
    assert table.read(["b", "a"])["key"].to_pylist() == ["b", "a"], "what is not known is looked for"
    monkeypatch.setattr(files, "list_files", lambda *_: pytest.fail("listed"))
    assert table.read(["a", "b"]).num_rows == 2
    monkeypatch.undo()
    table.clear()
    with pytest.raises(KeyError, match="2 of 2 keys"):
        table.read(["a", "b"])


def test_columns_are_read_in_the_order_asked_for_and_no_others(table, monkeypatch):
    table.append(rows_for(["a", "b"]), "r")
    fields = []
    real = storage.shards.read_shard
    monkeypatch.setattr(storage.shards, "read_shard", lambda path, some: fields.append(some) or real(path, some))
    assert table.read(["b"], ["number", "key"]).to_pylist() == [{"number": 98, "key": "b"}]
    assert table.read(columns=["f"]).column_names == ["f"]
    assert fields == [[0, 1], [2]]


class Counted(io.BytesIO):
    """A file that counts the bytes that are read of it, as an object store bills them."""

    fetched = 0

    def read(self, *size: int) -> bytes:
        data = super().read(*size)
        Counted.fetched += len(data)
        return data


def test_of_a_shard_only_what_is_asked_for_is_fetched(table, monkeypatch):
    rows = rows_for([f"{table.folder} {number}" for number in range(20)])
    table.append(rows.append_column("features", fixed_list(np.zeros((20, 5000), np.float32))), "r")
    monkeypatch.setattr(files, "open_mapped", lambda path: pa.PythonFile(Counted(Path(path).read_bytes()), "r"))
    assert table.rows() == 20
    assert sum(table.read(columns=["number"])["number"].to_pylist()) == sum(rows["number"].to_pylist())
    assert Counted.fetched < 20_000
    assert len(table.read(columns=["features"])) == 20
    assert Counted.fetched > 20 * 5000 * 4


def test_a_table_that_is_appended_to_again_and_again_reads_its_columns_once(table, monkeypatch):
    table.append(rows_for(["a"]), "r")
    reads = []
    real = storage.shards.read_schema
    monkeypatch.setattr(storage.shards, "read_schema", lambda path: reads.append(path) or real(path))
    other = ShardTable(table.folder)
    for key in "bcd":
        table.append(rows_for([key]), "r")
        other.append(rows_for([key + key]), "r")
    assert len(reads) == 1, "the one that wrote its first shard itself knows its columns"


def test_tables_that_want_and_hold_the_same_keys_are_compared_once(tmp_path, monkeypatch):
    monkeypatch.setattr(storage.shards, "_WORTH_KEEPING", 2)
    tables = [ShardTable(str(tmp_path / name)) for name in "ab"]
    for one in tables:
        one.append(rows_for(["a", "b"]), "r")
    wanted = pa.chunked_array([["a", "b", "c"]])
    first = tables[0].missing(wanted)
    assert first.to_pylist() == ["c"]
    assert tables[1].missing(pa.chunked_array([["a"], ["b", "c"]])) is first
    tables[1].reject([{"key": "c", "uri": "u", "reason": "bad"}], "stage", "r")
    assert tables[1].missing(wanted).to_pylist() == []
    assert tables[0].missing(wanted) is first


def test_appending_the_same_rows_again_in_any_order_writes_nothing(table):
    name = table.append(rows_for(["b", "a"]), "r1")
    before = os.stat(os.path.join(table.folder, name))
    assert table.append(rows_for(["a", "b"]), "r2") == name
    after = os.stat(os.path.join(table.folder, name))
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert table.append(rows_for([]), "r") == ""
    assert os.listdir(table.folder) == [name]


def test_a_shard_is_the_same_file_whatever_the_order_and_chunks_of_its_rows(tmp_path):
    one, two = ShardTable(str(tmp_path / "1")), ShardTable(str(tmp_path / "2"))
    name = one.append(rows_for(["a", "b", "c"]), "r")
    two.append(pa.concat_tables([rows_for(["c"]), rows_for(["b", "a"])]).replace_schema_metadata({"from": "x"}), "s")
    assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()


def test_a_key_in_two_shards_is_found_in_the_one_whose_name_sorts_first(table):
    shards = {}
    for number, keys in enumerate((["a", "b"], ["b", "c"])):
        shards[table.append(pa.table({"key": keys, "shard": [number] * 2}), "r")] = number
    assert table.read(["b"])["shard"].to_pylist() == [shards[min(shards)]]
    everything = table.read()
    assert dict(zip(everything["key"].to_pylist(), everything["shard"].to_pylist(), strict=True)) == (
        {"a": 0, "b": shards[min(shards)], "c": 1}
    )
    assert (len(everything), table.rows()) == (3, 3)


def test_rows_that_would_harm_the_table_are_refused(table):
    good = rows_for(["a", "b"])
    table.append(good, "r")
    with pytest.raises(ValueError, match="column `key` of type string"):
        table.append(good.drop_columns("key"), "r")
    with pytest.raises(ValueError, match="column `key` of type string"):
        table.append(good.set_column(0, "key", pa.array([1, 2])), "r")
    for keys in (["x", None], ["x", ""]):
        with pytest.raises(ValueError, match="null or empty"):
            table.append(good.set_column(0, "key", pa.array(keys)), "r")
    with pytest.raises(ValueError, match=r"more than once, such as \['x'\]"):
        table.append(rows_for(["x", "y", "x"]), "r")
    for other in (good.drop_columns("number"), good.select(["key", "f", "number"])):
        with pytest.raises(ValueError, match="columns of its first shard"):
            table.append(other, "r")
    with pytest.raises(ValueError, match="columns of its first shard"):
        table.append(good.set_column(1, "number", pc.cast(good["number"], pa.int32())), "r")
    extension = pa.ExtensionArray.from_storage(
        pa.fixed_shape_tensor(pa.float32(), [1]), fixed_list(np.ones((2, 1), "f"))
    )
    with pytest.raises(ValueError, match="fixed_list"):
        table.append(good.set_column(2, "f", extension), "r")
    assert table.rows() == 2


def test_missing_keys_and_columns_are_named(table):
    table.append(rows_for(["a"]), "r")
    with pytest.raises(KeyError, match=r"1 of 2 keys .*'zebra'"):
        table.read(["a", "zebra"])
    with pytest.raises(KeyError, match=r"colour.*'number'"):
        table.read(columns=["colour"])


@pytest.mark.parametrize("harm", ["empty", "cut", "overwritten", "zeros"])
def test_a_shard_that_another_program_destroyed_is_named_with_what_to_do(table, harm):
    table.append(rows_for(["a"]), "r")
    key = f"only here, {harm}"  # a process remembers the keys of shards by their names
    path = os.path.join(table.folder, table.append(rows_for([key]), "r"))
    whole = Path(path).read_bytes()
    contents = {
        "empty": b"",
        "cut": whole[:-30],
        "overwritten": b"x" * len(whole),
        "zeros": bytes(len(whole)),
    }
    Path(path).write_bytes(contents[harm])
    with pytest.raises(CorruptShard, match=r"\.arrow is no whole Arrow file .* Remove it") as caught:
        ShardTable(table.folder).keys()
    assert path in str(caught.value)
    os.unlink(path)
    assert table.missing(["a", key]).to_pylist() == [key]


def test_thousands_of_shards_do_not_use_up_the_file_descriptors(table):
    import resource

    for index in range(60):
        table.append(rows_for([f"k{index}"]), "r")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 10, hard))
    try:
        everything = table.read()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert everything.num_rows == 60


def test_rejected_rows_are_kept_with_their_reason_and_not_wanted_again(table):
    assert table.rejects().num_rows == 0
    assert table.rejects().column_names == ["key", "uri", "reason", "stage"]
    table.append(rows_for(["a"]), "r")
    table.reject([{"key": "b", "uri": "b.jpg", "reason": "truncated"}], stage="encode_images", run="r")
    table.reject([{"key": "b", "uri": "b.jpg", "reason": "truncated"}], stage="encode_images", run="s")
    table.reject([], stage="encode_images", run="r")
    assert table.rejects().to_pylist() == [
        {"key": "b", "uri": "b.jpg", "reason": "truncated", "stage": "encode_images"}
    ]
    assert table.missing(["c", "b", "a"]).to_pylist() == ["c"]
    assert table.keys().to_pylist() == ["a"]
    with pytest.raises(ValueError, match="key, uri and reason"):
        table.reject([{"key": "b"}], stage="s", run="r")


@settings(max_examples=40, deadline=None)
@given(some_keys, some_keys, some_keys)
def test_missing_keys_are_the_wanted_ones_in_order_without_the_present_and_the_rejected(wanted, present, rejected):
    with tempfile.TemporaryDirectory() as folder:
        table = ShardTable(folder)
        table.append(rows_for(present), "r")
        table.reject([{"key": key, "uri": "u", "reason": "bad"} for key in rejected], "stage", "r")
        missing = table.missing(wanted).to_pylist()
        assert missing == [key for key in wanted if key not in present and key not in rejected]
        table.append(rows_for(missing), "r")
        assert table.missing(wanted).to_pylist() == []


def test_a_cleared_table_has_no_rows_and_no_rejects_but_its_description(table, tmp_path):
    table.create({"crops": 60})
    table.append(rows_for(["a"]), "r")
    table.reject([{"key": "b", "uri": "b", "reason": "bad"}], "stage", "r")
    assert table.keys().to_pylist() == ["a"]
    table.clear()
    assert table.keys().to_pylist() == []
    assert table.rejects().num_rows == 0
    assert table.description() == {"crops": 60}
    assert os.listdir(tmp_path) == ["table"]
    table.append(rows_for(["a", "c"]), "r")
    assert table.read(["c", "a"])["number"].to_pylist() == [99, 97]


def test_a_crash_while_clearing_leaves_an_empty_table_and_something_to_sweep(table, tmp_path, monkeypatch):
    table.append(rows_for(["a"]), "r")

    def die(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(files.shutil, "rmtree", die)
        with pytest.raises(KeyboardInterrupt):
            table.clear()
    assert table.keys().to_pylist() == []
    assert files.sweep_temporaries(str(tmp_path), lambda run: False) == 1
    assert os.listdir(tmp_path) == []


def test_a_reader_maps_a_shard_instead_of_copying_it(table):
    table.append(rows_for(["a", "b"]), "r")
    assert table.rows() == 2  # the keys are copied, once
    before = pa.total_allocated_bytes()
    features = table.read()["f"]
    assert pa.total_allocated_bytes() == before
    seen = to_numpy(features, (2,))
    assert pa.total_allocated_bytes() == before
    assert seen.tolist() == [[97, 1], [98, 1]]
