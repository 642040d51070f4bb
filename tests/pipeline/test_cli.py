"""The command line: exit statuses, one clear message, JSON on standard output and nothing else there."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys

import pyarrow.parquet as pq
import pytest

from pipeline.job_file import load_job
from pipeline.plan import make_plan
from pipeline.store_held import StoreHeld
from stages.descriptor_settings import NamesDescriptors

HEAVY = [
    "jinja2",
    "lancedb",
    "matplotlib",
    "numba",
    "open_clip",
    "polars",
    "ray",
    "scipy",
    "timm",
    "torch",
    "torchvision",
]


def imported_after(*arguments: str) -> tuple[int, str]:
    """Exit status of a call in a process of its own, and which of the heavy packages it imported."""
    code = (
        "import sys\n"
        f"sys.argv = {['fieldmark', *arguments]!r}\n"
        "from pipeline.cli import main\n"
        "try:\n    main()\n    status = 0\n"
        "except SystemExit as ending:\n    status = ending.code\n"
        f"print(status, sorted(set({HEAVY!r}) & set(sys.modules)), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    status, _, found = done.stderr.strip().splitlines()[-1].partition(" ")
    return int(status or 0), found


def test_status_help_and_a_wrong_file_load_neither_torch_nor_ray_nor_lancedb(small_job):
    path = str(small_job())
    assert imported_after("status", path) == (0, "[]")
    assert imported_after("query", "--help") == (0, "[]")
    assert imported_after("run", path, "--dry-run") == (0, "[]")
    assert imported_after("run", path, "--set", "methods=[cilp]") == (2, "[]")


def test_a_run_with_nothing_missing_loads_neither_torch_nor_ray_nor_lancedb(finished_job):
    assert imported_after("run", str(finished_job)) == (0, "[]")
    assert imported_after("status", str(finished_job)) == (0, "[]")


def test_only_a_plot_loads_matplotlib(finished_job, tmp_path):
    assert imported_after("results", str(finished_job)) == (0, "[]")
    assert imported_after("results", str(finished_job), "--plot", str(tmp_path / "out.svg")) == (0, "['matplotlib']")


WRONG_CALLS = [
    (["status", "JOB", "--set", "seed"], ["--set seed", "KEY=VALUE"]),
    (["status", "JOB", "--set", "dataset.path=nowhere"], ["job.yaml", "dataset.path", "nowhere"]),
    (["status", "JOB", "--set", "descriptors.marks.path=none.json"], ["job.yaml", "descriptors.marks", "none.json"]),
    (["status", "missing.yaml"], ["missing.yaml", "fieldmark init"]),
    (["status", "JOB", "--sets", "seed=1"], ["--sets"]),
    (["status"], ["JOB"]),
    (["fly"], ["fly"]),
    (["run", "JOB", "--only", "scoer"], ["'scoer'", "score"]),
    (["run", "JOB", "--force", "all"], ["'all'", "describe"]),
    (["run", "JOB", "--from", "score", "--until", "describe"], ["--from score comes after --until describe"]),
    (["run", "JOB", "--dry-run", "--only", "nothing"], ["'nothing'"]),
    (["run", "JOB", "--only", "score", "--until", "evaluate"], ["--only score", "leave out --until evaluate"]),
    (["predict", "JOB", "--method", "cilp"], ["--method cilp", "the job has clip, "]),
    (["predict", "JOB", "-o", "out.xlsx"], ["out.xlsx", ".csv, .parquet or .json"]),
    (["predict", "JOB", "-k", "0"], ["'-k'", "1"]),
    (["query", "JOB"], ["a text or --image"]),
    (["query", "JOB", "red", "--image", "x.png"], ["one of them"]),
    (["query", "JOB", "--image", "none.png"], ["--image", "none.png"]),
    (["query", "JOB", "red", "--table", "crop"], ["--table crop", "crops, images, descriptors"]),
    (["query", "JOB", "red", "--table", "descriptors", "--split", "query"], ["--split"]),
    (["export", "JOB", "hole", "-o", "x.parquet"], ["'hole'", "encode_images/whole"]),
    (["init", "nowhere"], ["nowhere"]),
]


@pytest.mark.parametrize(("arguments", "words"), WRONG_CALLS, ids=[" ".join(call) for call, _ in WRONG_CALLS])
def test_a_wrong_call_or_file_gets_one_message_on_standard_error_and_status_2(fieldmark, small_job, arguments, words):
    job = str(small_job())
    said = fieldmark(*(job if argument == "JOB" else argument for argument in arguments))
    assert (said.status, said.out) == (2, "")
    assert [word for word in words if word not in said.err] == []
    assert "Traceback" not in said.err


NOT_COMPUTED = [
    ["results", "JOB"],
    ["results", "JOB", "--json"],
    ["predict", "JOB"],
    ["predict", "JOB", "--image", "PICTURE"],
    ["export", "JOB", "views.random", "-o", "OUT"],
]


@pytest.mark.parametrize("arguments", NOT_COMPUTED, ids=" ".join)
def test_asking_for_what_is_not_computed_fails_and_says_what_to_run(fieldmark, small_job, tmp_path, arguments):
    job = str(small_job())
    places = {"JOB": job, "PICTURE": str(tmp_path / "photos/wren/0.png"), "OUT": str(tmp_path / "out.parquet")}
    said = fieldmark(*(places.get(argument, argument) for argument in arguments))
    assert (said.status, said.out) == (1, "")
    assert f"fieldmark run {job}" in said.err
    assert not (tmp_path / "out.parquet").exists()


def test_a_query_of_a_store_without_a_completed_run_fails_and_says_so(fieldmark, small_job):
    said = fieldmark("query", small_job(), "a red beak")
    assert (said.status, said.out) == (1, "")
    assert "compute them with: fieldmark run" in said.err


def test_status_as_json_tells_every_stage_and_writes_nothing_else_there(fieldmark, small_job):
    said = fieldmark("status", small_job(), "--json")
    document = json.loads(said.out)
    assert (said.status, said.err, document["rejects"]) == (0, "", 0)
    rows = {row["table"]: row for row in document["stages"] if row["stage"] == "encode_images"}
    assert rows["views.random"] | {"location": "", "path": ""} == {
        "stage": "encode_images",
        "table": "views.random",
        "wanted": 6,
        "present": 0,
        "missing": 6,
        "rejected": 0,
        "unread": 0,
        "why": "not made yet",
        "reasons": ["not made yet"],
        "notes": [],
        "bytes": 0,
        "location": "",
        "path": "",
        "modified": None,
        "seconds": None,
    }
    (unknown,) = [row for row in document["stages"] if row["stage"] == "encode_text"]
    assert (unknown["wanted"], unknown["why"], unknown["reasons"]) == (
        None,
        "known after describe",
        ["known after describe"],
    )


def test_a_dry_run_shows_the_plan_and_makes_nothing(fieldmark, small_job, tmp_path):
    said = fieldmark("run", small_job(), "--dry-run")
    assert said.status == 0
    assert "views.guided" in said.out
    assert not (tmp_path / "runs" / "job" / "tables").exists()


def test_status_of_a_finished_job_has_nothing_missing_and_counts_the_reject(fieldmark, finished_job):
    document = json.loads(fieldmark("status", finished_job, "--json").out)
    assert {row["missing"] for row in document["stages"]} == {0}
    assert {row["why"] for row in document["stages"]} == {""}
    assert [row["reasons"] for row in document["stages"] if row["reasons"]] == []
    assert document["rejects"] == 1
    assert document["rejected"][0]["uri"].endswith("test/wren/broken.png")


def test_a_second_run_says_as_json_that_all_was_reused(fieldmark, finished_job):
    said = fieldmark("run", finished_job, "--json")
    stages = {row["stage"]: row for row in json.loads(said.out)["stages"]}
    assert said.status == 0
    assert {row["computed"] for row in stages.values()} == {0}
    assert stages["encode_images"]["reused"] == 3 * 12
    assert stages["encode_images"]["rejected"] == 1


def test_results_come_as_a_table_as_json_as_csv_and_as_latex(fieldmark, finished_job):
    rows = json.loads(fieldmark("results", finished_job, "--json").out)["methods"]
    assert [row["method"] for row in rows] == [method.row_name for method in load_job(finished_job).methods]
    assert {(row["job"], row["split"], row["images"], row["classes"]) for row in rows} == {("birds", "query", 12, 3)}
    assert all(row["low"] <= row["accuracy"] <= row["high"] and row["seconds_per_image"] > 0 for row in rows)
    assert {tuple(one["class"] for one in row["by_class"]) for row in rows} == {("blue jay", "red robin", "wren")}
    assert all(sum(one["images"] for one in row["confusions"]) == round(12 * (1 - row["accuracy"])) for row in rows)
    read = list(csv.DictReader(io.StringIO(fieldmark("results", finished_job, "--csv").out)))
    assert [float(row["accuracy"]) for row in read] == [row["accuracy"] for row in rows]
    assert r"crops\_mean & " in fieldmark("results", finished_job, "--latex").out
    assert "12 images, 3 classes, chance 33.3 %" in fieldmark("results", finished_job).out


def test_export_writes_a_table_that_any_parquet_reader_opens(fieldmark, finished_job, tmp_path):
    out = tmp_path / "views.parquet"
    assert fieldmark("export", finished_job, "views.random", "-o", out).status == 0
    table = pq.read_table(out)
    assert table.num_rows == 12
    assert table.schema.field("vectors").type.list_size == 3 * 24
    assert fieldmark("export", finished_job, "score/methods.clip", "-o", tmp_path / "clip.parquet").status == 0
    assert pq.read_table(tmp_path / "clip.parquet").num_rows == 12


def test_predict_writes_a_file_or_json_and_tells_a_file_that_is_no_picture(fieldmark, finished_job, tmp_path):
    folder = finished_job.parent / "photos/test/wren"
    said = fieldmark("predict", finished_job, "--image", folder / "0.png", "--image", folder / "broken.png", "--json")
    rows = json.loads(said.out)["predictions"]
    assert said.status == 1
    assert "broken.png: not an image" in said.err
    assert [(row["image"], row["method"]) for row in rows] == [
        (str(folder / "0.png"), method) for method in ("clip", "cupl", "crops_mean", "dnd", "abs")
    ]
    out = tmp_path / "predictions.csv"
    said = fieldmark("predict", finished_job, "--method", "abs", "-k", "2", "-o", out)
    assert (said.status, said.out) == (0, "")
    read = list(csv.DictReader(io.StringIO(out.read_text())))
    assert len(read) == 12
    assert {row["top_classes"].count("|") for row in read} == {1}


def test_query_finds_a_picture_by_itself_and_keeps_to_class_and_split(fieldmark, finished_job):
    image = finished_job.parent / "photos/test/wren/2.png"
    said = fieldmark("query", finished_job, "--image", image, "--table", "images", "-k", "3", "--json")
    hits = json.loads(said.out)["hits"]
    assert said.status == 0
    assert len(hits) == 3
    assert hits[0]["id"].startswith("test/wren/2.png")
    assert hits[0]["similarity"] == pytest.approx(1, abs=2e-3)
    assert [hit["similarity"] for hit in hits] == sorted((hit["similarity"] for hit in hits), reverse=True)
    said = fieldmark("query", finished_job, "a red breast", "--class", "red robin", "-k", "100", "--json")
    crops = json.loads(said.out)["hits"]
    assert {hit["class"] for hit in crops} == {"red robin"}
    assert len(crops) == 4 * (3 + 2)
    said = fieldmark("query", finished_job, "x", "--split", "test", "--json")
    assert (said.status, said.out) == (2, "")
    assert "--split test: not in this table. There are: query" in said.err
    assert "Did you mean 'red robin'" in fieldmark("query", finished_job, "x", "--class", "red robbin").err


def test_query_answers_from_the_tables_of_the_present_settings_or_not_at_all(fieldmark, finished_job):
    said = fieldmark("query", finished_job, "x", "--set", "views.random.crops=99")
    assert said.status == 1
    assert "compute them with: fieldmark run" in said.err


def test_predict_of_nothing_but_bad_images_writes_an_empty_table(fieldmark, finished_job, tmp_path):
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"")
    said = fieldmark("predict", finished_job, "--image", bad, "-o", tmp_path / "out.csv")
    assert said.status == 1
    assert "the file is empty" in said.err
    assert (tmp_path / "out.csv").read_text().startswith("image,method,")


def test_a_forced_stage_must_be_among_those_to_run(fieldmark, finished_job):
    said = fieldmark("run", finished_job, "--only", "describe", "--force", "evaluate")
    assert said.status == 2
    assert "--force evaluate: that stage is not among those to run (describe)" in said.err


def test_a_dry_run_counts_forced_rows_and_chosen_stages_alone(fieldmark, finished_job):
    said = fieldmark("run", finished_job, "--from", "score", "--force", "score", "--dry-run", "--json")
    rows = json.loads(said.out)["stages"]
    assert {row["stage"] for row in rows} == {"score", "evaluate", "project"}
    assert all(row["missing"] == row["wanted"] for row in rows if row["stage"] == "score")


def test_a_run_is_told_whether_to_wait_for_another_and_of_which_file_it_is(fieldmark, small_job, monkeypatch):
    heard = []
    monkeypatch.setattr("pipeline.run_sweep.run_variants", lambda *call: heard.append(call) or [[]])
    job = small_job()
    for options in ([], ["--wait", "--address", "10.0.0.1:6379"]):
        assert fieldmark("run", job, *options).status == 0
    assert [(call[2], call[3].wait, call[5]) for call in heard] == [
        (None, False, str(job)),
        ("10.0.0.1:6379", True, str(job)),
    ]


def test_a_store_that_another_run_holds_is_status_3_and_no_failure(fieldmark, small_job, monkeypatch):
    holder = {"run": "1", "job": "birds", "host": "here", "process": 7, "since": "2026-03-04T14:05:00+00:00"}

    def held(job, *rest):
        raise StoreHeld(job.store, [holder | {"resources": ["encode_images/0a1b/rows"]}], {})

    monkeypatch.setattr("pipeline.run_sweep.run_job", held)
    said = fieldmark("run", small_job(sweep={"views.random.crops": [2, 3]}, methods=["clip", "dnd"]))
    assert (said.status, said.out) == (3, "")
    assert "by job birds on here (process 7)" in said.err
    assert "failed" not in said.err


def test_a_running_failure_is_one_message_and_status_1(fieldmark, small_job, tmp_path):
    job = small_job()
    (tmp_path / "runs").write_text("a file where the store should be")
    said = fieldmark("run", job)
    assert said.status == 1
    assert said.err.strip().count("\n") == 0
    assert "Traceback" not in said.err


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["wren/1.png", "blue jay/1.png"], ("blue jay", "wren")),
        (["test/wren/1.png", "train/wren/2.png", "train/jay/3.png", ".git/x.png"], ("jay", "wren")),
        (["val/wren/1.png", "train/wren/2.png"], ("wren",)),
        (["test/wren/1.png", "train/jay/2.png", "masks/wren/1.png"], ("jay", "wren")),
    ],
)
def test_init_writes_a_job_file_that_loads_for_labelled_and_for_split_folders(
    fieldmark, write_photos, tmp_path, names, expected
):
    folder = write_photos(tmp_path / "my #1 photos", names)
    said = fieldmark("init", folder)
    assert (said.status, said.out) == (0, "")
    assert f"fieldmark run {folder / 'job.yaml'}" in said.err
    plan = make_plan(load_job(folder / "job.yaml"))
    assert plan.inputs.classes == expected
    assert sum(split == "query" for split in plan.inputs.manifest["split"].to_pylist()) >= 1


def test_init_takes_class_names_and_descriptors_for_a_flat_folder_whatever_the_files_are_called(
    fieldmark, write_photos, tmp_path
):
    folder = write_photos(tmp_path / "photos", ["a.png", "b.png"])
    classes, descriptors = tmp_path / "names, all: #1.txt", folder / "it's {mine}.json"
    classes.write_text("wren\nblue jay\n")
    descriptors.write_text('{"wren": ["small"], "blue jay": ["blue"]}')
    assert fieldmark("init", folder, "--classes", classes, "--descriptors", descriptors).status == 0
    job = load_job(folder / "job.yaml")
    assert make_plan(job).inputs.classes == ("wren", "blue jay")
    assert (job.dataset.classes, job.descriptors["sentences"].path) == (str(classes), str(descriptors))


def test_init_without_descriptors_knows_class_names_alone_and_shows_what_to_put_in_their_place(
    fieldmark, write_photos, tmp_path
):
    folder = write_photos(tmp_path / "photos", ["wren/1.png", "jay/1.png"])
    assert fieldmark("init", folder).status == 0
    job = load_job(folder / "job.yaml")
    assert [method.name for method in job.methods] == ["clip", "clip_e", "waffle", "crops_mean", "dnd", "abs"]
    assert {each.name for each in job.methods if getattr(each, "descriptors", None)} >= {"crops_mean", "dnd", "abs"}
    assert isinstance(job.descriptors["names"], NamesDescriptors)
    lines = (folder / "job.yaml").read_text().splitlines()
    shown = [line for line in lines if line.startswith(("#  marks:", "#  sentences:"))]
    for line in shown:  # each in its place, as the comment says
        kept = [each for each in lines if not each.startswith(("  names:", "methods:"))]
        other = [line.removeprefix("#") if each == line else each for each in kept]
        (folder / "other.yaml").write_text("\n".join(other))
        (found,) = load_job(folder / "other.yaml").descriptors.values()
        assert found.provider == ("file" if "sentences" in line else "openai")
    assert len(shown) == 3


def test_the_file_that_init_writes_has_something_to_say_of_every_class_to_every_method(
    fieldmark, write_photos, stub_model, tmp_path
):
    folder = write_photos(tmp_path / "photos", ["wren/1.png", "jay/1.png"])
    assert fieldmark("init", folder).status == 0
    sets = [f"model={{name: 'local-dir:{stub_model}'}}", "views={guided: {kind: guided, guide: clip}}"]
    options = [word for each in sets for word in ("--set", each)]
    assert fieldmark("run", folder / "job.yaml", "--only", "describe", *options).status == 0
    spoken = make_plan(load_job(folder / "job.yaml", sets)).of("encode_text").tables[0].plan.prompts
    assert {method.name for method, _ in spoken} == {"clip", "clip_e", "waffle", "crops_mean", "dnd", "abs"}
    said = {method.name: texts for method, texts in spoken}
    assert said["abs"] == said["crops_mean"]
    assert said["dnd"]["wren"] == said["abs"]["wren"][:9]
    assert said["abs"]["wren"][0] == "a photo of a wren."


def test_init_takes_a_lance_table_of_descriptors_and_tells_one_that_is_missing(fieldmark, write_photos, tmp_path):
    folder = write_photos(tmp_path / "photos", ["wren/1.png"])
    said = fieldmark("init", folder, "--descriptors", tmp_path / "marks.lance")
    assert said.status == 2
    assert "--descriptors: no file" in said.err
    (tmp_path / "marks.lance").mkdir()
    assert fieldmark("init", folder, "--descriptors", tmp_path / "marks.lance").status == 0
    assert load_job(folder / "job.yaml").descriptors["sentences"].path == str(tmp_path / "marks.lance")


def test_init_names_the_job_after_its_folder_so_that_two_of_them_stand_apart(fieldmark, write_photos, tmp_path):
    names = {}
    for folder in ("my #1 photos", "2024", "null", "Zaunkönig & Co."):
        write_photos(tmp_path / folder, ["wren/1.png"])
        assert fieldmark("init", tmp_path / folder).status == 0
        job = load_job(tmp_path / folder / "job.yaml")
        names[folder] = job.name
        assert job.store == str(tmp_path / folder / "runs" / job.name)
    assert list(names.values()) == ["my-1-photos", "2024", "null", "Zaunkönig-Co"]


def test_init_finds_the_splits_beside_a_store_of_an_earlier_job(fieldmark, write_photos, tmp_path):
    folder = write_photos(tmp_path / "photos", ["test/wren/1.png"])
    table = folder / "runs/old/tables/score/0a1b/table.json"
    table.parent.mkdir(parents=True)
    table.write_text("{}")
    assert fieldmark("init", folder).status == 0
    assert make_plan(load_job(folder / "job.yaml")).inputs.classes == ("wren",)


def test_init_does_not_overwrite_a_job_file(fieldmark, write_photos, tmp_path):
    folder = write_photos(tmp_path / "photos", ["wren/1.png"])
    (folder / "job.yaml").write_text("mine")
    said = fieldmark("init", folder)
    assert said.status == 2
    assert "there already" in said.err
    assert (folder / "job.yaml").read_text() == "mine"


def test_init_tells_a_missing_class_file(fieldmark, write_photos, tmp_path):
    folder = write_photos(tmp_path / "photos", ["wren.png"])
    said = fieldmark("init", folder, "--classes", tmp_path / "none.txt")
    assert said.status == 2
    assert "--classes" in said.err
    assert not (folder / "job.yaml").exists()


def test_results_of_two_jobs_of_one_name_are_refused(fieldmark, finished_job):
    said = fieldmark("results", finished_job, finished_job)
    assert (said.status, said.out) == (2, "")
    assert "name" in said.err


def test_an_unknown_guide_stops_a_run_before_anything_starts_or_is_forgotten(fieldmark, small_job):
    guides = {"eyes": {"kind": "dino", "name": "vit_base_patch16_224.dinoo"}}
    job = small_job(guides=guides, views={"guided": {"kind": "guided", "guide": "eyes", "crops": 2}})
    said = fieldmark("run", job)
    assert (said.status, said.out) == (2, "")
    assert "guides.eyes.name: unknown timm model 'vit_base_patch16_224.dinoo'" in said.err
    assert "did you mean vit_base_patch16_224.dino" in said.err
    assert not list(job.parent.rglob("tables/*"))
