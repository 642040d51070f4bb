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
        self.named: Mapping[str, str] | None = None
        if splits is not None:
            self.named = {}
            for split in SPLITS:
                for name in splits.names(split):
                    if self.named.setdefault(name, split) != split:
                        raise DatasetError(f"dataset.splits: {name} is named for both {self.named[name]} and {split}")

    def __getitem__(self, value: str | None) -> str | None:
        if self.named is not None:
            return self.named.get(value) if value is not None else None
        split = split_named(value) if value else None
        if split is None:
            raise DatasetError(
                f"dataset.splits: {self.where} has the split {value!r}; say which is which, "
                f"for example splits: {{query: {value or 'test'}}}"
            )
        return split
