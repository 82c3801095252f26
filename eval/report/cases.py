"""A query to look at: pictures of what was asked, found and right, and what each term gave to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from eval.report import case_selection
from eval.report.case_selection import QueryCase
from eval.report.groups import ComparisonGroup
from eval.report.pictures import Thumbnails
from eval.report.query_answers import AnswerItem, QueryAnswer
from eval.report.records import RunRecord
from eval.report.words import number, signed

ROLES = ("image", "text", "composed", "prompt")
"""Terms with a colour of their own; "composed 2" has that of composed."""
TARGETS = 6


@dataclass(frozen=True)
class CasePicture:
    """`uri` is None where there is no picture to show; `caption` is a rank, where it has one."""

    id: str
    uri: str | None
    caption: str = ""
    right: bool = False


@dataclass(frozen=True)
class ContributionBar:
    """What one term gave: drawn from `left`, `width` wide, in percent of a track with its zero at `zero`."""

    term: str
    role: str
    text: str
    minus: bool
    left: float
    width: float


@dataclass(frozen=True)
class ItemContributions:
    """What an item owes to each term."""

    title: str
    score: str
    right: bool
    bars: tuple[ContributionBar, ...]
    zero: float


@dataclass(frozen=True)
class CaseView:
    """One query as it is drawn; `before` is the other run's ranking, where two are compared.

    `targets` are drawn unless all of them stand among the hits, where they are outlined.
    """

    part: str
    id: str
    prompt: str
    said: tuple[str, ...]
    rank: str
    rose: bool | None
    reference: CasePicture
    targets: tuple[CasePicture, ...]
    more_targets: int
    hits: tuple[CasePicture, ...]
    before: tuple[CasePicture, ...]
    owed: tuple[ItemContributions, ...]
    apart: str


@dataclass(frozen=True)
class CaseGroup:
    """Queries under one heading, with what they were chosen by."""

    title: str
    about: str
    views: tuple[CaseView, ...]
    names: tuple[str, str] = ("", "")


def cases(group: ComparisonGroup, thumbnails: Thumbnails) -> tuple[CaseGroup, ...]:
    """The best and the worst of the best run, and what changed most against its base, or else against the runner-up."""
    if not group.runs:
        return ()
    run = group.runs[0]
    other = compared_with(group)
    title = group.title(run)
    found = [
        ("Best", f"{title}: the target is first, and furthest ahead of the rest.", case_selection.best(run)),
        ("Worst", f"{title}: the target is furthest down.", case_selection.worst(run)),
    ]
    if other is not None:
        against = group.title(other)
        found.append(
            ("Rose most", f"From {against} to {title}: the target came up furthest.", case_selection.risen(run, other))
        )
        found.append(
            ("Fell most", f"From {against} to {title}: the target went down furthest.", case_selection.fallen(run, other))
        )
    names = (title, group.title(other) if other else "")
    many = len(run.parts) > 1
    return tuple(
        CaseGroup(title, about, tuple(_view(case, thumbnails, many) for case in chosen), names)
        for title, about, chosen in found
        if chosen
    )


def compared_with(group: ComparisonGroup) -> RunRecord | None:
    """The base of the best run; where that is a base itself, its best other weighing, or else the runner-up."""
    best, rest = group.runs[0], group.runs[1:]
    sibling = next((run for run in rest if run.composer == best.composer), None)
    return group.base_of(best) or sibling or next(iter(rest), None)


def _view(case: QueryCase, thumbnails: Thumbnails, many: bool) -> CaseView:
    answer, other = case.answer, case.other

    def picture(id_: str, caption: str = "") -> CasePicture:
        return CasePicture(id_, thumbnails.uri(case.part, id_), caption, id_ in answer.targets)

    def strip(one: QueryAnswer) -> tuple[CasePicture, ...]:
        return tuple(picture(hit.id, str(hit.rank)) for hit in one.hits)

    found = {hit.id for hit in answer.hits}
    unseen = () if found.issuperset(answer.targets) else answer.targets
    return CaseView(
        part=case.part.partition(":")[2] if many else "",
        id=answer.id,
        prompt=answer.prompt,
        said=tuple(answer.words[name] for name in ("text", "composed") if name in answer.words),
        rank=_ranks(answer, other),
        rose=None if other is None else case.change > 0,
        reference=picture(answer.reference),
        targets=tuple(picture(id_) for id_ in unseen[:TARGETS]),
        more_targets=max(0, len(unseen) - TARGETS),
        hits=strip(answer),
        before=strip(other) if other else (),
        owed=_owed(answer),
        apart=_apart(answer),
    )


def _ranks(answer: QueryAnswer, other: QueryAnswer | None) -> str:
    now = f"{answer.target.rank:,}" if answer.target else "–"
    return f"rank {now}" if other is None or other.target is None else f"rank {other.target.rank:,} → {now}"


def _owed(answer: QueryAnswer) -> tuple[ItemContributions, ...]:
    """The top hit and the target; one block where they are the same."""
    top, target = answer.hits[0] if answer.hits else None, answer.target
    shown: list[tuple[str, AnswerItem, bool]] = []
    if top is not None:
        right = top.id in answer.targets
        shown.append(("top hit, a target" if right else "top hit", top, right))
    if target is not None and (top is None or top.id != target.id):
        shown.append((f"target, rank {target.rank:,}", target, True))
    values = [value for _, item, _ in shown for value in item.contributions.values()]
    low, high = min(0.0, *values, 0.0), max(0.0, *values, 0.0)
    span = (high - low) or 1.0
    zero = 100 * -low / span
    return tuple(
        ItemContributions(
            title, f"{item.score:.3f}".replace("-", "−"), right, tuple(_bars(item.contributions, span, zero)), zero
        )
        for title, item, right in shown
    )


def _bars(contributions: Mapping[str, float], span: float, zero: float) -> Sequence[ContributionBar]:
    bars = []
    for term, value in contributions.items():
        width = 100 * abs(value) / span
        role = term.split(" ")[0]
        bars.append(
            ContributionBar(
                term,
                role if role in ROLES else "other",
                signed(value, 3),
                value < 0,
                round(zero - (width if value < 0 else 0), 2),
                round(width, 2),
            )
        )
    return bars


def _apart(answer: QueryAnswer) -> str:
    """Which terms put the top hit ahead of the target: "0.021 ahead: composed +0.030, image −0.009"."""
    if not answer.hits or answer.target is None or answer.hits[0].id in answer.targets:
        return ""
    top, target = answer.hits[0], answer.target
    terms = [*top.contributions, *(name for name in target.contributions if name not in top.contributions)]
    gaps = {name: top.contributions.get(name, 0.0) - target.contributions.get(name, 0.0) for name in terms}
    said = ", ".join(f"{name} {signed(gap, 3)}" for name, gap in sorted(gaps.items(), key=lambda pair: -pair[1]))
    return f"The top hit is {number(top.score - target.score, 3)} ahead of the target: {said}."
