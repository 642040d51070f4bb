"""What the tests of vision share: one thread, a picture with the spectrum of a photograph, a tiny CLIP on disk."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import save_file

TINY_CLIP = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def natural():
    """`natural(height, width)` -> uint8 [H, W, 3]: noise whose amplitude falls as 1 / frequency, and one hard edge."""

    def draw(height: int, width: int) -> np.ndarray:
        rng = np.random.default_rng(height * 10_007 + width)
        frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None])
        frequency[0, 0] = 1.0
        noise = np.fft.fft2(rng.normal(size=(3, height, width))) / frequency
        image = np.fft.ifft2(noise).real
        image = 128 + 50 * (image - image.mean()) / (image.std() + 1e-9)
        image[:, height // 3 : height // 2, width // 4 : width // 2] += 60
        return np.clip(image, 0, 255).astype(np.uint8).transpose(1, 2, 0)

    return draw


@pytest.fixture
def tiny_clip(tmp_path):
    """`tiny_clip(**vision)` -> `local-dir:` name of a saved CLIP with random weights, its vision settings changed."""

    def save(**vision) -> str:
        torch.manual_seed(0)
        config = json.loads(json.dumps(TINY_CLIP))
        config["vision_cfg"] |= vision
        model = open_clip.CLIP(**config)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
        folder = Path(tmp_path) / "clip"
        folder.mkdir(exist_ok=True)
        preprocess = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.2, 0.2]}
        document = {"model_cfg": config, "preprocess_cfg": preprocess}
        (folder / "open_clip_config.json").write_text(json.dumps(document))
        save_file(model.state_dict(), folder / "open_clip_model.safetensors")
        return f"local-dir:{folder}"

    return save
