"""Audit: what descriptors do, a sheet that people fill in, and a filter whose effect is measured on other images."""

from __future__ import annotations

import csv
import io
import json
from base64 import b64decode
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from pipeline.audit import Audit, audit_job
from pipeline.audit_page import audit_page
from pipeline.audit_sheet import COLUMNS, guarded, read_verdicts, unguarded, write_sheet
from pipeline.audit_table import show_audit, sum_up
from pipeline.job_error import JobError
from pipeline.pages.thumbnail import cut_thumbnails
from pipeline.prepared import prepare_one
from prompts.descriptor_file import read_descriptor_file
from stages.manifest import SCHEMA

from ..stages.feature_world import D, World
from .test_cli import imported_after
from .test_pages import ODD, Elements, encoded

BIRDS = ("jay", "robin", "wren")
STRAY = "=a mark of the @robin"


class Birds(World):
    """Three birds near axes of their own; each has marks near its axis, and the jay one that is the robin's."""

    def vectors(self, table, identity: str) -> np.ndarray:
        drawn = np.random.default_rng(list(identity.encode())).normal(size=(1, D))
        return np.eye(D)[BIRDS.index(identity.split("/")[1])] + 0.6 * drawn

    def text(self, text: str) -> np.ndarray:
        bird = "robin" if text == STRAY else text.split()[0]
        same = text.removesuffix(" again")
        vector = np.eye(D)[BIRDS.index(bird)] + 0.3 * np.random.default_rng(list(same.encode())).normal(size=D)
        return vector / np.linalg.norm(vector)


@pytest.fixture(scope="module")
def birds(tmp_path_factory, stub_model, write_job) -> Path:
    """The job file of three birds with sixty encoded images each."""
    world = Birds(tmp_path_factory.mktemp("birds"), stub_model, write_job)
    world.marks = {bird: [f"{bird} mark {number}" for number in range(3)] for bird in BIRDS}
    world.marks["jay"] += [STRAY, "jay mark 0 again"]
    world.marks["wren"] += ["jay mark 1"]
    world.add("query", jay=60, robin=60, wren=60)
    world.job("clip_d", {"name": "dnd", "label": "two", "max_descriptors": 2}, views={"random": {"crops": 1}})
    world.encode()
    return world.file


@pytest.fixture
def audited(birds):
    """`audited(**options)` -> the audit of the birds' job, without crops unless `crops`."""

    def audit(**options) -> Audit:
        chosen = prepare_one(birds, ("methods=[clip_d]", "views={}"), None)
        return audit_job(chosen, **options)

    return audit


def rows_of(document: dict) -> dict[tuple[str, str], dict]:
    return {(told["class"], each["text"]): each for told in document["classes"] for each in told["descriptors"]}


def test_a_mark_of_another_class_is_hallucinated_and_the_filter_that_drops_it_is_measured_on_other_images(audited):
    found = audited()
    document, rows = found.document, rows_of(found.document)
    assert rows["jay", STRAY]["fit"] == "no better than chance"
    assert rows["jay", STRAY]["doubt"].startswith("fits no better than chance")
    assert rows["jay", STRAY]["dropped"]
    assert rows["jay", STRAY]["auc"] < 0.5
    assert rows["jay", "jay mark 1"]["fit"] == "above chance"
    assert rows["wren", "jay mark 1"]["fit"] == "no better than chance"
    judged, measured = document["judged_on"], document["measured_on"]
    assert (judged["what"], measured["what"]) == ("half of the query split", "the other half of the query split")
    assert judged["images"] + measured["images"] == 180
    assert judged["filtered"] > judged["accuracy"]
    effect = document["effect"]
    assert effect["images"] == measured["images"]
    assert effect["difference"] == pytest.approx(effect["filtered"] - effect["accuracy"])
    assert effect["difference"] > 0
    assert effect["low"] <= effect["difference"] <= effect["high"]
    assert effect["n10"] - effect["n01"] == round(effect["difference"] * effect["images"])
    kept = {name for name, row in rows.items() if not row["dropped"]}
    assert {(name, text) for name, texts in found.filtered.items() for text in texts} == kept
    assert document["totals"]["dropped"] == len(rows) - len(kept) >= 2
    assert document["totals"]["never_chosen"] is None


def test_a_copy_is_redundant_and_a_text_of_two_classes_is_told_at_both(audited):
    rows = rows_of(audited().document)
    assert rows["jay", "jay mark 0"]["nearest"]["text"] == "jay mark 0 again"
    assert rows["jay", "jay mark 0"]["redundant"]
    assert rows["jay", "jay mark 0 again"]["redundant"]
    assert not rows["jay", "jay mark 1"]["redundant"]
    assert rows["jay", "jay mark 1"]["elsewhere"] == ["wren"]
    assert rows["wren", "jay mark 1"]["elsewhere"] == ["jay"]


def test_a_sheet_is_filled_in_read_back_and_wins_over_figures(audited, tmp_path):
    sheet = tmp_path / "sheet.csv"
    write_sheet(audited().document, sheet)
    assert sheet.read_bytes().startswith(b"\xef\xbb\xbf"), "spreadsheets tell UTF-8 by it"
    lines = list(csv.DictReader(io.StringIO(sheet.read_text(encoding="utf-8-sig"))))
    assert (tuple(lines[0]), len(lines)) == (COLUMNS, 12)
    assert {line["descriptor"][0] for line in lines} == {"j", "r", "w", "'"}, "no cell is run as a formula"
    for line in lines:
        line["verdict"] = {"robin mark 1": "drop", f"'{STRAY}": "Keep "}.get(line["descriptor"], "")
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, delimiter=";")
    writer.writeheader()
    writer.writerows(lines)
    sheet.write_text(out.getvalue(), encoding="utf-8")
    found = audited(verdicts=read_verdicts(sheet))
    rows = rows_of(found.document)
    assert (rows["jay", STRAY]["verdict"], rows["jay", STRAY]["dropped"]) == ("keep", False)
    assert (rows["robin", "robin mark 1"]["verdict"], rows["robin", "robin mark 1"]["dropped"]) == ("drop", True)
    assert found.filtered["robin"] == ["robin mark 0", "robin mark 2"]
    with pytest.raises(JobError, match="has 2 verdicts that would be lost"):
        write_sheet(audited().document, sheet)
    write_sheet(found.document, sheet)
    assert read_verdicts(sheet)["jay", STRAY] == ["keep"], "a new sheet keeps what was said"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("class,descriptor,verdict\njay,jay mark 0,\njay,jay mark 1,maybe\n", "line 3: verdict 'maybe' is not allowed"),
        ("class,descriptor\njay,jay mark 0\n", "has no column verdict"),
        ("class,descriptor,verdict\njay,a blue hat,drop\n", "class 'jay' has no descriptor 'a blue hat'"),
        (
            "class,descriptor,verdict\n" + "".join(f"robin,robin mark {n},drop\n" for n in range(3)),
            "all 3 descriptors of class 'robin' are dropped",
        ),
    ],
)
def test_a_sheet_that_cannot_be_meant_is_an_error_that_says_where(audited, tmp_path, text, words):
    sheet = tmp_path / "sheet.csv"
    sheet.write_text(text)
    with pytest.raises(JobError, match=words):
        audited(verdicts=read_verdicts(sheet))


@pytest.mark.parametrize("text", ["=1+1", "+x", "-x", "@x", "\tx", "'x", "''=x", "plain", "'", ""])
def test_a_guarded_cell_is_read_as_what_it_was(text):
    assert unguarded(guarded(text)) == text
    assert not guarded(text).startswith(("=", "+", "-", "@", "\t"))


def test_a_method_that_reads_the_first_descriptors_judges_those_and_the_rest_are_kept(birds):
    found = audit_job(prepare_one(birds, ("methods=[{name: clip_d, max_descriptors: 3}]", "views={}"), None))
    assert [len(told["descriptors"]) for told in found.document["classes"]] == [3, 3, 3]
    for told in found.document["classes"]:
        lost, kept = any(each["dropped"] for each in told["descriptors"]), found.filtered[told["class"]]
        assert len(kept) <= 3 or not lost, "what nobody judged must not come up in the place of what is dropped"
    assert "clip_d reads the first 3 descriptors of a class; 3 further ones are not judged" in found.notes[0]


def test_the_command_shows_a_table_and_writes_a_sheet_a_page_and_a_file_that_a_job_reads(
    fieldmark, finished_job, tmp_path
):
    out = {name: tmp_path / name for name in ("sheet.csv", "page.html", "kept.json")}
    options = ["--csv", out["sheet.csv"], "--html", out["page.html"], "--filtered", out["kept.json"]]
    said = fieldmark("audit", finished_job, "--descriptors", "marks", *options)
    assert said.status == 0, said.err
    assert "judged on half of the query split" in said.out
    assert "6 descriptors of 3 classes: 0 fit their class above chance" in said.out
    assert "6 unknown (fewer than 5 images)" in said.out
    assert "provider: file" in said.err
    assert "form: sentences" in said.err
    page = Elements(out["page.html"].read_text(encoding="utf-8"))
    crops = [image for image in page.named("img") if image["src"].startswith("data:image/jpeg;base64,")]
    sheet = list(csv.DictReader(io.StringIO(out["sheet.csv"].read_text(encoding="utf-8-sig"))))
    named = [crop for line in sheet for crop in line["crops"].split(" | ") if crop]
    assert len(crops) == len(named) > 0
    assert named[0].split("#")[0] in crops[0]["title"] + "".join(image["title"] for image in crops)
    marks = read_descriptor_file(finished_job.parent / "marks.json")
    assert read_descriptor_file(out["kept.json"]) == {
        name: [text for text in texts if text in marks[name]] for name, texts in marks.items()
    }
    again = fieldmark("status", finished_job, "--set", f"descriptors.marks.path={out['kept.json']}")
    assert again.status == 0


def test_crops_choose_descriptors_by_the_stored_features(finished_job):
    document = audit_job(prepare_one(finished_job, (), None), method="dnd").document
    assert (document["method"], document["views"], document["seed"]) == ("dnd", "random", 0)
    for told in document["classes"]:
        shares = [each["crops"] for each in told["descriptors"]]
        assert told["cropped"] == told["images"]
        if told["images"]:
            assert sum(shares) == pytest.approx(1.0, abs=1e-5)
        for each in told["descriptors"]:
            assert len(each["best"]) == min(3, round(told["images"] * (each["images"] or 0)))
            assert all(
                len(crop["box"]) == 4 and crop["image"].startswith(f"test/{told['class']}/") for crop in each["best"]
            )
    (only,) = [told for told in document["classes"] if told["class"] == "red robin"]
    assert [only["descriptors"][0][name] for name in ("gained", "lost", "nearest")] == [None, None, None]


def test_json_is_one_document_and_the_filtered_file_is_one_that_a_job_reads(fieldmark, birds, tmp_path):
    sets = ["--set", "methods=[clip_d]", "--set", "views={}"]
    said = fieldmark("audit", birds, "--json", "--filtered", tmp_path / "kept.json", *sets)
    assert said.status == 0
    totals = json.loads(said.out)["totals"]
    kept = read_descriptor_file(tmp_path / "kept.json")
    assert sum(map(len, kept.values())) == totals["descriptors"] - totals["dropped"] == 12 - totals["dropped"]
    assert STRAY not in kept["jay"]
    said = fieldmark("status", birds, "--json", *sets, "--set", f"descriptors.marks.path={tmp_path / 'kept.json'}")
    missing = {stage["stage"]: stage["missing"] for stage in json.loads(said.out)["stages"]}
    assert missing["describe"] > 0, "the classes that lost some; every text of theirs is encoded"


def test_thumbnails_are_cut_out_of_the_upright_image_and_missing_where_it_is():
    pixels = np.zeros((60, 200, 3), np.uint8)
    pixels[10:50, 100:180] = (250, 10, 10)
    (one, other) = cut_thumbnails(encoded(pixels), [(100, 10, 180, 50), (0, 0, 20, 20)], longest_side=40)
    red, black = (Image.open(io.BytesIO(b64decode(address.split(",")[1]))) for address in (one, other))
    assert (red.size, black.size) == ((40, 20), (20, 20)), "never larger than it is"
    assert np.asarray(red).mean(axis=(0, 1)) == pytest.approx([250, 10, 10], abs=12)
    assert np.asarray(black).mean() < 12
    assert cut_thumbnails(b"no picture", [(0, 0, 1, 1)] * 2) == [None, None]
    assert cut_thumbnails(FileNotFoundError(2, "No such file"), [(0, 0, 1, 1)]) == [None]


def test_on_a_page_names_are_text_and_a_crop_without_a_picture_is_named(audited):
    document = audited().document
    told = document["classes"][0]
    told["class"], told["descriptors"][0]["text"] = ODD, ODD
    told["descriptors"][0]["best"] = [{"image": ODD, "number": 3, "box": [0, 0, 5, 5], "cosine": 0.25}]
    page = Elements(audit_page(document, SCHEMA.empty_table(), 5))
    assert page.named("script") == []
    assert page.text.count(ODD) == 3
    assert f"{ODD}#3, cosine 0.250" in page.text


WRONG_CALLS = [
    (["--descriptors", "mark"], ["--descriptors mark", "marks"]),
    (["--method", "clipd"], ["--method clipd", "clip, clip_d"]),
    (["--split", "train"], ["--split train", "support, validation or query"]),
    (["--csv", "nowhere/sheet.csv"], ["--csv nowhere/sheet.csv: there is no folder nowhere"]),
    (["--filtered", "kept.yaml"], ["--filtered kept.yaml", ".json"]),
    (["--verdicts", "none.csv"], ["--verdicts none.csv: cannot be read"]),
]


@pytest.mark.parametrize(("options", "words"), WRONG_CALLS, ids=[" ".join(options) for options, _ in WRONG_CALLS])
def test_a_wrong_call_ends_with_status_2_and_says_what_would_be_right(fieldmark, small_job, options, words):
    said = fieldmark("audit", small_job(methods=["clip", "clip_d"]), *options)
    assert (said.status, said.out) == (2, "")
    assert [word for word in words if word not in said.err] == []


def test_what_the_job_has_not_is_told(fieldmark, finished_job):
    said = fieldmark("audit", finished_job, "--method", "clip")
    assert (said.status, "--method clip: has no prompt for each descriptor" in said.err) == (2, True)
    said = fieldmark("audit", finished_job, "--split", "support")
    assert (said.status, "no labelled image of the support split has a stored feature" in said.err) == (2, True)
    said = fieldmark("audit", finished_job, "--seed", "7")
    assert (said.status, "--seed 7: crops were drawn with seed 0" in said.err) == (2, True)
    said = fieldmark("audit", finished_job, "--set", "methods=[clip]")
    assert (said.status, "add one, for example methods: [{name: clip_d, descriptors: marks}]" in said.err) == (2, True)


def test_before_a_run_the_command_that_computes_it_is_told_and_nothing_heavy_is_loaded(fieldmark, small_job):
    job = small_job()
    said = fieldmark("audit", job)
    assert (said.status, said.out) == (1, "")
    assert f"the descriptors are not encoded yet; compute it with: fieldmark run {job}" in said.err
    assert imported_after("audit", str(job)) == (1, "[]")
    assert imported_after("audit", "--help") == (0, "[]")


def test_names_are_shown_as_they_are_and_an_effect_that_hurts_is_said_to_hurt(audited):
    document = audited().document
    out = Console(file=io.StringIO(), width=100)
    show_audit(out, document, 1)
    shown = out.file.getvalue()
    assert STRAY in shown.replace("\n", "")
    assert "3 more between these" in shown
    document["effect"] |= {"difference": -0.05, "low": -0.08, "high": -0.02, "p": 0.001}
    assert sum_up(document)[-1].endswith("-5.0 points (-8.0 to -2.0), p = 0.001: it hurts")
    document["effect"] |= {"p": 0.2}
    assert sum_up(document)[-1].endswith("these images do not tell")


def test_a_sheet_with_an_open_quotation_mark_or_a_verdict_too_many_is_refused_and_nothing_is_lost(
    fieldmark, birds, tmp_path
):
    sheet = tmp_path / "sheet.csv"
    audit = ("audit", birds, "--set", "methods=[clip_d]", "--set", "views={}")
    assert fieldmark(*audit, "--csv", sheet).status == 0
    whole = sheet.read_text(encoding="utf-8-sig")
    header, first, *rest = whole.splitlines()
    for broken, words in (
        ("\n".join([header, first, '"' + rest[0], *rest[1:]]), "quotation mark"),
        ("\n".join([header, first, first.removesuffix('""') + '"drop"', *rest]), "more lines than the class has it"),
    ):
        sheet.write_text(broken, encoding="utf-8")
        said = fieldmark(*audit, "--verdicts", sheet)
        assert said.status == 2
        assert words in said.err
    other = tmp_path / "notes.csv"
    other.write_text("my notes")
    said = fieldmark(*audit, "--csv", other)
    assert (said.status, other.read_text()) == (2, "my notes")
    assert "is there, and no sheet that can be read" in said.err


def test_the_jobs_own_descriptor_file_is_never_overwritten(fieldmark, birds):
    source = birds.parent / "marks.json"
    before = source.read_text()
    said = fieldmark("audit", birds, "--filtered", source)
    assert (said.status, source.read_text()) == (2, before)
    assert "the job reads its descriptors there" in said.err


def test_texts_with_ends_of_lines_come_back_from_a_sheet_as_they_were(tmp_path):
    sheet = tmp_path / "sheet.csv"
    for text in ("a\rb", "a\r\nb", "a\nb"):
        sheet.write_bytes(f'"class","descriptor","verdict"\n"jay","{text}","drop"\n'.encode("utf-8-sig"))
        assert read_verdicts(sheet) == {("jay", text): ["drop"]}
