"""The text tower of an open_clip model: encodes tokens only up to the end of the longest text, and tells which texts fit.

open_clip always computes the full context (77 positions). If attention is causal and the feature is read at the end token,
later positions cannot change it. Omitting them gives the same feature, several times faster.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from open_clip.transformer import text_global_pool
from torch import Tensor, nn

LENGTH_STEP = 16  # positions
# Smaller matrix products use other kernels, so a text alone would differ from the same text in a batch.
MIN_TEXTS, MIN_ROWS = 4, 32
ONE_MORE_WORD = " a"
MAX_CACHED_TEXTS = 2_048


def is_croppable(model: nn.Module) -> bool:
    """Whether the positions after the end token can be omitted without changing the feature."""
    tower = text_module(model)
    return (
        getattr(tower, "attn_mask", None) is not None
        and getattr(tower, "cls_emb", None) is None
        and _pool_type(tower) in ("argmax", "eos")
    )


def encode_tokens(model: Any, tokens: Tensor) -> Tensor:
    """The (n, d) text features, not normalized, of (n, context) token ids."""
    if not is_croppable(model):
        return model.encode_text(tokens, normalize=False)  # type: ignore[no-any-return]
    tower, count = text_module(model), len(tokens)
    tokens = tokens[:, : int(cropped_lengths(model, tokens).max())]
    length = tokens.shape[1]
    dtype = tower.transformer.get_cast_dtype()
    hidden = tower.token_embedding(tokens).to(dtype) + tower.positional_embedding[:length].to(dtype)
    hidden = _with_rows(hidden, MIN_TEXTS)
    hidden = tower.ln_final(tower.transformer(hidden, attn_mask=tower.attn_mask[:length, :length]))
    x: Tensor = text_global_pool(hidden[:count], tokens, _pool_type(tower), eos_token_id=_end_token(tower))
    projection = tower.text_projection
    if projection is None:
        return x
    x = _with_rows(x, MIN_ROWS)
    projected: Tensor = projection(x) if isinstance(projection, nn.Linear) else x @ projection
    return projected[:count]


def cropped_lengths(model: Any, tokens: Tensor) -> Tensor:
    """(n,) the number of positions with which each row of (n, context) token ids is encoded: those in use, rounded up.

    Texts of one length have the same features alone and in a batch.
    """
    context = tokens.shape[1]
    if not is_croppable(model):
        return torch.full((len(tokens),), context)
    tower = text_module(model)
    end = _end_token(tower)
    at_end = tokens.argmax(1) if _pool_type(tower) == "argmax" or end is None else (tokens == end).int().argmax(1)
    return (-(-(at_end + 1) // LENGTH_STEP) * LENGTH_STEP).clamp(max=context).cpu()


def _with_rows(x: Tensor, count: int) -> Tensor:
    """At least `count` rows; the first one is repeated."""
    return x if len(x) >= count else torch.cat([x, x[:1].expand(count - len(x), *x.shape[1:])])


def text_module(model: Any) -> Any:
    """The module of a model that contains its text tower."""
    return model.text if isinstance(getattr(model, "text", None), nn.Module) else model


def _pool_type(tower: Any) -> str | None:
    return getattr(tower, "pool_type", None) or getattr(tower, "text_pool_type", None)


def _end_token(tower: Any) -> int | None:
    return getattr(tower, "eos_id", None) or getattr(tower, "text_eos_id", None)


class TextContext:
    """The context of one open_clip tokenizer: its `length` in tokens, and which texts fit into it.

    A text fits if two padding tokens are left. If fewer are, a context that is one token longer must add only one padding token. This
    holds for tokenizers that end and pad with the same token (SigLIP), that end a truncated text with an end token (CLIP), that reserve
    the last position for a class token (CLIPS), and that pad on the left. A tokenizer with a fixed context length gets the text with one
    more word instead: if the ids do not change, the context is full and the text counts as too long.

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
        end = self.length - self._after_padding
        fits = torch.stack([(tokens[:, at] == self._padding).all(dim=1) for at in (slice(end - 2, end), slice(2))]).any(dim=0)
        if unsure := (~fits).nonzero()[:, 0].tolist():
            fits[unsure] = self._fit_exactly([texts[i] for i in unsure], tokens[unsure])
        return tokens, fits.tolist()

    def _fit_exactly(self, texts: list[str], tokens: Tensor) -> Tensor:
        """(n,) whether n texts with these tokens fit; they are tokenized once more."""
        if not self._has_variable_length:
            return (self._tokenizer([text + ONE_MORE_WORD for text in texts]) != tokens).any(dim=1)
        longer = self._tokenizer(texts, context_length=self.length + 1)
        positions = (self.length - self._after_padding, 0)  # padding on the right, padding on the left
        same = [(longer == self._with_padding(tokens, position)).all(dim=1) for position in positions]
        return torch.stack(same).any(dim=0)

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
