"""The same on a GPU: boxes equal, features alike, batches side by side. Skipped where there is none."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from stages.encode_images import _EncodeActor
from stages.encoder import Encoder, Image, ViewTable
from stages.matching.sinkhorn import emd_scores
from stages.matching.soft import soft_match
from stages.photograph import photograph_of
from stages.settings import ClipGuide, GuidedView, ModelSettings, RandomView
from stages.vision.crops import image_tensor, resize_crops, squash
from stages.weights import PlannedWeights, model_weights_id
from storage.schemas import to_numpy
from storage.shards import ShardTable

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here")
D = 24
VIEWS = {
    "views.random": ViewTable(RandomView(crops=3), seed=0),
    "views.guided": ViewTable(GuidedView(guide="clip", crops=4), seed=0),
}
SIZES = [(40, 40), (61, 33), (30, 90), (900, 700), (1, 50)]


@pytest.fixture(scope="module")
def images(picture) -> list[Image]:
    views = {name: table.view for name, table in VIEWS.items()}
    pictures = [picture(f"{number}", *size) for number, size in enumerate(SIZES)]
    return [Image(f"{n}@1", f"{n}", photograph_of(p, views, 32, full=False)) for n, p in enumerate(pictures)]


def encoder_on(device: str, precision: str, tiny_model) -> Encoder:
    model, cache = ModelSettings(name=f"local-dir:{tiny_model}"), str(tiny_model / "weights.json")
    return Encoder(
        model, {"clip": ClipGuide()}, precision, device, cache, PlannedWeights(model_weights_id(model, cache))
    )


@pytest.mark.parametrize(("precision", "alike"), [("fp32", 0.9999), ("fp16", 0.998), ("bf16", 0.99)])
def test_a_gpu_draws_the_same_boxes_and_sees_the_same(tiny_model, images, precision, alike):
    lacks = [{"whole", *VIEWS}] * len(images)
    host = encoder_on("cpu", "fp32", tiny_model).encode(images, lacks, VIEWS)
    device = encoder_on("cuda", precision, tiny_model).encode(images, lacks, VIEWS)
    for name, table in host.items():
        if name == "views.random" or (precision == "fp32" and "boxes" in table.column_names):
            assert table["boxes"].equals(device[name]["boxes"])
        if name != "views.guided" or precision == "fp32":
            one, other = (to_numpy(t["vectors"], (-1, D)).astype(np.float32) for t in (table, device[name]))
            assert (one * other).sum(axis=-1).min() > alike


def test_crops_on_a_gpu_are_those_of_the_host_within_two_levels(picture):
    image = image_tensor(picture("photo", 500, 375))
    boxes = np.array([[0, 0, 500, 375], [10, 20, 310, 320], [100, 100, 101, 101], [0, 0, 500, 30]])
    host, device = resize_crops(image, boxes, 64), resize_crops(image.cuda(), boxes, 64)
    assert device.is_cuda
    assert (host - device.cpu()).abs().max() <= 2
    assert (squash(image, 64) - squash(image.cuda(), 64).cpu()).abs().max() <= 2


def test_two_batches_in_an_actor_write_what_one_after_the_other_writes(tiny_model, images, tmp_path):
    tables = {"whole": None} | {name: (table.view, table.seed) for name, table in VIEWS.items()}

    def actor(folder: str) -> _EncodeActor:
        kept = [(name, str(tmp_path / folder / name), plan) for name, plan in tables.items()]
        model, cache = ModelSettings(name=f"local-dir:{tiny_model}"), str(tmp_path / "weights.json")
        planned = PlannedWeights(model_weights_id(model, cache))
        made = _EncodeActor(model, {"clip": ClipGuide()}, "fp32", "cuda", 1, kept, "run", cache, planned)
        made.setup()
        return made

    rows = [
        [{"key": i.key, "id": i.id, "uri": i.id, "lacks": list(tables), "photograph": i.photograph}] for i in images
    ]
    together, apart = actor("together"), actor("apart")
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(together.encode, rows))
    for row in rows:
        apart.encode(row)
    for name in tables:
        keys = [image.key for image in images]
        one, other = (ShardTable(str(tmp_path / folder / name)).read(keys) for folder in ("together", "apart"))
        for column in set(one.column_names) - {"seconds", "key", "id", "width", "height"}:
            pairs = (to_numpy(table[column], (-1,)).astype(np.float32) for table in (one, other))
            np.testing.assert_allclose(*pairs, atol=2e-3, rtol=1e-3)


def test_matching_on_a_gpu_is_that_of_the_host():
    draw = torch.Generator().manual_seed(0)
    sizes = ((5, 9, 64), (40, 7, 64))
    crops, texts = (torch.nn.functional.normalize(torch.randn(*size, generator=draw), dim=-1) for size in sizes)
    mask = torch.rand(40, 7, generator=draw) > 0.2
    mask[:, 0] = True
    for match, within in ((emd_scores, 1e-5), (soft_match, 1e-3)):
        device = match(crops.cuda(), texts.cuda(), mask.cuda())
        assert device.is_cuda
        torch.testing.assert_close(device.cpu(), match(crops, texts, mask), atol=within, rtol=1e-4)
