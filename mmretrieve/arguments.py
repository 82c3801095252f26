"""What the shell's words may be: numbers checked as they are read, and mistakes told in one line."""

from __future__ import annotations

import argparse
from math import isfinite
from typing import NoReturn

from mmretrieve.options import AUTO

WRONG_USE = 2


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


def alpha_or_auto(text: str) -> float | str:
    return text if text == AUTO else finite(text)


def printable(text: str) -> str:
    """The text in one line, with whatever would move or colour a terminal spelled out."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in text)
