"""Compares all methods on the sets at hand, and puts the tables into the texts of this repository."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from tqdm import tqdm

from eval.benchmarks import BenchmarkName, load_benchmark
from eval.benchmarks.base import Benchmark
from eval.files import write_whole
from eval.runs.compositions import compose
from eval.runs.features import features
from eval.runs.methods import parts_for
from eval.runs.phi import phi_for
from eval.runs.record import encoder_of, part_of, provenance, write_record
from eval.runs.words import text_to_image
from eval.studies.captions import CaptionedBenchmark, captioned, own_vocabulary
from eval.studies.compare import compare
from eval.studies.searches import DEFAULT, retriever_of, searched
from eval.studies.tables import TABLE, fill, markdown, sensitivity_table, weights_table
from eval.studies.weights import WeightsRow, measured, rows
from mmretrieve import PDV, Encoder, MMRetrieveError, Parts, load_encoder
from mmretrieve.cli.arguments import chosen
from mmretrieve.composers import parts_from
from mmretrieve.encoders.openclip import OpenClipEncoder
from mmretrieve.inversion.phi import FILE
from mmretrieve.language.options import LanguageOptions
from mmretrieve.options import BUILT_IN
from mmretrieve.vectors import Float32
from mmretrieve.wardrobe import cache_folder
from mmretrieve.weighting import Spread


def table(options: argparse.Namespace) -> None:
    """Measures all methods on the wardrobe, and the catalogue where it is, and puts the table of both into the README."""
    results = [_compared(name, root, spec, options) for name, root, spec in sets(options.data)]
    for result in results:
        if result["not run"]:
            raise MMRetrieveError(
                f"{result['benchmark']}: the table is left as it is, for some methods did not run: {result['not run']}"
            )
    for result in results:
        write_record(options.out / f"{result['benchmark']}.json", result)
    fill_text(options.text, markdown(results))


def weights(options: argparse.Namespace) -> None:
    """Measures weights chosen without labels, and what labels would give, on every set at hand.

    Rows of composers that are skipped keep what the last results say of them, where those are there.
    """
    path = options.out / "weights.json"
    before = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    result = {
        name: _weighed(name, root, spec, options, before.get(name, {}).get("rows", {}))
        for name, root, spec in sets(options.data)
    }
    write_record(path, result)
    fill_text(options.text, weights_table(result))
    fill_text(options.text, sensitivity_table(result), "sensitivity")


def _weighed(name: str, root: Path | None, spec: str, options: argparse.Namespace, before: Mapping[str, Any]) -> dict[str, Any]:
    started = time.perf_counter()
    encoder = load_encoder(spec, device=options.device, dtype=options.dtype)
    benchmark, gallery = features(load_benchmark(name, root), encoder)
    phi, found = _phi(encoder, benchmark, options), {}
    for row in rows():
        if row.method.way.composer not in options.skip:
            print(f"eval: {name}, {row.label}", file=sys.stderr)
            found[row.label] = _row(row, benchmark, gallery, encoder, phi)
        elif row.label in before:
            found[row.label] = before[row.label]
    return {"rows": found, "provenance": where_from(encoder, benchmark, started)}


def _row(row: WeightsRow, benchmark: Benchmark, gallery: Float32, encoder: Encoder, phi: Path | None) -> dict[str, Any]:
    started = time.perf_counter()
    said = CaptionedBenchmark(benchmark, own_vocabulary(benchmark, encoder))
    said = said if row.captions is None else captioned(benchmark, encoder, row.captions)
    parts = parts_for(row.method, encoder, Parts(vocabulary=said.vocabulary, phi=phi))
    scored = compose(said.benchmark, gallery, encoder, row.method.way, parts)
    found = measured(said.benchmark, scored, row.method.pdv or PDV(), Spread.of(gallery))
    return found | {"seconds": round(time.perf_counter() - started, 1)}


def _phi(encoder: OpenClipEncoder, benchmark: Benchmark, options: argparse.Namespace) -> Path | None:
    """The phi that was named; None where the encoder has its own; else one that is trained at the first call."""
    if options.phi is not None or (encoder.folder and (encoder.folder / FILE).is_file()):
        return cast("Path | None", options.phi)
    print(f"eval: {benchmark.name} takes a phi that is trained at the first call", file=sys.stderr)
    return phi_for(encoder, benchmark.vocabulary, cache_folder() / "phi")


def _compared(name: str, root: Path | None, spec: str, options: argparse.Namespace) -> dict[str, Any]:
    started = time.perf_counter()
    encoder = load_encoder(spec, device=options.device, dtype=options.dtype)
    with tqdm(unit=" pictures", desc=name, disable=None, file=sys.stderr) as bar:
        benchmark, gallery = features(load_benchmark(name, root), encoder, progress=bar.update)
        parts = parts_from(
            LanguageOptions(**chosen(options, LanguageOptions)), encoder, vocabulary=benchmark.vocabulary, phi=options.phi
        )
        if options.rewriter is None:
            parts = replace(parts, rewriter=None)  # each method has its own
        parts = replace(parts, phi=_phi(encoder, benchmark, options))
        methods = compare(benchmark, gallery, encoder, parts, report=lambda label: bar.write(label, file=sys.stderr))
        with retriever_of(benchmark, gallery, encoder) as retriever:
            methods["methods"][DEFAULT] = searched(benchmark, retriever)
    result: dict[str, Any] = {"benchmark": benchmark.name, **methods}
    if name == BenchmarkName.WARDROBE:
        result["text to image, recall@1"] = text_to_image(encoder)
    return result | {"provenance": where_from(encoder, benchmark, started)}


def where_from(encoder: Encoder, benchmark: Benchmark, started: float) -> dict[str, Any]:
    seconds = {"all": round(time.perf_counter() - started, 1)}
    return {"encoder": encoder_of(encoder), **part_of(benchmark), **provenance(encoder, seconds)}


def sets(data: Path) -> list[tuple[str, Path | None, str]]:
    """(benchmark, root, encoder) of what is at hand: always the wardrobe, and the catalogue where it lies in `data`."""
    catalogue = data / "catalogue"
    if not catalogue.is_dir():
        print(f"eval: no catalogue at {catalogue}; what follows is of the wardrobe alone", file=sys.stderr)
        return [(BenchmarkName.WARDROBE, None, BUILT_IN)]
    return [(BenchmarkName.WARDROBE, None, BUILT_IN), (BenchmarkName.CATALOGUE, catalogue, str(catalogue / "model"))]


def fill_text(text: Path, inner: str, name: str = TABLE) -> None:
    write_whole(text, fill(text.read_text(encoding="utf-8"), inner, name))
    print(inner)
