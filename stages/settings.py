"""What each stage can be told: one strict pydantic model a concept, with units, ranges and defaults.

A job file is made of these (`pipeline.settings.Job`). They import neither torch nor ray: reading one is instant.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator


class Settings(BaseModel):
    """A frozen, strict group of settings: an unknown key or a wrong type is an error, never a surprise."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, use_attribute_docstrings=True)


class ModelSettings(Settings):
    """The CLIP model whose towers encode images and texts."""

    name: str = "ViT-B-16"
    """open_clip architecture, `hf-hub:OWNER/NAME`, or `local-dir:FOLDER` with open_clip's own two files"""
    weights: str | None = None
    """open_clip pretrained tag, or a local weights file or folder; `openai` for a plain architecture name"""
    activation: Literal["auto", "gelu", "quick_gelu"] = "auto"
    """what the weights were trained with; auto: what their tag, layout, config or name says, which decides anyway"""
    precision: Literal["auto", "fp32", "fp16", "bf16"] = "auto"
    """arithmetic of the image encoder; auto: fp16 when `resources.encode.gpus` asks for GPUs, else fp32"""

    @property
    def carries_its_weights(self) -> bool:
        return self.name.startswith(("local-dir:", "hf-hub:"))


class ClipGuide(Settings):
    """Saliency from the CLIP tower itself: attention of its CLS token in the last block."""

    kind: Literal["clip"] = "clip"


class DinoGuide(Settings):
    """Saliency from a DINO-like timm ViT: attention of its CLS token in the last block (algorithms.md 8.1)."""

    kind: Literal["dino"] = "dino"
    name: str = "vit_base_patch16_224.dino"
    """timm model name"""
    weights: str | None = None
    """local weights file; without one timm downloads the model"""
    normalization: Literal["half", "imagenet"] = "half"
    """pixel statistics: half (mean = sd = .5, as the ABS code feeds it) or imagenet (as DINO was trained)"""


class RandomGuide(Settings):
    """No saliency: every place of the image is as likely as any other."""

    kind: Literal["random"] = "random"


class CenterGuide(Settings):
    """Saliency that falls off from the centre of the image."""

    kind: Literal["center"] = "center"


GuideSettings = Annotated[ClipGuide | DinoGuide | RandomGuide | CenterGuide, Field(discriminator="kind")]


Fit = Literal["crop", "squash"]
Crops = Annotated[int, Field(ge=1, le=1000)]
Share = Annotated[float, Field(gt=0, le=1)]


class RandomView(Settings):
    """Random multi-crop views as D&D takes them (algorithms.md 7.1)."""

    kind: Literal["random"] = "random"
    crops: Crops = 9
    """number of crops an image"""
    min_area: Share = 0.10
    """smallest size of a box, a share of what scale_mode says"""
    max_area: Share = 0.75
    """largest size of a box, a share of what scale_mode says"""
    min_aspect: Annotated[float, Field(gt=0)] = 3 / 4
    """smallest width / height of a box"""
    max_aspect: Annotated[float, Field(gt=0)] = 4 / 3
    """largest width / height of a box"""
    scale_mode: Literal["area", "side"] = "area"
    """area: a box covers that share of the image's area; side: that share squared, since the square root of its area
    is that share of the square root of the image's"""
    fit: Fit = "crop"
    """crop: a box is resized as the model's own preprocessing does (CLIP: shorter side, then centre crop, which drops
    the ends of a box that is not square); squash: the whole box, aspect not kept, as torchvision's RandomResizedCrop"""

    @model_validator(mode="after")
    def _ordered(self) -> RandomView:
        _check_order(self, "min_area", "max_area")
        _check_order(self, "min_aspect", "max_aspect")
        return self


class DrawnByGuide(Settings):
    """Boxes around what one of the job's guides attends to (algorithms.md 8.1-8.2)."""

    guide: str = "dino"
    """name of one of the job's guides"""
    crops: Crops = 60
    """number of crops an image, of each kind"""
    min_side: Share = 0.5
    """smallest side of a crop, as a share of the image's"""
    max_side: Share = 0.9
    """largest side of a crop, as a share of the image's"""
    top_k: Annotated[int, Field(ge=1)] = 20
    """crops are centred on cells among the top_k most salient"""
    temperature: Annotated[float, Field(gt=0)] = 0.03
    """softmax temperature of the draw among those cells"""

    @model_validator(mode="after")
    def _ordered(self) -> DrawnByGuide:
        _check_order(self, "min_side", "max_side")
        return self


class GuidedView(DrawnByGuide):
    """Crops around what a guide attends to, in pixel and feature space, as ABS takes them (algorithms.md 8.2-8.3)."""

    kind: Literal["guided"] = "guided"
    preset: Literal["abs", "abs_code"] = Field(default="abs", exclude=True)
    """abs: the paper's numbers; abs_code: those of its code (50 crops, sides .6 to .9, independent pairing, official
    frame); keys that are given win"""
    feature_crops: bool = True
    """also crop the tokens before the last block (models with a CLS token)"""
    layer: Annotated[int, Field(ge=0)] | None = None
    """block before which tokens are cropped, counted from 0; default: the last one"""
    pairing: Literal["independent", "shared"] = "independent"
    """feature crops: independent, drawn anew as in the papers' code; shared, each with the centre and the size of its
    raw crop as in the paper"""
    frame: Literal["corrected", "official"] = "corrected"
    """feature crops of non-square images: centred where the guide looked, or displaced as in the papers' code"""
    fit: Fit = "crop"
    """crop: a box is resized as the model's own preprocessing does (CLIP: shorter side, then centre crop, which drops
    the ends of a box that is not square); squash: the whole box, aspect not kept"""

    @model_validator(mode="before")
    @classmethod
    def _preset(cls, data: Any) -> Any:
        code = {"crops": 50, "min_side": 0.6, "max_side": 0.9, "pairing": "independent", "frame": "official"}
        return _fill_in(data, {"abs_code": code})


class SquaresView(Settings):
    """Square crops anywhere in the image, as WCA takes them (algorithms.md 6)."""

    kind: Literal["squares"] = "squares"
    preset: Literal["wca", "wca_code"] = Field(default="wca", exclude=True)
    """wca: the paper's sides; wca_code: smallest side .1, which its code takes instead; keys that are given win"""
    crops: Crops = 60
    """number of crops an image; WCA's code draws a pool of 100 (60 on ImageNet) and samples from that"""
    min_side: Share = 0.5
    """smallest side of a crop, as a share of the image's shorter side"""
    max_side: Share = 0.9
    """largest side of a crop, as a share of the image's shorter side"""

    @model_validator(mode="before")
    @classmethod
    def _preset(cls, data: Any) -> Any:
        return _fill_in(data, {"wca_code": {"min_side": 0.1}})

    @model_validator(mode="after")
    def _ordered(self) -> SquaresView:
        _check_order(self, "min_side", "max_side")
        return self


class AugmentedView(Settings):
    """Tip-Adapter's training augmentations: random resized crops, mirrored or not (algorithms.md 9).

    Width / height is log-uniform from 3/4 to 4/3; a box is squashed to the model's square, bicubic.
    """

    kind: Literal["augmented"] = "augmented"
    crops: Crops = 10
    """number of augmented versions of an image"""
    min_area: Share = 0.5
    """smallest area of a box, as a share of the image's"""
    max_area: Share = 1.0
    """largest area of a box, as a share of the image's"""
    flip: Annotated[float, Field(ge=0, le=1)] = 0.5
    """share of versions that are mirrored, left and right exchanged"""

    @model_validator(mode="after")
    def _ordered(self) -> AugmentedView:
        _check_order(self, "min_area", "max_area")
        return self


class AugMixView(Settings):
    """AugMix versions of an image as TPT and TDA take them (algorithms.md 10).

    Each starts from a random resized crop (width / height log-uniform from 3/4 to 4/3, squashed, bilinear, mirrored
    one time in two), which is mixed with three chains of one to three of AugMix's nine operations.
    """

    kind: Literal["augmix"] = "augmix"
    crops: Crops = 63
    """number of versions of an image; the whole image is TDA's 64th"""
    min_area: Share = 0.08
    """smallest area of a box, as a share of the image's"""
    max_area: Share = 1.0
    """largest area of a box, as a share of the image's"""
    severity: Annotated[int, Field(ge=1, le=10)] = 1
    """how strong an operation can be, of 10"""

    @model_validator(mode="after")
    def _ordered(self) -> AugMixView:
        _check_order(self, "min_area", "max_area")
        return self


class PromptedView(DrawnByGuide):
    """The whole image with a mark where a guide looks, at the boxes that a guided view set would cut out.

    These are the visual prompts that ABS is compared with (after RedCircle, arXiv 2304.06712, and FGVP, 2306.04356).
    """

    kind: Literal["prompted"] = "prompted"
    prompt: Literal["mask", "highlight", "red_circle"] = "red_circle"
    """mask: outside the box one colour; highlight: outside it the image darker, blurred or both; red_circle: a pure
    red ellipse that fills the box"""
    fill: Literal["black", "mean"] = "black"
    """mask: colour of the outside, black or the mean colour of the model's normalisation"""
    dim: Annotated[float, Field(ge=0, le=1)] = 0.5
    """highlight: share of its brightness that the outside keeps"""
    blur: Annotated[float, Field(ge=0, le=1)] = 0.0
    """highlight: standard deviation of a Gaussian blur of the outside, as a share of the image's shorter side"""
    line: Annotated[float, Field(gt=0, le=0.5)] = 0.01
    """red_circle: width of the line, as a share of the image's shorter side (at least one pixel)"""


ViewSettings = Annotated[
    RandomView | GuidedView | SquaresView | AugmentedView | AugMixView | PromptedView, Field(discriminator="kind")
]


class ActorRange(Settings):
    """A number of actors that follows the cluster."""

    min: Annotated[int, Field(ge=1)] = 1
    """so many must find room before the stage begins"""
    max: Annotated[int, Field(ge=1)] | None = None
    """so many at most, as nodes join; default: what fits"""

    def clip(self, count: int) -> int:
        """The number in the range that is nearest to `count`."""
        return max(count, self.min) if self.max is None else min(max(count, self.min), self.max)


def _kind_of_actors(value: Any) -> str:
    return "range" if isinstance(value, (Mapping, ActorRange)) else "number"


class EncodeResources(Settings):
    """What an encoder may use."""

    gpus: Literal["auto"] | Annotated[float, Field(ge=0)] = "auto"
    """GPUs an encoder actor holds; auto: one where the cluster has any"""
    actors: Annotated[
        Annotated[Literal["auto"] | Annotated[int, Field(ge=1)], Tag("number")] | Annotated[ActorRange, Tag("range")],
        Discriminator(_kind_of_actors),
    ] = "auto"
    """number of encoder actors, or {min, max} of it; auto: one a GPU; on CPUs one a core up to four cores, else one for
    every four"""
    batch: Literal["auto"] | Annotated[int, Field(ge=1, le=4096)] = "auto"
    """images a batch, which is also the rows of a shard; auto: 64 with GPUs, 16 without"""

    @model_validator(mode="after")
    def _ordered(self) -> EncodeResources:
        if isinstance(self.actors, ActorRange) and self.actors.clip(self.actors.min) != self.actors.min:
            raise ValueError(f"actors.min ({self.actors.min}) must not exceed actors.max ({self.actors.max})")
        return self


class ScoreSettings(Settings):
    """What `score` keeps of every image and method."""

    top_k: Annotated[int, Field(ge=5)] = 50
    """best classes kept a row, with logits and probabilities; at least the 5 that evaluate's top-5 accuracy reads"""
    classes: str = "all"
    """which classes may be predicted: all; labelled, those that label a query image, as ImageNet-A and -R are measured;
    or a file of names, one a line. All are scored all the same, and the others left out afterwards"""
    full_logits: bool = False
    """whether the logits of all classes are kept as well: 4 bytes a class, image and method. Of methods that learn from
    the stream those of `classes` alone, the others being NaN"""


class EvaluateSettings(Settings):
    """How accuracy is reported."""

    bootstrap: Annotated[int, Field(ge=100, le=100_000)] = 2000
    """resamples of the images behind a confidence interval, of an accuracy or of the difference of two"""
    confidence: Annotated[float, Field(gt=0, lt=1)] = 0.95
    """coverage of the interval"""
    calibration_bins: Annotated[int, Field(ge=1, le=1000)] = 15
    """bins of equal width, of the predicted class's probability, behind the calibration error"""


class ProjectSettings(Settings):
    """Which LanceDB tables are kept beside `images` and `descriptors`, and how they are searched."""

    crops: bool = True
    """whether every crop is shown in table `crops`; their features stay in the shards anyway"""
    cache: bool = True
    """whether the crops that descriptions chose are shown in table `cache`, where a method caches any"""
    index: Literal["auto", "none"] = "auto"
    """auto: tables of 50,000 rows and more get an index, and a search through it is quick and finds nearly all of the
    best; none: every search compares all rows"""


def _check_order(settings: Settings, low: str, high: str) -> None:
    if getattr(settings, low) > getattr(settings, high):
        raise ValueError(f"{low} ({getattr(settings, low)}) must not exceed {high} ({getattr(settings, high)})")


def _fill_in(data: Any, presets: Mapping[str, Mapping[str, Any]]) -> Any:
    """What a preset says, under the keys that are given; a preset without an entry is the fields' defaults."""
    return {**presets.get(data.get("preset"), {}), **data} if isinstance(data, Mapping) else data
