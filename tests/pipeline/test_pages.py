"""Pages: everything shown is escaped, pictures are embedded with their boxes, and nothing is fetched."""

from __future__ import annotations

import io
import re
from base64 import b64decode
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from pipeline.pages import COLOURS, Box, picture_with_boxes, render

ODD = """<script>alert("x")</script> & 'friends'"""


def encoded(pixels: np.ndarray, kind: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


def embedded(picture: str) -> Image.Image:
    (data,) = re.findall(r'href="data:image/jpeg;base64,([^"]+)"', picture)
    return Image.open(io.BytesIO(b64decode(data)))


class Elements(HTMLParser):
    """Every element of a page with its attributes, and its text."""

    def __init__(self, page: str):
        super().__init__()
        self.found: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += data

    def named(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.found if name == tag]


def test_boxes_are_drawn_in_pixels_of_the_image_over_its_picture():
    picture = picture_with_boxes(
        encoded(np.full((50, 80, 3), 200, np.uint8)),
        [Box((10, 20, 30, 50), label="1", title="a beak"), Box((0, 0, 80, 50), colour="#123456")],
        longest_side=40,
    )
    (svg,), rects = (Elements(picture).named(tag) for tag in ("svg", "rect"))
    assert (svg["viewbox"], svg["width"], svg["height"]) == ("0 0 80 50", "40", "25")
    places = [
        tuple(rect[name] for name in ("x", "y", "width", "height", "stroke")) for rect in rects if "stroke" in rect
    ]
    assert places[1] == ("10", "20", "20", "30", COLOURS[0])
    assert places[3] == ("0", "0", "80", "50", "#123456")
    assert "<title>a beak</title>" in picture
    assert embedded(picture).size == (80, 50)


def test_a_large_picture_is_embedded_no_larger_than_a_fine_screen_shows_it():
    picture = picture_with_boxes(encoded(np.zeros((600, 1000, 3), np.uint8)), [], longest_side=100)
    assert embedded(picture).size == (200, 120)
    assert 'viewBox="0 0 1000 600"' in picture


def test_a_picture_stands_upright_as_the_encoder_sees_it():
    pixels = np.zeros((20, 40, 3), np.uint8)
    pixels[:, :20] = 255
    turned = Image.Exif()
    turned[0x0112] = 6
    picture = picture_with_boxes(encoded(pixels, "JPEG", quality=95, exif=turned.tobytes()), [])
    shown = np.asarray(embedded(picture))
    assert shown.shape == (40, 20, 3)
    assert shown[:15].mean() > 240
    assert shown[25:].mean() < 15


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (FileNotFoundError(2, "No such file or directory", "/a/<b>.jpg"), "cannot be shown: No such file or directory"),
        (OSError("<it> has more than the 5 that are read"), "cannot be shown: &lt;it&gt; has more"),
        (b"", "no picture: the file is empty"),
        (b"no picture", "no picture: not an image"),
    ],
)
def test_a_picture_that_is_not_to_be_had_becomes_a_card_that_says_so(data, reason):
    picture = picture_with_boxes(data, [Box((0, 0, 1, 1))])
    assert 'class="no-picture"' in picture
    assert reason in picture
    assert "<svg" not in picture


def test_names_on_a_page_are_text_whatever_they_hold():
    picture = picture_with_boxes(encoded(np.zeros((9, 9, 3), np.uint8)), [Box((0, 0, 5, 5), label=ODD, title=ODD)])
    hits = [{"rank": 1, "colour": ODD, "similarity": ODD, "facts": [(ODD, ODD)]}]
    cards = [{"picture": picture, "image": ODD, "class_name": ODD, "hits": hits}]
    page = render("hits.html.j2", asked=ODD, lead=ODD, picture=None, cards=cards)
    elements = Elements(page)
    assert elements.named("script") == []
    assert elements.text.count(ODD) == 10  # title, heading and lead, two of the picture, image, class, three of a hit
    assert elements.named("span")[0]["style"] == f"background: {ODD}"
    assert len(elements.named("svg")) == 1


def test_a_page_fetches_nothing_and_runs_nothing():
    picture = picture_with_boxes(encoded(np.zeros((9, 9, 3), np.uint8)), [])
    cards = [{"picture": picture, "image": "a", "class_name": "wren", "hits": []}]
    page = render("hits.html.j2", asked="a beak", lead="", picture=picture, cards=cards)
    elements = Elements(page)
    (policy,) = [meta["content"] for meta in elements.named("meta") if "http-equiv" in meta]
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    links = [value for _, attributes in elements.found for name, value in attributes.items() if name in ("href", "src")]
    assert [link for link in links if not link.startswith("data:")] == []


def test_a_value_that_a_template_reads_and_nobody_gave_is_an_error():
    from jinja2 import UndefinedError

    with pytest.raises(UndefinedError, match="cards"):
        render("hits.html.j2", asked="a beak", lead="", picture=None)
