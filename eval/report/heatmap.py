"""A drawing of the PDV plane: every ranking that PDV can give, from one method's terms, and what each is worth."""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from eval.report.words import metric_name, setting_point
from mmretrieve import MMRetrieveError

SIZE, DPI = (6.4, 4.9), 200  # inches; shown at 640 pixels, sharp on a dense screen
COLOURS = "cividis"  # perceptually uniform, and the same to eyes that do not tell red from green
INK, SOFT, PAPER = "#2b2622", "#7d736a", "#ffffff"
MARKS = {"base": "o", "published": "D", "best": "*"}
Floats = NDArray[np.float64]


def heatmap(sweep: Mapping[str, Any], metric: str | None = None) -> bytes:
    """A sweep record → PNG of 1280 × 980 pixels: beta by gamma, coloured by `metric` (default: the one it was tuned for).

    The base, published and best points are marked. Raises MMRetrieveError for a metric that the sweep does not hold, or a
    plane that is not (betas, gammas).
    """
    metric = metric or str(sweep["metric"])
    plane_bg = _plane(sweep, metric)
    figure = Figure(figsize=SIZE, dpi=DPI, facecolor=PAPER, layout="constrained")
    axes = figure.add_subplot()
    mesh = axes.pcolormesh(sweep["betas"], sweep["gammas"], plane_bg.T, cmap=COLOURS, shading="nearest", rasterized=True)
    _contours(axes, sweep, plane_bg)
    _marks(axes, sweep, metric)
    _frame(axes, sweep, metric)
    bar = figure.colorbar(mesh, ax=axes, pad=0.02, aspect=28)
    bar.set_label(f"{metric_name(metric)}, points", color=INK, fontsize=9)
    bar.ax.tick_params(labelsize=8, colors=SOFT)
    bar.outline.set_visible(False)
    figure.legend(loc="outside lower left", ncols=1, fontsize=8.5, frameon=False, markerscale=0.7, labelcolor=INK)
    file = BytesIO()
    FigureCanvasAgg(figure)
    figure.savefig(file, format="png", metadata={"Software": None})  # the same bytes from every release
    return file.getvalue()


def _plane(sweep: Mapping[str, Any], metric: str) -> Floats:
    if metric not in sweep["plane"]:
        raise MMRetrieveError(f"the sweep {sweep['name']!r} does not hold {metric!r}; it holds: {', '.join(sweep['plane'])}")
    try:
        plane = np.asarray(sweep["plane"][metric], dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise MMRetrieveError(f"the plane of the sweep {sweep['name']!r} is not a table of numbers ({error})") from error
    expected = len(sweep["betas"]), len(sweep["gammas"])
    if plane.shape != expected:
        raise MMRetrieveError(
            f"the plane of the sweep {sweep['name']!r} is {plane.shape}, expected (betas, gammas) = {expected}"
        )
    return plane


def _contours(axes: Axes, sweep: Mapping[str, Any], plane_bg: Floats) -> None:
    if min(plane_bg.shape) < 2 or np.ptp(plane_bg) == 0:
        return
    lines = axes.contour(sweep["betas"], sweep["gammas"], plane_bg.T, levels=6, colors="white", linewidths=0.6, alpha=0.55)
    axes.clabel(lines, fontsize=6.5, fmt="%.4g")


def _marks(axes: Axes, sweep: Mapping[str, Any], metric: str) -> None:
    """Each point with its name, on the side where there is room, and its number in the legend."""
    taken: list[tuple[float, float]] = []
    for name, point in sweep["points"].items():
        beta, gamma = point["beta"], point["gamma"]
        value = point["metrics"].get(metric)
        score = "" if value is None else f"  {value:.1f}"
        label = f"{name}{score}  ({setting_point(beta, gamma)})"
        mark = MARKS.get(name, "s")
        axes.plot(
            beta,
            gamma,
            mark,
            ms=15 if mark == "*" else 8.5,
            mfc="white",
            mec=INK,
            mew=1.2,
            ls="",
            label=label,
            clip_on=False,
            zorder=5,
        )
        _name(axes, name, (beta, gamma), taken, sweep)


def _name(
    axes: Axes, name: str, place: tuple[float, float], taken: list[tuple[float, float]], sweep: Mapping[str, Any]
) -> None:
    spans = np.ptp(sweep["betas"]) or 1.0, np.ptp(sweep["gammas"]) or 1.0
    near = [other for other in taken if abs(other[0] - place[0]) < spans[0] / 4 and abs(other[1] - place[1]) < spans[1] / 16]
    taken.append(place)
    left = place[0] > min(sweep["betas"]) + spans[0] * 0.7
    text = axes.annotate(
        name,
        place,
        xytext=(-9 if left else 9, -14 if near and near[0][1] >= place[1] else 14 if near else 0),
        textcoords="offset points",
        ha="right" if left else "left",
        va="center",
        fontsize=9.5,
        fontweight="bold",
        color="white",
        zorder=6,
    )
    text.set_path_effects([withStroke(linewidth=2.4, foreground=INK)])


def _frame(axes: Axes, sweep: Mapping[str, Any], metric: str) -> None:
    tuning: Mapping[str, str] = sweep.get("tuning") or {}
    title = f"{sweep['label']}: {metric_name(metric)}"
    below = f"{sweep['benchmark']} {sweep['split']} · {sweep['queries']:,} queries{_halves(tuning)}"
    axes.set_title(f"{title}\n", loc="left", fontsize=11, color=INK, fontweight="bold")
    axes.text(0, 1.02, below, transform=axes.transAxes, fontsize=8.5, color=SOFT)
    axes.set_xlabel("beta:  0 follows the picture, 1 follows the words", color=INK, fontsize=9)
    axes.set_ylabel("gamma:  how much the prompt counts", color=INK, fontsize=9)
    axes.tick_params(labelsize=8, colors=SOFT)
    axes.spines[:].set_visible(False)


def _halves(tuning: Mapping[str, str]) -> str:
    on = tuning.get("reported on", "all queries")
    return "" if on == "all queries" else f" · points on the {on}"
