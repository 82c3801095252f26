"""Draws the PDV plane: every ranking that PDV can produce from one method's terms, and its metric."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from eval.report.formatting import format_point, metric_name
from eval.runs.records import SweepRecord
from mmretrieve import MMRetrieveError

SIZE, DPI = (6.4, 4.9), 200  # inches; shown 640 pixels wide, which is sharp on a dense screen
COLORMAP = "cividis"  # perceptually uniform, and readable without telling red from green
INK, SOFT, PAPER = "#2b2622", "#7d736a", "#ffffff"
MARKERS = {"base": "o", "published": "D", "best": "*"}
Floats = NDArray[np.float64]


def draw_heatmap(sweep: SweepRecord, metric: str | None = None) -> bytes:
    """A PNG of 1280 × 980 pixels: beta by gamma, colored by a metric, with the base, published and best points marked.

    Parameters
    ----------
    sweep : the record of a sweep.
    metric : by default the one that the sweep was tuned for.

    Raises
    ------
    MMRetrieveError : the sweep does not contain the metric.
    """
    metric = metric or sweep.metric
    if metric not in sweep.plane:
        raise MMRetrieveError(f"the sweep {sweep.name!r} does not contain {metric!r}; it contains: {', '.join(sweep.plane)}")
    plane_bg = np.asarray(sweep.plane[metric], dtype=np.float64)
    figure = Figure(figsize=SIZE, dpi=DPI, facecolor=PAPER, layout="constrained")
    axes = figure.add_subplot()
    mesh = axes.pcolormesh(sweep.betas, sweep.gammas, plane_bg.T, cmap=COLORMAP, shading="nearest", rasterized=True)
    _draw_contours(axes, sweep, plane_bg)
    _draw_points(axes, sweep, metric)
    _draw_frame(axes, sweep, metric)
    bar = figure.colorbar(mesh, ax=axes, pad=0.02, aspect=28)
    bar.set_label(f"{metric_name(metric)}, points", color=INK, fontsize=9)
    bar.ax.tick_params(labelsize=8, colors=SOFT)
    bar.outline.set_visible(False)
    figure.legend(loc="outside lower left", ncols=1, fontsize=8.5, frameon=False, markerscale=0.7, labelcolor=INK)
    file = BytesIO()
    FigureCanvasAgg(figure)
    figure.savefig(file, format="png", metadata={"Software": None})  # the same bytes with every release
    return file.getvalue()


def _draw_contours(axes: Axes, sweep: SweepRecord, plane_bg: Floats) -> None:
    if min(plane_bg.shape) < 2 or np.ptp(plane_bg) == 0:
        return
    lines = axes.contour(sweep.betas, sweep.gammas, plane_bg.T, levels=6, colors="white", linewidths=0.6, alpha=0.55)
    axes.clabel(lines, fontsize=6.5, fmt="%.4g")


def _draw_points(axes: Axes, sweep: SweepRecord, metric: str) -> None:
    """Each point with its name in the map, and its value in the legend."""
    drawn: list[tuple[float, float]] = []
    for name, point in sweep.points.items():
        value = point.metrics.get(metric)
        score = "" if value is None else f"  {value:.1f}"
        marker = MARKERS.get(name, "s")
        axes.plot(
            point.beta,
            point.gamma,
            marker,
            ms=15 if marker == "*" else 8.5,
            mfc="white",
            mec=INK,
            mew=1.2,
            ls="",
            label=f"{name}{score}  ({format_point(point.beta, point.gamma)})",
            clip_on=False,
            zorder=5,
        )
        _draw_name(axes, name, (point.beta, point.gamma), drawn, sweep)


def _draw_name(axes: Axes, name: str, point: tuple[float, float], drawn: list[tuple[float, float]], sweep: SweepRecord) -> None:
    """The name beside its point, on the side with room, and away from the names of near points."""
    spans = np.ptp(sweep.betas) or 1.0, np.ptp(sweep.gammas) or 1.0
    near = [other for other in drawn if abs(other[0] - point[0]) < spans[0] / 4 and abs(other[1] - point[1]) < spans[1] / 16]
    drawn.append(point)
    left = point[0] > min(sweep.betas) + spans[0] * 0.7
    text = axes.annotate(
        name,
        point,
        xytext=(-9 if left else 9, -14 if near and near[0][1] >= point[1] else 14 if near else 0),
        textcoords="offset points",
        ha="right" if left else "left",
        va="center",
        fontsize=9.5,
        fontweight="bold",
        color="white",
        zorder=6,
    )
    text.set_path_effects([withStroke(linewidth=2.4, foreground=INK)])


def _draw_frame(axes: Axes, sweep: SweepRecord, metric: str) -> None:
    reported_on = sweep.tuning.reported_on
    half = "" if reported_on == "all queries" else f" · points on the {reported_on}"
    axes.set_title(f"{sweep.label}: {metric_name(metric)}\n", loc="left", fontsize=11, color=INK, fontweight="bold")
    below = f"{sweep.benchmark} {sweep.split} · {sweep.queries:,} queries{half}"
    axes.text(0, 1.02, below, transform=axes.transAxes, fontsize=8.5, color=SOFT)
    axes.set_xlabel("beta: 0 follows the image, 1 follows the texts", color=INK, fontsize=9)
    axes.set_ylabel("gamma: strength of the prompt", color=INK, fontsize=9)
    axes.tick_params(labelsize=8, colors=SOFT)
    axes.spines[:].set_visible(False)
