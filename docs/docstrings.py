"""Prepares docstrings for the reference.

Methods without a docstring get that of the method that they override. Short forms of numpydoc sections become long ones that griffe parses.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

LISTED = ("Parameters", "Attributes", "Raises")
PLAIN = ("Source", "Returns")
SECTION = re.compile(r"^(\w+)\n-{3,}\n", re.MULTILINE)
ENTRY = re.compile(r"^\S.*(?:\n[ \t]+\S.*)*", re.MULTILINE)
SHORT_ENTRY = re.compile(r"^(\S[^:\n]*?) ?: (.+)", re.DOTALL)


class InheritedDocstrings(griffe.Extension):
    """Copies docstrings of base classes to the members that override theirs without one."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        _inherit(pkg)


def _inherit(parent: griffe.Module | griffe.Class) -> None:
    for member in parent.members.values():
        if member.is_alias:
            continue
        if isinstance(member, griffe.Module | griffe.Class):
            _inherit(member)
        if isinstance(parent, griffe.Class) and member.docstring is None:
            bases = (base.members[member.name] for base in parent.mro() if member.name in base.members)
            member.docstring = next((base.docstring for base in bases if base.docstring is not None), None)


class ShortSections(griffe.Extension):
    """Rewrites every docstring before it is parsed."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = long_form(obj.docstring.value)


def long_form(docstring: str) -> str:
    """The docstring with its short sections in the form that numpydoc defines.

    If an entry of a section is one line, ``name : what it is.``, the section is short: what follows each name becomes its
    description. A section that is only text (Source, and Returns without a type) becomes a paragraph before the first section.

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
        if title in PLAIN and not re.search(r"^[ \t]+\S", body, re.MULTILINE):
            text.append(f"**{title}:** {body.strip()}")
        else:
            entries = _long_entries(body) if title in LISTED else body.rstrip()
            sections.append(f"{title}\n{'-' * len(title)}\n{entries}")
    return "\n\n".join(text + sections)


def _long_entries(body: str) -> str:
    entries = ENTRY.findall(body)
    if not any("\n" not in entry and SHORT_ENTRY.match(entry) for entry in entries):
        return body.rstrip()
    return "\n".join(_long_entry(entry) for entry in entries)


def _long_entry(entry: str) -> str:
    match = SHORT_ENTRY.match(entry)
    return entry if match is None else f"{match[1]}\n    {' '.join(match[2].split())}"
