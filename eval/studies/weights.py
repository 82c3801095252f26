"""Label-free weights compared with the best weights that labels could give, for captions of every source: `python -m eval weights`.

A label-free choice sees one query and the spread of the gallery, and never a target. Two columns do use labels: one setting of
four terms for all queries, and the best setting of each query, both from the same GRID.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval.runs.compositions import ComposedBenchmark
from eval.studies.inputs import ALL, HELD_OUT, CaptionSetup, Method, find_method, held_out_queries
from mmretrieve import PDV, ComposerName, Composition, weighting
from mmretrieve.directions import Term
from mmretrieve.options import AUTO, BALANCED, BASE
from mmretrieve.registry import COMPOSERS
from mmretrieve.rules import LINEAR, Product
from mmretrieve.weighting import MIN_DEVIATION, STANDARD_TERMS, Spread, automatic_weights, balanced_weights

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Weigh = Callable[[Composition], Composition]
STEPS = ((1.0,), (-0.75, -0.5, -0.25, 0.0), (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0), (0.0, 0.25, 0.5, 0.75, 1.0))
GRID = np.array(list(product(*STEPS)))  # (points, 4): image, text, composed, prompt, in units of each term's spread
PUBLISHED, SUM, PRODUCT = "PDV-F", "image + prompt", "product"
TUNED, ORACLE = "best four-term grid (labels)", "best per query (labels)"
SIMPLE = (BASE, SUM, PRODUCT)  # label-free choices that `auto` must at least equal
MIN_GRID_SHARE = 95  # percent of the tuned grid that `auto` must reach
AMOUNTS = {"added": weighting.APPEND_AMOUNTS, "carried": weighting.REPLACE_AMOUNTS}
FACTORS = {"halved": 0.5, "doubled": 2.0}


def list_rows() -> list[tuple[CaptionSetup | None, Method]]:
    """Captions of every source with both rewriters, the ensembles of fifteen captions, and textual inversion without captions."""
    setups = [(source, ComposerName.CAPTIONS, swap) for source in CaptionSetup for swap in (False, True)]
    ensembles = [name for name in ComposerName if COMPOSERS[name].makes_captions]
    setups += [(CaptionSetup.OWN, composer, swap) for composer in ensembles for swap in (False, True)]
    with_captions = [(source, _captions_method(source, composer, swap)) for source, composer, swap in setups]
    return [*with_captions, *((None, find_method(composer)) for composer in (ComposerName.SEARLE_OTI, ComposerName.LINCIR))]


def measure_weights(composed: ComposedBenchmark, pdv: PDV) -> dict[str, Any]:
    """The benchmark's headline by column, over all queries and over the held-out half; the best grid point; and sensitivity.

    The columns with labels report the point that is best on the very queries they report on, so no setting of the grid is better.

    Parameters
    ----------
    composed : the queries, with the terms image, text, composed and prompt.
    pdv : the published setting of the method.
    """
    held_out = held_out_queries(composed.benchmark)
    values = {name: headline_values(composed, weigh) for name, weigh in weight_choices(pdv, composed.spread).items()}
    grid = grid_values(composed)
    columns = {name: _mean_by_half(own, held_out) for name, own in values.items()}
    columns[TUNED] = {ALL: float(grid.mean(axis=0).max()), HELD_OUT: float(grid[held_out].mean(axis=0).max())}
    columns[ORACLE] = _mean_by_half(grid.max(axis=1), held_out)
    return {
        "columns": columns,
        "grid": dict(zip(STANDARD_TERMS, GRID[int(grid.mean(axis=0).argmax())].tolist(), strict=True)),
        "grid, chosen on the other half": float(grid[held_out, int(grid[~held_out].mean(axis=0).argmax())].mean()),
        "sensitivity": measure_sensitivity(_select_queries(composed, held_out)),
    }


def weight_choices(pdv: PDV, spread: Spread) -> dict[str, Weigh]:
    """Column → the function that gives a composition its weights."""
    return {
        BASE: lambda composition: composition,
        PUBLISHED: lambda composition: composition.with_pdv(pdv),
        SUM: lambda composition: composition.with_rule(LINEAR).weighted({Term.IMAGE: 1, Term.PROMPT: 1}),
        PRODUCT: lambda composition: composition.with_rule(Product()),
        BALANCED: lambda composition: balanced_weights(composition, spread),
        AUTO: lambda composition: automatic_weights(composition, spread),
    }


def headline_values(composed: ComposedBenchmark, weigh: Weigh) -> Floats:
    """(queries,) the benchmark's headline with these weights."""
    return np.asarray(composed.measure(weigh)[:, composed.benchmark.headline_column])


def grid_values(composed: ComposedBenchmark) -> Floats:
    """(queries, points) the headline at every point of GRID, with each term in units of its spread."""
    benchmark = composed.benchmark

    def grid_scores() -> Iterator[Floats]:
        for composition, scores_tg in composed:
            units = [max(MIN_DEVIATION, composed.spread.deviation(composition[term])) for term in STANDARD_TERMS]
            order = [composition.names.index(term) for term in STANDARD_TERMS]
            yield (GRID / units) @ scores_tg[order]

    return np.asarray(benchmark.measure_scores(grid_scores())[..., benchmark.headline_column])


def measure_sensitivity(composed: ComposedBenchmark) -> dict[str, dict[str, float]]:
    """The change of the mean headline when each constant of `automatic` is halved or doubled."""

    def mean_headline() -> float:
        return float(headline_values(composed, lambda composition: automatic_weights(composition, composed.spread)).mean())

    before = mean_headline()
    changes: dict[str, dict[str, float]] = {}
    for case, amounts in AMOUNTS.items():
        for role in STANDARD_TERMS:
            changes[f"{case}, {role}"] = {}
            for name, factor in FACTORS.items():
                with scale_amount(amounts, role, factor):
                    changes[f"{case}, {role}"][name] = mean_headline() - before
    return changes


@contextmanager
def scale_amount(amounts: dict[Term, float], role: Term, factor: float) -> Iterator[None]:
    """Multiplies one constant of `automatic` inside the block."""
    before = amounts[role]
    amounts[role] = before * factor
    try:
        yield
    finally:
        amounts[role] = before


def list_shortfalls(columns: Mapping[str, Mapping[str, float]], half: str) -> list[str]:
    """The columns that `auto` should reach and does not: SIMPLE choices, and MIN_GRID_SHARE percent of the grid."""
    auto = columns[AUTO][half]
    better = [name for name in SIMPLE if columns[name][half] > auto]
    return [*better, *([TUNED] if grid_share(columns, half) < MIN_GRID_SHARE else [])]


def grid_share(columns: Mapping[str, Mapping[str, float]], half: str) -> float:
    """`auto` in percent of the grid."""
    return 100 * columns[AUTO][half] / columns[TUNED][half]


def _captions_method(source: CaptionSetup, composer: ComposerName, swap: bool) -> Method:
    """The method of a composer with captions of a source, labeled by both."""
    method = find_method(composer)
    name = source.value if composer is ComposerName.CAPTIONS else composer.upper()
    config = replace(method.config, benchmark_captions=source in (CaptionSetup.FIELDS, CaptionSetup.GIVEN))
    return replace(method, label=f"{name}, {'swap' if swap else 'template'}", swap=swap, config=config)


def _select_queries(composed: ComposedBenchmark, selected: Flags) -> ComposedBenchmark:
    rows = np.flatnonzero(selected).tolist()
    benchmark = replace(composed.benchmark, queries=tuple(composed.benchmark.queries[i] for i in rows))
    return replace(composed, benchmark=benchmark, compositions=[composed.compositions[i] for i in rows])


def _mean_by_half(values: Floats, held_out: Flags) -> dict[str, float]:
    return {ALL: float(values.mean()), HELD_OUT: float(values[held_out].mean())}
