"""The order in which images are read; and the encoder actor on its own: batches before its models, what it refuses."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stages.dataset import ParquetDataset
from stages.encode_images import _EncodeActor, _rows_lacking, planned_weights
from stages.manifest import read_manifest
from stages.settings import GuidedView, ModelSettings, RandomGuide
from stages.stage import Ingredients, Table
from stages.weights import PlannedWeights, model_weights_id
from storage.blobs import read_blobs
from storage.shards import ShardTable


def test_cells_with_ids_of_their_own_go_in_the_order_of_their_row_groups(tmp_path):
    ids = [f"{(7 * row) % 24:02d}" for row in range(24)]
    images = pa.table({"image": [b"%d" % row for row in range(24)], "id": ids, "label": ["wren"] * 24})
    pq.write_table(images, tmp_path / "a.parquet", row_group_size=6)
    manifest, _ = read_manifest(ParquetDataset(path=str(tmp_path / "a.parquet")))
    keeper = ShardTable(str(tmp_path / "table"))
    table = Table("encode_images", "whole", None, manifest["key"].to_pylist(), keeper)
    rows = _rows_lacking([table], manifest)
    assert read_blobs([row["uri"] for row in rows]) == images["image"].to_pylist()
    assert [row["id"] for row in rows] == ids
    assert {tuple(row["lacks"]) for row in rows} == {("whole",)}


def test_plain_files_go_in_the_order_of_the_manifest_and_what_no_table_lacks_stays_away(tmp_path):
    ids = ["a b.png", "a.png", "b.png", "c.png"]
    columns = dict.fromkeys(("version", "split", "class"), ["1"] * 4)
    manifest = pa.table({"key": [f"{one}@1" for one in ids], "id": ids, "uri": [f"/{one}" for one in ids], **columns})
    tables = []
    for name, present in (("whole", ids[1:3]), ("views.random", ids[2:])):
        keeper = ShardTable(str(tmp_path / name))
        keeper.append(pa.table({"key": [f"{one}@1" for one in present]}), "run")
        tables.append(Table("encode_images", name, None, manifest["key"], keeper))
    rows = [(row["key"], row["uri"], row["lacks"]) for row in _rows_lacking(tables, manifest)]
    assert rows == [
        ("a b.png@1", "/a b.png", ["whole", "views.random"]),
        ("a.png@1", "/a.png", ["views.random"]),
        ("c.png@1", "/c.png", ["whole"]),
    ]


@pytest.fixture
def actor(tiny_model, tmp_path):
    """`actor(view)` -> an actor for one view set of a model of two blocks, not set up yet."""

    def make(view: GuidedView) -> _EncodeActor:
        tables = [("whole", str(tmp_path / "whole"), None), ("views.guided", str(tmp_path / "views"), (view, 0))]
        model, cache = ModelSettings(name=f"local-dir:{tiny_model}"), str(tmp_path / "weights.json")
        guides, planned = {"random": RandomGuide()}, PlannedWeights(model_weights_id(model, cache))
        return _EncodeActor(model, guides, "fp32", "cpu", 1, tables, "run", cache, planned)

    return make


def test_the_planned_weights_are_those_of_the_tables_fingerprints():
    def table(plan, **settings) -> Table:
        ingredients = Ingredients(settings=settings, version=1, weights="clip's hash")
        return Table("encode_images", "a table", ingredients, [], None, plan=plan)

    view = GuidedView(guide="eyes", crops=2)
    tables = [table(None), table((view, 0), **{"guides.weights": "dino's hash"}), table((view, 1))]
    assert planned_weights(tables) == PlannedWeights("clip's hash", {"eyes": "dino's hash"})


def test_a_layer_that_the_model_does_not_have_is_told_before_any_image_is_encoded(actor):
    with pytest.raises(ValueError, match=r"views\.guided\.layer is 2, .* before layer 0 to 1"):
        actor(GuidedView(guide="random", crops=2, layer=2)).setup()
