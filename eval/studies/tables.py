"""Comparisons of all methods as the Markdown tables that README and docs hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from eval.report.words import signed
from eval.studies.weights import ALL, AUTO, FACTORS, HELD_OUT, share, shortfalls
from mmretrieve import MMRetrieveError

TABLE = "table"  # the name of a text's first table
WEIGHED = ("PDV-F", "balanced", "auto")


def markdown(results: Sequence[dict[str, Any]], metric: str = "map@10") -> str:
    """One Markdown table over several benchmarks: each method alone, and what the weights that were measured make of it (▼ where they lose)."""
    weighed = [name for name in WEIGHED if any(name in found for result in results for found in result["methods"].values())]
    heads = [cell for result in results for cell in (result["benchmark"], *(f"+ {name}" for name in weighed))]
    labels = list(dict.fromkeys(label for result in results for label in result["methods"]))
    rows = [["method", *heads]]
    rows += [[label, *(cell for r in results for cell in _cells(r["methods"].get(label), metric, weighed))] for label in labels]
    return _table(rows)


def weights_table(result: Mapping[str, Any]) -> str:
    """Ways to say references by columns of weights, over all queries and in brackets over the held-out half; ▼ where `auto` falls short."""
    names = list(next(iter(next(iter(result.values()))["rows"].values()))["columns"])
    rows = [["set", "references in words by", *names, f"{AUTO} in % of the grid"]]
    for benchmark, found in result.items():
        rows += [[benchmark, label, *_weighed_cells(row["columns"])] for label, row in found["rows"].items()]
    return _table(rows)


def sensitivity_table(result: Mapping[str, Any]) -> str:
    """Amounts of `automatic` by sets: the mean change over all rows where one is halved or doubled, and the worst row's."""
    sets = [list(found["rows"].values()) for found in result.values()]
    head = [f"{benchmark}, {factor}" for benchmark in result for factor in FACTORS]
    rows = [["amount", *head]]
    for amount in sets[0][0]["sensitivity"]:
        changes = [[row["sensitivity"][amount][factor] for row in own] for own in sets for factor in FACTORS]
        rows.append([amount, *(f"{signed(sum(each) / len(each))} ({signed(min(each))})" for each in changes)])
    return _table(rows)


def answerable_table(result: Mapping[str, Any]) -> str:
    """Kinds of requests by how well `answerable` tells them apart, over all and in brackets over the held-out half."""
    names = list(
        dict.fromkeys(name for found in result["sets"].values() for kind in found["kinds"].values() for name in kind[ALL])
    )
    rows = [["set", "request", *names]]
    for benchmark, found in result["sets"].items():
        rows += [[benchmark, kind, *(_both(halves, name) for name in names)] for kind, halves in found["kinds"].items()]
    return _table(rows)


def avoid_table(found: Mapping[str, Mapping[str, Mapping[str, Sequence[float]]]]) -> str:
    """Ways to ask by what of the ten best shows what it should not, for each attribute, on average, and how many keep the kind."""
    phrases = list(next(iter(next(iter(found.values())).values())))
    rows = [["asked", "search", *phrases, "**mean**", "same kind"]]
    for way, searches in found.items():
        for name, shares in searches.items():
            mean, kind = (sum(each) / len(each) for each in zip(*shares.values(), strict=True))
            rows.append(
                [way.format("X"), name, *(f"{shares[phrase][0]:.0f}" for phrase in phrases), f"**{mean:.0f}**", f"{kind:.0f}"]
            )
    return _table(rows)


def _both(halves: Mapping[str, Mapping[str, float]], name: str) -> str:
    """One figure over all queries, and in brackets over the held-out half."""
    digits = 2 if name.startswith("AUROC") else 0
    return f"{halves[ALL][name]:.{digits}f} ({halves[HELD_OUT][name]:.{digits}f})" if name in halves[ALL] else "–"


def _weighed_cells(columns: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Each column as "all (held-out)"."""
    marks = {half: " ▼" if shortfalls(columns, half) else "" for half in (ALL, HELD_OUT)}
    cells = [
        f"{own[ALL]:.1f}{marks[ALL] if name == AUTO else ''} ({own[HELD_OUT]:.1f}{marks[HELD_OUT] if name == AUTO else ''})"
        for name, own in columns.items()
    ]
    return [*cells, f"{share(columns, ALL):.0f} ({share(columns, HELD_OUT):.0f})"]


def _table(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells as Markdown, the first for the head."""
    return "\n".join(f"| {' | '.join(row)} |" for row in [rows[0], ["---"] * len(rows[0]), *rows[1:]])


def fill(text: str, inner: str, name: str = TABLE) -> str:
    """`text` with `inner` between the two markers of that name. MMRetrieveError where they are not there."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before, found, rest = text.partition(begin)
    _, found_too, after = rest.partition(end)
    if not found or not found_too:
        raise MMRetrieveError(f"no place for the {name}: expected a line {begin!r} and, below it, a line {end!r}")
    return f"{before}{begin}\n{inner}\n{end}{after}"


def _cells(found: dict[str, Any] | None, metric: str, weighed: Sequence[str]) -> list[str]:
    if found is None:
        return ["–"] * (1 + len(weighed))
    base = found["base"][metric]
    return [f"{base:.1f}", *(_against(base, found[name][metric]) if name in found else "–" for name in weighed)]


def _against(base: float, value: float) -> str:
    return f"{value:.1f}{' ▼' if value < base else ''}"
