"""evaluate: accuracies by hand, from real score tables; and which tables it keeps."""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa
import pytest
from pydantic import ValidationError

from stages.comparisons import SCHEMA as COMPARISONS_SCHEMA
from stages.evaluate import SCHEMA, Evaluate, evaluate_predictions
from stages.manifest import SCHEMA as MANIFEST_SCHEMA
from stages.methods import parse_method
from stages.readings import Reading
from stages.settings import EvaluateSettings, ScoreSettings
from stages.stage import Ingredients, Inputs, Run, Table
from storage.shards import ShardTable

CLASSES = list("abcdefg")
SETTINGS = EvaluateSettings(bootstrap=100, confidence=0.9, calibration_bins=2)

Predictions = dict[str, tuple[str, list[str]] | tuple[str, list[str], float]]


@pytest.fixture
def stored(tmp_path):
    """`stored(name, keys, seconds, **columns)` -> a complete table of these rows, made once."""

    def make(name: str, keys: list[str], seconds: float, **columns) -> Table:
        ingredients = Ingredients({"name": name}, 1)
        keeper = ShardTable(str(tmp_path / name))
        keeper.append(pa.table({"key": keys, **columns, "seconds": [seconds] * len(keys)}), "run")
        return Table(name, name, ingredients, keys, keeper)

    return make


@pytest.fixture
def score_table(stored):
    """`score_table(name, {key: (label, best classes, probability of the first)})`; scoring an image took 0.1 s."""

    def make(name: str, predictions: Predictions, whole: Table, view: Table | None = None, **reading) -> Table:
        best = [classes for _, classes, *_ in predictions.values()]
        stated = [[probability[0] if probability else 1.0] for _, _, *probability in predictions.values()]
        columns = {"classes": best, "probabilities": pa.array(stated, pa.list_(pa.float32()))}
        table = stored(f"methods.{name}", list(predictions), 0.1, **columns)
        plan = Reading(
            method=parse_method({"name": "clip", "label": name}),
            prompts={name: [name] for name in CLASSES},
            texts="",
            whole=whole.keeper.folder,
            view=None if view is None else view.keeper.folder,
            classes=reading.pop("classes", tuple(CLASSES)),
            **reading,
        )
        return Table("score", f"methods.{name}", table.ingredients, list(predictions), table.keeper, (plan, 7))

    return make


@pytest.fixture
def evaluated(stored, score_table):
    """`evaluated({key: (label, best classes)})` -> the row; an image took 0.2 s, its four crops 0.3 s."""

    def compute(predictions: Predictions, *, view: bool = True, names: dict[str, str] | None = None, **reading):
        whole, views = stored("whole", list(predictions), 0.2), stored("views", list(predictions), 0.3)
        chosen = {"view": views, "crops": 4} if view else {}
        scored = score_table("clip", predictions, whole, **chosen, **reading)
        encoded = {table.keeper.folder: table for table in (whole, views)}
        known = pa.table({"key": list(predictions), "class": [label for label, *_ in predictions.values()]})
        spoken = dict(zip(CLASSES, CLASSES, strict=True)) | (names or {})
        return evaluate_predictions(scored, known, spoken, encoded, SETTINGS)

    return compute


def test_accuracies_are_shares_of_images_of_the_first_five_and_the_mean_of_the_classes_own(evaluated):
    row = evaluated(
        {
            "1": ("a", ["a", "b", "c", "d", "e", "f"]),
            "2": ("a", ["a", "b", "c", "d", "e", "f"]),
            "3": ("a", ["a", "b", "c", "d", "e", "f"]),
            "4": ("a", ["b", "c", "d", "e", "a", "f"]),
            "5": ("b", ["c", "b", "a", "d", "e", "f"]),
            "6": ("b", ["c", "d", "e", "f", "g", "b"]),
        }
    )
    assert row["accuracy"] == pytest.approx(3 / 6)
    assert row["mean_per_class"] == pytest.approx((3 / 4 + 0 / 2) / 2)
    assert row["top_5"] == pytest.approx(5 / 6)
    assert (row["images"], row["classes"], row["seed"], row["draw"], row["method"]) == (6, 7, 7, None, "clip")
    assert row["low"] <= 0.5 <= row["high"]
    assert row["confidence"] == 0.9


def test_every_class_has_its_accuracy_and_confusions_come_most_frequent_first(evaluated):
    row = evaluated(
        {
            "1": ("b", ["c", "b"]),
            "2": ("a", ["a", "b"]),
            "3": ("a", ["c", "b"]),
            "4": ("b", ["c", "a"]),
            "5": ("a", ["b", "a"]),
            "6": ("a", ["a", "c"]),
        }
    )
    assert row["by_class"] == [
        {"class": "a", "images": 4, "accuracy": 0.5},
        {"class": "b", "images": 2, "accuracy": 0.0},
    ]
    assert row["confusions"] == [
        {"label": "b", "predicted": "c", "images": 2},
        {"label": "a", "predicted": "b", "images": 1},
        {"label": "a", "predicted": "c", "images": 1},
    ]
    assert pa.Table.from_pylist([row], schema=SCHEMA).to_pylist() == [row]


def test_of_many_confusions_the_twenty_most_frequent_are_kept_and_none_is_an_empty_list(evaluated):
    wrong = [(label, other) for label in CLASSES for other in CLASSES if label != other][:25]
    often = {f"{number:02}": (label, [other]) for number, (label, other) in enumerate([*wrong, wrong[-1]])}
    row = evaluated(often)
    assert len(row["confusions"]) == 20
    assert row["confusions"][0] == {"label": wrong[-1][0], "predicted": wrong[-1][1], "images": 2}


def test_score_keeps_at_least_the_five_classes_that_top_5_reads():
    assert ScoreSettings(top_k=5).top_k == 5
    with pytest.raises(ValidationError, match="greater than or equal to 5"):
        ScoreSettings(top_k=4)


def test_labels_meet_their_own_image_whatever_the_order_of_the_shards(evaluated):
    keys = [f"{number:02}" for number in range(20)][::-1]
    row = evaluated({key: (CLASSES[int(key) % 7], [CLASSES[int(key) % 7], "x"]) for key in keys})
    assert (row["accuracy"], row["mean_per_class"], row["low"], row["high"]) == (1.0, 1.0, 1.0, 1.0)
    assert row["confusions"] == []
    assert list(row) == SCHEMA.names


def test_seconds_an_image_are_those_of_all_that_a_method_reads(evaluated):
    row = evaluated({"1": ("a", ["a"]), "2": ("b", ["b"])})
    assert row["encode_seconds_per_image"] == pytest.approx(0.5)
    assert row["score_seconds_per_image"] == pytest.approx(0.1)
    assert row["seconds_per_image"] == pytest.approx(0.6)


def test_a_method_without_views_does_not_pay_for_crops(evaluated):
    row = evaluated({"1": ("a", ["a"])}, view=False)
    assert row["seconds_per_image"] == pytest.approx(0.3)
    assert row["forward_passes"] == 1


def test_the_encoder_sees_the_whole_image_and_every_crop(evaluated):
    assert evaluated({"1": ("a", ["a"])})["forward_passes"] == 1 + 4


def test_stated_probabilities_are_held_against_how_often_they_are_right(evaluated):
    row = evaluated(
        {
            "1": ("a", ["b", "a"], 0.4),
            "2": ("a", ["b", "a"], 0.2),
            "3": ("b", ["b", "a"], 0.9),
            "4": ("b", ["b", "a"], 0.7),
        }
    )
    assert row["mean_confidence"] == pytest.approx((0.4 + 0.2 + 0.9 + 0.7) / 4)
    # two bins: right 0, stated .3; right 1, stated .8; half of the images each
    assert row["calibration_error"] == pytest.approx(0.5 * 0.3 + 0.5 * 0.2, abs=1e-6)


def test_a_prediction_that_is_spoken_as_the_label_counts_in_the_merged_accuracy(evaluated):
    names = {"a": "sunglasses", "b": "sunglasses"}
    predictions = {"1": ("a", ["a", "b"]), "2": ("b", ["a", "b"]), "3": ("b", ["c", "b"]), "4": ("d", ["d", "a"])}
    row = evaluated(predictions, names=names)
    assert (row["accuracy"], row["merged_accuracy"]) == (2 / 4, 3 / 4)
    assert row["confusions"][0] == {"label": "b", "predicted": "a", "images": 1}  # ids, so the tie can be seen


def test_without_classes_of_one_name_there_is_no_merged_accuracy(evaluated):
    assert evaluated({"1": ("a", ["a"])})["merged_accuracy"] is None
    restricted = evaluated({"1": ("a", ["a"])}, names={"b": "wren", "c": "wren"}, classes=("a", "b"))
    assert restricted["merged_accuracy"] is None, "c cannot be predicted"
    assert restricted["classes"] == 2


@pytest.fixture
def job(tmp_path, stored, score_table):
    """`job({method: {key: (label, best classes)}}, **reading)` -> a job's `Inputs` up to score."""

    def make(methods: dict[str, Predictions], **reading) -> Inputs:
        labels = {key: label for predictions in methods.values() for key, (label, *_) in predictions.items()}
        manifest = [
            {"key": key, "id": key, "version": "1", "uri": key, "split": "query", "class": label}
            for key, label in labels.items()
        ]
        whole = stored("whole", list(labels), 0.2)
        scored = [score_table(name, predictions, whole, **reading) for name, predictions in methods.items()]
        kept = {"encode_images": [whole], "score": scored, "test_time": []}
        names = dict(zip(CLASSES, CLASSES, strict=True))
        return Inputs(str(tmp_path), pa.Table.from_pylist(manifest, MANIFEST_SCHEMA), names, kept)

    return make


def run_stage(inputs: Inputs) -> tuple[list[Table], list[int]]:
    """The tables, all computed, and what `advance` was told."""
    stage, told = Evaluate(SETTINGS), []
    run = Run("run", lambda done, rejected: told.append(done), lambda: pytest.fail("no Ray is needed"))
    lacking = [table for table in stage.tables(inputs) if table.missing]
    assert stage.units(lacking) == sum(len(table.missing) for table in lacking)
    stage.compute(lacking, inputs, run)
    tables = stage.tables(inputs)
    assert all(table.complete for table in tables)
    return tables, told


def test_methods_are_compared_two_by_two_on_the_same_images_in_the_order_of_the_job(job):
    right, wrong = ("a", ["a", "b"]), ("a", ["b", "a"])
    tables, told = run_stage(
        job(
            {
                "two": {"1": right, "2": wrong, "3": right},
                "one": {"1": right, "2": right, "3": wrong},
                "none": {"1": wrong, "2": wrong, "3": wrong},
            }
        )
    )
    assert [table.name for table in tables] == ["methods.two", "methods.one", "methods.none", "comparisons"]
    assert told == [1, 1, 1, 3]
    rows = tables[-1].keeper.read(keys=tables[-1].wanted).to_pylist()
    assert [(row["method"], row["other"], row["n10"], row["n01"]) for row in rows] == [
        ("two", "one", 1, 1),
        ("two", "none", 2, 0),
        ("one", "none", 2, 0),
    ]
    assert [row["difference"] for row in rows] == pytest.approx([0, 2 / 3, 2 / 3])
    assert list(rows[0]) == COMPARISONS_SCHEMA.names


def test_an_image_that_one_method_lacks_is_compared_in_none(job):
    right, wrong = ("a", ["a"]), ("a", ["b"])
    tables, _ = run_stage(job({"all": {"1": right, "2": right, "3": right}, "some": {"3": right, "1": wrong}}))
    (row,) = tables[-1].keeper.read().to_pylist()
    assert (row["images"], row["n10"], row["n01"]) == (2, 1, 0)
    assert [table.keeper.read()["images"][0].as_py() for table in tables[:2]] == [3, 2]


def test_a_single_method_is_compared_with_nothing(job):
    tables, _ = run_stage(job({"one": {"1": ("a", ["a"])}}))
    assert [table.name for table in tables] == ["methods.one"]


def test_without_labels_there_is_nothing_to_evaluate(job):
    assert Evaluate(SETTINGS).tables(job({"one": {"1": (None, ["a"])}, "two": {"1": (None, ["a"])}})) == []


def test_images_of_other_splits_and_rejected_ones_are_not_evaluated_and_say_nothing_of_the_rows(job):
    predictions = {"1": ("a", ["a"]), "2": ("b", ["a"])}
    inputs = job({"one": predictions})
    extra = [
        {"key": key, "id": key, "version": "1", "uri": key, "split": split, "class": "c"}
        for key, split in (("0", "support"), ("3", "query"), ("4", "validation"))
    ]
    more = pa.concat_tables([inputs.manifest, pa.Table.from_pylist(extra, MANIFEST_SCHEMA)])
    (alone,), (among,) = (Evaluate(SETTINGS).tables(each) for each in (inputs, replace(inputs, manifest=more)))
    assert among.plan[1]["key"].to_pylist() == ["1", "2"]
    assert among.fingerprint == alone.fingerprint


def test_a_changed_label_makes_rows_and_comparisons_anew_and_a_new_method_only_the_latter(job):
    def fingerprints(methods: dict[str, Predictions]) -> dict[str, str]:
        return {table.name: table.fingerprint for table in Evaluate(SETTINGS).tables(job(methods))}

    predictions = {"1": ("a", ["a"]), "2": ("b", ["b"])}
    before = fingerprints({"one": predictions, "two": predictions})
    relabelled = {"1": ("a", ["a"]), "2": ("a", ["b"])}
    after = fingerprints({"one": relabelled, "two": relabelled})
    assert {name for name in before if before[name] != after[name]} == set(before)
    more = fingerprints({"one": predictions, "two": predictions, "three": predictions})
    assert {name for name in before if before[name] != more[name]} == {"comparisons"}
    assert before == fingerprints({"one": predictions, "two": predictions})


def test_how_classes_are_spoken_and_how_calibration_is_binned_decide_the_rows_but_not_the_comparisons(job):
    def fingerprints(inputs: Inputs, settings: EvaluateSettings) -> dict[str, str]:
        return {table.name: table.fingerprint for table in Evaluate(settings).tables(inputs)}

    predictions = {"1": ("a", ["a"]), "2": ("b", ["b"])}
    inputs = job({"one": predictions, "two": predictions})
    before = fingerprints(inputs, SETTINGS)
    alike = replace(inputs, names=dict(inputs.names) | {"b": "a"})
    finer = SETTINGS.model_copy(update={"calibration_bins": 30})
    for after in (fingerprints(alike, SETTINGS), fingerprints(inputs, finer)):
        assert {name for name in before if before[name] != after[name]} == {"methods.one", "methods.two"}


def test_images_whose_class_may_not_be_predicted_are_an_error_that_names_the_setting(job):
    inputs = job({"one": {"1": ("a", ["a"]), "2": ("b", ["a"]), "3": ("b", ["a"])}}, classes=("a", "c"))
    with pytest.raises(ValueError, match=r"score\.classes leaves out b, which label 2 of the 3 query images"):
        Evaluate(SETTINGS).tables(inputs)
