"""What the shell's words may be: numbers checked as they are read, and mistakes told in one line."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import MISSING, fields
from math import isfinite
from typing import Any, NoReturn

from mmretrieve.inversion.recipe import PhiRecipe
from mmretrieve.language.options import LanguageOptions
from mmretrieve.options import AUTO, BALANCED, BASE, DEFAULT_K, ComposerName, RuleName

WRONG_USE = 2
NAMED_WEIGHTS = (AUTO, BASE, BALANCED)
HOST = "127.0.0.1"
SEVERAL: dict[str, tuple[type, str, str]] = {
    "image_weight": (float, "W", "how much each picture counts (default: 1)"),
    "strength": (float, "S", "how far to go along each prompt; below 0, the other way (default: 1)"),
    "reference_id": (str, "ID", "an item of the gallery as the reference"),
    "region": (tuple, "L,T,R,B", "the part of the reference that counts, in shares of its sides, or all"),
    "avoid": (str, "T", "what should not show"),
    "more_like": (str, "ID", "an item to be near to"),
    "less_like": (str, "ID", "an item to be far from"),
    "caption": (str, "TEXT", "the reference said in words (default: by its fields, those of similar items, or the tagger)"),
    "exclude": (str, "ID", "an item that must not appear"),
}
QUESTION = (
    *SEVERAL,
    "k",
    "composer",
    "rule",
    "alpha_image",
    "alpha_text",
    "beta",
    "weights",
    "min_score",
    "where",
    "exclude_reference",
)
SPEAKERS = {
    "captioner": ("WHO", "says references in words: tagger, endpoint, transformers:MODEL or a file of captions"),
    "rewriter": ("WHO", "applies prompts to captions: swap (the default of search), template, endpoint or a file of rewrites"),
    "compiler": ("WHO", "sorts prompts by role: rules, endpoint or a file"),
    "describer": ("WHO", "describes targets for one-step: endpoint or a file"),
    "endpoint": ("URL", "base URL of an OpenAI-compatible server, else OPENAI_BASE_URL"),
    "model": ("NAME", "the model that the endpoint should use"),
    "key": ("KEY", "its key, else OPENAI_API_KEY, which other users of this machine cannot see"),
    "memory": ("FILE", "SQLite file that stores the answers of models; JSON lines of earlier versions are read"),
    "timeout": ("SECONDS", "for one answer of the endpoint"),
    "id_field": ("NAME", "field of a file that names the picture"),
    "caption_field": ("NAME", "field that holds the captions"),
    "prompt_field": ("NAME", "field that holds the prompt"),
    "rewrite_field": ("NAME", "field that holds the rewrites"),
}
RECIPE = {
    "steps": (int, "of the training"),
    "batch": (int, "captions a step"),
    "learning_rate": (float, "of AdamW"),
    "weight_decay": (float, "of AdamW"),
    "noise": (float, "on the captions' features"),
    "validate_every": (int, "steps; then the phi, its curve and the run's state are written"),
    "seed": (int, "of what is drawn at random"),
}


class OneLineParser(argparse.ArgumentParser):
    """Says what is wrong in one line instead of repeating the usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(WRONG_USE, f"{self.prog.split()[0]}: {message}; see {self.prog} --help\n")


def count(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text!r}")
    return int(text)


def whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a whole number, got {text!r}") from None


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


def port(text: str) -> int:
    number = count(text)
    if number > 65_535:
        raise argparse.ArgumentTypeError(f"expected a port from 1 to 65535, got {text!r}")
    return number


def shard(text: str) -> tuple[int, int]:
    """`"2/8"` → `(2, 8)`."""
    number, _, of = text.partition("/")
    if not number.isdecimal() or not of.isdecimal() or not 1 <= int(number) <= int(of):
        raise argparse.ArgumentTypeError(f"expected a part such as 2/8, got {text!r}")
    return int(number), int(of)


def region(text: str) -> tuple[float, ...] | None:
    """`"0.5,0,1,1"` → `(0.5, 0.0, 1.0, 1.0)`, the right half; `"all"` → None."""
    if text == "all":
        return None
    sides = tuple(map(finite, text.split(",")))
    if len(sides) != 4:
        raise argparse.ArgumentTypeError(f"expected left,top,right,bottom such as 0.5,0,1,1, or all, got {text!r}")
    return sides


def names(text: str) -> list[str]:
    """`"article,colour"` → `["article", "colour"]`."""
    read = [name.strip() for name in text.split(",") if name.strip()]
    if not read:
        raise argparse.ArgumentTypeError(f"expected names such as article,colour, got {text!r}")
    return read


def alpha_or_auto(text: str) -> float | str:
    return text if text == AUTO else finite(text)


def weights(text: str) -> dict[str, float] | str:
    """`"image=1,prompt=2"` → `{"image": 1.0, "prompt": 2.0}`."""
    if text in NAMED_WEIGHTS:
        return text
    pairs = [part.partition("=") for part in text.split(",")]
    if not all(name.strip() and sign for name, sign, _ in pairs):
        raise argparse.ArgumentTypeError(
            f"expected {', '.join(NAMED_WEIGHTS)}, or weights by role such as image=1,prompt=2, got {text!r}"
        )
    read = {name.strip(): finite(value) for name, _, value in pairs}
    if len(read) < len(pairs):
        raise argparse.ArgumentTypeError(f"every role once, got {text!r}")
    return read


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
    asked = command.add_argument_group("the question")
    asked.add_argument("--image", action="append", metavar="P", help=f"the reference picture{more}")
    asked.add_argument("--prompt", action="append", metavar="T", help=f'what should be different: "in red"{more}')
    readers: dict[type, Callable[[str], Any]] = {float: finite, str: str, tuple: region}
    for name, (kind, metavar, told) in SEVERAL.items():
        asked.add_argument(_option(name), action="append", type=readers[kind], metavar=metavar, help=told + more)
    asked.add_argument("-k", type=count, default=DEFAULT_K, metavar="N", help="how many items (default: %(default)s)")
    asked.add_argument(
        "--min-score",
        type=finite,
        metavar="S",
        help="leave out items that score below; by default in standard deviations above the average item",
    )
    asked.add_argument("--where", metavar="SQL", help="""what items must fulfil: "price < 20 AND colour = 'red'\"""")
    asked.add_argument("--exclude-reference", action="store_true", help="the reference itself must not appear")
    method = command.add_argument_group("the method and its weights")
    composers, rules = tuple(map(str, ComposerName)), tuple(map(str, RuleName))
    told = f"one of {', '.join(composers)} (default: captions for an image with a prompt)"
    method.add_argument("--composer", metavar="C", choices=composers, help=told)
    told = f"how term scores become one: {', '.join(rules)} (default: the composer's own)"
    method.add_argument("--rule", metavar="R", choices=rules, help=told)
    method.add_argument("--alpha-image", type=alpha_or_auto, metavar="A", help=f"how far the prompt moves the image, or {AUTO}")
    method.add_argument("--alpha-text", type=finite, metavar="A", help="how far the prompt moves the words")
    method.add_argument("--beta", type=share, metavar="B", help="0 follows the image, 1 the words")
    told = f"{AUTO} (default: chosen for the query), {BASE} (the method's own), {BALANCED}, or by role: image=1.5,prompt=2"
    method.add_argument("--weights", type=weights, metavar="W", help=told)


def add_speakers(command: argparse.ArgumentParser, missing: str = "go on where a file lacks something") -> None:
    """Who captions, rewrites and compiles: the fields of `LanguageOptions`. `missing` is what --allow-missing says of itself."""
    speakers = command.add_argument_group("who speaks")
    for name, (metavar, told) in SPEAKERS.items():
        read = positive if name == "timeout" else str
        speakers.add_argument(_option(name), metavar=metavar, help=told + _default(LanguageOptions, name), type=read)
    flags = {"offline": "answers come from the memory alone", "allow_missing": missing}
    for name, told in flags.items():
        speakers.add_argument(_option(name), action="store_const", const=True, help=told)


def add_recipe(command: argparse.ArgumentParser) -> None:
    """How a phi is trained: the fields of `PhiRecipe`."""
    recipe = command.add_argument_group("the recipe")
    for name, (kind, told) in RECIPE.items():
        read, metavar = (whole, "N") if kind is int else (finite, "X")
        recipe.add_argument(_option(name), type=read, metavar=metavar, help=told + _default(PhiRecipe, name))


def add_opening(command: argparse.ArgumentParser) -> None:
    """Whatever opens a gallery to be asked: who speaks, and where the encoder is and computes."""
    add_speakers(command)
    command.add_argument("--phi", metavar="FILE", help="phi of textual inversion: .safetensors, or a published .pt")
    command.add_argument("--vocabulary", metavar="FILE", help="JSON of the words that tagger and swap rewriter know")
    command.add_argument("--encoder", metavar="E", help="where the gallery's encoder is now, if it has moved")
    add_computing(command)


def add_serving(command: argparse.ArgumentParser) -> None:
    """Where a server listens, and whom it lets in."""
    command.add_argument("--host", default=HOST, metavar="H", help="address to listen at (default: %(default)s)")
    command.add_argument("--port", type=port, metavar="P", help="port to listen at (default: the first free one from 7860)")
    told = "what every request must bring; auto makes one. Else MMRETRIEVE_TOKEN, which other users cannot see"
    command.add_argument("--token", metavar="T", help=told)
    command.add_argument("--user", metavar="NAME:PASSWORD", help="instead of a token. Else MMRETRIEVE_USER")


def add_computing(command: argparse.ArgumentParser) -> None:
    command.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps (default: %(default)s)")
    command.add_argument(
        "--dtype", default="auto", help="auto, float32, bfloat16 or float16, of the image tower (default: %(default)s)"
    )


def _default(kind: type[Any], name: str) -> str:
    default = next(field.default for field in fields(kind) if field.name == name)
    return (
        ""
        if default in (None, MISSING)
        else f" (default: {default:g})"
        if isinstance(default, float)
        else f" (default: {default})"
    )


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"
