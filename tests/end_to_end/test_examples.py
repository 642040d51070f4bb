"""Every job file under `examples/` says what the code accepts; some of them run on a small world, end to end."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from pipeline.dotted_keys import places_of, row_names
from pipeline.job_file import Variant, load_jobs
from pipeline.plan import make_plan
from pipeline.results import collect_results
from pipeline.run import Selection
from pipeline.run_sweep import run_variants
from pipeline.watch import LogWatcher

EXAMPLES = Path(__file__).parents[2] / "examples"
NAMES = sorted(path.stem for path in EXAMPLES.glob("*.yaml"))
REAL_DATA = ["imagenet"]
ENCODE_NOTHING = ["ablation", "epsilon", "matcher-scaling", "matchers", "number-of-crops"]


@pytest.fixture
def home(rendered: Path, tmp_path: Path) -> Path:
    """A folder with the examples, and beside them a world as `fieldmark demo` leaves it, but smaller."""
    return furnish(tmp_path, rendered)


def furnish(folder: Path, rendered: Path) -> Path:
    shutil.copytree(EXAMPLES, folder / "examples")
    shutil.copytree(rendered, folder / "fieldmark-demo")
    images = folder / "fieldmark-demo/images"
    shutil.copytree(images / "test", images / "train")
    return folder


@pytest.fixture(scope="module")
def ran(ray, rendered: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Such a folder in which the ablation has run."""
    home = furnish(tmp_path_factory.mktemp("ran"), rendered)
    run(load(home, "ablation", "views.guided.crops=4"))
    return home


def load(home: Path, name: str, *overrides: str) -> list[Variant]:
    return load_jobs(home / "examples" / f"{name}.yaml", overrides)


def run(variants: list[Variant]) -> dict[str, dict[str, dict]]:
    """Runs them and returns their results."""
    watcher = LogWatcher(Console(file=io.StringIO()))
    run_variants(variants, watcher, None, Selection(until="evaluate"), lambda variant: None)
    return results(variants)


def results(variants: list[Variant]) -> dict[str, dict[str, dict]]:
    """label -> method -> its row of results, of variants that have run."""
    return {
        variant.label: {row["method"]: row for row in collect_results(make_plan(variant.job), variant.job.name)}
        for variant in variants
    }


@pytest.mark.parametrize("name", [name for name in NAMES if name not in REAL_DATA])
def test_an_example_loads_and_plans_on_the_world_that_the_demo_leaves(home, name):
    variants = load(home, name)
    store = str(home / "fieldmark-demo/runs")
    assert {variant.job.store for variant in variants} == {store}
    for variant in variants:
        plan = make_plan(variant.job)
        assert len(plan.inputs.classes) == 6
        assert not plan.of("describe").unknown


@pytest.mark.parametrize("name", [name for name in NAMES if name not in REAL_DATA])
def test_an_example_says_how_to_run_it_and_what_to_change_for_other_data(name):
    text = (EXAMPLES / f"{name}.yaml").read_text(encoding="utf-8")
    assert f"fieldmark run examples/{name}.yaml" in text
    assert f"fieldmark results examples/{name}.yaml --plot {name}.png" in text
    assert "For a data set of your own" in text


@pytest.mark.parametrize("name", NAMES)
def test_every_method_of_an_example_can_be_reached_by_its_name(name):
    data = yaml.safe_load((EXAMPLES / f"{name}.yaml").read_text(encoding="utf-8"))
    for number, row in enumerate(row_names(data["methods"])):
        assert places_of(data, f"methods.{row}.template") == [f"methods.{number}.template"]


@pytest.mark.parametrize("name", ENCODE_NOTHING)
def test_an_example_that_says_so_encodes_nothing_that_the_demo_has_not(home, name):
    from pipeline.demo import JOB_FILE

    (home / "fieldmark-demo/job.yaml").write_text(JOB_FILE)
    (demo,) = load_jobs(home / "fieldmark-demo/job.yaml", ["dataset.splits={query: test}"])

    def encoded(variant: Variant) -> set[str]:
        return {table.fingerprint for table in make_plan(variant.job).of("encode_images").tables}

    for variant in load(home, name):
        assert encoded(variant) <= encoded(demo)


def test_the_ablation_has_the_eight_combinations_of_the_paper(home):
    (variant,) = load(home, "ablation")
    parts = {
        (method.name, getattr(method, "crops", "whole"), getattr(method, "matching", "mean"))
        for method in variant.job.methods
    }
    crops = ("whole", "raw", "feature", "both")
    expected = {("abs", crop, matching) for crop in crops for matching in ("mean", "soft")}
    assert parts == expected - {("abs", "whole", "mean")} | {("cupl", "whole", "mean")}


def test_marked_images_and_crops_are_drawn_at_the_same_boxes(home):
    import numpy as np

    from stages.views import draw_views

    saliency = np.arange(64.0).reshape(8, 8)
    boxes = [
        draw_views(variant.job.views["shown"], 0, "a bird", 256, 256, saliency, 8).boxes.tolist()
        for variant in load(home, "visual-prompts")
    ]
    assert len(boxes) == 4
    assert all(other == boxes[0] for other in boxes)


def test_the_file_for_imagenet_loads_once_its_paths_exist(home, write_photos, stub_model):
    root = home / "data/imagenet"
    write_photos(root / "val", [f"{wnid}/{number}.png" for wnid in ("n01440764", "n01558993") for number in range(2)])
    (root / "LOC_synset_mapping.txt").write_text("n01440764 tench, Tinca tinca\nn01558993 robin, redbreast\n")
    (root / "marks.json").write_text(json.dumps({"tench": ["golden scales"], "robin": ["a red breast"]}))
    (root / "cupl.json").write_text(json.dumps({"tench": ["A tench is a fish."], "robin": ["A robin is a bird."]}))
    (variant,) = load(home, "imagenet")
    assert (variant.job.name, variant.job.store) == ("imagenet", str(home / "runs/imagenet"))
    assert (variant.job.model.name, variant.job.model.weights) == ("ViT-B-16", "openai")
    (local,) = load(home, "imagenet", f"model={{name: 'local-dir:{stub_model}'}}")
    plan = make_plan(local.job)
    assert plan.inputs.classes == ("tench", "robin")

    from stages.methods import ZERO_SHOT

    assert {method.name for method in local.job.methods} == set(ZERO_SHOT), "all methods that read no other images"


def test_number_of_crops_reads_the_first_crops_of_one_view_set_and_leaves_the_whole_image_alone(ran):
    found = run(load(ran, "number-of-crops", "sweep.methods.*.max_crops=[1, 4]", "views.guided.crops=4"))
    assert list(found) == ["max_crops=1", "max_crops=4"]
    one, four = found.values()
    same = ("accuracy", "seconds_per_image", "by_class")
    assert [one["cupl"][name] for name in same] == [four["cupl"][name] for name in same]
    assert [one[name]["forward_passes"] for name in ("cupl", "dnd", "abs")] == [1, 2, 2]
    assert [four[name]["forward_passes"] for name in ("cupl", "dnd", "abs")] == [1, 5, 5]
    folder = ran / "fieldmark-demo/runs/tables/encode_images"
    assert len(list(folder.iterdir())) == 2, "whole images, and one view set for both, and for the ablation"


def test_the_ablation_runs_and_all_its_parts_together_beat_none_of_them(ran):
    (found,) = results(load(ran, "ablation", "views.guided.crops=4")).values()
    assert list(found) == [
        entry["label"] for entry in yaml.safe_load((EXAMPLES / "ablation.yaml").read_text())["methods"]
    ]
    assert found["F_rs + F_fs + Soft-M (abs)"]["accuracy"] > found["none (cupl)"]["accuracy"]
