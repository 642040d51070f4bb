"""Which paths the nodes of a cluster must have in common."""

from __future__ import annotations

from dataclasses import replace

from pipeline.job_file import load_job
from pipeline.plan import make_plan
from pipeline.worker_paths import paths_that_workers_use


def test_the_store_an_image_and_weights_that_are_no_published_ones_are_used_by_workers(small_job, tmp_path, stub_model):
    weights = tmp_path / "dino.safetensors"
    weights.touch()
    guide = {"kind": "dino", "name": "vit_base_patch16_224.dino", "weights": str(weights)}
    job = load_job(small_job(guides={"dino": guide}))
    assert paths_that_workers_use(job, make_plan(job).inputs) == {
        "store": job.store,
        "dataset": str(tmp_path / "photos/blue jay/0.png"),
        "model.name": str(stub_model),
        "guides.dino.weights": str(weights),
    }


def test_images_at_addresses_and_published_weights_are_seen_from_everywhere(small_job):
    job = load_job(small_job(model={"name": "ViT-B-16", "weights": "openai"}, methods=["clip"]))
    inputs = make_plan(load_job(small_job())).inputs
    remote = inputs.manifest.set_column(
        inputs.manifest.column_names.index("uri"), "uri", [["https://example.org/a.jpg"] * inputs.manifest.num_rows]
    )
    assert paths_that_workers_use(job, replace(inputs, manifest=remote)) == {"store": job.store}
