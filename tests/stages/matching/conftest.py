from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def unit_rows():
    """Reproducible random unit rows of a shape; `towards` pulls all of them to one direction."""

    def draw(*shape: int, seed: int = 0, towards: float = 0.0, dtype=torch.float64) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        return F.normalize(torch.randn(*shape, generator=generator, dtype=dtype) + towards, dim=-1)

    return draw


@pytest.fixture
def rows_with_cosines():
    """Crops [1, N, d] and texts [C, M, d] that have exactly the given cosines [C, N, M]."""

    def build(cosines: list[list[list[float]]]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        wanted = torch.tensor(cosines, dtype=torch.float64)
        classes, crops, texts = wanted.shape
        # Crops are the first axes; a text has its cosines there, and the rest of its length on one more.
        along = wanted.transpose(1, 2)
        rest = (1 - along.square().sum(dim=-1, keepdim=True)).sqrt()
        return (
            torch.eye(crops, crops + 1, dtype=torch.float64).unsqueeze(0),
            torch.cat([along, rest], dim=-1),
            torch.ones(classes, texts, dtype=torch.bool),
        )

    return build
