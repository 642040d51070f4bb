"""A CLIP model with its weights: images and texts in, features out, always fp32 and not normalised.

Architectures, weights and tokenizers are open_clip's. A tower never exists without real weights, and
activation follows the weights: OpenAI's were trained with QuickGELU, whose absence costs accuracy without a
word (`activation`).
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import open_clip
import torch
from torch import nn

from stages.vision.activation import Activation, Trained, config_activation, file_activation, tag_activation
from stages.vision.crops import normalize, resize_crops, squash
from stages.vision.downloads import download_clip, download_config
from stages.vision.feature_crops import FeatureCropper, why_no_feature_crops
from stages.vision.layouts import Weights, load_weights, read_weights
from stages.vision.low_precision import DTYPES, Precision
from stages.vision.model_error import ModelError
from stages.vision.names import CONFIG, FOLDER, HUB, check_model_name, suggest
from stages.vision.tokenizers import check_tokenizer
from stages.vision.weight_files import find_weights_file, read_config, unlike_clip

TEXTS_AT_ONCE = 256


class Tower:
    """A loaded CLIP model in evaluation mode.

    `resize_mode` and `interpolation`: how an image is fitted to the input, as the weights were trained.
    `dim` joint dimension d, `image_size` side S of its input, `mean` and `std` of its normalisation, `logit_scale`
    (already exponentiated, about 100 for CLIP), `context_length` in tokens, `can_crop_features` whether this
    model has a `cropper` (`FeatureCropper`), and if so `grid`, its tokens a side (else None).
    """

    def __init__(self, name: str, model: nn.Module, tokenizer, *, precision: Precision, device: torch.device) -> None:
        self.name = name
        self.model = model.to(device).eval()
        self.tokenizer = tokenizer
        self.precision = precision
        self.device = device
        settings = model.visual.preprocess_cfg
        self.image_size = _square_side(name, model.visual.image_size)
        self.resize_mode: str = settings.get("resize_mode", "shortest")
        self.interpolation: str = settings.get("interpolation", "bicubic")
        _check_preprocessing(name, self.resize_mode, self.interpolation)
        self.mean: tuple[float, ...] = tuple(settings["mean"])
        self.std: tuple[float, ...] = tuple(settings["std"])
        self.logit_scale = float(model.logit_scale.detach().float().exp())
        self.context_length: int = tokenizer.context_length
        self.dim: int = self.encode_texts(["a"]).shape[1]
        self.can_crop_features = why_no_feature_crops(model.visual) is None
        if self.can_crop_features:
            self.cropper = FeatureCropper(model.visual, precision)
        self.grid: int | None = self.cropper.grid if self.can_crop_features else None

    def preprocess(self, image: torch.Tensor, boxes: np.ndarray | None = None) -> torch.Tensor:
        """What the model sees of an image uint8 `[3, H, W]`, or of N `boxes [N, 4]` of it: normalised `[N, 3, S, S]`.

        Shorter side to S and centre crop as CLIP does, or squashed to a square where the model was trained so.
        """
        if boxes is None:
            boxes = np.array([[0, 0, image.shape[2], image.shape[1]]])
        if self.resize_mode == "shortest":
            pixels = resize_crops(image, boxes, self.image_size)
        else:
            cuts = [image[:, y0:y1, x0:x1] for x0, y0, x1, y1 in boxes.tolist()]
            pixels = torch.stack([squash(cut, self.image_size, interpolation=self.interpolation) for cut in cuts])
        return normalize(pixels, self.mean, self.std)

    @torch.no_grad()
    def encode_images(self, pixels: torch.Tensor) -> torch.Tensor:
        """Normalised `pixels [B, 3, S, S]` -> features fp32 `[B, d]`, on the tower's device."""
        if self.can_crop_features:  # of the last layer one row is enough
            return self.cropper.features(self.cropper.tokens(pixels.to(self.device)))
        with self._at_precision():
            return self.model.encode_image(pixels.to(self.device)).float()

    @torch.no_grad()
    def encode_texts(self, texts: list[str]) -> torch.Tensor:
        """T texts -> features fp32 `[T, d]`, on the tower's device; a text longer than the context is cut."""
        if not texts:
            return torch.empty((0, self.dim), device=self.device)
        parts = [texts[start : start + TEXTS_AT_ONCE] for start in range(0, len(texts), TEXTS_AT_ONCE)]
        return torch.cat([self.model.encode_text(self.tokenizer(part).to(self.device)).float() for part in parts])

    def _at_precision(self):
        if self.precision == "fp32":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=DTYPES[self.precision])


def load_tower(
    name: str,
    weights: str | None,
    *,
    activation: Activation = "auto",
    precision: Precision = "fp32",
    device: str | torch.device = "cpu",
) -> Tower:
    """Load a CLIP model.

    `name`: an open_clip architecture, `hf-hub:owner/model` or `local-dir:/folder`; the latter two bring
    their weights, so `weights` is None for them and otherwise a pretrained tag, a weights file (safetensors,
    a torch state dict without code, OpenAI's TorchScript) or a folder of such, in OpenAI's, open_clip's or
    Hugging Face's layout. `activation`: auto asks whoever knows (`file_activation`); else what a file does not
    say itself. `precision` is that of the image tower's arithmetic; texts and results are fp32. Raises `ModelError`.
    """
    if precision not in DTYPES:
        raise ModelError(f"precision {precision!r} is not known; it must be fp32, fp16 or bf16")
    try:
        check_model_name(name)
    except ValueError as error:
        raise ModelError(str(error)) from None
    settled = check_weights(name, weights, activation)
    try:
        if name.startswith((HUB, FOLDER)) or open_clip.get_pretrained_cfg(name, weights):
            model = _published_model(name, weights, activation, settled)
        else:
            model = _model_from_file(name, read_weights(find_weights_file(weights)), activation)
        tokenizer = open_clip.get_tokenizer(name)
    except ModelError:
        raise
    except Exception as error:
        # The readers of open_clip, safetensors, torch, requests and huggingface_hub each raise their own types here.
        raise ModelError(_why_not_loaded(name, weights, error)) from error
    return Tower(name, model, tokenizer, precision=precision, device=torch.device(device))


def fetch_weights(name: str, weights: str | None) -> list[Path]:
    """The files of a public model, downloaded once a node: a tag's weights, or an `hf-hub:` model's and its config.

    Raises ModelError.
    """
    check_weights(name, weights)
    try:
        if name.startswith(HUB):
            check_tokenizer(name, read_config(download_config(name)))
        return download_clip(name, weights)
    except ModelError:
        raise
    except Exception as error:  # as in `load_tower`
        raise ModelError(_why_not_loaded(name, weights, error)) from error


def check_weights(name: str, weights: str | None, activation: Activation = "auto") -> Trained | None:
    """The activation of a tag's or local folder's weights; None where only reading or downloading them will tell.

    Raises ModelError if weights, name and activation do not fit each other.
    """
    if name.startswith((HUB, FOLDER)):
        if weights is not None:
            raise ModelError(f"model {name!r} brings its own weights; leave weights out (it says {weights!r})")
        if name.startswith(HUB):
            return None
        config = Path(name.removeprefix(FOLDER)) / CONFIG
        check_tokenizer(name, read_config(config))
        return config_activation(name, config, activation)
    check_tokenizer(name, open_clip.get_model_config(name) or {})
    tags = open_clip.list_pretrained_tags_by_model(name)
    if not weights:
        raise ModelError(f"model {name!r} needs weights: a local file, or one of its tags: {', '.join(tags) or 'none'}")
    tag = open_clip.get_pretrained_cfg(name, weights)
    if tag:
        _check_preprocessing(name, tag.get("resize_mode", "shortest"), tag.get("interpolation", "bicubic"))
        return tag_activation(name, weights, activation)
    try:
        find_weights_file(weights)
    except FileNotFoundError as error:
        if Path(weights).exists():
            raise ModelError(f"weights of model {name!r}: {error}") from None
        if Path(weights).suffix or "/" in weights:
            raise ModelError(f"weights file {weights} for model {name!r} does not exist") from None
        raise ModelError(
            f"weights {weights!r} of model {name!r} are neither a file nor one of its tags; {suggest(weights, tags)}"
        ) from None
    _check_prepared_as_clip(name, tags)
    return None


def _published_model(name: str, weights: str | None, activation: Activation, settled: Trained | None) -> nn.Module:
    """A tag's, hub's or local folder's model, as open_clip makes it once its files are in the cache."""
    files = [] if name.startswith(FOLDER) else fetch_weights(name, weights)
    if name.startswith(HUB):
        settled = config_activation(name, files[-1], activation)
    return open_clip.create_model(
        name,
        pretrained=weights,
        force_quick_gelu=settled == "quick_gelu",
        require_pretrained=True,
        weights_only=True,
    )


def _model_from_file(name: str, weights: Weights, activation: Activation) -> nn.Module:
    quick = file_activation(name, weights, activation) == "quick_gelu"
    with _without_warning("No pretrained weights loaded"):  # they are, a line later
        model = open_clip.create_model(name, load_weights=False, pretrained_text=False, force_quick_gelu=quick)
    load_weights(model, weights, name)
    return model


@contextlib.contextmanager
def _without_warning(beginning: str) -> Iterator[None]:
    """Keeps one message of open_clip, which logs to the root logger, from being shown."""
    logger, unwanted = logging.getLogger(), lambda record: not str(record.msg).startswith(beginning)
    logger.addFilter(unwanted)
    try:
        yield
    finally:
        logger.removeFilter(unwanted)


def _why_not_loaded(name: str, weights: str | None, error: Exception) -> str:
    detail = " ".join(str(error).split())[:400] or type(error).__name__
    what = f"model {name!r}" + (f" with weights {weights!r}" if weights else "")
    if isinstance(error, ImportError):
        return f"{what} needs a package that is not installed ({detail})"
    if name.startswith(FOLDER) or (weights and Path(weights).exists()):
        return f"{what} could not be loaded: the files are damaged, or do not belong to this architecture ({detail})"
    return (
        f"{what} could not be downloaded. Without a network, give weights as the path of a local file, or a folder as "
        f"'local-dir:/folder' ({detail})"
    )


def _check_preprocessing(name: str, resize_mode: str, interpolation: str) -> None:
    """Only ways of resizing that this house reproduces; another one would cost accuracy without a word."""
    known = {"shortest": ("bicubic",), "squash": ("bicubic", "bilinear")}
    if interpolation not in known.get(resize_mode, ()):
        raise ModelError(
            f"model {name!r} wants images resized by {resize_mode}, {interpolation}, which is not supported"
        )


def _check_prepared_as_clip(name: str, tags: list[str]) -> None:
    """A file says nothing of its images, which are prepared CLIP's way: refused where no tag of the name has that."""
    others = {tag: unlike_clip(open_clip.get_pretrained_cfg(name, tag)) for tag in tags}
    if others and all(others.values()):
        tag, other = next(iter(others.items()))
        raise ModelError(
            f"model {name!r} cannot be had from a weights file: its images are not prepared CLIP's way ({tag}: "
            f"{other}), and a file does not say so. Give a tag ({', '.join(tags)}), or a folder with its "
            "open_clip_config.json as model.name 'local-dir:/folder', without weights"
        )


def _square_side(name: str, size: int | tuple[int, int]) -> int:
    height, width = (size, size) if isinstance(size, int) else size
    if height != width:
        raise ModelError(f"model {name!r} takes images of {height} x {width}; only square input is supported")
    return height
