"""Comparisons of all methods as the Markdown tables that README and docs hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmretrieve import MMRetrieveError

BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"
WEIGHED = ("PDV-F", "balanced")


def markdown(results: Sequence[dict[str, Any]], metric: str = "map@10") -> str:
    """One Markdown table over several benchmarks: each method alone, and what other weights make of it (▼ where they lose)."""
    heads = [cell for result in results for cell in (result["benchmark"], *(f"+ {name}" for name in WEIGHED))]
    labels = list(dict.fromkeys(label for result in results for label in result["methods"]))
    rows = [["method", *heads], ["---"] * (1 + len(heads))]
    rows += [[label, *(cell for r in results for cell in _cells(r["methods"].get(label), metric))] for label in labels]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def weights_table(result: dict[str, Any], metric: str = "map@10") -> str:
    """Rules by sets as Markdown, then the ceilings."""
    rules = list(next(iter(result.values()))["rules"])
    rows = [["", *result], ["---"] * (1 + len(result))]
    rows += [[rule, *(f"{found['rules'][rule][metric]:.1f}" for found in result.values())] for rule in rules]
    rows += [
        [f"*{ceiling}*", *(f"{found['ceilings'][ceiling]:.1f}" for found in result.values())]
        for ceiling in next(iter(result.values()))["ceilings"]
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def fill(text: str, inner: str) -> str:
    """`text` with `inner` between its two markers. MMRetrieveError where they are not there."""
    before, found, rest = text.partition(BEGIN)
    _, found_too, after = rest.partition(END)
    if not found or not found_too:
        raise MMRetrieveError(f"no place for the table: expected a line {BEGIN!r} and, below it, a line {END!r}")
    return f"{before}{BEGIN}\n{inner}\n{END}{after}"


def _cells(found: dict[str, Any] | None, metric: str) -> list[str]:
    if found is None:
        return ["–"] * (1 + len(WEIGHED))
    base = found["base"][metric]
    return [f"{base:.1f}", *(_against(base, found[name][metric]) if name in found else "–" for name in WEIGHED)]


def _against(base: float, value: float) -> str:
    return f"{value:.1f}{' ▼' if value < base else ''}"
