"""build_caches: for each shot and description the crop that fits best, and no row that is there already."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.build_caches import _choose_and_append
from stages.encode_text import text_key
from stages.shots import draw_shots
from storage.schemas import fixed_list
from storage.shards import ShardTable

from .feature_world import SCALE, D, stored

ODD = 'it\'s #1 -- "a"; DROP TABLE cache'
MARKS = {"jay": ["a crest", "a collar", "a long tail"], ODD: ["one mark"], "wren": ["a cocked tail", "a collar"]}
DND_TIP = {"name": "dnd_tip", "shots": [1, 2], "seeds": [1], "search": False, "views": "random"}


@pytest.fixture
def shots(world):
    """A job of three classes with five images each to draw from, and four crops an image."""
    world.marks = MARKS
    world.add("support", **dict.fromkeys(MARKS, 5))
    world.add("query", **dict.fromkeys(MARKS, 1))

    def job(*changes: dict, crops: int = 4) -> list[pa.Table]:
        """Rows that the job with these methods has made: DND_TIP with each of the changes."""
        methods = [{**DND_TIP, "label": str(number), **change} for number, change in enumerate(changes)]
        world.job(*methods, views={"random": {"crops": crops}})
        world.encode()
        return world.choose()

    world.make = job
    return world


def by_hand(world, table, key: str, name: str, texts: list[str], crops: int = 4) -> tuple[list[int], list[float]]:
    """For each description the crop with the largest cosine, of what is stored."""
    seen = stored(world.table("encode_images", "views.random"), key)[0][:crops]
    seen /= np.linalg.norm(seen, axis=1, keepdims=True)
    cosines = [[float(crop @ world.text(text)) for crop in seen] for text in texts]
    return [max(range(crops), key=of_text.__getitem__) for of_text in cosines], [max(of_text) for of_text in cosines]


def check_rows(world, drawn: set[tuple[str, str]], texts=MARKS, crops: int = 4) -> None:
    """The table has a row for each (image key, class) drawn, and what it chose is what a plain loop chooses."""
    table = world.table("build_caches")
    rows = {row["key"]: row for row in table.keeper.read().to_pylist()}
    assert sorted(rows) == sorted(f"{key}#{name}" for key, name in drawn)
    assert table.complete
    for key, name in drawn:
        chosen, cosines = by_hand(world, table, key, name, texts[name], crops)
        assert rows[f"{key}#{name}"]["crops"] == chosen
        assert rows[f"{key}#{name}"]["similarities"] == pytest.approx(cosines, abs=1e-5)


def drawn(world, count: int, *seeds: int) -> set[tuple[str, str]]:
    tables = [draw_shots(world.plan().inputs.manifest, count, seed) for seed in seeds]
    return {(row["key"], row["class"]) for table in tables for row in table.to_pylist()}


def test_every_description_of_a_shots_class_chooses_the_crop_that_a_plain_loop_finds(shots):
    shots.make({})
    check_rows(shots, drawn(shots, 2, 1))
    source = shots.table("build_caches").plan
    assert source.prompts == MARKS
    columns = ["class", "seed", "shot"]
    assert sorted(tuple(row[name] for name in columns) for row in source.shots.to_pylist()) == sorted(
        (name, 1, shot) for name in MARKS for shot in (0, 1)
    )


@settings(max_examples=30, deadline=None)
@given(
    counts=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    crops=st.integers(1, 5),
    read=st.integers(1, 5),
    images=st.integers(1, 7),
    seed=st.integers(0, 999),
)
def test_the_choice_is_the_largest_cosine_for_any_numbers_of_descriptions_and_crops(
    tmp_path_factory, counts, crops, read, images, seed
):
    draw, folder = np.random.default_rng(seed), str(tmp_path_factory.mktemp("chosen"))
    prompts = {f"c{c} #": [f"{c} {n}" for n in range(count)] for c, count in enumerate(counts)}
    said = [text for texts in prompts.values() for text in texts]
    vectors = draw.normal(size=(len(said), D)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    scales = pa.array([SCALE] * len(said), pa.float32())
    rows = {"key": [text_key(text) for text in said], "vector": fixed_list(vectors), "logit_scale": scales}
    ShardTable(f"{folder}/texts").append(pa.table(rows), "run")
    keys, seen = [f"{number}@1" for number in range(images)], draw.normal(size=(images, crops, D))
    seen = (seen / np.linalg.norm(seen, axis=-1, keepdims=True)).astype(np.float16)
    columns = {"key": keys, "vectors": fixed_list(seen), "norms": fixed_list(np.ones((images, crops), np.float32))}
    ShardTable(f"{folder}/view").append(pa.table(columns), "run")
    classes = [list(prompts)[number % len(prompts)] for number in range(images)]
    wanted = [f"{key}#{name}" for key, name in zip(keys, classes, strict=True)]
    shots = pa.table({"key": wanted, "image": keys, "class": classes})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stages.build_caches.IMAGES_AT_ONCE", 3)
        _choose_and_append(shots, prompts, read, f"{folder}/texts", f"{folder}/view", f"{folder}/out", "run")
    made = ShardTable(f"{folder}/out").read(keys=wanted).to_pylist()
    unit = seen.astype(np.float64)
    unit /= np.linalg.norm(unit, axis=-1, keepdims=True)
    place = {text: vector.astype(np.float64) for text, vector in zip(said, vectors, strict=True)}
    for row, image, name in zip(made, unit, classes, strict=True):
        cosines = [[float(crop @ place[text]) for crop in image[:read]] for text in prompts[name]]
        assert row["similarities"] == pytest.approx([max(of_text) for of_text in cosines], abs=1e-5)
        for crop, of_text in zip(row["crops"], cosines, strict=True):
            assert of_text[crop] >= max(of_text) - 1e-6


def test_a_second_run_has_nothing_to_do_and_fewer_shots_neither(shots):
    (first,) = shots.make({})
    assert len(first) == 6
    assert [len(rows) for rows in shots.make({})] == [0]
    assert [len(rows) for rows in shots.make({"shots": [1]})] == [0]


def test_more_shots_and_another_seed_add_the_images_that_were_not_drawn_before(shots):
    shots.make({})
    before = drawn(shots, 2, 1)
    (more,) = shots.make({"shots": [1, 3]})
    assert {(row["image"], row["class"]) for row in more.to_pylist()} == drawn(shots, 3, 1) - before
    (other,) = shots.make({"shots": [3], "seeds": [1, 2]})
    assert {(row["image"], row["class"]) for row in other.to_pylist()} == drawn(shots, 3, 2) - drawn(shots, 3, 1)
    check_rows(shots, drawn(shots, 3, 1, 2))


def test_methods_share_a_table_with_the_most_shots_of_each_seed(shots):
    three = {"shots": [3], "seeds": [2], "query": "all"}
    shots.make({"shots": [1], "seeds": [1]}, three, {"name": "dnd_tip_f"}, {"shots": [2], "seeds": [2]})
    table = shots.table("build_caches", "cache.0")
    check_rows(shots, drawn(shots, 2, 1) | drawn(shots, 3, 2))
    counts = {(row["seed"], row["shot"]) for row in table.plan.shots.to_pylist()}
    assert counts == {(1, 0), (1, 1), (2, 0), (2, 1), (2, 2)}


def test_crops_beyond_max_crops_cannot_be_chosen_and_descriptions_beyond_theirs_do_not_choose(shots):
    shots.make({"max_crops": 2, "max_descriptors": 1})
    check_rows(shots, drawn(shots, 2, 1), {name: texts[:1] for name, texts in MARKS.items()}, crops=2)


def test_the_labels_own_prompt_chooses_nothing(shots):
    shots.make({"global_weight": 1.0})
    prompts = shots.table("tune", "tuned.0.shots.1.draw.1").plan.reading.prompts
    assert {name: len(texts) for name, texts in prompts.items()} == {"jay": 4, ODD: 2, "wren": 3}
    check_rows(shots, drawn(shots, 2, 1))
    (again,) = shots.make({})
    assert len(again) == 0, "with and without it descriptions choose the same crops"


def test_other_words_of_a_class_are_another_table(shots):
    shots.make({})
    before = shots.table("build_caches").fingerprint
    shots.marks = {**MARKS, "jay": ["a crest", "a dark collar"]}
    shots.make({})
    assert shots.table("build_caches").fingerprint != before
    check_rows(shots, drawn(shots, 2, 1), shots.marks)


def test_an_image_that_cannot_be_read_is_no_shot_and_its_place_is_not_filled(shots):
    shots.make({"shots": [5]})
    shots.job({**DND_TIP, "shots": [5]}, views={"random": {"crops": 5}})
    shots.encode(reject="train/jay/3.png")
    shots.choose()
    kept = {row["id"] for row in shots.table("build_caches").plan.shots.to_pylist() if row["class"] == "jay"}
    assert kept == {f"train/jay/{number}.png" for number in (0, 1, 2, 4)}
    check_rows(shots, {one for one in drawn(shots, 5, 1) if "jay/3.png" not in one[0]}, crops=5)
