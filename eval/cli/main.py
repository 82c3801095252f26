"""`python -m eval`: run, sweep, submit, score and report on benchmarks; `table`, `weights`, `avoid` and `answerable` fill the texts of this repository."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from eval.benchmarks import SPLITS, BenchmarkName
from eval.benchmarks.export_layouts import BenchmarkLayout
from eval.cli import commands
from eval.cli.choices import ReferenceMode
from eval.lists.submission import SERVERS
from eval.runs.compositions import PromptOrder
from eval.sweep.sweep import Tuning
from mmretrieve import ComposerName, MMRetrieveError, RuleName
from mmretrieve.cli.arguments import (
    WRONG_USE,
    OneLineParser,
    add_computing,
    add_language_options,
    count,
    finite,
    printable,
    weights,
)
from mmretrieve.errors import OptionError
from mmretrieve.options import AUTO, BALANCED, BASE, BUILT_IN, Preprocessing

ROOT = Path(__file__).parents[1]
GUIDES = ROOT / "docs" / "guides"
README, WEIGHTS, ANSWERABLE = ROOT / "README.md", GUIDES / "weights.md", GUIDES / "answerable.md"
BETAS, GAMMAS = "0:1:21", "-0.5:3:31"


def main(words: Sequence[str] | None = None) -> int:
    """Runs one command. Exit status 0 done, 1 failed, 2 wrong use; errors are one line on stderr."""
    options = make_parser().parse_args(words)
    try:
        options.command(options)
    except (MMRetrieveError, OSError) as error:
        if options.debug:
            raise
        told = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) and error.filename else str(error)
        print(f"eval: {printable(told)}", file=sys.stderr)
        return WRONG_USE if isinstance(error, OptionError) else 1
    except KeyboardInterrupt:
        print("eval: interrupted; what was encoded is kept, run the same command to go on", file=sys.stderr)
        return 130
    return 0


def table(options: argparse.Namespace) -> None:
    """Measures all methods on the wardrobe, and the catalogue where it is, and puts the table of both into the README."""
    from eval.cli import texts

    texts.table(options)


def weigh(options: argparse.Namespace) -> None:
    """Measures weights chosen without labels, and what labels would give, on every set at hand."""
    from eval.cli import texts

    texts.weights(options)


def judge(options: argparse.Namespace) -> None:
    """Measures whether `answerable` tells what a gallery has from what it has not."""
    from eval.studies import files

    files.answerable(options)


def shun(options: argparse.Namespace) -> None:
    """Measures what searches that avoid something still show of it, on the wardrobe."""
    from eval.studies import files

    files.avoid(options)


def make_parser() -> argparse.ArgumentParser:
    parser = OneLineParser(prog="python -m eval", description="Benchmarks whose numbers can be quoted.")
    added = parser.add_subparsers(required=True, metavar="COMMAND")
    running = _command(added, "run", commands.run)
    _of_benchmark(running)
    _way(running)
    _weighing(running)
    sweeping = _command(added, "sweep", commands.sweep)
    _of_benchmark(sweeping)
    _way(sweeping)
    sweeping.add_argument("--betas", type=steps, default=BETAS, help="first:last:how many (default: %(default)s)")
    sweeping.add_argument(
        "--gammas", type=steps, default=GAMMAS, help="first:last:how many, as --gammas=-1:3:41 (default: %(default)s)"
    )
    told = (
        "halves: the best point is chosen on the even queries and reported on the odd ones; same: on all (default: %(default)s)"
    )
    sweeping.add_argument("--tune", choices=tuple(map(str, Tuning)), default=Tuning.HALVES.value, help=told)
    submitting = _command(added, "submit", commands.submit)
    submitting.add_argument("benchmark", metavar="BENCHMARK", help=" or ".join(SERVERS))
    submitting.add_argument("--root", type=Path, help="the benchmark's own folder")
    _way(submitting)
    _weighing(submitting)
    _scoring(_command(added, "score", commands.score))
    _reporting(_command(added, "report", commands.report))
    exporting = _command(added, "export-wardrobe", commands.export_wardrobe)
    exporting.add_argument("layout", choices=tuple(map(str, BenchmarkLayout)), help="the benchmark whose layout to write")
    exporting.add_argument("folder", type=Path, metavar="OUT", help="a new folder")
    _of_texts(_command(added, "table", table), README)
    weighing = _command(added, "weights", weigh)
    _of_texts(weighing, WEIGHTS)
    told = "a composer, such as searle-oti, which takes minutes, whose rows stay as they are; may be repeated"
    weighing.add_argument("--skip", type=ComposerName, action="append", default=[], metavar="C", help=told)
    _of_texts(_command(added, "answerable", judge), ANSWERABLE)
    _of_texts(_command(added, "avoid", shun), WEIGHTS)
    return parser


def steps(text: str) -> tuple[float, float, int]:
    """`"0:1:21"` → `(0.0, 1.0, 21)`."""
    first, _, rest = text.partition(":")
    last, _, number = rest.partition(":")
    return finite(first), finite(last), count(number)


def root_of(text: str) -> tuple[str, Path]:
    """`"cirr=FOLDER"` → `("cirr", Path("FOLDER"))`."""
    name, sign, folder = text.partition("=")
    if not sign or not folder or name not in list(BenchmarkName):
        raise argparse.ArgumentTypeError(f"expected BENCHMARK=FOLDER with one of {', '.join(BenchmarkName)}, got {text!r}")
    return name, Path(folder)


def _command(added: Any, name: str, run: Callable[[argparse.Namespace], None]) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = added.add_parser(name, help=run.__doc__, description=run.__doc__)
    command.set_defaults(command=run)
    command.add_argument("--debug", action="store_true", help="show a traceback when something fails")
    return command


def _of_benchmark(command: argparse.ArgumentParser) -> None:
    told = f"one of {', '.join(BenchmarkName)}; a part alone as fashioniq:dress"
    command.add_argument("benchmark", metavar="BENCHMARK", help=told)
    command.add_argument("--root", type=Path, help="the benchmark's own folder")
    splits = "; ".join(f"{name}: {', '.join(of)}" for name, of in SPLITS.items())
    command.add_argument("--split", help=f"{splits} (default: the first)")


def _way(command: argparse.ArgumentParser) -> None:
    method = command.add_argument_group("the method")
    told = f"MODEL/TAG, hf-hub:org/name, a local open_clip folder, or {BUILT_IN} (default: %(default)s)"
    method.add_argument("--encoder", default=BUILT_IN, metavar="E", help=told)
    told = f"one of {', '.join(ComposerName)} (default: %(default)s)"
    method.add_argument(
        "--composer", default=ComposerName.CAPTIONS.value, choices=tuple(map(str, ComposerName)), metavar="C", help=told
    )
    told = f"how term scores become one: {', '.join(RuleName)} (default: the composer's own)"
    method.add_argument("--rule", choices=tuple(map(str, RuleName)), metavar="R", help=told)
    method.add_argument("--phi", type=Path, help="of textual inversion (default: the encoder's own)")
    told = "of pictures, before the model's own (default: %(default)s)"
    method.add_argument("--preprocessing", choices=tuple(map(str, Preprocessing)), default=Preprocessing.PLAIN.value, help=told)
    protocol = command.add_argument_group("departures from the protocol, written into the result")
    protocol.add_argument("--reference", choices=tuple(map(str, ReferenceMode)), help="keep it in the ranking, or drop it")
    protocol.add_argument("--concept", action="store_true", help="take CIRCO's shared concept for the caption of the reference")
    told = "first, or the mean of both orders of FashionIQ's captions (default: as published evaluators of such methods do)"
    protocol.add_argument("--prompt-orders", choices=tuple(map(str, PromptOrder)), help=told)
    add_language_options(command, missing="go on where pictures are missing, or a file lacks something; the result says so")
    _computing(command)
    _results(command)
    command.add_argument(
        "--features", type=Path, metavar="DIR", help="where vectors of pictures are kept (default: in the cache)"
    )
    command.add_argument("--name", help="of the results' files (default: what was chosen)")


def _weighing(command: argparse.ArgumentParser) -> None:
    told = "alpha_image,alpha_text,beta (a first number below 0 needs --pdv=-1,…); published; a published setting by its name; or the file of a sweep, for its best point"
    command.add_argument("--pdv", metavar="P", help=told)
    told = f"{BASE} (the default: the composer's own), {AUTO} (chosen for each query without labels), {BALANCED}, or by role: image=1,prompt=2"
    command.add_argument("--weights", type=weights, metavar="W", help=told)


def _scoring(command: argparse.ArgumentParser) -> None:
    _of_benchmark(command)
    told = "JSON: {query id: [ids, best first]}; of CIRR also the file of the subsets"
    command.add_argument("--predictions", type=Path, nargs="+", required=True, metavar="FILE", help=told)
    command.add_argument("--json", action="store_true", help="print JSON")


def _reporting(command: argparse.ArgumentParser) -> None:
    command.add_argument("records", type=Path, metavar="FOLDER", help="what run and sweep have written")
    command.add_argument("--out", type=Path, default=Path("report.html"), help="the page (default: %(default)s)")
    told = "where the pictures of a benchmark lie: cirr=FOLDER; may be repeated"
    command.add_argument("--root", type=root_of, action="append", default=[], metavar="NAME=FOLDER", help=told)


def _of_texts(command: argparse.ArgumentParser, text: Path) -> None:
    data = os.environ.get("MMRETRIEVE_DATA", "../shared/data")
    command.add_argument("--data", type=Path, default=data, help="folder that holds the catalogue (default: %(default)s)")
    command.add_argument("--text", type=Path, default=text, help=f"the text whose table is filled (default: {text.name})")
    command.add_argument("--phi", type=Path, help="for LinCIR (default: the encoder's own, else one is trained)")
    add_language_options(command)
    _computing(command)
    _results(command)


def _computing(command: argparse.ArgumentParser) -> None:
    add_computing(command)
    command.set_defaults(dtype="float32")  # which is comparable everywhere


def _results(command: argparse.ArgumentParser) -> None:
    command.add_argument("--out", type=Path, default=Path("results"), help="folder of the results files (default: %(default)s)")
    command.add_argument("--json", action="store_true", help="print JSON")


if __name__ == "__main__":
    sys.exit(main())
