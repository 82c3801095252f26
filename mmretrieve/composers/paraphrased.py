"""The mean of a query over the paraphrases of its prompt: its terms differ less between wordings than those of one wording."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice

import numpy as np

from mmretrieve.composer_input import ComposerInput
from mmretrieve.composition import Composition, direction_of
from mmretrieve.directions import Term
from mmretrieve.vectors import Float32, unit


def compose_paraphrases(
    inputs: Sequence[ComposerInput], compose: Callable[[Sequence[ComposerInput]], list[Composition]]
) -> list[Composition]:
    """Composes each query and its paraphrases in one call of `compose`, and takes the mean of each query (`mean_composition`)."""
    compositions = iter(compose([one for query in inputs for one in (query, *query.paraphrases)]))
    return [mean_composition(list(islice(compositions, 1 + len(query.paraphrases)))) for query in inputs]


def mean_composition(compositions: Sequence[Composition]) -> Composition:
    """The composition of a query whose terms are the unit means over those of its wordings; a single one is returned unchanged.

    So delta = composed − text is the mean over the wordings, up to the lengths of the means, which are nearly 1.
    Words, weights and the rule are those of the first wording. The remark says how well the wordings agree: the mean cosine of their
    directions, delta or the prompt alone, with that of the mean; 1 if the encoder sees no difference.

    Parameters
    ----------
    compositions : sequence of Composition
        One for each wording of the prompt, with the same terms.

    Examples
    --------
    >>> wordings = [Composition(("prompt",), np.array([row], np.float32), (1.0,)) for row in ([0.6, 0.8], [0.6, -0.8])]
    >>> mean = mean_composition(wordings)
    >>> mean["prompt"], mean.remark
    (array([1., 0.], dtype=float32), '2 wordings of the prompt were averaged (agreement 0.60)')
    """
    first, *others = compositions
    if not others:
        return first
    terms_ptd = np.stack([composition.terms for composition in compositions])
    changes = (terms_ptd != first.terms).any(axis=(0, 2))
    terms = first.terms.copy()
    terms[changes] = unit(terms_ptd[:, changes].mean(axis=0, dtype=np.float64), "the mean of the paraphrases")
    mean = replace(first, terms=terms).with_remarks(*(composition.remark for composition in others))
    agreement = float(np.mean([_direction(composition) @ _direction(mean) for composition in compositions]))
    prompt = repr(first.words[Term.PROMPT]) if Term.PROMPT in first.words else "the prompt"
    return mean.with_remarks(f"{len(compositions)} wordings of {prompt} were averaged (agreement {agreement:.2f})")


def _direction(composition: Composition) -> Float32:
    """(d,) the unit direction of the prompt: composed − text, or the prompt itself if there is no caption."""
    if {Term.TEXT, Term.COMPOSED} <= set(composition.names):
        return direction_of(composition[Term.COMPOSED] - composition[Term.TEXT])
    return composition[Term.PROMPT]
