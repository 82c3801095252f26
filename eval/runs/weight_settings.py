"""The weights of a run, as `--pdv` and `--weights` give them: numbers, a published setting, a sweep's best point, or a label-free choice."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from eval.runs.records import SweepRecord, read_record
from mmretrieve import PDV, PUBLISHED, Composition, MMRetrieveError
from mmretrieve.errors import OptionError, unknown
from mmretrieve.options import AUTO, BALANCED, BASE
from mmretrieve.registry import COMPOSERS
from mmretrieve.weighting import Spread, automatic_weights, balanced_weights

FROM_PAPER = "published"
ENCODER_SIZES = {"ViT-L": "large", "ViT-bigG": "giant"}  # every other encoder is "base"


@dataclass(frozen=True)
class WeightSetting:
    """`label` names the weights in a table; `weigh` applies them to a composition, given the spread of the gallery."""

    label: str
    weigh: Callable[[Composition, Spread], Composition]


BASE_SETTING = WeightSetting(BASE, lambda composition, _: composition)
"""The composer's own weights."""


def make_weight_setting(
    pdv: str | None,
    weights: Mapping[str, float] | str | None,
    *,
    composer: str,
    benchmark: str,
    model: str,
    keep_rule: bool = False,
) -> WeightSetting:
    """The weights that `--pdv` or `--weights` ask for; the composer's own weights without either.

    Parameters
    ----------
    pdv : "alpha_image,alpha_text,beta"; a name of PUBLISHED; "published" for the paper's setting of this composer, benchmark and
        model; or the file of a sweep, for its best point.
    weights : "auto", "base" or "balanced", which need no labels, or weights by role.
    composer, benchmark, model : select the published setting.
    keep_rule : whether "auto" keeps the composition's rule, as `search` does with a named rule.

    Raises
    ------
    OptionError : both options are given, or one is invalid.
    MMRetrieveError : a file is not the record of a sweep.
    """
    if pdv is not None and weights is not None:
        raise OptionError("give --pdv or --weights, not both")
    if weights == AUTO:
        return WeightSetting(AUTO, partial(automatic_weights, keep_rule=keep_rule))
    if weights == BALANCED:
        return WeightSetting(BALANCED, balanced_weights)
    if isinstance(weights, Mapping):
        roles = dict(weights)
        if not any(roles.values()):
            raise OptionError("all weights are 0, so the query has no direction: give at least one other weight")
        return WeightSetting(
            ",".join(f"{role}={weight:g}" for role, weight in roles.items()), lambda c, _: c.with_weights(roles)
        )
    if pdv is None:  # or `weights` is "base"
        return BASE_SETTING
    check_takes_pdv(composer)
    name, setting = _parse_pdv(pdv, composer, benchmark, model)
    label = f"PDV-F {setting.alpha_image:.4g}/{setting.alpha_text:.4g}/{setting.beta:.4g}"
    return WeightSetting(f"{label} ({name})" if name else label, lambda c, _: c.with_pdv(setting))


def check_takes_pdv(composer: str) -> None:
    """OptionError for a composer without a text of the reference. Called before anything is encoded."""
    if not COMPOSERS[composer].supports_pdv:
        raise OptionError(
            f"PDV weighs the terms image, text and composed; {str(composer)!r} does not have them all: choose another composer"
        )


def published_name(composer: str, benchmark: str, model: str) -> str | None:
    """The name in PUBLISHED of the paper's setting for a composer, benchmark and model; None where it gives none."""
    method = COMPOSERS[composer].published
    if method is None:
        return None
    size = next((size for start, size in ENCODER_SIZES.items() if model.startswith(start)), "base")
    family = "-fashioniq" if benchmark.startswith("fashioniq") else ""
    names = (
        f"{method}{family}-{size}",
        f"{method}{family}-large",
        f"{method}{family}",
        f"{method}-{size}",
        f"{method}-base",
        method,
    )
    return next(name for name in names if name in PUBLISHED)


def _parse_pdv(text: str, composer: str, benchmark: str, model: str) -> tuple[str | None, PDV]:
    if text == FROM_PAPER:
        name = published_name(composer, benchmark, model)
        if name is None:
            raise OptionError(
                f"the paper gives no setting for {str(composer)!r}: give another setting's name, or three numbers"
            )
        return name, PUBLISHED[name]
    if text in PUBLISHED:
        return text, PUBLISHED[text]
    if os.path.isfile(text):  # unlike a Path, it takes any text
        return f"best of {Path(text).name}", _read_best_point(Path(text), composer)
    try:
        alpha_image, alpha_text, beta = map(float, text.split(","))
    except ValueError:
        forms = ["alpha_image,alpha_text,beta", FROM_PAPER, *PUBLISHED, "the file of a sweep"]
        raise unknown("setting", text, forms) from None
    return None, PDV(alpha_image=alpha_image, alpha_text=alpha_text, beta=beta)


def _read_best_point(path: Path, composer: str) -> PDV:
    """The best point of a sweep of the same composer. Both alphas are its gamma, one of many ways to reach the point."""
    try:
        record = read_record(path)
    except MMRetrieveError as error:
        raise MMRetrieveError(
            f"{path}: not the record of a sweep ({str(error).removeprefix(str(path)).lstrip(':, ')})"
        ) from error
    if not isinstance(record, SweepRecord) or "best" not in record.points:
        raise MMRetrieveError(f'{path}: not the record of a sweep (expected "kind": "sweep" and a best point)')
    if record.composer != composer:
        raise OptionError(f"{path} is a sweep of {record.composer!r}; its best point cannot be used for {str(composer)!r}")
    best = record.points["best"]
    return PDV(alpha_image=best.gamma, alpha_text=best.gamma, beta=best.beta)
