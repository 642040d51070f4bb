"""The encoder against the slow obvious way: Pillow cuts and resizes every box, the whole model runs on it alone."""

from __future__ import annotations

import numpy as np
import open_clip
import PIL.Image
import pytest
import torch
import torch.nn.functional as F

from stages.encoder import Encoder, Image, ViewTable
from stages.photograph import photograph_of
from stages.settings import ClipGuide, GuidedView, ModelSettings, RandomGuide, RandomView
from stages.weights import PlannedWeights, model_weights_id
from storage.schemas import to_numpy

D, GRID = 24, 4
SIZES = [(40, 40), (61, 33), (30, 90), (20, 16), (32, 32)]  # width, height
VIEWS = {
    "views.random": ViewTable(RandomView(crops=3), seed=0),
    "views.guided": ViewTable(GuidedView(guide="clip", crops=4, min_side=0.4, max_side=0.9), seed=0),
}
TABLES = {"whole", *VIEWS}


def image_of(key: str, name: str, pixels: np.ndarray, views=VIEWS) -> Image:
    """An image as the decoder hands it on; such small ones are never reduced."""
    return Image(key, name, photograph_of(pixels, {name: views[name].view for name in views}, size=32, full=False))


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def encoder(tiny_model) -> Encoder:
    guides = {"clip": ClipGuide(), "random": RandomGuide()}
    model, cache = ModelSettings(name=f"local-dir:{tiny_model}"), str(tiny_model / "weights.json")
    return Encoder(model, guides, "fp32", "cpu", cache, PlannedWeights(model_weights_id(model, cache)))


@pytest.fixture(scope="module")
def images(picture) -> list[Image]:
    names = [f"{number}.png" for number in range(len(SIZES))]
    return [image_of(f"{name}@1", name, picture(name, *size)) for name, size in zip(names, SIZES, strict=True)]


@pytest.fixture(scope="module")
def encoded(encoder, images):
    """All tables of all images, in one batch."""
    return encoder.encode(images, [TABLES] * len(images), VIEWS)


@pytest.fixture(scope="module")
def reference(tiny_model):
    """open_clip's own model and preprocessing."""
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{tiny_model}")
    return model.eval(), preprocess


@torch.no_grad()
def forward(reference, pixels: np.ndarray, box=None) -> torch.Tensor:
    """The feature [d] of a box of an image, one forward pass of the whole model on what Pillow cut out."""
    model, preprocess = reference
    cut = PIL.Image.fromarray(pixels)
    if box is not None:
        cut = cut.crop(tuple(int(side) for side in box))
    return model.encode_image(preprocess(cut)[None])[0]


@torch.no_grad()
def by_full_block(reference, pixels: np.ndarray, window) -> torch.Tensor:
    """The feature [d] of a window of tokens: cut, enlarged, and sent through the last block with the CLS token."""
    model, preprocess = reference
    entering: list[torch.Tensor] = []
    block = model.visual.transformer.resblocks[-1]
    hook = block.register_forward_pre_hook(lambda module, inputs: entering.append(inputs[0]))
    model.encode_image(preprocess(PIL.Image.fromarray(pixels))[None])
    hook.remove()
    (tokens,) = entering[0]
    r0, c0, r1, c1 = (int(side) for side in window)
    patches = tokens[1:].T.reshape(1, -1, GRID, GRID)[:, :, r0:r1, c0:c1]
    enlarged = F.interpolate(patches, size=(GRID, GRID), mode="bicubic", align_corners=False)[0].flatten(1).T
    out = block(torch.cat([tokens[:1], enlarged])[None])[:, 0]
    return (model.visual.ln_post(out) @ model.visual.proj)[0]


def assert_same_direction(stored: np.ndarray, norm: float, expected: torch.Tensor) -> None:
    """fp16 keeps three digits, and our resizing may be a level off Pillow's."""
    np.testing.assert_allclose(stored.astype(np.float32), F.normalize(expected, dim=0).numpy(), atol=4e-3)
    assert norm == pytest.approx(float(expected.norm()), rel=4e-3)


def arrays(table, *names: str) -> list[np.ndarray]:
    """Columns of vectors as [B, N, d], of boxes and windows as [B, N, 4], of norms as [B, N]."""
    shapes = {"vectors": (-1, D), "boxes": (-1, 4), "windows": (-1, 4), "norms": (-1,)}
    return [to_numpy(table[name], shapes[name.removeprefix("feature_")]) for name in names]


def test_a_whole_image_is_encoded_as_open_clip_would(encoded, images, reference):
    table = encoded["whole"]
    vectors, norms = arrays(table, "vectors", "norms")
    assert table["key"].to_pylist() == [image.key for image in images]
    assert table["id"].to_pylist() == [image.id for image in images]
    assert list(zip(table["width"].to_pylist(), table["height"].to_pylist(), strict=True)) == SIZES
    assert vectors.dtype == np.float16
    for number, image in enumerate(images):
        assert_same_direction(
            vectors[number, 0], norms[number, 0], forward(reference, image.photograph.pixels["whole"])
        )


@pytest.mark.parametrize("view", list(VIEWS))
def test_every_crop_is_encoded_as_pillow_and_the_whole_model_would(encoded, images, reference, view):
    vectors, norms, boxes = arrays(encoded[view], "vectors", "norms", "boxes")
    assert vectors.shape[:2] == (len(SIZES), VIEWS[view].view.crops)
    for number, image in enumerate(images):
        for crop, box in enumerate(boxes[number]):
            expected = forward(reference, image.photograph.pixels["whole"], box)
            assert_same_direction(vectors[number, crop], norms[number, crop], expected)


def test_every_feature_crop_is_the_last_block_on_the_enlarged_window(encoded, images, reference):
    vectors, norms, windows = arrays(encoded["views.guided"], "feature_vectors", "feature_norms", "windows")
    for number, image in enumerate(images):
        for crop, window in enumerate(windows[number]):
            expected = by_full_block(reference, image.photograph.pixels["whole"], window)
            assert_same_direction(vectors[number, crop], norms[number, crop], expected)


def test_boxes_lie_in_their_image_and_windows_in_the_grid(encoded):
    for view in VIEWS:
        (boxes,) = arrays(encoded[view], "boxes")
        for (width, height), found in zip(SIZES, boxes, strict=True):
            assert (found[:, :2] >= 0).all()
            assert (found[:, :2] < found[:, 2:]).all()
            assert (found[:, 2:] <= [width, height]).all()
    (windows,) = arrays(encoded["views.guided"], "windows")
    assert (windows[..., :2] >= 0).all()
    assert (windows[..., :2] < windows[..., 2:]).all()
    assert (windows[..., 2:] <= GRID).all()
    assert "windows" not in encoded["views.random"].column_names


def assert_same_rows(found, expected) -> None:
    """Equal but for the seconds; vectors within what another order of sums does to fp16."""
    assert found.column_names == expected.column_names
    for name in set(found.column_names) - {"seconds"}:
        if name.removeprefix("feature_") in ("vectors", "norms"):
            (one,), (other,) = arrays(found, name), arrays(expected, name)
            np.testing.assert_allclose(one.astype(np.float32), other.astype(np.float32), atol=2e-3, rtol=2e-3)
        else:
            assert found[name].to_pylist() == expected[name].to_pylist()


def test_a_batch_of_one_gives_what_a_batch_of_five_gives(encoder, images, encoded):
    for number, image in enumerate(images):
        alone = encoder.encode([image], [TABLES], VIEWS)
        for name in TABLES:
            assert_same_rows(alone[name], encoded[name].slice(number, 1))


def test_a_view_set_added_later_has_the_rows_it_would_have_had_at_once(encoder, images, encoded):
    first = encoder.encode(images, [{"whole", "views.random"}] * 5, {"views.random": VIEWS["views.random"]})
    later = encoder.encode(images, [{"views.guided"}] * 5, {"views.guided": VIEWS["views.guided"]})
    assert set(first) == {"whole", "views.random"}
    assert set(later) == {"views.guided"}
    for name, table in (first | later).items():
        assert_same_rows(table, encoded[name])


def test_each_table_gets_the_images_that_it_lacks_and_no_others(encoder, images, encoded):
    lacks = [{"whole"}, {"views.random"}, set(), {"whole", "views.guided"}, {"views.guided"}]
    made = encoder.encode(images, lacks, VIEWS)
    assert set(made) == TABLES
    for name, table in made.items():
        chosen = [number for number, names in enumerate(lacks) if name in names]
        assert table["key"].to_pylist() == [images[number].key for number in chosen]
        assert_same_rows(table, encoded[name].take(chosen))


def test_draws_depend_on_seed_and_id_and_not_on_the_key_or_the_name_of_the_view_set(encoder, images, encoded):
    renamed = {"views.other": VIEWS["views.random"], "views.again": ViewTable(RandomView(crops=3), seed=1)}
    pixels = [image.photograph.pixels["whole"] for image in images]
    touched = [image_of(f"{i.id}@2", i.id, seen, renamed) for i, seen in zip(images, pixels, strict=True)]
    made = encoder.encode(touched, [set(renamed)] * 5, renamed)
    boxes = encoded["views.random"]["boxes"].to_pylist()
    assert made["views.other"]["boxes"].to_pylist() == boxes
    assert made["views.again"]["boxes"].to_pylist() != boxes


@pytest.mark.parametrize(("width", "height"), [(1, 1), (1, 50), (90, 1), (2, 3)])
def test_an_image_of_a_pixel_or_a_line_has_crops_like_any_other(encoder, reference, picture, width, height):
    image = image_of("k", "tiny.png", picture("tiny", width, height))
    made = encoder.encode([image], [TABLES], VIEWS)
    for view in VIEWS:
        vectors, norms, boxes = arrays(made[view], "vectors", "norms", "boxes")
        for crop, (x0, y0, x1, y1) in enumerate(boxes[0]):
            assert 0 <= x0 < x1 <= width
            assert 0 <= y0 < y1 <= height
            expected = forward(reference, image.photograph.pixels["whole"], (x0, y0, x1, y1))
            assert_same_direction(vectors[0, crop], norms[0, crop], expected)
    assert np.isfinite(arrays(made["views.guided"], "feature_vectors")[0]).all()


def test_feature_crops_can_be_left_out_and_other_guides_named(encoder, images):
    views = {"views.plain": ViewTable(GuidedView(guide="random", crops=2, feature_crops=False), seed=0)}
    seen = [image_of(image.key, image.id, image.photograph.pixels["whole"], views) for image in images]
    made = encoder.encode(seen, [set(views)] * 5, views)["views.plain"]
    assert made.column_names == ["key", "boxes", "vectors", "norms", "seconds"]


def test_a_batch_that_does_not_fit_the_memory_is_halved_until_it_does(encoder, images, encoded, monkeypatch):
    whole, sizes = encoder.tower.encode_images, []

    def small_memory(pixels: torch.Tensor) -> torch.Tensor:
        sizes.append(len(pixels))
        if len(pixels) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return whole(pixels)

    monkeypatch.setattr(encoder.tower, "encode_images", small_memory)
    monkeypatch.setattr(encoder.batches, "size", encoder.batches.size)
    made = encoder.encode(images, [{"views.random"}] * 5, VIEWS)
    assert_same_rows(made["views.random"], encoded["views.random"])
    assert sizes == [15, 7, 3, 3, 3, 3, 3]


def test_crops_before_an_earlier_block_pass_the_rest_of_the_tower(encoder, images, reference):
    """A window that is the whole grid changes no token, so before any layer it gives the whole image's feature."""
    for layer in (0, 1):
        view = GuidedView(guide="random", crops=2, min_side=1.0, max_side=1.0, layer=layer)
        views = {"views.early": ViewTable(view, seed=0)}
        seen = [image_of(image.key, image.id, image.photograph.pixels["whole"], views) for image in images]
        made = encoder.encode(seen, [{"whole", "views.early"}] * 5, views)
        windows, features = arrays(made["views.early"], "windows", "feature_vectors")
        (whole,) = arrays(made["whole"], "vectors")
        everything = (windows == [0, 0, GRID, GRID]).all(axis=-1)
        assert everything.any()
        expected = np.broadcast_to(whole, features.shape)
        np.testing.assert_allclose(features[everything], expected[everything], atol=2e-3)


def test_a_photograph_reduced_before_cropping_gives_nearly_the_same_features(encoder, picture):
    views = {"views.guided": ViewTable(GuidedView(guide="random", crops=4, min_side=0.5), seed=0)}
    pixels = np.asarray(PIL.Image.fromarray(picture("large", 90, 70)).resize((900, 700), PIL.Image.Resampling.BICUBIC))
    settings = {name: table.view for name, table in views.items()}
    made = []
    for full in (True, False):
        photograph = photograph_of(pixels, settings, size=32, full=full)
        made.append(encoder.encode([Image("k", "i", photograph)], [set(views)], views)["views.guided"])
    assert photograph.pixels["views.guided"].shape[0] < 200
    exact, reduced = (arrays(table, "vectors")[0].astype(np.float32) for table in made)
    assert made[0]["boxes"].to_pylist() == made[1]["boxes"].to_pylist()
    assert (exact * reduced).sum(axis=-1).min() > 0.995


def test_a_model_whose_features_cannot_be_cropped_says_why(encoder, monkeypatch):
    assert encoder.check(VIEWS) == []
    monkeypatch.setattr("stages.encoder.why_no_feature_crops", lambda visual: "it averages its tokens")
    (note,) = encoder.check(VIEWS)
    assert note.startswith("views.guided: crops in pixels only")
    assert note.endswith("it averages its tokens")
    assert encoder.check({"views.random": VIEWS["views.random"]}) == []


def test_features_that_are_no_numbers_are_never_stored(encoder, images, monkeypatch):
    monkeypatch.setattr(encoder.tower, "encode_images", lambda pixels: torch.full((len(pixels), D), float("inf")))
    with pytest.raises(FloatingPointError, match=r"model\.precision: bf16 or fp32"):
        encoder.encode(images, [{"views.random"}] * 5, VIEWS)
