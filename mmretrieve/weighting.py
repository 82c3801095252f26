"""Weights without labels: chosen for each query from its terms and from how a gallery spreads. docs/weights.md has the figures.

Raw weights do not carry over from one encoder to the next: the scores of words and of pictures spread differently (the modality
gap). So each term counts in standard deviations, z = (score − mean) / σ over the gallery, and the score of an item is

    Σ amount · z / Σ |amount|                 0 is the gallery's average item, 1 is one standard deviation above it

`automatic` takes these amounts, with τ the trust in the caption (1 for one that is given):

    image 1   text −1/4   composed 1/2     prompt 1      if the rewrite repeats the caption and adds the prompt to it
    image 1   text −1/2   composed 1 + τ   prompt 1/4    if the rewrite replaces words of the caption: it says the prompt

Without a caption that is the sum of image and prompt in one unit. Every phrase to avoid counts −3/2. It is linear: one vector,
one search, whatever the index. `balanced` is an older choice of amounts, without a caption's trust:

    image √(1 − ρ²)   text −ρ/2   composed 1   prompt r²          ρ: the correlation of the scores of `image` and `text`
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from mmretrieve.composition import UNKNOWN_TRUST, Caption, Composition
from mmretrieve.directions import Term
from mmretrieve.errors import OptionError
from mmretrieve.options import CaptionSource
from mmretrieve.rules import LINEAR
from mmretrieve.vectors import Float32

KEPT, REPLACED = 0.72, 0.37  # r² where a rewrite repeats its caption, and where it replaces words of it
LEAST = 1e-6  # a smaller spread is none: a gallery of one item, a prompt that is taken away again
FOUR = (Term.IMAGE, Term.TEXT, Term.COMPOSED, Term.PROMPT)
AVOID = "avoid"
AVOIDED = -1.5  # the amount of each phrase to avoid
ADDED = {Term.IMAGE: 1.0, Term.TEXT: -0.25, Term.COMPOSED: 0.5, Term.PROMPT: 1.0}  # if the rewrite repeats the caption
CARRIED = {Term.IMAGE: 1.0, Term.TEXT: -0.5, Term.COMPOSED: 1.0, Term.PROMPT: 0.25}  # if it replaces words of the caption
SAME = 1e-5  # 1 − cosine of vectors that count as one


@dataclass(frozen=True)
class Spread:
    """How the vectors of a gallery lie: their (d,) mean and (d, d) covariance."""

    mean: NDArray[np.float64]
    covariance: NDArray[np.float64]

    @classmethod
    def of(cls, vectors: Float32) -> Spread:
        """Of (n, d) vectors."""
        mean = vectors.mean(axis=0, dtype=np.float64) if len(vectors) else np.zeros(vectors.shape[1])
        centred = vectors.astype(np.float64) - mean
        return cls(mean, np.asarray(centred.T @ centred / max(1, len(vectors)), dtype=np.float64))

    def deviation(self, vector: Float32) -> float:
        """The standard deviation, over the gallery, of a (d,) term's scores."""
        return sqrt(max(0.0, float(vector @ self.covariance @ vector)))

    def correlation(self, a: Float32, b: Float32) -> float:
        """The correlation, over the gallery, of two (d,) terms' scores."""
        both = self.deviation(a) * self.deviation(b)
        return float(np.clip(a @ self.covariance @ b / both, -1, 1)) if both > LEAST**2 else 0.0


def automatic(composition: Composition, spread: Spread, *, keep_rule: bool = False) -> Composition:
    """The same terms under automatic weights; the query's `why` says in one line what was taken and why.

    Scores are the weighted mean of standard deviations above the gallery's average item (see above), under the linear rule.
    With `keep_rule` the composition's own rule stays, and where that is not linear its scores count from 0 and `composed` (or
    the first term) weighs 1. A rule without weights is left as it is. Where the gallery does not spread (one item, or
    equal ones) the amounts weigh raw scores, and the remark says so; so it does where all texts have the same vector.
    """
    if keep_rule and not composition.rule.weighs:
        return replace(composition, why=f"the {composition.rule.name} rule has no weights to choose")
    amounts, why = _amounts(composition)
    linear = not keep_rule or composition.rule == LINEAR
    rule = LINEAR if linear else composition.rule
    whole = sum(map(abs, amounts.values())) or 1.0
    spreads = {name: spread.deviation(composition[name]) for name in amounts}
    if max(spreads.values()) < LEAST:
        weights = {name: amount / whole for name, amount in amounts.items()}
        alike = "the gallery's items cannot be told apart by this query: the terms count by raw scores"
        return replace(composition, rule=rule, weights=tuple(weights.values()), means={}, why=why).remarked(alike)
    weights = {name: amount / whole / spreads[name] if spreads[name] >= LEAST else 0.0 for name, amount in amounts.items()}
    means = {name: float(composition[name] @ spread.mean) for name in amounts}
    if not linear:
        unit = abs(weights.get(Term.COMPOSED) or next(iter(weights.values()))) or 1.0
        weights, means = {name: weight / unit for name, weight in weights.items()}, {}
    weighed = replace(composition, rule=rule, weights=tuple(weights.values()), means=means, why=why)
    return weighed.remarked(_unread(composition))


def _amounts(composition: Composition) -> tuple[dict[str, float], str]:
    """How much each term counts, in standard deviations, and the line that says why."""
    carried, trust = _carried(composition), _trust(composition)
    trusted = CARRIED | {Term.COMPOSED: CARRIED[Term.COMPOSED] * (1 + trust)}
    per_role = {role: ADDED[role] * (1 - carried) + trusted[role] * carried for role in FOUR}
    names = zip(composition.names, composition.roles, composition.weights, strict=True)
    asked = sum(
        composition.share(name)
        for name, role in zip(composition.names, composition.roles, strict=True)
        if role == Term.COMPOSED
    )
    if Term.COMPOSED in composition.roles:
        # several prompts add their directions: what they repeat of the caption is given back
        per_role[Term.TEXT] += per_role[Term.COMPOSED] * (1 - asked)
    if _unread(composition) and Term.IMAGE in composition.roles:
        per_role |= dict.fromkeys((Term.TEXT, Term.COMPOSED, Term.PROMPT), 0.0)
    amounts = {
        name: AVOIDED if role == AVOID else per_role[Term(role)] * composition.share(name) if role in per_role else weight
        for name, role, weight in names
    }
    return amounts, _why(composition, carried, trust)


def _why(composition: Composition, carried: float, trust: float) -> str:
    """What the weights rest on, in one line: "automatic: …"."""
    roles = set(composition.roles)
    parts = []
    if Term.TEXT in roles and Term.COMPOSED in roles:
        captions = [word for word in _words(composition, Term.TEXT) if isinstance(word, Caption)]
        source = f"caption from {_SOURCES[captions[0].source]}" if captions else "the reference in words"
        said = "its words were replaced by the prompt's" if carried > 0.5 else "the prompt was added to it"
        parts.append(f"{source} (trust {trust:.2f}), {said}" if Term.PROMPT in roles else f"{source} (trust {trust:.2f})")
    elif Term.IMAGE in roles and Term.PROMPT in roles:
        parts.append("no caption: image and prompt count alike")
    elif roles & {Term.IMAGE, Term.PROMPT}:
        parts.append(f"the {'image' if Term.IMAGE in roles else 'prompt'} alone")
    if avoided := _words(composition, AVOID):
        parts.append(f"away from {', '.join(avoided)}")
    return f"automatic: {'; '.join(parts) or 'the terms in one unit'}"


_SOURCES = {
    CaptionSource.GIVEN: "you",
    CaptionSource.FIELDS: "the item's fields",
    CaptionSource.NEIGHBORS: "the fields of similar items",
    CaptionSource.TAGGER: "the tagger",
    CaptionSource.CAPTIONER: "a model or file",
}


def _words(composition: Composition, role: str) -> list[str]:
    """The words behind the terms of a role."""
    return [
        composition.words[name]
        for name, of in zip(composition.names, composition.roles, strict=True)
        if of == role and name in composition.words
    ]


def _carried(composition: Composition) -> float:
    """The share of the rewrites that do more than repeat a caption and add to it, 0 to 1."""
    texts, rewrites = _words(composition, Term.TEXT), _words(composition, Term.COMPOSED)
    return sum(not any(rewrite.startswith(text) for text in texts) for rewrite in rewrites) / max(1, len(rewrites))


def _trust(composition: Composition) -> float:
    """The mean trust in the captions, 0 to 1."""
    texts = _words(composition, Term.TEXT)
    return sum(text.trust if isinstance(text, Caption) else UNKNOWN_TRUST for text in texts) / max(1, len(texts))


def _unread(composition: Composition) -> str | None:
    """The sentence that the encoder does not tell texts apart, where different words have one vector; None where it does."""
    said: Mapping[str, str] = {composition.words[name]: name for name in composition.names if _says_words(composition, name)}
    rows = np.stack([composition[name] for name in said.values()]) if len(said) > 1 else None
    if rows is None or not (rows @ rows[0] > 1 - SAME).all():
        return None
    return "the encoder gives different texts the same vector: words cannot count"


def _says_words(composition: Composition, name: str) -> bool:
    return name in composition.words and name.split(" ")[0] in (Term.TEXT, Term.COMPOSED, Term.PROMPT)


def balanced(composition: Composition, spread: Spread) -> Composition:
    """The same terms under balanced weights. OptionError where image, text, composed and prompt are not all there."""
    if missing := [term for term in FOUR if term not in composition.roles]:
        raise OptionError(f"balanced weights are for image, text, composed and prompt; this query has no {', '.join(missing)}")
    rows = {term: composition.of_role(term) for term in FOUR}
    spreads = {term: spread.deviation(row) for term, row in rows.items()}
    if spreads[Term.COMPOSED] < LEAST:  # a gallery of one item, say: nothing to balance by
        spreads = dict.fromkeys(FOUR, 1.0)
    shared, said = spread.correlation(rows[Term.IMAGE], rows[Term.TEXT]), composition.words
    repeats = said.get(Term.COMPOSED, "").startswith(said.get(Term.TEXT, ""))
    sizes = {
        Term.IMAGE: sqrt(1 - shared**2),
        Term.TEXT: -shared / 2,
        Term.COMPOSED: 1.0,
        Term.PROMPT: KEPT if repeats else REPLACED,
    }
    unit = spreads[Term.COMPOSED]
    return composition.with_weights(
        {term: size * unit / spreads[term] if spreads[term] >= LEAST else 0.0 for term, size in sizes.items()}
    )
