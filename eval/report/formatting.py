"""How the report says things: metrics, settings, numbers and lists in the words of a person."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from eval.report.bootstrap import Interval

SHORT = {"recall": "R", "recall_subset": "R_subset", "map": "mAP"}
NAMES = {
    "cirr": "CIRR",
    "circo": "CIRCO",
    "fashioniq": "FashionIQ",
    "genecis": "GeneCIS",
    "wardrobe": "Wardrobe",
    "catalogue": "Catalogue",
}


def metric_name(metric: str) -> str:
    """ "recall@1" → "R@1", "map@10/negation" → "mAP@10, negation"; what is not known stays as it is."""
    name, _, aspect = metric.partition("/")
    measure, at, k = name.partition("@")
    short = f"{SHORT.get(measure, measure)}{at}{k}"
    return f"{short}, {aspect.replace('_', ' ')}" if aspect else short


def benchmark_name(benchmark: str) -> str:
    """ "cirr" → "CIRR", "fashioniq:dress" → "FashionIQ: dress"."""
    family, colon, part = benchmark.partition(":")
    return f"{NAMES.get(family, family)}{': ' if colon else ''}{part.replace('_', ' ')}"


def number(value: float | None, digits: int = 1) -> str:
    """With a real minus: −0.0 is 0.0; nothing is a dash."""
    if value is None:
        return "–"
    text = f"{value:.{digits}f}"
    return text.lstrip("-") if float(text) == 0 else text.replace("-", "−")


def signed(value: float, digits: int = 1) -> str:
    """As `number`, with a plus where it is positive: "+25.7", "−0.4", "0.0"."""
    text = number(value, digits)
    return f"+{text}" if value > 0 and float(text) > 0 else text


def bracket(interval: Interval) -> str:
    """ "[22.9, 28.6]"."""
    return f"[{number(interval.low)}, {number(interval.high)}]"


def gain(interval: Interval) -> str:
    """ "+25.7 [22.9, 28.6]"."""
    return f"{signed(interval.difference)} {bracket(interval)}"


def command(beta: float, gamma: float) -> str:
    """The option that gives a point of the plane: with both alphas alike, gamma is what they are."""
    return f"--pdv{'=' if gamma < 0 else ' '}{gamma:.6g},{gamma:.6g},{beta:.6g}"


def weights_said(weights: Sequence[float]) -> str:
    """Weights of (image, text, composed): "image 0.25, text −0.5, composed 1.25"."""
    names = ("image", "text", "composed")
    return ", ".join(f"{name} {weight:.3g}".replace("-", "−") for name, weight in zip(names, weights, strict=True))


def setting_point(beta: float, gamma: float) -> str:
    """ "beta 0.75, gamma 1.25"."""
    return f"beta {beta:.3g}, gamma {gamma:.3g}"


def preprocessing_said(text: str) -> str:
    """An identity's preprocessing for people, "64 px" or "224 px, TargetPad 1.25"; what is not JSON stays as it is."""
    try:
        known = json.loads(text)
        side = known["size"] if isinstance(known["size"], int) else max(known["size"])
        return f"{side} px, TargetPad {known['target_pad']}" if "target_pad" in known else f"{side} px"
    except (ValueError, KeyError, TypeError):
        return text


def listing(items: Sequence[str]) -> str:
    """ "a", "a and b", "a, b and c"."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def count(n: int, noun: str) -> str:
    """ "1 run", "12 runs", "4,181 queries"."""
    plural = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"
    return f"{n:,} {noun if n == 1 else plural}"


def anchor(*parts: str) -> str:
    """Letters, digits and hyphens alone, for an id inside the page."""
    return re.sub(r"[^a-z0-9]+", "-", " ".join(parts).lower()).strip("-") or "section"
