"""Plots of results: panels of bars, with lines from p10 to p90 where the spread is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil, floor, log10
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

COLUMNS, PANEL_WIDTH, ROW_HEIGHT, MIN_ROWS, DPI = 3, 4.2, 0.26, 3, 120
BAR, EMPHASIZED, LINE = "#b8b0a6", "#b3402a", "#3b3733"

Value = float | Mapping[str, float]
"""A number, or a summary with `median` and, where they are known, `p10` and `p90`."""


def draw_bars(panels: Mapping[str, Mapping[str, Value]], file: Path, *, title: str, emphasized: str | None = None) -> None:
    """Draws one panel of horizontal bars for each mapping of labels to values, and writes them as PNG.

    `emphasized` is the label whose bars have a color of their own.
    """
    columns = min(COLUMNS, len(panels))
    rows = ceil(len(panels) / columns)
    height = rows * (1.1 + ROW_HEIGHT * max(len(panel) for panel in panels.values()))
    figure = Figure(figsize=(columns * PANEL_WIDTH, height), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, columns, squeeze=False).flat
    for axes, (name, panel) in zip(grid, panels.items(), strict=False):
        _draw_panel(axes, name, panel, emphasized)
    for axes in list(figure.axes)[len(panels) :]:
        axes.set_axis_off()
    figure.suptitle(title, fontsize=10)
    figure.savefig(file, metadata={"Software": None})


def format_number(value: float) -> str:
    """A number with three digits that count, and no exponent.

    >>> [format_number(value) for value in (0.01234, 9.876, 1234.5)]
    ['0.0123', '9.88', '1,234']
    """
    decimals = 2 - floor(log10(abs(value))) if value else 0
    return f"{value:,.{max(decimals, 0)}f}"


def _draw_panel(axes: Axes, name: str, panel: Mapping[str, Value], emphasized: str | None) -> None:
    labels, places = list(panel), range(len(panel))
    summaries = [value if isinstance(value, Mapping) else {"median": value} for value in panel.values()]
    medians = [summary["median"] for summary in summaries]
    axes.barh(places, medians, color=[EMPHASIZED if label == emphasized else BAR for label in labels])
    for place, summary in zip(places, summaries, strict=True):
        if "p10" in summary:
            axes.plot([summary["p10"], summary["p90"]], [place, place], color=LINE, linewidth=1)
    _write_values(axes, [(summary.get("p90", summary["median"]), summary["median"]) for summary in summaries])
    axes.set_yticks(places, labels, fontsize=8)
    axes.tick_params(axis="x", labelsize=7)
    axes.set_ylim(max(len(panel), MIN_ROWS) - 0.4, -0.6)  # from the top, with bars of one width in small panels, too
    axes.margins(x=0.22)
    axes.set_xlim(left=0)
    axes.set_title(name, fontsize=9)


def _write_values(axes: Axes, ends_and_values: Sequence[tuple[float, float]]) -> None:
    for place, (end, value) in enumerate(ends_and_values):
        axes.annotate(
            format_number(value), (max(end, value), place), (3, 0), textcoords="offset points", va="center", fontsize=7
        )
