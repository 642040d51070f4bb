"""Classes find their descriptors by exact names, or by those that an alias file gives them."""

from __future__ import annotations

import pytest

from prompts.descriptor_names import descriptors_for, read_aliases

MARKS = {"blue_jay": ["a crest"], "house wren": ["brown"], "heron": ["tall"]}


@pytest.fixture
def aliases(tmp_path):
    """`aliases(text)` -> what an alias file of this text says."""

    def read(text: str, name: str = "names.yaml"):
        (tmp_path / name).write_text(text)
        return read_aliases(tmp_path / name)

    return read


def test_classes_find_their_descriptors_whether_written_with_underscores_or_spaces():
    chosen = descriptors_for(["house_wren", "blue jay"], MARKS, "marks.json")
    assert chosen.descriptors == {"house_wren": ["brown"], "blue jay": ["a crest"]}
    assert list(chosen.descriptors) == ["house_wren", "blue jay"]
    assert chosen.extra == ["heron"]


def test_a_class_with_an_alias_takes_the_descriptors_of_that_name_and_the_others_their_own(aliases):
    known = aliases('{"Cyanocitta_cristata": "blue jay", "wren": "house_wren"}', "names.json")
    chosen = descriptors_for(["wren", "heron", "Cyanocitta cristata"], MARKS, "marks.json", known)
    assert chosen.descriptors == {"wren": ["brown"], "heron": ["tall"], "Cyanocitta cristata": ["a crest"]}
    assert chosen.extra == []


def test_classes_without_descriptors_are_named_with_similar_names_of_the_file():
    with pytest.raises(ValueError, match=r"marks\.json: no descriptors for 2 .*'blue jey' \(similar: 'blue_jay'\)"):
        descriptors_for(["blue jey", "wren", "zzz"], {"blue_jay": ["a"], "wren": ["b"]}, "marks.json")


def test_a_long_list_of_missing_classes_is_cut_short():
    with pytest.raises(ValueError, match=r"no descriptors for 9 of the classes: .* and 4 more"):
        descriptors_for([f"class {n}" for n in range(9)], {"wren": ["b"]}, "marks.json")


def test_two_names_that_differ_only_by_underscore_are_refused():
    with pytest.raises(ValueError, match="'blue_jay' and 'blue jay' are the same class"):
        descriptors_for(["blue jay"], {"blue_jay": ["a"], "blue jay": ["b"]}, "marks.json")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("wern: heron\n", r"names\.yaml: the data set has no class 'wern' \(similar: 'wren'\)"),
        ("wren: hron\n", r"names\.yaml: marks\.json has no class 'hron' \(similar: 'heron'\)"),
        ("{blue jay: heron, blue_jay: heron}\n", r"names\.yaml: 'blue jay' and 'blue_jay' are the same class"),
        ("wren: heron\nwren: blue_jay\n", r"names\.yaml: .*'wren' stands there twice"),
        ("- wren\n", r"names\.yaml: found a list at the top; an alias file is \{class of the data set"),
        ("wren: 404\n", r"names\.yaml: 'wren' leads to 404; both are names"),
        ("wren: ''\n", r"names\.yaml: 'wren' leads to ''; both are names"),
    ],
)
def test_an_alias_that_leads_nowhere_is_told_with_names_like_it(aliases, text, message):
    with pytest.raises(ValueError, match=message):
        descriptors_for(["wren", "blue jay"], MARKS | {"wren": ["small"]}, "marks.json", aliases(text))


def test_an_alias_file_that_is_missing_or_of_another_kind_is_told(tmp_path):
    with pytest.raises(ValueError, match=r"gone\.json: cannot be read: No such file"):
        read_aliases(tmp_path / "gone.json")
    with pytest.raises(ValueError, match=r"names\.csv: should end in \.json, \.yaml or \.yml; an alias file is"):
        read_aliases(tmp_path / "names.csv")
