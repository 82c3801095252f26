"""PDV: a choice of weights for the terms `image`, `text` and `composed`.

Source of every formula: "Prompt Directional Vectors" (arXiv 2502.07215).

    delta = composed − text
    PDV-I = image + alpha_image · delta
    PDV-T = text  + alpha_text  · delta
    PDV-F = (1 − beta) · PDV-I + beta · PDV-T

All of it is a weighted sum of `image`, `text` and `composed` whose weights sum to 1, so every ranking PDV can give
lies on a plane with two coordinates, beta and gamma = (1 − beta) · alpha_image + beta · alpha_text.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmretrieve.errors import OptionError, VectorError
from mmretrieve.vectors import Float32, is_number, unit


class Term(StrEnum):
    """The terms every composer draws from. A method may add its own names beside them."""

    IMAGE = "image"
    TEXT = "text"
    COMPOSED = "composed"
    PROMPT = "prompt"


@dataclass(frozen=True, kw_only=True)
class PDV:
    """One setting of the three knobs. The defaults are the base method: the `composed` term alone.

    alpha_image, alpha_text: any finite number (the paper sweeps −0.5 to 2). beta: 0 (image side) to 1 (text side).
    Anything else raises OptionError.
    """

    alpha_image: float = 1.0
    alpha_text: float = 1.0
    beta: float = 1.0

    def __post_init__(self) -> None:
        for name in ("alpha_image", "alpha_text"):
            if not is_number(getattr(self, name)):
                raise OptionError(f"{name} must be a finite number, got {getattr(self, name)!r}")
        if not is_number(self.beta) or not 0 <= self.beta <= 1:
            raise OptionError(f"beta must be a number from 0 to 1, got {self.beta!r}")

    @property
    def gamma(self) -> float:
        """The second coordinate of the plane: the weight of `composed`. Where both alphas are one number, exactly that."""
        if self.alpha_image == self.alpha_text:
            return self.alpha_text
        return (1 - self.beta) * self.alpha_image + self.beta * self.alpha_text

    @property
    def weights(self) -> tuple[float, float, float]:
        """Weights of (image, text, composed)."""
        return plane_weights(self.beta, self.gamma)


PUBLISHED: dict[str, PDV] = {
    "cirevl": PDV(alpha_image=1.4, alpha_text=1.2, beta=0.75),
    "ldre": PDV(alpha_image=1.4, alpha_text=1.4, beta=0.75),
    "searle-base": PDV(alpha_image=1.4, alpha_text=1.2, beta=0.9),
    "searle-large": PDV(alpha_image=1.4, alpha_text=1.2, beta=0.85),
    "pic2word": PDV(alpha_image=1.2, alpha_text=1.0, beta=0.85),
    "cirevl-fashioniq-base": PDV(alpha_image=1.4, alpha_text=1.4, beta=0.75),
    "cirevl-fashioniq-large": PDV(alpha_image=1.0, alpha_text=1.3, beta=0.55),
    "cirevl-fashioniq-giant": PDV(alpha_image=1.4, alpha_text=1.4, beta=0.6),
    "searle-fashioniq-base": PDV(alpha_image=1.1, alpha_text=0.9, beta=0.9),
    "searle-fashioniq-large": PDV(alpha_image=1.2, alpha_text=1.0, beta=0.8),
    "pic2word-fashioniq": PDV(alpha_image=1.0, alpha_text=1.0, beta=0.8),
}
"""The paper's settings by the method that made the terms, for CIRR and CIRCO where no benchmark is named.

base, large, giant: ViT-B/32, ViT-L/14, ViT-bigG/14.
"""


def pdv_weights(*, alpha_image: float = 1.0, alpha_text: float = 1.0, beta: float = 1.0) -> tuple[float, float, float]:
    """Weights (w_image, w_text, w_composed) of PDV-F, summing to 1: `pdv_weights(beta=0.5)` is `(0.5, -0.5, 1.0)`."""
    return PDV(alpha_image=alpha_image, alpha_text=alpha_text, beta=beta).weights


def plane_weights(beta: float, gamma: float) -> tuple[float, float, float]:
    """Weights of (image, text, composed) at a point of the plane: (1 − beta, beta − gamma, gamma)."""
    return (1 - beta, beta - gamma, gamma)


def pdv(
    image: ArrayLike,
    text: ArrayLike,
    composed: ArrayLike,
    *,
    alpha_image: float = 1.0,
    alpha_text: float = 1.0,
    beta: float = 1.0,
) -> Float32:
    """PDV-F of three (n, d) arrays of any row length → (n, d) unit float32.

    Each input is normalised first and the result once more. Raises VectorError for shapes that differ, zero rows,
    NaN, or a sum that cancels to zero; OptionError for beta outside [0, 1] or alphas that are not finite.
    """
    weights = pdv_weights(alpha_image=alpha_image, alpha_text=alpha_text, beta=beta)
    terms = _same_shape(image, text, composed)
    return unit(sum(w * t.astype(np.float64) for w, t in zip(weights, terms, strict=True)), "the PDV sum")


def automatic_alpha_image(image: ArrayLike, text: ArrayLike, composed: ArrayLike) -> NDArray[np.float64]:
    """The alpha_image, per row, that brings PDV-I closest to `composed`: delta · (composed − image) / ‖delta‖².

    Three (n, d) arrays of any row length → (n,). Raises VectorError where the prompt adds no direction (delta is 0).
    """
    image_, text_, composed_ = (term.astype(np.float64) for term in _same_shape(image, text, composed))
    delta = composed_ - text_
    squares = np.einsum("nd,nd->n", delta, delta)
    if not (squares > 1e-12).all():
        raise VectorError(f"row {int(np.argmin(squares))}: `composed` equals `text`, so the prompt adds no direction")
    return np.asarray(np.einsum("nd,nd->n", delta, composed_ - image_) / squares)


def _same_shape(image: ArrayLike, text: ArrayLike, composed: ArrayLike) -> tuple[Float32, Float32, Float32]:
    rows = unit(image, "image"), unit(text, "text"), unit(composed, "composed")
    if not rows[0].shape == rows[1].shape == rows[2].shape:
        raise VectorError(f"image, text and composed must have one shape, got {[row.shape for row in rows]}")
    return rows
