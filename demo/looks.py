"""What the page asks and what it gets: one look at a gallery. Everything a link must bring back is in a `Look`."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from demo.filters import Filter
from mmretrieve import PDV, Composition, Ranking, Term, pdv_weights
from mmretrieve.errors import OptionError
from mmretrieve.server.asks import Ask

SHOWN, MOST_SHOWN = 24, 240
LEAST = 1e-6  # a smaller sum of weights is none
Number = Annotated[float, Field(allow_inf_nan=False)]


class Knobs(BaseModel):
    """A point of the PDV plane by its three knobs, and how much the prompt counts by itself."""

    model_config = ConfigDict(extra="forbid")

    alpha_image: Number = 1.0
    alpha_text: Number = 1.0
    beta: Annotated[float, Field(ge=0, le=1)] = 1.0
    prompt: Number = 0.0

    @classmethod
    def of(cls, composition: Composition) -> Knobs:
        """Those that give the weights of a composition, but for their size: the knobs' own three sum to 1."""
        image, text, composed, prompt = (
            sum(w for role, w in zip(composition.roles, composition.weights, strict=True) if role == term) for term in Term
        )
        whole = image + text + composed
        if whole <= LEAST:
            raise OptionError("these weights are no point of the plane: those of image, text and composed cancel")
        gamma = round(composed / whole, 2)
        beta = round(min(1.0, max(0.0, 1 - image / whole)), 2)
        return cls(alpha_image=gamma, alpha_text=gamma, beta=beta, prompt=round(prompt / whole, 2))

    @property
    def pdv(self) -> PDV:
        return PDV(alpha_image=self.alpha_image, alpha_text=self.alpha_text, beta=self.beta)

    @property
    def weights(self) -> dict[str, float]:
        """Of each role."""
        three = pdv_weights(alpha_image=self.alpha_image, alpha_text=self.alpha_text, beta=self.beta)
        return {str(role): weight for role, weight in zip(Term, (*three, self.prompt), strict=True)}


class Look(BaseModel):
    """A question, where the knobs stand, what must hold, and how many are shown; `beside` are the knobs of a second column."""

    model_config = ConfigDict(extra="forbid")

    ask: Ask = Field(default_factory=Ask)
    knobs: Knobs = Field(default_factory=Knobs)
    beside: Knobs | None = None
    filters: list[Filter] = Field(default_factory=list, max_length=50)
    shown: int = Field(default=SHOWN, ge=1, le=MOST_SHOWN)
    seed: int = 0

    @property
    def is_empty(self) -> bool:
        """Whether nothing is asked yet."""
        asked = self.ask
        return not any(
            (asked.image, asked.upload, asked.reference_id, asked.prompt, asked.avoid, asked.more_like, asked.less_like)
        )


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


class Column(BaseModel):
    """A ranking as cards, and what to say of it. `weights` are of each term, `hidden` counts items by what hid them."""

    cards: list[Card]
    weights: dict[str, float] = Field(default_factory=dict)
    hidden: dict[str, int] = Field(default_factory=dict)
    searched: int = 0
    note: str | None = None


class View(BaseModel):
    """What a look shows. `words` are what was understood; `tunable` says whether the knobs mean anything to this question."""

    now: Column
    beside: Column | None = None
    words: dict[str, str] = Field(default_factory=dict)
    tunable: bool = False
    total: int = 0
    seconds: float = 0.0


def column(ranking: Ranking, cards: list[Card]) -> Column:
    return Column(
        cards=cards,
        weights=dict(ranking.weights),
        hidden=dict(ranking.hidden),
        searched=ranking.searched,
        note=ranking.note,
    )
