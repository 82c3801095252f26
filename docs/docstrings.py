"""Prepares docstrings for the reference: short forms of numpydoc sections become long ones that griffe parses."""

from __future__ import annotations

import re
from typing import Any

import griffe

LISTED = ("Parameters", "Attributes", "Raises")
PLAIN = ("Source", "Returns")
SECTION = re.compile(r"^(\w+)\n-{3,}\n", re.MULTILINE)
ENTRY = re.compile(r"^(\S[^:\n]*?) ?: (.+)\n(?!\s+\S)", re.MULTILINE)


class ShortSections(griffe.Extension):
    """Rewrites every docstring before it is parsed."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = long_form(obj.docstring.value)


def long_form(docstring: str) -> str:
    """The docstring with its short sections in the form that numpydoc defines.

    An entry in one line, ``name : what it is.``, gets its description on a line of its own. A section that is only text
    (Source, and Returns without a type) becomes a paragraph before the first section.

    >>> print(long_form("Adds.\\n\\nRaises\\n------\\nValueError : for no numbers.\\n\\nSource\\n------\\nEuclid"))
    Adds.
    <BLANKLINE>
    **Source:** Euclid
    <BLANKLINE>
    Raises
    ------
    ValueError
        for no numbers.
    """
    introduction, *pieces = SECTION.split(docstring.rstrip() + "\n")
    text, sections = [introduction.strip()], []
    for title, body in zip(pieces[::2], pieces[1::2], strict=True):
        if title in PLAIN and not re.search(r"^\s+\S", body, re.MULTILINE):
            text.append(f"**{title}:** {body.strip()}")
        else:
            entries = ENTRY.sub(_entry, body) if title in LISTED else body
            sections.append(f"{title}\n{'-' * len(title)}\n{entries.rstrip()}")
    return "\n\n".join(text + sections)


def _entry(match: re.Match[str]) -> str:
    return f"{match[1]}\n    {match[2]}\n"
