"""The one mechanism: what a table wants, has, lacks and has rejected, and when a stage has rejected too much."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.manifest import SCHEMA
from stages.stage import Ingredients, Inputs, NotKnownYet, Table, TooManyRejects, check_rejects, without
from storage.shards import ShardTable

MADE = Ingredients(settings={"views.crops": 3}, version=1, weights="w", rows={"whole": "f"}, whole={"texts": "d"})


def table_in(folder: Path, wanted: list[str], ingredients: Ingredients = MADE) -> Table:
    return Table("stage", "name", ingredients, wanted, ShardTable(str(folder)))


def inputs(store: Path, **kept) -> Inputs:
    return Inputs(str(store), SCHEMA.empty_table(), {}, kept)


def test_wanted_less_rejected_less_present_is_missing(tmp_path):
    table = table_in(tmp_path, ["a", "b", "c", "d"])
    table.keeper.append(pa.table({"key": ["b", "gone"]}), "run")
    table.keeper.reject([{"key": key, "uri": "u", "reason": "r"} for key in ("d", "old")], "stage", "run")
    table = table_in(tmp_path, ["a", "b", "c", "d"])
    assert (table.missing.to_pylist(), table.present, table.rejected, table.complete) == (["a", "c"], 1, {"d"}, False)
    assert table.usable().to_pylist() == ["a", "b", "c"]
    table.keeper.append(pa.table({"key": ["a", "c"]}), "run")
    assert table_in(tmp_path, ["a", "b", "c", "d"]).complete


@given(
    wanted=st.sets(st.sampled_from("abcdefgh")),
    present=st.sets(st.sampled_from("abcdefgh")),
    rejected=st.sets(st.sampled_from("abcdefgh")),
)
def test_every_wanted_row_is_present_missing_or_rejected_and_counted_once(wanted, present, rejected):
    class Kept:
        def keys(self):
            return pa.chunked_array([sorted(present)], pa.string())

        def missing(self, keys):
            return without(keys, present | rejected)

        def rejects(self):
            return pa.table({"key": pa.array(sorted(rejected), pa.string())})

    table = Table("stage", "name", MADE, sorted(wanted), Kept())
    assert table.present + len(table.missing) + len(table.rejected) == len(wanted)
    assert table.complete == (wanted <= present | rejected)


@pytest.mark.parametrize(
    "other",
    [
        Ingredients(settings={"views.crops": 4}, version=1, weights="w", rows={"whole": "f"}, whole={"texts": "d"}),
        Ingredients(settings={"views.crops": 3}, version=2, weights="w", rows={"whole": "f"}, whole={"texts": "d"}),
        Ingredients(settings={"views.crops": 3}, version=1, weights="x", rows={"whole": "f"}, whole={"texts": "d"}),
        Ingredients(settings={"views.crops": 3}, version=1, weights="w", rows={"whole": "g"}, whole={"texts": "d"}),
        Ingredients(settings={"views.crops": 3}, version=1, weights="w", rows={"whole": "f"}, whole={"texts": "e"}),
    ],
)
def test_every_ingredient_decides_the_fingerprint_and_with_it_the_folder(tmp_path, other):
    assert table_in(tmp_path, [], other).fingerprint != table_in(tmp_path, []).fingerprint
    here = inputs(tmp_path)
    assert here.shard_table("stage", other).folder != here.shard_table("stage", MADE).folder


def test_the_wanted_keys_are_no_part_of_a_fingerprint_and_the_folder_carries_it(tmp_path):
    table = table_in(tmp_path, ["a"])
    assert table.fingerprint == table_in(tmp_path, ["a", "b"]).fingerprint
    assert inputs(tmp_path).shard_table("stage", MADE).folder.endswith(f"stage/{table.fingerprint}")


def test_a_stage_whose_input_is_not_there_is_known_later(tmp_path):
    table = table_in(tmp_path / "t", ["a"])
    given_tables = inputs(tmp_path, before=[table])
    assert given_tables.tables("before") == [table]
    with pytest.raises(NotKnownYet, match="known after before"):
        given_tables.complete("before")
    with pytest.raises(NotKnownYet, match="known after other"):
        given_tables.tables("other")
    table.keeper.append(pa.table({"key": ["a"]}), "run")
    done = [table_in(tmp_path / "t", ["a"])]
    assert inputs(tmp_path, before=done).complete("before") == done


@pytest.mark.parametrize(("rejected", "wanted", "limit"), [(10, 10, 0.0), (11, 1100, 0.01), (11, 11, 1.0), (0, 0, 0.0)])
def test_ten_rejects_or_the_jobs_share_of_them_are_borne(rejected, wanted, limit):
    check_rejects("encode_images", rejected, wanted, limit)


@pytest.mark.parametrize(("rejected", "wanted", "limit"), [(11, 1099, 0.01), (11, 5000, 0.0)])
def test_more_rejects_than_ten_and_than_the_share_stop_the_stage_with_what_to_do(rejected, wanted, limit):
    with pytest.raises(TooManyRejects, match=rf"encode_images: {rejected} of {wanted} .*max_rejects.*kept"):
        check_rejects("encode_images", rejected, wanted, limit)
