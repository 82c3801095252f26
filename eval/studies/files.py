"""The studies of `answerable` and of `avoid`, on the sets at hand, with their tables and pictures in the texts of this repository."""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from typing import Any

from eval.benchmarks import BenchmarkName, load_benchmark
from eval.benchmarks.base import Benchmark
from eval.cli.texts import fill_text, sets, where_from
from eval.files import write_whole
from eval.runs.features import features
from eval.runs.record import write_record
from eval.studies.answerable import (
    CaseEvidence,
    composed_cases,
    figures,
    image_cases,
    measured,
    refitted,
    text_cases,
    two_prompt_cases,
)
from eval.studies.avoid import studied
from eval.studies.captions import CaptionSetup, captioned
from eval.studies.reliability import drawn, reliability
from eval.studies.searches import retriever_of
from eval.studies.tables import answerable_table, avoid_table
from mmretrieve import Encoder, Retriever, load_encoder, wardrobe
from mmretrieve.answerable import BOTH, IMAGE_ALONE, PROMPT_ALONE
from mmretrieve.options import BUILT_IN
from mmretrieve.vectors import Float32

TAGGED, FIELDS, TEXT, IMAGE = (
    "image and prompt, tagged",
    "image and prompt, captions from fields",
    "prompt alone",
    "image alone",
)
ONE, TWO = "two changes in one prompt", "two changes in two prompts"
LEAD, SCORE = 0, 1  # columns of evidence
FITS = {  # constants by what is asked: today's, the kinds of cases they are for, and the evidence that counts
    "BOTH": (BOTH, (TAGGED, FIELDS), (LEAD, SCORE)),
    "PROMPT_ALONE": (PROMPT_ALONE, (TEXT,), (LEAD,)),
    "IMAGE_ALONE": (IMAGE_ALONE, (IMAGE,), (SCORE,)),
}
HALVES = {"all": None, "held-out": True}


def answerable(options: argparse.Namespace) -> None:
    """Measures whether `answerable` tells what a gallery has from what it has not, and fits its constants on the other half."""
    started = time.perf_counter()
    loaded = {name: load_benchmark(name, root) for name, root, _ in sets(options.data)}
    found: dict[str, dict[str, CaseEvidence]] = {}
    result: dict[str, Any] = {"sets": {}, "constants": {}}
    for name, _, spec in sets(options.data):
        encoder = load_encoder(spec, device=options.device, dtype=options.dtype)
        benchmark, gallery = features(loaded[name], encoder)
        other = next((other for other in loaded.values() if other.name != name), None)
        found[name] = _judged(benchmark, gallery, encoder, other)
        result["sets"][name] = {
            "kinds": {
                kind: {half: figures(own, held=held) for half, held in HALVES.items()} for kind, own in found[name].items()
            },
            "provenance": where_from(encoder, benchmark, started),
        }
    result["constants"] = {name: _constants(name, found) for name in FITS}
    write_record(options.out / "answerable.json", result)
    fill_text(options.text, answerable_table(result))
    write_whole(options.text.with_suffix(".png"), drawn(_lines(found)))


def avoid(options: argparse.Namespace) -> None:
    """Measures what searches that avoid something still show of it, on the wardrobe's own gallery."""
    started = time.perf_counter()
    encoder = load_encoder(BUILT_IN, device=options.device, dtype=options.dtype)
    benchmark = load_benchmark(BenchmarkName.WARDROBE)
    retriever = Retriever.open(wardrobe.gallery_folder(), encoder=encoder)
    found = studied(retriever, benchmark.fields)
    write_record(options.out / "avoid.json", {"shares": found, "provenance": where_from(encoder, benchmark, started)})
    fill_text(options.text, avoid_table(found), "avoid")


def _judged(benchmark: Benchmark, gallery: Float32, encoder: Encoder, other: Benchmark | None) -> dict[str, CaseEvidence]:
    """Every kind of request to one gallery."""
    captions = captioned(benchmark, encoder, CaptionSetup.FIELDS).benchmark
    said = {query.reference: query.caption for query in captions.queries}
    with retriever_of(replace(benchmark, fields={}), gallery, encoder) as retriever:
        found = {TAGGED: measured(retriever, composed_cases(benchmark)), TEXT: measured(retriever, text_cases(benchmark))}
        if other is not None:
            found[IMAGE] = measured(retriever, image_cases(benchmark, other))
        found |= _two_prompts(benchmark, retriever)
    with retriever_of(benchmark, gallery, encoder) as retriever:
        found[FIELDS] = measured(retriever, composed_cases(benchmark, said))
    return found


def _two_prompts(benchmark: Benchmark, retriever: Retriever) -> dict[str, CaseEvidence]:
    pairs = list(two_prompt_cases(benchmark))
    return {kind: measured(retriever, [pair[i] for pair in pairs]) for i, kind in enumerate((ONE, TWO))} if pairs else {}


def _constants(name: str, found: dict[str, dict[str, CaseEvidence]]) -> dict[str, list[float]]:
    """Today's constants of one kind of request, and what fits the half on which they were chosen, and the other."""
    today, kinds, columns = FITS[name]
    judged = [own[kind] for own in found.values() for kind in kinds if kind in own]
    fits = {half: refitted(judged, columns, held=held) for half, held in (("fitted", False), ("on the other half", True))}
    return {"today": list(today), **(fits if judged else {})}


def _lines(found: dict[str, dict[str, CaseEvidence]]) -> dict[str, list[tuple[float, float, float]]]:
    kinds = [TAGGED, FIELDS]
    lines = {f"{name}, image and prompt": reliability([own[kind] for kind in kinds], held=True) for name, own in found.items()}
    return lines | {f"{name}, prompt alone": reliability([own[TEXT]], held=True) for name, own in found.items()}
