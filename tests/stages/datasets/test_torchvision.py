"""Data sets as torchvision lays them out: the same images, labels, classes and splits as torchvision's own classes."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile

import numpy as np
import pytest
import scipy.io
import torch
from torchvision import datasets as oracles

from stages.dataset import DatasetError, SplitNames, TorchvisionDataset
from stages.datasets.imagenet import plain_value
from stages.manifest import read_manifest
from storage.blobs import read_blobs

WNIDS = {"n01440764": ("tench", "Tinca tinca"), "n02012849": ("crane",), "n03126707": ("crane",)}


def put(root, files: dict[str, str | bytes]):
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())


def images(root, names):
    put(root, {name: f"bytes of {name}" for name in names})


def dtd(root):
    images(root, [f"dtd/dtd/images/{name}.jpg" for name in ("banded/b_1", "banded/b_2", "polka-dotted/p_1")])
    put(root, {"dtd/dtd/labels/test1.txt": "polka-dotted/p_1.jpg\nbanded/b_1.jpg\n",
               "dtd/dtd/labels/train1.txt": "banded/b_2.jpg\n", "dtd/dtd/labels/val1.txt": ""})  # fmt: skip


def flowers(root):
    images(root, [f"flowers-102/jpg/image_0000{number}.jpg" for number in range(1, 7)])
    scipy.io.savemat(root / "flowers-102/imagelabels.mat", {"labels": np.array([[102, 1, 77, 1, 5, 6]], np.uint8)})
    splits = {"trnid": [[4, 6]], "valid": [[2, 5]], "tstid": [[3, 1]]}
    scipy.io.savemat(root / "flowers-102/setid.mat", {name: np.array(ids, np.uint16) for name, ids in splits.items()})


def food(root):
    names = {
        "test": {"apple_pie": ["apple_pie/1"], "waffles": ["waffles/3", "waffles/2"]},
        "train": {"waffles": ["waffles/4"]},
    }
    for split, found in names.items():
        put(root, {f"food-101/meta/{split}.json": json.dumps(found)})
        images(root, [f"food-101/images/{name}.jpg" for listed in found.values() for name in listed])


def pets(root):
    lists = {"test": ["yorkshire_terrier_1 3 2 1", "american_bulldog_2 2 2 1", "Abyssinian_9 1 1 1"],
             "trainval": ["Abyssinian_1 1 1 1"]}  # fmt: skip
    for split, lines in lists.items():
        put(root, {f"oxford-iiit-pet/annotations/{split}.txt": "\n".join(lines) + "\n"})
        images(root, [f"oxford-iiit-pet/images/{line.split()[0]}.jpg" for line in lines])


def aircraft(root):
    data = "fgvc-aircraft-2013b/data"
    put(root, {f"{data}/variants.txt": "Boeing 707\n737-200\nAn-12\n",
               f"{data}/images_variant_test.txt": "0034309 An-12\n1340192 Boeing 707\n",
               f"{data}/images_variant_train.txt": "0000001 737-200\n",
               f"{data}/images_variant_val.txt": "0000002 An-12\n"})  # fmt: skip
    images(root, [f"{data}/images/{name}.jpg" for name in ("0034309", "1340192", "0000001", "0000002")])


def eurosat(root):
    images(root, [f"eurosat/2750/{name}.jpg" for name in ("River/River_1", "AnnualCrop/AnnualCrop_2", "River/River_2")])


def caltech(root):
    folder = "caltech101/101_ObjectCategories"
    images(root, [f"{folder}/{name}.jpg" for name in ("Faces_easy/image_0001", "ant/image_0001", "ant/image_0002")])
    images(root, [f"{folder}/BACKGROUND_Google/image_0001.jpg"])
    (root / "caltech101/Annotations").mkdir()


def sun(root):
    put(root, {"SUN397/ClassName.txt": "/a/abbey\n/a/apartment_building/outdoor\n/z/zoo\n"})
    images(
        root, [f"SUN397/a/{name}.jpg" for name in ("abbey/sun_a1", "apartment_building/outdoor/sun_b", "abbey/sun_a2")]
    )
    images(root, ["SUN397/a/abbey/other.jpg"])


def cars(root):
    (root / "stanford_cars/devkit").mkdir(parents=True)
    names = np.empty((1, 2), object)
    names[0, :] = ["AM General Hummer SUV 2000", "Ram C/V Cargo Van 2012"]
    scipy.io.savemat(root / "stanford_cars/devkit/cars_meta.mat", {"class_names": names})
    for place, folder, rows in (("devkit/cars_train_annos", "cars_train", [("1.jpg", 2), ("2.jpg", 1)]),
                                ("cars_test_annos_withlabels", "cars_test", [("1.jpg", 1), ("7.jpg", 2)])):  # fmt: skip
        found = np.zeros((1, len(rows)), [("class", object), ("fname", object)])
        for number, (name, label) in enumerate(rows):
            found[0, number] = (label, name)
        scipy.io.savemat(root / f"stanford_cars/{place}.mat", {"annotations": found})
        images(root, [f"stanford_cars/{folder}/{name}" for name, _ in rows])


def places(root):
    put(root, {"categories_places365.txt": "/a/airfield 0\n/b/bank_vault 1\n/z/zen_garden 2\n",
               "places365_val.txt": "Places365_val_2.jpg 2\nPlaces365_val_1.jpg 0\n",
               "places365_test.txt": "Places365_test_1.jpg\n",
               "places365_train_standard.txt": "/b/bank_vault/1.jpg 1\n"})  # fmt: skip
    images(root, ["val_large/Places365_val_1.jpg", "val_large/Places365_val_2.jpg", "test_large/Places365_test_1.jpg"])
    images(root, ["data_large_standard/b/bank_vault/1.jpg"])


def imagenet(root):
    torch.save((WNIDS, ["n01440764"]), root / "meta.bin")
    images(root, [f"val/{wnid}/ILSVRC2012_val_{number}.JPEG" for number, wnid in enumerate(WNIDS)])
    images(root, ["train/n01440764/n01440764_1.JPEG"])


def targets(oracle):
    """(paths, labels, classes) of a data set of torchvision, whatever it calls them."""
    if isinstance(oracle, oracles.Caltech101):
        folders = [oracle.categories[label] for label in oracle.y]
        places = [
            f"101_ObjectCategories/{folder}/image_{n:04d}.jpg" for folder, n in zip(folders, oracle.index, strict=True)
        ]
        return [os.path.join(oracle.root, place) for place in places], oracle.y, oracle.categories
    if hasattr(oracle, "samples"):
        return *zip(*oracle.samples, strict=True), oracle.classes
    if isinstance(oracle, oracles.Places365):
        return [path for path, _ in oracle.imgs], oracle.targets, oracle.classes
    if isinstance(oracle, oracles.StanfordCars):
        return *zip(*oracle._samples, strict=True), oracle.classes
    return getattr(oracle, "_image_files", None) or oracle._images, oracle._labels, oracle.classes


CASES = [
    ("DTD", dtd, {"query": "test", "support": "train"}),
    ("Flowers102", flowers, {"query": "test", "support": "train", "validation": "val"}),
    ("Food101", food, {"query": "test", "support": "train"}),
    ("OxfordIIITPet", pets, {"query": "test", "support": "trainval"}),
    ("FGVCAircraft", aircraft, {"query": "test", "support": "train", "validation": "val"}),
    ("EuroSAT", eurosat, None),
    ("Caltech101", caltech, None),
    ("SUN397", sun, None),
    ("StanfordCars", cars, {"query": "test", "support": "train"}),
    ("Places365", places, {"query": "val", "support": "train-standard"}),
]


SPOKEN = {
    "EuroSAT": {"AnnualCrop": "annual crop", "River": "river"},
    "SUN397": {"apartment_building/outdoor": "apartment building outdoor"},
    "Places365": {"/a/airfield": "airfield", "/b/bank_vault": "bank vault", "/z/zen_garden": "zen garden"},
}
"""torchvision's names that are paths or code, and what they are in a sentence"""


def read(name, root, **keys):
    return read_manifest(TorchvisionDataset(name=name, root=str(root), **keys))


@pytest.mark.parametrize(("name", "make", "splits"), CASES, ids=[name for name, *_ in CASES])
def test_images_labels_classes_and_splits_are_those_of_torchvision_and_bytes_those_of_the_files(
    tmp_path, monkeypatch, name, make, splits
):
    make(tmp_path)
    monkeypatch.setattr("torchvision.datasets.flowers102.check_integrity", lambda *_: True)  # sums of the real files
    monkeypatch.setattr("torchvision.datasets.places365.check_integrity", lambda *_, **__: True)
    table, classes = read(name, tmp_path, splits=None if splits is None else SplitNames(**splits))
    found = {row["uri"]: (row["split"], row["class"]) for row in table.to_pylist()}
    spoken = SPOKEN.get(name, {})
    expected = {}
    for split, own in (splits or {"query": None}).items():
        oracle = getattr(oracles, name)(tmp_path, **({} if own is None else {"split": own}))
        paths, labels, names = targets(oracle)
        expected |= {
            str(path): (split, spoken.get(names[label], names[label]))
            for path, label in zip(paths, labels, strict=True)
        }
        if split == "query":
            assert tuple(classes) == tuple(spoken.get(own, own) for own in names)
            assert spoken.keys() <= set(names)
    assert found == expected
    assert [f"bytes of {identity}".encode() for identity in table["id"].to_pylist()] == read_blobs(
        table["uri"].to_pylist()
    )


@pytest.mark.parametrize(("name", "make", "splits"), [case for case in CASES if case[0] != "Places365"])
def test_a_data_set_says_its_own_splits(tmp_path, name, make, splits):
    make(tmp_path)
    assert set(read(name, tmp_path)[0]["split"].to_pylist()) <= set(splits or {"query": ""}) | {"validation"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("the river\nannual crop\n", None),
        ("river\nannual crop\n", ("river", "annual crop")),
        ("annual crop land\nriver\n", ("annual crop land", "river")),
        ("River\nAnnualCrop\n", ("River", "AnnualCrop")),
    ],
)
def test_a_list_of_classes_is_taken_by_either_name_before_it_is_taken_by_place(tmp_path, text, expected):
    eurosat(tmp_path)
    put(tmp_path, {"names.txt": text})
    if expected is None:
        with pytest.raises(DatasetError, match=r"names\.txt does not name the labels River"):
            read("EuroSAT", tmp_path, classes=str(tmp_path / "names.txt"))
        return
    table, classes = read("EuroSAT", tmp_path, classes=str(tmp_path / "names.txt"))
    crop, river = sorted(expected, key=lambda name: "iver" in name)
    assert tuple(classes) == expected
    assert table["class"].to_pylist() == [crop, river, river]


def test_an_image_of_a_class_that_the_data_sets_own_list_lacks_is_told(tmp_path):
    aircraft(tmp_path)
    put(tmp_path, {"fgvc-aircraft-2013b/data/variants.txt": "Boeing 707\n737-200\n", "names.txt": "one\ntwo\n"})
    with pytest.raises(DatasetError, match=r"has images labelled 'An-12', and its own list of classes"):
        read("FGVCAircraft", tmp_path)
    with pytest.raises(DatasetError, match=r"names\.txt does not name the labels"):
        read("FGVCAircraft", tmp_path, classes=str(tmp_path / "names.txt"))


def test_images_of_a_split_without_labels_have_none(tmp_path):
    places(tmp_path)
    table, classes = read("Places365", tmp_path, splits=SplitNames(query="test"))
    assert table["class"].to_pylist() == [None]
    assert len(classes) == 3


def test_small_images_of_places_are_taken_where_there_are_no_large_ones(tmp_path):
    places(tmp_path)
    (tmp_path / "val_large").rename(tmp_path / "val_256")
    assert read("Places365", tmp_path)[0]["id"].to_pylist() == [
        "val_256/Places365_val_1.jpg",
        "val_256/Places365_val_2.jpg",
    ]


def devkit(root):
    (root / "meta.bin").unlink()
    kind = [("ILSVRC2012_ID", object), ("WNID", object), ("words", object), ("gloss", object), ("num_children", object)]
    synsets = np.zeros((4, 1), kind)
    for row, (wnid, names) in enumerate([*WNIDS.items(), ("n00001740", ("entity",))]):
        synsets[row, 0] = (row + 1, wnid, ", ".join(names), "", 0 if row < 3 else 2)
    sink = io.BytesIO()
    scipy.io.savemat(sink, {"synsets": synsets})
    return sink.getvalue()


def unpacked(root):
    put(root, {"ILSVRC2012_devkit_t12/data/meta.mat": devkit(root)})


def packed(root):
    data = devkit(root)
    info = tarfile.TarInfo("ILSVRC2012_devkit_t12/data/meta.mat")
    info.size = len(data)
    with tarfile.open(root / "ILSVRC2012_devkit_t12.tar.gz", "w:gz") as archive:
        archive.addfile(info, io.BytesIO(data))


def mapping(root):
    (root / "meta.bin").unlink()
    put(root, {"LOC_synset_mapping.txt": "".join(f"{wnid} {', '.join(names)}\n" for wnid, names in WNIDS.items())})


@pytest.mark.parametrize(
    "change", [lambda root: None, unpacked, packed, mapping], ids=["meta", "unpacked", "packed", "kaggle"]
)
def test_imagenet_is_named_by_what_lies_beside_it_and_classes_that_are_called_alike_stay_two(tmp_path, change):
    imagenet(tmp_path)
    oracle = oracles.ImageNet(tmp_path, split="val")
    change(tmp_path)
    table, classes = read("ImageNet", tmp_path)
    assert classes == {"tench": "tench", "crane (n02012849)": "crane", "crane (n03126707)": "crane"}
    assert [names[0] for names in oracle.classes] == ["tench", "crane", "crane"]
    assert table["uri"].to_pylist() == [path for path, _ in oracle.samples]
    assert [list(classes).index(name) for name in table["class"].to_pylist()] == oracle.targets
    both = SplitNames(query="val", support="train")
    assert read("ImageNet", tmp_path, splits=both)[0]["split"].to_pylist() == ["support", *["query"] * 3]


def test_imagenet_without_names_asks_for_them_and_takes_a_list_in_the_order_of_wnids(tmp_path):
    imagenet(tmp_path)
    (tmp_path / "meta.bin").unlink()
    with pytest.raises(DatasetError, match=r"names ImageNet's classes\. Put meta\.bin"):
        read("ImageNet", tmp_path)
    put(tmp_path, {"names.txt": "tench\nbird\nmachine\n", "names.json": json.dumps({wnid: wnid[:4] for wnid in WNIDS})})
    assert read("ImageNet", tmp_path, classes=str(tmp_path / "names.txt"))[0]["class"].to_pylist() == [
        "tench",
        "bird",
        "machine",
    ]
    assert tuple(read("ImageNet", tmp_path, classes=str(tmp_path / "names.json"))[1]) == ("n014", "n020", "n031")


@pytest.mark.parametrize("value", [({"n1": ("a", "b"), "é": ()}, []), {"k" * 300: [("x",) * 5] * 3}, [], "x"])
def test_plain_values_of_a_torch_file_are_read_without_unpickling(tmp_path, value):
    import zipfile

    torch.save(value, tmp_path / "a.bin")
    with zipfile.ZipFile(tmp_path / "a.bin") as archive:
        data = archive.read(next(name for name in archive.namelist() if name.endswith("/data.pkl")))
    assert plain_value(data) == value


def test_a_meta_file_that_calls_something_is_refused_and_not_called(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "called"),)

    imagenet(tmp_path)
    torch.save(({"n01440764": Evil()}, []), tmp_path / "meta.bin")
    with pytest.raises(DatasetError, match=r"meta\.bin is not ImageNet's"):
        read("ImageNet", tmp_path)
    assert not (tmp_path / "called").exists()
    for broken in (b"", b"PK", b"no zip"):
        (tmp_path / "meta.bin").write_bytes(broken)
        with pytest.raises(DatasetError, match=r"meta\.bin is not ImageNet's"):
            read("ImageNet", tmp_path)


def test_variants_of_imagenet_are_folders_of_wnids_named_by_a_file(tmp_path):
    images(tmp_path, ["n01440764/a.jpg", "n02012849/b.jpg"])
    put(tmp_path, {"names.yaml": "n01440764: tench\nn02012849: crane\nn03126707: machine\n"})
    table, classes = read("ImageFolder", tmp_path, classes=str(tmp_path / "names.yaml"))
    assert (table["class"].to_pylist(), tuple(classes)) == (["tench", "crane"], ("tench", "crane", "machine"))
    put(tmp_path, {"names.txt": "the tench\nthe crane\n"})
    assert read("ImageFolder", tmp_path, classes=str(tmp_path / "names.txt"))[0]["class"].to_pylist() == [
        "the tench",
        "the crane",
    ]
    images(tmp_path, ["val/n01440764/a.jpg", "train/n01440764/b.jpg"])
    keys = {"splits": SplitNames(query="val", support=["train"]), "classes": str(tmp_path / "names.yaml")}
    assert read("ImageFolder", tmp_path, **keys)[0]["split"].to_pylist() == ["support", "query"]


@pytest.mark.parametrize(("name", "make", "splits"), CASES, ids=[name for name, *_ in CASES])
def test_a_missing_data_set_says_where_its_files_should_lie(tmp_path, name, make, splits):
    with pytest.raises(DatasetError, match=rf"dataset\.root: {name} should lie in .*missing: .*/|categories_places"):
        read(name, tmp_path)
    assert os.listdir(tmp_path) == []
    with pytest.raises(DatasetError, match=r"dataset\.root: no folder"):
        read(name, tmp_path / "none")


def test_splits_that_a_data_set_has_not_and_broken_files_are_told(tmp_path):
    dtd(tmp_path)
    with pytest.raises(
        DatasetError, match=r"dataset\.splits\.query: DTD has no split 'testing'; it has train, val, test"
    ):
        read("DTD", tmp_path, splits=SplitNames(query="testing"))
    with pytest.raises(DatasetError, match=r"test is named twice"):
        read("DTD", tmp_path, splits=SplitNames(query="test", support="test"))
    eurosat(tmp_path)
    with pytest.raises(DatasetError, match=r"EuroSAT has no splits"):
        read("EuroSAT", tmp_path, splits=SplitNames(query="test"))
    flowers(tmp_path)
    (tmp_path / "flowers-102/setid.mat").write_bytes(b"no matlab")
    with pytest.raises(DatasetError, match=r"setid\.mat is no MATLAB file"):
        read("Flowers102", tmp_path)
    pets(tmp_path)
    put(tmp_path, {"oxford-iiit-pet/annotations/test.txt": "one\n"})
    with pytest.raises(DatasetError, match=r"the files of OxfordIIITPet .* are not as they should be"):
        read("OxfordIIITPet", tmp_path)


def test_without_scipy_it_is_asked_for(tmp_path):
    flowers(tmp_path)
    code = (
        "import sys; sys.modules['scipy.io'] = None\n"
        "from stages.dataset import TorchvisionDataset; from stages.manifest import read_manifest\n"
        f"try: read_manifest(TorchvisionDataset(name='Flowers102', root={str(tmp_path)!r}))\n"
        "except ValueError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "setid.mat needs SciPy: pip install scipy" in done.stdout
