"""What tests of several kinds of data sets share."""

from __future__ import annotations

import pytest


@pytest.fixture
def images(tmp_path):
    """`images(*names)` puts empty files of these names into a folder and returns it: the manifest opens none."""

    def write(*names: str):
        for name in names:
            path = tmp_path / "set" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"")
        return tmp_path / "set"

    return write
