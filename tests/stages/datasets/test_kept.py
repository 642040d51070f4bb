"""What was found out about a file is kept in the store, wherever that lies."""

from __future__ import annotations

import os

import pyarrow as pa
import pytest

from stages.datasets import kept
from storage.files import list_files


@pytest.mark.parametrize("kind", ["disk", "s3"])
def test_what_was_found_serves_the_next_process_until_the_file_changes(kind, tmp_path, request):
    store = str(tmp_path / "store") if kind == "disk" else f"{request.getfixturevalue('bucket')}/store"
    file, looked = tmp_path / "a.tar", []
    file.write_bytes(b"a")

    def find() -> pa.Table:
        looked.append(1)
        return pa.table({"number": [len(looked)]})

    for _ in range(2):
        assert kept.keep(f"{store}/listings", str(file), ["x"], find)["number"].to_pylist() == [1]
        kept._in_this_process.clear()  # as a new process would find it
    assert [os.path.splitext(path)[1] for path in list_files(f"{store}/listings", "")] == [".arrow"]
    file.write_bytes(b"ab")
    assert kept.keep(f"{store}/listings", str(file), ["x"], find)["number"].to_pylist() == [2]
