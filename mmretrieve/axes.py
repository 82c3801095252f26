"""Axes: directions of an encoder's space along which one attribute grows, from words or from examples of both ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mmretrieve.composition import Composition
from mmretrieve.encoders.base import Encoder
from mmretrieve.encoders.checked import encode_texts
from mmretrieve.errors import OptionError, VectorError
from mmretrieve.ranking import Hit, Ranking
from mmretrieve.request import check_text
from mmretrieve.scoring import term_scores, top_k
from mmretrieve.vectors import Float32, as_rows, check_unit
from mmretrieve.weighting import AXIS

TEMPLATES = ("{}", "a photo of something {}")
MORE, LESS = "very {}", "not {}"
MIN_DIFFERENCE = 1e-3  # of the means of two sets of unit vectors; a shorter one has no meaningful direction


@dataclass(frozen=True, eq=False)
class Axis:
    """A direction of an encoder's space along which an attribute grows. `-axis` is the opposite direction.

    Parameters
    ----------
    name : str
        What the high end is, such as "formal".
    direction : ndarray of shape (d,), float32
        A unit vector.

    Raises
    ------
    VectorError
        The direction is not a unit vector.

    Examples
    --------
    >>> import mmretrieve as mm
    >>> retriever = mm.Retriever.open(mm.wardrobe.gallery_folder())
    >>> axis = retriever.axis("with long sleeves", "without sleeves")
    >>> axis.name, axis.direction.shape, (-axis).name
    ('with long sleeves', (128,), 'less with long sleeves')
    """

    name: str
    direction: Float32

    def __post_init__(self) -> None:
        object.__setattr__(self, "direction", check_unit(np.asarray(self.direction)[None], "the direction of an axis")[0])

    def __neg__(self) -> Axis:
        return Axis(f"less {self.name}", -self.direction)

    @classmethod
    def between(cls, name: str, high: Float32, low: Float32) -> Axis:
        """The axis from the mean of one set of vectors to the mean of another.

        Parameters
        ----------
        name : str
            What the high end is.
        high : array-like of shape (n, d)
            Vectors of examples of the high end.
        low : array-like of shape (m, d)
            Vectors of examples of the low end.

        Returns
        -------
        Axis
            Its direction is mean(high) − mean(low), scaled to length 1.

        Raises
        ------
        VectorError
            The shapes are wrong, a value is not finite, or both means are the same.

        Source
        ------
        Linear Spaces of Meanings, arXiv 2302.14383

        Examples
        --------
        >>> from mmretrieve import Axis
        >>> Axis.between("right", [[1, 0]], [[0, 1]]).direction.round(3).tolist()
        [0.7070000171661377, -0.7070000171661377]
        """
        highs = as_rows(high, f"high end of the axis {name!r}")
        lows = as_rows(low, f"low end of the axis {name!r}", dim=highs.shape[1])
        if not len(highs) or not len(lows):
            raise VectorError(f"the axis {name!r} needs an example of each end, got {len(highs)} and {len(lows)}")
        difference = highs.mean(axis=0, dtype=np.float64) - lows.mean(axis=0, dtype=np.float64)
        length = float(np.linalg.norm(difference))
        if length < MIN_DIFFERENCE:
            raise VectorError(
                f"the axis {name!r} has no direction: the encoder sees no difference between its ends; give others"
            )
        return cls(name, (difference / length).astype(np.float32))

    @property
    def composition(self) -> Composition:
        """The query whose scores are inner products with the direction."""
        return Composition((AXIS,), self.direction[None], (1.0,), {AXIS: self.name})


def parse_words(name: str, value: str | Sequence[str]) -> tuple[str, ...]:
    """One text or several as a tuple. Raises OptionError, naming the argument, for anything else."""
    texts = tuple(value) if isinstance(value, list | tuple) else (value,)
    if not texts:
        raise OptionError(f"{name} is an empty list; name what the end of the axis is")
    return tuple(check_text(name, text) for text in texts)


def axis_from_words(encoder: Encoder, words: Sequence[str], opposite: Sequence[str] = ()) -> Axis:
    """The axis between the mean sentences of both ends: from "Y" to "X", or from "not X" to "very X" without an opposite.

    Raises OptionError if the encoder does not distinguish them.

    Source: Linear Spaces of Meanings, arXiv 2302.14383
    """
    high, low = (
        (words, opposite) if opposite else ([MORE.format(word) for word in words], [LESS.format(word) for word in words])
    )
    ends = [[template.format(word) for word in end for template in TEMPLATES] for end in (high, low)]
    rows = encode_texts(encoder, [text for end in ends for text in end])
    try:
        return Axis.between(", ".join(words), rows[: len(ends[0])], rows[len(ends[0]) :])
    except VectorError as error:
        raise OptionError(str(error)) from error


def sort_hits(ranking: Ranking, composition: Composition, vectors: Float32) -> Ranking:
    """The hits of a ranking by their scores under a linear composition of one term; equal scores keep their order.

    vectors: (hits, d), of the hits.
    """
    scores = composition.contributions(term_scores(composition.terms, vectors))[0]
    (term,) = composition.names
    hits = tuple(
        Hit(rank, ranking[i].id, float(scores[i]), {term: float(scores[i])}, ranking[i].path)
        for rank, i in enumerate(top_k(scores, max(1, len(scores))).tolist(), start=1)
    )
    more = {"why": composition.why, "gallery": ranking.gallery}
    return Ranking(hits, ranking.k, ranking.searched, composition.term_weights, composition.words, **more)


def check_axis(value: object, dim: int) -> Axis:
    """The axis. Raises OptionError for anything else, VectorError unless its direction has `dim` numbers."""
    if not isinstance(value, Axis):
        raise OptionError(f"expected an Axis, such as what Retriever.axis returns, got {value!r:.80}")
    if len(value.direction) != dim:
        raise VectorError(
            f"the axis {value.name!r} has {len(value.direction)} numbers, the vectors of the gallery {dim}; "
            "make it with the encoder of the gallery"
        )
    return value
