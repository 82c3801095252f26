"""Measures whether `answerable` separates searches that a gallery can answer from those that it cannot, and refits its constants."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from eval.benchmarks.base import Benchmark
from eval.studies.answerable_cases import (
    FOREIGN,
    PRESENT,
    REMOVED,
    AnswerableCase,
    composed_cases,
    image_cases,
    text_cases,
    two_prompt_cases,
)
from eval.studies.calibration import Floats, ReliabilityBin, auroc, bin_reliability, fit_logistic
from eval.studies.inputs import ALL, HELD_OUT, CaptionSetup, add_captions, open_retriever
from mmretrieve import Encoder, Retriever
from mmretrieve.answerable import IMAGE_ALONE, IMAGE_AND_PROMPT, JUDGED_HITS, PROMPT_ALONE, Answerability
from mmretrieve.options import NO_MATCH
from mmretrieve.request import parse_requests
from mmretrieve.vectors import Float32

TAGGED = "image and prompt, tagged"
FIELDS = "image and prompt, captions from fields"
TEXT, IMAGE = "prompt alone", "image alone"
ONE_PROMPT, TWO_PROMPTS = "two changes in one prompt", "two changes in two prompts"
LEAD, SCORE = 0, 1  # columns of the evidence
CONSTANTS = {  # current constants, the kinds of requests that they are for, and the evidence that they use
    "BOTH": (IMAGE_AND_PROMPT, (TAGGED, FIELDS), (LEAD, SCORE)),
    "PROMPT_ALONE": (PROMPT_ALONE, (TEXT,), (LEAD,)),
    "IMAGE_ALONE": (IMAGE_ALONE, (IMAGE,), (SCORE,)),
}


@dataclass(frozen=True)
class CaseEvidence:
    """Measured requests of one kind.

    Parameters
    ----------
    case : (n,) PRESENT, REMOVED or FOREIGN.
    held_out : (n,) whether each belongs to the held-out half.
    evidence : (n, 2) lead and score of the best hits.
    answerable : (n,) probabilities.
    """

    case: NDArray[np.str_]
    held_out: NDArray[np.bool_]
    evidence: Floats
    answerable: Floats

    def select(self, case: str, *, held_out: bool | None = None) -> Floats:
        """`answerable` of one case, in both halves or in one."""
        return np.asarray(self.answerable[(self.case == case) & self.in_half(held_out)])

    def in_half(self, held_out: bool | None) -> NDArray[np.bool_]:
        """(n,) whether each request belongs to a half; None: to either."""
        return np.ones(len(self.case), dtype=bool) if held_out is None else self.held_out == held_out


def measure_kinds(benchmark: Benchmark, gallery: Float32, encoder: Encoder, other: Benchmark | None) -> dict[str, CaseEvidence]:
    """Kind of request → evidence, in a gallery of the benchmark's images. other: provides foreign images."""
    captioned, _ = add_captions(benchmark, encoder, CaptionSetup.FIELDS)
    captions = {query.reference: query.caption for query in captioned.queries}
    with open_retriever(replace(benchmark, fields={}), gallery, encoder) as retriever:
        kinds = {
            TAGGED: measure_cases(retriever, composed_cases(benchmark)),
            TEXT: measure_cases(retriever, text_cases(benchmark)),
        }
        if other is not None:
            kinds[IMAGE] = measure_cases(retriever, image_cases(benchmark, other))
        if pairs := list(two_prompt_cases(benchmark)):
            kinds[ONE_PROMPT] = measure_cases(retriever, [one for one, _ in pairs])
            kinds[TWO_PROMPTS] = measure_cases(retriever, [two for _, two in pairs])
    with open_retriever(benchmark, gallery, encoder) as retriever:
        kinds[FIELDS] = measure_cases(retriever, composed_cases(benchmark, captions))
    return kinds


def measure_cases(retriever: Retriever, cases: Iterable[AnswerableCase]) -> CaseEvidence:
    """Searches every case, and collects evidence and `answerable` of each; both are NaN where a search has no hit."""
    cases = list(cases)
    rankings = retriever.search_many([{**case.request, "k": JUDGED_HITS} for case in cases])
    queries = [{name: value for name, value in case.request.items() if name != "exclude"} for case in cases]
    compositions = retriever.compose_requests(parse_requests(queries))
    best = [retriever.gallery.vectors(ranking.ids) for ranking in rankings]
    evidence = Answerability(retriever.encoder).evidence(compositions, retriever.gallery.spread, best)
    return CaseEvidence(
        np.array([case.case for case in cases]),
        np.array([case.held_out for case in cases]),
        np.array([(np.nan, np.nan) if one is None else one for one in evidence]),
        np.array([np.nan if ranking.answerable is None else ranking.answerable for ranking in rankings]),
    )


def summarize_halves(measured: CaseEvidence) -> dict[str, dict[str, float]]:
    """The figures of all requests, and those of the held-out half."""
    return {ALL: summarize(measured), HELD_OUT: summarize(measured, held_out=True)}


def summarize(measured: CaseEvidence, *, held_out: bool | None = None) -> dict[str, float]:
    """AUROC of present against removed and foreign, and the error rates in percent at the threshold NO_MATCH."""
    present = measured.select(PRESENT, held_out=held_out)
    summary = {"present": float(len(present)), "false alarms": 100 * float((present < NO_MATCH).mean())}
    for case in (REMOVED, FOREIGN):
        if len(wrong := measured.select(case, held_out=held_out)):
            misses = 100 * float((wrong >= NO_MATCH).mean())
            summary |= {f"AUROC, {case}": auroc(present, wrong), f"misses, {case}": misses}
    return summary


def refit_all(kinds_by_set: Mapping[str, Mapping[str, CaseEvidence]]) -> dict[str, dict[str, list[float]]]:
    """Name of a constant → its current value, the fit on the half where it was chosen, and the fit on the other half."""
    fits: dict[str, dict[str, list[float]]] = {}
    for name, (current, kinds, columns) in CONSTANTS.items():
        sets = [own[kind] for own in kinds_by_set.values() for kind in kinds if kind in own]
        fits[name] = {"today": list(current)}
        if sets:
            fits[name]["fitted"] = refit(sets, columns, held_out=False)
            fits[name]["on the other half"] = refit(sets, columns, held_out=True)
    return fits


def refit(sets: Sequence[CaseEvidence], columns: Sequence[int], *, held_out: bool) -> list[float]:
    """(lead, score, 1) log-odds fitted on one half; all sets have the same weight, and present cases half of it.

    columns: which of lead and score are used; the weight of the other is 0.
    """
    halves = [one.in_half(held_out) for one in sets]
    evidence = np.concatenate([one.evidence[half] for one, half in zip(sets, halves, strict=True)])
    right, shares = _right_and_shares(sets, held_out)
    weights = np.zeros(3)
    weights[[*columns, 2]] = fit_logistic(evidence[:, list(columns)], right, shares)
    return [float(weight) for weight in weights]


def reliability_lines(kinds_by_set: Mapping[str, Mapping[str, CaseEvidence]]) -> dict[str, list[ReliabilityBin]]:
    """Line of the reliability diagram → bins, on the held-out half."""
    composed = {
        f"{name}, image and prompt": measure_reliability([own[TAGGED], own[FIELDS]], held_out=True)
        for name, own in kinds_by_set.items()
    }
    return composed | {
        f"{name}, prompt alone": measure_reliability([own[TEXT]], held_out=True) for name, own in kinds_by_set.items()
    }


def measure_reliability(sets: Sequence[CaseEvidence], bins: int = 10, *, held_out: bool) -> list[ReliabilityBin]:
    """Bins of `answerable` on one half, weighted as in `refit`."""
    values = np.concatenate([one.answerable[one.in_half(held_out)] for one in sets])
    right, shares = _right_and_shares(sets, held_out)
    return bin_reliability(values, right, shares / len(sets), bins)


def case_shares(cases: NDArray[np.str_]) -> Floats:
    """(n,) the weight of each case: present cases have half of the total, the other cases share the rest equally."""
    wrong = set(cases.tolist()) - {PRESENT}
    total = {PRESENT: 0.5} | dict.fromkeys(wrong, 0.5 / max(1, len(wrong)))
    return np.array([total[case] / (cases == case).sum() for case in cases.tolist()])


def _right_and_shares(sets: Sequence[CaseEvidence], held_out: bool) -> tuple[NDArray[np.bool_], Floats]:
    cases = [one.case[one.in_half(held_out)] for one in sets]
    return np.concatenate([own == PRESENT for own in cases]), np.concatenate([case_shares(own) for own in cases])
