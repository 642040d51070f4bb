"""describe: class names -> descriptors, by one of several providers; one table a named descriptor set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

from stages.described import STAGE, VERSION, Provider
from stages.described_by_file import DescribedByFile
from stages.described_by_llm import AskedSet, DescribedByAsking
from stages.described_by_names import DescribedByNames
from stages.descriptor_settings import DescribeSettings, DescriptorSettings, OpenAIDescriptors
from stages.methods.method import Method
from stages.stage import Inputs, Run, Stage, Table, without

GIVEN: Mapping[str, type[Provider]] = {"file": DescribedByFile, "names": DescribedByNames}
"""Providers whose descriptors are there already; `openai` asks for them."""
UNREAD = "no method reads it, so nothing is described for it"


class Describe(Stage):
    """Keeps one table a named descriptor set: one row a class, and a changed entry is a new row of that class alone."""

    name: ClassVar[str] = STAGE
    version: ClassVar[int] = VERSION
    reads: ClassVar[tuple[str, ...]] = ("similar_classes",)

    def __init__(
        self,
        sets: Mapping[str, DescriptorSettings],
        methods: Sequence[Method],
        describe: DescribeSettings,
        tower: str,
    ):
        self.providers = {name: _provider(name, settings, describe, tower) for name, settings in sets.items()}
        self.read = {getattr(method, "descriptors", None) for method in methods}

    def tables(self, inputs: Inputs) -> list[Table]:
        """One table a set. ValueError for a bad file or a missing class.

        A set that no method reads wants no more than is there: descriptors may cost money, and nobody would see these.
        """
        tables = {name: provider.table(inputs) for name, provider in self.providers.items()}
        return [table if name in self.read else _as_it_is(table) for name, table in tables.items()]

    def sets_to_ask(self, inputs: Inputs) -> list[AskedSet]:
        """What the sets that are read ask of language models, while it is not known which classes are similar."""
        providers = [each for name, each in self.providers.items() if name in self.read]
        return [each.asked(inputs, {}) for each in providers if isinstance(each, DescribedByAsking)]

    def compute(self, tables: Sequence[Table], inputs: Inputs, run: Run) -> None:
        """Write the missing classes of each set, by its provider, and tell what people should know of it."""
        for table in tables:
            if table.complete:
                continue
            for note in table.notes:
                run.tell(f"{table.name}: {note}")
            self.providers[table.name.removeprefix("descriptors.")].compute(table, inputs, run)


def _provider(name: str, settings: DescriptorSettings, describe: DescribeSettings, tower: str) -> Provider:
    if isinstance(settings, OpenAIDescriptors):
        return DescribedByAsking(name, settings, describe, tower)
    return GIVEN[settings.provider](name, settings)


def _as_it_is(table: Table) -> Table:
    """The table with no more keys wanted than it holds, and a word why."""
    there = without(table.wanted, frozenset(table.missing.to_pylist()))
    return replace(table, wanted=there, notes=(*table.notes, UNREAD))
