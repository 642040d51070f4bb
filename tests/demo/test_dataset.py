"""What the demo writes: folders, a descriptor file, the model; and nothing twice."""

from __future__ import annotations

import json

from PIL import Image

from demo import dataset
from demo.species import species_of


def test_the_data_set_has_a_folder_a_species_and_eight_sentences_each(tmp_path):
    heard = []
    dataset.write_dataset(tmp_path, test_per_class=1, train_per_class=0, progress=lambda *its: heard.append(its))
    names = {species.name for species in species_of("test_0")}
    assert {folder.name for folder in (tmp_path / "images" / "test").iterdir()} == names
    photographs = sorted((tmp_path / "images").rglob("*"))
    files = [path for path in photographs if path.is_file()]
    assert [path.name for path in files] == ["000.jpg"] * 32
    with Image.open(files[0]) as picture:
        assert (picture.format, picture.size, picture.mode) == ("JPEG", (256, 256), "RGB")
    descriptors = json.loads((tmp_path / "descriptors.json").read_text())
    assert set(descriptors) == names
    first = species_of("test_0")[0]
    assert descriptors[first.name] == [f"A bird with {mark.phrase}." for mark in first.marks]
    assert heard[0] == (0, 32)
    assert heard[-1] == (32, 32)


def test_what_is_there_is_not_rendered_again(tmp_path, monkeypatch):
    species = species_of("test_0")[:2]
    monkeypatch.setattr(dataset, "species_of", lambda set_name: species)
    dataset.write_dataset(tmp_path, test_per_class=2, train_per_class=1, workers=1)
    files = sorted((tmp_path / "images").rglob("*.jpg"))
    assert len(files) == 6
    files[0].write_bytes(b"the user's own")
    files[1].unlink()
    before = {path: path.stat().st_mtime_ns for path in files if path != files[1]}
    descriptors = (tmp_path / "descriptors.json").stat().st_mtime_ns
    heard = []
    dataset.write_dataset(
        tmp_path, test_per_class=2, train_per_class=1, workers=1, progress=lambda *its: heard.append(its)
    )
    assert heard == [(5, 6), (6, 6)]
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert (tmp_path / "descriptors.json").stat().st_mtime_ns == descriptors
    assert files[1].exists()
    assert not [path for path in tmp_path.rglob("*") if path.name.endswith(".part")]


def test_the_model_is_copied_once_and_again_only_when_it_differs(tmp_path):
    folder = dataset.copy_model(tmp_path)
    weights = folder / "open_clip_model.safetensors"
    config = folder / "open_clip_config.json"
    first = weights.stat().st_mtime_ns
    config.write_text("{}")
    assert dataset.copy_model(tmp_path) == folder == tmp_path / "model"
    assert weights.stat().st_mtime_ns == first
    assert config.read_bytes() == (dataset.MODEL_FOLDER / config.name).read_bytes()
