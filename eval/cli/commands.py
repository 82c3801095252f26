"""What each command of `python -m eval` does. The first line of a docstring is the command's help."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from eval.benchmarks import Benchmark, BenchmarkName, export, load_benchmark, load_suite
from eval.cli.options import make_run
from eval.files import write_atomic
from eval.lists.files import read_lists
from eval.lists.score import score_lists
from eval.lists.submission import SERVERS, rank_candidate_ids, rank_ids, submission_files, write_submission
from eval.lists.trec import is_run, measure_run, qrels_lines, read_qrels, read_run, run_lines
from eval.runs.records import Record, check_replaceable, write_record
from eval.runs.run import EvalRun, describe_encoder, describe_part
from eval.runs.weight_settings import check_takes_pdv
from eval.sweep.plane import Plane
from eval.sweep.sweep import Tuning, sweep_plane
from mmretrieve import MMRetrieveError
from mmretrieve.errors import OptionError, printable
from mmretrieve.images import ImageLike

if TYPE_CHECKING:
    from eval.report import ImageLoader


def run(options: argparse.Namespace) -> None:
    """Measures one method on one benchmark; writes a record, and the results of each query."""
    eval_run = make_run(options, options.split)
    path = options.out / f"{eval_run.name}.json"
    check_replaceable(path, eval_run.options, describe_encoder(eval_run.encoder))
    if options.trec is not None:
        _check_one_part(eval_run)
    record, queries = eval_run.evaluate()
    write_record(options.out / f"{eval_run.name}.queries.json", queries, indent=None)
    write_record(path, record)
    if options.trec is not None:
        write_atomic(options.trec, "".join(f"{line}\n" for line in _trec_lines(eval_run)))
    lines = [record.label, *_format_metrics(record.metrics), *_format_remarks(record), f"written to {path}"]
    _print_result(options, record.to_json(), lines)


def sweep(options: argparse.Namespace) -> None:
    """Measures every setting of PDV in one encoding pass; writes a record of the plane, and a heat map."""
    from eval.report.heatmap import draw_heatmap

    plane = Plane(np.linspace(*options.betas), np.linspace(*options.gammas))
    check_takes_pdv(options.composer)
    eval_run = make_run(options, options.split)
    path = options.out / f"{eval_run.name}.sweep.json"
    check_replaceable(path, eval_run.options, describe_encoder(eval_run.encoder))
    record = sweep_plane(eval_run, plane, Tuning(options.tune))
    write_atomic(options.out / f"{eval_run.name}.sweep.png", draw_heatmap(record))
    write_record(path, record)
    lines = [
        f"{name:>9}  beta {point.beta:.3g}, gamma {point.gamma:.3g}  {record.metric} {point.metrics[record.metric]:.2f}"
        for name, point in record.points.items()
    ]
    tuning = f"tuned on the {record.tuning.tuned_on}, reported on the {record.tuning.reported_on}"
    _print_result(options, record.to_json(), [*lines, tuning, *_format_remarks(record), f"written to {path}"])


def submit(options: argparse.Namespace) -> None:
    """Ranks a split with hidden targets and writes the files that its server takes, after checking them."""
    server = SERVERS.get(options.benchmark)
    if server is None:
        raise OptionError(f"no server scores {options.benchmark}; there is one for: {', '.join(SERVERS)}")
    if options.allow_missing:
        raise OptionError("a submission answers every query over the whole gallery: leave --allow-missing out")
    eval_run = make_run(options, server.split, needs_targets=False)
    path = options.out / f"{eval_run.name}.json"
    check_replaceable(path, eval_run.options, describe_encoder(eval_run.encoder))
    files = _rank_for_server(eval_run, subsets=server.subsets)
    if not path.exists() and (existing := [options.out / name for name in files if (options.out / name).exists()]):
        raise MMRetrieveError(f"{existing[0]} exists and belongs to another run: choose another --out")
    record = eval_run.describe_submission()
    paths = [*write_submission(options.out, files), write_record(path, record)]
    lines = [record.label, *_format_remarks(record), *(f"written to {path}" for path in paths)]
    _print_result(options, {"files": list(map(str, paths)), **record.to_json()}, lines)


def score(options: argparse.Namespace) -> None:
    """Scores ranked lists of any origin by a benchmark's own protocol, or a run of TREC by its qrels."""
    lists = [read_run(path) if is_run(path) else read_lists(path) for path in options.predictions]
    if options.qrels is not None:
        if options.benchmark is not None or len(lists) != 1:
            raise OptionError("--qrels takes the place of a benchmark, for one run; leave the benchmark out, and name one file")
        measured = measure_run(lists[0], read_qrels(options.qrels))
        return _print_result(options, {"qrels": str(options.qrels), "metrics": measured}, _format_metrics(measured))
    if options.benchmark is None:
        raise OptionError(f"name a benchmark ({', '.join(BenchmarkName)}), or --qrels FILE")
    benchmark = load_benchmark(options.benchmark, options.root, options.split)
    metrics = score_lists(benchmark, *lists)
    result = {"benchmark": benchmark.name, "split": benchmark.split, **describe_part(benchmark, metrics).to_json()}
    _print_result(options, result, [*_format_metrics(metrics), *([f"note: {benchmark.remark}"] if benchmark.remark else [])])


def qrels(options: argparse.Namespace) -> None:
    """Writes the targets of a benchmark as qrels of TREC."""
    write_atomic(
        options.out,
        "".join(f"{line}\n" for line in qrels_lines(load_benchmark(options.benchmark, options.root, options.split))),
    )
    print(f"written to {options.out}")


def report(options: argparse.Namespace) -> None:
    """Makes one self-contained HTML page of all records in a folder."""
    from eval.report import build_report
    from eval.report.circus import CircusLabels

    if options.out.suffix.lower() == ".json":
        raise OptionError(f"{options.out}: the report is HTML and would overwrite a record; choose a name that ends in .html")
    circus = {name: CircusLabels.read(path) for name, path in options.circus}
    write_atomic(options.out, build_report(options.records, _image_loaders(dict(options.root)), circus=circus))
    print(f"written to {options.out}")


def export_wardrobe(options: argparse.Namespace) -> None:
    """Writes the built-in wardrobe in the layout of a real benchmark."""
    with tqdm(unit=" images", disable=None, file=sys.stderr, leave=False) as bar:
        exported = export.export_wardrobe(options.layout, options.folder, progress=bar.update)
    for part in exported.parts:
        print(f"{part.name} {part.split}: {part.queries:,} queries, {part.images:,} images")
    print(f"{len(exported.images):,} images, written to {options.folder.resolve()}")


def _check_one_part(eval_run: EvalRun) -> None:
    """OptionError for several parts, whose queries have the same ids."""
    if len(eval_run.parts) > 1:
        raise OptionError(f"--trec writes one ranking of each query; name a part, such as {eval_run.parts[0].benchmark.name}")


def _trec_lines(eval_run: EvalRun) -> Iterator[str]:
    """The rankings of a run of one part."""
    (part,) = eval_run.parts
    return run_lines(part.benchmark, part.item_scores(lambda composition: eval_run.setting.weigh(composition, part.spread)))


def _rank_for_server(eval_run: EvalRun, *, subsets: bool) -> dict[str, str]:
    rankings: dict[str, list[str]] = {}
    subset_rankings: dict[str, list[str]] = {}
    part = eval_run.parts[0]
    with eval_run.timer.measure("rank"):
        scores = part.item_scores(lambda composition: eval_run.setting.weigh(composition, part.spread))
        for query, row in zip(part.benchmark.queries, scores, strict=True):
            rankings[query.id] = rank_ids(part.benchmark, query, row)
            if subsets:
                subset_rankings[query.id] = rank_candidate_ids(part.benchmark, query, row)
    return submission_files(part.benchmark, rankings, subset_rankings if subsets else None)


def _image_loaders(roots: Mapping[str, Path]) -> dict[str, ImageLoader]:
    """Family → loader of its images: for the families with a folder, and always for the wardrobe."""
    loaders: dict[str, ImageLoader] = {}
    for family in (BenchmarkName.WARDROBE, *roots):
        parts = {benchmark.name: benchmark for benchmark in load_suite(family, roots.get(family))}
        loaders[family] = partial(_load_image, parts)
    return loaders


def _load_image(parts: Mapping[str, Benchmark], part: str, id_: str) -> ImageLike:
    return parts[part].load_image(id_)


def _format_metrics(metrics: Mapping[str, float]) -> list[str]:
    width = max(map(len, metrics))
    return [f"{name:<{width}}  {value:6.2f}" for name, value in metrics.items()]


def _format_remarks(record: Record) -> list[str]:
    return [f"note: {remark}" for remark in record.remarks]


def _print_result(options: argparse.Namespace, result: Mapping[str, Any], lines: Sequence[str]) -> None:
    print(json.dumps(result, ensure_ascii=False) if options.json else "\n".join(map(printable, lines)))
