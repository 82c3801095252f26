"""What the page does, without the page: plain functions over a retriever, tested without a browser."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

import numpy as np
from numpy.typing import NDArray

from mmretrieve import PDV, Composition, MMRetrieveError, Ranking, Retriever

SHOWN = 24
LOW_ALPHA, HIGH_ALPHA = -0.5, 2.0  # the range that the PDV paper sweeps


@dataclass(frozen=True)
class Search:
    """A query whose terms are scored: everything a slider needs. `reference_id` is set where it came from the gallery."""

    composition: Composition
    scores: NDArray[np.float32]
    reference_id: str | None = None


@dataclass(frozen=True)
class Card:
    """One result as the page shows it. `position` is the item's place in the gallery, which names its thumbnail."""

    position: int
    name: str
    rank: int | None = None
    score: float | None = None
    gave: tuple[tuple[str, float], ...] = ()


class Shop:
    """One gallery behind the page."""

    def __init__(self, retriever: Retriever) -> None:
        self.retriever = retriever
        self._position = {id_: i for i, id_ in enumerate(retriever.gallery.ids)}

    @property
    def setting(self) -> PDV:
        """Where the sliders start."""
        return self.retriever.gallery.setting or PDV()

    def thumbnail(self, position: int) -> bytes:
        """JPEG bytes of the item at that place. MMRetrieveError where there is none."""
        return self.retriever.gallery.thumbnail(self.id_at(position))

    def id_at(self, position: int) -> str:
        ids = self.retriever.gallery.ids
        if not 0 <= position < len(ids):
            raise MMRetrieveError(f"no item number {position} in this gallery of {len(ids)}")
        return ids[position]

    def window(self, seed: int) -> list[Card]:
        """A handful of items to start from, the same for the same seed."""
        ids = self.retriever.gallery.ids
        return [Card(i, ids[i]) for i in Random(seed).sample(range(len(ids)), min(SHOWN, len(ids)))]

    def begin(self, image: str | None, position: int | None, prompt: str | None, caption: str | None) -> Search:
        """Encodes a query and scores its terms over the whole gallery; sliders only fold what is in the result.

        `position` is a reference from the gallery and comes before `image`, a file. Empty words count as unsaid.
        """
        words = (prompt or "").strip() or None
        reference_id = None if position is None else self.id_at(position)
        composition = self.retriever.compose(
            image if reference_id is None else None,
            words,
            reference_id=reference_id,
            caption=((caption or "").strip() or None) if words else None,
        )
        return Search(composition, self.retriever.gallery.term_scores(composition), reference_id)

    def rank(self, search: Search, alpha_image: float, alpha_text: float, beta: float) -> Ranking:
        """The ranking under these knobs, from the scores that exist. The reference itself is not among its own results."""
        composition = search.composition
        if composition.takes_pdv:
            composition = composition.with_pdv(PDV(alpha_image=alpha_image, alpha_text=alpha_text, beta=beta))
        exclude = [search.reference_id] if search.reference_id is not None else []
        return self.retriever.gallery.rank(composition, search.scores, SHOWN, exclude=exclude)

    def cards(self, ranking: Ranking) -> list[Card]:
        """The hits of a ranking, each with what the weighted terms gave."""
        weighed = [name for name, weight in ranking.weights.items() if weight]
        return [
            Card(
                self._position[hit.id], hit.id, hit.rank, hit.score, tuple((name, hit.contributions[name]) for name in weighed)
            )
            for hit in ranking
        ]
