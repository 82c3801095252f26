"""Composers of words: `text` is the reference said in words, `composed` the same words with the prompt applied.

One caption is CIReVL (arXiv 2310.09291), fifteen are LDRE (SIGIR 2024) and SEIZE (ACM MM 2024), and other weights on
the same terms are SDR-CIR. Who speaks, and who rewrites, is a choice (see `language`).
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
from mmretrieve.composition import Caption, Composition
from mmretrieve.directions import Term
from mmretrieve.encoders.base import Encoder
from mmretrieve.language.base import Captioner, Rewriter
from mmretrieve.language.editing import remove_phrase
from mmretrieve.language.rewriters import TemplateRewriter
from mmretrieve.options import CaptionSource
from mmretrieve.rules import LINEAR, Hinge, ScoreRule
from mmretrieve.vectors import Float32, unit

MANY = 15  # captions an image, in LDRE and SEIZE
Scorer = Callable[[Float32], Float32]
"""(m, d) unit vectors → (m, items) scores over the gallery that will be searched."""
Shares = Callable[[Float32, Float32], NDArray[np.float64]]
"""(m, d) captions and (m, d) rewrites → (m,) shares that sum to 1."""


def even(captions: Float32, rewrites: Float32) -> NDArray[np.float64]:  # noqa: ARG001
    """Each caption counts the same."""
    return np.full(len(captions), 1 / len(captions))


def ldre_shares(
    score: Scorer, captions: Float32, rewrites: Float32, *, depth: int = 5, temperature: float = 0.04
) -> NDArray[np.float64]:
    """LDRE's weights: softmax((d / max d) / temperature), d the sum of the 5 largest gains of a rewrite over its caption.

    Gains are measured over the gallery, so this is transductive. Where no rewrite gains anything, all count the same.
    """
    gains = score(rewrites).astype(np.float64) - score(captions)
    divergence = np.sort(gains, axis=1)[:, -depth:].sum(axis=1)
    if divergence.max() <= 0:
        return even(captions, rewrites)
    powers = np.exp((divergence / divergence.max() - 1) / temperature)
    return np.asarray(powers / powers.sum())


def sdr_weights(a: float = 0.15, b: float = 0.35) -> dict[str, float]:
    """SDR-CIR: (1+b) · ((1−a) · composed + a · image) − b · (composed − prompt). (a, b) for CIRCO; CIRR .05/.5, FashionIQ .2/.4."""
    return {Term.COMPOSED: (1 + b) * (1 - a) - b, Term.IMAGE: (1 + b) * a, Term.PROMPT: b}


@dataclass(frozen=True)
class Captions:
    """Four terms: image, text, composed and prompt. `text` and `composed` are means of `count` captions and their rewrites.

    A given caption is taken as it is and stands alone; where a rewriter says nothing, the prompt stands for its rewrite.
    A caption that does not fit into the encoder's context together with its prompt is shortened (see `fitting`).
    A query with words but no picture has no `image`, one that asks for nothing has no `prompt`.
    """

    encoder: Encoder
    captioner: Captioner
    rewriter: Rewriter = field(default_factory=TemplateRewriter)
    count: int = 1
    shares: Shares = even
    base: Mapping[str, float] = field(default_factory=lambda: {Term.COMPOSED: 1.0})
    rule: ScoreRule = LINEAR
    remark: str | None = None

    def compose(self, queries: Sequence[ComposerInput]) -> list[Composition]:
        for query in queries:
            if not query.avoid:
                query.words()  # only what should not show can be asked without a prompt
        captions = self._captions(queries)
        told = [caption for several in captions for caption in several]
        asking = [query for query, several in zip(queries, captions, strict=True) for _ in several]
        said = self._rewrites(told, asking)
        asked = [query.prompt or "" for query in asking]
        rewrites = [rewrite or prompt for rewrite, prompt in zip(said, asked, strict=True)]
        pairs = fit_captions(self.encoder, self.rewriter, told, asked, rewrites)
        wishes = [query.wish() for query in queries]
        texts = [*(pair.caption for pair in pairs), *(pair.rewrite for pair in pairs), *filter(None, wishes)]
        text_rows, rewrite_rows, wish_rows = np.split(self.encoder.encode_texts(texts), [len(told), 2 * len(told)])
        places = [slice(*ends) for ends in pairwise(accumulate(map(len, captions), initial=0))]
        cut, wished = cut_remarks(self.encoder, wishes), iter(wish_rows)
        return [
            self._composition(
                query, pairs[place], text_rows[place], rewrite_rows[place], next(wished) if wish else None
            ).remarked(_silence(said[place]), fitting_remark(self.encoder, pairs[place]), prompt_cut)
            for query, place, wish, prompt_cut in zip(queries, places, wishes, cut, strict=True)
        ]

    def _composition(
        self, query: ComposerInput, pairs: Sequence[FittedCaption], text: Float32, rewritten: Float32, wish: Float32 | None
    ) -> Composition:
        shares = self.shares(text, rewritten)
        means = unit([shares @ text.astype(np.float64), shares @ rewritten.astype(np.float64)], "the mean of the captions")
        best = pairs[int(shares.argmax())]
        terms = dict(zip((Term.IMAGE, Term.TEXT, Term.COMPOSED, Term.PROMPT), (query.vector, *means, wish), strict=True))
        there = {term: row for term, row in terms.items() if row is not None}
        words: dict[str, str] = {Term.TEXT: best.caption, Term.COMPOSED: best.rewrite}
        if wish is not None:
            words[Term.PROMPT] = query.wish()
        composition = Composition(
            tuple(there), np.stack(list(there.values())), (0.0,) * len(there), words, self.rule, remark=self.remark
        )
        return composition.weighted({term: weight for term, weight in self.base.items() if term in there})

    def _rewrites(self, captions: Sequence[str], queries: Sequence[ComposerInput]) -> list[str]:
        """Each caption with its query's prompt applied, without what the query avoids; a query without a prompt keeps its caption."""
        asked = [(caption, query.words()) for caption, query in zip(captions, queries, strict=True) if query.prompt is not None]
        said = iter(self.rewriter.rewrite(*map(list, zip(*asked, strict=True))) if asked else [])
        rewrites = [caption if query.prompt is None else next(said) for caption, query in zip(captions, queries, strict=True)]
        return [
            reduce(partial(remove_phrase, lexicon=getattr(self.rewriter, "lexicon", None)), query.avoid, rewrite)
            if rewrite
            else rewrite
            for rewrite, query in zip(rewrites, queries, strict=True)
        ]

    def _captions(self, queries: Sequence[ComposerInput]) -> list[list[str]]:
        unsaid = [query for query in queries if query.caption is None]
        told = iter(self.captioner.captions(unsaid, self.count) if unsaid else [])
        return [
            next(told) if query.caption is None else [Caption(query.caption, trust=1.0, source=CaptionSource.GIVEN)]
            for query in queries
        ]


def _silence(said: Sequence[str]) -> str | None:
    """How many rewrites are missing: the prompt alone stands for them."""
    if all(said):
        return None
    return f"{sum(not rewrite for rewrite in said)} of {len(said)} captions have no rewrite: the prompt alone stands for it"


def ldre(encoder: Encoder, captioner: Captioner, rewriter: Rewriter, score: Scorer) -> Captions:
    """LDRE: many captions, weighed by what their rewrites gain over the gallery."""
    remark = "the captions' weights were chosen by looking at the gallery (transductive, as in LDRE)"
    return Captions(encoder, captioner, rewriter, MANY, partial(ldre_shares, score), remark=remark)


def seize(encoder: Encoder, captioner: Captioner, rewriter: Rewriter) -> Captions:
    """SEIZE: the means of many captions, folded by the hinge rule."""
    return Captions(encoder, captioner, rewriter, MANY, rule=Hinge())


def sdr(encoder: Encoder, captioner: Captioner, rewriter: Rewriter) -> Captions:
    """SDR-CIR: one caption, with the image and the prompt beside its rewrite."""
    return Captions(encoder, captioner, rewriter, base=sdr_weights())
