"""Templates: the sets that ship are the published ones, and a file of the user's own is read or refused."""

from __future__ import annotations

import json

import pytest

from prompts.phrasing import check_template, phrase
from prompts.templates import check_templates, filled_templates, is_path, read_templates, shipped_templates

ONE_EACH = ["cub", "pets", "food", "flowers", "aircraft", "cars", "caltech", "sun", "ucf"]
SETS = ["general", "imagenet", "imagenet_7", *ONE_EACH, "dtd", "places", "eurosat"]


def test_the_sets_that_ship_are_those_of_the_papers_data_sets_and_a_general_one():
    assert list(shipped_templates()) == SETS
    several = {"imagenet": 80, "imagenet_7": 7, "dtd": 8, "places": 2, "eurosat": 3, "general": 14}
    counts = {name: len(templates) for name, templates in shipped_templates().items()}
    assert counts == several | dict.fromkeys(ONE_EACH, 1)


@pytest.mark.parametrize("name", SETS)
def test_every_template_that_ships_says_the_class_once_in_its_own_words(name):
    templates = read_templates(name)
    assert len(set(templates)) == len(templates)
    for template in templates:
        assert check_template(template, ("class",)).count("{class}") == 1
        assert template.endswith(".")


@pytest.mark.parametrize(
    ("name", "published"), [("imagenet", "OPENAI_IMAGENET_TEMPLATES"), ("imagenet_7", "SIMPLE_IMAGENET_TEMPLATES")]
)
def test_the_imagenet_sets_are_those_that_openai_published(name, published):
    zero_shot_metadata = pytest.importorskip("open_clip.zero_shot_metadata")
    expected = [template("tench") for template in getattr(zero_shot_metadata, published)]
    assert [phrase(template, "tench") for template in read_templates(name)] == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cub", "a photo of a blue jay, a type of bird."),
        ("food", "a photo of blue jay, a type of food."),
        ("ucf", "a photo of a person doing blue jay."),
        ("eurosat", "a centered satellite photo of blue jay."),
        ("dtd", "a photo of a blue jay texture."),
    ],
)
def test_the_first_template_of_a_set_is_as_published(name, expected):
    assert phrase(read_templates(name)[0], "blue_jay") == expected


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("mine.txt", "a {class} in a tree.\n\n  my {}\n"),
        ("mine.json", json.dumps(["a {class} in a tree.", "my {}"], indent="\t")),
        ("mine.yaml", "- a {class} in a tree.\n- my {}\n"),
    ],
)
def test_a_file_of_templates_is_read_with_empty_braces_for_the_class(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    assert read_templates(str(tmp_path / name)) == ["a {class} in a tree.", "my {class}"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("mine.txt", "\n \n", "has no templates"),
        ("mine.txt", "a bird\n", "no variable"),
        ("mine.txt", "a {which}\n", r"has \{which\}; allowed: \{class\}"),
        ("mine.json", "{}", "holds no list; a list of templates is wanted"),
        ("mine.json", "[1]", "1 among the templates is no text; put it in quotes"),
        ("mine.json", "[", "a list of templates is wanted"),
        ("mine.yaml", "- [", "a list of templates is wanted"),
        ("mine.txt", b"\xff\xfe{", "is not UTF-8 text"),
        ("mine.csv", "a {class}\n", "a file of templates ends in .txt"),
    ],
)
def test_a_wrong_file_of_templates_is_refused_by_name(tmp_path, name, text, message):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=message) as refused:
        read_templates(str(path))
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_file_that_is_not_there_is_told_by_its_name(tmp_path):
    with pytest.raises(ValueError, match=r"none\.txt: cannot be read: No such file"):
        read_templates(str(tmp_path / "none.txt"))


def test_a_name_that_is_no_set_is_refused_with_the_nearest_one_and_all_there_are():
    with pytest.raises(
        ValueError, match=r"no templates are called 'imagnet'; did you mean 'imagenet'\? there are general, "
    ):
        check_templates("imagnet")
    with pytest.raises(ValueError, match="no templates are called 'birds'; there are general"):
        read_templates("birds")


def test_a_file_is_told_from_a_set_by_its_ending_or_folder():
    assert not any(is_path(name) for name in SETS)
    assert all(is_path(name) for name in ("mine.txt", "./mine", "folder/mine", "folder\\mine"))
    assert check_templates("mine.txt") == "mine.txt"


def test_templates_around_a_name_are_what_is_said_of_a_class_where_nothing_else_is_known(tmp_path):
    (tmp_path / "mine.txt").write_text("a drawing of a {}.\n{class}, seen from afar\n")
    assert filled_templates(str(tmp_path / "mine.txt"), ["blue_jay", "wren"]) == {
        "blue_jay": ["a drawing of a blue jay.", "blue jay, seen from afar"],
        "wren": ["a drawing of a wren.", "wren, seen from afar"],
    }
    assert filled_templates("cub", ["wren"]) == {"wren": ["a photo of a wren, a type of bird."]}
