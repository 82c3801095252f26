"""How far `answerable` can be taken at its word: of queries that get 0.8, has the gallery what eight of ten ask for?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from eval.studies.answerable import PRESENT, CaseEvidence, shares_of
from mmretrieve.options import NO_MATCH

SIZE, DPI = (4.0, 3.4), 130
Bins = list[tuple[float, float, float]]
"""Of each bin the mean of `answerable`, the share of its queries that are present, and its weight among all."""


def reliability(sets: Sequence[CaseEvidence], bins: int = 10, *, held: bool) -> list[tuple[float, float, float]]:
    """(mean answerable, share that is present, weight) by bins of `answerable`, with the weights of `refitted`."""
    values = np.concatenate([one.answerable[one.held == held] for one in sets])
    right = np.concatenate([one.case[one.held == held] == PRESENT for one in sets])
    shares = np.concatenate([shares_of(one.case[one.held == held]) for one in sets]) / len(sets)
    places = np.minimum((values * bins).astype(int), bins - 1)
    inside = [places == i for i in range(bins) if (places == i).any()]
    return [
        (
            float(np.average(values[own], weights=shares[own])),
            float(np.average(right[own], weights=shares[own])),
            float(shares[own].sum()),
        )
        for own in inside
    ]


def drawn(lines: Mapping[str, Bins]) -> bytes:
    """Name → bins as a PNG: what was said against what was true, the larger the point the more queries."""
    figure = Figure(figsize=SIZE, dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], color="#b8b0a6", linewidth=1, zorder=0)
    axes.axvline(NO_MATCH, color="#b8b0a6", linewidth=1, linestyle=":", zorder=0)
    for name, bins in lines.items():
        said, true, weight = np.array(bins).T
        (line,) = axes.plot(said, true, linewidth=1.2, label=name)
        axes.scatter(said, true, s=8 + 160 * weight / weight.sum(), color=line.get_color())
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="answerable", ylabel="share that has an answer")
    axes.legend(fontsize=7.5, frameon=False, loc="upper left")
    file = BytesIO()
    FigureCanvasAgg(figure)
    figure.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()
