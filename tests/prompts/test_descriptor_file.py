from __future__ import annotations

import pytest

from prompts.descriptor_file import descriptors_for, read_descriptor_file


@pytest.fixture
def write(tmp_path):
    def write_file(text: str, name: str = "marks.json"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write_file


def test_json_and_yaml_give_the_same_descriptors_in_the_order_of_the_file(write):
    expected = {"wren": ["a short tail", "brown"], "blue_jay": ["a crest"]}
    json_file = write('{"wren": ["a short tail", "brown"], "blue_jay": ["a crest"]}')
    yaml_file = write("wren:\n  - a short tail\n  - brown\nblue_jay: [a crest]\n", "marks.yaml")
    for path in (json_file, yaml_file):
        read = read_descriptor_file(path)
        assert read == expected
        assert list(read) == ["wren", "blue_jay"]


def test_white_space_around_a_text_and_a_byte_order_mark_are_dropped(write):
    path = write(b'\xef\xbb\xbf{"wren": ["\\n\\nA small bird. "]}')
    assert read_descriptor_file(path) == {"wren": ["A small bird."]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1, 2]", "found a list at the top"),
        ("{}", "has no classes"),
        ('{"wren": "brown"}', "class 'wren' has a string; a list of strings"),
        ('{"wren": {"a": ["b"]}}', "class 'wren' has a mapping"),
        ('{"wren": null}', "class 'wren' has nothing"),
        ('{"wren": []}', "class 'wren' has an empty list"),
        ('{"wren": ["brown", "  "]}', "class 'wren', text 2 is blank"),
        ('{"wren": ["brown", 3]}', "class 'wren', text 2 is int 3"),
        ('{"wren": ["a"], "jay": ["b"], "wren": ["c"]}', "'wren' stands there twice"),
        ('{" ": ["a"]}', "blank name"),
        ('{"wren": ["a"', r"line 1"),
    ],
)
def test_a_wrong_file_is_refused_by_name_with_what_is_wrong_in_it(write, text, message):
    path = write(text)
    with pytest.raises(ValueError, match=message) as refused:
        read_descriptor_file(path)
    assert str(path) in str(refused.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("wren: [a]\nwren: [b]\n", "'wren' stands there twice .*line 2"),
        ("404: [a]\n", "class 404 is int 404; put class names in quotes"),
        ("wren: [a\n", "line"),
        ("", "found nothing at the top"),
        ("wren: !!python/object/apply:os.getcwd []\n", "could not determine a constructor"),
    ],
)
def test_a_wrong_yaml_file_is_refused_too(write, text, message):
    with pytest.raises(ValueError, match=message):
        read_descriptor_file(write(text, "marks.yml"))


def test_a_file_that_is_missing_of_another_kind_or_not_text_is_refused(write, tmp_path):
    with pytest.raises(ValueError, match=r"gone\.json: cannot be read: No such file"):
        read_descriptor_file(tmp_path / "gone.json")
    with pytest.raises(ValueError, match=r"ends in \.json, \.yaml or \.yml"):
        read_descriptor_file(write("{}", "marks.txt"))
    with pytest.raises(ValueError, match="not UTF-8"):
        read_descriptor_file(write(b'{"wren": ["\xff"]}'))


def test_classes_find_their_descriptors_whether_written_with_underscores_or_spaces():
    marks = {"blue_jay": ["a crest"], "house wren": ["brown"], "heron": ["tall"]}
    chosen = descriptors_for(["house_wren", "blue jay"], marks, "marks.json")
    assert chosen.descriptors == {"house_wren": ["brown"], "blue jay": ["a crest"]}
    assert list(chosen.descriptors) == ["house_wren", "blue jay"]
    assert chosen.extra == ["heron"]


def test_classes_without_descriptors_are_named_with_similar_names_of_the_file():
    with pytest.raises(ValueError, match=r"marks\.json: no descriptors for 2 .*'blue jey' \(similar: 'blue_jay'\)"):
        descriptors_for(["blue jey", "wren", "zzz"], {"blue_jay": ["a"], "wren": ["b"]}, "marks.json")


def test_a_long_list_of_missing_classes_is_cut_short():
    with pytest.raises(ValueError, match=r"no descriptors for 9 of the classes: .* and 4 more"):
        descriptors_for([f"class {n}" for n in range(9)], {"wren": ["b"]}, "marks.json")


def test_two_names_that_differ_only_by_underscore_are_refused():
    with pytest.raises(ValueError, match="'blue_jay' and 'blue jay' are the same class"):
        descriptors_for(["blue jay"], {"blue_jay": ["a"], "blue jay": ["b"]}, "marks.json")
