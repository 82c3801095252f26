"""What the shell's words may be: numbers checked as they are read, and mistakes told in one line."""

from __future__ import annotations

import argparse
from dataclasses import fields
from math import isfinite
from typing import Any, NoReturn

from mmretrieve.options import AUTO, BALANCED, DEFAULT_K, ComposerName, RuleName

WRONG_USE = 2
SEVERAL = {
    "image_weight": (float, "W", "how much each picture counts (default: 1)"),
    "strength": (float, "S", "how far to go along each prompt; below 0, the other way (default: 1)"),
    "reference_id": (str, "ID", "an item of the gallery as the reference"),
    "avoid": (str, "T", "what should not show"),
    "more_like": (str, "ID", "an item to be near to"),
    "less_like": (str, "ID", "an item to be far from"),
    "caption": (str, "TEXT", "the reference said in words (default: by the captioner)"),
    "exclude": (str, "ID", "an item that must not appear"),
}
QUESTION = (*SEVERAL, "k", "composer", "rule", "alpha_image", "alpha_text", "beta", "weights", "min_score", "exclude_reference")
SPEAKERS = {
    "captioner": ("WHO", "tagger, endpoint, transformers:MODEL or a file of captions (default: tagger)"),
    "rewriter": ("WHO", "template, swap, endpoint or a file of rewrites (default: template)"),
    "compiler": ("WHO", "rules, endpoint or a file: who sorts a prompt by role (default: rules)"),
    "describer": ("WHO", "endpoint or a file: who describes targets for one-step"),
    "endpoint": ("URL", "base URL of an OpenAI-compatible server (default: OPENAI_BASE_URL)"),
    "model": ("NAME", "the model that the endpoint should use"),
    "key": ("KEY", "its key (default: OPENAI_API_KEY, which other users of this machine cannot see)"),
    "memory": ("FILE", "JSON lines in which models' answers are kept, and found again"),
    "timeout": ("SECONDS", "for one answer of the endpoint (default: 60)"),
    "id_field": ("NAME", "field of a file of captions that names the picture"),
    "caption_field": ("NAME", "field that holds the captions"),
    "prompt_field": ("NAME", "field that holds the prompt"),
    "rewrite_field": ("NAME", "field that holds the rewrites"),
}


class OneLineParser(argparse.ArgumentParser):
    """Says what is wrong in one line instead of repeating the usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(WRONG_USE, f"{self.prog.split()[0]}: {message}; see {self.prog} --help\n")


def count(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text!r}")
    return int(text)


def finite(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not isfinite(value):
        raise argparse.ArgumentTypeError(f"expected a finite number, got {text!r}")
    return value


def share(text: str) -> float:
    value = finite(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to 1, got {text!r}")
    return value


def positive(text: str) -> float:
    value = finite(text)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {text!r}")
    return value


def alpha_or_auto(text: str) -> float | str:
    return text if text == AUTO else finite(text)


def weights(text: str) -> dict[str, float] | str:
    """`"image=1,prompt=2"` → `{"image": 1.0, "prompt": 2.0}`."""
    if text == BALANCED:
        return text
    pairs = [part.partition("=") for part in text.split(",")]
    if not all(name.strip() and sign for name, sign, _ in pairs):
        raise argparse.ArgumentTypeError(f"expected {BALANCED}, or weights by role such as image=1,prompt=2, got {text!r}")
    return {name.strip(): finite(value) for name, _, value in pairs}


def printable(text: str) -> str:
    """The text in one line, with whatever would move or colour a terminal spelled out."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in text)


def chosen(options: argparse.Namespace, kind: type[Any]) -> dict[str, Any]:
    """What was said of the fields of a dataclass; what was not said is left to its defaults."""
    said = {field.name: getattr(options, field.name, None) for field in fields(kind)}
    return {name: value for name, value in said.items() if value is not None}


def add_question(command: argparse.ArgumentParser) -> None:
    """What can be asked: the same words as in `Retriever.search`."""
    more = "; may be repeated"
    command.add_argument("--image", action="append", metavar="P", help=f"the reference picture{more}")
    command.add_argument("--prompt", action="append", metavar="T", help=f'what should be different: "in red"{more}')
    for name, (kind, metavar, told) in SEVERAL.items():
        read = finite if kind is float else str
        command.add_argument(_option(name), action="append", type=read, metavar=metavar, help=told + more)
    command.add_argument("-k", type=count, default=DEFAULT_K, metavar="N", help="how many items (default: %(default)s)")
    command.add_argument("--alpha-image", type=alpha_or_auto, metavar="A", help="how far the prompt moves the image, or auto")
    command.add_argument("--alpha-text", type=finite, metavar="A", help="how far the prompt moves the words")
    command.add_argument("--beta", type=share, metavar="B", help="0 follows the image, 1 the words")
    told = "balanced, or by role: image=1.5,composed=0.5,prompt=2; instead of alpha and beta"
    command.add_argument("--weights", type=weights, metavar="W", help=told)
    composers = tuple(map(str, ComposerName))
    told = f"one of {', '.join(composers)} (default: captions for an image with a prompt)"
    command.add_argument("--composer", metavar="C", choices=composers, help=told)
    rules = tuple(map(str, RuleName))
    told = f"how term scores become one: {', '.join(rules)} (default: the composer's own)"
    command.add_argument("--rule", metavar="R", choices=rules, help=told)
    command.add_argument("--min-score", type=finite, metavar="S", help="leave out items that score below")
    command.add_argument("--exclude-reference", action="store_true", help="the reference itself must not appear")


def add_speakers(command: argparse.ArgumentParser) -> None:
    """Who captions, rewrites and compiles: the fields of `SpeakerOptions`."""
    for name, (metavar, told) in SPEAKERS.items():
        command.add_argument(_option(name), metavar=metavar, help=told, type=positive if name == "timeout" else str)
    flags = {"offline": "answers come from the memory alone", "allow_missing": "go on where a file lacks a picture"}
    for name, told in flags.items():
        command.add_argument(_option(name), action="store_const", const=True, help=told)


def add_computing(command: argparse.ArgumentParser) -> None:
    command.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps (default: %(default)s)")
    command.add_argument(
        "--dtype", default="auto", help="auto, float32, bfloat16 or float16, of the image tower (default: %(default)s)"
    )


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"
