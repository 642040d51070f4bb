"""The compiled pass of soft matching on torch's tensors, in blocks that stay in cache, shared by threads."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .lanes import WIDTH
from .soft_pass import add_votes, read_block
from .threads import share

# Similarities in a thread's block: half a megabyte, and so in a core's second cache with room for texts and rows.
_BLOCK_ELEMENTS = 2**17
# Columns from which on a product of matrices is efficient.
_ENOUGH_COLUMNS = 256
# Rows that are matched together: below it the texts come from memory too often, above it votes take too much of it.
_ROWS = 256


def compiled_votes(features: Tensor, texts: Tensor, prior: Tensor, *, temperature: float, shift: float) -> Tensor:
    """`soft_match` in float32 on a CPU: `features` [B, F, d], `texts` [C, M, d], `prior` [C, M] -> [B, C].

    `prior` is what is added inside the softmax, -inf for padding.
    """
    batch, rows, _ = features.shape
    logits = features.new_empty(batch, texts.shape[0])
    padded = torch.nn.functional.pad(prior, (0, -prior.shape[1] % WIDTH), value=-torch.inf)
    images = max(1, _ROWS // rows)
    for start in range(0, batch, images):
        some = slice(start, start + images)
        scaled = (features[some] / temperature).flatten(0, 1)
        _match(scaled, texts, padded, shift / temperature, logits[some])
    return logits


def _match(rows: Tensor, texts: Tensor, prior: Tensor, shift: float, logits: Tensor) -> None:
    """Logits [B, C] of a few images; `rows` [B x F, d] = features / temperature, `prior` [C, M'] padded."""
    class_count, text_count, dim = texts.shape
    # Blocks fit the cache, give every thread several, and are wide enough for a product of matrices, in that order.
    fitting = max(1, _BLOCK_ELEMENTS // (len(rows) * text_count))
    several, wide = -(-class_count // (4 * torch.get_num_threads())), -(-_ENOUGH_COLUMNS // text_count)
    classes = min(fitting, max(several, wide))
    blocks = -(-class_count // classes)
    numerators = rows.new_empty(len(rows), class_count)
    largest, mass = rows.new_empty(2, blocks, len(rows))

    def worker() -> Callable[[int], None]:
        # The pass reads whole lanes, and so up to one beyond the last similarity.
        buffer = rows.new_empty(len(rows) * classes * text_count + WIDTH)

        def read(block: int) -> None:
            some = slice(block * classes, (block + 1) * classes)
            flat = texts[some].reshape(-1, dim)
            similarity = buffer[: len(rows) * len(flat)].view(len(rows), -1)
            torch.mm(rows, flat.T, out=similarity)
            found = (numerators[:, some], largest[block], mass[block])
            read_block(similarity.numpy(), prior[some].numpy(), text_count, shift, *(side.numpy() for side in found))

        return read

    share(range(blocks), worker)
    add_votes(numerators.numpy(), largest.numpy(), mass.numpy(), classes, logits.numpy())
