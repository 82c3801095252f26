"""How the report writes metrics, settings, numbers and lists."""

from __future__ import annotations

import re
from collections.abc import Sequence

from eval.benchmarks.registry import FAMILIES
from eval.report.bootstrap import Interval
from eval.runs.records import PlanePoint
from mmretrieve import PUBLISHED
from mmretrieve.options import load_json

MEASURES = {"recall": "R", "recall_subset": "R_subset", "map": "mAP"}
TITLES = {str(name): family.title for name, family in FAMILIES.items()}


def metric_name(metric: str) -> str:
    """A metric for a table; an unknown one stays as it is.

    >>> metric_name("recall@1"), metric_name("map@10/compare_change")
    ('R@1', 'mAP@10, compare change')
    """
    name, _, aspect = metric.partition("/")
    measure, at, k = name.partition("@")
    short = f"{MEASURES.get(measure, measure)}{at}{k}"
    return f"{short}, {aspect.replace('_', ' ')}" if aspect else short


def benchmark_name(benchmark: str) -> str:
    """A benchmark for a heading.

    >>> benchmark_name("cirr"), benchmark_name("fashioniq:dress")
    ('CIRR', 'FashionIQ: dress')
    """
    family, colon, part = benchmark.partition(":")
    return f"{TITLES.get(family, family)}{': ' if colon else ''}{part.replace('_', ' ')}"


def format_number(value: float | None, digits: int = 1) -> str:
    """A number with a minus sign instead of a hyphen; −0.0 is 0.0, and None is a dash.

    >>> format_number(-1.26), format_number(-0.01), format_number(None)
    ('−1.3', '0.0', '–')
    """
    if value is None:
        return "–"
    text = f"{value:.{digits}f}"
    return text.lstrip("-") if float(text) == 0 else text.replace("-", "−")


def format_signed(value: float, digits: int = 1) -> str:
    """As `format_number`, with a plus sign where it is positive.

    >>> format_signed(25.7), format_signed(-0.01)
    ('+25.7', '0.0')
    """
    text = format_number(value, digits)
    return f"+{text}" if value > 0 and float(text) > 0 else text


def format_bounds(interval: Interval) -> str:
    """The bounds of an interval.

    >>> format_bounds(Interval(25.7, 22.9, 28.6))
    '[22.9, 28.6]'
    """
    return f"[{format_number(interval.low)}, {format_number(interval.high)}]"


def pdv_option(beta: float, gamma: float) -> str:
    """The option for a point of the plane: with two equal alphas, gamma is their value.

    >>> pdv_option(0.75, 1.25), pdv_option(0.2, -0.5)
    ('--pdv 1.25,1.25,0.75', '--pdv=-0.5,-0.5,0.2')
    """
    return f"--pdv{'=' if gamma < 0 else ' '}{gamma:.6g},{gamma:.6g},{beta:.6g}"


def point_option(point: PlanePoint) -> str:
    """The option for a named point of a sweep: a published setting as it is published, any other point as `pdv_option`.

    >>> point_option(PlanePoint(beta=0.75, gamma=1.25, metrics={}, setting="cirevl"))
    '--pdv 1.4,1.2,0.75'
    """
    published = PUBLISHED.get(point.setting or "")
    if published is None or (published.beta, published.gamma) != (point.beta, point.gamma):
        return pdv_option(point.beta, point.gamma)
    return f"--pdv {published.alpha_image:g},{published.alpha_text:g},{published.beta:g}"


def format_weights(weights: Sequence[float]) -> str:
    """Weights of image, text and composed.

    >>> format_weights((0.25, -0.5, 1.25))
    'image 0.25, text −0.5, composed 1.25'
    """
    names = ("image", "text", "composed")
    return ", ".join(f"{name} {weight:.3g}".replace("-", "−") for name, weight in zip(names, weights, strict=True))


def format_point(beta: float, gamma: float) -> str:
    """A point of the plane.

    >>> format_point(0.75, 1.25)
    'beta 0.75, gamma 1.25'
    """
    return f"beta {beta:.3g}, gamma {gamma:.3g}"


def format_preprocessing(text: str) -> str:
    """The preprocessing of an encoder's identity; a text that is not JSON stays as it is.

    >>> format_preprocessing('{"size": [224, 224], "target_pad": 1.25}')
    '224 px, TargetPad 1.25'
    """
    try:
        values = load_json(text)
        side = values["size"] if isinstance(values["size"], int) else max(values["size"])
        return f"{side} px, TargetPad {values['target_pad']}" if "target_pad" in values else f"{side} px"
    except (ValueError, KeyError, TypeError):
        return text


def join_words(items: Sequence[str], conjunction: str = "and") -> str:
    """Items as a list in a sentence.

    >>> join_words(["a", "b", "c"]), join_words(["a", "b"], "or")
    ('a, b and c', 'a or b')
    """
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} {conjunction} {items[-1]}"


def format_count(n: int, noun: str) -> str:
    """A count with its noun.

    >>> format_count(1, "run"), format_count(4181, "query")
    ('1 run', '4,181 queries')
    """
    plural = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"
    return f"{n:,} {noun if n == 1 else plural}"


def make_anchor(*parts: str) -> str:
    """An id inside the page: letters, digits and hyphens only."""
    return re.sub(r"[^a-z0-9]+", "-", " ".join(parts).lower()).strip("-") or "section"
