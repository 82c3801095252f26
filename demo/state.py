"""What the page sends and what it gets: a `PageRequest` holds everything that a link must bring back."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from demo.filters import FieldFilter
from mmretrieve import Composition, Ranking, Term, pdv_weights
from mmretrieve.composition import Caption
from mmretrieve.server.schemas import Number, SearchBody
from mmretrieve.weighting import AVOID

DEFAULT_SHOWN, MAX_SHOWN = 24, 240
MIN_WEIGHT_SUM = 1e-6  # a smaller sum of weights counts as 0


class WeightControls(BaseModel):
    """A point of the PDV plane by its three knobs, how much the prompt counts by itself, and each phrase to avoid.

    The defaults are the base method. Without `avoid`, phrases to avoid keep their base weights.
    """

    model_config = ConfigDict(extra="forbid")

    alpha_image: Number = 1.0
    alpha_text: Number = 1.0
    beta: Annotated[float, Field(ge=0, le=1)] = 1.0
    prompt: Number = 0.0
    avoid: Number | None = None

    @classmethod
    def of(cls, composition: Composition) -> WeightControls | None:
        """The controls that rank as the weights of a composition do: the same point of the plane, scaled to sum to 1.

        Nothing is rounded. None if the weights are no point of the plane: a term is missing, or those of image, text and composed
        cancel.
        """
        if not composition.supports_pdv:
            return None
        whole = sum(sum(_weights_of(composition, role)) for role in (Term.IMAGE, Term.TEXT, Term.COMPOSED))
        image, composed, prompt, avoid = (
            _role_weight(composition, role) for role in (Term.IMAGE, Term.COMPOSED, Term.PROMPT, AVOID)
        )
        if whole <= MIN_WEIGHT_SUM or image is None or composed is None:
            return None
        gamma, beta = composed / whole, min(1.0, max(0.0, 1 - image / whole))
        avoided = None if avoid is None else avoid / whole
        return cls(alpha_image=gamma, alpha_text=gamma, beta=beta, prompt=(prompt or 0.0) / whole, avoid=avoided)

    @property
    def weights(self) -> dict[str, float]:
        """Of each role that the knobs weigh."""
        three = pdv_weights(alpha_image=self.alpha_image, alpha_text=self.alpha_text, beta=self.beta)
        weights = {str(role): weight for role, weight in zip(Term, (*three, self.prompt), strict=True)}
        return weights if self.avoid is None else weights | {AVOID: self.avoid}


def _weights_of(composition: Composition, role: str) -> list[float]:
    """The weights of the terms of a role."""
    return [weight for of, weight in zip(composition.roles, composition.weights, strict=True) if of == role]


def _role_weight(composition: Composition, role: str) -> float | None:
    """The weight of a role, which its terms share; None where it has no terms, or they carry nothing."""
    shares = sum(composition.share(name) for name, of in zip(composition.names, composition.roles, strict=True) if of == role)
    return sum(_weights_of(composition, role)) / shares if abs(shares) > MIN_WEIGHT_SUM else None


Setting = WeightControls | Literal["auto"]
"""How a query is weighted: by these controls, or as `Retriever.search` weighs it, automatically unless the request names weights."""


class PageRequest(BaseModel):
    """A search request, how it is weighted, filters, and how many results are shown; `beside` is the setting of a second column."""

    model_config = ConfigDict(extra="forbid")

    ask: SearchBody = Field(default_factory=SearchBody)
    knobs: Setting = "auto"
    beside: Setting | None = None
    filters: list[FieldFilter] = Field(default_factory=list, max_length=50)
    shown: int = Field(default=DEFAULT_SHOWN, ge=1, le=MAX_SHOWN)
    seed: int = 0


class Card(BaseModel):
    """One item as the page shows it. `copies` are items so near to it that they lie under it; `weak` ones come after the divider."""

    id: str
    name: str
    rank: int | None = None
    score: float | None = None
    gave: dict[str, float] = Field(default_factory=dict)
    fields: dict[str, Any] = Field(default_factory=dict)
    copies: list[str] = Field(default_factory=list)
    weak: bool = False


class ResultColumn(BaseModel):
    """A ranking as cards, and what to say of it.

    `weights` are of each term, `hidden` counts items by what hid them. `why` says in one line what was chosen automatically,
    and `knobs` are those nearest to the weights, None where they are no point of the plane.
    """

    cards: list[Card]
    weights: dict[str, float] = Field(default_factory=dict)
    hidden: dict[str, int] = Field(default_factory=dict)
    searched: int = 0
    note: str | None = None
    why: str | None = None
    knobs: WeightControls | None = None
    answerable: float | None = None
    has_match: bool = True


class PageView(BaseModel):
    """What the page shows. `words` are the texts behind the terms; `tunable` says whether the controls apply to this query.

    `caption_source` and `caption_trust` say where the caption of the first reference comes from, and how reliable it is, if known.
    """

    now: ResultColumn
    beside: ResultColumn | None = None
    words: dict[str, str] = Field(default_factory=dict)
    caption_source: str | None = None
    caption_trust: float | None = None
    tunable: bool = False
    total: int = 0
    seconds: float = 0.0


def caption_origin(composition: Composition) -> dict[str, Any]:
    """Source and trust of the caption of the first reference, as a `PageView` has them."""
    caption = composition.words.get(Term.TEXT)
    if not isinstance(caption, Caption):
        return {}
    return {"caption_source": caption.source, "caption_trust": caption.trust}


def column(ranking: Ranking, cards: list[Card], knobs: WeightControls | None) -> ResultColumn:
    return ResultColumn(
        cards=cards,
        weights=dict(ranking.weights),
        hidden=dict(ranking.hidden),
        searched=ranking.searched,
        note=ranking.note,
        why=ranking.why,
        knobs=knobs,
        answerable=ranking.answerable,
        has_match=ranking.has_match,
    )
