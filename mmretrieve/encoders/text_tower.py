"""Runs the text tower of an open_clip model only up to the end of the longest text.

open_clip always computes the full context (77 positions). If attention is causal and the feature is read at the end token,
later positions cannot change it. Omitting them gives the same feature, several times faster.
"""

from __future__ import annotations

from typing import Any

import torch
from open_clip.transformer import text_global_pool
from torch import Tensor, nn

MIN_ROWS = (
    32  # of a matrix product: smaller ones use other kernels, so a single text would differ from the same text in a batch
)


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
    tower = text_module(model)
    tokens = tokens[:, : max(_used_length(tower, tokens), -(-MIN_ROWS // len(tokens)))]
    length = tokens.shape[1]
    dtype = tower.transformer.get_cast_dtype()
    hidden = tower.token_embedding(tokens).to(dtype) + tower.positional_embedding[:length].to(dtype)
    hidden = tower.ln_final(tower.transformer(hidden, attn_mask=tower.attn_mask[:length, :length]))
    x: Tensor = text_global_pool(hidden, tokens, _pool_type(tower), eos_token_id=_end_token(tower))
    projection = tower.text_projection
    if projection is None:
        return x
    count = len(x)
    if count < MIN_ROWS:
        x = torch.cat([x, x[:1].expand(MIN_ROWS - count, -1)])
    projected: Tensor = projection(x) if isinstance(projection, nn.Linear) else x @ projection
    return projected[:count]


def _used_length(tower: Any, tokens: Tensor) -> int:
    """The number of positions up to and including the last end token of the batch."""
    end = _end_token(tower)
    at_end = tokens.argmax(1) if _pool_type(tower) == "argmax" or end is None else (tokens == end).int().argmax(1)
    return int(at_end.max()) + 1


def text_module(model: Any) -> Any:
    """The module of a model that contains its text tower."""
    return model.text if isinstance(getattr(model, "text", None), nn.Module) else model


def _pool_type(tower: Any) -> str | None:
    return getattr(tower, "pool_type", None) or getattr(tower, "text_pool_type", None)


def _end_token(tower: Any) -> int | None:
    return getattr(tower, "eos_id", None) or getattr(tower, "text_eos_id", None)
