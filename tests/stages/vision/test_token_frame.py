"""Windows of tokens as boxes: each window lies on the pixels that its tokens were made of."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from stages.vision.crops import preprocess_whole, squash
from stages.vision.model_error import ModelError
from stages.vision.token_frame import TokenFrame, read_token_frame


def test_tokens_cover_the_central_square_of_an_image_or_all_of_it():
    windows = np.array([[0, 0, 4, 4], [1, 2, 3, 4]])
    assert TokenFrame(4, squashed=False).boxes(windows, 80, 40).tolist() == [[20, 0, 60, 40], [40, 10, 60, 30]]
    assert TokenFrame(4, squashed=False).boxes(windows, 40, 80).tolist() == [[0, 20, 40, 60], [20, 30, 40, 50]]
    assert TokenFrame(4, squashed=True).boxes(windows, 80, 40).tolist() == [[0, 0, 80, 40], [40, 10, 80, 30]]


@pytest.mark.parametrize("squashed", [False, True])
@pytest.mark.parametrize(("width", "height"), [(96, 64), (64, 100), (64, 64)])
def test_what_a_window_shows_is_what_its_box_holds(width, height, squashed):
    frame, window = TokenFrame(4, squashed=squashed), np.array([[1, 2, 3, 4]])
    ((x0, y0, x1, y1),) = frame.boxes(window, width, height).tolist()
    image = torch.zeros(3, height, width, dtype=torch.uint8)
    image[:, y0:y1, x0:x1] = 255
    seen = (squash(image, 32) if squashed else preprocess_whole(image, 32))[0]
    lit = torch.zeros(32, 32)
    lit[8:24, 16:32] = 255
    assert (seen - lit).abs().mean() < 8  # only pixels along the edges, which resizing blurs


def test_the_frame_of_a_model_is_that_of_its_architecture_and_its_weights_tag(tiny_model, caplog):
    assert read_token_frame(f"local-dir:{tiny_model}", None) == TokenFrame(4, squashed=False)
    assert caplog.records == []  # that no weights are loaded is meant
    assert read_token_frame("ViT-B-16", "openai") == TokenFrame(14, squashed=False)
    assert read_token_frame("ViT-B-16-SigLIP", "webli") == TokenFrame(14, squashed=True)
    assert read_token_frame("ViT-B-32", "/weights/of/my/own.safetensors") == TokenFrame(7, squashed=False)


def test_a_local_folder_says_itself_that_images_are_squashed(tiny_model, tmp_path):
    config = json.loads((tiny_model / "open_clip_config.json").read_text())
    config["preprocess_cfg"]["resize_mode"] = "squash"
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    assert read_token_frame(f"local-dir:{tmp_path}", None) == TokenFrame(4, squashed=True)


def test_a_model_without_tokens_or_without_a_configuration_is_refused_by_name(tmp_path):
    with pytest.raises(ModelError, match=r"'RN50' has no feature crops"):
        read_token_frame("RN50", "openai")
    with pytest.raises(ModelError, match="its configuration cannot be read"):
        read_token_frame(f"local-dir:{tmp_path}", None)
