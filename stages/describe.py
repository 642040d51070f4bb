"""describe: class names -> descriptors. One row a class and set; a changed entry is a new row of that class alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import pyarrow as pa

from prompts.descriptor_file import descriptors_for, read_descriptor_file
from stages.encode_images import describe_table
from stages.settings import DescriptorSettings
from stages.stage import Ingredients, Inputs, Run, Stage, Table
from storage.fingerprint import digest

SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("class", pa.string(), nullable=False),
        pa.field("texts", pa.list_(pa.string()), nullable=False),
        pa.field("source", pa.string(), nullable=False),
    ]
)


class Describe(Stage):
    """Keeps one table a named descriptor set. Provider `file`: what the file says of each class."""

    name: ClassVar[str] = "describe"
    version: ClassVar[int] = 1
    reads: ClassVar[tuple[str, ...]] = ()

    def __init__(self, sets: Mapping[str, DescriptorSettings]):
        self.sets = sets

    def tables(self, inputs: Inputs) -> list[Table]:
        """One table a set; keys carry a digest of the class's entry. ValueError for a bad file or missing class."""
        tables, names = [], list(dict.fromkeys(inputs.names.values()))
        for name, settings in self.sets.items():
            try:
                entries, _ = descriptors_for(names, read_descriptor_file(settings.path), settings.path)
            except ValueError as error:
                raise ValueError(f"descriptors.{name}: {error}") from None
            ingredients = Ingredients(settings={"provider": settings.provider}, version=self.version)
            tables.append(
                Table(
                    stage=self.name,
                    name=f"descriptors.{name}",
                    ingredients=ingredients,
                    wanted=[_key(class_name, texts) for class_name, texts in entries.items()],
                    keeper=inputs.shard_table(self.name, ingredients),
                    plan=(settings.path, entries),
                )
            )
        return tables

    def compute(self, tables: Sequence[Table], inputs: Inputs, run: Run) -> None:
        """Write the missing classes of each set."""
        for table in tables:
            path, entries = table.plan
            missing = set(table.missing.to_pylist())
            rows = [
                {"key": key, "class": class_name, "texts": list(texts), "source": f"file {path}"}
                for class_name, texts in entries.items()
                if (key := _key(class_name, texts)) in missing
            ]
            table.keeper.create(describe_table(table))
            table.keeper.append(pa.Table.from_pylist(rows, schema=SCHEMA), run.id)
            run.advance(len(rows), 0)


def read_descriptors(table: Table) -> dict[str, list[str]]:
    """Spoken class name -> descriptors, from a complete table, in the order of its wanted keys."""
    rows = table.keeper.read(keys=table.wanted, columns=["class", "texts"])
    return dict(zip(rows["class"].to_pylist(), rows["texts"].to_pylist(), strict=True))


def _key(class_name: str, texts: Sequence[str]) -> str:
    return f"{class_name}@{digest(list(texts))}"
