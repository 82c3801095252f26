"""What each command of `python -m eval` does."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from eval.benchmarks import BenchmarkName, export, load_benchmark, load_suite
from eval.benchmarks.base import Benchmark
from eval.cli.choices import make_run
from eval.files import write_whole
from eval.lists.score import read_lists, score_lists
from eval.lists.submission import SERVERS, ranked, ranked_subset, submission_files, write_submission
from eval.runs.record import check_replaceable, encoder_of, part_of, write_record
from eval.runs.run import EvalRun
from eval.runs.weight_settings import check_takes_pdv
from eval.sweep.plane import Plane
from eval.sweep.sweep import Tuning, swept
from mmretrieve import ComposerName, MMRetrieveError
from mmretrieve.cli.arguments import printable
from mmretrieve.errors import OptionError
from mmretrieve.images import ImageLike
from mmretrieve.weighting import Spread

if TYPE_CHECKING:
    from eval.report.pictures import Pictures


def run(options: argparse.Namespace) -> None:
    """Measures one way to compose on one benchmark; writes its record, and how each query fared."""
    made = make_run(options, options.split)
    check_replaceable(options.out / f"{made.name}.json", made.options, encoder_of(made.encoder))
    record, queries = made.measure()
    write_record(options.out / f"{made.name}.queries.json", queries, indent=None)
    path = write_record(options.out / f"{made.name}.json", record)
    _say(options, record, [record["label"], *_table(record["metrics"]), *_remarks(record), f"written to {path}"])


def sweep(options: argparse.Namespace) -> None:
    """Measures every setting of PDV from one encoding pass; writes the plane, and a heat map of it."""
    from eval.report.heatmap import heatmap

    plane = Plane(np.linspace(*options.betas), np.linspace(*options.gammas))
    check_takes_pdv(ComposerName(options.composer))
    made = make_run(options, options.split)
    check_replaceable(options.out / f"{made.name}.sweep.json", made.options, encoder_of(made.encoder))
    record = swept(made, plane, Tuning(options.tune))
    write_whole(options.out / f"{made.name}.sweep.png", heatmap(record))
    path = write_record(options.out / f"{made.name}.sweep.json", record)
    lines = [
        f"{name:>9}  beta {point['beta']:.3g}, gamma {point['gamma']:.3g}  {record['metric']} {point['metrics'][record['metric']]:.2f}"
        for name, point in record["points"].items()
    ]
    said = record["tuning"]
    tuned = f"tuned on the {said['tuned on']}, reported on the {said['reported on']}"
    _say(options, record, [*lines, tuned, *_remarks(record), f"written to {path}"])


def submit(options: argparse.Namespace) -> None:
    """Ranks a hidden split and writes what its server takes, checked before anything is written."""
    server = SERVERS.get(options.benchmark)
    if server is None:
        raise OptionError(f"no server scores {options.benchmark}; there is one for: {', '.join(SERVERS)}")
    if options.allow_missing:
        raise OptionError("a submission answers every query over the whole gallery: leave --allow-missing out")
    made = make_run(options, server.split, measured=False)
    own = options.out / f"{made.name}.json"
    check_replaceable(own, made.options, encoder_of(made.encoder))
    files = _submission(made, subsets=server.subsets)
    if not own.exists() and (others := [options.out / name for name in files if (options.out / name).exists()]):
        raise MMRetrieveError(f"{others[0]} is there already and of another run: give another --out")
    about = made.head("submission") | {
        "weighing": made.weighing.label,
        "parts": {part.benchmark.name: part_of(part.benchmark) for part in made.parts},
        "remarks": made.remarks({}),
        **made.tail(),
    }
    about.pop("headline")
    paths = write_submission(options.out, files)
    written = [str(path) for path in (*paths, write_record(options.out / f"{made.name}.json", about))]
    _say(options, {"files": written, **about}, [about["label"], *_remarks(about), *(f"written to {path}" for path in written)])


def score(options: argparse.Namespace) -> None:
    """Scores ranked lists of any origin by a benchmark's own protocol."""
    benchmark = load_benchmark(options.benchmark, options.root, options.split)
    metrics = score_lists(benchmark, *(read_lists(path) for path in options.predictions))
    record = {"benchmark": benchmark.name, "split": benchmark.split, "metrics": metrics, **part_of(benchmark)}
    _say(options, record, [*_table(metrics), *([f"note: {benchmark.remark}"] if benchmark.remark else [])])


def report(options: argparse.Namespace) -> None:
    """Makes one self-contained HTML page of all records in a folder."""
    from eval.report import build_report

    if options.out.suffix.lower() == ".json":
        raise OptionError(f"{options.out}: the page is HTML; it would take the place of a record")
    write_whole(options.out, build_report(options.records, _pictures(dict(options.root))))
    print(f"written to {options.out}")


def export_wardrobe(options: argparse.Namespace) -> None:
    """Writes the built-in wardrobe in the layout of a real benchmark."""
    with tqdm(unit=" pictures", disable=None, file=sys.stderr, leave=False) as bar:
        made = export.export_wardrobe(options.layout, options.folder, progress=bar.update)
    for part in made.parts:
        print(f"{part.name} {part.split}: {part.queries:,} queries, {part.images:,} images")
    print(f"{made.pictures:,} pictures, written to {made.folder}")


def _submission(made: EvalRun, *, subsets: bool) -> dict[str, str]:
    rankings: dict[str, list[str]] = {}
    of_subsets: dict[str, list[str]] = {}
    part = made.parts[0]
    spread = Spread.of(part.scored.gallery)
    with made.watch.on("rank"):
        scores = part.scored.ranked_by(lambda composition: made.weighing.weigh(composition, spread))
        for query, row in zip(part.benchmark.queries, scores, strict=True):
            rankings[query.id] = ranked(part.benchmark, query, row)
            if subsets:
                of_subsets[query.id] = ranked_subset(part.benchmark, query, row)
    return submission_files(part.benchmark, rankings, of_subsets if subsets else None)


def _pictures(root: Mapping[str, Path]) -> dict[str, Pictures]:
    """Family → where the report finds its pictures: in the folder that was named, and those of the wardrobe always."""
    found: dict[str, Pictures] = {}
    for family in (BenchmarkName.WARDROBE, *root):
        parts = {benchmark.name: benchmark for benchmark in load_suite(family, root.get(family))}
        found[family] = partial(_picture, parts)
    return found


def _picture(parts: Mapping[str, Benchmark], part: str, id_: str) -> ImageLike:
    return parts[part].picture(id_)


def _table(metrics: Mapping[str, float]) -> list[str]:
    width = max(map(len, metrics))
    return [f"{name:<{width}}  {value:6.2f}" for name, value in metrics.items()]


def _remarks(record: Mapping[str, Any]) -> list[str]:
    return [f"note: {remark}" for remark in record["remarks"]]


def _say(options: argparse.Namespace, record: Mapping[str, Any], lines: Sequence[str]) -> None:
    print(json.dumps(record, ensure_ascii=False) if options.json else "\n".join(map(printable, lines)))
