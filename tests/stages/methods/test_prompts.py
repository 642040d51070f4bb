"""What methods have the text tower read: sentences, completed attributes, templates."""

from __future__ import annotations

import pytest

from stages.methods import ZERO_SHOT, parse_method

PROMPTED = ["clip_d", "clip_d_wca", "cupl", "crops_mean", "dnd", "abs"]
DESCRIBED = [*PROMPTED, "wca"]
TEMPLATES = {"clip_d": "{class}, {which}", "clip_d_wca": "{class}, {which}"}


def test_clip_says_the_class_name_once_and_reads_no_descriptors():
    assert parse_method("clip").prompts("blue_jay", None, "sentences") == ["a photo of a blue jay."]
    assert parse_method({"name": "clip", "template": "a {class}, a bird."}).prompts("jay", ["x"], "attributes") == [
        "a jay, a bird."
    ]


def test_clip_e_says_the_name_in_every_template_of_its_set():
    method = parse_method({"name": "clip_e", "templates": "cub"})
    assert method.prompts("blue_jay", None, "sentences") == ["a photo of a blue jay, a type of bird."]
    assert len(parse_method({"name": "clip_e", "templates": "imagenet"}).prompts("jay", None, "sentences")) == 80
    general = parse_method("clip_e").class_prompts(["blue_jay", "wren"], None, "sentences")
    assert general[0][0] == "a photo of a blue jay."
    assert len(set(general[1])) == len(general[0]) > 5


def test_clip_e_and_cupl_read_templates_from_a_file_of_the_user_s(tmp_path):
    path = str(tmp_path / "mine.txt")
    (tmp_path / "mine.txt").write_text("a {class} in a tree.\nmy {}\n")
    method = parse_method({"name": "clip_e", "templates": path})
    assert method.paths == {"templates": path}
    assert method.prompts("jay", None, "sentences") == ["a jay in a tree.", "my jay"]
    pooled = parse_method({"name": "cupl", "with_templates": path})
    assert pooled.paths == {"with_templates": path}
    assert pooled.prompts("jay", ["A jay."], "sentences") == ["A jay.", "a jay in a tree.", "my jay"]
    assert parse_method("clip_e").paths == parse_method("cupl").paths == parse_method("dnd").paths == {}


def test_cupl_pools_the_templates_of_a_shipped_set_with_its_sentences():
    method = parse_method({"name": "cupl", "with_templates": "places"})
    assert method.class_prompts(["jay"], [["A jay."]], "sentences") == [
        ["A jay.", "a photo of a jay.", "a photo of the jay."]
    ]


@pytest.mark.parametrize("name", PROMPTED)
def test_sentences_stay_as_they_are_and_attributes_are_completed(name):
    method = parse_method(name)
    assert method.prompts("blue_jay", ["A jay.", "Its {crest}."], "sentences") == ["A jay.", "Its {crest}."]
    completed = TEMPLATES.get(name, "a photo of a {class}, {which}.")
    completed = completed.replace("{class}", "blue jay").replace("{which}", "which is a crest")
    assert method.prompts("blue_jay", ["a crest"], "attributes") == [completed]


@pytest.mark.parametrize("name", DESCRIBED)
def test_a_template_without_the_class_says_the_descriptor_alone(name):
    method = parse_method({"name": name, "template": "{descriptor}"})
    assert method.prompts("blue_jay", ["a crest", "blue"], "attributes")[-2:] == ["a crest", "blue"]


@pytest.mark.parametrize("name", DESCRIBED)
def test_a_template_without_the_descriptor_says_the_class_once_however_many_there_are(name):
    method = parse_method({"name": name, "template": "a {class}."})
    found = method.class_prompts(["jay", "wren"], [["a crest", "blue"], ["brown"]], "attributes")
    assert [[text for text in texts if "photo" not in text] for texts in found] == [["a jay."], ["a wren."]]


@pytest.mark.parametrize("name", DESCRIBED)
def test_max_descriptors_reads_the_first_ones_of_every_class(name):
    method = parse_method({"name": name, "max_descriptors": 2})
    found = method.class_prompts(["jay", "wren"], [["A.", "B.", "C."], ["D."]], "sentences")
    assert [[text for text in texts if "photo" not in text] for texts in found] == [["A.", "B."], ["D."]]


@pytest.mark.parametrize("name", DESCRIBED)
@pytest.mark.parametrize("descriptors", [None, []])
def test_a_class_without_descriptors_is_refused_with_the_setting_that_would_help(name, descriptors):
    with pytest.raises(ValueError, match=f"method '{name}' has no descriptors for class 'jay'.*`descriptors`"):
        parse_method(name).prompts("jay", descriptors, "sentences")
    with pytest.raises(ValueError, match=f"method '{name}' has no descriptors for class 'jay'"):
        parse_method(name).class_prompts(["jay"], None if descriptors is None else [[]], "sentences")


@pytest.mark.parametrize("name", ZERO_SHOT)
def test_two_classes_of_one_name_have_prompts_of_their_own_descriptors(name):
    method = parse_method(name).variants()[0]
    first, second = method.class_prompts(["crane", "crane"], [["A bird."], ["A machine."]], "sentences")
    if name in DESCRIBED:
        assert (first[-1], second[-1]) == ("A bird.", "A machine.")
    else:
        assert first == second


@pytest.mark.parametrize("name", ZERO_SHOT)
def test_prompts_of_one_class_alone_are_the_first_of_class_prompts(name):
    method = parse_method(name).variants()[0]
    assert method.prompts("jay", ["A."], "sentences") == method.class_prompts(["jay"], [["A."]], "sentences")[0]
