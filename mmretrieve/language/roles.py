"""What a prompt asks, sorted by role: phrases a target should show, keep or lack. A compiler does the sorting.

Roles and their signs: MulVec (arXiv 2608.25305).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from mmretrieve.query import Query


@dataclass(frozen=True)
class Roles:
    """`whole` describes the target, `desired` is what the prompt adds, `preserve` what must stay, `forbidden` what must not show."""

    whole: str | None = None
    desired: tuple[str, ...] = ()
    preserve: tuple[str, ...] = ()
    forbidden: tuple[str, ...] = ()


class Compiler(Protocol):
    """Sorts prompts into roles."""

    def compile(self, queries: Sequence[Query]) -> list[Roles]: ...


FORBIDDING = r"(?:without|instead of|rather than|no longer|no more|but not|not|no)\s+(?:any\s+|an?\s+|the\s+)?"
KEEPING = r"(?:keep(?:ing)?|with|in)?\s*the same\s+|keep(?:ing)?\s+(?:the\s+|its\s+)?"
FILLING = r"^(?:but|and|make it|i want it|please|instead|with|is|has)\b\s*|\s*\b(?:instead|please)$"
BREAK = r"\s*(?:[,;.]|\b(?:and|but(?! not)|with(?!out)|while)\b)\s*"


@dataclass(frozen=True)
class RuleCompiler:
    """Reads "without X", "no X", "not X", "instead of X" as forbidden, "keep the X", "the same X" as preserved, the rest as desired.

    It needs no model and knows nothing of meaning: "the same but red" desires "red", "no sleeves" forbids "sleeves".
    """

    def compile(self, queries: Sequence[Query]) -> list[Roles]:
        return [_sorted_by_role(query.words()) for query in queries]


def _sorted_by_role(prompt: str) -> Roles:
    found: dict[str, list[str]] = {"desired": [], "preserve": [], "forbidden": []}
    for part in re.split(BREAK, re.sub(rf"\b(?=(?:{FORBIDDING}))", ", ", prompt, flags=re.IGNORECASE), flags=re.IGNORECASE):
        role, phrase = _role_of(part.strip())
        if phrase:
            found[role].append(phrase)
    return Roles(None, *(tuple(dict.fromkeys(phrases)) for phrases in found.values()))


def _role_of(part: str) -> tuple[str, str]:
    for role, opening in (("forbidden", FORBIDDING), ("preserve", KEEPING)):
        if match := re.match(opening, part, flags=re.IGNORECASE):
            return role, part[match.end() :].strip()
    desired = part
    while (shorter := re.sub(FILLING, "", desired, flags=re.IGNORECASE).strip()) != desired:
        desired = shorter
    return "desired", "" if desired.lower() in ("the same", "same", "like this", "this", "it") else desired
