"""`fieldmark query`: answers as a table, JSON or a page, restricted by options and conditions."""

from __future__ import annotations

import io
import json
import os
import shutil
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipeline.feature_store import FeatureStore
from pipeline.hits_page import hits_page
from pipeline.job_file import load_job
from storage.uris import ParquetCell, TarMember, format_uri

ODD = """<script>alert("x")</script> & 'friends'"""


def hits_of(said) -> list[dict]:
    assert said.status == 0, said.err
    return json.loads(said.out)["hits"]


def test_options_and_a_condition_restrict_the_rows_together(fieldmark, finished_job):
    where = "view = 'random' AND number IN (0, 2)"
    options = ["--class", "wren", "--split", "query", "--where", where, "--min-similarity", "-1", "-k", "100", "--json"]
    hits = hits_of(fieldmark("query", finished_job, "a red breast", *options))
    assert len(hits) == 4 * 2
    assert {(hit["class"], hit["view"]) for hit in hits} == {("wren", "random")}
    assert {hit["number"] for hit in hits} == {0, 2}
    best = hits[0]["similarity"]
    alike = fieldmark("query", finished_job, "a red breast", *options, "--min-similarity", best - 1e-6, "--exact")
    assert [hit["id"] for hit in hits_of(alike)] == [hits[0]["id"]]
    marks = hits_of(
        fieldmark("query", finished_job, "red", "--table", "descriptors", "--descriptors", "marks", "--json")
    )
    assert {hit["set"] for hit in marks} == {"marks"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--where", "klass = 'wren'"], ["where", "'klass'", "image, view, kind, number, class, split"]),
        (["--where", "class = 'wren'; DELETE FROM crops"], ["where", "';"]),
        (["--table", "images", "--where", "number = 1"], ["'number'", "version, uri, class, split, width, height"]),
        (["--min-similarity", "2"], ["--min-similarity", "1"]),
        (["--descriptors", "mark", "--table", "descriptors"], ["--descriptors mark", "Did you mean 'marks'?"]),
        (["--descriptors", "marks"], ["--descriptors marks: not in this table", "none"]),
        (["--table", "cache", "--split", "query"], ["--split query: not in this table"]),
        (["--html", "nowhere/out.html"], ["--html nowhere/out.html: there is no folder nowhere"]),
    ],
)
def test_an_option_that_does_not_fit_is_status_2_with_what_is_allowed(fieldmark, finished_job, options, words):
    said = fieldmark("query", finished_job, "red", *options)
    assert (said.status, said.out) == (2, "")
    assert [word for word in words if word not in said.err] == []


def test_a_table_that_no_method_keeps_is_status_1_with_what_would_make_it(fieldmark, finished_job):
    said = fieldmark("query", finished_job, "red", "--table", "cache")
    assert (said.status, said.out) == (1, "")
    assert "has no table 'cache'; it has ['crops', 'descriptors', 'images']" in said.err
    assert "dnd_tip" in said.err


def test_people_see_what_fits_a_terminal_best_first(fieldmark, finished_job):
    said = fieldmark("query", finished_job, "a red breast", "-k", "2")
    header, first, *_ = said.out.splitlines()
    assert header.split() == ["similarity", "class", "image", "box", "view", "split"]
    (hit, _) = hits_of(fieldmark("query", finished_job, "a red breast", "-k", "2", "--json"))
    assert "{},{} - {},{}".format(*hit["box"]) in first
    assert hit["image"] in first
    header = fieldmark("query", finished_job, "a red breast", "--table", "images").out.splitlines()[0]
    assert header.split() == ["similarity", "class", "image", "split"]
    header = fieldmark("query", finished_job, "a red breast", "--table", "descriptors").out.splitlines()[0]
    assert header.split() == ["similarity", "class", "text", "set"]


def test_a_page_shows_the_crops_on_their_images_and_says_which_are_gone(fieldmark, finished_job, tmp_path):
    folder = tmp_path / "job"
    shutil.copytree(finished_job.parent, folder, copy_function=shutil.copy2)
    out = tmp_path / "hits.html"
    arguments = ["query", folder / "job.yaml", "a red breast", "--class", "wren", "-k", "50", "--html", out]
    said = fieldmark(*arguments)
    assert (said.status, said.out) == (0, "")
    assert f"wrote 20 rows to {out}" in said.err
    page = out.read_text()
    assert "<h1>a red breast</h1>" in page
    assert page.count("<svg") == 4, "an image a card"
    assert page.count('fill="transparent"') == 20, "a box a crop"
    for hit in FeatureStore.open(load_job(finished_job).store).search("a red breast", class_name="wren", k=50):
        x0, y0, x1, y1 = hit["box"]
        assert f'<rect x="{x0}" y="{y0}" width="{x1 - x0}" height="{y1 - y0}"' in page
    (folder / "photos/test/wren/0.png").unlink()
    os.utime(folder / "photos/test/wren/1.png", ns=(1, 1))
    said = fieldmark(*arguments, "--json")
    assert "answered from the last run" in said.err
    assert len(hits_of(said)) == 20
    assert "cannot be shown: it is not in the data set any more" in out.read_text()
    assert "cannot be shown: it has changed since it was encoded" in out.read_text()
    assert out.read_text().count("<svg") == 2


def test_a_page_for_an_image_shows_it_and_one_of_descriptors_has_no_pictures(fieldmark, finished_job, tmp_path):
    out, image = tmp_path / "hits.html", finished_job.parent / "photos/test/wren/2.png"
    fieldmark("query", finished_job, "--image", image, "--table", "images", "-k", "2", "--html", out)
    assert "<h1>like 2.png</h1>" in out.read_text()
    assert out.read_text().count("<svg") == 3
    fieldmark("query", finished_job, "a beak", "--table", "descriptors", "--html", out)
    assert "<svg" not in out.read_text()
    assert "a red breast" in out.read_text()


@pytest.mark.parametrize("kind", ["tar", "parquet"])
def test_images_in_tars_and_parquet_are_shown(tmp_path, picture, kind):
    file = io.BytesIO()
    Image.fromarray(picture("a")).save(file, "PNG")
    data = file.getvalue()
    if kind == "tar":
        with tarfile.open(tmp_path / "a.tar", "w") as tar:
            member = tarfile.TarInfo("a.png")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
        place = TarMember(str(tmp_path / "a.tar"), "a.png", 512, len(data))
    else:
        pq.write_table(pa.table({"image": [data]}), tmp_path / "a.parquet")
        place = ParquetCell(str(tmp_path / "a.parquet"), "image", 0, 0)
    manifest = pa.table({"key": ["a@1"], "id": ["a"], "version": ["1"], "uri": [format_uri(place)]})
    hit = {"id": "a@1#random#0", "image": "a", "class": "wren", "box": [1, 2, 9, 8], "similarity": 0.5}
    page = hits_page("red", [hit], manifest, lead="")
    assert page.count("<svg") == 1
    assert "no-picture" not in page.partition("<main>")[2]


def test_a_page_takes_any_name_as_text():
    words = dict.fromkeys(("id", "image", "class", "view", "text"), ODD)
    manifest = pa.table({"key": [ODD], "id": [ODD], "version": ["1"], "uri": [f"/{ODD}"]})
    page = hits_page(ODD, [words | {"box": [1, 2, 9, 8], "similarity": 0.5}], manifest, lead=ODD)
    assert "<script" not in page
    assert page.count("&lt;script&gt;") >= 7
