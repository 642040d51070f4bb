"""Is this the name of a model? Answered from open_clip's configuration files alone, without importing torch."""

from __future__ import annotations

import difflib
import importlib.util
import json
from functools import cache
from pathlib import Path

HUB = "hf-hub:"
FOLDER = "local-dir:"
CONFIG = "open_clip_config.json"


@cache
def model_names() -> tuple[str, ...]:
    """The architectures that the installed open_clip knows, sorted."""
    return tuple(sorted(path.stem for path in _configurations().glob("*.json")))


def _configurations() -> Path:
    package = importlib.util.find_spec("open_clip")
    if package is None or not package.submodule_search_locations:
        raise ValueError("open_clip is not installed; `pip install open_clip_torch` provides it")
    return Path(package.submodule_search_locations[0]) / "model_configs"


def check_model_name(name: str) -> None:
    """Raise ValueError unless `name` is an open_clip architecture, `hf-hub:owner/model` or `local-dir:/folder`.

    Nothing is downloaded: a hub name is checked for its form only, a folder for its `open_clip_config.json`.
    """
    if name.startswith(HUB):
        owner, _, model = name.removeprefix(HUB).partition("/")
        if "@" in name:
            raise ValueError(
                f"model name {name!r}: revisions (@) are not supported; leave it out (the store notes the hash of what "
                "came), or download that revision and give the folder, as 'local-dir:/folder'"
            )
        if not owner or not model or "/" in model:
            raise ValueError(f"model name {name!r} is incomplete; it must look like 'hf-hub:owner/model'")
    elif name.startswith(FOLDER):
        config = Path(name.removeprefix(FOLDER)) / CONFIG
        if not config.is_file():
            raise ValueError(f"model name {name!r}: there is no {config}")
    elif name not in model_names():
        raise ValueError(f"unknown model {name!r}; {suggest(name, model_names())}")


def architecture_config(name: str) -> Path:
    """The configuration file of an architecture that open_clip knows."""
    return _configurations() / f"{name}.json"


def input_size(name: str) -> int:
    """Side in pixels of the square input of a model that `check_model_name` accepts, from its configuration."""
    if name.startswith(HUB):
        from huggingface_hub import hf_hub_download

        config = Path(hf_hub_download(name.removeprefix(HUB), CONFIG))
    elif name.startswith(FOLDER):
        config = Path(name.removeprefix(FOLDER)) / CONFIG
    else:
        config = architecture_config(name)
    settings = json.loads(config.read_text(encoding="utf-8"))
    return settings.get("model_cfg", settings)["vision_cfg"].get("image_size", 224)


def suggest(name: str, known: tuple[str, ...] | list[str]) -> str:
    """A closing clause for an error: the names closest to `name`, or the first few that exist."""
    close = difflib.get_close_matches(name, known, n=4, cutoff=0.5)
    if close:
        return f"did you mean {', '.join(close)}?"
    few = ", ".join(known[:8]) or "none"
    return f"known: {few}{', ...' if len(known) > 8 else ''}"
