"""`python -m eval run BENCHMARK`: measures every method, prints a table, writes a results file that can be repeated."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from tqdm import tqdm

from eval.datasets import BenchmarkName, load_benchmark
from eval.report import provenance, table
from eval.run import run
from eval.words import text_to_image
from mmretrieve import MMRetrieveError, load_encoder
from mmretrieve.options import BUILT_IN


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        result, path = _run(options), options.out / f"{options.benchmark}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    except (MMRetrieveError, OSError) as error:
        print(f"eval: {error}", file=sys.stderr)
        return 1
    print(table(result))
    print(f"\nwritten to {path}")
    return 0


def _run(options: argparse.Namespace) -> dict[str, Any]:
    started = time.perf_counter()
    benchmark = load_benchmark(options.benchmark, options.root)
    encoder = load_encoder(options.encoder, device=options.device, dtype=options.dtype)
    with tqdm(total=len(benchmark.gallery_ids), unit=" pictures", disable=None, file=sys.stderr) as bar:
        result: dict[str, Any] = {"benchmark": benchmark.name, **run(benchmark, encoder, bar.update)}
    if benchmark.name == BenchmarkName.WARDROBE:
        result["text to image, recall@1"] = text_to_image(encoder)
    result["provenance"] = provenance(encoder, benchmark, time.perf_counter() - started)
    return result


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m eval", description="Benchmarks whose numbers can be quoted.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    command = commands.add_parser("run", help="measure every composer and PDV on a benchmark")
    command.add_argument("benchmark", choices=[str(name) for name in BenchmarkName])
    command.add_argument("--root", type=Path, help="the benchmark's own folder")
    command.add_argument("--encoder", default=BUILT_IN, help="as in `mmretrieve index` (default: %(default)s)")
    command.add_argument("--device", default="auto")
    command.add_argument(
        "--dtype", default="float32", help="of the image tower (default: %(default)s, which is comparable everywhere)"
    )
    command.add_argument("--out", type=Path, default=Path("results"), help="folder of the results file (default: %(default)s)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
