"""Which image is meant: an id, the end of one, or a file."""

from __future__ import annotations

import os

import pyarrow as pa
import pytest

from pipeline.find_image import find_image, near_ids
from pipeline.job_error import JobError

IDS = ["test/jay/0.png", "test/jay/1.png", "test/wren/0.png", "test/wren/10.png", "train/wren/2.png"]


@pytest.fixture
def manifest(tmp_path):
    for name in IDS[:3]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    uris = [str(tmp_path / name) for name in IDS[:3]] + [f"tar:/data/a.tar?member={name}" for name in IDS[3:]]
    return pa.table({"key": [f"{name}@1" for name in IDS], "id": IDS, "uri": uris})


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("test/jay/0.png", "test/jay/0.png"),
        ("./test/jay/0.png", "test/jay/0.png"),
        ("wren/0.png", "test/wren/0.png"),
        ("10.png", "test/wren/10.png"),
        ("/elsewhere/photos/train/wren/2.png", "train/wren/2.png"),
    ],
)
def test_an_id_its_end_and_a_path_that_ends_so_mean_the_image(manifest, given, meant):
    assert find_image(manifest, given, "")["id"] == meant


def test_the_path_of_an_image_s_own_file_means_it_and_that_of_another_file_does_not(manifest, tmp_path):
    assert find_image(manifest, str(tmp_path / IDS[0]), "")["key"] == f"{IDS[0]}@1"
    assert find_image(manifest, os.path.relpath(tmp_path / IDS[0]), "")["id"] == IDS[0]
    copy = tmp_path / "copy" / IDS[0]
    copy.parent.mkdir(parents=True)
    copy.write_bytes(b"y")
    with pytest.raises(JobError, match=r"not in the job; .*: fieldmark predict"):
        find_image(manifest, str(copy), "fieldmark predict job.yaml --image x")


def test_an_ending_of_several_ids_names_them(manifest):
    with pytest.raises(JobError, match=r"0\.png: 2 images end so: test/jay/0\.png, test/wren/0\.png; say which one"):
        find_image(manifest, "0.png", "")


def test_an_ending_is_made_of_whole_components(manifest):
    with pytest.raises(JobError, match="no image of the job has this id"):
        find_image(manifest, "ren/0.png", "")


def test_an_unknown_image_is_told_near_ids(manifest):
    with pytest.raises(JobError, match=r"wren/00\.png: no image .* did you mean test/wren/0\.png or test/wren/10\.png"):
        find_image(manifest, "wren/00.png", "")
    with pytest.raises(JobError, match=r"ids look like test/jay/0\.png"):
        find_image(manifest, "~~~~", "")


def test_among_very_many_ids_near_ones_are_looked_for_around_the_place():
    ids = [f"test/{number:06d}.png" for number in range(9_000)]
    assert "test/004234.png" in near_ids(ids, "test/004234.pgn")
