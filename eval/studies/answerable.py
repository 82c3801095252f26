"""Does `answerable` tell what a gallery has from what it has not? Queries with their targets, without them, and of other worlds.

Each query is searched three times: over the whole gallery ("present"), over what is left when every item that would satisfy it
is taken out ("removed"), and with a prompt that fits nothing there ("foreign"). The reference never is in the gallery.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from eval.benchmarks import BenchmarkName
from eval.benchmarks.base import Benchmark, BenchmarkQuery
from eval.studies.halves import held_out
from eval.studies.logistic import auroc, fitted
from mmretrieve import Composition, Retriever
from mmretrieve.answerable import BEST, Answerability
from mmretrieve.options import NO_MATCH

Floats = NDArray[np.float64]
PRESENT, REMOVED, FOREIGN = "present", "removed", "foreign"
NOUNS = ("article", "kind")  # the field that names what an item is
SAID = ("colour", "pattern", "sleeves", "neckline", *NOUNS)  # fields whose values are prompts of their own
TOO_FEW = 3  # items: a word of fewer is no in-domain prompt
FITS_NOTHING = {
    BenchmarkName.WARDROBE: (
        "refrigerator", "asdf qwertz", "a steam train", "bicycle", "with a dog", "eiffel tower", "a handbag", "pizza",
        "lorem ipsum", "mountain lake", "made of glass", "with a microphone", "sushi", "a giraffe", "xkcd",
    ),
    BenchmarkName.CATALOGUE: (
        "refrigerator", "asdf qwertz", "a steam train", "bicycle", "with a dog", "eiffel tower", "a castle", "pizza",
        "lorem ipsum", "mountain lake", "a sofa", "with a microphone", "sushi", "a giraffe", "xkcd",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class AnswerableCase:
    """A request to `Retriever.search`, whether the gallery has it, and whether it belongs to the held-out half."""

    case: str
    held: bool
    request: Mapping[str, Any]


@dataclass(frozen=True)
class CaseEvidence:
    """Cases of one kind: what each is, (n, 2) lead and score of its best hits, and (n,) `answerable`."""

    case: NDArray[np.str_]
    held: NDArray[np.bool_]
    evidence: Floats
    answerable: Floats

    def of(self, case: str, *, held: bool | None = None) -> Floats:
        """`answerable` of one case, over all or one half."""
        half = np.ones(len(self.case), dtype=bool) if held is None else self.held == held
        return np.asarray(self.answerable[(self.case == case) & half])


def measured(retriever: Retriever, cases: Iterable[AnswerableCase]) -> CaseEvidence:
    """Searches, and what is known of each. Cases without a hit are left out."""
    cases = list(cases)
    rankings = retriever.search_many([{**case.request, "k": BEST} for case in cases])
    judge = Answerability(retriever.encoder)
    evidence = []
    for case, ranking in zip(cases, rankings, strict=True):
        composition = _composed(retriever, case.request)
        best = retriever.gallery.vectors(ranking.ids)
        evidence.append(judge.evidence(composition, retriever.gallery.spread, best) or (np.nan, np.nan))
    return CaseEvidence(
        np.array([case.case for case in cases]),
        np.array([case.held for case in cases]),
        np.array(evidence),
        np.array([np.nan if ranking.answerable is None else ranking.answerable for ranking in rankings]),
    )


def _composed(retriever: Retriever, request: Mapping[str, Any]) -> Composition:
    return retriever.compose(**{name: value for name, value in request.items() if name != "exclude"})


def composed_cases(benchmark: Benchmark, captions: Mapping[str, str | None] | None = None) -> Iterator[AnswerableCase]:
    """Every query of a benchmark in its three cases; halves share no foreign prompt. captions: of references, by id."""
    foreign = _foreign(benchmark.name)
    for query, held in zip(benchmark.queries, held_out(benchmark).tolist(), strict=True):
        asked: dict[str, Any] = {"reference_id": query.reference, "prompt": query.prompts[0]}
        if captions is not None:
            asked["caption"] = captions[query.reference]
        yield AnswerableCase(PRESENT, held, asked | {"exclude": [query.reference]})
        yield AnswerableCase(REMOVED, held, asked | {"exclude": [query.reference, *satisfying(benchmark, query)]})
        yield AnswerableCase(FOREIGN, held, asked | {"prompt": next(foreign[held]), "exclude": [query.reference]})


def text_cases(benchmark: Benchmark) -> Iterator[AnswerableCase]:
    """What items say of themselves as prompts without a reference ("red", "red dress"), in their three cases."""
    foreign = _foreign(benchmark.name)
    for phrase, ids in phrases(benchmark).items():
        held = crc32(phrase.encode()) % 2 == 1
        yield AnswerableCase(PRESENT, held, {"prompt": phrase})
        yield AnswerableCase(REMOVED, held, {"prompt": phrase, "exclude": ids})
        yield AnswerableCase(FOREIGN, held, {"prompt": next(foreign[held])})


def image_cases(benchmark: Benchmark, other: Benchmark) -> Iterator[AnswerableCase]:
    """References alone: those of the benchmark, and as many pictures of another world."""
    for i, (query, strange) in enumerate(zip(_distinct(benchmark), _distinct(other), strict=False)):
        yield AnswerableCase(PRESENT, i % 2 == 1, {"reference_id": query.reference, "exclude": [query.reference]})
        yield AnswerableCase(FOREIGN, i % 2 == 1, {"image": str(other.image_path(strange.reference))})


def two_prompt_cases(benchmark: Benchmark) -> Iterator[tuple[AnswerableCase, AnswerableCase]]:
    """Queries that change two attributes, asked in one prompt ("red and striped") and in two ("red", "striped")."""
    for query, held in zip(benchmark.queries, held_out(benchmark).tolist(), strict=True):
        wanted = [str(benchmark.fields[query.targets[0]][name]) for name in query.tags]
        if len(wanted) == 2:
            asked = {"reference_id": query.reference, "exclude": [query.reference]}
            yield (
                AnswerableCase(PRESENT, held, asked | {"prompt": " and ".join(wanted)}),
                AnswerableCase(PRESENT, held, asked | {"prompt": wanted}),
            )


def satisfying(benchmark: Benchmark, query: BenchmarkQuery) -> list[str]:
    """The items that are what the target is, with the changed attributes as asked: more than the targets, which look like the reference."""
    target = benchmark.fields[query.targets[0]]
    asked = {name: target[name] for name in (*query.tags, *NOUNS) if name in target}
    return [id_ for id_, fields in benchmark.fields.items() if all(fields[name] == value for name, value in asked.items())]


def phrases(benchmark: Benchmark) -> dict[str, list[str]]:
    """Prompts of the set's own words → the items that they are true of."""
    ids: dict[str, list[str]] = {}
    for id_, fields in benchmark.fields.items():
        said = {name: str(fields[name]) for name in SAID if fields.get(name)}
        pairs = [f"{said['colour']} {said[noun]}" for noun in NOUNS if noun in said and "colour" in said]
        for phrase in {*said.values(), *pairs}:
            ids.setdefault(phrase, []).append(id_)
    return {phrase: ids[phrase] for phrase in sorted(ids) if len(ids[phrase]) >= TOO_FEW}


def figures(found: CaseEvidence, *, held: bool | None = None) -> dict[str, float]:
    """AUROC of present against removed and foreign, and in per cent what NO_MATCH makes of each."""
    present = found.of(PRESENT, held=held)
    said = {"present": float(len(present)), "false alarms": 100 * float((present < NO_MATCH).mean())}
    for case in (REMOVED, FOREIGN):
        if len(wrong := found.of(case, held=held)):
            said |= {f"AUROC, {case}": auroc(present, wrong), f"misses, {case}": 100 * float((wrong >= NO_MATCH).mean())}
    return said


def refitted(sets: Sequence[CaseEvidence], columns: Sequence[int], *, held: bool) -> list[float]:
    """(lead, score, 1) log-odds fitted on one half; sets count alike, and in each present as much as all that is not there.

    columns: which of lead and score count; the other's is 0.
    """
    rows = [one.held == held for one in sets]
    evidence = np.concatenate([one.evidence[own] for one, own in zip(sets, rows, strict=True)])
    right = np.concatenate([one.case[own] == PRESENT for one, own in zip(sets, rows, strict=True)])
    shares = np.concatenate([shares_of(one.case[own]) for one, own in zip(sets, rows, strict=True)])
    weights = np.zeros(3)
    weights[[*columns, 2]] = fitted(evidence[:, list(columns)], right, shares)
    return [float(weight) for weight in weights]


def shares_of(cases: NDArray[np.str_]) -> Floats:
    """How much each case counts: present ones half of all together, the other cases the other half in equal parts."""
    wrong = set(cases.tolist()) - {PRESENT}
    total = {PRESENT: 0.5} | dict.fromkeys(wrong, 0.5 / max(1, len(wrong)))
    return np.array([total[case] / (cases == case).sum() for case in cases.tolist()])


def _foreign(name: str) -> dict[bool, Iterator[str]]:
    """Endless prompts that fit nothing, for each half its own."""
    prompts = FITS_NOTHING[BenchmarkName(name)]
    return {False: cycle(prompts[::2]), True: cycle(prompts[1::2])}


def _distinct(benchmark: Benchmark) -> list[BenchmarkQuery]:
    """One query for each reference."""
    return list({query.reference: query for query in benchmark.queries}.values())
