"""The short set: some benchmarks at sizes that take about five minutes together, with one table and one plot of what they found.

    python -m benchmarks [--out build/bench] [--only NAME …]

Each benchmark is a process that writes its JSON, and its plot if it has one, into the folder. One that fails is named; the others go on.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.plots import Value, draw_bars, format_number
from benchmarks.script import time_call
from benchmarks.short_set import SHORT_SET, Headline, ShortRun


def main(arguments: Sequence[str] | None = None, short_set: Sequence[ShortRun] = SHORT_SET) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("build/bench"), help="folder of the results (default: %(default)s)")
    names = [short.name for short in short_set]
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="NAME", help=", ".join(names))
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    chosen = [short for short in short_set if short.name in options.only]
    done = [short for short in chosen if run(short, options.out)]
    results = {short.name: json.loads((options.out / f"{short.name}.json").read_text(encoding="utf-8")) for short in done}
    print(table(done, results))
    if done:
        draw_bars(panels(done, results), options.out / "overview.png", title="The short set of benchmarks")
    print(f"\nresults are in {options.out}")
    return 0 if done == chosen else 1


def run(short: ShortRun, folder: Path) -> bool:
    """Runs a benchmark, and says how it went. What it prints goes to a file."""
    command = [sys.executable, "-m", f"benchmarks.{short.name}", "--out", str(folder), *short.arguments]
    log = folder / f"{short.name}.log"
    with log.open("w", encoding="utf-8") as file:
        seconds, process = time_call(subprocess.run, command, stdout=file, stderr=subprocess.STDOUT)
    succeeded = bool(process.returncode == 0)
    print(f"{short.name}: {seconds:.0f} s" if succeeded else f"FAILED {short.name}: see {log}", file=sys.stderr)
    return succeeded


def table(done: Sequence[ShortRun], results: Mapping[str, Mapping[str, Any]]) -> str:
    """One line for each headline: the number, or median, p10 and p90."""
    rows: list[tuple[str, ...]] = [("benchmark", "figure", "median", "p10", "p90", "unit")]
    for short, headline, value in _values(done, results):
        spread = value if isinstance(value, Mapping) else {"median": value}
        numbers = (format_number(spread[name]) if name in spread else "" for name in ("median", "p10", "p90"))
        rows.append((short.name, headline.label, *numbers, headline.unit))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)


def panels(done: Sequence[ShortRun], results: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Value]]:
    """The headlines by benchmark and unit, for the plot."""
    grouped: dict[str, dict[str, Value]] = {}
    for short, headline, value in _values(done, results):
        grouped.setdefault(f"{short.name}: {headline.unit}", {})[headline.label] = value
    return grouped


def _values(done: Sequence[ShortRun], results: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[ShortRun, Headline, Value]]:
    for short in done:
        for headline in short.headlines:
            yield short, headline, headline.read(results[short.name])


if __name__ == "__main__":
    sys.exit(main())
