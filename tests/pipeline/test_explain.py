"""Explain: the parts of a stored prediction, as a document, a table and a page."""

from __future__ import annotations

import json
import math
import shutil

import numpy as np
import pyarrow as pa
import pytest
import torch
from rich.console import Console

from pipeline.explain import CannotExplain, explain_image
from pipeline.explain_document import rank_classes
from pipeline.explain_page import explanation_page
from pipeline.explain_table import show_explanation
from pipeline.job_error import JobError
from pipeline.predict import NotComputed
from pipeline.prepared import prepare_one
from stages.methods import parse_method
from stages.predictions import Reading

from .test_cli import imported_after
from .test_pages import Elements, encoded

IMAGE = "test/wren/1.png"
ODD = """<script>alert("x")</script> & [bold]'friends'"""


@pytest.fixture
def explained(finished_job):
    """`explained(image, **options)` -> the document of an image of the finished job."""

    def explain(image: str = IMAGE, **options) -> dict:
        return explain_image(prepare_one(finished_job, (), None), image, **options).document

    return explain


@pytest.fixture
def stored(finished_job):
    """`stored(method)` -> the stored row of IMAGE and its plan."""

    def read(method: str) -> dict:
        plan = prepare_one(finished_job, (), None).plan
        key = plan.inputs.manifest.filter(pa.compute.equal(plan.inputs.manifest["id"], IMAGE))["key"][0].as_py()
        table = next(each for each in plan.of("score").tables if each.name == f"methods.{method}")
        return table.keeper.read([key]).to_pylist()[0]

    return read


@pytest.mark.parametrize(("method", "rows"), [("dnd", 3), ("abs", 4), ("crops_mean", 3)])
def test_pairs_add_up_to_the_logits_that_were_stored(explained, stored, method, rows):
    document, row = explained(method=method, top=1000), stored(method)
    assert [document[name] for name in ("image", "label", "method", "seed", "draw")] == [IMAGE, "wren", method, 0, None]
    assert document["predicted"] == document["classes"][0]["class"] == row["classes"][0]
    logits = dict(zip(row["classes"], row["logits"], strict=True))
    shares = dict(zip(row["classes"], row["probabilities"], strict=True))
    for told in document["classes"]:
        name = told["class"]
        assert told["logit"] == pytest.approx(logits[name], abs=1e-3)
        assert told["probability"] == pytest.approx(shares[name], abs=1e-3)
        assert sum(pair["contribution"] for pair in told["pairs"]) + told["rest"] == pytest.approx(
            logits[name], abs=2e-3
        )
        assert sum(each["contribution"] for each in told["descriptors"]) == pytest.approx(logits[name], abs=2e-3)
        assert len(told["crops"]) == rows
        assert len(told["pairs"]) == rows * len(told["descriptors"])
        masses = np.array([each["by_crop"] for each in told["descriptors"]])
        assert masses.sum(axis=1) == pytest.approx([each["mass"] for each in told["descriptors"]], abs=1e-5)
        assert masses.sum(axis=0) == pytest.approx([crop["weight"] for crop in told["crops"]], abs=1e-5)
        for pair in told["pairs"]:
            assert pair["mass"] == told["descriptors"][pair["descriptor"]]["by_crop"][pair["crop"]]
        assert told["pairs"][0] == max((each["best"] for each in told["descriptors"]), key=lambda p: p["contribution"])


def test_crops_say_where_they_lie_and_feature_crops_from_which_tokens(explained, finished_job):
    raw = explained(method="dnd")["classes"][0]["crops"]
    plan = prepare_one(finished_job, (), None).plan
    view = next(each for each in plan.of("encode_images").tables if each.name == "views.random")
    key = next(key for key in view.wanted.to_pylist() if key.startswith(IMAGE))
    boxes = np.reshape(view.keeper.read([key], ["boxes"])["boxes"][0].as_py(), (-1, 4)).tolist()
    assert [(crop["kind"], crop["number"], crop["box"]) for crop in raw] == [("raw", n, boxes[n]) for n in range(3)]
    crops = explained(method="abs")["classes"][0]["crops"]
    assert [(crop["kind"], crop["number"]) for crop in crops] == [
        ("feature", 0),
        ("feature", 1),
        ("raw", 0),
        ("raw", 1),
    ]
    for crop in crops[:2]:  # 4 x 4 tokens over the central 16 x 16 pixels of a picture of 20 x 16
        r0, c0, r1, c1 = crop["window"]
        assert crop["box"] == [2 + 4 * c0, 4 * r0, 2 + 4 * c1, 4 * r1]


def test_the_other_class_is_the_label_where_it_differs_else_the_runner_up(explained, stored):
    for label in ("wren", "blue jay", "red robin"):
        document = explained(f"test/{label}/1.png", method="dnd")
        first, second = (told["class"] for told in document["classes"])
        assert first == document["predicted"] != second
        assert label in (first, second)
    row, document = stored("dnd"), explained(method="dnd")
    other = row["classes"][1] if row["classes"][0] == "wren" else "wren"
    assert [told["class"] for told in document["classes"]] == [row["classes"][0], other]


def test_other_classes_are_shown_beside_the_predicted_one_each_once(explained):
    every = ["red robin", "wren", "blue jay"]
    document = explained(method="dnd", others=[*every, "wren"])
    rest = [name for name in every if name != document["predicted"]]
    assert [told["class"] for told in document["classes"]] == [document["predicted"], *rest]
    assert len(explained(method="dnd", others=[document["predicted"]])["classes"]) == 2


def test_without_a_name_the_method_is_the_one_of_transport(explained):
    assert explained()["method"] == "dnd"


def test_several_draws_are_told_and_one_is_chosen(finished_job):
    chosen = prepare_one(finished_job, ["seed=[0, 1]"], None)
    found = explain_image(chosen, IMAGE)
    assert found.document["seed"] == 0
    assert found.notes == ("crops were drawn 2 times; explained are those of seed 0, --seed chooses",)
    with pytest.raises(NotComputed, match=r"methods\.dnd\.seed\.1: .*wren/1\.png has no prediction yet"):
        explain_image(chosen, IMAGE, seed=1)
    with pytest.raises(JobError, match="--seed 2: dnd is scored on crops of seed 0, 1"):
        explain_image(chosen, IMAGE, seed=2)


def test_probabilities_are_over_the_classes_that_may_be_predicted():
    prompts = {name: ["a mark"] for name in ("jay", "robin", "wren")}
    reading = Reading(parse_method("dnd"), prompts, "texts", "whole", "view", classes=("jay", "wren"))
    assert rank_classes(reading, torch.tensor([0.0, 9.0, math.log(3)])) == (
        ["wren", "jay"],
        {"jay": 0.25, "wren": 0.75},
    )


def test_predictions_that_are_not_of_the_stored_features_are_not_explained(finished_job, tmp_path):
    shutil.copytree(finished_job.parent, tmp_path / "job")
    chosen = prepare_one(tmp_path / "job/job.yaml", (), None)
    keeper = next(each.keeper for each in chosen.plan.of("score").tables if each.name == "methods.dnd")
    rows = keeper.read()
    off = pa.array([[logit + 0.5 for logit in row] for row in rows["logits"].to_pylist()], rows["logits"].type)
    keeper.clear()
    keeper.append(rows.set_column(rows.column_names.index("logits"), "logits", off), "test")
    with pytest.raises(CannotExplain, match=r"the stored logit of .* its stored features give .* run .*--force score"):
        explain_image(prepare_one(chosen.file, (), None), IMAGE)


def test_an_image_without_a_prediction_is_told_why(explained):
    with pytest.raises(CannotExplain, match=r"test/wren/broken\.png was rejected: not an image .*--retry-rejects"):
        explained("wren/broken.png")
    with pytest.raises(
        CannotExplain, match=r"train/wren/0\.png is an image of the support split, and only those of query"
    ):
        explained("train/wren/0.png")


WRONG_CALLS = [
    (["--method", "clip"], ["--method clip: its logits are no sums", "crops_mean, dnd, abs"]),
    (["--method", "dnb"], ["--method dnb: the job has no such method", "crops_mean, dnd, abs"]),
    (["--class", "wrn"], ["--class wrn", "did you mean 'wren'?"]),
    (["--html", "nowhere/page.html"], ["--html nowhere/page.html: there is no folder nowhere"]),
    (["--set", "methods=[clip]"], ["no method of crops and descriptors", "dnd, abs"]),
    (["-k", "0"], ["'-k'"]),
]


@pytest.mark.parametrize(("options", "words"), WRONG_CALLS, ids=[" ".join(options) for options, _ in WRONG_CALLS])
def test_a_wrong_call_ends_with_status_2_and_says_what_would_be_right(fieldmark, small_job, options, words):
    said = fieldmark("explain", small_job(methods=["clip", "crops_mean", "dnd", "abs"]), "wren/0.png", *options)
    assert (said.status, said.out) == (2, "")
    assert [word for word in words if word not in said.err] == []


def test_before_a_run_the_command_that_computes_it_is_told_and_nothing_heavy_is_loaded(fieldmark, small_job):
    job = small_job()
    said = fieldmark("explain", job, "wren/0.png", "--method", "dnd", "--set", "methods=[dnd]")
    assert (said.status, said.out) == (1, "")
    assert f"compute it with: fieldmark run {job} --set 'methods=[dnd]'" in said.err
    assert imported_after("explain", str(job), "wren/7.png", "--set", "methods=[dnd]") == (2, "[]")


def test_the_command_prints_a_table_or_json_alone_or_writes_a_page(fieldmark, finished_job, tmp_path):
    said = fieldmark("explain", finished_job, IMAGE)
    assert said.status == 0
    assert f"{IMAGE}, labelled wren; dnd says" in said.out
    assert "a short tail" in said.out
    said = fieldmark("explain", finished_job, IMAGE, "--method", "abs", "-k", 3, "--json")
    assert (said.status, said.err) == (0, "")
    assert [len(told["pairs"]) for told in json.loads(said.out)["classes"]] == [3, 3]
    said = fieldmark("explain", finished_job, IMAGE, "--method", "abs", "--html", tmp_path / "page.html")
    assert (said.status, said.out) == (0, "")
    page = Elements((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert len(page.named("svg")) == 2
    assert "a short tail" in page.text


@pytest.fixture
def document() -> dict:
    """A document with names that no page or terminal may take for its own, and more crops than colours."""
    crops = [{"kind": "raw", "number": n, "box": [n, 0, n + 10, 10], "weight": 0.1} for n in range(10)]
    best = [{"crop": n, "descriptor": n, "mass": 0.06, "cosine": 0.3, "contribution": 2.0 - n / 10} for n in range(10)]
    descriptors = [
        {"text": f"{ODD} {n} " + "long " * 20, "mass": 0.1, "contribution": 2.0 - n / 10,
         "by_crop": [0.06 if c == n else 0.04 / 9 for c in range(10)], "best": best[n]} for n in range(10)
    ]  # fmt: skip
    told = {"class": ODD, "logit": 15.5, "probability": 0.75, "rest": 0.5, "crops": crops, "descriptors": descriptors}
    others = [{**told, "class": "wren", "probability": None}]
    head = {"image": ODD, "label": ODD, "method": ODD, "predicted": ODD}
    return head | {"classes": [{**told, "pairs": best}, *others]}


def test_on_a_page_names_are_text_bars_are_as_long_as_masses_and_a_crop_has_one_colour(document):
    page = Elements(explanation_page(document, encoded(np.zeros((30, 30, 3), np.uint8)), "dnd", 9))
    assert page.named("script") == []
    assert ODD in page.text
    spans = [each for each in page.named("span") if "width" in each.get("style", "")]
    first = [each for each in spans if each["title"] == "crop 0: mass 0.060"]
    assert {each["style"] for each in first} == {"width: 60.00%; background: #d55e00"}
    assert sum(float(each["style"].split("%")[0].split()[-1]) for each in spans[:9]) == pytest.approx(100, abs=0.1)
    drawn = {rect["stroke"] for rect in page.named("rect") if rect.get("stroke", "#ffffff") != "#ffffff"}
    assert len(drawn) == 8
    assert "1 more add 1.10; the whole image's likeness to the name adds 0.50" in page.text


def test_a_page_of_an_image_that_is_gone_still_tells_the_rest(document):
    page = explanation_page(document, FileNotFoundError(2, "No such file or directory", "x"), "abs", 9)
    assert "cannot be shown: No such file or directory" in page
    assert "every crop has one vote" in page


@pytest.mark.parametrize("width", [80, 120])
def test_a_terminal_shows_every_figure_and_folds_long_descriptors(document, width, capsys):
    show_explanation(Console(width=width), document, "dnd", 9)
    out = capsys.readouterr().out
    assert "…" not in out
    assert max(map(len, out.splitlines())) <= width
    lines = [line.split()[-6:] for line in out.splitlines() if "crop 0 " in line and "0.300" in line]
    assert lines == [["0.100", "2.00", "crop", "0", "0.300", "60%"]] * 2
    assert f"{ODD}: logit 15.50, probability 0.75 (predicted, label)" in out.replace("\n", "")
