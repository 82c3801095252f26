"""A judge that needs no model beside the encoder: the phrases of each role, looked for in the patches of each candidate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from mmretrieve.composers.factory import ComposerContext
from mmretrieve.composers.roles import ROLE_WEIGHTS
from mmretrieve.concurrency import LruCache
from mmretrieve.encoders.base import Encoder, EncoderIdentity, PatchEncoder, check_supports
from mmretrieve.errors import OptionError
from mmretrieve.judges.words import WordReader
from mmretrieve.language.base import Roles
from mmretrieve.language.llm.cache import picture_key
from mmretrieve.language.vocabulary import Vocabulary, default_vocabulary
from mmretrieve.options import JudgeName, Modality
from mmretrieve.vectors import Float32

DEFAULT_TAU = 0.02
LOGIT_SCALE = (
    10.0  # of 1, 2, 5, 10, 20 and 40 the largest that loses no R@1, on the half of the queries that `eval judges` leaves out
)
SIGNS = {"desired": 1, "preserve": 1, "forbidden": -1}
MAX_CACHED_IMAGES = 512  # 64 MB of 64 patches and 512 dimensions


def local_score(patches: Float32, terms: Float32, tau: float = DEFAULT_TAU) -> NDArray[np.float64]:
    """How well each term matches the patches of one image: Σ_j softmax_j(s_j / tau) · s_j over its scores s_j with the patches.

    Parameters
    ----------
    patches : ndarray of shape (p, d)
        The vectors of p >= 1 patches.
    terms : ndarray of shape (t, d)
        The vectors of t terms.
    tau : float, default=0.02
        From 0, which gives the score of the best patch (MaxSim), to infinity, which gives the mean score.

    Returns
    -------
    ndarray of shape (t,), float64
        The scores; larger is better.

    Raises
    ------
    OptionError
        `tau` is negative or NaN.

    Source
    ------
    MulVec (arXiv 2608.25305): the local score of a role is the mean over its terms.

    Examples
    --------
    >>> patches, terms = np.eye(2, dtype=np.float32), np.array([[0.6, 0.8]], dtype=np.float32)
    >>> [round(float(local_score(patches, terms, tau)[0]), 2) for tau in (0.0, 0.1, np.inf)]
    [0.8, 0.78, 0.7]
    """
    if not tau >= 0:
        raise OptionError(f"tau must be a number of at least 0, got {tau!r}")
    scores_tp = np.einsum("td,pd->tp", terms.astype(np.float64), patches.astype(np.float64))
    if tau == 0:
        return np.asarray(scores_tp.max(axis=1))
    powers_tp = np.exp((scores_tp - scores_tp.max(axis=1, keepdims=True)) / tau)
    return np.asarray((powers_tp * scores_tp).sum(axis=1) / powers_tp.sum(axis=1))


@dataclass(frozen=True)
class LocalJudge:
    """Looks for what a query asks for in the patches of each candidate, where one vector of the whole image loses small things.

    The reference is tagged, and the prompt is applied to its caption. Desired are the phrases that the prompt asks for; to be preserved are
    those that it keeps, and the words of the caption that it leaves; forbidden are those that it excludes, and the words that it replaces.
    The score of a candidate is ``θ_D · L(desired) + θ_P · L(preserve) − θ_F · L(forbidden)``, where L is the mean of `local_score`. The weights
    are those of the composer "roles", without roles that have no phrase. The terms of the whole image are left to the first stage.

    Parameters
    ----------
    encoder : Encoder
        Encodes phrases and references; also a `PatchEncoder`, for candidates.
    vocabulary : Vocabulary
        The words of captions.
    tau : float, default=0.02
        The temperature of `local_score`.

    Raises
    ------
    OptionError
        The encoder does not encode patches.

    Source
    ------
    MulVec (arXiv 2608.25305).

    Examples
    --------
    >>> import mmretrieve as mm
    >>> from mmretrieve.images import open_image
    >>> encoder = mm.load_encoder("wardrobe")
    >>> judge = LocalJudge(encoder, default_vocabulary(encoder))
    >>> names = ["teal-striped-shirt-1728.png", "red-checked-dress-1815.png"]
    >>> pictures = [{"image": open_image(mm.wardrobe.pictures_folder() / name)} for name in names]
    >>> shirt, dress = (answer["score"] for answer in judge.rank({"text": "a red dress"}, pictures))
    >>> shirt < dress
    True
    """

    encoder: Encoder
    vocabulary: Vocabulary
    tau: float = DEFAULT_TAU
    _patches: LruCache[Float32] = field(default_factory=lambda: LruCache(MAX_CACHED_IMAGES), repr=False, compare=False)

    def __post_init__(self) -> None:
        check_supports(self.encoder, Modality.PATCHES, f"the judge {str(JudgeName.LOCAL)!r}")

    @classmethod
    def of(cls, context: ComposerContext) -> LocalJudge:
        """The judge for the encoder and the vocabulary of a retriever."""
        encoder = context.encoder
        return cls(encoder, context.parts.vocabulary or default_vocabulary(encoder))

    def rank(self, query: Mapping[str, Any], documents: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Scores documents as `Judge.rank` says. Without any phrase, all scores are 0."""
        weighted = _weighted_phrases(self._roles(query))
        terms = self.encoder.encode_texts([phrase for phrase, _ in weighted])
        weights = LOGIT_SCALE * np.array([weight for _, weight in weighted])
        patches = self._patches_of(documents)
        return [{"corpus_id": i, "score": float(local_score(one, terms, self.tau) @ weights)} for i, one in enumerate(patches)]

    @property
    def patch_encoder(self) -> EncoderIdentity:
        """The encoder whose patches a document may have in place of an image."""
        return self.encoder.identity

    def _patches_of(self, documents: Sequence[Mapping[str, Any]]) -> list[Float32]:
        encoded = iter(self._encode([document["image"] for document in documents if "patches" not in document]))
        return [document["patches"] if "patches" in document else next(encoded) for document in documents]

    def _roles(self, query: Mapping[str, Any]) -> Roles:
        """The phrases of the prompt, and the words of the reference that it leaves or replaces."""
        asked, words = self._reader.rewriter.compiler.roles(query.get("text", "")), self._reader.read(query)
        kept = {name for name, word in words.reference.items() if words.desired.get(name) == word}
        left, replaced = (
            tuple(word for name, word in words.reference.items() if (name in kept) is is_kept) for is_kept in (True, False)
        )
        return Roles(desired=asked.desired, preserve=asked.preserve + left, forbidden=asked.forbidden + replaced)

    def _encode(self, images: Sequence[Any]) -> list[Float32]:
        """The (p, d) patches of each image. Those of the last MAX_CACHED_IMAGES images are remembered by their pixels."""
        keys, encoder = list(map(picture_key, images)), cast(PatchEncoder, self.encoder)
        by_key = dict(zip(keys, images, strict=True))
        return self._patches.get_all(keys, lambda missing: list(encoder.encode_patches([by_key[key] for key in missing])))

    @cached_property
    def _reader(self) -> WordReader:
        return WordReader(self.encoder, self.vocabulary)


def _weighted_phrases(roles: Roles) -> list[tuple[str, float]]:
    """The phrases of all roles, and the weight of each. The absolute weights sum to 1."""
    phrases = {role: getattr(roles, role) for role in SIGNS if getattr(roles, role)}
    scale = 1 / sum(ROLE_WEIGHTS[role] for role in phrases) if phrases else 1.0
    return [(phrase, SIGNS[role] * scale * ROLE_WEIGHTS[role] / len(own)) for role, own in phrases.items() for phrase in own]
