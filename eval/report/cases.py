"""The queries that the page shows: the best, the worst and the most changed ones, with images and contributions of terms."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import log
from typing import Any

from eval.report.formatting import format_number, format_signed
from eval.report.groups import ComparisonGroup
from eval.report.loading import EvaluatedRun
from eval.runs.records import QueryResult, ScoredItem
from mmretrieve import MMRetrieveError
from mmretrieve.images import ImageLike, open_image, thumbnail

ImageLoader = Callable[[str, str], ImageLike]
"""(part, id) → image: `lambda part, id_: benchmarks[part].load_image(id_)`."""
MAX_CASES = 3
MAX_TARGETS = 6
THUMBNAIL_SIDE = 176  # pixels; shown at half of it, which is sharp on a dense screen
COLORED_ROLES = ("image", "text", "composed", "prompt")
"""Roles with a color of their own; "composed 2" has that of composed."""


@dataclass(frozen=True, eq=False)
class QueryCase:
    """A query of `part` with its result in one run, and in `other`, where two runs are compared."""

    part: str
    result: QueryResult
    other: QueryResult | None = None

    @property
    def improvement(self) -> float:
        """How far the target moved up: the logarithm of the ratio of its ranks, so that 100 → 10 equals 10 → 1."""
        if self.other is None or self.other.target is None or self.result.target is None:
            return 0.0
        return log(self.other.target.rank / self.result.target.rank)


def select_best(run: EvaluatedRun, count: int = MAX_CASES) -> tuple[QueryCase, ...]:
    """Highest headline first; among equals the better rank, then the larger lead over the best hit that is not a target."""
    cases = _cases_with_values(run)
    return tuple(sorted(cases, key=lambda case: (-_value(run, case), _rank(case), -_lead(case.result)))[:count])


def select_worst(run: EvaluatedRun, count: int = MAX_CASES) -> tuple[QueryCase, ...]:
    """Lowest headline first; among equals the target with the highest rank number."""
    return tuple(sorted(_cases_with_values(run), key=lambda case: (_value(run, case), -_rank(case)))[:count])


def select_improved(run: EvaluatedRun, other: EvaluatedRun, count: int = MAX_CASES) -> tuple[QueryCase, ...]:
    """The queries whose target moves up most from `other` to `run`."""
    cases = [case for case in _paired_cases(run, other) if case.improvement > 0]
    return tuple(sorted(cases, key=lambda case: -case.improvement)[:count])


def select_worsened(run: EvaluatedRun, other: EvaluatedRun, count: int = MAX_CASES) -> tuple[QueryCase, ...]:
    """The queries whose target moves down most from `other` to `run`."""
    cases = [case for case in _paired_cases(run, other) if case.improvement < 0]
    return tuple(sorted(cases, key=lambda case: case.improvement)[:count])


class Thumbnails:
    """Data URIs of images by part and id, each read once; `missing` has the ids that could not be read."""

    def __init__(self, load: ImageLoader | None) -> None:
        self.load = load
        self.missing: list[str] = []
        self._uris: dict[tuple[str, str], str | None] = {}

    def uri(self, part: str, id_: str) -> str | None:
        """None where there is no loader, or the image cannot be read."""
        if self.load is None:
            return None
        if (part, id_) not in self._uris:
            try:
                image = open_image(self.load(part, id_))
                self._uris[part, id_] = data_uri(thumbnail(image, THUMBNAIL_SIDE), "image/jpeg")
            except (MMRetrieveError, OSError, LookupError):
                self.missing.append(id_)
                self._uris[part, id_] = None
        return self._uris[part, id_]


def data_uri(content: bytes, media_type: str) -> str:
    """Bytes as an address that a page can contain.

    >>> data_uri(b"abc", "text/plain")
    'data:text/plain;base64,YWJj'
    """
    return f"data:{media_type};base64,{b64encode(content).decode('ascii')}"


def build_case_groups(group: ComparisonGroup, thumbnails: Thumbnails) -> list[dict[str, Any]]:
    """Queries under headings, as `templates/cases.html` shows them.

    They are the best and worst queries of the best run, and those that changed most compared with its base, or else the
    runner-up.
    """
    if not group.runs:
        return []
    run, other = group.runs[0], compared_run(group)
    title, other_title = group.title(run), group.title(other) if other else ""
    selections = [
        ("Best", f"{title}: the target ranks first, with the largest lead.", select_best(run)),
        ("Worst", f"{title}: the target ranks lowest.", select_worst(run)),
    ]
    if other is not None:
        change = f"From {other_title} to {title}"
        selections.append(("Most improved", f"{change}: the target moved up most.", select_improved(run, other)))
        selections.append(("Most worsened", f"{change}: the target moved down most.", select_worsened(run, other)))
    show_part = len(run.parts) > 1
    return [
        {
            "title": heading,
            "about": about,
            "cases": [describe_case(case, thumbnails, show_part, _list_rankings(case, title, other_title)) for case in cases],
        }
        for heading, about, cases in selections
        if cases
    ]


def compared_run(group: ComparisonGroup) -> EvaluatedRun | None:
    """The base of the best run; where that is a base itself, its best run with other weights, or else the runner-up."""
    best, rest = group.runs[0], group.runs[1:]
    same_composer = next((run for run in rest if run.composer == best.composer), None)
    return group.base_of(best) or same_composer or next(iter(rest), None)


def _cases_with_values(run: EvaluatedRun) -> list[QueryCase]:
    return [
        QueryCase(part, result)
        for part, results in run.results.items()
        for result in results
        if result.target is not None and result.values[run.headline_column] is not None
    ]


def _paired_cases(run: EvaluatedRun, other: EvaluatedRun) -> Iterable[QueryCase]:
    for part, results in run.results.items():
        for result, before in zip(results, other.results[part], strict=True):
            yield QueryCase(part, result, before)


def _value(run: EvaluatedRun, case: QueryCase) -> float:
    return case.result.values[run.headline_column] or 0.0


def _rank(case: QueryCase) -> int:
    return case.result.target.rank if case.result.target else 0


def _lead(result: QueryResult) -> float:
    others = [hit.score for hit in result.hits if hit.id not in result.targets]
    return result.target.score - max(others) if result.target and others else 0.0


def describe_case(
    case: QueryCase, thumbnails: Thumbnails, show_part: bool, rankings: Sequence[tuple[str, Sequence[str]]]
) -> dict[str, Any]:
    """One query for the template, with the best hits of several rankings: (label, ids). Its targets are shown unless all of them
    are among the hits of its run.
    """
    result, other = case.result, case.other

    def image(id_: str, caption: str = "") -> dict[str, Any]:
        return {"id": id_, "uri": thumbnails.uri(case.part, id_), "caption": caption, "is_target": id_ in result.targets}

    all_are_hits = {hit.id for hit in result.hits}.issuperset(result.targets)
    targets = () if all_are_hits else result.targets
    return {
        "part": case.part.partition(":")[2] if show_part else "",
        "id": result.id,
        "prompt": result.prompt,
        "texts": [result.words[name] for name in ("text", "composed") if name in result.words],
        "rank": _format_rank(result, other),
        "improved": None if other is None else case.improvement > 0,
        "reference": image(result.reference),
        "targets": [image(id_) for id_ in targets[:MAX_TARGETS]],
        "more_targets": max(0, len(targets) - MAX_TARGETS),
        "strips": [(label, [image(id_, str(rank)) for rank, id_ in enumerate(ids, start=1)]) for label, ids in rankings],
        "contributions": _describe_contributions(result),
        "gap": _describe_gap(result),
    }


def hit_ids(result: QueryResult) -> list[str]:
    """The ids of the best hits."""
    return [hit.id for hit in result.hits]


def _list_rankings(case: QueryCase, title: str, other_title: str) -> list[tuple[str, Sequence[str]]]:
    """The best hits of the run; where two runs are compared, after those of the other one, with the titles of both."""
    if case.other is None:
        return [("", hit_ids(case.result))]
    return [(other_title, hit_ids(case.other)), (title, hit_ids(case.result))]


def _format_rank(result: QueryResult, other: QueryResult | None) -> str:
    rank = f"{result.target.rank:,}" if result.target else "–"
    return f"rank {rank}" if other is None or other.target is None else f"rank {other.target.rank:,} → {rank}"


def _describe_contributions(result: QueryResult) -> list[dict[str, Any]]:
    """The contributions of terms to the top hit and to the target; once where they are the same image.

    `zero` is where bars start, in percent of the track.
    """
    top, target = result.hits[0] if result.hits else None, result.target
    items: list[tuple[str, ScoredItem, bool]] = []
    if top is not None:
        is_target = top.id in result.targets
        items.append(("top hit, a target" if is_target else "top hit", top, is_target))
    if target is not None and (top is None or top.id != target.id):
        items.append((f"target, rank {target.rank:,}", target, True))
    values = [value for _, item, _ in items for value in item.contributions.values()]
    low, high = min(0.0, *values, 0.0), max(0.0, *values, 0.0)
    span = (high - low) or 1.0
    zero = 100 * -low / span
    return [
        {
            "title": title,
            "score": f"{item.score:.3f}".replace("-", "−"),
            "is_target": is_target,
            "bars": _describe_bars(item.contributions, span, zero),
            "zero": zero,
        }
        for title, item, is_target in items
    ]


def _describe_bars(contributions: Mapping[str, float], span: float, zero: float) -> list[dict[str, Any]]:
    """A bar for each term, from `left`, `width` wide, in percent of the track."""
    bars = []
    for term, value in contributions.items():
        width = 100 * abs(value) / span
        role = term.split(" ")[0]
        bars.append(
            {
                "term": term,
                "role": role if role in COLORED_ROLES else "other",
                "text": format_signed(value, 3),
                "is_negative": value < 0,
                "left": round(zero - (width if value < 0 else 0), 2),
                "width": round(width, 2),
            }
        )
    return bars


def _describe_gap(result: QueryResult) -> str:
    """Which terms put the top hit above the target: "… 0.021 ahead of the target: composed +0.030, image −0.009."."""
    if not result.hits or result.target is None or result.hits[0].id in result.targets:
        return ""
    top, target = result.hits[0], result.target
    terms = [*top.contributions, *(name for name in target.contributions if name not in top.contributions)]
    gaps = {name: top.contributions.get(name, 0.0) - target.contributions.get(name, 0.0) for name in terms}
    listed = ", ".join(f"{name} {format_signed(gap, 3)}" for name, gap in sorted(gaps.items(), key=lambda pair: -pair[1]))
    return f"The top hit is {format_number(top.score - target.score, 3)} ahead of the target: {listed}."
