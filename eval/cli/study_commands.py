"""The commands that run a study on the available data sets, and write its tables into README and docs."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

from tqdm import tqdm

from eval.benchmarks import Benchmark, BenchmarkName, load_benchmark
from eval.files import write_atomic
from eval.runs.compositions import compose
from eval.runs.features import encode_gallery
from eval.runs.provenance import collect_provenance, describe_encoder, describe_part
from eval.runs.records import write_record
from eval.studies.answerable import HALVES, CaseEvidence, measure_kinds, refit_all, reliability_lines, summarize
from eval.studies.avoid import measure_avoid
from eval.studies.calibration import draw_reliability
from eval.studies.compare import SEARCH_LABEL, compare_methods, measure_searches, measure_text_to_image
from eval.studies.inputs import CaptionedBenchmark, add_captions, open_retriever, own_vocabulary, train_benchmark_phi
from eval.studies.methods import method_parts
from eval.studies.tables import (
    DEFAULT_TABLE,
    answerable_table,
    avoid_table,
    fill_table,
    methods_table,
    sensitivity_table,
    weights_table,
)
from eval.studies.weights import WeightsRow, list_rows, measure_weights
from mmretrieve import PDV, Encoder, MMRetrieveError, Parts, Retriever, load_encoder, wardrobe
from mmretrieve.cli.arguments import given_fields
from mmretrieve.composers import parts_from
from mmretrieve.encoders.openclip import OpenClipEncoder
from mmretrieve.inversion.phi import FILE
from mmretrieve.language.options import LanguageOptions
from mmretrieve.options import BUILT_IN, NO_MATCH
from mmretrieve.vectors import Float32
from mmretrieve.wardrobe import cache_folder


@dataclass(frozen=True)
class StudySet:
    """A benchmark, its root, and the encoder to measure it with."""

    name: BenchmarkName
    root: Path | None
    encoder: str


def table(options: argparse.Namespace) -> None:
    """Measures all methods on the wardrobe, and on the catalogue where it is available, and fills README's table."""
    results = [_compare(study_set, options) for study_set in list_sets(options.data)]
    for result in results:
        if result["not run"]:
            raise MMRetrieveError(
                f"{result['benchmark']}: the table is not changed, because some methods did not run: {result['not run']}"
            )
    for result in results:
        write_record(options.out / f"{result['benchmark']}.json", result)
    _fill_document(options.text, methods_table(results))


def weights(options: argparse.Namespace) -> None:
    """Measures label-free weights, and the weights that labels would give, on every available set.

    Rows of composers that are skipped keep their previous results, where there are any.
    """
    path = options.out / "weights.json"
    previous = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    result = {
        study_set.name.value: _measure_rows(study_set, options, previous.get(study_set.name, {}).get("rows", {}))
        for study_set in list_sets(options.data)
    }
    write_record(path, result)
    _fill_document(options.text, weights_table(result))
    _fill_document(options.text, sensitivity_table(result), "sensitivity")


def answerable(options: argparse.Namespace) -> None:
    """Measures whether `answerable` separates what a gallery has from what it lacks, and refits its constants."""
    started = time.perf_counter()
    sets = list_sets(options.data)
    benchmarks = {study_set.name.value: load_benchmark(study_set.name, study_set.root) for study_set in sets}
    measured: dict[str, dict[str, CaseEvidence]] = {}
    result: dict[str, Any] = {"sets": {}, "constants": {}}
    for study_set in sets:
        name, encoder = study_set.name.value, _load_study_encoder(study_set, options)
        benchmark, gallery = encode_gallery(benchmarks[name], encoder)
        other = next((other for other in benchmarks.values() if other.name != name), None)
        measured[name] = measure_kinds(benchmark, gallery, encoder, other)
        result["sets"][name] = {
            "kinds": {
                kind: {half: summarize(own, held_out=flag) for half, flag in HALVES.items()}
                for kind, own in measured[name].items()
            },
            "provenance": _collect_study_provenance(encoder, benchmark, started),
        }
    result["constants"] = refit_all(measured)
    write_record(options.out / "answerable.json", result)
    _fill_document(options.text, answerable_table(result))
    write_atomic(options.text.with_suffix(".png"), draw_reliability(reliability_lines(measured), NO_MATCH))


def avoid(options: argparse.Namespace) -> None:
    """Measures how many hits of searches that avoid an attribute still show it, on the wardrobe's own gallery."""
    started = time.perf_counter()
    encoder = load_encoder(BUILT_IN, device=options.device, dtype=options.dtype)
    benchmark = load_benchmark(BenchmarkName.WARDROBE)
    shares = measure_avoid(Retriever.open(wardrobe.gallery_folder(), encoder=encoder), benchmark.fields)
    provenance = _collect_study_provenance(encoder, benchmark, started)
    write_record(options.out / "avoid.json", {"shares": shares, "provenance": provenance})
    _fill_document(options.text, avoid_table(shares), "avoid")


def list_sets(data: Path) -> list[StudySet]:
    """The available sets: always the wardrobe, and the catalogue where `data` contains it."""
    built_in = StudySet(BenchmarkName.WARDROBE, None, BUILT_IN)
    catalogue = data / "catalogue"
    if not catalogue.is_dir():
        print(f"eval: no catalogue at {catalogue}; only the wardrobe is measured", file=sys.stderr)
        return [built_in]
    return [built_in, StudySet(BenchmarkName.CATALOGUE, catalogue, str(catalogue / "model"))]


def _compare(study_set: StudySet, options: argparse.Namespace) -> dict[str, Any]:
    started = time.perf_counter()
    encoder = _load_study_encoder(study_set, options)
    with tqdm(unit=" images", desc=study_set.name.value, disable=None, file=sys.stderr) as bar:
        benchmark, gallery = encode_gallery(load_benchmark(study_set.name, study_set.root), encoder, progress=bar.update)
        language = LanguageOptions(**given_fields(options, LanguageOptions))
        parts = parts_from(language, encoder, vocabulary=benchmark.vocabulary, phi=options.phi)
        if options.rewriter is None:
            parts = replace(parts, rewriter=None)  # each method has its own
        parts = replace(parts, phi=_choose_phi(encoder, benchmark, options))
        comparison = compare_methods(benchmark, gallery, encoder, parts, report=lambda label: bar.write(label, file=sys.stderr))
        with open_retriever(benchmark, gallery, encoder) as retriever:
            comparison["methods"][SEARCH_LABEL] = measure_searches(benchmark, retriever)
    result: dict[str, Any] = {"benchmark": benchmark.name, **comparison}
    if study_set.name is BenchmarkName.WARDROBE:
        result["text to image, recall@1"] = measure_text_to_image(encoder)
    return result | {"provenance": _collect_study_provenance(encoder, benchmark, started)}


def _measure_rows(study_set: StudySet, options: argparse.Namespace, previous: Mapping[str, Any]) -> dict[str, Any]:
    started = time.perf_counter()
    encoder = _load_study_encoder(study_set, options)
    benchmark, gallery = encode_gallery(load_benchmark(study_set.name, study_set.root), encoder)
    phi, rows = _choose_phi(encoder, benchmark, options), {}
    for row in list_rows():
        if row.method.config.composer not in options.skip:
            print(f"eval: {study_set.name}, {row.label}", file=sys.stderr)
            rows[row.label] = _measure_row(row, benchmark, gallery, encoder, phi)
        elif row.label in previous:
            rows[row.label] = previous[row.label]
    return {"rows": rows, "provenance": _collect_study_provenance(encoder, benchmark, started)}


def _measure_row(row: WeightsRow, benchmark: Benchmark, gallery: Float32, encoder: Encoder, phi: Path | None) -> dict[str, Any]:
    started = time.perf_counter()
    if row.captions is None:
        captioned = CaptionedBenchmark(benchmark, own_vocabulary(benchmark, encoder))
    else:
        captioned = add_captions(benchmark, encoder, row.captions)
    parts = method_parts(row.method, encoder, Parts(vocabulary=captioned.vocabulary, phi=phi))
    composed = compose(captioned.benchmark, gallery, encoder, row.method.config, parts)
    measured = measure_weights(composed, row.method.pdv or PDV())
    return measured | {"seconds": round(time.perf_counter() - started, 1)}


def _load_study_encoder(study_set: StudySet, options: argparse.Namespace) -> OpenClipEncoder:
    return load_encoder(study_set.encoder, device=options.device, dtype=options.dtype)


def _choose_phi(encoder: OpenClipEncoder, benchmark: Benchmark, options: argparse.Namespace) -> Path | None:
    """The phi of --phi; None where the encoder has its own; otherwise one that is trained on the first call."""
    if options.phi is not None or (encoder.folder and (encoder.folder / FILE).is_file()):
        return cast("Path | None", options.phi)
    print(f"eval: the phi for {benchmark.name} is trained on the first call", file=sys.stderr)
    return train_benchmark_phi(encoder, benchmark.vocabulary, cache_folder() / "phi")


def _collect_study_provenance(encoder: Encoder, benchmark: Benchmark, started: float) -> dict[str, Any]:
    return {
        "encoder": asdict(describe_encoder(encoder)),
        **describe_part(benchmark).to_json(),
        **collect_provenance(encoder, {"all": round(time.perf_counter() - started, 1)}),
    }


def _fill_document(path: Path, content: str, name: str = DEFAULT_TABLE) -> None:
    write_atomic(path, fill_table(path.read_text(encoding="utf-8"), content, name))
    print(content)
