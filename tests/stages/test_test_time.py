"""test_time: a stream over stored features is the plain loop of section 10, and another image is another stream."""

from __future__ import annotations

import hashlib
import shutil

import numpy as np
import pytest
import torch

from stages.methods import parse_method
from stages.settings import ScoreSettings
from stages.test_time import _replay_and_append, replay_stream, stream_order
from storage.shards import ShardTable

from .feature_world import SCALE, World, stored
from .matching.test_dnd_stream import sample_by_sample as crops_by_sample
from .matching.test_stream import sample_by_sample

CLASSES = ("jay", "robin", "wren")
MARKS = {"jay": ["a crest", "a collar"], "robin": ["a red breast"], "wren": ["a cocked tail", "a barred wing"]}
VIEWS = {"random": {"crops": 3}, "augmix": {"kind": "augmix", "crops": 19}}
WIDE = {"negative_alpha": 0.7, "min_entropy": 0.0, "max_entropy": 1.0}
"""A negative cache that nearly everything enters, and that is heard."""
DND_TDA = {"name": "dnd_tda", "epsilon": 1000.0, **WIDE}


@pytest.fixture
def birds(world) -> World:
    """Twelve labelled images and two without a label."""
    world.marks = MARKS
    world.add("query", **dict.fromkeys(CLASSES, 4), _=2)
    return world


def job(world: World, *methods, **keys) -> None:
    world.job(*methods, views=VIEWS, **keys)
    world.encode()


def query(world: World) -> tuple[list[str], list[str]]:
    """Keys and ids of the images, as the manifest lists them."""
    manifest = world.plan().inputs.manifest
    return manifest["key"].to_pylist(), manifest["id"].to_pylist()


def replayed(world: World, name: str = "") -> torch.Tensor:
    return replay_stream(world.table("test_time", name).plan[0], *query(world))


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def seen(world: World, table: str) -> np.ndarray:
    """What a table of features holds of the images, unit rows [T, N, D]."""
    features = world.table("encode_images", table)
    return np.stack([unit(stored(features, key)[0]) for key in query(world)[0]])


def class_texts(world: World, prompts: dict[str, list[str]]) -> np.ndarray:
    return unit(np.stack([np.mean([world.text(text) for text in said], axis=0) for said in prompts.values()]))


def shuffled(ids: list[str], seed: int) -> torch.Tensor:
    """Positions of the images in the order of a 16 byte BLAKE2b hash of `stream SEED ID`."""
    draws = [hashlib.blake2b(f"stream {seed} {one}".encode(), digest_size=16).digest() for one in ids]
    return torch.tensor(sorted(range(len(ids)), key=draws.__getitem__))


@pytest.mark.parametrize("change", [{}, {"exclude_self": True, "capacity": 1}, {"seeds": [7]}], ids=str)
def test_tda_on_stored_features_is_the_plain_loop(birds, change):
    job(birds, {"name": "tda", **WIDE, **change})
    reading, settings = birds.table("test_time").plan
    assert settings == 0
    features = torch.tensor(seen(birds, "whole")[:, 0], dtype=torch.float32)
    logits = SCALE * features @ torch.tensor(class_texts(birds, reading.prompts), dtype=torch.float32).T
    order = shuffled(query(birds)[1], change.get("seeds", [1])[0])
    wanted = sample_by_sample(features, logits, order, reading.method.settings())
    torch.testing.assert_close(replayed(birds).double(), wanted, atol=1e-3, rtol=1e-5)
    assert (wanted - logits).abs().max() > 0.5, "the stream taught something"


def test_dnd_tda_on_stored_features_is_the_plain_loop(birds):
    job(birds, DND_TDA)
    reading, _ = birds.table("test_time").plan
    crops = torch.tensor(seen(birds, "views.random"), dtype=torch.float32)
    texts, mask = torch.zeros(3, 2, crops.shape[-1]), torch.zeros(3, 2, dtype=torch.bool)
    for number, said in enumerate(reading.prompts.values()):
        texts[number, : len(said)] = torch.tensor(np.stack([birds.text(text) for text in said]))
        mask[number, : len(said)] = True
    # With so much entropy every crop is moved to every description in equal parts.
    cosines = torch.einsum("tmd,cnd->tcmn", crops, texts).mean(dim=2)
    logits = SCALE * (cosines * mask).sum(dim=-1) / mask.sum(dim=-1)
    order = shuffled(query(birds)[1], 1)
    wanted = crops_by_sample(crops, texts, mask, logits, order, reading.method.settings())
    torch.testing.assert_close(replayed(birds).double(), wanted, atol=5e-3, rtol=1e-4)
    assert (wanted - logits).abs().max() > 0.5


def test_augmix_versions_are_the_mean_of_the_surest_tenth_the_whole_image_among_them(birds):
    birds.scale = 5.0  # so that no entropy is lost in the rounding of a probability near 1
    job(birds, {"name": "tda", "augmix": True, **WIDE})
    reading, _ = birds.table("test_time").plan
    versions = torch.tensor(np.concatenate([seen(birds, "whole"), seen(birds, "views.augmix")], axis=1))
    logits = birds.scale * versions @ torch.tensor(class_texts(birds, reading.prompts)).T
    p = logits.softmax(dim=-1)
    surest = (-(p * p.log()).sum(dim=-1)).argsort(dim=1)[:, :2]  # of twenty versions
    image = torch.arange(len(versions)).unsqueeze(1)
    mean = p[image, surest].mean(dim=1)
    entropies = -(mean * mean.log()).sum(dim=-1)
    features, averaged = versions[image, surest].mean(dim=1), logits[image, surest].mean(dim=1)
    order = shuffled(query(birds)[1], 1)
    wanted = sample_by_sample(features, averaged, order, reading.method.settings(), entropies, mean)
    torch.testing.assert_close(replayed(birds).double(), wanted, atol=2e-3, rtol=1e-4)


@pytest.mark.parametrize("method", [{"name": "tda", **WIDE}, DND_TDA], ids=["tda", "dnd_tda"])
def test_a_stream_knows_nothing_of_classes_that_may_not_be_predicted(
    birds, method, tmp_path_factory, stub_model, write_job
):
    shutil.rmtree(birds.folder / "photos/test/robin")
    job(birds, method, classes=CLASSES, score={"classes": "labelled"})
    reading, _ = birds.table("test_time").plan
    assert reading.classes == ("jay", "wren")
    found = replayed(birds)
    assert found[:, 1].isnan().all()
    alone = World(tmp_path_factory.mktemp("alone"), stub_model, write_job)
    alone.marks = {name: MARKS[name] for name in ("jay", "wren")}
    alone.add("query", jay=4, wren=4, _=2)
    job(alone, method)
    assert query(alone)[1] == query(birds)[1]
    torch.testing.assert_close(found[:, [0, 2]], replayed(alone), atol=1e-4, rtol=1e-5)


def test_an_added_or_removed_image_is_another_stream_and_a_touched_label_or_a_new_method_is_not(birds):
    job(birds, {"name": "tda", **WIDE})
    table = birds.table("test_time")
    before = table.fingerprint
    assert len(table.wanted) == 14
    job(birds, "clip", {"name": "tda", **WIDE, "label": "called otherwise"})
    assert birds.table("test_time").fingerprint == before
    birds.add("support", jay=3)
    job(birds, {"name": "tda", **WIDE})
    assert birds.table("test_time").fingerprint == before, "shots are no part of the stream"
    birds.add("query", jay=5)
    birds.encode()
    more = birds.table("test_time").fingerprint
    (birds.folder / "photos/test/jay/4.png").unlink()
    again = birds.table("test_time").fingerprint
    assert more != before == again


def test_a_copy_of_the_data_set_is_the_same_stream(birds, tmp_path_factory, stub_model, write_job):
    job(birds, {"name": "tda", **WIDE})
    copy = World(tmp_path_factory.mktemp("copy") / "elsewhere", stub_model, write_job)
    copy.marks = MARKS
    shutil.copytree(birds.folder / "photos", copy.folder / "photos")
    job(copy, {"name": "tda", **WIDE})
    assert copy.table("test_time").fingerprint == birds.table("test_time").fingerprint
    assert torch.equal(replayed(copy), replayed(birds))


def test_an_image_that_cannot_be_read_does_not_come_by(birds):
    birds.job({"name": "tda", **WIDE}, views=VIEWS)
    before = birds.table("test_time").fingerprint
    birds.encode(reject="test/jay/1.png")
    table = birds.table("test_time")
    assert len(table.wanted) == 13
    assert table.fingerprint != before


def test_a_stream_that_is_replayed_leaves_the_same_rows_once(birds, monkeypatch):
    monkeypatch.setattr("stages.test_time.ROWS_A_SHARD", 5)
    monkeypatch.setattr("stages.test_time.IMAGES_AT_ONCE", 4)
    job(birds, {"name": "tda", **WIDE})
    reading, settings = birds.table("test_time").plan[0], ScoreSettings(full_logits=True)
    stream = birds.plan().inputs.manifest.select(["key", "id"])

    def rows() -> list[dict]:
        _replay_and_append(reading, stream, settings, "run")
        table = birds.table("test_time")
        assert table.complete
        return [
            {name: value for name, value in row.items() if name != "seconds"}
            for row in ShardTable(reading.folder).read(keys=table.wanted).to_pylist()
        ]

    first = rows()
    assert len(ShardTable(reading.folder).keys()) == 14
    shards = sorted(birds.folder.glob(f"**/{reading.folder.rsplit('/', 1)[1]}/*.arrow"))
    assert len(shards) == 3
    shards[1].unlink()
    assert rows() == first, "what a run that was stopped left behind fits"
    assert len(ShardTable(reading.folder).keys()) == 14
    np.testing.assert_array_equal([row["all_logits"] for row in first], replayed(birds).numpy())
    assert [row["classes"][0] for row in first] == [CLASSES[n] for n in replayed(birds).argmax(dim=1).tolist()]
    shutil.rmtree(reading.folder)
    assert rows() == first


def test_every_seed_of_the_order_has_a_table_and_another_order_other_logits(birds):
    job(birds, {"name": "tda", **WIDE, "seeds": [1, 2]})
    names = [table.name for table in birds.plan().of("test_time").tables]
    assert names == ["methods.tda.draw.1", "methods.tda.draw.2"]
    first, second = (replayed(birds, name) for name in names)
    assert not torch.allclose(first, second)


def test_streams_come_by_in_the_order_of_a_hash_of_seed_and_id_or_of_the_ids_themselves():
    ids = [f"{number}.png" for number in (3, 10, 2, 1)]
    tda = parse_method({"name": "tda", "seeds": [4]})
    assert stream_order(tda, ids) == shuffled(ids, 4).tolist()
    in_order = [ids[place] for place in stream_order(tda, ids)]
    turned = ids[::-1]
    assert [turned[place] for place in stream_order(tda, turned)] == in_order, "the listing does not matter"
    assert [one for one in in_order if one != ids[0]] == [ids[1:][place] for place in stream_order(tda, ids[1:])]
    listed = tda.model_copy(update={"order": "listed"})
    assert [ids[place] for place in stream_order(listed, ids)] == ["1.png", "10.png", "2.png", "3.png"]
    assert stream_order(tda, []) == []


def test_a_listed_stream_has_one_order_and_so_one_table_whatever_its_seeds(birds):
    job(birds, {"name": "tda", **WIDE, "order": "listed", "seeds": [1, 2]})
    reading, _ = birds.table("test_time", "methods.tda").plan
    features = torch.tensor(seen(birds, "whole")[:, 0], dtype=torch.float32)
    logits = SCALE * features @ torch.tensor(class_texts(birds, reading.prompts), dtype=torch.float32).T
    wanted = sample_by_sample(features, logits, torch.arange(14), reading.method.settings())
    torch.testing.assert_close(replayed(birds).double(), wanted, atol=1e-3, rtol=1e-5)
