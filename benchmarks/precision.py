"""How alike embeddings in bf16 and in fp32 are: random weights of a real architecture, and the demo's trained model."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F

from stages.vision.crops import image_tensor
from stages.vision.decode import decode_image
from stages.vision.towers import load_tower

DEMO_MODEL = Path(__file__).resolve().parent.parent / "demo" / "model"


def cosines(model: Path, photos: Path) -> dict[str, float]:
    """Smallest cosine over whole images, by model."""
    images = [image_tensor(decode_image(path.read_bytes())) for path in sorted(photos.iterdir())]
    return {folder.name: _smallest(folder, images) for folder in (model, DEMO_MODEL)}


def _smallest(folder: Path, images: list[torch.Tensor]) -> float:
    exact = load_tower(f"local-dir:{folder}", None)
    fast = load_tower(f"local-dir:{folder}", None, precision="bf16")
    pixels = torch.cat([exact.preprocess(image) for image in images])
    cosine = F.cosine_similarity(exact.encode_images(pixels), fast.encode_images(pixels), dim=1)
    return round(cosine.min().item(), 5)
