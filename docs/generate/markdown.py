"""Pieces of Markdown that all generated pages use."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

NOTE = "<!-- Written by `python -m docs.generate`. Do not edit. -->"


class UndocumentedError(Exception):
    """A command, option, route, field or tool without a description; the message names it."""


def page(title: str, parts: Iterable[str]) -> str:
    """A page of blocks, with a note for editors."""
    return "\n\n".join([f"# {title}", NOTE, *parts]) + "\n"


def sentence(text: str | None, where: str) -> str:
    """The text as one line with a full stop. UndocumentedError, naming `where`, if there is none."""
    line = " ".join((text or "").split())
    if not line:
        raise UndocumentedError(f"{where} has no description")
    return line if line[-1] in ".…" else f"{line}."


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; line breaks in cells become spaces."""
    cells = [[" ".join(cell.split()).replace("|", "\\|") for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *cells])


def anchor(name: str) -> str:
    """A name as the id of a heading: `"GET /api/items"` → `"get-api-items"`."""
    words = "".join(c if c.isalnum() or c in "_-" else " " for c in name.lower()).split()
    return "-".join(words)
