"""What `python -m benchmarks.query` makes of small measurements."""

from __future__ import annotations

import pytest

from benchmarks import query
from storage import lance_index
from storage.lance import Projection

SMALL = query.Size(classes=40, shots=4, descriptions=3, d=16)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("query")
    query.write_shards(folder, SMALL)
    return folder


def test_a_cache_is_built_from_shards_and_searched(folder, capsys):
    figures = query.build(folder, SMALL)
    assert set(figures) == {"build_seconds", "build_peak_mb", "index_seconds"}
    assert 0 < figures["build_peak_mb"] < 500
    figures = query.answers(folder, SMALL, queries=20)
    assert set(figures) == {"exact_p50_ms", "indexed_p50_ms", "recall_at_10", "recall_at_10_far"}
    assert figures["recall_at_10"] == figures["recall_at_10_far"] == 1.0, "so small a table has no index"
    assert min(figures.values()) > 0
    assert capsys.readouterr().out == ""
    assert Projection(f"{folder}/lance").count("cache") == 40 * 4 * 3


def test_recall_is_that_of_the_index(folder, monkeypatch):
    monkeypatch.setattr(lance_index, "INDEX_ROWS", 100)
    monkeypatch.setattr(lance_index, "PROBED_ROWS", 10)
    monkeypatch.setattr(lance_index, "SHARE", 1000)
    query.build(folder, SMALL)
    figures = query.answers(folder, SMALL, queries=20)
    assert 0 < figures["recall_at_10_far"] < 1


def test_queries_are_as_far_from_their_classes_as_they_are_meant_to_be():
    size = query.Size(classes=5, d=512)
    for share in (0.8, 0.3):
        cosines = (query._queries(size, 50, share) @ query._centres(size).T).max(axis=1)
        assert cosines.mean() == pytest.approx(share, abs=0.03)
