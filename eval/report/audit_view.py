"""The audit as the page shows it: how many queries need what, every metric by need, and queries of each need."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eval.metrics import UNRANKED
from eval.report.audit import IMAGE, PROMPT, Audit, Need, QueryKey, audit_queries, split_metric
from eval.report.cases import MAX_CASES, QueryCase, Thumbnails, describe_case, hit_ids
from eval.report.formatting import format_count, format_number, metric_name
from eval.report.groups import ComparisonGroup
from eval.report.loading import EvaluatedRun
from eval.runs.records import QueryResult

ABOUT = {
    Need.IMAGE: "The image alone has a target among the first {k} hits, and the prompt alone does not.",
    Need.PROMPT: "The prompt alone has a target among the first {k} hits, and the image alone does not.",
    Need.EITHER: "Both the image alone and the prompt alone have a target among the first {k} hits.",
    Need.BOTH: "Neither the image nor the prompt alone has a target among the first {k} hits, and the best run has.",
    Need.UNSOLVED: "No run has a target among the first {k} hits.",
}
CASE_COUNTS = {Need.BOTH: MAX_CASES, Need.IMAGE: 1, Need.PROMPT: 1, Need.EITHER: 1, Need.UNSOLVED: 1}


def describe_audit(group: ComparisonGroup, thumbnails: Thumbnails) -> dict[str, Any] | None:
    """The audit for `templates/tables.html` and `templates/cases.html`; None where no run recorded single terms."""
    audit, first = audit_queries(group), audit_queries(group, 1)
    if audit is None or first is None:
        return None
    audits = [audit] if audit.k == 1 else [first, audit]
    headline = group.runs[0].headline
    metrics = sorted(audit.metrics, key=lambda metric: metric != headline)
    return {
        "lead": " ".join(map(summarize_audit, audits)),
        "depths": [f"k = {one.k}" for one in audits],
        "shares": [(need.value, [_format_share(one, need) for one in audits]) for need in Need],
        "columns": [f"{need.value}, {len(keys):,}" for need, keys in audit.queries.items()],
        "tables": [_describe_split(group, audit, metric) for metric in metrics],
        "cases": _describe_cases(group, audit, thumbnails),
    }


def summarize_audit(audit: Audit) -> str:
    """How many of the solved queries need the image and the prompt together."""
    both = len(audit.queries[Need.BOTH])
    hits = "At the first hit" if audit.k == 1 else f"Among the first {audit.k} hits"
    if not audit.solved:
        return f"{hits}, no query is solved."
    return (
        f"{hits}, {format_count(audit.solved, 'query')} of {len(audit.needs):,} "
        f"{'is' if audit.solved == 1 else 'are'} solved, and {both:,} of these ({100 * both / audit.solved:.0f}%) "
        f"{'needs' if both == 1 else 'need'} both the image and the prompt."
    )


def select_queries(run: EvaluatedRun, audit: Audit, need: Need, count: int = MAX_CASES) -> tuple[QueryKey, ...]:
    """Queries of one need: best rank in the run first, among equals the one that the single terms rank lowest.

    Of the queries that need both, those that this run solves.
    """
    ranks = {key: _rank(_result(run, key)) for key in audit.queries[need]}
    keys = [key for key, rank in ranks.items() if need is not Need.BOTH or rank <= audit.k]
    return tuple(sorted(keys, key=lambda key: (ranks[key], -_best_single_rank(audit, key), key))[:count])


def _describe_cases(group: ComparisonGroup, audit: Audit, thumbnails: Thumbnails) -> list[dict[str, Any]]:
    """Queries of each need, with the hits of the image alone, of the prompt alone and of the best run."""
    run = group.runs[0]
    selections = {need: select_queries(run, audit, need, count) for need, count in CASE_COUNTS.items()}
    return [
        {
            "title": need.value.capitalize(),
            "about": ABOUT[need].format(k=audit.k),
            "cases": [_describe_query(run, group.title(run), audit, key, thumbnails) for key in keys],
        }
        for need, keys in selections.items()
        if keys
    ]


def _describe_query(run: EvaluatedRun, title: str, audit: Audit, key: QueryKey, thumbnails: Thumbnails) -> dict[str, Any]:
    result, single = _result(run, key), _result(audit.reference, key).single_terms
    rankings = [(f"{term} alone, rank {single[term].rank:,}", single[term].hits) for term in (IMAGE, PROMPT)]
    return describe_case(
        QueryCase(key[0], result),
        thumbnails,
        len(run.parts) > 1,
        [*rankings, (f"{title}, rank {_rank(result):,}", hit_ids(result))],
    )


def _describe_split(group: ComparisonGroup, audit: Audit, metric: str) -> dict[str, Any]:
    """One metric by need: the runs, then the single terms."""
    rows: dict[str, Mapping[Need, float | None]] = {
        group.title(run): split_metric(run, metric, audit) for run in group.runs if metric in run.queries_record.metrics
    }
    rows |= {f"{term} alone": split_metric(audit.reference, metric, audit, term) for term in (IMAGE, PROMPT)}
    return {
        "metric": metric_name(metric),
        "rows": [(label, [format_number(values[need]) for need in Need]) for label, values in rows.items()],
    }


def _format_share(audit: Audit, need: Need) -> str:
    count = len(audit.queries[need])
    return f"{count:,} ({100 * count / len(audit.needs):.0f}%)"


def _result(run: EvaluatedRun, key: QueryKey) -> QueryResult:
    part, i = key
    return run.results[part][i]


def _rank(result: QueryResult) -> int:
    return UNRANKED if result.target is None else result.target.rank


def _best_single_rank(audit: Audit, key: QueryKey) -> int:
    return min(single.rank for single in _result(audit.reference, key).single_terms.values())
