"""Features as Arrow columns: unit vectors in fp16 with their norms beside them in fp32."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from storage.schemas import fixed_list

if TYPE_CHECKING:
    from stages.encoder import Image


def whole_rows(images: Sequence[Image], features: np.ndarray, seconds: float) -> pa.Table:
    """Rows of the table `whole` from features [B, d], not normalised; `seconds` an image, decoding not counted."""
    return pa.table(
        {
            "key": pa.array([image.key for image in images], pa.string()),
            "id": pa.array([image.id for image in images], pa.string()),
            "width": pa.array([image.photograph.width for image in images], pa.int32()),
            "height": pa.array([image.photograph.height for image in images], pa.int32()),
            **unit_columns("", features[:, None]),
            "seconds": pa.array([image.photograph.seconds + seconds for image in images], pa.float32()),
        }
    )


def unit_columns(prefix: str, features: np.ndarray) -> dict[str, pa.Array]:
    """Columns `vectors` (unit length, fp16) and `norms` (fp32) of features [B, N, d], as fixed-size lists.

    Raises FloatingPointError for features that are not finite: stored, they would never be computed again.
    """
    if not np.isfinite(features).all():
        raise FloatingPointError(
            "the model's features are not finite numbers: its activations are too large for half precision (set "
            "model.precision: bf16 or fp32), or its weights are damaged"
        )
    norms = np.linalg.norm(features, axis=-1)
    unit = features / np.maximum(norms, 1e-12)[..., None]
    return {
        f"{prefix}vectors": fixed_list(unit.astype(np.float16)),
        f"{prefix}norms": fixed_list(norms.astype(np.float32)),
    }
