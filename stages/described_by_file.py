"""Provider `file`: what a descriptor file or table says of each class; a changed entry is a new row of that class."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import ClassVar

import pyarrow as pa

from prompts.descriptor_file import read_descriptor_file
from prompts.descriptor_names import descriptors_for, read_aliases
from prompts.descriptor_tables import VERSIONS, find_lance, lance_version, read_lance
from stages.datasets.kept import keep
from stages.described import Given, GivenProvider
from stages.descriptor_settings import FileDescriptors
from stages.stage import Inputs
from storage.files import read_bytes
from storage.filesystems import is_object_uri

SHOWN = 5


class DescribedByFile(GivenProvider):
    """Reads the file at every plan; a LanceDB table once a version, since that takes lancedb."""

    provider: ClassVar[str] = "file"
    settings: FileDescriptors

    def given(self, names: Sequence[str], inputs: Inputs) -> Given:
        path, aliases = self.settings.path, self.settings.aliases
        known = None if aliases is None else read_aliases(aliases)
        found, extra = descriptors_for(names, self._read(inputs), path, known)
        return Given(found, f"file {path}", _of_no_class(extra, path))

    def _read(self, inputs: Inputs) -> dict[str, list[str]]:
        path = self.settings.path
        if is_object_uri(path):
            try:
                return read_descriptor_file(path, read_bytes(path))
            except OSError as error:
                raise ValueError(f"{path}: cannot be read: {error.strerror or error}") from None
        folder = find_lance(path, self.settings.table)
        if folder is None:
            return read_descriptor_file(path)
        listings, versions = os.path.join(inputs.store, "listings"), str(folder / VERSIONS)
        said = keep(listings, versions, ["descriptors", lance_version(folder)], lambda: _as_table(read_lance(folder)))
        return dict(zip(said["class"].to_pylist(), said["texts"].to_pylist(), strict=True))


def _as_table(descriptors: dict[str, list[str]]) -> pa.Table:
    texts = pa.array(list(descriptors.values()), pa.list_(pa.string()))
    return pa.table({"class": pa.array(list(descriptors), pa.string()), "texts": texts})


def _of_no_class(extra: Sequence[str], path: str) -> tuple[str, ...]:
    """A note on the classes of a file that the data set does not have."""
    if not extra:
        return ()
    named = ", ".join(map(repr, extra[:SHOWN])) + (f" and {len(extra) - SHOWN:,} more" if len(extra) > SHOWN else "")
    count = "1 class" if len(extra) == 1 else f"{len(extra):,} classes"
    return (f"{path} also describes {count} that the data set does not have: {named}",)
