"""Says sentences about pictures through their pseudo tokens, whichever way the tokens are made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from mmretrieve.encoders.openclip import TEXT_BATCH, OpenClipEncoder
from mmretrieve.encoders.pseudo_tokens import Pieces
from mmretrieve.images import ImageLike
from mmretrieve.vectors import Float32, unit


class TokenMaker(Protocol):
    """`Phi` and `OTI` are two."""

    def tokens(self, features: Float32, encoder: OpenClipEncoder) -> Tensor:
        """(n, d) image features, not normalised → (n, width) pseudo tokens."""
        ...


@dataclass(frozen=True)
class TokenInverter:
    """An `Inverter`: one encoder and one way to make its pseudo tokens."""

    encoder: OpenClipEncoder
    maker: TokenMaker

    def encode(self, images: Sequence[ImageLike], sentences: Sequence[Sequence[Pieces]]) -> Float32:
        """n images and s sentences for each → (n, s, d) unit float32."""
        tokens = self.maker.tokens(self.encoder.image_features(images), self.encoder)
        flat = [sentence for own in sentences for sentence in own]
        repeated = tokens.repeat_interleave(torch.tensor([len(own) for own in sentences]), dim=0)
        with torch.inference_mode():
            rows = [
                self.encoder.pseudo_tokens.features(flat[start : start + TEXT_BATCH], repeated[start : start + TEXT_BATCH])
                for start in range(0, len(flat), TEXT_BATCH)
            ]
        vectors = unit(torch.cat(rows).float().cpu().numpy(), "text features")
        return vectors.reshape(len(images), -1, vectors.shape[1])
