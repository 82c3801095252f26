"""Fits captions, rewrites and prompts into an encoder's context, and says what was left out.

Encoders cut a text at its end, where a rewrite has its prompt. So the caption is shortened instead.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mmretrieve.composition import join_remarks
from mmretrieve.encoders.base import ContextLimit, Encoder
from mmretrieve.language.base import Rewriter

Fits = Callable[[str], bool]


@dataclass(frozen=True)
class FittedCaption:
    """A caption and its rewrite as they are encoded, and what was shortened of them."""

    caption: str
    rewrite: str
    remark: str | None = None


def longest_prefix(text: str, fits: Fits) -> str:
    """The longest beginning of a text, in whole words, for which `fits` is true; "" if its first word is too long already.

    >>> longest_prefix("a long blue dress, with dots", lambda prefix: len(prefix) <= 20)
    'a long blue dress'
    """
    prefixes = [text[: word.end()].rstrip(",;:") for word in re.finditer(r"\S+", text)]
    count = bisect_left(prefixes, True, key=lambda prefix: not fits(prefix))
    return prefixes[count - 1] if count else ""


def cut_remarks(encoder: Encoder, texts: Sequence[str], what: str = "the prompt") -> list[str | None]:
    """For each of n texts: the sentence that its end is cut, None if the encoder reads all of it or cannot tell."""
    if not isinstance(encoder, ContextLimit):
        return [None] * len(texts)
    remark = cut_remark(what, encoder.context_length)
    return [None if fits else remark for fits in encoder.fits_context(texts)]


def cut_remark(what: str, length: int) -> str:
    """The sentence that a text was cut at the end of an encoder's context of so many tokens."""
    return f"{what} is longer than the {length} tokens that the encoder reads: its end was cut"


def fit_captions(
    encoder: Encoder, rewriter: Rewriter, captions: Sequence[str], prompts: Sequence[str], rewrites: Sequence[str]
) -> list[FittedCaption]:
    """n captions with their prompts and rewrites → n pairs of caption and rewrite, shortened so that the prompt is read.

    Pairs that fit stay as they are. If a rewrite does not fit, its caption is shortened by whole words, and a rewriter by
    rules is asked again; `text` is the same shortened caption, so that composed − text is what the prompt adds. The rewrite
    of a model or a file is kept, behind the prompt, and shortened itself. If there is no room for a word beside the prompt,
    the prompt stands alone. An encoder that cannot tell what fits gets everything unchanged.
    """
    pairs = [FittedCaption(caption, rewrite) for caption, rewrite in zip(captions, rewrites, strict=True)]
    if not isinstance(encoder, ContextLimit):
        return pairs
    fits = encoder.fits_context([*captions, *rewrites])
    fitter = _Fitter(encoder, rewriter)
    cases = zip(pairs, prompts, fits[: len(pairs)], fits[len(pairs) :], strict=True)
    return [pair if caption and rewrite else fitter.fit(pair, prompt) for pair, prompt, caption, rewrite in cases]


def fitting_remark(encoder: Encoder, pairs: Sequence[FittedCaption]) -> str | None:
    """What was shortened of the captions of one query, in one sentence; None if nothing was."""
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
        """A rewrite that is the prompt alone is left to the encoder."""
        if pair.rewrite != prompt and not self._fits(pair.rewrite):
            pair = self._beside_prompt(pair, prompt)
        return pair if self._fits(pair.caption) else self._caption_alone(pair)

    def _beside_prompt(self, pair: FittedCaption, prompt: str) -> FittedCaption:
        by_rules = getattr(self.rewriter, "is_rule_based", False)
        what, source = ("caption", pair.caption) if by_rules else ("rewrite", pair.rewrite)

        def sentence(words: str) -> str:
            return self.rewriter.rewrite([words], [prompt])[0] if by_rules else f"{prompt}, {words}"

        kept = longest_prefix(source, lambda prefix: self._fits(sentence(prefix)))
        if not kept:
            left_out = f"the {what} was left out of `composed`: the prompt alone fills the encoder's {self._length} tokens"
            return FittedCaption(pair.caption, prompt, left_out)
        moved = "" if by_rules else " and put behind the prompt"
        remark = f"{_shortened(what, source, kept)}{moved}, so that the prompt fits into the encoder's {self._length} tokens"
        return FittedCaption(kept if by_rules else pair.caption, sentence(kept), remark)

    def _caption_alone(self, pair: FittedCaption) -> FittedCaption:
        kept = longest_prefix(pair.caption, self._fits)
        remark = f"{_shortened('caption', pair.caption, kept)}, so that it fits into the encoder's {self._length} tokens"
        if not kept:
            remark = cut_remark("the caption", self._length)
        return FittedCaption(kept or pair.caption, pair.rewrite, join_remarks(pair.remark, remark))

    def _fits(self, text: str) -> bool:
        return self.encoder.fits_context([text])[0]

    @property
    def _length(self) -> int:
        return self.encoder.context_length


def _shortened(what: str, text: str, kept: str) -> str:
    return f"the {what} was shortened to {len(kept.split())} of its {len(text.split())} words"
