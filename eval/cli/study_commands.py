"""The commands that run a study on the available data sets, and write its tables into README and docs."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

from tqdm import tqdm

from eval.benchmarks import Benchmark, BenchmarkName, load_benchmark
from eval.benchmarks.circled import count_remark, gallery_of, load_sessions
from eval.files import read_json, write_atomic
from eval.runs.compositions import compose
from eval.runs.features import encode_gallery
from eval.runs.records import write_record
from eval.runs.run import collect_provenance, describe_encoder, describe_part
from eval.studies.answerable import CaseEvidence, measure_kinds, refit_all, reliability_lines, summarize_halves
from eval.studies.avoid import measure_avoid
from eval.studies.axes import measure_axes
from eval.studies.calibration import draw_reliability
from eval.studies.compare import SEARCH_LABEL, compare_methods, measure_searches, measure_text_to_image
from eval.studies.conversations import measure_conversations
from eval.studies.inputs import (
    CaptionSetup,
    Method,
    add_captions,
    method_parts,
    open_retriever,
    own_vocabulary,
    train_benchmark_phi,
)
from eval.studies.judges import measure_first_stage, measure_judges
from eval.studies.paraphrases import measure_paraphrases
from eval.studies.sessions import measure_sessions
from eval.studies.tables import (
    ablation_table,
    answerable_table,
    avoid_table,
    axes_table,
    fill_table,
    first_stage_table,
    judges_table,
    methods_table,
    paraphrases_table,
    sensitivity_table,
    sessions_table,
    weights_table,
)
from eval.studies.weights import list_rows, measure_weights
from mmretrieve import PDV, MMRetrieveError, Parts, Retriever, load_encoder, wardrobe
from mmretrieve.cli.arguments import given_fields
from mmretrieve.composers import parts_from
from mmretrieve.encoders.base import NamedEncoder
from mmretrieve.encoders.checkpoints import encoder_folder
from mmretrieve.inversion.phi import FILE
from mmretrieve.language.options import LanguageOptions, paraphraser_from
from mmretrieve.options import BUILT_IN, NO_MATCH
from mmretrieve.vectors import Float32
from mmretrieve.wardrobe import cache_folder


@dataclass(frozen=True)
class StudySet:
    """A benchmark, the vectors of its gallery, the encoder that it is measured with, and when the encoder was loaded."""

    benchmark: Benchmark
    gallery: Float32
    encoder: NamedEncoder
    started: float

    @property
    def name(self) -> str:
        """The benchmark's name."""
        return self.benchmark.name

    def collect_provenance(self) -> dict[str, Any]:
        """Encoder, data, versions, machine and time."""
        return {
            "encoder": asdict(describe_encoder(self.encoder)),
            **describe_part(self.benchmark).to_json(),
            **collect_provenance(self.encoder, {"all": round(time.perf_counter() - self.started, 1)}),
        }


def table(options: argparse.Namespace) -> None:
    """Measures all methods, and fills README's table if all of them ran."""
    results = [_compare(study_set, options) for study_set in load_sets(options)]
    for result in results:
        if result["not run"]:
            raise MMRetrieveError(
                f"{result['benchmark']}: the table is not changed, because some methods did not run: {result['not run']}"
            )
    for result in results:
        write_record(options.out / f"{result['benchmark']}.json", result)
    _fill_document(options.text, {"table": methods_table(results)})


def weights(options: argparse.Namespace) -> None:
    """Measures label-free weights. Rows of composers that are skipped keep their previous results, where there are any."""
    path = options.out / "weights.json"
    previous: Any = read_json(path) if path.is_file() else {}
    result = {
        study_set.name: {
            "rows": _measure_rows(study_set, options, previous.get(study_set.name, {}).get("rows", {})),
            "provenance": study_set.collect_provenance(),
        }
        for study_set in load_sets(options)
    }
    write_record(path, result)
    _fill_document(options.text, {"table": weights_table(result), "sensitivity": sensitivity_table(result)})


def answerable(options: argparse.Namespace) -> None:
    """Measures how well `answerable` separates requests, and refits its constants."""
    sets = list(load_sets(options))
    measured: dict[str, dict[str, CaseEvidence]] = {}
    summaries: dict[str, Any] = {}
    for study_set in sets:
        other = next((other.benchmark for other in sets if other is not study_set), None)
        kinds = measure_kinds(study_set.benchmark, study_set.gallery, study_set.encoder, other)
        measured[study_set.name] = kinds
        summaries[study_set.name] = {
            "kinds": {kind: summarize_halves(own) for kind, own in kinds.items()},
            "provenance": study_set.collect_provenance(),
        }
    result = {"sets": summaries, "constants": refit_all(measured)}
    write_record(options.out / "answerable.json", result)
    _fill_document(options.text, {"table": answerable_table(result)})
    write_atomic(options.text.with_suffix(".png"), draw_reliability(reliability_lines(measured), NO_MATCH))


def avoid(options: argparse.Namespace) -> None:
    """Measures how many hits of searches that avoid an attribute show it, on the wardrobe's own gallery."""
    study_set = next(load_sets(options))
    retriever = Retriever.open(wardrobe.gallery_folder(), encoder=study_set.encoder)
    shares = measure_avoid(retriever, study_set.benchmark.fields)
    write_record(options.out / "avoid.json", {"shares": shares, "provenance": study_set.collect_provenance()})
    _fill_document(options.text, {"avoid": avoid_table(shares)})


def judges(options: argparse.Namespace) -> None:
    """Measures what the built-in judges add to searches."""
    result: dict[str, Any] = {}
    for study_set in load_sets(options):
        with open_retriever(study_set.benchmark, study_set.gallery, study_set.encoder) as retriever:
            measured = measure_judges(study_set.benchmark, retriever)
            first_stage = measure_first_stage(study_set.benchmark, retriever)
        result[study_set.name] = {**measured, "first stage": first_stage, "provenance": study_set.collect_provenance()}
    write_record(options.out / "judges.json", result)
    tables = {"judges": judges_table, "ablation": ablation_table, "first stage": first_stage_table}
    _fill_document(options.text, {name: make_table(result) for name, make_table in tables.items()})


def sessions(options: argparse.Namespace) -> None:
    """Measures sessions on the wardrobe's own gallery."""
    study_set = next(load_sets(options))
    hits = measure_sessions(Retriever.open(wardrobe.gallery_folder(), encoder=study_set.encoder))
    write_record(options.out / "sessions.json", {"hits": hits, "provenance": study_set.collect_provenance()})
    _fill_document(options.text, {"sessions": sessions_table(hits)})


def circled(options: argparse.Namespace) -> None:
    """Measures the sessions of CIRCLED turn by turn."""
    name = gallery_of(options.subset)
    encoder = load_encoder(options.encoder, device=options.device, dtype=options.dtype)
    benchmark, vectors = encode_gallery(load_benchmark(name, options.gallery_root, "val"), encoder)
    sessions = load_sessions(options.root, options.subset, benchmark)
    with open_retriever(benchmark, vectors, encoder) as retriever:
        measured = measure_conversations(retriever, sessions, keeps_reference=benchmark.protocol.keeps_reference)
    remarks = [remark for remark in (count_remark(options.subset, sessions), benchmark.remark) if remark]
    study_set = StudySet(benchmark, vectors, encoder, time.perf_counter())
    path = options.out / f"circled_{options.subset}.json"
    write_record(path, {**measured, "remarks": remarks, "provenance": study_set.collect_provenance()})
    width = max(map(len, measured["hits"]))
    print(f"{'sessions with this turn':<{width}}", *(f"{count:>6}" for count in measured["sessions"]))
    for way, shares in measured["hits"].items():
        print(f"{way:<{width}}", *(f"{share:>6.1f}" for share in shares))
    print(*(f"note: {remark}" for remark in remarks), f"written to {path}", sep="\n")


def axes(options: argparse.Namespace) -> None:
    """Measures axes on every available set."""
    result = {
        study_set.name: {
            "attributes": measure_axes(study_set.benchmark, study_set.gallery, study_set.encoder),
            "provenance": study_set.collect_provenance(),
        }
        for study_set in load_sets(options)
    }
    write_record(options.out / "axes.json", result)
    _fill_document(options.text, {"axes": axes_table(result)})


def paraphrases(options: argparse.Namespace) -> None:
    """Measures how much searches depend on the wording of prompts, with and without paraphrases."""
    language = LanguageOptions(**given_fields(options, LanguageOptions))
    result: dict[str, Any] = {}
    for study_set in load_sets(options):
        with open_retriever(study_set.benchmark, study_set.gallery, study_set.encoder) as retriever:
            paraphraser = paraphraser_from(language, study_set.encoder, vocabulary=study_set.benchmark.vocabulary)
            measured = measure_paraphrases(study_set.benchmark, retriever, paraphraser)
        result[study_set.name] = measured | {"provenance": study_set.collect_provenance()}
    write_record(options.out / "paraphrases.json", result)
    _fill_document(options.text, {"paraphrases": paraphrases_table(result)})


def load_sets(options: argparse.Namespace) -> Iterator[StudySet]:
    """The available sets: always the wardrobe, then the catalogue where --data contains it."""
    yield _load_set(BenchmarkName.WARDROBE, None, BUILT_IN, options)
    catalogue = options.data / "catalogue"
    if catalogue.is_dir():
        yield _load_set(BenchmarkName.CATALOGUE, catalogue, str(catalogue / "model"), options)
    else:
        _print_progress(f"no catalogue at {catalogue}; only the wardrobe is measured")


def _load_set(name: BenchmarkName, root: Path | None, encoder_name: str, options: argparse.Namespace) -> StudySet:
    started = time.perf_counter()
    encoder = load_encoder(encoder_name, device=options.device, dtype=options.dtype)
    with tqdm(unit=" images", desc=name.value, disable=None, file=sys.stderr, leave=False) as bar:
        benchmark, gallery = encode_gallery(load_benchmark(name, root), encoder, progress=bar.update)
    return StudySet(benchmark, gallery, encoder, started)


def _compare(study_set: StudySet, options: argparse.Namespace) -> dict[str, Any]:
    benchmark, gallery, encoder = study_set.benchmark, study_set.gallery, study_set.encoder
    language = LanguageOptions(**given_fields(options, LanguageOptions))
    parts = parts_from(language, encoder, vocabulary=benchmark.vocabulary, phi=options.phi)
    if options.rewriter is None:
        parts = replace(parts, rewriter=None)  # each method has its own
    parts = replace(parts, phi=_choose_phi(study_set, options))
    comparison = compare_methods(
        benchmark, gallery, encoder, parts, report=lambda label: _print_progress(f"{benchmark.name}, {label}")
    )
    with open_retriever(benchmark, gallery, encoder) as retriever:
        comparison["methods"][SEARCH_LABEL] = measure_searches(benchmark, retriever)
    result: dict[str, Any] = {"benchmark": benchmark.name, **comparison}
    if benchmark.name == BenchmarkName.WARDROBE:
        result["text to image, recall@1"] = measure_text_to_image(encoder)
    return result | {"provenance": study_set.collect_provenance()}


def _measure_rows(study_set: StudySet, options: argparse.Namespace, previous: Mapping[str, Any]) -> dict[str, Any]:
    phi, rows = _choose_phi(study_set, options), {}
    for captions, method in list_rows():
        if method.config.composer not in options.skip:
            _print_progress(f"{study_set.name}, {method.label}")
            rows[method.label] = _measure_row(study_set, captions, method, phi)
        elif method.label in previous:
            rows[method.label] = previous[method.label]
    return rows


def _measure_row(study_set: StudySet, captions: CaptionSetup | None, method: Method, phi: Path | None) -> dict[str, Any]:
    started, encoder = time.perf_counter(), study_set.encoder
    if captions is None:
        benchmark, vocabulary = study_set.benchmark, own_vocabulary(study_set.benchmark, encoder)
    else:
        benchmark, vocabulary = add_captions(study_set.benchmark, encoder, captions)
    parts = method_parts(method, encoder, Parts(vocabulary=vocabulary, phi=phi))
    composed = compose(benchmark, study_set.gallery, encoder, method.config, parts)
    return measure_weights(composed, method.pdv or PDV()) | {"seconds": round(time.perf_counter() - started, 1)}


def _choose_phi(study_set: StudySet, options: argparse.Namespace) -> Path | None:
    """The phi of --phi; None where the encoder has its own; otherwise one that is trained on the first call."""
    encoder, folder = study_set.encoder, encoder_folder(study_set.encoder.identity.model)
    if options.phi is not None or (folder and (folder / FILE).is_file()):
        return cast("Path | None", options.phi)
    _print_progress(f"the phi for {study_set.name} is trained on the first call")
    return train_benchmark_phi(encoder, study_set.benchmark.vocabulary, cache_folder() / "phi")


def _fill_document(path: Path, tables: Mapping[str, str]) -> None:
    """Puts each table between the markers of its name."""
    for name, content in tables.items():
        write_atomic(path, fill_table(path.read_text(encoding="utf-8"), content, name))
        print(content)


def _print_progress(text: str) -> None:
    print(f"eval: {text}", file=sys.stderr)
