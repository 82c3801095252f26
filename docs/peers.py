"""`python -m docs.peers` writes the tables of docs/guides/performance.md from results/peers.json, which `python -m benchmarks.peers` makes."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.peers_report import plot_name, tables

ROOT = Path(__file__).resolve().parents[1]
PAGE, RESULT = ROOT / "docs" / "guides" / "performance.md", ROOT / "results" / "peers.json"
START, END = "<!-- tables: python -m docs.peers -->", "<!-- end of tables -->"


def page(text: str, result: Mapping[str, Any]) -> str:
    """The text of the page with the tables and plots of this result."""
    before, _, rest = text.partition(START)
    return "\n\n".join([before + START, *_parts(result), END + rest.partition(END)[2]])


def _parts(result: Mapping[str, Any]) -> Iterator[str]:
    machine = result["machine"]
    yield (
        f"One run on one core of {machine['processor']}, {machine['system']}, with a load average of {machine['load average']:.1f} at its end; "
        f"{result['queries']} queries, {result['rounds']} rounds. "
        f"Versions: {', '.join(f'{name} {version}' for name, version in result['systems'].items())}."
    )
    for source, data in result["data"].items():
        yield f"**{source}:** {data['vectors']:,} vectors of {data['dim']} dimensions; {data['added']:,} are added."
        yield tables(data)
        yield f"![What each system needs: {source}](../../results/{plot_name(source)})"


def main() -> int:
    """Writes the page."""
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8"), json.loads(RESULT.read_text(encoding="utf-8"))), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
