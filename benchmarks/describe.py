"""How fast descriptors come from a language model, and how fast they are audited: one JSON document.

`latency_ratio`: 1,000 classes x 9 descriptors from a server that takes 300 ms and 64 questions at once, from the first
request to the last answer, over the time that these pauses take alone. `audit_*`: see `describe_audit`.
"""

from __future__ import annotations

import argparse
import json
import statistics

from benchmarks.describe_audit import audit_figures
from benchmarks.describe_latency import latency_ratio
from benchmarks.encode import tell

TURNS = 3


def main() -> None:
    """Measure one group or both, and print the document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("latency", "audit"), help="one group of figures; default: both")
    only = parser.parse_args().only
    found: dict[str, float] = {}
    if only != "audit":
        turns = [round(latency_ratio(), 3) for _ in range(TURNS)]
        tell(f"latency ratio of {TURNS} turns: {turns}")
        found["latency_ratio"] = statistics.median(turns)
    if only != "latency":
        found |= audit_figures()
    print(json.dumps(found))


if __name__ == "__main__":
    main()
