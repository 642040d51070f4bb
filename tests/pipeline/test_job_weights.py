"""A job's weights: files and folders that exist, activations that agree, public names looked up before planning."""

from __future__ import annotations

import hashlib
import json

import pytest

from pipeline.job_error import JobError
from pipeline.job_file import load_job
from pipeline.plan import make_plan
from pipeline.query_error import StoreError
from pipeline.store_model import StoreModel
from stages.settings import ModelSettings

GUIDED = {
    "guides": {"eyes": {"kind": "dino", "name": "test_vit"}},
    "views": {"guided": {"kind": "guided", "guide": "eyes", "crops": 2}},
}


def test_weights_may_be_a_folder_beside_the_job_file(small_job, tmp_path):
    (tmp_path / "clip").mkdir()
    job = small_job(model={"name": "ViT-B-32", "weights": "./clip"})
    with pytest.raises(JobError, match=r"model\.weights: folder .*clip has none of model\.safetensors"):
        load_job(job)
    (tmp_path / "clip/pytorch_model.bin").write_bytes(b"weights")
    assert load_job(job).model.weights == str(tmp_path / "clip")
    assert make_plan(load_job(job)).of("encode_images").unknown == ""


def test_a_folder_beside_the_job_that_is_called_like_no_tag_is_meant(small_job, tmp_path):
    for name in ("clip", "openai"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(b"weights")
    assert load_job(small_job(model={"name": "ViT-B-32", "weights": "clip"})).model.weights == str(tmp_path / "clip")
    assert load_job(small_job(model={"name": "ViT-B-32", "weights": "openai"})).model.weights == "openai"


def test_a_config_that_is_damaged_or_unfit_is_told_with_the_job_file(small_job, tmp_path):
    folder = tmp_path / "clip"
    folder.mkdir()
    (folder / "open_clip_model.safetensors").write_bytes(b"weights")
    for text, said in (("{", r"open_clip_config\.json cannot be read"), ('{"preprocess_cfg": {"std": 1}}', "std 1")):
        (folder / "open_clip_config.json").write_text(text)
        with pytest.raises(JobError, match=rf"job\.yaml: model: .*{said}"):
            load_job(small_job(model={"name": "ViT-B-32", "weights": "./clip"}))
    (folder / "open_clip_config.json").write_text("{")
    with pytest.raises(JobError, match=r"job\.yaml: model: .*open_clip_config\.json cannot be read"):
        load_job(small_job(model={"name": f"local-dir:{folder}"}))


def test_a_tokenizer_that_is_lacking_is_told_before_anything_starts(small_job, monkeypatch):
    monkeypatch.setattr("stages.vision.tokenizers.find_spec", lambda package: None)
    with pytest.raises(JobError, match=r"model: model 'ViT-B-16-SigLIP': .*'fieldmark\[siglip\]'"):
        load_job(small_job(model={"name": "ViT-B-16-SigLIP", "weights": "webli"}))


def test_a_hub_models_revision_is_refused(small_job):
    with pytest.raises(JobError, match=r"model\.name: .*revisions \(@\) are not supported"):
        load_job(small_job(model={"name": "hf-hub:owner/model@main"}))


def test_a_query_does_not_load_other_weights_than_made_its_store(stub_model, tmp_path):
    model = ModelSettings(name=f"local-dir:{stub_model}")
    store = StoreModel(model, "of the weights before", str(tmp_path / "weights.json"))
    with pytest.raises(StoreError, match="not those that were planned with"):
        store.encode_text("a red beak")


def test_an_activation_that_the_models_folder_contradicts_is_refused(small_job, stub_model):
    model = {"name": f"local-dir:{stub_model}"}
    assert load_job(small_job(model=model | {"activation": "gelu"})).model.activation == "gelu"
    with pytest.raises(JobError, match=r"model\.activation: 'quick_gelu', but .*open_clip_config\.json says gelu"):
        load_job(small_job(model=model | {"activation": "quick_gelu"}))


def test_an_activation_that_a_tag_contradicts_is_refused_before_any_download(fieldmark, small_job):
    said = fieldmark("run", small_job(model={"name": "ViT-B-32", "weights": "openai", "activation": "gelu"}))
    assert (said.status, said.out) == (2, "")
    assert "the tag openai says quick_gelu, model.activation says gelu" in said.err


def test_a_guide_from_timms_hub_is_looked_up_by_a_run_and_unknown_before(fieldmark, small_job, tmp_path, monkeypatch):
    published = tmp_path / "published.safetensors"
    published.write_bytes(b"weights")
    monkeypatch.setattr("stages.vision.dino.download_guide", lambda name: published)
    path = small_job(**GUIDED)
    job = load_job(path)
    assert make_plan(job).of("encode_images").unknown == "known after the weights are downloaded"
    assert fieldmark("run", path, "--only", "describe").status == 0
    noted = json.loads((tmp_path / "runs" / job.name / "models.json").read_text())
    assert noted == {"timm test_vit": hashlib.sha256(b"weights").hexdigest()}
    assert {len(table.wanted) for table in make_plan(job).of("encode_images").tables} == {6}


def test_a_guide_that_no_view_looks_through_is_not_downloaded(fieldmark, small_job, tmp_path, monkeypatch):
    monkeypatch.setattr("stages.vision.dino.download_guide", lambda name: pytest.fail(f"{name} was fetched"))
    assert fieldmark("run", small_job(guides=GUIDED["guides"]), "--only", "describe").status == 0
