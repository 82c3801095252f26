"""Fits captions, rewrites and prompts into the context of an encoder, and reports what was omitted.

Encoders cut a text at its end, where a rewrite contains the prompt. So the caption is shortened instead.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mmretrieve.composition import join_remarks
from mmretrieve.encoders.base import ContextLimit, Encoder, PairEncoder
from mmretrieve.language.answers import rewrite_captions
from mmretrieve.language.base import Rewriter

Fits = Callable[[str], bool]


@dataclass(frozen=True)
class FittedCaption:
    """A caption and its rewrite as they are encoded, and a remark if they were shortened."""

    caption: str
    rewrite: str
    remark: str | None = None


def longest_prefix(text: str, fits: Fits) -> str:
    """The longest prefix of a text, in whole words, for which `fits` is true; "" if the first word does not fit.

    >>> longest_prefix("a long blue dress, with dots", lambda prefix: len(prefix) <= 20)
    'a long blue dress'
    """
    prefixes = [text[: word.end()].rstrip(",;:") for word in re.finditer(r"\S+", text)]
    count = bisect_left(prefixes, True, key=lambda prefix: not fits(prefix))
    return prefixes[count - 1] if count else ""


def cut_remarks(encoder: Encoder | PairEncoder, texts: Sequence[str], what: str = "the prompt") -> list[str | None]:
    """For each text, a remark if its end is cut; None if it fits, or if the encoder has no `ContextLimit`."""
    if not isinstance(encoder, ContextLimit):
        return [None] * len(texts)
    remark = cut_remark(what, encoder.context_length)
    return [None if fits else remark for fits in encoder.fits_context(texts)]


def cut_remark(what: str, length: int) -> str:
    """The remark that a text was cut at a context length of `length` tokens."""
    return f"{what} is longer than the {length} tokens that the encoder reads: its end was cut"


def fit_captions(
    encoder: Encoder, rewriter: Rewriter, captions: Sequence[str], prompts: Sequence[str], rewrites: Sequence[str]
) -> list[FittedCaption]:
    """Shortens n captions and rewrites so that the encoder reads the prompt.

    Pairs that fit are unchanged. If a rewrite does not fit, its caption is shortened by whole words and rewritten again by a
    rule-based rewriter; `text` is the same shortened caption, so that composed − text is what the prompt adds. A rewrite of a
    model or a file is moved behind the prompt and shortened itself. If there is no room for another word, the prompt is the
    whole rewrite. For an encoder without `ContextLimit` everything is unchanged.
    """
    pairs = [FittedCaption(caption, rewrite) for caption, rewrite in zip(captions, rewrites, strict=True)]
    if not isinstance(encoder, ContextLimit):
        return pairs
    fits = encoder.fits_context([*captions, *rewrites])
    fitter = _Fitter(encoder, rewriter)
    cases = zip(pairs, prompts, fits[: len(pairs)], fits[len(pairs) :], strict=True)
    return [pair if caption and rewrite else fitter.fit(pair, prompt) for pair, prompt, caption, rewrite in cases]


def fitting_remark(encoder: Encoder, pairs: Sequence[FittedCaption]) -> str | None:
    """One remark on the shortened captions of a query; None if nothing was shortened."""
    remarks = [pair.remark for pair in pairs if pair.remark is not None]
    if not remarks or not isinstance(encoder, ContextLimit):
        return None
    if len(pairs) == 1:
        return remarks[0]
    shortened = f"{len(remarks)} of {len(pairs)} captions or their rewrites were shortened"
    return f"{shortened}, so that the prompt fits into the encoder's {encoder.context_length} tokens"


@dataclass(frozen=True)
class _Fitter:
    encoder: ContextLimit
    rewriter: Rewriter

    def fit(self, pair: FittedCaption, prompt: str) -> FittedCaption:
        """Fits one pair. A rewrite that consists of the prompt alone is left to the encoder."""
        if pair.rewrite != prompt and not self._fits(pair.rewrite):
            pair = self._shorten_rewrite(pair, prompt)
        return pair if self._fits(pair.caption) else self._shorten_caption(pair)

    def _shorten_rewrite(self, pair: FittedCaption, prompt: str) -> FittedCaption:
        by_rules = getattr(self.rewriter, "is_rule_based", False)
        what, source = ("caption", pair.caption) if by_rules else ("rewrite", pair.rewrite)

        def sentence(words: str) -> str:
            return rewrite_captions(self.rewriter, [words], [prompt])[0] if by_rules else f"{prompt}, {words}"

        prefix = longest_prefix(source, lambda words: self._fits(sentence(words)))
        if not prefix:
            remark = f"the {what} was left out of `composed`: the prompt alone fills the encoder's {self._length} tokens"
            return FittedCaption(pair.caption, prompt, remark)
        moved = "" if by_rules else " and put behind the prompt"
        remark = f"{_shortened_remark(what, source, prefix)}{moved}, so that the prompt fits into the encoder's {self._length} tokens"
        return FittedCaption(prefix if by_rules else pair.caption, sentence(prefix), remark)

    def _shorten_caption(self, pair: FittedCaption) -> FittedCaption:
        prefix = longest_prefix(pair.caption, self._fits)
        remark = (
            f"{_shortened_remark('caption', pair.caption, prefix)}, so that it fits into the encoder's {self._length} tokens"
        )
        if not prefix:
            remark = cut_remark("the caption", self._length)
        return FittedCaption(prefix or pair.caption, pair.rewrite, join_remarks(pair.remark, remark))

    def _fits(self, text: str) -> bool:
        return self.encoder.fits_context([text])[0]

    @property
    def _length(self) -> int:
        return self.encoder.context_length


def _shortened_remark(what: str, text: str, prefix: str) -> str:
    return f"the {what} was shortened to {len(prefix.split())} of its {len(text.split())} words"
