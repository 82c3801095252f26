"""Encodes sentences in which an image takes the place of a word, with any method that makes pseudo tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from mmretrieve.encoders.openclip import TEXT_BATCH_SIZE, OpenClipEncoder
from mmretrieve.encoders.pseudo_tokens import Pieces
from mmretrieve.images import ImageLike
from mmretrieve.vectors import Float32, unit


class TokenPredictor(Protocol):
    """A method that makes pseudo tokens, such as `Phi` and `OTI`."""

    def tokens(self, features: Float32, encoder: OpenClipEncoder) -> Tensor:
        """(n, width) pseudo tokens for (n, d) image features, which are not normalized."""
        ...


@dataclass(frozen=True)
class TokenInverter:
    """An `Inverter` of one encoder and one method that makes pseudo tokens."""

    encoder: OpenClipEncoder
    predictor: TokenPredictor

    def encode(self, images: Sequence[ImageLike], sentences: Sequence[Sequence[Pieces]]) -> Float32:
        """(n, s, d) float32 unit vectors for n images and s sentences per image."""
        tokens = self.predictor.tokens(self.encoder.image_features(images), self.encoder)
        flat = [sentence for own in sentences for sentence in own]
        repeated = tokens.repeat_interleave(torch.tensor([len(own) for own in sentences]), dim=0)
        batches = [slice(start, start + TEXT_BATCH_SIZE) for start in range(0, len(flat), TEXT_BATCH_SIZE)]
        with torch.inference_mode():
            rows = [self.encoder.pseudo_tokens.features(flat[batch], repeated[batch]) for batch in batches]
        vectors = unit(torch.cat(rows).float().cpu().numpy(), "text features")
        return vectors.reshape(len(images), -1, vectors.shape[1])
