"""`python -m docs.reliability` writes the table of RELIABILITY.md from results/reliability.json, which `make soak` makes."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGE, COUNTS = ROOT / "RELIABILITY.md", ROOT / "results" / "reliability.json"
START, END = "<!-- table: python -m docs.reliability -->", "<!-- end of table -->"


def table(counts: Mapping[str, Any]) -> str:
    """The faults of one run, a row each.

    >>> print(table({"minutes": 60, "faults": {"the disk is full": {"tried": 1200, "lost": 0, "note": "any file"}}}))
    One run of `make soak`, 60 minutes:
    <BLANKLINE>
    | fault | tried | lost | measured |
    |---|---|---|---|
    | the disk is full | 1,200 | 0 | any file |
    """
    rows = [f"| {name} | {one['tried']:,} | {one['lost']:,} | {one['note']} |" for name, one in counts["faults"].items()]
    head = [
        f"One run of `make soak`, {counts['minutes']:g} minutes:",
        "",
        "| fault | tried | lost | measured |",
        "|---|---|---|---|",
    ]
    return "\n".join([*head, *rows])


def page(text: str, counts: Mapping[str, Any]) -> str:
    """The text of the page with the table of these counts."""
    before, _, rest = text.partition(START)
    return f"{before}{START}\n\n{table(counts)}\n\n{END}{rest.partition(END)[2]}"


def main() -> int:
    """Writes the page."""
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8"), json.loads(COUNTS.read_text(encoding="utf-8"))), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
