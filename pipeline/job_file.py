"""Read a job file: YAML, overrides from the command line, paths relative to the file, and errors that say where."""

from __future__ import annotations

import difflib
import re
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from pipeline.settings import Job
from prompts.descriptor_file import UniqueKeyLoader
from stages.settings import ModelSettings
from stages.weights import LOCAL_FOLDER_FILES, is_weights_file


class JobError(ValueError):
    """A job file or call that is wrong; the message names file, key, value and what is allowed."""


def load_job(path: str | Path, overrides: Sequence[str] = ()) -> Job:
    """Read, override, resolve and check a job file. Nothing is started. Raises JobError."""
    path = Path(path)
    data = _read_yaml(path)
    for override in overrides:
        _override(data, override)
    try:
        job = Job.model_validate(data)
    except ValidationError as error:
        raise JobError(_explain(path, data, error)) from None
    job = _locate(job, path)
    _check_files(job, path)
    return job


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        data = yaml.load(path.read_text(encoding="utf-8"), Loader=UniqueKeyLoader)
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


def _override(data: dict[str, Any], override: str) -> None:
    """Apply one `a.b=value` of --set; the value is YAML, and a number steps into a list."""
    name, equals, text = override.partition("=")
    steps = name.split(".")
    if not equals or not all(steps):
        raise JobError(f"--set {override}: should be KEY=VALUE, for example --set views.random.crops=16")
    try:
        value = yaml.load(text, Loader=UniqueKeyLoader)
    except (yaml.YAMLError, ValueError) as error:
        raise JobError(f"--set {override}: the value is not valid YAML: {' '.join(str(error).split())}") from None
    place: Any = data
    for step, following in zip(steps, [*steps[1:], None], strict=True):
        if isinstance(place, list):
            if not step.isdecimal() or int(step) >= len(place):
                raise JobError(f"--set {override}: {step!r} is no place in a list of {len(place)}")
            key: Any = int(step)
            if following is not None and isinstance(place[key], str):
                place[key] = {"name": place[key]}  # a method that was written as a bare name
        elif isinstance(place, dict):
            key = step
        else:
            raise JobError(f"--set {override}: the key before {step!r} is a value, not a group of settings")
        if following is None:
            place[key] = value
        elif isinstance(place, list):
            place = place[key]
        else:
            place = place.setdefault(key, {})


def _explain(path: Path, data: Any, error: ValidationError) -> str:
    lines: dict[str, list[str]] = {}
    for problem in error.errors():
        where, value = _walk(data, problem["loc"])
        label = f"{path}: {where}" if where else str(path)
        if problem["type"] == "extra_forbidden":
            allowed = _allowed_keys(Job, problem["loc"][:-1])
            close = difflib.get_close_matches(str(problem["loc"][-1]), allowed, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            told, ending = f"{label}: unknown key.{hint} Allowed here: {', '.join(allowed)}", ""
        elif problem["type"] == "missing":
            told, ending = f"{label}: is missing", ""
        elif problem["type"] == "union_tag_not_found":
            told, ending = f"{label}: needs a `kind`", ""
        elif problem["type"] == "union_tag_invalid":
            told, ending = f"{label}.kind: {problem['ctx']['tag']!r} is not allowed. ", "Allowed here: "
            ending += problem["ctx"]["expected_tags"]
        elif problem["type"] == "value_error":
            told, ending = f"{label}: {problem['ctx']['error']}", ""
        else:
            told, ending = f"{label}: {value!r} is not allowed. ", problem["msg"]
        lines.setdefault(told, []).append(ending)  # a value that may be of two types is told once, with both
    return "\n".join(told + "; or ".join(filter(None, endings)) for told, endings in lines.items())


def _walk(data: Any, location: Sequence[Any]) -> tuple[str, Any]:
    """The dotted name of a place in the file and its value; tags that pydantic adds for unions are left out."""
    names: list[str] = []
    for number, step in enumerate(location):
        if (isinstance(data, Mapping) and step in data) or (
            isinstance(data, list) and isinstance(step, int) and step < len(data)
        ):
            names.append(str(step))
            data = data[step]
        elif number == len(location) - 1 and isinstance(data, Mapping):
            names.append(str(step))
            data = None
    return ".".join(names), data


def _allowed_keys(annotation: Any, location: Sequence[Any]) -> list[str]:
    """Keys that the settings at a place accept, found by following annotations."""
    models = _models(annotation)
    if not location:
        return list(dict.fromkeys(name for model in models for name in model.model_fields))
    step, rest = location[0], location[1:]
    origin = get_origin(annotation)
    if origin in (dict, list):
        return _allowed_keys(get_args(annotation)[-1], rest)
    for model in models:
        if step in model.model_fields:
            return _allowed_keys(_with_metadata(model, step), rest)
        kind = model.model_fields.get("kind")
        if kind is not None and kind.default == step:
            return _allowed_keys(model, rest)
    return []


def _with_metadata(model: type[BaseModel], name: str) -> Any:
    return model.model_fields[name].annotation


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if get_origin(annotation) in (Union, types.UnionType) or hasattr(annotation, "__metadata__"):
        return [model for part in get_args(annotation) for model in _models(part)]
    return []


def _locate(job: Job, path: Path) -> Job:
    """Paths of the file are relative to the file; name and store get their defaults."""
    base = path.resolve().parent

    def absolute(value: str) -> str:
        return str((base / Path(value).expanduser()).resolve())

    name = job.name or path.stem
    placed = {key: getattr(job.dataset, key, None) for key in ("path", "root", "classes")}
    for key, value in placed.items():
        for one in [value] if isinstance(value, str) else value or []:
            if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", one):
                raise JobError(
                    f"{path}: dataset.{key}: {one!r} is an address; folders, shards and lists are read from disks "
                    "only. Copy it first, or list images at addresses in a data set of the kind `table`"
                )
    dataset = job.dataset.model_copy(
        update={
            key: absolute(value) if isinstance(value, str) else [absolute(one) for one in value]
            for key, value in placed.items()
            if value is not None
        }
    )
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
    descriptors = {
        key: descriptor.model_copy(update={"path": absolute(descriptor.path)})
        for key, descriptor in job.descriptors.items()
    }
    if "://" in job.store:
        raise JobError(f"{path}: store: {job.store!r} is not a folder; object stores are not supported yet")
    store = absolute(job.store or f"runs/{name}")
    update = {"name": name, "store": store, "dataset": dataset, "model": model}
    return job.model_copy(update=update | {"guides": guides, "descriptors": descriptors})


def _is_tag(name: str, weights: str) -> bool:
    """Whether open_clip has a tag of this name for an architecture: asked only where a file is called so too."""
    import open_clip

    return bool(open_clip.get_pretrained_cfg(name, weights))


def _check_files(job: Job, path: Path) -> None:
    """Files and model names that the job speaks of exist and can be read. Raises JobError."""
    from stages.vision.model_error import ModelError

    try:
        _check_model(job.model, path)
    except ModelError as error:
        raise JobError(f"{path}: model: {error}") from None
    for name, guide in job.guides.items():
        weights = getattr(guide, "weights", None)
        if weights is not None and not Path(weights).is_file():
            raise JobError(f"{path}: guides.{name}.weights: no file {weights}")


def _check_model(model: ModelSettings, path: Path) -> None:
    """Raises JobError, and ModelError for a damaged or unsuitable configuration."""
    from stages.vision.names import CONFIG, architecture_config, check_model_name
    from stages.vision.tokenizers import check_tokenizer
    from stages.vision.weight_files import activation_beside, find_weights_file, open_clip_activation, read_config

    if not model.name.startswith("local-dir:"):
        try:
            check_model_name(model.name)
        except ValueError as error:
            raise JobError(f"{path}: model.name: {error}") from None
    if model.name.startswith("local-dir:"):
        folder = Path(model.name.removeprefix("local-dir:"))
        for name in LOCAL_FOLDER_FILES:
            if not (folder / name).is_file():
                raise JobError(f"{path}: model.name: {folder} has no {name}")
        if model.weights is not None:
            raise JobError(f"{path}: model.weights: a local-dir model carries its own weights; leave it out")
        check_tokenizer(model.name, read_config(folder / CONFIG))
        said = open_clip_activation(folder / CONFIG)
        if model.activation not in ("auto", said):
            raise JobError(
                f"{path}: model.activation: {model.activation!r}, but the model's open_clip_config.json says {said}"
            )
    elif not model.carries_its_weights:
        check_tokenizer(model.name, read_config(architecture_config(model.name)))
        if is_weights_file(model.weights):
            try:
                activation_beside(find_weights_file(model.weights))
            except FileNotFoundError as error:
                raise JobError(f"{path}: model.weights: {error}") from None
