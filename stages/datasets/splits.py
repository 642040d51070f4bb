"""Splits: what they are called, here and in other people's data sets."""

from __future__ import annotations

from collections.abc import Mapping

from stages.dataset import DatasetError, SplitNames

SPLITS = ("support", "validation", "query")
SPLIT_NAMES = {
    "query": ("test", "testing", "query"),
    "validation": ("val", "valid", "validation"),
    "support": ("train", "training", "support"),
}
"""What folders and files call a split, in any case."""


def split_named(name: str) -> str | None:
    """The split that a name stands for as people use it, None for any other name."""
    return next((split for split, names in SPLIT_NAMES.items() if name.lower() in names), None)


class SplitColumn:
    """Which split a value of a split column stands for: `splits[value]`, None for rows that no split takes."""

    def __init__(self, splits: SplitNames | None, where: str):
        self.where = where
        self.met: set[str | None] = set()
        """every value that was asked for"""
        self.named: Mapping[str, str] | None = None
        if splits is not None:
            self.named = {}
            for split in SPLITS:
                for name in splits.names(split):
                    if self.named.setdefault(name, split) != split:
                        raise DatasetError(f"dataset.splits: {name} is named for both {self.named[name]} and {split}")

    def __getitem__(self, value: object) -> str | None:
        value = None if value is None else str(value)  # a column may hold numbers, names in a job file are text
        self.met.add(value)
        if self.named is not None:
            return self.named.get(value) if value is not None else None
        split = split_named(value) if value else None
        if split is None:
            raise DatasetError(
                f"dataset.splits: {self.where} has the split {value!r}; say which is which, "
                f"for example splits: {{query: {value or 'test'!r}}}"
            )
        return split

    def check_names(self) -> None:
        """After the last row: raise DatasetError for a name that no row had, since a slip would leave a split empty."""
        lost = [name for name in self.named or () if name not in self.met]
        if lost and self.met:
            found = sorted(value for value in self.met if value is not None)
            raise DatasetError(
                f"dataset.splits.{self.named[lost[0]]}: no row of {self.where} has the split {lost[0]!r}; there are "
                f"{', '.join(map(repr, found[:10])) or 'none'}{' and others' if len(found) > 10 else ''}"
            )
