"""Read a job file: YAML, overrides, the variants of a sweep, paths relative to the file, and errors that say where."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from pipeline.dotted_keys import lies_inside, places_of, set_key
from pipeline.job_error import JobError
from pipeline.mistakes import explain_mistakes
from pipeline.settings import Job
from pipeline.sweep import Expansion, expand_sweep
from prompts.descriptor_file import UniqueKeyLoader
from stages.dataset import AnyDataset, FolderDataset
from stages.descriptor_settings import DescriptorSettings
from stages.settings import ModelSettings
from stages.weights import LOCAL_FOLDER_FILES, is_weights_file
from storage.filesystems import check_bucket, check_uri, is_object_uri


@dataclass(frozen=True)
class Variant:
    """A job that a job file stands for: the file's only one, or one of its sweep."""

    job: Job
    """its `name` is the file's name for the job, in a sweep followed by the label"""
    label: str | None = None
    """what tells it from the sweep's other variants, such as `crops=3`; None in a file without a sweep"""
    values: Mapping[str, Any] = field(default_factory=dict)
    """the swept keys with this variant's values; empty where there is no sweep, or one of named variants"""


def load_job(path: str | Path, overrides: Sequence[str] = ()) -> Job:
    """The job of a file without a sweep: read, overridden, resolved, checked. Nothing is started. Raises JobError."""
    (variant, *others) = load_jobs(path, overrides)
    if variant.label is not None:
        labels = ", ".join(repr(each.label) for each in (variant, *others))
        raise JobError(f"{path}: sweep: one job is needed here, and the file stands for several: {labels}")
    return variant.job


def load_jobs(path: str | Path, overrides: Sequence[str] = ()) -> list[Variant]:
    """All jobs that a file stands for: one, or the variants of its `sweep`, each checked. Raises JobError.

    Overrides change the file before it is expanded; one of a key that is swept is an error. `sweep.KEY=[...]` replaces
    or adds a swept key, `sweep=null` takes the sweep away.
    """
    path = Path(path)
    data = _read_yaml(path)
    overridden: dict[str, list[str]] = {}
    for override in overrides:
        overridden[override] = places_of(data, override.partition("=")[0])
        _override(data, override)
    if data.get("sweep") is None:
        data.pop("sweep", None)
        return [Variant(_make_job(data, path, str(path)))]
    try:
        expansions = expand_sweep(data)
    except ValueError as error:
        raise JobError(f"{path}: {error}") from None
    _check_overrides(data, overridden, expansions)
    variants = []
    for each in expansions:
        job = _make_job(each.data, path, f"{path}: sweep ({each.told})")
        variants.append(Variant(job.model_copy(update={"name": f"{job.name} {each.label}"}), each.label, each.values))
    return variants


def _make_job(data: dict[str, Any], path: Path, place: str) -> Job:
    """The job that data of this file say. Raises JobError, each line beginning with `place`."""
    try:
        job = _locate(Job.model_validate(data), path)
        _check_files(job)
    except ValidationError as error:
        told = explain_mistakes(data, error)
    except JobError as error:
        told = str(error)
    else:
        return job
    raise JobError("\n".join(f"{place}: {line}" for line in told.splitlines())) from None


def _check_overrides(
    data: Mapping[str, Any], overridden: Mapping[str, Sequence[str]], expansions: Sequence[Expansion]
) -> None:
    """An override of what a sweep sets anyway would do nothing. `overridden`: override -> the places that it sets."""
    swept = {key: places_of(data, key) for each in expansions for key in each.changes}
    for override, places in overridden.items():
        for key, outer in swept.items():
            if any(lies_inside(place, one) for place in places for one in outer):
                raise JobError(
                    f"--set {override}: {key} is swept by the job file; use --set sweep.{key}='[VALUE, ...]'"
                )


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        data = _parse(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise JobError(f"no job file {path}; `fieldmark init DIR` writes one for a folder of images") from None
    except IsADirectoryError:
        raise JobError(f"{path} is a folder, not a job file; perhaps {path / 'job.yaml'}?") from None
    except UnicodeDecodeError:
        raise JobError(f"{path}: is not UTF-8 text") from None
    except OSError as error:
        raise JobError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (yaml.YAMLError, ValueError) as error:
        raise JobError(f"{path}: is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(data, dict):
        raise JobError(f"{path}: should hold keys and values, with at least `dataset: {{path: FOLDER}}`")
    return data


def _parse(text: str) -> Any:
    """What a text in YAML says. Raises yaml.YAMLError or ValueError."""
    return _unshare(yaml.load(text, Loader=UniqueKeyLoader), ())


def _unshare(value: Any, outer: tuple[int, ...]) -> Any:
    """A copy in which what an alias repeats stands by itself, so that to change it in one place changes no other."""
    if id(value) in outer:
        raise ValueError("an anchor stands inside what it names")
    inner = (*outer, id(value))
    if isinstance(value, dict):
        return {key: _unshare(one, inner) for key, one in value.items()}
    return [_unshare(one, inner) for one in value] if isinstance(value, list) else value


def _override(data: dict[str, Any], override: str) -> None:
    """Apply one `a.b=value` of --set; the value is YAML, the key as in `set_key`, or `sweep.KEY`."""
    name, equals, text = override.partition("=")
    if not equals or not all(name.split(".")):
        raise JobError(f"--set {override}: should be KEY=VALUE, for example --set views.random.crops=16")
    try:
        value = _parse(text)
    except (yaml.YAMLError, ValueError) as error:
        raise JobError(f"--set {override}: the value is not valid YAML: {' '.join(str(error).split())}") from None
    group, _, key = name.partition(".")
    try:
        if group == "sweep" and key:
            _override_sweep(data, key, value)
        else:
            set_key(data, name, value)
    except ValueError as error:
        raise JobError(f"--set {override}: {error}") from None


def _override_sweep(data: dict[str, Any], key: str, value: Any) -> None:
    """A swept key has dots of its own, and is one key of the mapping `sweep`."""
    sweep = data.get("sweep") or {}
    if not isinstance(sweep, dict):
        raise ValueError("the file's sweep is a list of named variants; give all of them: --set sweep='[...]'")
    data["sweep"] = sweep | {key: value}


def _locate(job: Job, path: Path) -> Job:
    """Paths of the file are relative to the file; name and store get their defaults."""
    base = path.resolve().parent

    def absolute(value: str) -> str:
        return str((base / Path(value).expanduser()).resolve())

    name = job.name or path.stem
    dataset = _locate_dataset(job.dataset, absolute)
    model = job.model
    if model.name.startswith("local-dir:"):
        folder = absolute(model.name.removeprefix("local-dir:"))
        model = model.model_copy(update={"name": f"local-dir:{folder}"})
    elif not model.carries_its_weights:
        weights = model.weights or "openai"
        beside = model.weights is not None and (base / weights).exists()
        is_file = is_weights_file(weights) or (beside and not _is_tag(model.name, weights))
        model = model.model_copy(update={"weights": absolute(weights) if is_file else weights})
    guides = {
        key: guide.model_copy(update={"weights": absolute(guide.weights)}) if getattr(guide, "weights", None) else guide
        for key, guide in job.guides.items()
    }
    descriptors = {name: _locate_descriptors(name, one, absolute) for name, one in job.descriptors.items()}
    describe = job.describe
    if describe.cache is not None:
        cache = _checked_uri("describe.cache", describe.cache) if "://" in describe.cache else absolute(describe.cache)
        describe = describe.model_copy(update={"cache": cache})
    methods = [
        method.model_copy(update={key: absolute(value) for key, value in method.paths.items()})
        for method in job.methods
    ]
    score = job.score
    if score.classes not in ("all", "labelled"):
        score = score.model_copy(update={"classes": absolute(score.classes)})
    store = _checked_uri("store", job.store) if "://" in job.store else absolute(job.store or f"runs/{name}")
    update = {"name": name, "store": store, "dataset": dataset, "model": model, "methods": methods, "score": score}
    return job.model_copy(update=update | {"guides": guides, "descriptors": descriptors, "describe": describe})


def _locate_dataset(dataset: AnyDataset, absolute: Callable[[str], str]) -> AnyDataset:
    """Its paths made absolute. Raises JobError for an address where none is read."""
    update: dict[str, str | list[str]] = {}
    for key in ("path", "root", "classes"):
        value = getattr(dataset, key, None)
        if isinstance(dataset, FolderDataset) and key == "path" and is_object_uri(dataset.path):
            update[key] = _checked_uri("dataset.path", dataset.path)
        elif value is not None:
            for one in [value] if isinstance(value, str) else value:
                if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", one):
                    raise JobError(
                        f"dataset.{key}: {one!r} is an address; shards and lists are read from disks only. Copy it "
                        "first. A folder of images may be s3://BUCKET/FOLDER or gs://BUCKET/FOLDER, and any addresses "
                        "of images may be listed in a data set of the kind `table`"
                    )
            update[key] = absolute(value) if isinstance(value, str) else [absolute(one) for one in value]
    return dataset.model_copy(update=update)


def _locate_descriptors(name: str, one: DescriptorSettings, absolute: Callable[[str], str]) -> DescriptorSettings:
    """Its paths made absolute. Raises JobError for an address where none is read."""
    update = {}
    for key, value in one.paths.items():
        if "://" not in value:
            update[key] = absolute(value)
        elif key == "path" and one.table is None and not value.endswith(".lance"):
            update[key] = _checked_uri(f"descriptors.{name}.path", value)
        else:
            raise JobError(
                f"descriptors.{name}.{key}: {value!r} is an address, and is read from disks only: copy it first, or, "
                "of a LanceDB table, write what it holds to a .parquet file"
            )
    return one.model_copy(update=update)


def _checked_uri(key: str, uri: str) -> str:
    """An address in an object store, without a slash at its end. Raises JobError for any other address."""
    try:
        check_uri(uri)
    except ValueError as error:
        raise JobError(f"{key}: {error}") from None
    return uri.rstrip("/")


def _is_tag(name: str, weights: str) -> bool:
    """Whether open_clip has a tag of this name for an architecture: asked only where a file is called so too."""
    import open_clip

    return bool(open_clip.get_pretrained_cfg(name, weights))


def _check_files(job: Job) -> None:
    """Files, buckets and model names that the job speaks of exist and can be read. Raises JobError."""
    from stages.vision.model_error import ModelError

    if is_object_uri(job.store):
        try:
            check_bucket(job.store)
        except OSError as error:
            raise JobError(f"store: {error.filename}: {error.strerror}") from None
    try:
        _check_model(job.model)
    except ModelError as error:
        raise JobError(f"model: {error}") from None
    for name, guide in job.guides.items():
        weights = getattr(guide, "weights", None)
        if weights is not None and not Path(weights).is_file():
            raise JobError(f"guides.{name}.weights: no file {weights}")
    for name, one in job.descriptors.items():
        for key, value in one.paths.items():
            if key != "path" and not Path(value).is_file():  # a plan reads the path itself
                raise JobError(f"descriptors.{name}.{key}: no file {value}")
    for method in job.methods:
        for key, value in method.paths.items():
            if not Path(value).is_file():
                raise JobError(f"methods.{method.row_name}.{key}: no file {value}")


def _check_model(model: ModelSettings) -> None:
    """Raises JobError, and ModelError for a damaged or unsuitable configuration."""
    from stages.vision.names import CONFIG, architecture_config, check_model_name
    from stages.vision.tokenizers import check_tokenizer
    from stages.vision.weight_files import activation_beside, find_weights_file, open_clip_activation, read_config

    if not model.name.startswith("local-dir:"):
        try:
            check_model_name(model.name)
        except ValueError as error:
            raise JobError(f"model.name: {error}") from None
    if model.name.startswith("local-dir:"):
        folder = Path(model.name.removeprefix("local-dir:"))
        for name in LOCAL_FOLDER_FILES:
            if not (folder / name).is_file():
                raise JobError(f"model.name: {folder} has no {name}")
        if model.weights is not None:
            raise JobError("model.weights: a local-dir model carries its own weights; leave it out")
        check_tokenizer(model.name, read_config(folder / CONFIG))
        said = open_clip_activation(folder / CONFIG)
        if model.activation not in ("auto", said):
            raise JobError(f"model.activation: {model.activation!r}, but the model's open_clip_config.json says {said}")
    elif not model.carries_its_weights:
        check_tokenizer(model.name, read_config(architecture_config(model.name)))
        if is_weights_file(model.weights):
            try:
                activation_beside(find_weights_file(model.weights))
            except FileNotFoundError as error:
                raise JobError(f"model.weights: {error}") from None
