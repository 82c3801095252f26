"""Prompt directional vectors (PDV): weights for the terms `image`, `text` and `composed`.

Source of every formula: "Prompt Directional Vectors" (arXiv 2502.07215).

    delta = composed − text
    PDV-I = image + alpha_image · delta
    PDV-T = text  + alpha_text  · delta
    PDV-F = (1 − beta) · PDV-I + beta · PDV-T

PDV-F is a weighted sum of `image`, `text` and `composed` with weights that sum to 1. So every PDV ranking is a point on a
plane with the coordinates beta and gamma = (1 − beta) · alpha_image + beta · alpha_text.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmretrieve.errors import OptionError, VectorError, checks_keywords
from mmretrieve.options import is_number
from mmretrieve.vectors import Float32, unit


class Term(StrEnum):
    """The names of the terms that composers share. A composer may add terms with names of its own.

    IMAGE is the reference image, TEXT its caption, COMPOSED the caption with the prompt applied, PROMPT the prompt, JOINT the image
    and the prompt, encoded together, and IMAGINED the image, edited after the prompt.

    Examples
    --------
    >>> from mmretrieve import Term
    >>> Term("composed") is Term.COMPOSED
    True
    """

    IMAGE = "image"
    TEXT = "text"
    COMPOSED = "composed"
    PROMPT = "prompt"
    JOINT = "joint"
    IMAGINED = "imagined"


ORIGINS = {Term.COMPOSED: Term.TEXT, Term.JOINT: Term.IMAGE, Term.IMAGINED: Term.IMAGE}
"""The term in which a prompt is applied → the term without it. Their difference is the direction of the prompt."""


@checks_keywords
@dataclass(frozen=True, kw_only=True)
class PDV:
    """The three parameters of PDV-F. The defaults are the base method: the weight of `composed` is 1, all others are 0.

    Parameters
    ----------
    alpha_image : float, default=1.0
        The strength of the prompt on the image side. Any finite number; the paper sweeps −0.5 to 2.
    alpha_text : float, default=1.0
        The strength of the prompt on the text side. Any finite number.
    beta : float, default=1.0
        The balance from 0 (image side) to 1 (text side).

    Raises
    ------
    OptionError
        A parameter is not a finite number, or beta is outside [0, 1].

    Source
    ------
    arXiv 2502.07215

    Examples
    --------
    >>> from mmretrieve import PDV
    >>> PDV(beta=0.5).weights
    (0.5, -0.5, 1.0)
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
        """The second coordinate of the plane: the weight of `composed`. If both alphas are equal, exactly that number."""
        if self.alpha_image == self.alpha_text:
            return self.alpha_text
        return (1 - self.beta) * self.alpha_image + self.beta * self.alpha_text

    @property
    def weights(self) -> tuple[float, float, float]:
        """The weights of (image, text, composed)."""
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
"""The published PDV parameters by the method that made the terms; for CIRR and CIRCO if no benchmark is named.

base, large and giant are ViT-B/32, ViT-L/14 and ViT-bigG/14. Source: arXiv 2502.07215.
"""


@checks_keywords
def pdv_weights(*, alpha_image: float = 1.0, alpha_text: float = 1.0, beta: float = 1.0) -> tuple[float, float, float]:
    """The weights of PDV-F for the terms image, text and composed.

    Parameters
    ----------
    alpha_image, alpha_text : float, default=1.0
        The strength of the prompt on the image side and on the text side. Any finite numbers.
    beta : float, default=1.0
        The balance from 0 (image side) to 1 (text side).

    Returns
    -------
    tuple of (float, float, float)
        (w_image, w_text, w_composed), which sum to 1.

    Raises
    ------
    OptionError
        A parameter is not a finite number, or beta is outside [0, 1].

    Source
    ------
    arXiv 2502.07215

    Examples
    --------
    >>> from mmretrieve import pdv_weights
    >>> pdv_weights(beta=0.5)
    (0.5, -0.5, 1.0)
    """
    return PDV(alpha_image=alpha_image, alpha_text=alpha_text, beta=beta).weights


def plane_weights(beta: float, gamma: float) -> tuple[float, float, float]:
    """The weights of (image, text, composed) at a point of the plane: (1 − beta, beta − gamma, gamma)."""
    return (1 - beta, beta - gamma, gamma)


@checks_keywords
def pdv(
    image: ArrayLike,
    text: ArrayLike,
    composed: ArrayLike,
    *,
    alpha_image: float = 1.0,
    alpha_text: float = 1.0,
    beta: float = 1.0,
) -> Float32:
    """The query vectors of PDV-F.

    The inputs are normalized first, the result is normalized again.

    Parameters
    ----------
    image, text, composed : array-like of shape (n, d)
        The vectors of the reference images, of their captions, and of the captions with the prompt applied. Rows of any
        length except 0.
    alpha_image, alpha_text : float, default=1.0
        The strength of the prompt on the image side and on the text side. Any finite numbers.
    beta : float, default=1.0
        The balance from 0 (image side) to 1 (text side).

    Returns
    -------
    ndarray of shape (n, d), float32
        Unit rows.

    Raises
    ------
    VectorError
        The shapes differ, a row is zero, a value is not finite, or a weighted sum is zero.
    OptionError
        An alpha is not a finite number, or beta is outside [0, 1].

    Source
    ------
    arXiv 2502.07215

    Examples
    --------
    >>> from mmretrieve import pdv
    >>> pdv([[1, 0]], [[0, 1]], [[0, 1]], beta=0.0)  # the prompt adds nothing: the image remains
    array([[1., 0.]], dtype=float32)
    """
    weights = pdv_weights(alpha_image=alpha_image, alpha_text=alpha_text, beta=beta)
    terms = _same_shape(image, text, composed)
    return unit(sum(w * t.astype(np.float64) for w, t in zip(weights, terms, strict=True)), "the PDV sum")


def automatic_alpha_image(image: ArrayLike, text: ArrayLike, composed: ArrayLike) -> NDArray[np.float64]:
    """The alpha_image of each query with which PDV-I is closest to `composed`: delta · (composed − image) / ‖delta‖².

    Parameters
    ----------
    image, text, composed : array-like of shape (n, d)
        As in `pdv`. Rows of any length except 0.

    Returns
    -------
    ndarray of shape (n,), float64

    Raises
    ------
    VectorError
        The shapes differ, a row is zero, a value is not finite, or `composed` equals `text` (delta is zero).

    Source
    ------
    Least squares on PDV-I of arXiv 2502.07215

    Examples
    --------
    >>> from mmretrieve import automatic_alpha_image
    >>> automatic_alpha_image([[1, 0]], [[0, -1]], [[0, 1]])  # delta is (0, 2), composed − image is (−1, 1)
    array([0.5])
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
        raise VectorError(f"image, text and composed must have the same shape, got {[row.shape for row in rows]}")
    return rows
