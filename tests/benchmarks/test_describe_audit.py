"""What `benchmarks.describe_audit` makes of a small store."""

from __future__ import annotations

from benchmarks import describe_audit
from benchmarks.describe_audit import Size, audit_figures, audit_store, write_store
from storage.shards import ShardTable

SMALL = Size(classes=6, descriptors=4, images=80, crops=3, d=16)


def test_all_images_of_a_store_are_audited(tmp_path, capsys):
    write_store(tmp_path, SMALL)
    assert [ShardTable(str(tmp_path / name)).rows() for name in ("whole", "view", "texts")] == [80, 80, 24]
    figures = audit_store(tmp_path, SMALL)
    assert set(figures) == {"seconds", "bytes"}
    assert min(figures.values()) >= 0
    assert capsys.readouterr().out == ""


def test_figures_are_of_all_images_over_half_of_them(monkeypatch):
    sizes = []

    def answer(folder, size):
        sizes.append(size.images)
        return {"seconds": size.images / 10, "bytes": 1000 + size.images}

    monkeypatch.setattr(describe_audit, "_in_a_process", answer)
    assert audit_figures(SMALL) == {"audit_seconds": 8.0, "audit_rss_growth": round(1080 / 1040 - 1, 4)}
    assert sizes == [40, 80]
