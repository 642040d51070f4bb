"""The variants of a sweep run on one Ray, compute what they share once, and come out as one table and one plot."""

from __future__ import annotations

import csv
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from pipeline.job_error import JobError
from pipeline.job_file import Variant, load_jobs
from pipeline.plan import make_plan
from pipeline.run import Selection
from pipeline.run_sweep import for_its_table, run_variants
from pipeline.watch import LogWatcher

BIRDS = ("blue jay", "red robin", "wren")
IMAGES = 6
LABELS = ["crops=2", "crops=3"]


def run(job: Path, selection: Selection = Selection(until="evaluate"), *sets: str):  # noqa: B008
    """Runs a job file's variants; what each stage of each computed."""
    watcher = LogWatcher(Console(file=io.StringIO()))
    results = run_variants(load_jobs(job, sets), watcher, None, selection, lambda variant: None)
    return [{result.stage: result.computed for result in stages} for stages in results]


@pytest.fixture(scope="module")
def swept(ray, tmp_path_factory, write_photos, tiny_model, write_job) -> tuple[Path, list[dict[str, int]]]:
    """A job file with a sweep that has run, and what each stage of its two variants computed."""
    folder = tmp_path_factory.mktemp("swept")
    write_photos(folder / "photos", [f"{bird}/{number}.png" for bird in BIRDS for number in range(2)])
    (folder / "photos/wren/broken.png").write_bytes(b"no picture")
    (folder / "marks.json").write_text(json.dumps({bird: ["a beak", f"what a {bird} has"] for bird in BIRDS}))
    job = write_job(
        folder,
        name="birds",
        dataset={"path": "photos"},
        model={"name": f"local-dir:{tiny_model}"},
        descriptors={"marks": {"provider": "file", "path": "marks.json"}},
        views={"random": {"kind": "random"}},
        methods=["clip", "crops_mean"],
        sweep={"views.random.crops": [2, 3]},
        resources={"encode": {"actors": 1}},
    )
    return job, run(job)


@pytest.fixture
def mine(swept, tmp_path) -> Path:
    """The finished sweep in a folder of a test's own."""
    return Path(shutil.copytree(swept[0].parent, tmp_path / "mine")) / "job.yaml"


def test_what_variants_share_is_computed_by_the_first(swept):
    first, second = swept[1]
    assert (first["encode_images"], second["encode_images"]) == (2 * IMAGES, IMAGES), "whole and views, views alone"
    assert (first["score"], second["score"]) == (2 * IMAGES, IMAGES), "both methods, the one that reads crops"
    assert first["encode_text"] > 0
    assert second["encode_text"] == 0


def test_a_second_run_computes_nothing(swept):
    assert {computed for stages in run(swept[0]) for computed in stages.values()} == {0}


def test_rows_that_are_forced_are_made_once_and_not_once_a_variant(mine):
    first, second = run(mine, Selection(until="evaluate", force="score"))
    assert (first["score"], second["score"]) == (2 * IMAGES, IMAGES)


def test_rejects_that_are_tried_again_are_tried_once(mine):
    variants = load_jobs(mine)
    whole = Path(make_plan(variants[0].job).of("encode_images").tables[0].keeper.folder)
    seen: list[dict[Path, int]] = []

    def look(variant: Variant | None = None) -> None:
        seen.append({path: path.stat().st_mtime_ns for path in whole.rglob("rejects/*") if path.is_file()})

    watcher = LogWatcher(Console(file=io.StringIO()))
    look()
    run_variants(variants, watcher, None, Selection(until="encode_images", retry_rejects=True), look)
    look()
    before, dropped, first, second = seen
    assert dropped == {}
    assert first.keys() == before.keys()
    assert first != before
    assert first == second


def test_every_variant_is_checked_before_the_first_one_starts(mine):
    started: list[str] = []
    sets = ["sweep={guides.eyes.name: [vit_base_patch16_224.dino, vit_base_patch16_224.dinoo]}"]
    sets += ["guides={eyes: {kind: dino}}", "views={seen: {kind: guided, guide: eyes, crops: 2}}"]
    variants = load_jobs(mine, sets)[1:] * 2
    watcher = LogWatcher(Console(file=io.StringIO()))
    with pytest.raises(JobError, match=r"sweep \(name=vit_base_patch16_224\.dinoo\): guides\.eyes\.name: unknown"):
        run_variants(variants, watcher, None, Selection(), lambda variant: started.append(variant.label))
    assert started == []


def test_a_sweep_leaves_out_project_unless_it_is_asked_for():
    order = ["describe", "encode_text", "encode_images", "score", "evaluate", "project"]

    def names(selection: Selection) -> list[str]:
        return for_its_table(selection, order).names(order)

    assert names(Selection()) == order[:-1]
    assert names(Selection(start="score")) == ["score", "evaluate"]
    assert names(Selection(force="score")) == order[:-1]
    assert names(Selection(until="project")) == order
    assert names(Selection(only="project")) == ["project"]
    assert names(Selection(start="project")) == ["project"]
    assert names(Selection(force="project")) == order
    assert names(Selection(until="score")) == order[:4]


SWEEPS_THAT_ONLY_START_RAY = """\
import sys
from pipeline import run_sweep
from pipeline.job_file import load_jobs

seen, ending = [], sys.argv[2]

def start_ray(job, watcher, cluster, selection, origin):
    ray = cluster.ray()
    seen.append(ray.get_runtime_context().get_job_id())
    cluster.stop()
    assert ray.is_initialized()
    if ending == "fails" and len(seen) == 2:
        raise RuntimeError("the second one")

run_sweep.run_job = start_ray
try:
    run_sweep.run_variants(load_jobs(sys.argv[1]), None, None, run_sweep.Selection(), lambda variant: None)
except RuntimeError as error:
    print(error)
import ray
print(len(seen), len(set(seen)), ray.is_initialized())
"""


@pytest.mark.parametrize(("ending", "said"), [("done", ["2 1 False"]), ("fails", ["the second one", "2 1 False"])])
def test_ray_stays_until_the_last_variant_has_run_or_one_has_failed_and_not_longer(small_job, ending, said):
    job = small_job(sweep={"views.random.crops": [2, 3]}, methods=["clip", "dnd"])
    call = [sys.executable, "-c", SWEEPS_THAT_ONLY_START_RAY, str(job), ending]
    done = subprocess.run(call, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == said


def test_run_says_as_json_what_each_variant_computed_and_shows_one_table(fieldmark, swept):
    said = fieldmark("run", swept[0], "--json")
    document = json.loads(said.out)
    assert [variant["variant"] for variant in document["variants"]] == LABELS
    assert {row["stage"] for row in document["variants"][0]["stages"]} >= {"encode_images", "evaluate"}
    assert "project" not in {row["stage"] for row in document["variants"][0]["stages"]}
    said = fieldmark("run", swept[0])
    assert (said.status, said.out) == (0, "")
    assert [word for word in ["crops=2 (1 of 2)", "crops=3 (2 of 2)", "crops_mean"] if word not in said.err] == []
    assert f"fieldmark results {swept[0]} --plot job.png" in said.err
    said = fieldmark("run", swept[0], "--set", "max_rejects=0.5")
    assert f"fieldmark results {swept[0]} --plot job.png --set max_rejects=0.5" in said.err
    assert said.err.count("broken.png") == 1


def test_one_variant_may_be_run_alone(fieldmark, mine):
    said = fieldmark("run", mine, "--variant", "crops=3", "--until", "project", "--json")
    (variant,) = json.loads(said.out)["variants"]
    assert variant["variant"] == "crops=3"
    assert variant["stages"][-1]["stage"] == "project"
    hits = json.loads(fieldmark("query", mine, "a beak", "--variant", "crops=3", "--json").out)["hits"]
    assert {hit["class"] for hit in hits} <= set(BIRDS)
    missing = fieldmark("query", mine, "a beak", "--variant", "crops=2")
    assert missing.status == 1
    assert f"fieldmark run {mine} --variant crops=2 --until project" in missing.err


def test_results_of_a_sweep_are_methods_by_variants(fieldmark, swept, tmp_path):
    document = json.loads(fieldmark("results", swept[0], "--json").out)
    assert [(row["job"], row["method"]) for row in document["methods"]] == [
        (label, method) for label in LABELS for method in ("clip", "crops_mean")
    ]
    assert {row["job"] for row in document["comparisons"]} == set(LABELS)
    assert document["swept"] == {label: {"views.random.crops": int(label[-1])} for label in LABELS}
    read = list(csv.DictReader(io.StringIO(fieldmark("results", swept[0], "--csv").out)))
    assert [row["job"] for row in read] == [row["job"] for row in document["methods"]]
    shown = fieldmark("results", swept[0]).out
    assert [word for word in [*LABELS, "crops_mean"] if word not in shown] == []
    said = fieldmark("results", swept[0], "--plot", tmp_path / "out.png")
    assert f"wrote {tmp_path / 'out.png'}" in said.err
    assert (tmp_path / "out.png").stat().st_size > 5000


def test_results_beside_another_job_say_of_which_job_a_variant_is(fieldmark, swept, finished_job, tmp_path):
    said = fieldmark("results", swept[0], finished_job, "--json", "--plot", tmp_path / "out.svg")
    jobs = dict.fromkeys(row["job"] for row in json.loads(said.out)["methods"])
    assert list(jobs) == ["birds crops=2", "birds crops=3", "birds"]
    assert "birds crops=3" in (tmp_path / "out.svg").read_text()


def test_results_of_a_sweep_that_was_stopped_show_what_is_there_and_say_what_is_not(fieldmark, swept):
    changed = "sweep.views.random.crops=[2, 5]"
    said = fieldmark("results", swept[0], "--set", changed, "--json")
    assert [(row["job"], row["method"]) for row in json.loads(said.out)["methods"]] == [
        ("crops=2", "clip"),
        ("crops=2", "crops_mean"),
        ("crops=5", "clip"),  # reads no crops, so that the first variant has done it
    ]
    assert "some results of crops=5 are not there yet" in said.err
    assert f"fieldmark run {swept[0]} --set '{changed}'" in said.err


def test_numbers_of_two_job_files_are_no_points_of_one_line(fieldmark, mine, tmp_path):
    data = yaml.safe_load(mine.read_text())
    for name, crops in (("pets", 2), ("food", 3)):
        changed = data | {"name": name, "store": "runs/birds", "sweep": {"views.random.crops": [crops]}}
        (mine.parent / f"{name}.yaml").write_text(yaml.safe_dump(changed))
    files = [mine.parent / f"{name}.yaml" for name in ("pets", "food")]
    assert fieldmark("results", *files, "--plot", tmp_path / "out.svg").status == 0
    drawn = (tmp_path / "out.svg").read_text()
    assert "pets crops=2" in drawn
    assert "food crops=3" in drawn


def test_status_shows_a_table_of_several_variants_once(fieldmark, swept):
    said = fieldmark("status", swept[0])
    assert said.status == 0
    assert [said.out.count(f" {table} ") for table in ("whole", "views.random")] == [1, 2]
    assert all(label in said.out for label in LABELS)
    document = json.loads(fieldmark("status", swept[0], "--json").out)
    assert [variant["variant"] for variant in document["variants"]] == LABELS
    assert [variant["rejects"] for variant in document["variants"]] == [1, 1]
    tables = [{row["table"]: row["location"] for row in variant["stages"]} for variant in document["variants"]]
    assert tables[0]["whole"] == tables[1]["whole"]
    assert tables[0]["views.random"] != tables[1]["views.random"]


def test_a_dry_run_of_a_sweep_shows_its_stages_and_starts_nothing(fieldmark, swept):
    said = fieldmark("run", swept[0], "--dry-run", "--json", "--set", "sweep.views.random.crops=[2, 7]")
    two, seven = json.loads(said.out)["variants"]
    assert {row["stage"] for row in two["stages"]} == {"describe", "encode_text", "encode_images", "score", "evaluate"}
    missing = {row["table"]: row["missing"] for row in seven["stages"] if row["stage"] == "encode_images"}
    assert missing == {"whole": 0, "views.random": IMAGES + 1}


ONE_IS_NEEDED = [["predict", "JOB"], ["query", "JOB", "a beak"], ["export", "JOB", "whole", "-o", "OUT"]]


@pytest.mark.parametrize("call", ONE_IS_NEEDED, ids=lambda call: call[0])
def test_who_reads_one_job_is_asked_for_the_variant_and_told_which_there_are(fieldmark, swept, tmp_path, call):
    places = {"JOB": str(swept[0]), "OUT": str(tmp_path / "out.parquet")}
    arguments = [places.get(argument, argument) for argument in call]
    said = fieldmark(*arguments)
    assert (said.status, said.out) == (2, "")
    assert "--variant, one of 'crops=2', 'crops=3'" in said.err
    said = fieldmark(*arguments, "--variant", "crops=4")
    assert said.status == 2
    assert "no such variant; there are 'crops=2', 'crops=3'" in said.err


def test_predict_and_export_answer_for_the_variant_that_is_named(fieldmark, swept, tmp_path):
    said = fieldmark("predict", swept[0], "--variant", "crops=3", "--json")
    assert len(json.loads(said.out)["predictions"]) == 2 * IMAGES
    out = tmp_path / "views.parquet"
    assert fieldmark("export", swept[0], "views.random", "-o", out, "--variant", "crops=3").status == 0

    import pyarrow.parquet as pq

    assert pq.read_table(out).schema.field("boxes").type.list_size == 3 * 4


def test_a_job_without_a_sweep_has_no_variants(fieldmark, finished_job):
    for call in (["predict", finished_job], ["run", finished_job]):
        said = fieldmark(*call, "--variant", "x")
        assert (said.status, said.out) == (2, "")
        assert "has no sweep, and so no variants" in said.err


@pytest.mark.parametrize(
    ("raised", "status", "words"),
    [
        (KeyboardInterrupt(), 130, ["stopped in variant crops=3", "Go on with: fieldmark run"]),
        (RuntimeError("no space left"), 1, ["variant crops=3 failed", "no space left", "Go on with: fieldmark run"]),
        (JobError("model: gone"), 2, ["job.yaml: sweep (crops=3): model: gone"]),
    ],
    ids=["interrupted", "failed", "wrong"],
)
def test_a_sweep_that_ends_early_says_in_which_variant(fieldmark, swept, monkeypatch, raised, status, words):
    import pipeline.run_sweep

    real = pipeline.run_sweep.run_job

    def second_one_ends(job, *rest):
        if job.name == "birds crops=3":
            raise raised
        return real(job, *rest)

    monkeypatch.setattr(pipeline.run_sweep, "run_job", second_one_ends)
    said = fieldmark("run", swept[0])
    assert said.status == status
    assert [word for word in words if word not in said.err] == []


def test_a_plot_is_written_in_three_formats_and_another_is_refused_before_anything_is_read(fieldmark, tmp_path):
    said = fieldmark("results", tmp_path / "none.yaml", "--plot", tmp_path / "out.gif")
    assert (said.status, said.out) == (2, "")
    assert ".png, .svg or .pdf" in said.err
