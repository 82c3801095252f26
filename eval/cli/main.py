"""`python -m eval`: runs, sweeps, submissions, scores and reports on benchmarks, and the studies behind README and docs."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from eval.benchmarks import BenchmarkName
from eval.benchmarks.circled import SUBSETS as CIRCLED_SUBSETS
from eval.benchmarks.export import LAYOUTS
from eval.benchmarks.registry import FAMILIES
from eval.cli import commands
from eval.cli.options import SEARCH_FIELDS, ReferenceMode
from eval.cli.reproduce import reproduce
from eval.lists.submission import SERVERS
from eval.runs.compositions import PromptOrder
from eval.sweep.sweep import Tuning
from mmretrieve import ComposerName, MMRetrieveError
from mmretrieve.cli.arguments import (
    WRONG_USE,
    OneLineParser,
    add_computing,
    add_language_options,
    add_search_fields,
    count,
    finite,
    registered,
    weights,
)
from mmretrieve.errors import OptionError, printable
from mmretrieve.options import AUTO, BALANCED, BASE, BUILT_IN, Preprocessing
from mmretrieve.registry import COMPOSERS, RULES

ROOT = Path(__file__).parents[2]
GUIDES = ROOT / "docs" / "guides"
STUDIES = {  # the document whose tables a study fills, and its help
    "table": (
        ROOT / "README.md",
        "Measures all methods on the wardrobe, and on the catalogue where it is available, and fills README's table.",
    ),
    "weights": (
        GUIDES / "weights.md",
        "Measures label-free weights, and the weights that labels would give, on every available set.",
    ),
    "answerable": (
        GUIDES / "answerable.md",
        "Measures whether `answerable` separates what a gallery has from what it lacks.",
    ),
    "judges": (
        GUIDES / "searching.md",
        "Measures what the built-in judges add to searches, on every available set.",
    ),
    "avoid": (
        GUIDES / "weights.md",
        "Measures how many hits of searches that avoid an attribute still show it, on the wardrobe.",
    ),
    "sessions": (
        GUIDES / "searching.md",
        "Measures how often sessions of two to four turns find their target, on the wardrobe.",
    ),
    "paraphrases": (
        GUIDES / "searching.md",
        "Measures how much searches depend on the wording of prompts, with and without paraphrases, on every available set.",
    ),
    "axes": (
        GUIDES / "searching.md",
        "Measures how well axes from words and from examples order items by labels, on every available set.",
    ),
}
BETAS, GAMMAS = "0:1:21", "-0.5:3:31"


def main(words: Sequence[str] | None = None) -> int:
    """Runs one command. Exit status 0: done, 1: failed, 2: wrong use. Errors are one line on stderr."""
    options = make_parser().parse_args(words)
    try:
        options.command(options)
    except (MMRetrieveError, OSError) as error:
        if options.debug:
            raise
        text = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) and error.filename else str(error)
        print(f"eval: {printable(text)}", file=sys.stderr)
        return WRONG_USE if isinstance(error, OptionError) else 1
    except KeyboardInterrupt:
        print("eval: interrupted; encoded vectors are kept: run the same command again to resume", file=sys.stderr)
        return 130
    return 0


def make_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = OneLineParser(prog="python -m eval", description="Runs benchmarks whose numbers can be quoted.")
    added = parser.add_subparsers(required=True, metavar="COMMAND")
    running = _add_command(added, "run", commands.run)
    _add_benchmark(running)
    _add_method(running)
    _add_weights(running)
    running.add_argument("--trec", type=Path, metavar="FILE", help="also write the rankings as a run of TREC")
    sweeping = _add_command(added, "sweep", commands.sweep)
    _add_benchmark(sweeping)
    _add_method(sweeping)
    _add_sweep(sweeping)
    submitting = _add_command(added, "submit", commands.submit)
    submitting.add_argument("benchmark", metavar="BENCHMARK", help=" or ".join(SERVERS))
    submitting.add_argument("--root", type=Path, help="folder of the benchmark")
    _add_method(submitting)
    _add_weights(submitting)
    _add_predictions(_add_command(added, "score", commands.score))
    judged = _add_command(added, "qrels", commands.qrels)
    _add_benchmark(judged)
    judged.add_argument("--out", type=Path, required=True, metavar="FILE", help="the file")
    _add_report(_add_command(added, "report", commands.report))
    _add_reproduction(
        _add_command(
            added,
            "reproduce",
            run_reproduction,
            "Runs a published row and prints the gap to it; without a name, lists the rows.",
        )
    )
    exporting = _add_command(added, "export-wardrobe", commands.export_wardrobe)
    exporting.add_argument("layout", choices=LAYOUTS, help="the benchmark whose layout is written")
    exporting.add_argument("folder", type=Path, metavar="OUT", help="a new or empty folder")
    for name, (document, text) in STUDIES.items():
        study = _add_command(added, name, run_study, text)
        study.set_defaults(study=name)
        _add_study(study, document)
        if name == "weights":
            text = (
                "a composer that is not measured again, such as searle-oti, which takes minutes; its rows are kept; "
                "may be repeated"
            )
            study.add_argument("--skip", type=ComposerName, action="append", default=[], metavar="C", help=text)
    circled = _add_command(
        added,
        "circled",
        run_study,
        "Measures the sessions of CIRCLED: Hits@10 after each turn, for several ways to merge turns.",
    )
    circled.set_defaults(study="circled")
    circled.add_argument("subset", metavar="SUBSET", help=f"one of {', '.join(CIRCLED_SUBSETS)}")
    circled.add_argument("--root", type=Path, required=True, help="folder with the files of CIRCLED")
    circled.add_argument("--gallery-root", type=Path, required=True, help="folder of the benchmark whose images are searched")
    circled.add_argument("--encoder", default=BUILT_IN, metavar="E", help="as of run (default: %(default)s)")
    _add_computing(circled)
    _add_out(circled)
    return parser


def run_study(options: argparse.Namespace) -> None:
    """Runs a study of STUDIES."""
    from eval.cli import study_commands  # imports torch and matplotlib

    getattr(study_commands, options.study)(options)


def run_reproduction(options: argparse.Namespace) -> None:
    """Runs one of `eval.reproductions` through `run` or `submit`."""

    def run(words: list[str]) -> None:
        own = make_parser().parse_args(words)
        own.command(own)

    reproduce(options, run)


def parse_steps(text: str) -> tuple[float, float, int]:
    """Arguments of `numpy.linspace`.

    >>> parse_steps("0:1:21")
    (0.0, 1.0, 21)
    """
    first, _, rest = text.partition(":")
    last, _, number = rest.partition(":")
    return finite(first), finite(last), count(number)


def parse_root(text: str) -> tuple[str, Path]:
    """A benchmark family and its folder: `"cirr=FOLDER"` → `("cirr", Path("FOLDER"))`."""
    name, sign, folder = text.partition("=")
    if not sign or not folder or name not in list(BenchmarkName):
        raise argparse.ArgumentTypeError(f"expected BENCHMARK=FOLDER with one of {', '.join(BenchmarkName)}, got {text!r}")
    return name, Path(folder)


def _add_command(
    added: Any, name: str, run: Callable[[argparse.Namespace], None], text: str | None = None
) -> argparse.ArgumentParser:
    """Adds a command; `text`, or the docstring of `run`, is its help."""
    text = text or run.__doc__
    command: argparse.ArgumentParser = added.add_parser(name, help=text, description=text)
    command.set_defaults(command=run)
    command.add_argument("--debug", action="store_true", help="show a traceback when a command fails")
    return command


def _add_benchmark(command: argparse.ArgumentParser, **more: Any) -> None:
    text = f"one of {', '.join(BenchmarkName)}; a single part as fashioniq:dress"
    command.add_argument("benchmark", metavar="BENCHMARK", help=text, **more)
    command.add_argument("--root", type=Path, help="folder of the benchmark")
    splits = "; ".join(f"{name}: {', '.join(family.splits)}" for name, family in FAMILIES.items())
    command.add_argument("--split", help=f"{splits} (default: the first)")


def _add_method(command: argparse.ArgumentParser) -> None:
    method = command.add_argument_group("the method")
    text = f"MODEL/TAG, hf-hub:org/name, transformers:MODEL, sentence-transformers:MODEL, a local folder, or {BUILT_IN} (default: %(default)s)"
    method.add_argument("--encoder", default=BUILT_IN, metavar="E", help=text)
    text = f"one of {', '.join(COMPOSERS)} (default: %(default)s)"
    method.add_argument("--composer", type=registered(COMPOSERS), default=ComposerName.CAPTIONS.value, metavar="C", help=text)
    text = f"how the scores of terms become one score: {', '.join(RULES)} (default: the composer's own)"
    method.add_argument("--rule", type=registered(RULES), metavar="R", help=text)
    method.add_argument("--phi", type=Path, help="file of the textual inversion network (default: the encoder's own)")
    text = "of images, before the preprocessing of the model (default: %(default)s)"
    method.add_argument("--preprocessing", choices=tuple(map(str, Preprocessing)), default=Preprocessing.PLAIN.value, help=text)
    protocol = command.add_argument_group("departures from the protocol, which are written into the record")
    protocol.add_argument(
        "--reference", choices=tuple(map(str, ReferenceMode)), help="keep the reference in the ranking, or drop it"
    )
    protocol.add_argument("--concept", action="store_true", help="use CIRCO's shared concept as the caption of the reference")
    text = (
        "the first, or the mean of both orders of FashionIQ's captions (default: as in the published evaluators of the method)"
    )
    protocol.add_argument("--prompt-orders", choices=tuple(map(str, PromptOrder)), help=text)
    add_search_fields(command, SEARCH_FIELDS)
    add_language_options(command, missing="continue where images or texts of a file are missing; the record says so")
    _add_computing(command)
    _add_out(command)
    command.add_argument("--json", action="store_true", help="print JSON")
    command.add_argument(
        "--features", type=Path, metavar="DIR", help="folder for the vectors of images (default: in the cache)"
    )
    command.add_argument("--name", help="name of the record files (default: made of the options)")


def _add_weights(command: argparse.ArgumentParser) -> None:
    text = (
        "alpha_image,alpha_text,beta (a negative first number needs --pdv=-1,1,0.5); published; the name of a published setting; "
        "or the file of a sweep, for its best point"
    )
    command.add_argument("--pdv", metavar="P", help=text)
    text = f"{BASE} (the default: the composer's own), {AUTO} (chosen for each query without labels), {BALANCED}, or by role: image=1,prompt=2"
    command.add_argument("--weights", type=weights, metavar="W", help=text)


def _add_sweep(command: argparse.ArgumentParser) -> None:
    command.add_argument("--betas", type=parse_steps, default=BETAS, help="first:last:count (default: %(default)s)")
    text = "first:last:count, as in --gammas=-1:3:41 (default: %(default)s)"
    command.add_argument("--gammas", type=parse_steps, default=GAMMAS, help=text)
    text = "halves: choose the best point on the even queries and report on the odd ones; same: choose and report on all (default: %(default)s)"
    command.add_argument("--tune", choices=tuple(map(str, Tuning)), default=Tuning.HALVES.value, help=text)


def _add_predictions(command: argparse.ArgumentParser) -> None:
    _add_benchmark(command, nargs="?")
    text = "JSON: {query id: [ids, best first]}, or a run of TREC; for CIRR also the file of the subsets"
    command.add_argument("--predictions", "--run", type=Path, nargs="+", required=True, metavar="FILE", help=text)
    command.add_argument("--qrels", type=Path, metavar="FILE", help="qrels of TREC, in the place of a benchmark")
    command.add_argument("--json", action="store_true", help="print JSON")


def _add_report(command: argparse.ArgumentParser) -> None:
    command.add_argument("records", type=Path, metavar="FOLDER", help="folder with the records of run and sweep")
    command.add_argument("--out", type=Path, default=Path("report.html"), help="file of the page (default: %(default)s)")
    text = "folder of a benchmark's images: cirr=FOLDER; may be repeated"
    command.add_argument("--root", type=parse_root, action="append", default=[], metavar="NAME=FOLDER", help=text)
    text = "labels of CIRCUS that split the metrics of a benchmark: circo=circo_validated.csv; may be repeated"
    command.add_argument("--circus", type=parse_root, action="append", default=[], metavar="NAME=FILE", help=text)


def _add_reproduction(command: argparse.ArgumentParser) -> None:
    command.add_argument("name", nargs="?", metavar="NAME", help="such as pdv-circo-vitl")
    command.add_argument("--root", type=Path, help="folder of the benchmark")
    command.add_argument("--phi", metavar="FILE", help="file of the textual inversion network")
    command.add_argument("--encoder", metavar="E", help="another encoder than the released weights")
    command.add_argument("--split", help="another split, such as val where the published one needs a server")
    add_language_options(command)
    _add_out(command)


def _add_study(command: argparse.ArgumentParser, document: Path) -> None:
    data = os.environ.get("MMRETRIEVE_DATA", "../shared/data")
    command.add_argument("--data", type=Path, default=data, help="folder that contains the catalogue (default: %(default)s)")
    text = f"the document whose table is filled (default: {document.name})"
    command.add_argument("--text", type=Path, default=document, help=text)
    text = "network for LinCIR (default: the encoder's own, otherwise one is trained)"
    command.add_argument("--phi", type=Path, help=text)
    add_language_options(command)
    _add_computing(command)
    _add_out(command)


def _add_computing(command: argparse.ArgumentParser) -> None:
    add_computing(command)
    command.set_defaults(dtype="float32")  # the same results on every machine


def _add_out(command: argparse.ArgumentParser) -> None:
    command.add_argument("--out", type=Path, default=Path("results"), help="folder of the record files (default: %(default)s)")
