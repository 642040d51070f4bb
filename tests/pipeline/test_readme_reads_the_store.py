"""What the README says of reading a store is run as it stands there, on a store that a job left."""

from __future__ import annotations

import re
from pathlib import Path

from pipeline.job_file import load_job

README = Path(__file__).parents[2] / "README.md"
STORE = "fieldmark-demo/runs"


def test_the_readmes_examples_read_a_store(finished_job, capsys):
    blocks = re.findall(r"^```python\n(.*?)^```", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    examples = [block for block in blocks if STORE in block]
    assert examples
    names: dict[str, object] = {}
    for example in examples:
        exec(compile(example.replace(STORE, load_job(finished_job).store), str(README), "exec"), names)
        assert capsys.readouterr().out.strip()
