"""MATLAB files, in which Flowers102, StanfordCars and ImageNet keep their labels."""

from __future__ import annotations

import io

import numpy as np

from stages.dataset import DatasetError


def read_matlab(path: str, data: bytes | None = None) -> dict[str, np.ndarray]:
    """The variables of a .mat file, or of its bytes `data`, as arrays of one axis or more, without axes of length one.

    Raises DatasetError.
    """
    try:
        from scipy.io import loadmat
        from scipy.io.matlab import MatReadError
    except ImportError:
        raise DatasetError(f"dataset.root: reading {path} needs SciPy: pip install scipy") from None
    try:
        found = loadmat(path if data is None else io.BytesIO(data), squeeze_me=True)
    except (OSError, ValueError, TypeError, NotImplementedError, MatReadError) as error:
        raise DatasetError(f"dataset.root: {path} is no MATLAB file that can be read: {error}") from None
    return {name: np.atleast_1d(value) for name, value in found.items() if not name.startswith("__")}
