"""What descriptors are kept as, a row a class whoever wrote them, and what a provider of them has to say and do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar, NamedTuple

import pyarrow as pa

from stages.encode_images import describe_table
from stages.settings import Settings
from stages.stage import Ingredients, Inputs, Run, Table
from storage.fingerprint import digest

STAGE = "describe"
VERSION = 2
DROPPED_COLUMNS = ("class", "text", "reason", "detail")
_DROPPED = pa.struct([(name, pa.string()) for name in DROPPED_COLUMNS[1:]])
SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("class", pa.string(), nullable=False),
        pa.field("texts", pa.list_(pa.string()), nullable=False),
        pa.field("aspects", pa.list_(pa.string())),  # what each text speaks of, where that is known: beak, wings
        pa.field("source", pa.string(), nullable=False),
        pa.field("dropped", pa.list_(_DROPPED)),  # what clean-up left out, and why; null where nothing is cleaned
    ]
)


class Provider(ABC):
    """Where the descriptors of one set come from."""

    def __init__(self, name: str, settings: Settings):
        self.name, self.settings = name, settings

    @abstractmethod
    def table(self, inputs: Inputs) -> Table:
        """The set's table, `descriptors.NAME`, with a key a class as it is spoken. Cheap, as `Stage.tables` is.

        Raises ValueError for settings that the classes do not fit, NotKnownYet where another stage comes first.
        """

    @abstractmethod
    def compute(self, table: Table, inputs: Inputs, run: Run) -> None:
        """Write the classes that `table` lacks."""


class Given(NamedTuple):
    """Descriptors that need no computing."""

    texts: Mapping[str, Sequence[str]]
    """of each class as it is spoken, in order"""
    source: str
    """where they are from, for people"""
    notes: tuple[str, ...] = ()
    """what people should know"""


class GivenProvider(Provider):
    """A provider whose descriptors are known when a job is planned; keys carry a digest of the class's texts."""

    provider: ClassVar[str]

    @abstractmethod
    def given(self, names: Sequence[str], inputs: Inputs) -> Given:
        """The descriptors of the classes `names`. Raises ValueError, for people, where some are missing."""

    def table(self, inputs: Inputs) -> Table:
        names = list(dict.fromkeys(inputs.names.values()))
        try:
            given = self.given(names, inputs)
        except ValueError as error:
            raise ValueError(f"descriptors.{self.name}: {error}") from None
        ingredients = Ingredients(settings={"provider": self.provider}, version=VERSION)
        return Table(
            stage=STAGE,
            name=f"descriptors.{self.name}",
            ingredients=ingredients,
            wanted=[class_key(name, texts) for name, texts in given.texts.items()],
            keeper=inputs.shard_table(STAGE, ingredients),
            plan=given,
            notes=given.notes,
        )

    def compute(self, table: Table, inputs: Inputs, run: Run) -> None:
        missing = set(table.missing.to_pylist())
        rows = [
            {"key": key, "class": name, "texts": list(texts), "source": table.plan.source}
            for name, texts in table.plan.texts.items()
            if (key := class_key(name, texts)) in missing
        ]
        table.keeper.create(describe_table(table))
        table.keeper.append(pa.Table.from_pylist(rows, schema=SCHEMA), run.id)
        run.advance(len(rows), 0)


def dropped_rows(rows: pa.Table) -> pa.Table:
    """What clean-up left out of these rows, a row each: class, text, reason, detail; none of what nobody cleaned."""
    said = [
        {"class": row["class"], **each}
        for row in rows.select(["class", "dropped"]).to_pylist()
        for each in row["dropped"] or ()
    ]
    return pa.Table.from_pylist(said, schema=pa.schema([(name, pa.string()) for name in DROPPED_COLUMNS]))


def class_key(name: str, texts: Sequence[str]) -> str:
    """The key of a class's row: other texts are another row."""
    return f"{name}@{digest(list(texts))}"


def read_descriptors(table: Table) -> dict[str, list[str]]:
    """Spoken class name -> descriptors, from a complete table, in the order of its wanted keys."""
    if not len(table.wanted):  # a set that no method reads
        return {}
    rows = table.keeper.read(keys=table.wanted, columns=["class", "texts"])
    return dict(zip(rows["class"].to_pylist(), rows["texts"].to_pylist(), strict=True))
