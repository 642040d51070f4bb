from __future__ import annotations

import subprocess
import sys

MODULES = ["blobs", "files", "fingerprint", "lance", "markers", "records", "schemas", "shards", "uris"]


def test_importing_storage_imports_neither_lancedb_nor_torch_nor_ray():
    code = "import sys\n" + "".join(f"import storage.{name}\n" for name in MODULES)
    code += "print(sorted({'lancedb', 'torch', 'ray', 'polars', 'pandas'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
