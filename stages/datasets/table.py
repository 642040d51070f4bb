"""A CSV, TSV or JSON Lines file of uris with labels.

An image's id is what the id column says, else the uri as it is written: relative paths let table and images move.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from stages.dataset import DatasetError, TableDataset
from stages.datasets.listing import Entry, Listing, content_version, file_version, is_text, known_label
from stages.datasets.object_versions import object_versions
from stages.datasets.splits import SplitColumn
from storage.blobs import read_blobs
from storage.filesystems import check_uri, is_object_uri
from storage.uris import LocalFile, ParquetCell, TarMember, format_uri, parse_uri

DELIMITERS = {".csv": ",", ".tsv": "\t"}
JSON_LINES = (".jsonl", ".ndjson")
ASKED_AT_ONCE = 16
"""Remote files whose size, time and ETag are asked for at once."""

Row = Mapping[str, object]


def list_table(dataset: TableDataset) -> Listing:
    """The images that the file names. Raises DatasetError."""
    path = os.path.abspath(dataset.path)
    if not os.path.isfile(path):
        raise DatasetError(f"dataset.path: no file {path}")
    suffix = Path(path).suffix.lower()
    if suffix not in (*DELIMITERS, *JSON_LINES):
        raise DatasetError(f"dataset.path: {path} should end in {', '.join((*DELIMITERS, *JSON_LINES))}")
    try:
        open(path, "rb").close()
    except OSError as error:
        raise DatasetError(f"dataset.path: {path} cannot be read: {error.strerror or error}") from None
    return Listing(_entries(dataset, path, suffix), path, f"dataset.path: {path} has no rows of any split")


def _entries(dataset: TableDataset, path: str, suffix: str) -> Iterator[Entry]:
    splits = SplitColumn(dataset.splits, path)
    rows = _json_rows(path) if suffix in JSON_LINES else _delimited_rows(path, DELIMITERS[suffix])
    chunk: list[tuple[str, str, str, str | None]] = []
    column, has_splits = dataset.split or "split", None
    with ThreadPoolExecutor(ASKED_AT_ONCE) as threads:
        for line, row in rows:
            if has_splits is None:  # the first row says for all, so that none is left out by a slip
                has_splits = column in row or dataset.split is not None or dataset.splits is not None
            elif not has_splits and column in row:
                raise DatasetError(f"dataset.split: {path}, line {line}, has a {column!r}, which the first row lacks")
            split = splits[_text(row, column, path, line, required=True)] if has_splits else "query"
            if split is None:
                continue
            written = _text(row, dataset.uri, path, line, required=True)
            identity = _text(row, dataset.id or "id", path, line, required=dataset.id is not None) or written
            label = _text(row, dataset.label or "label", path, line, required=False)
            if dataset.label is not None and dataset.label not in row:
                raise DatasetError(f"dataset.label: {path}, line {line}, has no {dataset.label!r}; it has {_keys(row)}")
            known = None if label is None else known_label(label)
            chunk.append((identity, _located(written, path, line), split, known))
            if len(chunk) == 1000:
                yield from _with_versions(chunk, dataset.version, threads)
                chunk = []
        splits.check_names()
        yield from _with_versions(chunk, dataset.version, threads)


def _with_versions(
    rows: list[tuple[str, str, str, str | None]], how: str, threads: ThreadPoolExecutor
) -> Iterator[Entry]:
    uris = [uri for _, uri, _, _ in rows]
    stored = [uri for uri in uris if how == "mtime" and is_object_uri(uri)]
    of_objects = dict(zip(stored, object_versions(stored), strict=True))
    versions = threads.map(lambda uri: of_objects.get(uri) or _version(uri, how), uris)
    for (identity, uri, split, label), version in zip(rows, versions, strict=True):
        yield Entry(identity, version, uri, split, label)


def _delimited_rows(path: str, delimiter: str) -> Iterator[tuple[int, Row]]:
    """(line number, row) of a file with a header line."""
    csv.field_size_limit(1 << 30)
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, delimiter=delimiter, strict=True)
            for row in reader:
                if None in row or None in row.values():
                    raise DatasetError(
                        f"dataset.path: {path}, line {reader.line_num}, has another number of fields than the first "
                        f"line's {len(reader.fieldnames or ())}"
                    )
                yield reader.line_num, row
    except UnicodeDecodeError:
        raise DatasetError(f"dataset.path: {path} is not UTF-8 text") from None
    except csv.Error as error:
        raise DatasetError(f"dataset.path: {path}, line {reader.line_num}: {error}") from None


def _json_rows(path: str) -> Iterator[tuple[int, Row]]:
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line.decode("utf-8-sig"))
            except (ValueError, RecursionError) as error:
                raise DatasetError(f"dataset.path: {path}, line {number}, is no JSON: {error}") from None
            if not isinstance(row, dict):
                raise DatasetError(f"dataset.path: {path}, line {number}, is no JSON object: {line[:60]!r}")
            yield number, row


def _text(row: Row, key: str, path: str, line: int, required: bool) -> str | None:
    """The text (or whole number) under a key; None where there is none and none is required."""
    value = row.get(key)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if value is None or value == "":
        if not required:
            return None
        raise DatasetError(f"dataset.path: {path}, line {line}, has no {key!r}; it has {_keys(row)}")
    if not isinstance(value, str) or not is_text(value):
        raise DatasetError(f"dataset.path: {path}, line {line}: {key!r} is {value!r}; a text or whole number is wanted")
    return value


def _keys(row: Row) -> str:
    return ", ".join(map(str, row)) or "nothing"


def _located(written: str, path: str, line: int) -> str:
    """The uri as `read_blobs` wants it: absolute, and of a scheme that can be opened here."""
    try:
        place = parse_uri(written)
    except ValueError as error:
        raise DatasetError(f"dataset.uri: {path}, line {line}: {error}") from None
    if isinstance(place, LocalFile):
        return os.path.join(os.path.dirname(path), place.path)
    if isinstance(place, (TarMember, ParquetCell)):
        return format_uri(replace(place, path=os.path.join(os.path.dirname(path), place.path)))
    if is_object_uri(written):
        try:
            check_uri(written)
        except ValueError as error:
            raise DatasetError(f"dataset.uri: {path}, line {line}: {error}") from None
    elif problem := _lacking(written.partition("://")[0]):
        raise DatasetError(f"dataset.uri: {path}, line {line}: {written} cannot be opened: {problem}")
    return written


@lru_cache
def _lacking(scheme: str) -> str:
    """What is missing to open uris of a scheme; empty when nothing is."""
    import fsspec

    try:
        fsspec.get_filesystem_class(scheme)
    except (ImportError, ValueError) as error:
        return str(error)
    return ""


def _version(uri: str, how: str) -> str:
    if how == "none":
        return "as-named"
    if uri.startswith("/"):
        return file_version(uri, how)
    if how == "content" or "://" not in uri:
        return _remote_content(uri)
    return _remote_version(uri)


@lru_cache(maxsize=2_000_000)  # a run plans about ten times, and asks its servers once
def _remote_content(uri: str) -> str:
    (blob,) = read_blobs([uri])
    return content_version(blob) if isinstance(blob, bytes) else "missing"


@lru_cache(maxsize=2_000_000)
def _remote_version(uri: str) -> str:
    """ETag, else size and time, as the server tells them; `missing` where it tells nothing."""
    import fsspec

    try:
        file_system, path = fsspec.core.url_to_fs(uri)
        told = {str(key).lower(): value for key, value in file_system.info(path).items()}
    except Exception:  # every protocol has errors of its own; what cannot be reached is rejected when it is read
        return "missing"
    if etag := told.get("etag"):
        return str(etag).strip('"')
    changed = [told[key] for key in ("last-modified", "lastmodified", "mtime", "updated", "created") if told.get(key)]
    return "-".join(map(str, [told.get("size"), *changed[:1]]))
