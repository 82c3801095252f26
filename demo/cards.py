"""Results as HTML. Every name is escaped; pictures are named by their place in the gallery, never by path."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import PurePosixPath

from demo.handlers import Card

EXPLAINED = {
    "image": "likeness to the reference picture",
    "text": "likeness to the reference said in words",
    "composed": "likeness to those words with the prompt applied",
    "prompt": "likeness to the prompt alone",
}


def grid(cards: Sequence[Card], note: str = "") -> str:
    """The card grid, with a line above it."""
    longest = max((abs(value) for card in cards for _, value in card.gave), default=1.0) or 1.0
    return f'<p class="note" role="status">{note}</p><div class="grid">{"".join(_card(card, longest) for card in cards)}</div>'


def header(title: str, count: int) -> str:
    """The top of the page."""
    return f"<header><h1>like this picture, <em>but …</em></h1><p>{escape(title)} · {count:,} pictures</p></header>"


def note(words: Mapping[str, str], weights: Mapping[str, float], remark: str | None) -> str:
    """What was understood and how it is weighed, in one line."""
    said = " → ".join(f"<q>{escape(words[name])}</q>" for name in ("text", "composed") if name in words)
    said = said or "".join(f"<q>{escape(words[name])}</q>" for name in ("prompt",) if name in words)
    weighed = " ".join(
        f'<span class="chip {escape(name)}" title="{EXPLAINED.get(name, "")}">{escape(name)} × {weight:.2f}</span>'
        for name, weight in weights.items()
        if weight
    )
    return " ".join(filter(None, (said, weighed, escape(remark or ""))))


def problem(message: str) -> str:
    """An error where the results would be."""
    return f'<p class="problem" role="alert">{escape(message)}</p>'


def _card(card: Card, longest: float) -> str:
    name = escape(PurePosixPath(card.name).stem.replace("-", " "), quote=True)
    rank = f'<span class="rank">{card.rank}</span>' if card.rank is not None else ""
    score = f'<span class="score">{card.score:.3f}</span>' if card.score is not None else ""
    bars = "".join(_bar(term, value, longest) for term, value in card.gave)
    label = f"Use {name} as the reference" + (f", rank {card.rank}, score {card.score:.3f}" if card.score is not None else "")
    return (
        f'<button type="button" class="card" data-position="{card.position}" title="{escape(card.name, quote=True)}" aria-label="{label}">'
        f'<span class="picture"><img src="thumbnails/{card.position}" alt="" loading="lazy" decoding="async">{rank}'
        '<span class="hint">more like this</span></span>'
        f'<span class="title"><span class="name">{name}</span>{score}</span>{bars}</button>'
    )


def _bar(term: str, value: float, longest: float) -> str:
    share = 100 * abs(value) / longest
    sign = "minus" if value < 0 else "plus"
    return (
        f'<span class="gave" title="{EXPLAINED.get(term, "")}"><span class="term">{escape(term)}</span>'
        f'<span class="track"><span class="fill {sign} {escape(term)}" style="width:{share:.1f}%"></span></span>'
        f'<span class="value">{value:+.2f}</span></span>'
    )
