"""`python -m eval run BENCHMARK` measures every method; `python -m eval table` does so on all that is at hand, and fills the README."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from eval.datasets import BenchmarkName, load_benchmark
from eval.methods import METHODS
from eval.phi import phi_for
from eval.report import fill, markdown, provenance, table, weights_table
from eval.run import compose, run
from eval.weights import compared
from eval.words import text_to_image
from mmretrieve import ComposerName, MMRetrieveError, Parts, load_encoder
from mmretrieve.arguments import WRONG_USE, add_computing, add_speakers, chosen, printable
from mmretrieve.composers import parts_from
from mmretrieve.errors import OptionError
from mmretrieve.inversion.phi import FILE
from mmretrieve.language.choices import SpeakerOptions
from mmretrieve.options import BUILT_IN
from mmretrieve.wardrobe import cache_folder

ROOT = Path(__file__).parents[1]
README, WEIGHTS = ROOT / "README.md", ROOT / "docs" / "weights.md"


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        options.command(options)
    except (MMRetrieveError, OSError) as error:
        print(f"eval: {printable(str(error))}", file=sys.stderr)
        return WRONG_USE if isinstance(error, OptionError) else 1
    return 0


def run_one(options: argparse.Namespace) -> None:
    """Measures every method on one benchmark, prints a table, writes a results file."""
    result = _measured(options.benchmark, options.root, options.encoder, options)
    print(table(result))
    print(f"\nwritten to {_written(result, options.out)}")


def run_table(options: argparse.Namespace) -> None:
    """Measures the wardrobe, and the catalogue where it is, and puts the table of both into the README."""
    results = [_measured(name, root, spec, options) for name, root, spec in _sets(options.data)]
    for result in results:
        if result["not run"]:
            raise MMRetrieveError(
                f"{result['benchmark']}: the table is left as it is, for some methods did not run: {result['not run']}"
            )
    for result in results:
        _written(result, options.out)
    inner = markdown(results)
    options.text.write_text(fill(options.text.read_text(encoding="utf-8"), inner), encoding="utf-8")
    print(inner)


def run_weights(options: argparse.Namespace) -> None:
    """Measures rules that choose weights without labels, and what labels would give, on every set at hand."""
    result: dict[str, Any] = {}
    for name, root, spec in _sets(options.data):
        benchmark, encoder = load_benchmark(name, root), load_encoder(spec, device=options.device, dtype=options.dtype)
        gallery, started = (
            encoder.encode_images([benchmark.image_path(id_) for id_ in benchmark.gallery_ids]),
            time.perf_counter(),
        )
        for method in (method for method in METHODS if method.composer is ComposerName.CAPTIONS and method.rule is None):
            scored = compose(benchmark, gallery, encoder, method, Parts(vocabulary=benchmark.vocabulary))
            found = compared(benchmark, scored, gallery)
            found["provenance"] = provenance(encoder, benchmark, time.perf_counter() - started)
            result[f"{name}, {method.label}"] = found
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "weights.json").write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    inner = weights_table(result)
    options.text.write_text(fill(options.text.read_text(encoding="utf-8"), inner), encoding="utf-8")
    print(inner)


def _sets(data: Path) -> list[tuple[str, Path | None, str]]:
    """(benchmark, root, encoder) of what is at hand: always the wardrobe, and the catalogue where it lies in `data`."""
    catalogue = data / "catalogue"
    if not catalogue.is_dir():
        print(f"eval: no catalogue at {catalogue}; what follows is of the wardrobe alone", file=sys.stderr)
        return [(BenchmarkName.WARDROBE, None, BUILT_IN)]
    return [(BenchmarkName.WARDROBE, None, BUILT_IN), (BenchmarkName.CATALOGUE, catalogue, str(catalogue / "model"))]


def _measured(name: str, root: Path | None, spec: str, options: argparse.Namespace) -> dict[str, Any]:
    started = time.perf_counter()
    benchmark = load_benchmark(name, root)
    encoder = load_encoder(spec, device=options.device, dtype=options.dtype)
    parts = parts_from(
        SpeakerOptions(**chosen(options, SpeakerOptions)), encoder, vocabulary=benchmark.vocabulary, phi=options.phi
    )
    if options.rewriter is None:
        parts = replace(parts, rewriter=None)  # each method has its own
    if options.phi is None and not (encoder.folder and (encoder.folder / FILE).is_file()):
        print(f"eval: training a phi for {name}, once", file=sys.stderr)
        parts = replace(parts, phi=phi_for(encoder, benchmark.vocabulary, cache_folder() / "phi"))
    with tqdm(total=len(benchmark.gallery_ids), unit=" pictures", disable=None, file=sys.stderr) as bar:
        methods = run(benchmark, encoder, parts, progress=bar.update, report=lambda label: bar.write(label, file=sys.stderr))
    result: dict[str, Any] = {"benchmark": benchmark.name, **methods}
    if benchmark.name == BenchmarkName.WARDROBE:
        result["text to image, recall@1"] = text_to_image(encoder)
    result["provenance"] = provenance(encoder, benchmark, time.perf_counter() - started)
    return result


def _written(result: dict[str, Any], folder: Path) -> Path:
    path = folder / f"{result['benchmark']}.json"
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m eval", description="Benchmarks whose numbers can be quoted.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    one = _command(commands, "run", run_one)
    one.add_argument("benchmark", choices=[str(name) for name in BenchmarkName])
    one.add_argument("--root", type=Path, help="the benchmark's own folder")
    one.add_argument("--encoder", default=BUILT_IN, help="as in `mmretrieve index` (default: %(default)s)")
    for name, measure, text in (("table", run_table, README), ("weights", run_weights, WEIGHTS)):
        command = _command(commands, name, measure)
        data = os.environ.get("MMRETRIEVE_DATA", "../shared/data")
        command.add_argument("--data", type=Path, default=data, help="folder that holds the catalogue (default: %(default)s)")
        command.add_argument("--text", type=Path, default=text, help=f"the text whose table is filled (default: {text.name})")
    return parser


def _command(commands: Any, name: str, run: Any) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(name, help=run.__doc__, description=run.__doc__)
    command.set_defaults(command=run)
    command.add_argument("--phi", type=Path, help="for LinCIR (default: the encoder's own, else one is trained)")
    add_speakers(command)
    add_computing(command)
    command.set_defaults(dtype="float32")  # which is comparable everywhere
    command.add_argument("--out", type=Path, default=Path("results"), help="folder of the results files (default: %(default)s)")
    return command


if __name__ == "__main__":
    sys.exit(main())
