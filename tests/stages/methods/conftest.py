"""What the tests of methods share: unit vectors, texts, crops with given cosines, and a method's logits."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from stages.methods import Texts, parse_method


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def unit():
    """`unit(*shape, seed=0)` -> random unit rows."""

    def draw(*shape: int, seed: int = 0) -> torch.Tensor:
        return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)

    return draw


@pytest.fixture(scope="session")
def texts():
    """`texts(vectors [C, M, d], mask=None, scale=100.0)` -> Texts; without a mask every class is full."""

    def make(vectors, mask=None, scale: float = 100.0) -> Texts:
        vectors = torch.as_tensor(vectors, dtype=torch.float32)
        mask = torch.ones(vectors.shape[:2], dtype=torch.bool) if mask is None else torch.tensor(mask)
        return Texts(vectors=vectors * mask.unsqueeze(-1), mask=mask, logit_scale=scale)

    return make


@pytest.fixture(scope="session")
def with_cosines():
    """`with_cosines([C, N, M])` -> crops [1, N, N + 1] and texts [C, M, N + 1] that have these cosines."""

    def make(cosines: list[list[list[float]]]) -> tuple[torch.Tensor, torch.Tensor]:
        along = torch.tensor(cosines).transpose(1, 2)
        rest = (1 - along.square().sum(dim=-1, keepdim=True)).sqrt()
        crops = along.shape[-1]
        return torch.eye(crops, crops + 1).unsqueeze(0), torch.cat([along, rest], dim=-1)

    return make


@pytest.fixture(scope="session")
def logits_of():
    """`logits_of(method, features, texts)`: parse, prepare, score. `method` is what a job file says, or a Method."""

    def score(method, features, described) -> torch.Tensor:
        method = parse_method(method) if isinstance(method, str | dict) else method
        return method.logits(features, method.prepare(described))

    return score
