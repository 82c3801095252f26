"""Checks whether texts fit into the context of a tokenizer, however it ends, pads and truncates texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

ONE_MORE_WORD = " a"
MAX_CACHED_TEXTS = 2_048


class TextContext:
    """The context of one open_clip tokenizer: its `length` in tokens, and which texts fit into it.

    A text fits if a context that is one token longer adds only one padding token. This holds for tokenizers that end and pad
    with the same token (SigLIP), that end a truncated text with an end token (CLIP), that reserve the last position for a
    class token (CLIPS), and that pad on the left. A tokenizer with a fixed context length gets the text with one more word
    instead: if the ids do not change, the context is full and the text counts as too long.

    >>> import open_clip
    >>> context = TextContext(open_clip.SimpleTokenizer(context_length=5))
    >>> context.length, context.fits(["a red dress", "a long red dress"])  # start and end tokens take two of the five positions
    (5, [True, False])
    """

    def __init__(self, tokenizer: Callable[..., Tensor]) -> None:
        self._tokenizer = tokenizer
        self._cache: dict[str, tuple[Tensor, bool]] = {}
        empty = tokenizer([""])
        self.length = int(empty.shape[1])
        longer = self._in_longer_context([""])
        self._has_variable_length = longer is not None
        self._padding = int((empty if longer is None else longer)[0].mode().values)
        paddings = (empty[0] == self._padding).nonzero()
        self._after_padding = self.length - 1 - int(paddings.max())

    def fits(self, texts: Sequence[str]) -> list[bool]:
        """Whether each of n texts fits."""
        return self.tokenize(texts)[1] if texts else []

    def tokenize(self, texts: Sequence[str]) -> tuple[Tensor, list[bool]]:
        """(n, length) token ids of n > 0 texts, and whether each text fits. Recent texts are cached."""
        tokenized = {text: entry for text in texts if (entry := self._cache.get(text)) is not None}
        if new := list(dict.fromkeys(text for text in texts if text not in tokenized)):
            tokenized |= dict(zip(new, zip(*self._tokenize(new), strict=True), strict=True))
            self._cache = (
                {text: tokenized[text] for text in new} if len(self._cache) > MAX_CACHED_TEXTS else self._cache | tokenized
            )
        return torch.stack([tokenized[text][0] for text in texts]), [tokenized[text][1] for text in texts]

    def _tokenize(self, texts: list[str]) -> tuple[Tensor, list[bool]]:
        tokens = self._tokenizer(list(texts))
        if not self._has_variable_length:
            continued = self._tokenizer([text + ONE_MORE_WORD for text in texts])
            return tokens, (continued != tokens).any(dim=1).tolist()
        longer = self._tokenizer(list(texts), context_length=self.length + 1)
        positions = (self.length - self._after_padding, 0)  # padding on the right, padding on the left
        same = [(longer == self._with_padding(tokens, position)).all(dim=1) for position in positions]
        return tokens, torch.stack(same).any(dim=0).tolist()

    def _with_padding(self, tokens: Tensor, position: int) -> Tensor:
        """(n, length + 1) ids: the (n, length) ids with one padding token inserted at the position."""
        padding = tokens.new_full((len(tokens), 1), self._padding)
        return torch.cat([tokens[:, :position], padding, tokens[:, position:]], dim=1)

    def _in_longer_context(self, texts: list[str]) -> Tensor | None:
        """(n, length + 1) token ids, or None if the context length of the tokenizer is fixed."""
        try:
            tokens = self._tokenizer(texts, context_length=self.length + 1)
        except Exception:  # the error depends on the tokenizer
            return None
        return tokens if tokens.shape[1] == self.length + 1 else None
