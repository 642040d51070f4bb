"""The model that ships: small, loadable by open_clip as it is, and able to read marks it has never seen together."""

from __future__ import annotations

import open_clip
import pytest
import torch
from safetensors.torch import load_file

from demo.captions import descriptor, every_sentence
from demo.dataset import MODEL_FOLDER
from demo.render import render
from demo.species import species_of
from demo.weights import CONFIG, narrow_tokens, new_model, save_model, tokenize

WEIGHTS = MODEL_FOLDER / "open_clip_model.safetensors"


@pytest.fixture(scope="module")
def clip():
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{MODEL_FOLDER}")
    return model.eval(), preprocess, open_clip.get_tokenizer(f"local-dir:{MODEL_FOLDER}")


def test_the_file_is_small_in_half_precision_and_zero_for_tokens_never_used():
    assert WEIGHTS.stat().st_size < 15e6
    state = load_file(WEIGHTS)
    assert {tensor.dtype for tensor in state.values()} == {torch.float16}
    table = state["token_embedding.weight"]
    used = tokenize(every_sentence()).unique()
    assert table.shape == (49408, 96)
    assert torch.equal(table.any(1).nonzero().flatten(), used)


def test_its_logit_scale_is_that_of_clip(clip):
    assert clip[0].logit_scale.exp().item() == pytest.approx(100, rel=1e-2)


def test_it_tells_unseen_species_apart_by_their_marks(clip):
    """64 pictures of 32 species whose combinations of marks were never trained on; chance is 2."""
    model, preprocess, tokenizer = clip
    species = species_of("validation")
    pictures = [render(its, seed)[0] for its in species for seed in range(2)]
    with torch.inference_mode():
        images = model.encode_image(torch.stack([preprocess(picture) for picture in pictures]), normalize=True)
        sentences = [descriptor(mark) for its in species for mark in its.marks]
        texts = model.encode_text(tokenizer(sentences), normalize=True).view(32, 8, -1)
    found = (images @ texts.mean(1).T).argmax(1)
    right = (found == torch.arange(32).repeat_interleave(2)).sum().item()
    genus = (found // 4 == torch.arange(8).repeat_interleave(8)).sum().item()
    assert right >= 40
    assert genus >= 55


def test_a_saved_model_gives_the_features_it_had(tmp_path):
    torch.manual_seed(0)
    model = new_model().eval()
    used = tokenize(["a bird with a long red beak."]).unique()
    narrow_tokens(model, used)
    save_model(model, used, tmp_path)
    again = open_clip.create_model(f"local-dir:{tmp_path}").eval()
    side = CONFIG["model_cfg"]["vision_cfg"]["image_size"]
    pixels = torch.randn(2, 3, side, side)
    tokens = tokenize(["a long red beak.", "a bird."])
    with torch.inference_mode():
        assert torch.allclose(model.encode_image(pixels), again.encode_image(pixels), atol=2e-2)
        narrow = model.encode_text(torch.searchsorted(used, tokens))
        assert torch.allclose(narrow, again.encode_text(tokens), atol=2e-2)
