"""Automatic weights: chosen per query without labels, from its terms and from the score statistics of the gallery.

Raw weights do not transfer between encoders, because the scores of texts and images vary differently (the modality gap). So
each term counts in standard deviations, z = (score − mean) / σ over the gallery, and the score of an item is

    Σ amount · z / Σ |amount|                 0 is the average item of the gallery, 1 is one standard deviation above it

`automatic_weights` uses these amounts, with the trust τ in the caption (1 for a caption that the user gives):

    image 1   text −1/4   composed 1/2     prompt 1      the rewrite appends the prompt to the caption
    image 1   text −1/2   composed 1 + τ   prompt 1/4    the rewrite replaces words of the caption, so it contains the prompt

Without a caption this is the sum of image and prompt in standard deviations; beside `joint` or `imagined` (1), which contain it,
the prompt has 1/4. A phrase to avoid has the amount −3/2 if the image shows it (z ≥ 1) or a trusted caption states it, and down to −3/4 if
neither does; without an image it has −3/8. The σ of a text is at least half of the largest among the texts of a query: a text whose scores hardly vary says
nothing about this gallery ("shorter", where nothing has a length), and z would raise its noise to the level of what the others
say. The result is linear: one vector and one search on any index. `balanced_weights` is an older choice that ignores trust:

    image √(1 − ρ²)   text −ρ/2   composed 1   prompt r²          ρ: the correlation of the scores of `image` and `text`

docs/guides/weights.md has the measurements.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from mmretrieve.composition import UNKNOWN_TRUST, AvoidedPhrase, Caption, Composition
from mmretrieve.directions import Term
from mmretrieve.errors import OptionError
from mmretrieve.options import CaptionSource
from mmretrieve.rules import LINEAR
from mmretrieve.vectors import Float32

STANDARD_TERMS = (Term.IMAGE, Term.TEXT, Term.COMPOSED, Term.PROMPT)
AVOID, AXIS = "avoid", "axis"  # the roles of phrases to avoid, and of an axis
AVOID_AMOUNT = -1.5  # if the image shows the phrase
LEAST_AVOID_SHARE = 0.5  # of AVOID_AMOUNT, if it does not
NO_IMAGE_AVOID_SHARE = 0.25  # of AVOID_AMOUNT, without an image
APPEND_AMOUNTS = {Term.IMAGE: 1.0, Term.TEXT: -0.25, Term.COMPOSED: 0.5, Term.PROMPT: 1.0}
REPLACE_AMOUNTS = {Term.IMAGE: 1.0, Term.TEXT: -0.5, Term.COMPOSED: 1.0, Term.PROMPT: 0.25}
APPEND_R2, REPLACE_R2 = 0.72, 0.37  # r² of `balanced_weights`
TEXT_TERMS = frozenset({Term.TEXT, Term.COMPOSED, Term.PROMPT})
WITH_PROMPT = frozenset({Term.JOINT, Term.IMAGINED})  # that contain image and prompt
MIN_TEXT_DEVIATION = 0.5  # of the largest deviation among the texts of a query
MIN_DEVIATION = 1e-6  # a smaller deviation counts as 0: a gallery of one item, or a term that cancels
SAME_VECTOR_TOLERANCE = 1e-5  # 1 − cosine of vectors that count as equal


@dataclass(frozen=True)
class Spread:
    """The distribution of vectors, such as those of a gallery: their (d,) mean and (d, d) covariance."""

    mean: NDArray[np.float64]
    covariance: NDArray[np.float64]

    @classmethod
    def of(cls, vectors: Float32) -> Spread:
        """The mean and covariance of (n, d) vectors."""
        mean = vectors.mean(axis=0, dtype=np.float64) if len(vectors) else np.zeros(vectors.shape[1])
        centered = vectors.astype(np.float64) - mean
        return cls(mean, np.asarray(centered.T @ centered / max(1, len(vectors)), dtype=np.float64))

    def deviations(self, vectors_nd: Float32) -> NDArray[np.float64]:
        """(n,) standard deviations over the gallery of the scores of (n, d) terms."""
        return np.asarray(np.sqrt(np.maximum(0.0, np.einsum("nd,nd->n", vectors_nd @ self.covariance, vectors_nd))))

    def deviation(self, vector: Float32) -> float:
        """The standard deviation over the gallery of the scores of a (d,) term."""
        return float(self.deviations(vector[None])[0])

    def correlation(self, a: Float32, b: Float32) -> float:
        """The correlation over the gallery of the scores of two (d,) terms."""
        product = self.deviation(a) * self.deviation(b)
        return float(np.clip(a @ self.covariance @ b / product, -1, 1)) if product > MIN_DEVIATION**2 else 0.0


def automatic_weights(composition: Composition, spread: Spread, *, keep_rule: bool = False) -> Composition:
    """The same terms with automatic weights under the linear rule; `why` explains them in one line.

    Parameters
    ----------
    composition : Composition
        Any terms.
    spread : Spread
        The distribution of the gallery's vectors. If all items are equal, the amounts weigh raw scores, and the remark says so.
    keep_rule : bool, default=False
        Keep the rule of the composition. Under a rule that is not linear, scores count from 0 and `composed` (or the first
        term) has the weight 1; a composition whose rule ignores weights is returned with an explanation only.
    """
    if keep_rule and not composition.rule.uses_weights:
        return replace(composition, why=f"the {composition.rule.name} rule has no weights to choose")
    constant_text = _constant_text_remark(composition)
    amounts, why = _amounts(composition, spread, words_count=constant_text is None)
    linear = not keep_rule or composition.is_linear
    rule = LINEAR if linear else composition.rule
    total = sum(map(abs, amounts.values())) or 1.0
    deviations = _deviations(composition, spread)
    if max(deviations.values()) < MIN_DEVIATION:
        raw_weights = [amount / total for amount in amounts.values()]
        remark = "the gallery's items cannot be told apart by this query: the terms count by raw scores"
        return composition.with_rule(rule).reweighted(raw_weights, why=why).with_remarks(remark)
    weights = {
        name: amount / total / deviations[name] if deviations[name] >= MIN_DEVIATION else 0.0
        for name, amount in amounts.items()
    }
    means = dict(zip(composition.names, (composition.terms @ spread.mean).tolist(), strict=True))
    if not linear:
        scale = abs(weights.get(Term.COMPOSED) or next(iter(weights.values()))) or 1.0
        weights, means = {name: weight / scale for name, weight in weights.items()}, {}
    reweighted = composition.with_rule(rule).reweighted(list(weights.values()), means=means, why=why)
    return reweighted.with_remarks(constant_text)


def _deviations(composition: Composition, spread: Spread) -> dict[str, float]:
    """The standard deviation of the scores of each term, that of a text bounded by the other texts. A constant stays 0."""
    roles = dict(zip(composition.names, composition.roles, strict=True))
    deviations = dict(zip(composition.names, spread.deviations(composition.terms).tolist(), strict=True))
    least = MIN_TEXT_DEVIATION * max((deviations[name] for name, role in roles.items() if role in TEXT_TERMS), default=0.0)
    return {
        name: max(deviation, least) if deviation >= MIN_DEVIATION and roles[name] in TEXT_TERMS | {AVOID} else deviation
        for name, deviation in deviations.items()
    }


def _amounts(composition: Composition, spread: Spread, *, words_count: bool) -> tuple[dict[str, float], str]:
    """The amount of each term in standard deviations, and the explanation."""
    replaced, trust = _replaced_share(composition), _mean_trust(composition)
    replace_amounts = REPLACE_AMOUNTS | {Term.COMPOSED: REPLACE_AMOUNTS[Term.COMPOSED] * (1 + trust)}
    by_role = {role: APPEND_AMOUNTS[role] * (1 - replaced) + replace_amounts[role] * replaced for role in STANDARD_TERMS}
    if Term.COMPOSED in composition.roles:
        # the directions of several prompts add up: `text` compensates what they repeat of the caption
        by_role[Term.TEXT] += by_role[Term.COMPOSED] * (1 - composition.total_share(Term.COMPOSED))
    if not WITH_PROMPT.isdisjoint(composition.roles):
        by_role |= dict.fromkeys(WITH_PROMPT, 1.0) | {Term.PROMPT: REPLACE_AMOUNTS[Term.PROMPT]}
    if not words_count and Term.IMAGE in composition.roles:
        by_role |= dict.fromkeys(TEXT_TERMS, 0.0)
    terms = list(zip(composition.names, composition.roles, composition.weights, strict=True))
    shown = {name: _shown_share(composition, name, spread) for name, role, _ in terms if role == AVOID}
    amounts = {
        name: AVOID_AMOUNT * shown[name]
        if role == AVOID
        else by_role[Term(role)] * composition.share(name)
        if role in by_role
        else weight
        for name, role, weight in terms
    }
    faint = [composition.words.get(name, name) for name, share in shown.items() if share == LEAST_AVOID_SHARE]
    return amounts, _explain(composition, replaced, trust, faint)


def _shown_share(composition: Composition, avoided: str, spread: Spread) -> float:
    """How much of AVOID_AMOUNT a phrase gets, from LEAST_AVOID_SHARE to 1: the z of the reference image, or the trust in a
    caption that states the phrase; NO_IMAGE_AVOID_SHARE without an image.

    If the model does not see the phrase in the image, the least similar items are those of other kinds, not those without it. So they are
    without an image, where the prompt has to hold the kind by itself.
    """
    if Term.IMAGE not in composition.roles:
        return NO_IMAGE_AVOID_SHARE
    phrase, image = composition[avoided], composition.of_role(Term.IMAGE) / composition.total_share(Term.IMAGE)
    z = float((image - spread.mean) @ phrase) / max(spread.deviation(phrase), MIN_DEVIATION)
    words = composition.words.get(avoided)
    return float(np.clip(max(z, words.trust if isinstance(words, AvoidedPhrase) else 0.0), LEAST_AVOID_SHARE, 1.0))


def _explain(composition: Composition, replaced: float, trust: float, faint: Sequence[str]) -> str:
    """What the weights are based on, in one line: "automatic: …". faint: the phrases to avoid that count least."""
    roles = set(composition.roles)
    parts = []
    if Term.TEXT in roles and Term.COMPOSED in roles:
        captions = [text for text in _words(composition, Term.TEXT) if isinstance(text, Caption)]
        source = f"caption from {_SOURCES[captions[0].source]}" if captions else "the reference in words"
        rewrite = "the prompt replaced words of it" if replaced > 0.5 else "the prompt was appended to it"
        parts.append(f"{source} (trust {trust:.2f}), {rewrite}" if Term.PROMPT in roles else f"{source} (trust {trust:.2f})")
    elif Term.JOINT in roles:
        parts.append("image and prompt, encoded together, beside the image")
    elif Term.IMAGINED in roles:
        parts.append("the edited image beside image and prompt")
    elif Term.IMAGE in roles and Term.PROMPT in roles:
        parts.append("no caption: image and prompt count alike")
    elif roles & {Term.IMAGE, Term.PROMPT}:
        parts.append(f"the {'image' if Term.IMAGE in roles else 'prompt'} alone")
    if phrases := _words(composition, AVOID):
        parts.append(f"away from {', '.join(phrases)}")
    if axes := _words(composition, AXIS):
        parts.append(f"toward {axes[0]}" if composition.term_weights[AXIS] >= 0 else f"away from {axes[0]}")
    if faint:
        parts.append(f"the image hardly shows {', '.join(faint)}")
    return f"automatic: {'; '.join(parts) or 'the terms in one unit'}"


_SOURCES = {
    CaptionSource.GIVEN: "you",
    CaptionSource.FIELDS: "the item's fields",
    CaptionSource.NEIGHBORS: "the fields of similar items",
    CaptionSource.TAGGER: "the tagger",
    CaptionSource.CAPTIONER: "a model or file",
}


def _words(composition: Composition, role: str) -> list[str]:
    """The texts of the terms of a role."""
    return [
        composition.words[name]
        for name, own_role in zip(composition.names, composition.roles, strict=True)
        if own_role == role and name in composition.words
    ]


def _replaced_share(composition: Composition) -> float:
    """The share of rewrites, 0 to 1, that change the caption instead of appending to it."""
    texts, rewrites = _words(composition, Term.TEXT), _words(composition, Term.COMPOSED)
    return sum(not any(rewrite.startswith(text) for text in texts) for rewrite in rewrites) / max(1, len(rewrites))


def _mean_trust(composition: Composition) -> float:
    """The mean trust in the captions, 0 to 1."""
    texts = _words(composition, Term.TEXT)
    return sum(text.trust if isinstance(text, Caption) else UNKNOWN_TRUST for text in texts) / max(1, len(texts))


def _constant_text_remark(composition: Composition) -> str | None:
    """The remark for an encoder that gives different texts the same vector; None if the texts of this query differ."""
    texts: dict[str, int] = {}
    for i, (name, role) in enumerate(zip(composition.names, composition.roles, strict=True)):
        if role in TEXT_TERMS and name in composition.words:
            texts.setdefault(composition.words[name], i)
    rows = composition.terms[list(texts.values())]
    if len(rows) < 2 or (rows @ rows[0]).min() <= 1 - SAME_VECTOR_TOLERANCE:
        return None
    return "the encoder gives different texts the same vector: words cannot count"


def balanced_weights(composition: Composition, spread: Spread) -> Composition:
    """The same terms with balanced weights. Raises OptionError unless there are image, text, composed and prompt."""
    if missing := [term for term in STANDARD_TERMS if term not in composition.roles]:
        raise OptionError(
            f"balanced weights are for image, text, composed and prompt; this query has no {', '.join(missing)}: use weights='auto'"
        )
    rows = {term: composition.of_role(term) for term in STANDARD_TERMS}
    deviations = {term: spread.deviation(row) for term, row in rows.items()}
    if deviations[Term.COMPOSED] < MIN_DEVIATION:  # for example, a gallery of one item
        deviations = dict.fromkeys(STANDARD_TERMS, 1.0)
    correlation, words = spread.correlation(rows[Term.IMAGE], rows[Term.TEXT]), composition.words
    appends = words.get(Term.COMPOSED, "").startswith(words.get(Term.TEXT, ""))
    amounts = {
        Term.IMAGE: sqrt(1 - correlation**2),
        Term.TEXT: -correlation / 2,
        Term.COMPOSED: 1.0,
        Term.PROMPT: APPEND_R2 if appends else REPLACE_R2,
    }
    scale = deviations[Term.COMPOSED]
    return composition.with_weights(
        {
            term: amount * scale / deviations[term] if deviations[term] >= MIN_DEVIATION else 0.0
            for term, amount in amounts.items()
        }
    )
