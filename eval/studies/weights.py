"""Weights chosen without labels, beside what labels give, for every way to say a reference in words: `python -m eval weights`.

Every choice sees one query and how the gallery spreads; none sees a target. Two columns do: one setting of four terms for all
queries, and the best setting of each query, both from the same GRID.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval.benchmarks.base import Benchmark
from eval.runs.compositions import ENSEMBLES, ScoredCompositions
from eval.runs.methods import Method, method_of
from eval.studies.captions import CaptionSetup
from eval.studies.halves import held_out
from mmretrieve import PDV, ComposerName, Composition, weighting
from mmretrieve.directions import Term
from mmretrieve.rules import LINEAR, Product
from mmretrieve.weighting import MIN_DEVIATION, STANDARD_TERMS, Spread, automatic_weights, balanced_weights

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Weigh = Callable[[Composition], Composition]
STEPS = ((1.0,), (-0.75, -0.5, -0.25, 0.0), (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0), (0.0, 0.25, 0.5, 0.75, 1.0))
GRID = np.array(list(product(*STEPS)))  # (points, 4): image, text, composed, prompt, in units of each term's spread
ALL, HELD_OUT = "all", "held-out"
BASE, PUBLISHED, SUM, PRODUCT, BALANCED, AUTO = "base", "PDV-F", "image + prompt", "product", "balanced", "auto"
TUNED, ORACLE = "best four-term grid (labels)", "best per query (labels)"
BARS = (BASE, SUM, PRODUCT)  # what needs no labels and no thought: `auto` must not be below
ENOUGH = 95  # per cent of the grid
AMOUNTS = {"added": weighting.APPEND_AMOUNTS, "carried": weighting.REPLACE_AMOUNTS}
FACTORS = {"halved": 0.5, "doubled": 2.0}


@dataclass(frozen=True)
class WeightsRow:
    """A way to say references in words: whose captions, where there are any, and the method that uses them."""

    label: str
    captions: CaptionSetup | None
    method: Method


def rows() -> list[WeightsRow]:
    """Captions of every source with both rewriters, the ensembles of fifteen, and textual inversion."""
    said = [(source, ComposerName.CAPTIONS, swap) for source in CaptionSetup for swap in (False, True)]
    said += [(CaptionSetup.OWN, composer, swap) for composer in sorted(ENSEMBLES) for swap in (False, True)]
    captions = [WeightsRow(_label(*one), one[0], _method(*one)) for one in said]
    inverted = [method_of(composer) for composer in (ComposerName.SEARLE_OTI, ComposerName.LINCIR)]
    return [*captions, *(WeightsRow(method.label, None, method) for method in inverted)]


def _label(source: CaptionSetup, composer: ComposerName, swap: bool) -> str:
    who = source.value if composer is ComposerName.CAPTIONS else composer.upper()
    return f"{who}, {'swap' if swap else 'template'}"


def _method(source: CaptionSetup, composer: ComposerName, swap: bool) -> Method:
    method = method_of(composer)
    given = source in (CaptionSetup.FIELDS, CaptionSetup.GIVEN)
    return replace(method, swap=swap, way=replace(method.way, given=given))


def measured(benchmark: Benchmark, scored: ScoredCompositions, pdv: PDV, spread: Spread) -> dict[str, Any]:
    """Column → the benchmark's headline over all queries, and over the held-out half; the grid's best point; and sensitivity.

    The grid's figures are of the point that is best on the very queries that they are reported for: no setting of it does better.
    """
    held = held_out(benchmark)
    per_query = {name: values(benchmark, scored, weigh) for name, weigh in choices(pdv, spread).items()}
    grid = on_grid(benchmark, scored, spread)
    columns = {name: _halves(own, held) for name, own in per_query.items()}
    columns[TUNED] = {ALL: float(grid.mean(axis=0).max()), HELD_OUT: float(grid[held].mean(axis=0).max())}
    columns[ORACLE] = _halves(grid.max(axis=1), held)
    return {
        "columns": columns,
        "grid": dict(zip(STANDARD_TERMS, GRID[int(grid.mean(axis=0).argmax())].tolist(), strict=True)),
        "grid, chosen on the other half": float(grid[held, int(grid[~held].mean(axis=0).argmax())].mean()),
        "sensitivity": sensitivity(*_half(benchmark, scored, held), spread),
    }


def choices(pdv: PDV, spread: Spread) -> dict[str, Weigh]:
    """Column → the weights that it gives a query's terms."""
    return {
        BASE: lambda composition: composition,
        PUBLISHED: lambda composition: composition.with_pdv(pdv),
        SUM: lambda composition: composition.with_rule(LINEAR).weighted({Term.IMAGE: 1, Term.PROMPT: 1}),
        PRODUCT: lambda composition: composition.with_rule(Product()),
        BALANCED: lambda composition: balanced_weights(composition, spread),
        AUTO: lambda composition: automatic_weights(composition, spread),
    }


def values(benchmark: Benchmark, scored: ScoredCompositions, weigh: Weigh) -> Floats:
    """(queries,) the benchmark's headline under these weights."""
    return np.asarray(benchmark.per_query(scored.ranked_by(weigh))[:, benchmark.headline])


def on_grid(benchmark: Benchmark, scored: ScoredCompositions, spread: Spread) -> Floats:
    """(queries, points) the headline at every point of GRID, each term in units of its own spread."""

    def folded() -> Iterator[Floats]:
        for composition, scores_tg in scored:
            units = [max(MIN_DEVIATION, spread.deviation(composition[term])) for term in STANDARD_TERMS]
            order = [composition.names.index(term) for term in STANDARD_TERMS]
            yield (GRID / units) @ scores_tg[order]

    return np.asarray(benchmark.per_query(folded())[..., benchmark.headline])


def sensitivity(benchmark: Benchmark, scored: ScoredCompositions, spread: Spread) -> dict[str, dict[str, float]]:
    """Each amount of `automatic_weights`, halved and doubled: the change of the mean headline."""

    def mean() -> float:
        return float(values(benchmark, scored, lambda composition: automatic_weights(composition, spread)).mean())

    before = mean()
    found: dict[str, dict[str, float]] = {}
    for case, amounts in AMOUNTS.items():
        for role in STANDARD_TERMS:
            changes = found[f"{case}, {role}"] = {}
            for name, factor in FACTORS.items():
                with _scaled(amounts, role, factor):
                    changes[name] = mean() - before
    return found


def shortfalls(columns: Mapping[str, Mapping[str, float]], half: str) -> list[str]:
    """Where `auto` is below what it must reach: each of BARS that does better, and ENOUGH per cent of the grid."""
    auto = columns[AUTO][half]
    below = [name for name in BARS if columns[name][half] > auto]
    return [*below, *([TUNED] if share(columns, half) < ENOUGH else [])]


def share(columns: Mapping[str, Mapping[str, float]], half: str) -> float:
    """`auto` in per cent of the grid."""
    return 100 * columns[AUTO][half] / columns[TUNED][half]


@contextmanager
def _scaled(amounts: dict[Term, float], role: Term, factor: float) -> Iterator[None]:
    before = amounts[role]
    amounts[role] = before * factor
    try:
        yield
    finally:
        amounts[role] = before


def _half(benchmark: Benchmark, scored: ScoredCompositions, which: Flags) -> tuple[Benchmark, ScoredCompositions]:
    """Those of the queries, with their compositions."""
    chosen = np.flatnonzero(which).tolist()
    queries = tuple(benchmark.queries[i] for i in chosen)
    return replace(benchmark, queries=queries), ScoredCompositions([scored.compositions[i] for i in chosen], scored.gallery)


def _halves(per_query: Floats, held: Flags) -> dict[str, float]:
    return {ALL: float(per_query.mean()), HELD_OUT: float(per_query[held].mean())}
