from __future__ import annotations

import pytest

from prompts.descriptor_file import read_descriptor_file


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
    with pytest.raises(ValueError, match=r"ends in \.json, \.yaml, .* or \.feather"):
        read_descriptor_file(write("{}", "marks.txt"))
    with pytest.raises(ValueError, match="not UTF-8"):
        read_descriptor_file(write(b'{"wren": ["\xff"]}'))
