"""Composers based on captions: `text` is a caption of the reference, `composed` the caption with the prompt applied.

One caption is CIReVL (arXiv 2310.09291), fifteen are LDRE (SIGIR 2024) and SEIZE (ACM MM 2024); SDR-CIR uses other weights for
the same terms; OSrCIR (CVPR 2025) describes the target in one step. Captioners, rewriters and describers are pluggable (see
`language`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial, reduce
from itertools import accumulate, pairwise

import numpy as np
from numpy.typing import NDArray

from mmretrieve.composer_input import ComposerInput
from mmretrieve.composers.fitting import FittedCaption, cut_remarks, fit_captions, fitting_remark
from mmretrieve.composers.paraphrased import compose_paraphrases
from mmretrieve.composition import Caption, Composition
from mmretrieve.directions import Term
from mmretrieve.encoders.base import Encoder
from mmretrieve.encoders.checked import encode_texts
from mmretrieve.language.answers import caption_references, describe_targets, rewrite_captions
from mmretrieve.language.base import Captioner, Describer, Rewriter
from mmretrieve.language.editing import remove_phrase
from mmretrieve.language.rewriters import TemplateRewriter
from mmretrieve.options import CaptionSource
from mmretrieve.rules import LINEAR, ScoreRule
from mmretrieve.vectors import Float32, unit

Scorer = Callable[[Float32], Float32]
"""(m, d) unit vectors → (m, items) scores over the gallery to be searched."""
Shares = Callable[[Float32, Float32], NDArray[np.float64]]
"""(m, d) captions and (m, d) rewrites → (m,) shares that sum to 1."""


def equal_shares(captions: Float32, rewrites: Float32) -> NDArray[np.float64]:  # noqa: ARG001
    """(m,) equal shares for (m, d) captions."""
    return np.full(len(captions), 1 / len(captions))


def ldre_shares(
    score: Scorer, captions: Float32, rewrites: Float32, *, depth: int = 5, temperature: float = 0.04
) -> NDArray[np.float64]:
    """LDRE's shares: softmax((d / max d) / temperature), where d is the sum of the `depth` largest score gains of a rewrite.

    A gain is the score of the rewrite minus the score of the caption for an item of the gallery, so the method is transductive.
    If no rewrite gains anything, all shares are equal. Source: LDRE (SIGIR 2024).

    Parameters
    ----------
    score : callable
        (m, d) unit vectors → (m, items) scores over the gallery.
    captions, rewrites : ndarray of shape (m, d), float32
        Unit rows.
    depth : int, default=5
    temperature : float, default=0.04

    Returns
    -------
    ndarray of shape (m,), float64
        They sum to 1.
    """
    gains = score(rewrites).astype(np.float64) - score(captions)
    divergence = np.sort(gains, axis=1)[:, -depth:].sum(axis=1)
    if divergence.max() <= 0:
        return equal_shares(captions, rewrites)
    powers = np.exp((divergence / divergence.max() - 1) / temperature)
    return np.asarray(powers / powers.sum())


def sdr_weights(a: float = 0.15, b: float = 0.35) -> dict[str, float]:
    """The weights of SDR-CIR: (1 + b) · ((1 − a) · composed + a · image) − b · (composed − prompt).

    The defaults are the published ones for CIRCO; CIRR uses (0.05, 0.5), FashionIQ (0.2, 0.4).
    """
    return {Term.COMPOSED: (1 + b) * (1 - a) - b, Term.IMAGE: (1 + b) * a, Term.PROMPT: b}


@dataclass(frozen=True)
class Captions:
    """The terms image, text, composed and prompt. `text` and `composed` are means of `count` captions and their rewrites.

    A caption in the query replaces those of the captioner. If a rewriter returns nothing, the prompt is used as the rewrite. A
    caption that does not fit into the encoder's context together with its prompt is shortened (see `fitting`). Without a
    reference image there is no `image`; a prompt that only excludes something has no `prompt`.
    """

    encoder: Encoder
    captioner: Captioner
    rewriter: Rewriter = field(default_factory=TemplateRewriter)
    count: int = 1
    shares: Shares = equal_shares
    base: Mapping[str, float] = field(default_factory=lambda: {Term.COMPOSED: 1.0})
    rule: ScoreRule = LINEAR
    remark: str | None = None

    def compose(self, inputs: Sequence[ComposerInput]) -> list[Composition]:
        for query in inputs:
            if not query.avoid:
                query.required_prompt()  # raises an error: only phrases to avoid can be used without a prompt
        captions = [
            own for query, own in zip(inputs, self._caption_all(inputs), strict=True) for _ in (query, *query.paraphrases)
        ]
        return compose_paraphrases(inputs, lambda wordings: self._compose(wordings, captions))

    def _compose(self, inputs: Sequence[ComposerInput], captions: Sequence[Sequence[str]]) -> list[Composition]:
        """One composition for each query and its captions."""
        flat_captions = [caption for several in captions for caption in several]
        flat_inputs = [query for query, several in zip(inputs, captions, strict=True) for _ in several]
        written = self._rewrite_all(flat_captions, flat_inputs)
        prompts = [query.prompt or "" for query in flat_inputs]
        rewrites = [rewrite or prompt for rewrite, prompt in zip(written, prompts, strict=True)]
        pairs = fit_captions(self.encoder, self.rewriter, flat_captions, prompts, rewrites)
        desired_texts = [query.desired_text() for query in inputs]
        texts = [*(pair.caption for pair in pairs), *(pair.rewrite for pair in pairs), *filter(None, desired_texts)]
        text_rows, rewrite_rows, desired_rows = np.split(encode_texts(self.encoder, texts), [len(pairs), 2 * len(pairs)])
        slices = [slice(*ends) for ends in pairwise(accumulate(map(len, captions), initial=0))]
        shares = [self.shares(text_rows[rows], rewrite_rows[rows]) for rows in slices]
        text_means, rewrite_means = (_means(rows, slices, shares) for rows in (text_rows, rewrite_rows))
        prompt_remarks, desired_row = cut_remarks(self.encoder, desired_texts), iter(desired_rows)
        composed = []
        for i, (query, rows, desired) in enumerate(zip(inputs, slices, desired_texts, strict=True)):
            best = pairs[rows][int(shares[i].argmax())]
            vectors = query.vector, text_means[i], rewrite_means[i], next(desired_row) if desired else None
            remarks = _missing_remark(written[rows]), fitting_remark(self.encoder, pairs[rows]), prompt_remarks[i]
            composed.append(self._composition(query, best, vectors).with_remarks(*remarks))
        return composed

    def _composition(self, query: ComposerInput, best: FittedCaption, vectors: Sequence[Float32 | None]) -> Composition:
        """The terms that are there, with the best caption in words."""
        terms = dict(zip((Term.IMAGE, Term.TEXT, Term.COMPOSED, Term.PROMPT), vectors, strict=True))
        present = {term: row for term, row in terms.items() if row is not None}
        words: dict[str, str] = {Term.TEXT: best.caption, Term.COMPOSED: best.rewrite}
        if Term.PROMPT in present:
            words[Term.PROMPT] = query.desired_text()
        composition = Composition(
            tuple(present), np.stack(list(present.values())), (0.0,) * len(present), words, self.rule, remark=self.remark
        )
        return composition.weighted({term: weight for term, weight in self.base.items() if term in present})

    def _rewrite_all(self, captions: Sequence[str], inputs: Sequence[ComposerInput]) -> list[str]:
        """Each caption with the prompt of its query applied and the phrases to avoid removed; without a prompt, the caption."""
        pairs = [
            (caption, query.required_prompt())
            for caption, query in zip(captions, inputs, strict=True)
            if query.prompt is not None
        ]
        written = iter(rewrite_captions(self.rewriter, *map(list, zip(*pairs, strict=True))) if pairs else [])
        rewrites = [caption if query.prompt is None else next(written) for caption, query in zip(captions, inputs, strict=True)]
        return [
            reduce(partial(remove_phrase, lexicon=getattr(self.rewriter, "lexicon", None)), query.avoid, rewrite)
            if rewrite
            else rewrite
            for rewrite, query in zip(rewrites, inputs, strict=True)
        ]

    def _caption_all(self, inputs: Sequence[ComposerInput]) -> list[list[str]]:
        without_caption = [query for query in inputs if query.caption is None]
        captions = iter(caption_references(self.captioner, without_caption, self.count) if without_caption else [])
        return [
            next(captions) if query.caption is None else [Caption(query.caption, trust=1.0, source=CaptionSource.GIVEN)]
            for query in inputs
        ]


@dataclass(frozen=True)
class OneStep:
    """OSrCIR (CVPR 2025): a model sees the reference image and the prompt, and describes the target in one step.

    The terms are image, composed and prompt, and `text` if the model also describes the reference, which PDV needs.
    """

    encoder: Encoder
    describer: Describer

    def compose(self, inputs: Sequence[ComposerInput]) -> list[Composition]:
        descriptions = [
            {Term.TEXT: d.reference, Term.COMPOSED: d.target or query.required_prompt(), Term.PROMPT: query.required_prompt()}
            for d, query in zip(describe_targets(self.describer, inputs), inputs, strict=True)
        ]
        words = [{term: text for term, text in texts.items() if text is not None} for texts in descriptions]
        rows = iter(encode_texts(self.encoder, [text for texts in words for text in texts.values()]))
        return [
            Composition(
                (Term.IMAGE, *texts),
                np.stack([query.required_reference(), *(next(rows) for _ in texts)]),
                (0.0, *(float(term is Term.COMPOSED) for term in texts)),
                {str(term): text for term, text in texts.items()},
            ).with_remarks(*description_remarks(self.encoder, texts))
            for texts, query in zip(words, inputs, strict=True)
        ]


def _means(rows_md: Float32, slices: Sequence[slice], shares: Sequence[NDArray[np.float64]]) -> Float32:
    """(q, d) unit means of the rows of each query, by their shares."""
    if not slices:
        return rows_md
    means = [share @ rows_md[rows].astype(np.float64) for rows, share in zip(slices, shares, strict=True)]
    return unit(means, "the mean of the captions")


def _missing_remark(rewrites: Sequence[str]) -> str | None:
    """How many rewrites are missing and were replaced by the prompt."""
    if all(rewrites):
        return None
    return f"{sum(not rewrite for rewrite in rewrites)} of {len(rewrites)} captions have no rewrite: the prompt is used instead"


def description_remarks(encoder: Encoder, words: Mapping[Term, str]) -> list[str | None]:
    """A remark for each text of a query that is cut. A description that equals the prompt is reported once."""
    labels = {Term.TEXT: "the description of the reference", Term.COMPOSED: "the description of the target"}
    prompt = words[Term.PROMPT]
    named = [(labels.get(term, "the prompt"), text) for term, text in words.items() if term is Term.PROMPT or text != prompt]
    return [remark for name, text in named for remark in cut_remarks(encoder, [text], name)]
