"""Folders of real image files of mixed sizes and kinds, good and bad, labelled and not."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.cluster import Cluster
from pipeline.job_file import load_job
from pipeline.plan import make_plan
from pipeline.predict import NotComputed, new_predictions, stored_predictions
from pipeline.run import Selection, run_job
from stages.stage import TooManyRejects

from .conftest import SPECIES, Silent, run

pytestmark = pytest.mark.usefixtures("ray")

ENCODE = Selection(until="encode_images")


def photograph(width: int, height: int, mode: str = "RGB") -> Image.Image:
    """Smooth colours with some texture, in any mode that image files come in."""
    rng = np.random.default_rng(width * height)
    coarse = Image.fromarray(rng.integers(0, 255, (6, 8, 3), np.uint8)).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    return coarse.convert(mode)


@pytest.fixture(scope="module")
def classified(ray, rendered: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small world with a class of files of every kind, sixteen good and six bad, after a run. Only to be read."""
    world = Path(shutil.copytree(rendered, tmp_path_factory.mktemp("classified") / "world"))
    folder = world / "images" / "test" / SPECIES[0].name
    for path in folder.iterdir():
        path.unlink()
    for number, (width, height) in enumerate([(640, 480), (480, 640), (900, 60), (70, 1000), (33, 31), (1, 1)]):
        photograph(width, height).save(folder / f"size {number}.jpg", quality=90)
    for mode, suffix in [("L", "png"), ("P", "png"), ("RGBA", "png"), ("1", "png"), ("LA", "png"), ("CMYK", "jpg")]:
        photograph(200, 150, mode).save(folder / f"mode {mode}.{suffix}")
    for suffix in ("webp", "tif", "bmp", "gif"):
        photograph(200, 150).save(folder / f"kind.{suffix}")
    whole = (folder / "size 0.jpg").read_bytes()
    (folder / "bad truncated.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "bad empty.jpg").write_bytes(b"")
    (folder / "bad text.jpg").write_text("this is not an image")
    (folder / "bad folder.png").symlink_to(folder / "gone.png")
    (folder / "bad header.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (folder / "bad cut.gif").write_bytes((folder / "kind.gif").read_bytes()[:20])
    (folder / "notes.txt").write_text("not looked at")
    (folder / ".hidden.jpg").write_text("nor this")
    run(world)
    return world


@pytest.fixture
def photographs(classified: Path, tmp_path: Path) -> Path:
    """A copy of those files of a test's own, with all that is computed."""
    return Path(shutil.copytree(classified, tmp_path / "photographs", symlinks=True))


def test_good_files_of_every_kind_are_classified_and_bad_ones_reported_with_reasons(classified: Path):
    plan = make_plan(load_job(classified / "job.yaml"))
    rejected = {Path(row["uri"]).name: row["reason"] for row in plan.rejects}
    assert set(rejected) == {
        "bad truncated.jpg", "bad empty.jpg", "bad text.jpg", "bad header.png", "bad folder.png", "bad cut.gif",
    }  # fmt: skip
    assert all(rejected.values())
    predicted = {row["image"] for row in stored_predictions(plan, ["abs"], 1)}
    kept = {image for image in predicted if SPECIES[0].name in image}
    assert len(kept) == 16
    assert all(count == 0 for count in run(classified).values()), "a bad file is not tried again"


def test_rejects_are_tried_again_when_asked_and_only_by_the_stage_that_runs(photographs: Path):
    def rejected() -> dict[str, str]:
        rejects = make_plan(load_job(photographs / "job.yaml")).rejects
        return {Path(row["uri"]).name: row["reason"] for row in rejects}

    before = rejected()
    run(photographs, selection=Selection(only="score", retry_rejects=True))
    assert rejected() == before
    again = Selection(until="encode_images", retry_rejects=True)
    assert run(photographs, selection=again)["encode_images"] == 0
    assert rejected() == before, "they are as bad as they were"


def test_a_mended_file_is_encoded_by_the_next_run(photographs: Path):
    bad = photographs / "images" / "test" / SPECIES[0].name / "bad text.jpg"
    photograph(64, 64).save(bad)
    assert run(photographs, selection=ENCODE)["encode_images"] == 3
    assert bad.name not in {Path(row["uri"]).name for row in make_plan(load_job(photographs / "job.yaml")).rejects}


def test_too_many_bad_files_stop_the_job_and_keep_what_is_computed(world: Path):
    folder = world / "images" / "test" / SPECIES[1].name
    good = len(list((world / "images").rglob("*.jpg")))
    for number in range(15):
        (folder / f"empty {number}.jpg").write_bytes(b"")
    with pytest.raises(TooManyRejects, match="max_rejects"):
        run(world)
    with pytest.raises(TooManyRejects):
        run(world)
    assert run(world, "max_rejects=0.5", selection=ENCODE)["encode_images"] < 3 * good
    plan = make_plan(load_job(world / "job.yaml", ["max_rejects=0.5"]))
    assert plan.of("encode_images").done
    assert [table.keeper.rows() for table in plan.of("encode_images").tables] == 3 * [good]


def test_a_flat_folder_without_labels_is_predicted_and_not_evaluated(rendered: Path, tmp_path: Path):
    flat = tmp_path / "flat"
    flat.mkdir()
    for path in sorted((rendered / "images").rglob("00[01].jpg")):
        shutil.copy(path, flat / f"{path.parent.name} {path.name}")
    (tmp_path / "classes.txt").write_text("\n".join(species.name for species in SPECIES))
    (tmp_path / "job.yaml").write_text(
        f"""
dataset: {{path: flat, classes: classes.txt}}
model: {{name: "local-dir:{rendered / "model"}"}}
descriptors: {{marks: {{provider: file, path: {rendered / "descriptors.json"}}}}}
views: {{random: {{kind: random, crops: 3}}, guided: {{kind: guided, guide: random, crops: 3}}}}
resources: {{encode: {{actors: 1}}}}
"""
    )
    job = load_job(tmp_path / "job.yaml")
    with pytest.raises(NotComputed):
        stored_predictions(make_plan(job), (), 1)
    run_job(job, Silent(), Cluster(), Selection(until="evaluate"))
    plan = make_plan(job)
    assert plan.of("evaluate").tables == ()
    rows = stored_predictions(plan, (), top_k=len(SPECIES))
    assert len(rows) == 12 * sum(len(method.variants()) for method in job.methods)
    for row in rows:
        assert sum(best["probability"] for best in row["top"]) == pytest.approx(1, abs=1e-5)
        assert row["class"] == row["top"][0]["class"]


def test_new_image_files_are_predicted_as_the_job_predicts_its_own(classified: Path, tmp_path: Path):
    job = load_job(classified / "job.yaml")
    plan = make_plan(job)
    stored = {(row["image"], row["method"]): row for row in stored_predictions(plan, (), 3)}
    path = sorted((classified / "images/test" / SPECIES[1].name).glob("*.jpg"))[0]
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"")
    rows, unreadable = new_predictions(job, plan, [path, bad], (), 3)
    assert [name for name, _ in unreadable] == [bad]
    identity = path.relative_to(classified / "images").as_posix()
    for row in rows:
        if row["method"] in ("clip", "cupl"):  # these draw no crops
            other = stored[identity, row["method"]]
            assert row["margin"] == pytest.approx(other["margin"], abs=0.2)  # logits, whose scale is up to 100
            assert row["class"] == other["class"] or row["margin"] < 0.2
            assert row["probability"] == pytest.approx(other["probability"], abs=0.02)


def test_a_dino_guide_from_a_local_timm_file_guides_the_crops(world: Path):
    import timm
    from safetensors.torch import save_file

    guide = timm.create_model("test_vit", pretrained=False, num_classes=0)
    save_file(guide.state_dict(), world / "guide.safetensors")
    overrides = (
        "guides={eyes: {kind: dino, name: test_vit, weights: guide.safetensors}}",
        "views.guided.guide=eyes",
    )
    counts = run(world, *overrides, selection=ENCODE)
    images = len(list((world / "images").rglob("*.jpg")))
    assert counts["encode_images"] == 3 * images
    assert run(world, *overrides, selection=ENCODE)["encode_images"] == 0
    save_file({name: value + 0.01 for name, value in guide.state_dict().items()}, world / "guide.safetensors")
    counts = run(world, *overrides, selection=ENCODE)
    assert counts["encode_images"] == images, "other weights of the guide, other guided crops"
