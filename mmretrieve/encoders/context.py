"""How much text a tokenizer's context holds, whichever way the tokenizer ends, pads and truncates."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

ONE_MORE_WORD = " a"
MAX_KNOWN = 2_048  # texts whose tokens are remembered


class TextContext:
    """The context of one open_clip tokenizer: its `length` in tokens, and which texts fit into it.

    A text fits if a context that is one token longer adds nothing but one padding token. That holds for tokenizers that
    end and pad with the same token (SigLIP), that put an end token in the last place of a truncated text (CLIP), that keep
    the last place for a class token (CLIPS), and that pad on the left. A tokenizer that has only one context length is asked
    for the text with one more word: if the ids stay the same, the context is full, and the text counts as too long.

    >>> import open_clip
    >>> context = TextContext(open_clip.SimpleTokenizer(context_length=5))
    >>> context.length, context.fits(["a red dress", "a long red dress"])  # start and end take two of the five
    (5, [True, False])
    """

    def __init__(self, tokenizer: Callable[..., Tensor]) -> None:
        self._tokenizer = tokenizer
        self._known: dict[str, tuple[Tensor, bool]] = {}
        empty = tokenizer([""])
        self.length = int(empty.shape[1])
        longer = self._in_longer_context([""])
        self._can_be_longer = longer is not None
        self._padding = int((empty if longer is None else longer)[0].mode().values)
        paddings = (empty[0] == self._padding).nonzero()
        self._after_padding = self.length - 1 - int(paddings.max())

    def fits(self, texts: Sequence[str]) -> list[bool]:
        """Whether each of n texts fits."""
        return self.tokenize(texts)[1] if texts else []

    def tokenize(self, texts: Sequence[str]) -> tuple[Tensor, list[bool]]:
        """n texts, n > 0 → (n, length) token ids, and whether each text fits. The last MAX_KNOWN texts are not tokenized again."""
        known = {text: read for text in texts if (read := self._known.get(text)) is not None}
        if new := list(dict.fromkeys(text for text in texts if text not in known)):
            known |= dict(zip(new, zip(*self._tokenized(new), strict=True), strict=True))
            self._known = {text: known[text] for text in new} if len(self._known) > MAX_KNOWN else self._known | known
        return torch.stack([known[text][0] for text in texts]), [known[text][1] for text in texts]

    def _tokenized(self, texts: list[str]) -> tuple[Tensor, list[bool]]:
        tokens = self._tokenizer(list(texts))
        if not self._can_be_longer:
            continued = self._tokenizer([text + ONE_MORE_WORD for text in texts])
            return tokens, (continued != tokens).any(dim=1).tolist()
        longer = self._tokenizer(list(texts), context_length=self.length + 1)
        places = (self.length - self._after_padding, 0)  # padding on the right, padding on the left
        same = [(longer == self._with_padding(tokens, place)).all(dim=1) for place in places]
        return tokens, torch.stack(same).any(dim=0).tolist()

    def _with_padding(self, tokens: Tensor, place: int) -> Tensor:
        """(n, length) ids → (n, length + 1) ids with one padding token more at that place."""
        padding = tokens.new_full((len(tokens), 1), self._padding)
        return torch.cat([tokens[:, :place], padding, tokens[:, place:]], dim=1)

    def _in_longer_context(self, texts: list[str]) -> Tensor | None:
        """(n, length + 1) token ids, or None if the tokenizer has only one context length."""
        try:
            tokens = self._tokenizer(texts, context_length=self.length + 1)
        except Exception:  # a foreign tokenizer refuses another length with an error of its own choice
            return None
        return tokens if tokens.shape[1] == self.length + 1 else None
