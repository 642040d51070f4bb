"""Class names: a label finds its class by name, or by its place in a list, and what does not fit is told."""

from __future__ import annotations

import pytest

from stages.class_names import name_labels, read_class_names
from stages.dataset import DatasetError, FolderDataset, TableDataset, TorchvisionDataset
from stages.datasets.listing import Listing
from stages.manifest import read_manifest


def read(folder, **settings):
    return read_manifest(FolderDataset(path=str(folder), **settings))


def rows(folder, **settings) -> list[tuple[str, str, str | None]]:
    return [(row["id"], row["split"], row["class"]) for row in read(folder, **settings)[0].to_pylist()]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("names.txt", "tench\ngreat white shark\n"),
        ("names.yaml", "- tench\n- great white shark\n"),
        ("names.json", '["tench", "great white shark"]'),
    ],
)
def test_a_list_of_classes_names_its_own_folders_where_a_space_may_be_an_underscore(images, tmp_path, name, text):
    folder = images("tench/a.png", "great_white_shark/b.png")
    (tmp_path / name).write_text(text)
    table, classes = read(folder, classes=str(tmp_path / name))
    assert tuple(classes) == ("tench", "great white shark")
    assert table["class"].to_pylist() == ["great white shark", "tench"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("names.yml", "n01440764: tench\nn01484850: great white shark\nn99: never seen\n"),
        ("names.json", '{"n01440764": "tench", "n01484850": "great white shark", "n99": "never seen"}'),
    ],
)
def test_a_mapping_of_classes_names_folders_and_classes_without_images_stay(images, tmp_path, name, text):
    folder = images("n01484850/a.png", "n01440764/b.png")
    (tmp_path / name).write_text(text)
    table, classes = read(folder, classes=str(tmp_path / name))
    assert tuple(classes) == ("tench", "great white shark", "never seen")
    assert table["class"].to_pylist() == ["tench", "great white shark"]


def test_a_folder_is_named_by_its_exact_name_before_one_that_differs_in_an_underscore(images, tmp_path):
    (tmp_path / "names.yaml").write_text('a_b: X\n"a b": Y\nc_d_e: Z\n"c d e": Z\n')
    folder = images("a_b/1.png", "a b/2.png", "c_d e/3.png")
    found = {identity: label for identity, _, label in rows(folder, classes=str(tmp_path / "names.yaml"))}
    assert found == {"a_b/1.png": "X", "a b/2.png": "Y", "c_d e/3.png": "Z"}


def test_a_folder_that_two_names_fit_alike_is_refused_where_they_are_different_classes(images, tmp_path):
    (tmp_path / "names.yaml").write_text('a_b_c: X\n"a b c": Y\n')
    with pytest.raises(DatasetError, match=r"dataset\.classes: the folder 'a_b c' .* 'a_b_c' or 'a b c' .*exactly"):
        read(images("a_b c/1.png"), classes=str(tmp_path / "names.yaml"))


def test_two_folders_may_hold_one_class(images, tmp_path):
    (tmp_path / "names.yaml").write_text("n1: wren\nn2: wren\n")
    table, classes = read(images("n1/a.png", "n2/b.png"), classes=str(tmp_path / "names.yaml"))
    assert (table["class"].to_pylist(), tuple(classes)) == (["wren", "wren"], ("wren",))


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("names.txt", b"wren\n", r"does not name the folders jay of"),
        (
            "names.txt",
            b"wren\njay\nwren\n",
            r"the folder 'wren' .* may be 'wren \(0\)' or 'wren \(2\)'.*different classes",
        ),
        ("names.txt", b"wren\nwren\nwren (0)\njay\n", r"told apart as 'wren \(0\)'; rename"),
        ("names.txt", b"", r"one a line, or a mapping"),
        ("names.txt", b"caf\xe9\n", r"names\.txt is not UTF-8"),
        ("names.yaml", b"- 1\n- 2\n", r"one a line, or a mapping"),
        ("names.yaml", b"a: 1\n", r"one a line, or a mapping"),
        ("names.yaml", b"wren: [", r"not valid YAML"),
        ("names.yaml", b"wren: a\nwren: b\n", r"'wren' stands there twice"),
        ("names.json", b"{'", r"not valid YAML or JSON"),
    ],
)
def test_a_class_file_that_does_not_fit_is_told(images, tmp_path, name, content, words):
    folder = images("wren/a.png", "jay/b.png")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DatasetError, match=r"dataset\.classes: .*" + words) as raised:
        read(folder, classes=str(tmp_path / name))
    assert "\n" not in str(raised.value)


def test_folders_that_are_numbers_are_places_in_a_list_and_not_in_alphabetical_order(images, tmp_path):
    (tmp_path / "names.txt").write_text("\n".join(f"bird {letter}" for letter in "abcdefghijk"))
    folder = images("0/a.png", "2/b.png", "10/c.png")
    expected = {"0/a.png": "bird a", "2/b.png": "bird c", "10/c.png": "bird k"}
    assert {identity: label for identity, _, label in rows(folder, classes=str(tmp_path / "names.txt"))} == expected
    variant = TorchvisionDataset(name="ImageFolder", root=str(folder), classes=str(tmp_path / "names.txt"))
    table, classes = read_manifest(variant)
    assert dict(zip(table["id"].to_pylist(), table["class"].to_pylist(), strict=True)) == expected
    assert len(classes) == 11
    (tmp_path / "names.txt").write_text("bird a\nbird b\n")
    with pytest.raises(DatasetError, match=r"has 2 names, and .* the folder 10 \(numbers count from 0\)"):
        read(folder, classes=str(tmp_path / "names.txt"))


def test_numbers_that_are_names_themselves_are_taken_by_name(images, tmp_path):
    (tmp_path / "names.txt").write_text("7\n8\n")
    assert [label for *_, label in rows(images("7/a.png", "8/b.png"), classes=str(tmp_path / "names.txt"))] == [
        "7",
        "8",
    ]


def test_a_mapping_may_be_of_numbers(images, tmp_path):
    (tmp_path / "names.yaml").write_text("0: tench\n1: wren\n")
    assert rows(images("1/a.png"), classes=str(tmp_path / "names.yaml")) == [("1/a.png", "query", "wren")]


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("0/a.png", "1/b.png"), r"are numbers \(0, 1\); name the classes in a file, one a line"),
        (("n01440764/a.png", "n02012849/b.png"), r"are WordNet ids \(n01440764, n02012849\); name .*n01440764: tench"),
    ],
)
def test_folders_that_are_numbers_or_wordnet_ids_are_no_names_for_a_prompt(images, names, words):
    folder = str(images(*names))
    for dataset in (TorchvisionDataset(name="ImageFolder", root=folder), FolderDataset(path=folder)):
        with pytest.raises(DatasetError, match=r"dataset\.classes: the folders of .* " + words):
            read_manifest(dataset)


@pytest.mark.parametrize("unknown", ["-1", "-07"])
@pytest.mark.parametrize("name", ["set.csv", "set.jsonl"])
def test_a_negative_label_of_a_table_says_that_it_is_not_known(tmp_path, name, unknown):
    (tmp_path / "names.txt").write_text("wren\njay\n")
    lines = [f'{{"uri": "{label}.png", "label": "{label}"}}' for label in ("1", "0", unknown)]
    csv = "uri,label\n" + "".join(f"{label}.png,{label}\n" for label in ("1", "0", unknown))
    (tmp_path / name).write_text(csv if name == "set.csv" else "\n".join(lines))
    with pytest.raises(DatasetError, match=r"are numbers \(0, 1\)"):
        read_manifest(TableDataset(path=str(tmp_path / name)))
    table, classes = read_manifest(TableDataset(path=str(tmp_path / name), classes=str(tmp_path / "names.txt")))
    assert table["class"].to_pylist() == [None, "wren", "jay"]
    assert tuple(classes) == ("wren", "jay")


def test_numbered_labels_without_names_are_refused(tmp_path):
    (tmp_path / "set.csv").write_text("uri,label\na.png,0\nb.png,1\n")
    with pytest.raises(DatasetError, match=r"dataset\.classes: the labels of .*set\.csv are numbers \(0, 1\); name"):
        read_manifest(TableDataset(path=str(tmp_path / "set.csv")))


def test_a_list_that_names_two_classes_alike_keeps_them_apart_by_their_places(images, tmp_path):
    (tmp_path / "names.txt").write_text("missile\ntench\nmissile\nblue_jay\nblue jay\n")
    table, classes = read(images("0/a.png", "2/b.png", "4/c.png"), classes=str(tmp_path / "names.txt"))
    assert table["class"].to_pylist() == ["missile (0)", "missile (2)", "blue jay (4)"]
    assert classes == {
        "missile (0)": "missile",
        "tench": "tench",
        "missile (2)": "missile",
        "blue_jay (3)": "blue jay",
        "blue jay (4)": "blue jay",
    }


def test_a_list_whose_names_are_the_data_sets_own_goes_by_place_where_two_are_called_alike(tmp_path):
    (tmp_path / "names.txt").write_text("crane\ntench\ncrane\n")
    own = Listing([], "there", "", own={"n1": "crane", "n2": "tench", "n3": "crane"})
    found, classes = name_labels(["n1", "n3"], read_class_names(str(tmp_path / "names.txt")), own)
    assert found == {"n1": "crane (0)", "n3": "crane (2)"}
    assert classes == {"crane (0)": "crane", "tench": "tench", "crane (2)": "crane"}


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("names.txt", "wren\n_\n", r"names number 1 \(from 0\) '_', which is blank where `_` is a space"),
        ("names.json", '["wren", " "]', r"names number 1 \(from 0\) ' ', which is blank"),
        ("names.yaml", "0: wren\n1: __\n", r"names '1' '__', which is blank"),
        ("names.yaml", 'wren: wren\njay: ""\n', r"names 'jay' '', which is blank"),
    ],
)
def test_a_file_that_gives_a_class_a_blank_name_is_refused_with_the_class(tmp_path, name, text, words):
    (tmp_path / name).write_text(text)
    with pytest.raises(DatasetError, match=rf"^score\.classes: .*{name} {words}"):
        read_class_names(str(tmp_path / name), key="score.classes")


def test_a_folder_whose_name_is_blank_as_it_is_spoken_is_refused_unless_a_file_names_it(images, tmp_path):
    folder = images("_/a.png", "wren/b.png")
    with pytest.raises(
        DatasetError, match=r"dataset\.classes: .*/set names the folder '_' '_', which is blank .* words"
    ):
        read(folder)
    (tmp_path / "names.yaml").write_text("_: jay\nwren: wren\n")
    assert list(read(folder, classes=str(tmp_path / "names.yaml"))[1]) == ["jay", "wren"]


def test_a_blank_name_of_the_data_sets_own_is_refused_with_its_label():
    with pytest.raises(DatasetError, match=r"dataset: there names the label '1' '_', which is blank"):
        name_labels(["0"], None, Listing([], "there", "", own={"0": "wren", "1": "_"}))
