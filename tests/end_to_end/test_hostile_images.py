"""A folder of hostile and damaged files among good ones with difficult names: the job ends, and says what it left."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.job_file import load_job
from pipeline.plan import make_plan
from pipeline.predict import stored_predictions

from ..stages.vision.image_files import bmp, chunk, encoded, many_scans, plain, png, tiff
from .conftest import run

GOOD = [
    "with spaces and (brackets).jpg",
    'it\'s "quoted" & <b>.png',
    "line\nbreak.webp",
    "grüße 日本語 🐦.tif",
    "per%20cent #1?.bmp",
    "-dash; rm *.gif",
    "wrong suffix, a PNG.jpg",
    "UPPER.JPG",
]
KINDS = {".jpg": "JPEG", ".png": "PNG", ".webp": "WEBP", ".tif": "TIFF", ".bmp": "BMP", ".gif": "GIF"}
ONE_GREY = {256: [1], 257: [30_000], 258: [8], 262: [1], 277: [1], 278: [1]}


def good(name: str) -> bytes:
    """A picture of its own, in the format of the suffix unless the name says otherwise."""
    rng = np.random.default_rng(list(name.encode()))
    image = Image.fromarray(rng.integers(0, 256, (3, 4, 3), np.uint8)).resize((48, 36), Image.Resampling.BICUBIC)
    return encoded(image, "PNG" if "a PNG" in name else KINDS[Path(name).suffix.lower()])


def hostile() -> dict[str, bytes]:
    """File name -> bytes that are no picture, not a whole one, or too much work."""
    files = {
        "empty.jpg": b"",
        "page.jpg": b"<!DOCTYPE html><title>404</title>",
        "script.png": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        "svg.png": b'<svg xmlns="http://www.w3.org/2000/svg"/>',
        "zeros.bmp": bytes(5000),
        "signature.png": b"\x89PNG\r\n\x1a\n",
        "bomb.png": png(60_000, 60_000, 8, 2, []),
        "scans.jpg": many_scans(2000, 1500, 2000),
        "chunks.png": png(1, 1, 8, 0, [b"\0"], chunk(b"fiEl", b"") * 30_000),
        "strips.tif": tiff(ONE_GREY, [b"\0"] * 30_000),
        "declared.tif": b"MM" + struct.pack(">HIHHHII", 42, 8, 1, 273, 3, 1 << 31, 0),
        "tiles.tif": tiff(ONE_GREY | {322: [60_000], 323: [60_000]}, [b"\0"]),
        "runs.bmp": bmp(9000, 9000, 8, [(0, 0, 0)], b"\0\1", method=1),
        "header.bmp": encoded(plain(), "BMP")[:18] + struct.pack("<II", 30_000, 5_000) + bytes(40),
    }
    for suffix, kind in KINDS.items():
        whole = encoded(Image.effect_noise((60, 40), 60).convert("RGB"), kind)
        for share in (2, 30, 60, 90):
            files[f"ends at {share} %{suffix}"] = whole[: len(whole) * share // 100]
    return files


@pytest.fixture
def folder(ray, tmp_path, tiny_model, write_job) -> Path:
    photos = tmp_path / "photos"
    (photos / "wren").mkdir(parents=True)
    (photos / "blue jay").mkdir()
    for number, name in enumerate(GOOD):
        (photos / ("wren", "blue jay")[number % 2] / name).write_bytes(good(name))
    for name, data in hostile().items():
        (photos / "wren" / name).write_bytes(data)
    (tmp_path / "marks.json").write_text(json.dumps({"wren": ["a short tail"], "blue jay": ["a blue crest"]}))
    write_job(
        tmp_path,
        dataset={"path": "photos"},
        model={"name": f"local-dir:{tiny_model}"},
        descriptors={"marks": {"provider": "file", "path": "marks.json"}},
        views={"random": {"kind": "random", "crops": 2}},
        methods=["clip"],
        max_rejects=1.0,
        resources={"encode": {"batch": 5, "actors": 1}},
    )
    return tmp_path


def test_a_job_over_hostile_files_ends_with_every_good_one_encoded_and_a_reason_for_every_other(folder):
    first = run(folder)
    plan = make_plan(load_job(folder / "job.yaml"))
    assert {Path(row["image"]).name for row in stored_predictions(plan, ["clip"], 1)} == set(GOOD)
    rejected = {Path(row["uri"]).name: row["reason"] for row in plan.rejects}
    assert set(rejected) == set(hostile())
    assert all(len(reason) > 8 and "\n" not in reason for reason in rejected.values())
    assert "2010 scans" in rejected["scans.jpg"]
    assert first["encode_images"] >= len(GOOD)
    assert all(count == 0 for count in run(folder).values()), "neither good nor bad files are tried again"
