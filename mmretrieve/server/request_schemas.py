"""A question as it comes over a wire: the words of `Retriever.search`, and pictures as text. Bounds here, sense in `question`."""

from __future__ import annotations

import json
from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError

from mmretrieve.errors import OptionError
from mmretrieve.filters import Expression, columns, read_filter, to_dict
from mmretrieve.filters.expression import MAX_LENGTH, folded
from mmretrieve.options import AUTO, BALANCED, BASE, DEFAULT_K, ComposerName, RuleName
from mmretrieve.server import limits

FILTER_ERROR: Final = "filter"  # the kind of an error that already quotes the filter
PRIVATE_COLUMNS = frozenset(["path", "source", "stamp"])
"""Columns that say where files lie: a client that filters by them finds out, guess by guess."""


def _several(value: Any) -> Any:
    """One thing as a list of it; nothing as an empty one."""
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def _regions(value: Any) -> Any:
    one = isinstance(value, list) and len(value) == 4 and not any(isinstance(side, list) for side in value)
    return [value] if one and any(side is not None for side in value) else _several(value)


Number = Annotated[float, Field(allow_inf_nan=False, ge=-limits.WEIGHT, le=limits.WEIGHT)]
Share = Annotated[float, Field(ge=0, le=1)]
Said = Annotated[str, Field(max_length=limits.PROMPT_CHARACTERS)]
Id = Annotated[str, Field(min_length=1, max_length=4_096)]
Region = Annotated[list[Share], Field(min_length=4, max_length=4)]

ManyPictures = Annotated[list[str], Field(max_length=limits.REFERENCES)]
ManyIds = Annotated[list[Id], Field(max_length=limits.IDS)]
FewIds = Annotated[list[Id], Field(max_length=limits.REFERENCES)]
ManyRegions = Annotated[list[Region | None], Field(max_length=limits.REFERENCES)]
ManySaid = Annotated[list[Said], Field(max_length=limits.PROMPTS)]
ManyNumbers = Annotated[list[Number], Field(max_length=limits.PROMPTS)]

Pictures = Annotated[ManyPictures, BeforeValidator(_several, str | ManyPictures | None)]
Ids = Annotated[ManyIds, BeforeValidator(_several, Id | ManyIds | None)]
References = Annotated[FewIds, BeforeValidator(_several, Id | FewIds | None)]
Regions = Annotated[ManyRegions, BeforeValidator(_regions, Region | ManyRegions | None)]
Prompts = Annotated[ManySaid, BeforeValidator(_several, Said | ManySaid | None)]
Numbers = Annotated[ManyNumbers, BeforeValidator(_several, Number | ManyNumbers | None)]


def check_public(name: str) -> str:
    """The name of a column that a client may filter by."""
    if folded(name) in PRIVATE_COLUMNS:
        raise PydanticCustomError("private_column", f"{name} tells where files lie, which a client may not ask")
    return name


def read_public_filter(where: Any) -> Expression:
    """The filter of a client: SQL, or the structure of `mmretrieve.filters.to_dict`, which may be JSON text too."""
    try:
        is_structure = isinstance(where, str) and where.lstrip().startswith("{")
        expression: Expression = read_filter(json.loads(where) if is_structure else where)
    except (OptionError, json.JSONDecodeError, RecursionError) as error:
        raise PydanticCustomError(
            FILTER_ERROR, "{reason}", {"reason": str(error).removeprefix("where").removeprefix(":").lstrip()}
        ) from None
    for column in sorted(columns(expression), key=lambda column: column.name):
        check_public(column.name)
    return expression


FILTER_SCHEMA = {
    "anyOf": [
        {"type": "string", "maxLength": MAX_LENGTH},
        {"type": "object", "additionalProperties": True, "required": ["type"]},
    ]
}
PublicFilterText = Annotated[str, Field(max_length=MAX_LENGTH), AfterValidator(read_public_filter)]
PublicFilter = Annotated[
    Expression, BeforeValidator(read_public_filter), PlainSerializer(to_dict), WithJsonSchema(FILTER_SCHEMA)
]


class SearchBody(BaseModel):
    """A composed query: references (images first, then uploads, then items), what should be different, and how it is weighed.

    What may be one or several is a value or a list of values. Everything means what it means in `Retriever.search`.
    """

    model_config = ConfigDict(extra="forbid", use_enum_values=False)

    image: Pictures = Field(default=[], description="reference pictures as base64, bare or as data: addresses")
    upload: Pictures = Field(default=[], description="reference pictures by the names that POST /api/uploads gave them")
    reference_id: References = Field(default=[], description="items as references")
    region: Regions = Field(
        default=[],
        description="of each reference the part that counts: left, top, right, bottom in shares of its sides, or null",
    )
    image_weight: Numbers = Field(default=[], description="how much each reference counts (1)")
    prompt: Prompts = Field(default=[], description="what should be different, such as 'in red'")
    strength: Numbers = Field(default=[], description="how far to go along each prompt (1; below 0, the other way)")
    avoid: Prompts = Field(default=[], description="what should not show")
    caption: Prompts = Field(
        default=[],
        description="each reference said in words (default: by the fields of the item or of similar ones, or by the tagger)",
    )
    more_like: Ids = Field(default=[], description="items to be near to")
    less_like: Ids = Field(default=[], description="items to be far from")
    composer: ComposerName | None = Field(default=None, description="the method (captions, where there are both)")
    rule: RuleName | None = Field(default=None, description="how term scores become one (the composer's own)")
    alpha_image: Number | Literal["auto"] | None = Field(default=None, description="how far the prompt moves the image")
    alpha_text: Number | None = Field(default=None, description="how far the prompt moves the words")
    beta: Share | None = Field(default=None, description="0 follows the image, 1 the words")
    weights: dict[str, Number] | Literal["auto", "base", "balanced"] | None = Field(
        default=None,
        description=(
            f"{AUTO!r} (the default: chosen for this query), {BASE!r} (the method's own), {BALANCED!r}, or of each role, such as "
            "{'image': 1, 'prompt': 2}; instead of alpha and beta"
        ),
    )
    k: int = Field(default=DEFAULT_K, ge=1, le=limits.K, description="how many items")
    min_score: Number | None = Field(
        default=None,
        description="leave out items that score below: under automatic weights in standard deviations above the average item",
    )
    where: PublicFilter | None = Field(
        default=None, description="an SQL expression over the items' fields (price < 20), or its structure"
    )
    exclude: Ids = Field(default=[], description="items that must not appear")
    exclude_reference: bool = Field(default=False, description="the references themselves must not appear")

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        for what, most, parts in (
            ("references", limits.REFERENCES, (self.image, self.upload, self.reference_id)),
            ("prompts", limits.PROMPTS, (self.prompt, self.avoid)),
        ):
            if (count := sum(map(len, parts))) > most:
                raise PydanticCustomError("too_long", f"{count} {what}; a question takes up to {most}")
        return self

    @property
    def question(self) -> dict[str, Any]:
        """What `Retriever.compose` takes beside images and prompts, and nothing that was not said."""
        return self._said("reference_id", "region", "image_weight", "strength", "avoid", "caption", "more_like", "less_like", "composer", "rule")  # fmt: skip

    @property
    def weighing(self) -> dict[str, Any]:
        """What `Retriever.weigh` takes."""
        return self._said("alpha_image", "alpha_text", "beta", "weights")

    @property
    def cut(self) -> dict[str, Any]:
        """What ends the ranking: k, and what must not appear."""
        return {"k": self.k} | self._said("min_score", "where", "exclude")

    def _said(self, *names: str) -> dict[str, Any]:
        return {name: value for name in names if (value := getattr(self, name)) not in (None, [])}
