"""What the page sends and receives. A `PageRequest` is a search request and the state of the page; a link restores all of it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, Field

from mmretrieve import PDV, Composition, Ranking, Term, pdv_weights
from mmretrieve.composition import Caption
from mmretrieve.filters import Expression
from mmretrieve.filters.expression import Column, Operation
from mmretrieve.filters.expression import Literal as LiteralValue
from mmretrieve.request import REQUEST_FIELDS, SearchRequest
from mmretrieve.server import limits
from mmretrieve.server.errors import validate
from mmretrieve.server.schemas import (
    NAME_CHARACTERS,
    Number,
    RankingResponse,
    SearchBody,
    SessionRequest,
    Share,
    StrictModel,
    TurnBody,
    check_public,
)
from mmretrieve.server.uploads import Uploads
from mmretrieve.session import DEFAULT_DECAY
from mmretrieve.weighting import AVOID, STANDARD_TERMS

MAX_FILTERS, MAX_FILTER_VALUES = 50, 200
MIN_WEIGHT_SUM = 1e-6  # a smaller sum of weights counts as 0
BASE_METHOD = PDV()


class FieldFilter(StrictModel):
    """A condition on one field: one of several texts, or a range of numbers in which either bound may be missing."""

    field: Annotated[str, AfterValidator(check_public)] = Field(max_length=NAME_CHARACTERS)
    any_of: list[str] = Field(default_factory=list, max_length=MAX_FILTER_VALUES)
    at_least: float | None = Field(default=None, allow_inf_nan=False)
    at_most: float | None = Field(default=None, allow_inf_nan=False)

    @property
    def conditions(self) -> Iterable[Expression]:
        field = Column(self.field, "fields")
        if self.any_of:
            yield Operation("in", (field, *map(LiteralValue, self.any_of)))
        if self.at_least is not None:
            yield Operation(">=", (field, LiteralValue(self.at_least)))
        if self.at_most is not None:
            yield Operation("<=", (field, LiteralValue(self.at_most)))


def combine_filters(filters: Iterable[FieldFilter], where: Expression | None = None) -> Expression | None:
    """All filters and `where` as one expression; None if there are none."""
    conditions = [condition for one in filters for condition in one.conditions] + ([where] if where else [])
    return Operation("and", tuple(conditions)) if len(conditions) > 1 else next(iter(conditions), None)


def _pdv_help(name: str) -> str:
    """The help text of a PDV parameter, as `SearchRequest` declares it."""
    return REQUEST_FIELDS[name].help.removeprefix("PDV: ")


class WeightControls(StrictModel):
    """The weight controls of the page: the three parameters of PDV, the weight of the prompt, and that of each phrase to avoid.

    The defaults are the base method. Without `avoid`, phrases to avoid keep their base weights.
    """

    alpha_image: Number = Field(default=BASE_METHOD.alpha_image, description=_pdv_help("alpha_image"))
    alpha_text: Number = Field(default=BASE_METHOD.alpha_text, description=_pdv_help("alpha_text"))
    beta: float = Field(
        default=BASE_METHOD.beta, ge=REQUEST_FIELDS["beta"].low, le=REQUEST_FIELDS["beta"].high, description=_pdv_help("beta")
    )
    prompt: Number = Field(default=0.0, description="the weight of the prompt by itself")
    avoid: Number | None = Field(default=None, description="the weight of each phrase to avoid")

    @classmethod
    def of(cls, composition: Composition) -> WeightControls | None:
        """The controls that rank as the weights of a composition do: the same point of the plane, scaled to sum to 1.

        Nothing is rounded. None if the weights are not a point of the plane: a term is missing, or the weights of image, text and
        composed cancel.
        """
        if not composition.supports_pdv:
            return None
        total = sum(sum(_weights_of(composition, role)) for role in (Term.IMAGE, Term.TEXT, Term.COMPOSED))
        image, composed, prompt, avoid = (
            _role_weight(composition, role) for role in (Term.IMAGE, Term.COMPOSED, Term.PROMPT, AVOID)
        )
        if total <= MIN_WEIGHT_SUM or image is None or composed is None:
            return None
        gamma, beta = composed / total, min(1.0, max(0.0, 1 - image / total))
        scaled_avoid = None if avoid is None else avoid / total
        return cls(alpha_image=gamma, alpha_text=gamma, beta=beta, prompt=(prompt or 0.0) / total, avoid=scaled_avoid)

    @property
    def weights(self) -> dict[str, float]:
        """The weight of each role that the controls set."""
        pdv = pdv_weights(alpha_image=self.alpha_image, alpha_text=self.alpha_text, beta=self.beta)
        weights = {str(role): weight for role, weight in zip(STANDARD_TERMS, (*pdv, self.prompt), strict=True)}
        return weights if self.avoid is None else weights | {AVOID: self.avoid}


def _weights_of(composition: Composition, role: str) -> list[float]:
    """The weights of the terms of a role."""
    return [weight for of, weight in zip(composition.roles, composition.weights, strict=True) if of == role]


def _role_weight(composition: Composition, role: str) -> float | None:
    """The weight that the terms of a role share; None if the role has no terms, or their shares cancel."""
    shares = sum(composition.share(name) for name, of in zip(composition.names, composition.roles, strict=True) if of == role)
    return sum(_weights_of(composition, role)) / shares if abs(shares) > MIN_WEIGHT_SUM else None


Setting = WeightControls | Literal["auto"]
"""The weights of one column: those of the controls, or those of the request, which are automatic unless it names others."""


class PageRequest(SearchBody):
    """A search request with the state of the page: earlier turns, weight controls, a setting to compare with, filters by field.

    The request is the last turn; `turns` are those before it. Without a query the page shows `k` sample items; another seed gives
    other items.
    """

    turns: list[TurnBody] = Field(default_factory=list, max_length=limits.TURNS - 1)
    decay: Share = DEFAULT_DECAY
    controls: Setting = "auto"
    comparison: Setting | None = None
    filters: list[FieldFilter] = Field(default_factory=list, max_length=MAX_FILTERS)
    seed: int = 0

    def to_request(self, uploads: Uploads, **changes: Any) -> SearchRequest:
        """All turns as one request. Raises as `SearchBody.to_request`, and OptionError for turns that cannot be merged."""
        if not self.turns:
            return super().to_request(uploads, **changes)
        last = validate(TurnBody, self.model_dump(include=set(SearchBody.model_fields), exclude_unset=True))
        return SessionRequest(turns=[*self.turns, last], decay=self.decay).to_search().to_request(uploads, **changes)


class Card(BaseModel):
    """One item on the page. `copies` are near-duplicates, which it hides; `weak` items come after the divider."""

    id: str
    title: str
    rank: int | None = None
    score: float | None = None
    contributions: dict[str, float] = Field(default_factory=dict)
    fields: dict[str, Any] = Field(default_factory=dict)
    copies: list[str] = Field(default_factory=list)
    weak: bool = False


class ResultColumn(RankingResponse):
    """A ranking as cards.

    `controls` are those that rank as the weights do, None if the weights are not a point of the PDV plane.
    """

    cards: list[Card]
    controls: WeightControls | None = None

    @classmethod
    def of(cls, ranking: Ranking, cards: list[Card], controls: WeightControls | None = None) -> ResultColumn:
        return cls(**ranking.query, cards=cards, controls=controls)


class PageView(BaseModel):
    """What the page shows.

    `comparison` is the ranking under the second setting. `words` are the texts behind the terms, `adjustable` says whether the weight
    controls apply to the query. `caption_source` and `caption_trust` describe the caption of the first reference, if known.
    """

    results: ResultColumn
    comparison: ResultColumn | None = None
    words: dict[str, str] = Field(default_factory=dict)
    caption_source: str | None = None
    caption_trust: float | None = None
    adjustable: bool = False
    total: int = 0
    seconds: float = 0.0


def caption_origin(composition: Composition) -> dict[str, Any]:
    """The source and trust of the caption of the first reference, as fields of a `PageView`."""
    caption = composition.words.get(Term.TEXT)
    if not isinstance(caption, Caption):
        return {}
    return {"caption_source": caption.source, "caption_trust": caption.trust}
