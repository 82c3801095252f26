"""Compares all methods on the sets at hand, and puts the tables into the texts of this repository."""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from eval.benchmark import Benchmark
from eval.compare import compare
from eval.composing import compose
from eval.datasets import BenchmarkName, load_benchmark
from eval.features import features
from eval.files import write_whole
from eval.methods import METHODS, parts_for
from eval.phi import phi_for
from eval.record import encoder_of, part_of, provenance, write_record
from eval.tables import fill, markdown, weights_table
from eval.weights import compared
from eval.words import text_to_image
from mmretrieve import ComposerName, Encoder, MMRetrieveError, Parts, load_encoder
from mmretrieve.arguments import chosen
from mmretrieve.composers import parts_from
from mmretrieve.inversion.phi import FILE
from mmretrieve.language.choices import SpeakerOptions
from mmretrieve.options import BUILT_IN
from mmretrieve.wardrobe import cache_folder
from mmretrieve.weighting import Spread


def table(options: argparse.Namespace) -> None:
    """Measures all methods on the wardrobe, and the catalogue where it is, and puts the table of both into the README."""
    results = [_compared(name, root, spec, options) for name, root, spec in _sets(options.data)]
    for result in results:
        if result["not run"]:
            raise MMRetrieveError(
                f"{result['benchmark']}: the table is left as it is, for some methods did not run: {result['not run']}"
            )
    for result in results:
        write_record(options.out / f"{result['benchmark']}.json", result)
    _fill(options.text, markdown(results))


def weights(options: argparse.Namespace) -> None:
    """Measures rules that choose weights without labels, and what labels would give, on every set at hand."""
    result: dict[str, Any] = {}
    for name, root, spec in _sets(options.data):
        encoder = load_encoder(spec, device=options.device, dtype=options.dtype)
        benchmark, gallery = features(load_benchmark(name, root), encoder)
        for method in (m for m in METHODS if m.way.composer is ComposerName.CAPTIONS and m.way.rule is None):
            started = time.perf_counter()
            parts = parts_for(method, encoder, Parts(vocabulary=benchmark.vocabulary))
            found = compared(benchmark, compose(benchmark, gallery, encoder, method.way, parts), Spread.of(gallery))
            found["provenance"] = _where_from(encoder, benchmark, started)
            result[f"{name}, {method.label}"] = found
    write_record(options.out / "weights.json", result)
    _fill(options.text, weights_table(result))


def _compared(name: str, root: Path | None, spec: str, options: argparse.Namespace) -> dict[str, Any]:
    started = time.perf_counter()
    encoder = load_encoder(spec, device=options.device, dtype=options.dtype)
    with tqdm(unit=" pictures", desc=name, disable=None, file=sys.stderr) as bar:
        benchmark, gallery = features(load_benchmark(name, root), encoder, progress=bar.update)
        parts = parts_from(
            SpeakerOptions(**chosen(options, SpeakerOptions)), encoder, vocabulary=benchmark.vocabulary, phi=options.phi
        )
        if options.rewriter is None:
            parts = replace(parts, rewriter=None)  # each method has its own
        if options.phi is None and not (encoder.folder and (encoder.folder / FILE).is_file()):
            print(f"eval: training a phi for {name}, once", file=sys.stderr)
            parts = replace(parts, phi=phi_for(encoder, benchmark.vocabulary, cache_folder() / "phi"))
        methods = compare(benchmark, gallery, encoder, parts, report=lambda label: bar.write(label, file=sys.stderr))
    result: dict[str, Any] = {"benchmark": benchmark.name, **methods}
    if name == BenchmarkName.WARDROBE:
        result["text to image, recall@1"] = text_to_image(encoder)
    return result | {"provenance": _where_from(encoder, benchmark, started)}


def _where_from(encoder: Encoder, benchmark: Benchmark, started: float) -> dict[str, Any]:
    seconds = {"all": round(time.perf_counter() - started, 1)}
    return {"encoder": encoder_of(encoder), **part_of(benchmark), **provenance(encoder, seconds)}


def _sets(data: Path) -> list[tuple[str, Path | None, str]]:
    """(benchmark, root, encoder) of what is at hand: always the wardrobe, and the catalogue where it lies in `data`."""
    catalogue = data / "catalogue"
    if not catalogue.is_dir():
        print(f"eval: no catalogue at {catalogue}; what follows is of the wardrobe alone", file=sys.stderr)
        return [(BenchmarkName.WARDROBE, None, BUILT_IN)]
    return [(BenchmarkName.WARDROBE, None, BUILT_IN), (BenchmarkName.CATALOGUE, catalogue, str(catalogue / "model"))]


def _fill(text: Path, inner: str) -> None:
    write_whole(text, fill(text.read_text(encoding="utf-8"), inner))
    print(inner)
