"""How a method came to a logit: which crop spoke for which description, with how much mass.

A method that can be explained has a method `explain`, which answers with a `Spoken`. Its contributions are the summands
of the logits themselves, not an estimate of what mattered: they add up to what `Method.logits` gives.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from .method import Features, Method, Texts

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Spoken:
    """What F rows (crops, or the whole image) of one image say for the M descriptions of each of K classes.

    `mass` [K, F, M] >= 0 is the weight of a pair: of a transport plan or of weighted means it sums to 1 in a class, of
    votes to 1 for each row over all classes. `contributions` [K, F, M] are the parts of the logit that pairs make up,
    mass x cosine x a factor, 0 for padding; a class's logit is their sum and `rest` [K], which no pair has a part in.
    """

    rows: list[tuple[str, int]]
    """of each row its kind (raw, feature or whole), and its number among those of its kind in the view set"""
    first_text: int
    """how many of a class's prompts stand before its descriptions"""
    mass: Tensor
    cosines: Tensor
    contributions: Tensor
    rest: Tensor


class Explained(Protocol):
    """A method that says how it came to its logits."""

    def explain(self, features: Features, texts: Texts, classes: Sequence[int]) -> Spoken:
        """What an image says for these classes, by number; `features` are its own alone, `texts` those of all classes.

        Raises what `Method.logits` raises.
        """


def explains(method: Method) -> bool:
    """Whether the method is an `Explained`; one that is derived from it scores otherwise, and must say so itself."""
    return "explain" in vars(type(method))


def number_rows(**counts: int) -> list[tuple[str, int]]:
    """Rows by kind and number, kinds in their order: `number_rows(raw=2, whole=1)`."""
    return [(kind, number) for kind, count in counts.items() for number in range(count)]


def explain_means(
    rows: Tensor, row_weights: Tensor, texts: Tensor, text_weights: Tensor, scale: float, *, renormalize: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Mass, cosines and contributions [K, F, M] of scale x (sum_i w_i x_i) . (sum_j v_j t_j).

    `rows` [F, d] and their weights w [F], `texts` [K, M, d] and theirs v [K, M], each of sum 1. With `renormalize` both
    sums are rescaled to length one, by which all pairs of a class are divided alike.
    """
    import torch

    cosines = torch.einsum("fd,kmd->kfm", rows, texts)
    mass = row_weights[:, None] * text_weights[:, None, :]
    contributions = scale * mass * cosines
    if renormalize:
        lengths = (row_weights @ rows).norm() * torch.einsum("km,kmd->kd", text_weights, texts).norm(dim=-1)
        contributions = contributions / lengths[:, None, None]
    return mass, cosines, contributions
