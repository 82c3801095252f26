"""Which weights a run gives its terms, as the shell says it: numbers, a published setting by name, or what a sweep found."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from mmretrieve import PDV, PUBLISHED, ComposerName, Composition, MMRetrieveError
from mmretrieve.errors import OptionError, unknown
from mmretrieve.options import AUTO, BALANCED, BASE
from mmretrieve.weighting import Spread, automatic_weights, balanced_weights

BY_PAPER = "published"
METHOD = {
    ComposerName.CAPTIONS: "cirevl",
    ComposerName.LDRE: "ldre",
    ComposerName.PIC2WORD: "pic2word",
    ComposerName.SEARLE: "searle",
    ComposerName.SEARLE_OTI: "searle",
    ComposerName.LINCIR: "searle",
}
"""Whose published setting fits the terms of a composer. The paper has none for LinCIR: SEARLE's, whose words it shares."""
WITHOUT_TEXT = frozenset({ComposerName.IMAGE, ComposerName.PROMPT, ComposerName.SUM, ComposerName.SLERP, ComposerName.ONE_STEP})
SIZES = {"ViT-L": "large", "ViT-bigG": "giant"}  # any other encoder counts as a small one


@dataclass(frozen=True)
class WeightSetting:
    """`label` says it in a table; `weigh` gives a composition its weights, for a gallery that spreads so."""

    label: str
    weigh: Callable[[Composition, Spread], Composition]
    pdv: PDV | None = None


def weighing(
    pdv: str | None,
    weights: Mapping[str, float] | str | None,
    *,
    composer: ComposerName,
    benchmark: str,
    model: str,
    keep_rule: bool = False,
) -> WeightSetting:
    """What `--pdv` or `--weights` ask for; without either, the composer's own weights.

    pdv: "alpha_image,alpha_text,beta"; a name of PUBLISHED; "published" for the paper's own setting of this composer,
    benchmark and model; or the file of a sweep, for the best point it found. weights: "auto", "base" or "balanced", which
    need no labels, or by role. keep_rule: whether "auto" keeps the composition's rule, as `search` does of a rule that was named.
    OptionError for anything else, or for both.
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
            raise OptionError("all weights are 0: such a query has no direction")
        return WeightSetting(
            ",".join(f"{role}={weight:g}" for role, weight in roles.items()), lambda c, _: c.with_weights(roles)
        )
    if pdv is None:  # or base weights were named
        return WeightSetting(BASE, lambda composition, _: composition)
    check_takes_pdv(composer)
    name, setting = _setting(pdv, composer, benchmark, model)
    knobs = f"PDV-F {setting.alpha_image:.4g}/{setting.alpha_text:.4g}/{setting.beta:.4g}"
    return WeightSetting(f"{knobs} ({name})" if name else knobs, lambda c, _: c.with_pdv(setting), setting)


def check_takes_pdv(composer: ComposerName) -> None:
    """OptionError for a composer that does not say the reference in words, before anything is encoded for it."""
    if composer in WITHOUT_TEXT:
        raise OptionError(
            f"PDV weighs image, text and composed; {composer.value!r} does not have them all: choose another composer"
        )


def published_name(composer: ComposerName, benchmark: str, model: str) -> str | None:
    """The name in PUBLISHED that the paper's setting for these has; None where it gives none."""
    method = METHOD.get(composer)
    if method is None:
        return None
    size = next((size for start, size in SIZES.items() if model.startswith(start)), "base")
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


def _setting(text: str, composer: ComposerName, benchmark: str, model: str) -> tuple[str | None, PDV]:
    if text == BY_PAPER:
        name = published_name(composer, benchmark, model)
        if name is None:
            raise OptionError(f"the paper gives no setting for {composer.value!r}: name one, or three numbers")
        return name, PUBLISHED[name]
    if text in PUBLISHED:
        return text, PUBLISHED[text]
    if Path(text).is_file():
        return f"best of {Path(text).name}", _found(Path(text), composer)
    try:
        alpha_image, alpha_text, beta = map(float, text.split(","))
    except ValueError:
        forms = ["alpha_image,alpha_text,beta", BY_PAPER, *PUBLISHED, "the file of a sweep"]
        raise unknown("setting", text, forms) from None
    return None, PDV(alpha_image=alpha_image, alpha_text=alpha_text, beta=beta)


def _found(path: Path, composer: ComposerName) -> PDV:
    """The best point of a sweep of the same composer; both alphas are its gamma, which is one way among many to reach it."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        swept, best = record["composer"], record["points"]["best"]
        found = PDV(alpha_image=best["gamma"], alpha_text=best["gamma"], beta=best["beta"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise MMRetrieveError(f"{path}: not the record of a sweep ({error!r})") from error
    if swept != composer:
        raise OptionError(f"{path}: is a sweep of {swept!r}, and its best point says nothing of {composer.value!r}")
    return found
