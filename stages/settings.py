"""What each stage can be told: one strict pydantic model a concept, with units, ranges and defaults.

A job file is made of these (`pipeline.settings.Job`). They import neither torch nor ray: reading one is instant.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Settings(BaseModel):
    """A frozen, strict group of settings: an unknown key or a wrong type is an error, never a surprise."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, use_attribute_docstrings=True)


class ModelSettings(Settings):
    """The CLIP model whose towers encode images and texts."""

    name: str = "ViT-B-16"
    """open_clip architecture, `hf-hub:OWNER/NAME`, or `local-dir:FOLDER` with open_clip's own two files"""
    weights: str | None = None
    """open_clip pretrained tag or a local weights file; `openai` for a plain architecture name"""
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


class RandomView(Settings):
    """Random multi-crop views as D&D takes them (algorithms.md 7.1)."""

    kind: Literal["random"] = "random"
    crops: Annotated[int, Field(ge=1, le=1000)] = 9
    """number of crops an image"""
    min_area: Annotated[float, Field(gt=0, le=1)] = 0.10
    """smallest size of a box, a share of what scale_mode says"""
    max_area: Annotated[float, Field(gt=0, le=1)] = 0.75
    """largest size of a box, a share of what scale_mode says"""
    min_aspect: Annotated[float, Field(gt=0)] = 3 / 4
    """smallest width / height of a box"""
    max_aspect: Annotated[float, Field(gt=0)] = 4 / 3
    """largest width / height of a box"""
    scale_mode: Literal["area", "side"] = "area"
    """area: a box covers that share of the image's area; side: that share squared, since the square root of its area
    is that share of the square root of the image's"""

    @model_validator(mode="after")
    def _ordered(self) -> RandomView:
        _check_order(self, "min_area", "max_area")
        _check_order(self, "min_aspect", "max_aspect")
        return self


class GuidedView(Settings):
    """Crops around what a guide attends to, in pixel and feature space, as ABS takes them (algorithms.md 8.2-8.3)."""

    kind: Literal["guided"] = "guided"
    guide: str = "dino"
    """name of one of the job's guides"""
    crops: Annotated[int, Field(ge=1, le=1000)] = 60
    """number of crops an image, of each kind"""
    min_side: Annotated[float, Field(gt=0, le=1)] = 0.5
    """smallest side of a crop, as a share of the image's"""
    max_side: Annotated[float, Field(gt=0, le=1)] = 0.9
    """largest side of a crop, as a share of the image's"""
    top_k: Annotated[int, Field(ge=1)] = 20
    """crops are centred on cells among the top_k most salient"""
    temperature: Annotated[float, Field(gt=0)] = 0.03
    """softmax temperature of the draw among those cells"""
    feature_crops: bool = True
    """also crop the tokens before the last block (models with a CLS token)"""
    frame: Literal["corrected", "official"] = "corrected"
    """feature crops of non-square images: centred where the guide looked, or displaced as in the papers' code"""

    @model_validator(mode="after")
    def _ordered(self) -> GuidedView:
        _check_order(self, "min_side", "max_side")
        return self


ViewSettings = Annotated[RandomView | GuidedView, Field(discriminator="kind")]


class FileDescriptors(Settings):
    """Descriptors from a file `{class name: [text, ...]}` in JSON or YAML, the shape that CLIP-D and CuPL publish."""

    provider: Literal["file"] = "file"
    path: str
    """the descriptor file"""
    form: Literal["sentences", "attributes"] = "sentences"
    """sentences are encoded as they stand; attributes ("a red beak") are put into a method's template"""


DescriptorSettings = FileDescriptors


class EncodeResources(Settings):
    """What an encoder may use."""

    gpus: Literal["auto"] | Annotated[float, Field(ge=0)] = "auto"
    """GPUs an encoder actor holds; auto: one where the cluster has any"""
    actors: Literal["auto"] | Annotated[int, Field(ge=1)] = "auto"
    """number of encoder actors; auto: one a GPU; on CPUs one a core up to four cores, else one for every four"""
    batch: Literal["auto"] | Annotated[int, Field(ge=1, le=4096)] = "auto"
    """images a batch, which is also the rows of a shard; auto: 64 with GPUs, 16 without"""


class ScoreSettings(Settings):
    """What `score` keeps of every image and method."""

    top_k: Annotated[int, Field(ge=5)] = 50
    """best classes kept a row, with logits and probabilities; at least the 5 that evaluate's top-5 accuracy reads"""


class EvaluateSettings(Settings):
    """How accuracy is reported."""

    bootstrap: Annotated[int, Field(ge=100, le=100_000)] = 2000
    """resamples of the images behind a confidence interval"""
    confidence: Annotated[float, Field(gt=0, lt=1)] = 0.95
    """coverage of the interval"""


def _check_order(settings: Settings, low: str, high: str) -> None:
    if getattr(settings, low) > getattr(settings, high):
        raise ValueError(f"{low} ({getattr(settings, low)}) must not exceed {high} ({getattr(settings, high)})")
