from __future__ import annotations

import pytest

from storage.markers import drop_marker, marker, write_marker


@pytest.mark.parametrize("kind", ["disk", "s3"])
def test_a_table_has_the_digest_it_was_last_completed_with(kind, tmp_path, request):
    uri = str(tmp_path / "lance") if kind == "disk" else f"{request.getfixturevalue('bucket')}/lance"
    assert marker(uri, "crops") is None
    drop_marker(uri, "crops")
    write_marker(uri, "crops", "one")
    write_marker(uri, "images", "two")
    write_marker(uri, "crops", "three")
    assert (marker(uri, "crops"), marker(uri, "images")) == ("three", "two")
    drop_marker(uri, "crops")
    assert (marker(uri, "crops"), marker(uri, "images")) == (None, "two")


def test_a_marker_file_that_was_destroyed_is_named(tmp_path):
    (tmp_path / "projected.json").write_bytes(b"{")
    with pytest.raises(ValueError, match=r"projected\.json is no JSON"):
        marker(str(tmp_path), "crops")
