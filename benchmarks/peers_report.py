"""The tables and the plot of `benchmarks.peers`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

OURS = "mmretrieve"
SEARCHES = (
    "system", "index", "effort", "recall@10", "CPU ms", "times mmretrieve", "p50 ms", "p99 ms", "10 % pass: recall", "CPU ms",
    "0.5 % pass: recall", "CPU ms",
)  # fmt: skip
COSTS = (
    "system", "indexing, CPU s", "MB on disk", "MB of memory, indexing", "searching", "open, CPU ms", "add, CPU ms", "delete one, CPU ms",
)  # fmt: skip


def tables(data: Mapping[str, Any]) -> str:
    """Two tables for one set of vectors: what searches cost, and what else does. A system that failed has its error in the first."""
    systems: Mapping[str, Any] = data["systems"]
    measured = {name: entry for name, entry in systems.items() if "error" not in entry}
    failed = [
        [name, f"failed: {entry['error']}", *[""] * (len(SEARCHES) - 2)] for name, entry in systems.items() if "error" in entry
    ]
    searches = [[name, *_searches(entry, measured.get(OURS))] for name, entry in measured.items()]
    costs = [[name, *_costs(entry)] for name, entry in measured.items()]
    return f"{_markdown(SEARCHES, searches + failed)}\n\n{_markdown(COSTS, costs)}"


def draw(data: Mapping[str, Any], source: str, folder: Path) -> None:
    """Plots what the systems that did not fail need for one set of vectors, as peers-SOURCE.png."""
    from benchmarks.plots import draw_bars  # processes that measure need no matplotlib

    measured = {name: entry for name, entry in data["systems"].items() if "error" not in entry}
    panels: dict[str, dict[str, Any]] = {}
    for name, entry in measured.items():
        for filter_name, one in entry["search"].items():
            panels.setdefault(f"a search in {filter_name} of the items, CPU ms", {})[name] = one["CPU ms"]
        panels.setdefault("indexing, CPU s", {})[name] = entry["build"]["ms"]["CPU"] / 1000
        panels.setdefault("on disk, MB", {})[name] = entry["tune"]["bytes"] / 1e6
        panels.setdefault("memory of searching, MB", {})[name] = entry["peak memory of searching, MB"]
    if panels:
        draw_bars(
            panels,
            folder / plot_name(source),
            title=f"{source}, one core; searches with the recall of the table",
            emphasized=OURS,
        )


def plot_name(source: str) -> str:
    """The name of the plot for one set of vectors."""
    return f"peers-{source.replace(',', '').replace(' ', '-')}.png"


def _searches(entry: Mapping[str, Any], ours: Mapping[str, Any] | None) -> Iterator[str]:
    every, *filtered = entry["search"].values()
    effort = entry["tune"]["effort"]
    values = effort if isinstance(effort, Sequence) else [] if effort is None else [effort]
    yield entry["tune"]["index"]
    yield f"{entry['tune']['knob']} {', '.join(map(str, values)) or '–'}".strip()
    yield f"{every['recall_at_10']:.3f}"
    yield f"{every['CPU ms']['median']:.2f}"
    yield "–" if ours is None else f"{_ratio(every, ours['search']['all']):.2f}"
    yield f"{every['ms']['median']:.2f}"
    yield f"{every['ms']['p99']:.2f}"
    for one in filtered:
        yield f"{one['recall_at_10']:.3f}"
        yield f"{one['CPU ms']['median']:.2f}"


def _ratio(search: Mapping[str, Any], ours: Mapping[str, Any]) -> float:
    """The median ratio of the rounds, in which the systems took turns."""
    name = "CPU ms of the rounds"
    return float(median(theirs / own for theirs, own in zip(search[name], ours[name], strict=True)))


def _costs(entry: Mapping[str, Any]) -> Iterator[str]:
    build, write = entry["build"], entry["write"]
    yield f"{build['ms']['CPU'] / 1000:.1f}"
    yield f"{entry['tune']['bytes'] / 1e6:.1f}"
    yield f"{build['peak memory, MB']:.0f}"
    yield f"{entry['peak memory of searching, MB']:.0f}"
    yield f"{entry['open, CPU ms']:.0f}"
    yield f"{write['add']['CPU'] + write['save']['CPU']:.0f}"
    yield f"{write['delete one']['CPU']:.1f}" if isinstance(write["delete one"], Mapping) else "–"


def _markdown(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in (heads, ["---"] * len(heads), *rows))
