"""A uri says where a blob lies, and gives back every name as it was."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.uris import LocalFile, ParquetCell, RemoteFile, TarMember, format_uri, parse_uri, place_order

NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
NUMBERS = st.integers(0, 2**62)


@given(NAMES, st.text(st.characters(exclude_categories=["Cs"]), max_size=20), NUMBERS, NUMBERS)
def test_names_of_any_signs_come_back_from_the_uri_of_a_tar_member_and_of_a_parquet_cell(path, name, one, other):
    for place in (TarMember(f"/{path}", name, one, other), ParquetCell(f"/{path}", name, one, other)):
        uri = format_uri(place)
        assert parse_uri(uri) == place
        assert uri.isascii()
        assert not set(uri) & set(" \n\"'#\\")


def test_blobs_of_one_file_are_ordered_by_their_place_and_plain_files_keep_their_order():
    cells = [ParquetCell("/b", "image", group, row) for group in (0, 2, 10) for row in (0, 2, 10)]
    members = [TarMember("/c", name, offset, 1) for name, offset in (("z", 512), ("y", 1024), ("a", 20480))]
    ordered = ["/z", "/a", "https://h/m", *map(format_uri, [*cells, *members])]
    shuffled = ["/z", *map(format_uri, members[::-1]), "/a", *map(format_uri, cells[::-1]), "https://h/m"]
    assert sorted(shuffled, key=place_order) == ordered


@given(NAMES)
def test_a_local_path_is_its_own_uri(name):
    assert format_uri(LocalFile(f"/{name}")) == f"/{name}"
    assert parse_uri(f"/{name}") == LocalFile(f"/{name}")


@given(st.text(max_size=30).map(lambda text: f"tar:{text}") | st.text(max_size=30).map(lambda text: f"parquet:{text}"))
def test_a_uri_of_a_container_names_a_place_or_is_refused(uri):
    try:
        place = parse_uri(uri)
    except ValueError:
        return
    assert isinstance(place, (TarMember, ParquetCell))
    assert parse_uri(format_uri(place)) == place


@pytest.mark.parametrize(
    ("uri", "place"),
    [
        ("https://host/a%20b.jpg?size=2#x", RemoteFile("https://host/a%20b.jpg?size=2#x")),
        ("s3://bucket/a b.jpg", RemoteFile("s3://bucket/a b.jpg")),
        ("file:///photos/a%20b%23.jpg", LocalFile("/photos/a b#.jpg")),
        ("file://localhost/a.jpg", LocalFile("/a.jpg")),
        ("./tar:x", LocalFile("./tar:x")),
        ("a:b/c.jpg", LocalFile("a:b/c.jpg")),
    ],
)
def test_remote_files_stand_as_they_are_and_file_uris_are_decoded(uri, place):
    assert parse_uri(uri) == place


@pytest.mark.parametrize(
    "uri", ["file://elsewhere/a.jpg", "file:///a.jpg?x", "tar:/a.tar", "tar:/a?member=m&offset=-1&size=2"]
)
def test_a_uri_that_names_no_place_is_refused(uri):
    with pytest.raises(ValueError, match=r"is no uri of a"):
        parse_uri(uri)
