"""The one mechanism: a stage keeps tables, and computes the rows that they lack (architecture.md 4).

A stage declares what it reads, says which tables it keeps under the present settings (`tables`), and computes missing
rows (`compute`). A fingerprint is made of everything that decides a table's rows: another setting, another table.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Protocol

import pyarrow as pa
import pyarrow.compute as pc

from storage.fingerprint import digest
from storage.shards import ShardTable, key_column


class Keeper(Protocol):
    """Where a table's rows lie: a `ShardTable`, or anything else that can tell which keys it lacks."""

    def keys(self) -> pa.ChunkedArray: ...
    def missing(self, wanted: pa.ChunkedArray) -> pa.ChunkedArray: ...
    def rejects(self) -> pa.Table: ...
    def forget_rejects(self) -> None: ...
    def bytes(self) -> int: ...
    def clear(self) -> None: ...


@dataclass(frozen=True)
class Ingredients:
    """Everything that decides the rows of a table. Names of settings are those of the job file."""

    settings: Mapping[str, Any]
    version: int
    weights: str | None = None
    rows: Mapping[str, str] = field(default_factory=dict)
    """input read row by row -> its fingerprint"""
    whole: Mapping[str, str] = field(default_factory=dict)
    """input read as a set -> digest of its (key, content) pairs"""

    def as_dict(self) -> dict[str, Any]:
        return {
            "settings": dict(self.settings),
            "version": self.version,
            "weights": self.weights,
            "rows": dict(self.rows),
            "whole": dict(self.whole),
        }


@dataclass(frozen=True)
class Table:
    """A table that a stage keeps under the present settings, and the keys it should hold, each once.

    Keys are given as any sequence of texts and kept as an Arrow column, which tables that want the same keys share.
    """

    stage: str
    name: str
    """what the table is for, in the words of the job file: "views.guided", "methods.abs" """
    ingredients: Ingredients
    wanted: pa.ChunkedArray
    keeper: Keeper
    plan: Any = None
    """what `compute` needs to know of this table besides its missing keys"""
    told: Mapping[str, Any] = field(default_factory=dict)
    """names behind its ingredients, for people who ask why it is another table now; decides nothing"""
    notes: tuple[str, ...] = ()
    """what people should know of it besides; decides nothing"""

    def __post_init__(self) -> None:
        object.__setattr__(self, "wanted", key_column(self.wanted))

    @cached_property
    def fingerprint(self) -> str:
        return digest({"stage": self.stage, **self.ingredients.as_dict()})

    @cached_property
    def missing(self) -> pa.ChunkedArray:
        """Wanted keys that have neither a row nor a reason why there is none, in their order."""
        return self.keeper.missing(self.wanted)

    @cached_property
    def rejected(self) -> frozenset[str]:
        """Wanted keys whose row could not be made; the reason is in the table's rejects."""
        refused = self.keeper.rejects()["key"]
        if not len(refused):
            return frozenset()
        wanted = self.wanted.filter(pc.is_in(self.wanted, value_set=refused))
        # A worker that noted it may have died before it said so, and the next one may have read the image after all.
        made = pc.is_in(wanted, value_set=self.keeper.keys())
        return frozenset(wanted.filter(pc.invert(made)).to_pylist())

    @property
    def complete(self) -> bool:
        return not len(self.missing)

    @property
    def present(self) -> int:
        return len(self.wanted) - len(self.missing) - len(self.rejected)

    def usable(self) -> pa.ChunkedArray:
        """Wanted keys less the rejected ones: what a reader of this table will find once it is complete."""
        return without(self.wanted, self.rejected)


def without(keys: pa.ChunkedArray, refused: Collection[str]) -> pa.ChunkedArray:
    """The keys that are not refused, in their order; the same column where none are."""
    if not refused:
        return keys
    return keys.filter(pc.invert(pc.is_in(keys, value_set=pa.array(list(refused), pa.string()))))


def lacking_keys(tables: Sequence[Table]) -> pa.ChunkedArray:
    """The keys that any of these tables lacks, each once, in the order of the first table that lacks it."""
    different = {id(table.missing): table.missing for table in tables}.values()  # mostly they lack the same
    if len(different) == 1:
        return next(iter(different))
    return key_column(pc.unique(pa.chunked_array([part for keys in different for part in keys.chunks], pa.string())))


class NotKnownYet(Exception):
    """A table's fingerprint or wanted keys depend on something that has to happen first, mostly another stage."""

    def __init__(self, after: str):
        super().__init__(f"known after {after}")


@dataclass(frozen=True)
class Inputs:
    """What a stage may look at to say which tables it keeps."""

    store: str
    """folder of everything computed, or where an object store begins (`s3://bucket/prefix`)"""
    manifest: pa.Table
    """one row an image: key, id, version, uri, split, class (null when unlabelled)"""
    names: Mapping[str, str]
    """classes in order: id -> the name that prompts speak"""
    kept: Mapping[str, Sequence[Table]]
    """tables of the stages that come before, by stage"""

    @property
    def classes(self) -> tuple[str, ...]:
        """Ids of the classes, in order."""
        return tuple(self.names)

    def tables(self, stage: str) -> Sequence[Table]:
        """The tables of a stage before, complete or not. Raises NotKnownYet when they are not known."""
        if stage not in self.kept:
            raise NotKnownYet(stage)
        return self.kept[stage]

    def complete(self, stage: str) -> Sequence[Table]:
        """The tables of a stage before, all rows present. Raises NotKnownYet otherwise."""
        tables = self.tables(stage)
        if not all(table.complete for table in tables):
            raise NotKnownYet(stage)
        return tables

    def shard_table(self, stage: str, ingredients: Ingredients) -> ShardTable:
        """Where the rows of a table with these ingredients lie in the store."""
        fingerprint = digest({"stage": stage, **ingredients.as_dict()})
        return ShardTable(os.path.join(self.store, "tables", stage, fingerprint))

    def weights_cache(self) -> str:
        """Where hashes of weights files are remembered, by path, size and mtime."""
        return weights_cache(self.store)


def weights_cache(store: str) -> str:
    """Where a store remembers the hashes of weights files."""
    return os.path.join(store, "weights.json")


@dataclass(frozen=True)
class Run:
    """The run a stage computes in: its id, how to report progress, how to reach Ray, how much may go wrong."""

    id: str
    advance: Callable[[int, int], None]
    """advance(rows done, rows rejected)"""
    cluster: Callable[[], Any]
    """starts or joins Ray on first use, and returns the `ray` module"""
    max_rejects: float = 0.01
    wait_minutes: float | None = None
    """how long to wait for a cluster that has less than a stage asks for; None for one that never grows"""
    timed: Callable[[Mapping[str, float]], None] = lambda seconds: None
    """timed(seconds by phase), summed over workers: where the time of the stage went"""
    tell: Callable[[str], None] = lambda text: None
    """tell(text): what a person who watches should know"""
    still_ours: Callable[[], None] = lambda: None
    """raises LeaseLost where another run may have taken this one's place: to be asked before a commit"""


class Stage(ABC):
    """A stage: what it reads, the tables it keeps, and how missing rows are computed."""

    name: ClassVar[str]
    version: ClassVar[int]
    """raised when the rows it makes change"""
    reads: ClassVar[tuple[str, ...]]
    """stages it reads; the order of a run follows from this"""

    @abstractmethod
    def tables(self, inputs: Inputs) -> list[Table]:
        """The tables this stage keeps under the present settings. Cheap: imports neither torch nor ray nor lancedb."""

    @abstractmethod
    def compute(self, tables: Sequence[Table], inputs: Inputs, run: Run) -> None:
        """Compute and append the missing rows of these tables."""

    def units(self, tables: Sequence[Table]) -> int | None:
        """How far `advance` will count: the distinct missing keys, since one pass fills all tables."""
        return len(lacking_keys(tables))


class TooManyRejects(RuntimeError):
    """More rows could not be made than the job allows."""


def check_rejects(stage: str, rejected: int, wanted: int, limit: float) -> None:
    """Raise TooManyRejects when rejects pass both the job's share of rows and ten rows (architecture.md 8)."""
    if rejected > 10 and rejected > limit * wanted:
        raise TooManyRejects(
            f"{stage}: {rejected} of {wanted} images were rejected, more than max_rejects = {limit:g} allows. "
            "What is computed is kept. Mend or remove the files, or raise max_rejects, and run again; "
            "--retry-rejects tries files again that were not to blame."
        )
