"""Public weights, fetched once a node: whoever comes second waits for the first and finds the file in the cache.

The cache is Hugging Face's hub cache, so that a model which other programs have used is already there.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import open_clip
import timm
from filelock import FileLock
from huggingface_hub import hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

from stages.vision.names import CONFIG, HUB

OPEN_CLIP_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
TIMM_FILES = ("model.safetensors", "pytorch_model.bin")


def download_clip(name: str, tag: str | None) -> list[Path]:
    """The weights file of an open_clip tag; of an `hf-hub:` model the weights and its `open_clip_config.json`.

    Raises whatever the network or a package raises.
    """
    if name.startswith(HUB):
        return [_from_hub(name.removeprefix(HUB), OPEN_CLIP_FILES), download_config(name)]
    config = open_clip.get_pretrained_cfg(name, tag)
    if "file" in config:
        return [Path(config["file"])]
    if not config.get("hf_hub"):
        raise LookupError(f"the tag {tag} of {name} is not published on the hub")
    repository, _, file = config["hf_hub"].rpartition("/")
    return [_from_hub(repository, _safetensors_first(file))]


def download_config(name: str) -> Path:
    """The `open_clip_config.json` of an `hf-hub:` model; raises whatever the network raises."""
    return _from_hub(name.removeprefix(HUB), (CONFIG,))


def download_guide(name: str) -> Path:
    """The weights file that timm publishes for a model on Hugging Face's hub, safetensors first.

    LookupError where it publishes none; else raises whatever the network raises.
    """
    config = timm.get_pretrained_cfg(name)
    if config is None or not config.hf_hub_id:
        raise LookupError(f"timm publishes no weights of {name} on the hub")
    return _from_hub(config.hf_hub_id, (config.hf_hub_filename,) if config.hf_hub_filename else TIMM_FILES)


def _safetensors_first(file: str) -> tuple[str, ...]:
    """The files to look for where open_clip's table of tags names this one, or none, of a repository."""
    if file in ("", *OPEN_CLIP_FILES):
        return OPEN_CLIP_FILES
    return (str(Path(file).with_suffix(".safetensors")), file) if file.endswith((".bin", ".pth")) else (file,)


def _from_hub(repository: str, names: tuple[str, ...]) -> Path:
    """The first of these files that a repository has, which is called `owner/name` or `owner/name@revision`."""
    repository, _, revision = repository.partition("@")
    place = {"repo_id": repository, "revision": revision or None}
    *preferred, last = names
    with _one_at_a_time(f"{repository} {revision} {last}"):
        for file in preferred:
            try:
                return Path(hf_hub_download(filename=file, **place))
            except LocalEntryNotFoundError:  # no network: only the cache is left to ask, at once
                if isinstance(cached := try_to_load_from_cache(filename=last, **place), str):
                    return Path(cached)
                raise
            except EntryNotFoundError:
                continue
        return Path(hf_hub_download(filename=last, **place))


@contextlib.contextmanager
def _one_at_a_time(what: str) -> Iterator[None]:
    """Holds a lock of this machine and user; a process that dies lets go of it."""
    folder = Path(tempfile.gettempdir()) / f"fieldmark-{os.getuid() if hasattr(os, 'getuid') else 'locks'}"
    folder.mkdir(mode=0o700, exist_ok=True)
    with FileLock(folder / f"{hashlib.sha256(what.encode()).hexdigest()[:20]}.lock"):
        yield
