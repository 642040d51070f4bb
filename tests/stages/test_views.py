"""Views of every kind: what is drawn against the boxes' own functions, what the model sees against Pillow."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import PIL.Image
import pytest
import torch
from pydantic import TypeAdapter, ValidationError

from pipeline.settings import Job
from stages.settings import (
    AugmentedView,
    AugMixView,
    GuidedView,
    PromptedView,
    RandomView,
    SquaresView,
    ViewSettings,
)
from stages.views import draw_views, smallest_share, view_pixels
from stages.vision.augmix import DRAWS, augmix
from stages.vision.boxes import draw_cells, feature_windows, guided_boxes, image_rng, paired_windows, random_boxes
from stages.vision.crops import image_tensor
from stages.vision.towers import Tower, load_tower
from stages.vision.visual_prompts import circled, highlighted, masked

WIDTH, HEIGHT, SIZE = 61, 40, 32
SIDES = {"min_side": 0.5, "max_side": 0.9}
DRAW = {"crops": 6, "top_k": 20, "temperature": 0.03}
KINDS = [
    RandomView(crops=6),
    GuidedView(crops=6),
    SquaresView(crops=6),
    AugmentedView(crops=6),
    AugMixView(crops=6),
    PromptedView(crops=6),
]


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def tower(tiny_model) -> Tower:
    return load_tower(f"local-dir:{tiny_model}", None)


@pytest.fixture
def photo(picture) -> np.ndarray:
    return picture("photo.png", WIDTH, HEIGHT)


@pytest.fixture
def saliency() -> np.ndarray:
    return image_rng(0, "photo", "saliency").random((14, 14)) / 196


def drawn_of(view, saliency, *, seed=3, name="a.jpg", width=WIDTH, height=HEIGHT, grid=7):
    return draw_views(view, seed, name, width, height, saliency, grid)


def normalized(pixels: np.ndarray, tower: Tower) -> torch.Tensor:
    """Pixels `[N, S, S, 3]`, 0..255 -> `[N, 3, S, S]` as the model wants them."""
    scaled = (np.asarray(pixels) / 255 - np.array(tower.mean)) / np.array(tower.std)
    return torch.from_numpy(scaled).permute(0, 3, 1, 2).float()


def assert_same_pixels(found: torch.Tensor, wanted: np.ndarray, tower: Tower, levels: int = 2) -> None:
    """Within one of 255 levels nearly everywhere, and `levels` everywhere.

    Torch and Pillow differ by up to two where the aspect is kept, by up to ten where only one side shrinks.
    """
    assert found.shape == (len(wanted), 3, tower.image_size, tower.image_size)
    step = torch.tensor(tower.std)[:, None, None] * 255
    difference = ((found - normalized(wanted, tower)) * step).abs()
    assert difference.max() < levels + 0.01
    assert (difference > 1.01).float().mean() < 0.01


def squashed(photo: np.ndarray, boxes: np.ndarray, resample: PIL.Image.Resampling) -> np.ndarray:
    image = PIL.Image.fromarray(photo)
    cuts = [image.crop(box).resize((SIZE, SIZE), resample) for box in boxes.tolist()]
    return np.stack([np.asarray(cut) for cut in cuts])


@pytest.mark.parametrize("view", KINDS, ids=lambda view: view.kind)
def test_a_view_depends_on_seed_and_image_alone(view, saliency):
    first, again = drawn_of(view, saliency), drawn_of(view, saliency)
    for name in ("boxes", "windows", "flips", "mixes"):
        one, two = getattr(first, name), getattr(again, name)
        assert (one is None) == (two is None)
        assert one is None or np.array_equal(one, two)
    assert first.boxes.shape == (6, 4)
    assert first.boxes.dtype == np.int32
    assert not np.array_equal(first.boxes, drawn_of(view, saliency, seed=4).boxes)
    assert not np.array_equal(first.boxes, drawn_of(view, saliency, name="b.jpg").boxes)


def test_random_and_guided_views_draw_from_their_own_purposes(saliency):
    wanted = random_boxes(WIDTH, HEIGHT, crops=9, min_area=0.1, max_area=0.75, rng=image_rng(3, "a.jpg", "raw"))
    assert drawn_of(RandomView(), None).boxes.tolist() == wanted.tolist()
    drawn = drawn_of(GuidedView(crops=6), saliency)
    boxes, _ = guided_boxes(saliency, WIDTH, HEIGHT, **SIDES, **DRAW, rng=image_rng(3, "a.jpg", "raw"))
    assert drawn.boxes.tolist() == boxes.tolist()
    rng = image_rng(3, "a.jpg", "feature")
    cells = draw_cells(saliency, **DRAW, rng=rng)
    frame = {"guide_grid": 14, "grid": 7, "width": WIDTH, "height": HEIGHT, "frame": "corrected"}
    assert drawn.windows.tolist() == feature_windows(cells, **frame, **SIDES, rng=rng).tolist()
    assert drawn.windows.dtype == np.int32


def test_shared_pairing_keeps_the_boxes_and_derives_the_windows(saliency):
    drawn = drawn_of(GuidedView(crops=6, pairing="shared", frame="official"), saliency)
    boxes, cells = guided_boxes(saliency, WIDTH, HEIGHT, **SIDES, **DRAW, rng=image_rng(3, "a.jpg", "raw"))
    frame = {"guide_grid": 14, "grid": 7, "width": WIDTH, "height": HEIGHT, "frame": "official"}
    assert drawn.boxes.tolist() == boxes.tolist()
    assert drawn.windows.tolist() == paired_windows(boxes, cells, **frame).tolist()
    assert drawn.windows.tolist() != drawn_of(GuidedView(crops=6, frame="official"), saliency).windows.tolist()


def test_windows_are_drawn_where_they_are_wanted_and_possible(saliency):
    assert drawn_of(GuidedView(feature_crops=False), saliency).windows is None
    assert drawn_of(GuidedView(), saliency, grid=None).windows is None
    for view in (RandomView(), SquaresView(), AugmentedView(), AugMixView()):
        assert drawn_of(view, None).windows is None


def test_a_prompt_is_drawn_at_the_boxes_of_a_guided_view_set(saliency):
    guided = drawn_of(GuidedView(crops=6, min_side=0.3), saliency)
    assert drawn_of(PromptedView(crops=6, min_side=0.3), saliency).boxes.tolist() == guided.boxes.tolist()


def test_a_guided_view_set_without_saliency_says_what_is_missing():
    with pytest.raises(ValueError, match="a prompted view set draws where guide 'dino' looks, and no saliency"):
        drawn_of(PromptedView(), None)


@pytest.mark.parametrize("view", [RandomView(crops=6), GuidedView(crops=6), SquaresView(crops=6)], ids=lambda v: v.kind)
def test_fit_crop_is_the_models_own_preprocessing(view, tower, photo, saliency):
    drawn = drawn_of(view, saliency)
    image = PIL.Image.fromarray(photo)
    wanted = []
    for box in drawn.boxes.tolist():
        cut = image.crop(box)
        longer = int(SIZE * max(cut.size) / min(cut.size))
        size = (SIZE, longer) if cut.size[0] <= cut.size[1] else (longer, SIZE)
        cut = cut.resize(size, PIL.Image.Resampling.BICUBIC)
        left, top = round((size[0] - SIZE) / 2), round((size[1] - SIZE) / 2)
        wanted.append(np.asarray(cut.crop((left, top, left + SIZE, top + SIZE))))
    found = view_pixels(view, drawn, image_tensor(photo), 1, tower)
    assert_same_pixels(found, np.stack(wanted), tower)


@pytest.mark.parametrize("kind", [RandomView, GuidedView])
def test_fit_squash_shows_the_whole_box(kind, tower, photo, saliency):
    view = kind(crops=6, fit="squash")
    drawn = drawn_of(view, saliency)
    found = view_pixels(view, drawn, image_tensor(photo), 1, tower)
    assert_same_pixels(found, squashed(photo, drawn.boxes, PIL.Image.Resampling.BICUBIC), tower, levels=10)
    cropped = view_pixels(kind(crops=6), drawn, image_tensor(photo), 1, tower)
    assert not torch.allclose(found, cropped, atol=0.1)


def test_augmented_views_are_squashed_bicubic_and_half_of_them_mirrored(tower, photo):
    view = AugmentedView(crops=40)
    drawn = drawn_of(view, None)
    wanted = squashed(photo, drawn.boxes, PIL.Image.Resampling.BICUBIC)
    wanted = np.where(drawn.flips[:, None, None, None], wanted[:, :, ::-1], wanted)
    found = view_pixels(view, drawn, image_tensor(photo), 1, tower)
    assert_same_pixels(found, wanted, tower, levels=10)
    assert 10 < drawn.flips.sum() < 30
    assert not drawn_of(AugmentedView(flip=0.0), None).flips.any()
    assert drawn_of(AugmentedView(flip=1.0), None).flips.all()
    area = np.prod(drawn.boxes[:, 2:] - drawn.boxes[:, :2], axis=1) / (WIDTH * HEIGHT)
    assert 0.48 < area.min() < 0.6 < 0.85 < area.max() <= 1


def test_augmix_views_mix_a_bilinear_crop(tower, photo):
    view = AugMixView(crops=20, severity=3)
    drawn = drawn_of(view, None)
    assert drawn.mixes.shape == (20, DRAWS)
    crops = squashed(photo, drawn.boxes, PIL.Image.Resampling.BILINEAR)
    crops = np.where(drawn.flips[:, None, None, None], crops[:, :, ::-1], crops)
    mixed = augmix(torch.from_numpy(crops.copy()).permute(0, 3, 1, 2), drawn.mixes, 3)
    wanted = normalized(mixed.permute(0, 2, 3, 1).numpy(), tower)
    found = view_pixels(view, drawn, image_tensor(photo), 1, tower)
    assert found.shape == (20, 3, SIZE, SIZE)
    # a level more or less in the crop moves some pixels far where a chain equalises
    assert ((found - wanted).abs() < 0.05).float().mean() > 0.97
    drawn.mixes[:, 3] = 1.0  # all the weight on the crops themselves
    assert_same_pixels(view_pixels(view, drawn, image_tensor(photo), 1, tower), crops, tower, levels=10)


def test_severity_reaches_the_operations(tower, photo):
    view = AugMixView(crops=4, severity=3)
    drawn = drawn_of(view, None)
    found = view_pixels(view, drawn, image_tensor(photo), 1, tower)
    plain = view_pixels(view.model_copy(update={"severity": 1}), drawn, image_tensor(photo), 1, tower)
    assert not torch.allclose(found, plain)


@pytest.mark.parametrize(
    ("settings", "paint"),
    [
        ({"prompt": "mask"}, lambda image, boxes: masked(image, boxes)),
        ({"prompt": "mask", "fill": "mean"}, lambda image, boxes: masked(image, boxes, (128, 102, 51))),
        ({"prompt": "highlight"}, lambda image, boxes: highlighted(image, boxes, dim=0.5)),
        ({"prompt": "highlight", "dim": 0.7, "blur": 0.1}, lambda i, b: highlighted(i, b, dim=0.7, blur=0.1)),
        ({"prompt": "red_circle"}, lambda image, boxes: circled(image, boxes, line=0.01)),
        ({"prompt": "red_circle", "line": 0.1}, lambda image, boxes: circled(image, boxes, line=0.1)),
    ],
)
def test_a_prompt_is_painted_into_the_whole_image(settings, paint, tower, photo, saliency, monkeypatch):
    monkeypatch.setattr(tower, "mean", (0.5, 0.4, 0.2))
    view = PromptedView(crops=6, **settings)
    drawn = drawn_of(view, saliency)
    image = image_tensor(photo)
    found = view_pixels(view, drawn, image, 1, tower)
    wanted = torch.cat([tower.preprocess(painted) for painted in paint(image, drawn.boxes)])
    assert torch.equal(found, wanted)


@pytest.mark.parametrize("view", KINDS, ids=lambda view: view.kind)
def test_a_reduced_photograph_shows_the_same_places(view, tower, picture, saliency):
    small = picture("photo.png", 90, 66)
    large = np.asarray(PIL.Image.fromarray(small).resize((360, 264), PIL.Image.Resampling.NEAREST))
    drawn = drawn_of(view, saliency, width=360, height=264)
    found = view_pixels(view, drawn, image_tensor(small), 4, tower)
    wanted = view_pixels(view, drawn, image_tensor(large.copy()), 1, tower)
    assert found.shape == wanted.shape
    assert (found - wanted).abs().mean() < 0.25 * wanted.std()


@pytest.mark.parametrize(
    ("view", "share"),
    [
        (GuidedView(), 0.5),
        (GuidedView(preset="abs_code"), 0.6),
        (SquaresView(preset="wca_code"), 0.1),
        (RandomView(), (0.1 * 3 / 4) ** 0.5),
        (RandomView(scale_mode="side"), 0.1 * (3 / 4) ** 0.5),
        (RandomView(min_area=1.0, max_area=1.0, min_aspect=0.25, max_aspect=0.3), 0.3),
        (AugmentedView(), (0.5 * 3 / 4) ** 0.5),
        (AugMixView(), (0.08 * 3 / 4) ** 0.5),
        (PromptedView(min_side=0.1), 1.0),
    ],
)
def test_no_box_is_smaller_than_the_settings_say(view, share, saliency):
    assert smallest_share(view) == pytest.approx(share)
    if isinstance(view, PromptedView):
        return
    for width, height in ((500, 375), (300, 900), (400, 400)):
        boxes = drawn_of(view.model_copy(update={"crops": 500}), saliency, width=width, height=height).boxes
        if isinstance(view, GuidedView):  # as drawn: the border cuts boxes
            boxes = boxes[(boxes > 0).all(axis=1) & (boxes[:, 2] < width) & (boxes[:, 3] < height)]
        assert (boxes[:, 2:] - boxes[:, :2]).min() + 1.5 >= share * min(width, height)


def test_presets_are_the_numbers_of_the_published_code_and_given_keys_win():
    parse = TypeAdapter(ViewSettings).validate_python
    code = {"crops": 50, "min_side": 0.6, "max_side": 0.9, "frame": "official", "pairing": "independent"}
    assert parse({"kind": "guided", "preset": "abs_code"}).model_dump() == GuidedView(**code).model_dump()
    assert parse({"kind": "guided", "preset": "abs"}) == GuidedView()
    mine = parse({"kind": "guided", "preset": "abs_code", "crops": 7, "frame": "corrected"})
    assert (mine.crops, mine.frame, mine.min_side) == (7, "corrected", 0.6)
    assert parse({"kind": "squares", "preset": "wca_code"}).model_dump() == SquaresView(min_side=0.1).model_dump()
    # what is written down says the numbers alone, and reads back as the same view
    assert "preset" not in mine.model_dump()
    assert parse(mine.model_dump()).model_dump() == mine.model_dump()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"kind": "guided", "preset": "abs_paper"}, "'abs' or 'abs_code'"),
        ({"kind": "guided", "pairing": "same"}, "'independent' or 'shared'"),
        ({"kind": "guided", "layer": -1}, "greater than or equal to 0"),
        ({"kind": "guided", "fit": "pad"}, "'crop' or 'squash'"),
        ({"kind": "guided", "preset": "abs_code", "max_side": 0.5}, r"min_side \(0.6\) must not exceed max_side"),
        ({"kind": "squares", "min_side": 0.9, "max_side": 0.5}, r"min_side \(0.9\) must not exceed max_side \(0.5\)"),
        ({"kind": "squares", "guide": "dino"}, "Extra inputs are not permitted"),
        ({"kind": "augmented", "min_area": 0}, "greater than 0"),
        ({"kind": "augmix", "severity": 11}, "less than or equal to 10"),
        ({"kind": "prompted", "prompt": "arrow"}, "'mask', 'highlight' or 'red_circle'"),
        ({"kind": "prompted", "min_side": 0.9, "max_side": 0.5}, "must not exceed"),
        ({"kind": "spiral"}, "'random', 'guided', 'squares', 'augmented', 'augmix', 'prompted'"),
    ],
)
def test_a_wrong_view_set_is_refused_with_what_is_allowed(data, message):
    with pytest.raises(ValidationError, match=message):
        TypeAdapter(ViewSettings).validate_python(data)


def test_a_view_set_called_as_its_kind_needs_no_kind_and_a_prompted_one_brings_its_guide():
    views = {"squares": {"crops": 3}, "augmix": {}, "mine": {"kind": "prompted", "guide": "center"}}
    job = Job.model_validate({"dataset": {"kind": "folder", "path": "p"}, "views": views})
    assert job.views["squares"] == SquaresView(crops=3)
    assert job.views["augmix"] == AugMixView()
    assert set(job.guides) == {"center"}
    views["mine"]["guide"] = "centre"
    with pytest.raises(ValidationError, match=r"views\.mine\.guide: no guide is called 'centre'; there are .*center"):
        Job.model_validate({"dataset": {"kind": "folder", "path": "p"}, "views": views})


def test_planning_with_views_imports_neither_torch_nor_ray():
    code = (
        "import sys\n"
        "from stages.settings import RandomView\n"
        "from stages.views import draw_views, smallest_share\n"
        "assert smallest_share(RandomView()) and len(draw_views(RandomView(), 0, 'a', 50, 40).boxes) == 9\n"
        "assert not {'torch', 'ray', 'lancedb'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
