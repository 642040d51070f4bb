"""WaffleCLIP: what is said of every class, and its draws."""

from __future__ import annotations

import json

import pytest

from prompts.words import shipped_words
from prompts.words_at_random import characters_of
from stages.methods import parse_method

NAMES = ["blue jay", "wren", "great blue heron"]
MARKS = [["a blue crest", "grey, 30 cm."], ["brown"], ["long legs"]]


def draw(seed: int = 0, names=NAMES, **settings) -> list[list[str]]:
    return parse_method({"name": "waffle", "seeds": [seed], **settings}).class_prompts(names, MARKS, "sentences")


def test_every_class_gets_the_same_thirty_strings_after_its_name():
    jay, wren, heron = (
        [text.removeprefix(f"A photo of a {name}, which ") for text in texts]
        for name, texts in zip(NAMES, draw(), strict=True)
    )
    assert len(jay) == 30
    assert jay == wren == heron
    assert all(tail.startswith(("has ", "is ", "often", "typically", "may", "can")) for tail in jay)
    assert all(tail.endswith(".") for tail in jay)


def test_words_and_characters_take_turns_and_have_the_lengths_of_the_class_names():
    template = "{class}: {descriptor}"
    drawn = [text.removeprefix("wren: ") for text in draw(template=template)[1]]
    cut = {word[:4] for word in shipped_words()}
    for words, characters in zip(drawn[::2], drawn[1::2], strict=True):
        assert len(words.split(" ")) == 2  # (2 + 1 + 3) / 3
        assert set(words.split(" ")) <= cut  # ((4 + 3) / 2 + 4 + (5 + 4 + 5) / 3) / 3 = 4.06
        blocks = characters.split(", ")
        assert [len(block) for block in blocks] == [
            3,
            3,
        ]  # (1 + 0 + 2) / 3 spaces + 1; tokens of 4, 4 and 5 characters, 5 // 2 + 1
        assert set("".join(blocks)) <= set("abceglmnorstuwy" + "30")


def test_a_draw_depends_on_its_seed_alone():
    assert draw(3) == draw(3)
    assert draw(3) != draw(4)
    alone = parse_method({"name": "waffle", "seeds": [3]})
    assert alone.class_prompts(NAMES, MARKS, "attributes") == draw(3)


def test_there_are_seven_draws_by_default_each_a_method_of_its_own():
    method = parse_method("waffle")
    assert [variant.draw for variant in method.variants()] == list(range(7))
    assert {variant.row_name for variant in method.variants()} == {"waffle"}
    assert method.draw is None
    with pytest.raises(ValueError, match=r"has 7 draws; take one of its variants"):
        method.class_prompts(NAMES, MARKS, "sentences")


def test_the_draws_of_one_set_look_through_its_texts_once():
    characters_of.cache_clear()
    for variant in parse_method("waffle").variants():
        variant.class_prompts(NAMES, [list(marks) for marks in MARKS], "sentences")
    assert characters_of.cache_info().misses == 1
    other = parse_method({"name": "waffle", "seeds": [0], "template": "{descriptor}"})
    assert set("".join(other.class_prompts(["wren"], [["xy"]], "sentences")[0][1::2])) <= set("xy, ")


def test_classes_of_the_same_name_get_the_same_prompts():
    first, second = draw(names=["crane", "crane"])[:2]
    assert first == second


def test_a_concept_says_what_all_classes_are():
    assert all(text.startswith("A photo of a bird: a wren, which ") for text in draw(concept="bird")[1])
    assert draw(concept="{odd}")[1][0].startswith("A photo of a {odd}: a wren, which ")
    with pytest.raises(ValueError, match="`concept` and `template` both say"):
        parse_method({"name": "waffle", "concept": "bird", "template": "{class}, {which}"})


def test_words_come_from_a_file_of_the_user_s(tmp_path):
    (tmp_path / "words.txt").write_text("flibbertigibbet\n\nflib\n")
    (tmp_path / "words.json").write_text(json.dumps(["flibber"]))
    for name in ("words.txt", "words.json"):
        path = str(tmp_path / name)
        assert parse_method({"name": "waffle", "words": path}).paths == {"words": path}
        texts = draw(words=path, template="{class}: {descriptor}")[1]
        assert set(texts[::2]) == {"wren: flib flib"}
    with pytest.raises(ValueError, match=r"none\.txt: cannot be read"):
        draw(words=str(tmp_path / "none.txt"))


def test_with_characters_given_no_descriptors_are_needed():
    method = parse_method({"name": "waffle", "characters": "x y", "seeds": [0], "template": "{class}: {descriptor}"})
    assert not method.needs_descriptors
    texts = method.class_prompts(["wren"], None, "sentences")[0]
    assert all(set(text.removeprefix("wren: ")) <= set("xy") for text in texts[1::2])
    with pytest.raises(ValueError, match="no descriptor set is read; leave out one of the two"):
        parse_method({"name": "waffle", "characters": "xy", "descriptors": "marks"})
    with pytest.raises(ValueError, match="`characters` has none that can be drawn"):
        parse_method({"name": "waffle", "characters": " ,."})


def test_without_descriptors_or_characters_the_settings_that_would_help_are_told():
    with pytest.raises(ValueError, match=r"method 'waffle' draws from the characters of descriptors.*`descriptors`"):
        parse_method({"name": "waffle", "seeds": [0]}).class_prompts(["wren"], None, "sentences")
