"""Queries as they are shown: images of the reference, hits and targets, and the contribution of each term."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from eval.report.case_selection import QueryCase, select_best, select_improved, select_worsened, select_worst
from eval.report.formatting import format_number, format_signed
from eval.report.groups import ComparisonGroup
from eval.report.loading import EvaluatedRun
from eval.runs.records import QueryResult, ScoredItem
from mmretrieve import MMRetrieveError
from mmretrieve.images import ImageLike, open_image, thumbnail

ImageLoader = Callable[[str, str], ImageLike]
"""(part, id) → image: `lambda part, id_: benchmarks[part].load_image(id_)`."""
THUMBNAIL_SIDE = 176  # pixels; shown at half of it, which is sharp on a dense screen
COLORED_ROLES = ("image", "text", "composed", "prompt")
"""Roles with a color of their own; "composed 2" has that of composed."""
MAX_TARGETS = 6


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
            self._uris[part, id_] = self._render(self.load, part, id_)
        return self._uris[part, id_]

    def _render(self, load: ImageLoader, part: str, id_: str) -> str | None:
        try:
            return data_uri(thumbnail(open_image(load(part, id_)), THUMBNAIL_SIDE), "image/jpeg")
        except (MMRetrieveError, OSError, LookupError):
            self.missing.append(id_)
            return None


def data_uri(content: bytes, media_type: str) -> str:
    """Bytes as an address that a page can contain.

    >>> data_uri(b"abc", "text/plain")
    'data:text/plain;base64,YWJj'
    """
    return f"data:{media_type};base64,{b64encode(content).decode('ascii')}"


@dataclass(frozen=True)
class CaseImage:
    """An image of a case; `uri` is None where there is none to show; `caption` is its rank, where it has one."""

    id: str
    uri: str | None
    caption: str = ""
    is_target: bool = False


@dataclass(frozen=True)
class ContributionBar:
    """The contribution of one term: a bar from `left`, `width` wide, in percent of the track."""

    term: str
    role: str
    text: str
    is_negative: bool
    left: float
    width: float


@dataclass(frozen=True)
class ItemContributions:
    """The contributions of all terms to the score of an item; `zero` is where bars start, in percent of the track."""

    title: str
    score: str
    is_target: bool
    bars: tuple[ContributionBar, ...]
    zero: float


@dataclass(frozen=True)
class CaseView:
    """One query as it is shown. `previous_hits` is the other run's ranking, where two are compared.

    `targets` are shown unless all of them are among the hits. `gap` explains the lead of the top hit over the target.
    """

    part: str
    id: str
    prompt: str
    texts: tuple[str, ...]
    rank: str
    improved: bool | None
    reference: CaseImage
    targets: tuple[CaseImage, ...]
    more_targets: int
    hits: tuple[CaseImage, ...]
    previous_hits: tuple[CaseImage, ...]
    contributions: tuple[ItemContributions, ...]
    gap: str


@dataclass(frozen=True)
class CaseGroup:
    """Queries under one heading, with the criterion by which they were selected, and the names of both runs."""

    title: str
    about: str
    views: tuple[CaseView, ...]
    names: tuple[str, str] = ("", "")


def build_case_groups(group: ComparisonGroup, thumbnails: Thumbnails) -> tuple[CaseGroup, ...]:
    """The best and worst queries of the best run, and those that changed most compared with its base, or else the runner-up."""
    if not group.runs:
        return ()
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
    return tuple(
        CaseGroup(heading, about, tuple(_build_view(case, thumbnails, show_part) for case in cases), (title, other_title))
        for heading, about, cases in selections
        if cases
    )


def compared_run(group: ComparisonGroup) -> EvaluatedRun | None:
    """The base of the best run; where that is a base itself, its best run with other weights, or else the runner-up."""
    best, rest = group.runs[0], group.runs[1:]
    same_composer = next((run for run in rest if run.composer == best.composer), None)
    return group.base_of(best) or same_composer or next(iter(rest), None)


def _build_view(case: QueryCase, thumbnails: Thumbnails, show_part: bool) -> CaseView:
    result, other = case.result, case.other

    def image(id_: str, caption: str = "") -> CaseImage:
        return CaseImage(id_, thumbnails.uri(case.part, id_), caption, id_ in result.targets)

    def hit_images(one: QueryResult) -> tuple[CaseImage, ...]:
        return tuple(image(hit.id, str(rank)) for rank, hit in enumerate(one.hits, start=1))

    all_are_hits = {hit.id for hit in result.hits}.issuperset(result.targets)
    targets = () if all_are_hits else result.targets
    return CaseView(
        part=case.part.partition(":")[2] if show_part else "",
        id=result.id,
        prompt=result.prompt,
        texts=tuple(result.words[name] for name in ("text", "composed") if name in result.words),
        rank=_format_rank(result, other),
        improved=None if other is None else case.improvement > 0,
        reference=image(result.reference),
        targets=tuple(image(id_) for id_ in targets[:MAX_TARGETS]),
        more_targets=max(0, len(targets) - MAX_TARGETS),
        hits=hit_images(result),
        previous_hits=hit_images(other) if other else (),
        contributions=_build_contributions(result),
        gap=_describe_gap(result),
    )


def _format_rank(result: QueryResult, other: QueryResult | None) -> str:
    rank = f"{result.target.rank:,}" if result.target else "–"
    return f"rank {rank}" if other is None or other.target is None else f"rank {other.target.rank:,} → {rank}"


def _build_contributions(result: QueryResult) -> tuple[ItemContributions, ...]:
    """For the top hit and the target; once where they are the same image."""
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
    return tuple(
        ItemContributions(
            title, f"{item.score:.3f}".replace("-", "−"), is_target, _build_bars(item.contributions, span, zero), zero
        )
        for title, item, is_target in items
    )


def _build_bars(contributions: Mapping[str, float], span: float, zero: float) -> tuple[ContributionBar, ...]:
    bars = []
    for term, value in contributions.items():
        width = 100 * abs(value) / span
        role = term.split(" ")[0]
        left = round(zero - (width if value < 0 else 0), 2)
        color = role if role in COLORED_ROLES else "other"
        bars.append(ContributionBar(term, color, format_signed(value, 3), value < 0, left, round(width, 2)))
    return tuple(bars)


def _describe_gap(result: QueryResult) -> str:
    """Which terms put the top hit above the target: "… 0.021 ahead of the target: composed +0.030, image −0.009."."""
    if not result.hits or result.target is None or result.hits[0].id in result.targets:
        return ""
    top, target = result.hits[0], result.target
    terms = [*top.contributions, *(name for name in target.contributions if name not in top.contributions)]
    gaps = {name: top.contributions.get(name, 0.0) - target.contributions.get(name, 0.0) for name in terms}
    listed = ", ".join(f"{name} {format_signed(gap, 3)}" for name, gap in sorted(gaps.items(), key=lambda pair: -pair[1]))
    return f"The top hit is {format_number(top.score - target.score, 3)} ahead of the target: {listed}."
