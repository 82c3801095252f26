"""The results of studies as the Markdown tables of README and docs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from eval.report.formatting import format_signed
from eval.studies.inputs import ALL, HELD_OUT
from eval.studies.weights import FACTORS, grid_share, list_shortfalls
from mmretrieve import MMRetrieveError
from mmretrieve.options import AUTO, BALANCED

WEIGHT_COLUMNS = ("PDV-F", BALANCED, AUTO)


def methods_table(results: Sequence[Mapping[str, Any]], metric: str = "map@10") -> str:
    """Methods by benchmarks: each method with its own weights, and with every other weighting that was measured (▼ where lower)."""
    weights = [name for name in WEIGHT_COLUMNS if any(name in row for result in results for row in result["methods"].values())]
    head = [cell for result in results for cell in (result["benchmark"], *(f"+ {name}" for name in weights))]
    labels = list(dict.fromkeys(label for result in results for label in result["methods"]))
    rows = [["method", *head]]
    rows += [
        [label, *(cell for result in results for cell in _method_cells(result["methods"].get(label), metric, weights))]
        for label in labels
    ]
    return _to_markdown(rows)


def weights_table(result: Mapping[str, Any]) -> str:
    """Sources of captions by weights, over all queries and in brackets over the held-out half; ▼ where `auto` falls short."""
    columns = list(next(iter(next(iter(result.values()))["rows"].values()))["columns"])
    rows = [["set", "references in words by", *columns, f"{AUTO} in % of the grid"]]
    for benchmark, study in result.items():
        rows += [[benchmark, label, *_weights_cells(row["columns"])] for label, row in study["rows"].items()]
    return _to_markdown(rows)


def sensitivity_table(result: Mapping[str, Any]) -> str:
    """Constants of `automatic` by sets: the mean change over all rows where one is halved or doubled, and the worst row's."""
    sets = [list(study["rows"].values()) for study in result.values()]
    rows = [["amount", *(f"{benchmark}, {factor}" for benchmark in result for factor in FACTORS)]]
    for amount in sets[0][0]["sensitivity"]:
        changes = [[row["sensitivity"][amount][factor] for row in own] for own in sets for factor in FACTORS]
        rows.append([amount, *(f"{format_signed(sum(each) / len(each))} ({format_signed(min(each))})" for each in changes)])
    return _to_markdown(rows)


def answerable_table(result: Mapping[str, Any]) -> str:
    """Kinds of requests by how well `answerable` separates them, over all and in brackets over the held-out half."""
    kinds = [kind for study in result["sets"].values() for kind in study["kinds"].values()]
    names = list(dict.fromkeys(name for kind in kinds for name in kind[ALL]))
    rows = [["set", "request", *names]]
    for benchmark, study in result["sets"].items():
        rows += [[benchmark, kind, *(_both_halves(halves, name) for name in names)] for kind, halves in study["kinds"].items()]
    return _to_markdown(rows)


def avoid_table(shares: Mapping[str, Mapping[str, Mapping[str, Sequence[float]]]]) -> str:
    """Forms of a request by the percentage of hits that show each attribute, on average, and that are of the same kind."""
    phrases = list(next(iter(next(iter(shares.values())).values())))
    rows = [["request", "search", *phrases, "**mean**", "same kind"]]
    for form, searches in shares.items():
        for name, own in searches.items():
            mean, kind = (sum(each) / len(each) for each in zip(*own.values(), strict=True))
            cells = [f"{own[phrase][0]:.0f}" for phrase in phrases]
            rows.append([form.format("X"), name, *cells, f"**{mean:.0f}**", f"{kind:.0f}"])
    return _to_markdown(rows)


def judges_table(result: Mapping[str, Mapping[str, Any]]) -> str:
    """Judges and their weights by recall@1 and recall@10 of each set, with the interval of the difference that they make to recall@1."""
    rows = [["judge", "judge_weight", *_recall_columns(result)]]
    rows.append(["none", "–", *(cell for own in result.values() for cell in _recall_cells(own["without"]))])
    for judge, weights in next(iter(result.values()))["judges"].items():
        for weight in weights:
            cells = (cell for own in result.values() for cell in _recall_cells(own["judges"][judge][weight]))
            rows.append([judge, weight, *cells])
    return _to_markdown(rows)


def ablation_table(result: Mapping[str, Mapping[str, Any]]) -> str:
    """The steps of MulVec by recall@1 and recall@10 of each set, with the interval of the difference to the step before."""
    return _steps_table("scores", {name: own["ablation"] for name, own in result.items()})


def first_stage_table(result: Mapping[str, Mapping[str, Any]]) -> str:
    """Whole images and their best patches by recall@1 and recall@10 of each set, with the interval of the difference."""
    return _steps_table("the prompt is compared with", {name: own["first stage"] for name, own in result.items()})


def sessions_table(result: Mapping[str, Mapping[str, Mapping[str, Sequence[float]]]]) -> str:
    """Kinds of sessions and of references by the ways to merge turns: the percentage of sessions with a target in the ten best, by turn."""
    names = list(next(iter(next(iter(result.values())).values())))
    rows = [["session", "reference", *names]]
    for kind, references in result.items():
        for reference, own in references.items():
            rows.append([kind, reference, *(" → ".join(f"{share:.0f}" for share in own[name]) for name in names)])
    return _to_markdown(rows)


def axes_table(result: Mapping[str, Mapping[str, Any]]) -> str:
    """Attributes by kinds of axes: Spearman's correlation, beside the largest that ties allow; ± the deviation over draws of examples."""
    names = [name for name in next(iter(next(iter(result.values()))["attributes"].values())) if name != "items"]
    rows = [["set", "attribute", "items", *names]]
    for benchmark, study in result.items():
        for label, own in study["attributes"].items():
            rows.append([benchmark, label, f"{own['items']:,}", *(_mean_cell(own[name]) for name in names)])
    return _to_markdown(rows)


def paraphrases_table(result: Mapping[str, Mapping[str, Any]]) -> str:
    """Numbers of wordings by the variances of vectors and of recall@1 between groups of wordings, and the mean of recall@1."""
    columns = ("variance of vectors", "variance of R@1", "R@1")
    rows = [["wordings", *(f"{name}, {column}" for name in result for column in columns)]]
    for size in next(iter(result.values()))["wordings"]:
        rows.append([size, *(cell for own in result.values() for cell in _wordings_cells(own["wordings"][size]))])
    return _to_markdown(rows)


def fill_table(text: str, table: str, name: str = "table") -> str:
    """`text` with `table` between the two markers of that name. MMRetrieveError where the markers are missing."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before, found_begin, rest = text.partition(begin)
    _, found_end, after = rest.partition(end)
    if not found_begin or not found_end:
        raise MMRetrieveError(f"no place for the {name}: expected a line {begin!r} and, below it, a line {end!r}")
    return f"{before}{begin}\n{table}\n{end}{after}"


def _mean_cell(value: float | Sequence[float]) -> str:
    """A number, or a mean and its deviation."""
    return f"{value:.2f}" if isinstance(value, float) else " ± ".join(f"{number:.2f}" for number in value)


def _wordings_cells(own: Mapping[str, Any]) -> list[str]:
    """The variances between groups, "–" for a single group, and the mean of recall@1."""
    variances = (f"{own[name]:.4f}" if name in own else "–" for name in ("vector variance", "recall variance"))
    return [*variances, f"{own['metrics']['recall@1']:.1f}"]


def _steps_table(title: str, sets: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    """Set → step → recall and the gain over the step before."""
    rows = [[title, *_recall_columns(sets)]]
    rows += [
        [step, *(cell for own in sets.values() for cell in _recall_cells(own[step]))] for step in next(iter(sets.values()))
    ]
    return _to_markdown(rows)


def _recall_columns(sets: Iterable[str]) -> list[str]:
    return [f"{name}, {column}" for name in sets for column in ("R@1", "gain of R@1", "R@10")]


def _recall_cells(measured: Mapping[str, Mapping[str, float]]) -> list[str]:
    gain = "{difference:+.1f} ({low:+.1f} to {high:+.1f})".format(**measured["gain"]) if "gain" in measured else "–"
    return [f"{measured['metrics']['recall@1']:.1f}", gain, f"{measured['metrics']['recall@10']:.1f}"]


def _both_halves(halves: Mapping[str, Mapping[str, float]], name: str) -> str:
    """One figure over all queries, and in brackets over the held-out half."""
    digits = 2 if name.startswith("AUROC") else 0
    return f"{halves[ALL][name]:.{digits}f} ({halves[HELD_OUT][name]:.{digits}f})" if name in halves[ALL] else "–"


def _weights_cells(columns: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Each column as "all (held-out)"."""
    marks = {half: " ▼" if list_shortfalls(columns, half) else "" for half in (ALL, HELD_OUT)}
    cells = [
        f"{own[ALL]:.1f}{marks[ALL] if name == AUTO else ''} ({own[HELD_OUT]:.1f}{marks[HELD_OUT] if name == AUTO else ''})"
        for name, own in columns.items()
    ]
    return [*cells, f"{grid_share(columns, ALL):.0f} ({grid_share(columns, HELD_OUT):.0f})"]


def _method_cells(row: Mapping[str, Any] | None, metric: str, weights: Sequence[str]) -> list[str]:
    if row is None:
        return ["–"] * (1 + len(weights))
    base = row["base"][metric]
    return [f"{base:.1f}", *(_compared_cell(base, row[name][metric]) if name in row else "–" for name in weights)]


def _compared_cell(base: float, value: float) -> str:
    return f"{value:.1f}{' ▼' if value < base else ''}"


def _to_markdown(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells as a Markdown table; the first row is the head."""
    return "\n".join(f"| {' | '.join(row)} |" for row in [rows[0], ["---"] * len(rows[0]), *rows[1:]])
