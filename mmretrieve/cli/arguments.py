"""The options of the shell: `SearchRequest`, `LanguageOptions` and `PhiRecipe` as arguments, and the readers of their values."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import MISSING, fields
from math import isfinite
from typing import Any, NoReturn

from mmretrieve.errors import OptionError, did_you_mean, printable, unknown
from mmretrieve.inversion.recipe import PhiRecipe
from mmretrieve.language.options import CROSS_ENCODER_PREFIX, ENDPOINT_JUDGES, LOCAL_PREFIX, LanguageOptions
from mmretrieve.options import MIN_SECRET_CHARACTERS
from mmretrieve.registry import CAPTIONERS, COMPOSERS, JUDGES, PARAPHRASERS, REWRITERS, RULES, Registry
from mmretrieve.request import DEFAULTS, NAMED_WEIGHTS, REQUEST_FIELDS, FieldGroup, FieldKind, RequestField

WRONG_USE = 2
HOST = "127.0.0.1"
LANGUAGE_OPTIONS = {
    "captioner": (
        "C",
        f"describes references in words: {', '.join(CAPTIONERS)}, endpoint, transformers:MODEL or a file of captions",
    ),
    "rewriter": (
        "R",
        f"applies prompts to captions: {', '.join(REWRITERS)}, endpoint or a file of rewrites (default of search: swap)",
    ),
    "paraphraser": (
        "P",
        f"says prompts in other words: {', '.join(PARAPHRASERS)}, endpoint or a file of paraphrases (default: templates)",
    ),
    "compiler": ("C", "sorts prompts by role: rules, endpoint or a file"),
    "describer": ("D", "describes targets for one-step and imagined: endpoint or a file"),
    "editor": ("E", "edits references for imagined: endpoint, of an image model, or a file of paths"),
    "endpoint": ("URL", "base URL of an OpenAI-compatible server (default: OPENAI_BASE_URL)"),
    "model": ("NAME", "the model that the endpoint uses"),
    "key": ("KEY", "key of the endpoint (default: OPENAI_API_KEY, which other users of this machine cannot see)"),
    "memory": ("FILE", "SQLite file that stores the answers of models; JSON lines of earlier versions are read"),
    "timeout": ("SECONDS", "how long one answer of the endpoint may take"),
    "judge_seconds": ("SECONDS", "how long a judge with a model of its own may take for one search"),
    "id_field": ("NAME", "field of a file of texts that names the image"),
    "caption_field": ("NAME", "field of the file that holds the captions"),
    "prompt_field": ("NAME", "field of the file that holds the prompt"),
    "rewrite_field": ("NAME", "field of the file that holds the rewrites or paraphrases"),
}
OWN_JUDGES = (*ENDPOINT_JUDGES, f"{LOCAL_PREFIX}MODEL", f"{CROSS_ENCODER_PREFIX}MODEL")  # with models of their own
RECIPE = {
    "steps": (int, "training steps"),
    "batch": (int, "captions in each step"),
    "learning_rate": (float, "learning rate of AdamW"),
    "weight_decay": (float, "weight decay of AdamW"),
    "noise": (float, "scale of the noise that is added to the features of captions"),
    "validate_every": (int, "steps between validations, which also write the phi, its curve and the state of the run"),
    "seed": (int, "seed of all random numbers"),
}
REGISTRIES: Mapping[FieldKind, Registry[Any]] = {
    FieldKind.COMPOSER: COMPOSERS,
    FieldKind.RULE: RULES,
    FieldKind.JUDGE: JUDGES,
}
SYNTAX = {FieldKind.WEIGHTS: ": image=1.5,prompt=2", FieldKind.REGION: "; all for the whole image"}


class OneLineParser(argparse.ArgumentParser):
    """Reports an error in one line instead of repeating the usage, and suggests the option or command that was meant.

    Options are not abbreviated: `--k` must not be taken for `--key`.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False, **options})

    def error(self, message: str) -> NoReturn:
        program = self.prog.removeprefix("python -m ").partition(" ")[0]
        mark = "" if message.endswith("?") else ";"
        self.exit(WRONG_USE, f"{program}: {printable(message)}{mark} see {self.prog} --help\n")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """Like the base class, but anything unknown is an error of the command itself, whose --help lists what there is."""
        words = sys.argv[1:] if args is None else list(args)
        self._check_options(words)
        parsed, rest = super().parse_known_args(words, namespace)
        if rest:
            self.error(f"unexpected argument {rest[0]!r}")
        return parsed, rest

    def _check_options(self, words: Sequence[str]) -> None:
        """Reports an unknown option before argparse misses a required one."""
        options, has_commands = list(self._option_string_actions), self._subparsers is not None
        for word in words:
            if word == "--" or (has_commands and not word.startswith("-")):  # values follow, or the words of a command
                return
            name = word.partition("=")[0]
            if re.match(r"--[^\W\d]\S*$", name) and name not in options:
                self.error(f"unknown option {name!r}{did_you_mean(name, options)}")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            is_command = action.nargs == argparse.PARSER
            error = unknown("command" if is_command else "value", value, action.choices)
            raise argparse.ArgumentError(None if is_command else action, str(error))


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
    parsed = [name.strip() for name in text.split(",") if name.strip()]
    if not parsed:
        raise argparse.ArgumentTypeError(f"expected names such as article,colour, got {text!r}")
    return parsed


def registered(registry: Registry[Any]) -> Callable[[str], str]:
    """Reads a name of that registry."""

    def read(text: str) -> str:
        try:
            return registry.check(text)
        except OptionError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return read


def weights(text: str) -> dict[str, float] | str:
    """`"image=1,prompt=2"` → `{"image": 1.0, "prompt": 2.0}`."""
    if text in NAMED_WEIGHTS:
        return text
    pairs = [part.partition("=") for part in text.split(",")]
    if not all(name.strip() and sign for name, sign, _ in pairs):
        raise argparse.ArgumentTypeError(
            f"expected {', '.join(NAMED_WEIGHTS)}, or weights by role such as image=1,prompt=2, got {text!r}{did_you_mean(text, NAMED_WEIGHTS)}"
        )
    parsed = {name.strip(): finite(value) for name, _, value in pairs}
    if len(parsed) < len(pairs):
        raise argparse.ArgumentTypeError(f"expected every role once, got {text!r}")
    return parsed


def given_fields(options: argparse.Namespace, kind: type[Any]) -> dict[str, Any]:
    """The fields of a dataclass that were given; the others keep their defaults."""
    return {one.name: value for one in fields(kind) if (value := getattr(options, one.name, None)) is not None}


def add_search_fields(command: argparse.ArgumentParser, names: Collection[str] = REQUEST_FIELDS) -> None:
    """The fields of `SearchRequest` with these names as options."""
    groups = {group: command.add_argument_group(group.value) for group in FieldGroup}
    for name in names:
        declared = REQUEST_FIELDS[name]
        options, text = ("-k", "--k") if name == "k" else (_option(name),), _field_help(name, declared)
        group = groups[declared.group]
        if declared.kind is FieldKind.FLAG:
            group.add_argument(*options, action="store_true", help=text)
        else:
            action = "append" if declared.several else "store"
            group.add_argument(*options, action=action, type=_reader(declared), metavar=declared.metavar, help=text)


def search_fields(options: argparse.Namespace, names: Iterable[str] = REQUEST_FIELDS) -> dict[str, Any]:
    """The fields of `SearchRequest` with these names that were given."""
    return {name: value for name in names if (value := getattr(options, name)) is not None}


def _field_help(name: str, declared: RequestField) -> str:
    names = REGISTRIES[declared.kind].names if declared.kind in REGISTRIES else ()
    if declared.kind is FieldKind.JUDGE:
        names += OWN_JUDGES
    parts = [
        declared.help,
        SYNTAX.get(declared.kind, ""),
        f": {', '.join(names)}" if names else "",
        f", or {declared.keyword}" if declared.keyword and declared.keyword not in declared.help else "",
        f" (default: {DEFAULTS[name]})" if declared.kind is FieldKind.COUNT else "",
        "; may be repeated" if declared.several else "",
    ]
    return "".join(parts).replace("%", "%%")


def _reader(declared: RequestField) -> Callable[[str], Any]:
    """What reads the text of an option. Bounds that texts cannot break are checked by `SearchRequest`."""
    match declared.kind:
        case FieldKind.NUMBER:
            number = share if (declared.low, declared.high) == (0, 1) else finite
            return lambda text: text if text == declared.keyword else number(text)
        case FieldKind.COUNT:
            return count
        case FieldKind.REGION:
            return region
        case FieldKind.WEIGHTS:
            return weights
        case FieldKind.COMPOSER | FieldKind.RULE:
            return registered(REGISTRIES[declared.kind])
        case _:
            return str


def add_language_options(command: argparse.ArgumentParser, missing: str = "continue if a file lacks an entry") -> None:
    """The fields of `LanguageOptions`. missing: the help of --allow-missing."""
    group = command.add_argument_group("language: captions, rewrites and roles")
    for name, (metavar, text) in LANGUAGE_OPTIONS.items():
        read = positive if metavar == "SECONDS" else str
        group.add_argument(_option(name), metavar=metavar, help=text + _default(LanguageOptions, name), type=read)
    flags = {"offline": "take answers from --memory only", "allow_missing": missing}
    for name, text in flags.items():
        group.add_argument(_option(name), action="store_const", const=True, help=text)


def add_recipe(command: argparse.ArgumentParser) -> None:
    """The fields of `PhiRecipe`."""
    recipe = command.add_argument_group("the training")
    for name, (kind, text) in RECIPE.items():
        read, metavar = (whole, "N") if kind is int else (finite, "X")
        recipe.add_argument(_option(name), type=read, metavar=metavar, help=text + _default(PhiRecipe, name))


def add_opening(command: argparse.ArgumentParser) -> None:
    """What opens a gallery for searches: language options, and where the encoder is and computes."""
    add_language_options(command)
    command.add_argument("--phi", metavar="FILE", help="phi of textual inversion: .safetensors, or a published .pt")
    command.add_argument(
        "--vocabulary", metavar="FILE", help="JSON file of the words that the tagger and the swap rewriter use"
    )
    command.add_argument("--encoder", metavar="E", help="where the gallery's encoder is now, if it has moved")
    add_computing(command)


def add_serving(command: argparse.ArgumentParser) -> None:
    """Where a server listens, its authentication, and the judge that its clients may name beside those without a model of their own."""
    command.add_argument("--host", default=HOST, metavar="H", help="address to listen at (default: %(default)s)")
    command.add_argument("--port", type=port, metavar="P", help="port to listen at (default: the first free one from 7860)")
    command.add_argument(
        "--root-path", default="", metavar="PATH", help="path under which a proxy offers the server, such as /shop (default: /)"
    )
    secret = f"at least {MIN_SECRET_CHARACTERS} printable ASCII characters without spaces"
    command.add_argument(
        "--token",
        metavar="T",
        help=f"token that every request must carry, {secret}; auto makes one (default: MMRETRIEVE_TOKEN, which other users cannot see)",
    )
    command.add_argument(
        "--user",
        metavar="NAME:PASSWORD",
        help=f"a user and a password ({secret}) instead of a token (default: MMRETRIEVE_USER)",
    )
    text = f"a judge that clients may name beside {', '.join(JUDGES)}: {', '.join(OWN_JUDGES)}"
    command.add_argument("--judge", metavar="J", help=text)


def add_computing(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--device", default="auto", help="where the encoder computes: auto, cpu, cuda, cuda:N or mps (default: %(default)s)"
    )
    command.add_argument(
        "--dtype",
        default="auto",
        help="dtype of the image tower: auto, float32, bfloat16, float16 or int8 (default: %(default)s)",
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
