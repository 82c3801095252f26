"""The documented shapes of API and MCP: what a client sends, derived from `SearchRequest`, and what it gets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    StrictBool,
    WithJsonSchema,
    create_model,
    model_validator,
)
from pydantic_core import PydanticCustomError

from mmretrieve.errors import OptionError, unknown
from mmretrieve.filters import Expression, columns, read_filter, to_dict
from mmretrieve.filters.expression import MAX_LENGTH, fold_case
from mmretrieve.filters.sqlite import PRIVATE_COLUMNS
from mmretrieve.gallery.store.records import UNSEEN, FieldType, Item
from mmretrieve.gallery.view import ItemPage
from mmretrieve.options import MAX_NUMBER, NO_MATCH, REGION_SIDES, load_json
from mmretrieve.ranking import Ranking
from mmretrieve.request import DEFAULTS, NAMED_WEIGHTS, REQUEST_FIELDS, FieldKind, RequestField, SearchRequest
from mmretrieve.server import limits
from mmretrieve.server.errors import ErrorResponse, check_json, validate, without_folders
from mmretrieve.server.uploads import Uploads
from mmretrieve.session import DEFAULT_DECAY, merge_turns

ID_CHARACTERS, NAME_CHARACTERS = 4_096, 200
Value = str | int | float | None


def error_of(line: str) -> PydanticCustomError:
    """An error that reaches the client as this line."""
    return PydanticCustomError("wrong", "{line}", {"line": line})


class StrictModel(BaseModel):
    """A model that refuses unknown fields, and suggests the one that was meant."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _check_names(cls, value: Any) -> Any:
        if isinstance(value, dict):
            aliases = (field.validation_alias for field in cls.model_fields.values())
            earlier = {name for alias in aliases if isinstance(alias, AliasChoices) for name in alias.choices}
            for name in value:
                if name not in cls.model_fields and name not in earlier:
                    raise error_of(str(unknown("field", name, cls.model_fields)))
        return value


def check_public(name: str) -> str:
    """The name of a column that a client may filter by: one that could filter by where files are could guess it, bit by bit."""
    if fold_case(name) in PRIVATE_COLUMNS:
        raise error_of(f"{name} tells where files are, which is private; filter by another column")
    return name


def read_public_filter(where: Any) -> Expression:
    """The filter of a client: SQL, or the structure of `mmretrieve.filters.to_dict`, which may be JSON text too."""
    try:
        if is_structure := isinstance(where, str) and where.lstrip().startswith("{"):
            check_json(where)
        expression: Expression = read_filter(load_json(where) if is_structure else where)
    except (OptionError, ValueError, RecursionError) as error:
        raise error_of(str(error)) from None
    for column in sorted(columns(expression), key=lambda column: column.name):
        check_public(column.name)
    return expression


def _check_sides(region: Any) -> Any:
    if isinstance(region, list) and len(region) != REGION_SIDES:
        raise error_of(f"region must have exactly {REGION_SIDES} values: left, top, right and bottom, got {len(region)}")
    return region


def _check_count(weights: Any) -> Any:
    if isinstance(weights, dict) and len(weights) > limits.TERMS:
        raise error_of(f"weights has up to {limits.TERMS} values, got {len(weights):,}")
    return weights


FILTER_SCHEMA = {
    "anyOf": [
        {"type": "string", "maxLength": MAX_LENGTH},
        {"type": "object", "additionalProperties": True, "minProperties": 1},
    ]
}
PublicFilterText = Annotated[str, Field(max_length=MAX_LENGTH), AfterValidator(read_public_filter)]
PublicFilter = Annotated[
    Expression, PlainValidator(read_public_filter), PlainSerializer(to_dict), WithJsonSchema(FILTER_SCHEMA)
]

Id = Annotated[str, Field(min_length=1, max_length=ID_CHARACTERS)]
Text = Annotated[str, Field(max_length=limits.PROMPT_CHARACTERS)]
Share = Annotated[float, Field(strict=True, ge=0, le=1)]
Number = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=-MAX_NUMBER, le=MAX_NUMBER)]
Images = Annotated[list[str], Field(max_length=limits.REFERENCES)]
VALUE_TYPES: dict[FieldKind, Any] = {
    FieldKind.IMAGE: str,
    FieldKind.TEXT: Text,
    FieldKind.ID: Id,
    FieldKind.REGION: Annotated[
        list[Share], Field(min_length=REGION_SIDES, max_length=REGION_SIDES), BeforeValidator(_check_sides)
    ]
    | None,
    FieldKind.NUMBER: Number,
    FieldKind.COMPOSER: Annotated[str, Field(max_length=NAME_CHARACTERS)],
    FieldKind.RULE: Annotated[str, Field(max_length=NAME_CHARACTERS)],
    FieldKind.JUDGE: Annotated[str, Field(max_length=NAME_CHARACTERS)],
    FieldKind.WEIGHTS: Annotated[dict[str, Number], BeforeValidator(_check_count)] | Literal[NAMED_WEIGHTS],
    FieldKind.FILTER: PublicFilter,
    FieldKind.FLAG: StrictBool,
}
MAX_COUNTS = {"k": limits.K, "judge_k": limits.JUDGED}
MAX_VALUES = {FieldKind.TEXT: limits.PROMPTS, FieldKind.NUMBER: limits.PROMPTS, FieldKind.ID: limits.IDS}
WIRE_HELP = {
    "image": ", as base64 text, bare or in a data: URL",
    "where": ', or values by field: {"colour": "red"}, or its structure as JSON',
}


def _as_list(value: Any) -> Any:
    """One value as a list of it; null as an empty list."""
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def _as_regions(value: Any) -> Any:
    """One region as a list of it. A list of null is one of whole images."""
    is_one = isinstance(value, list) and any(side is not None and not isinstance(side, list) for side in value)
    return [value] if is_one else _as_list(value)


def _wire_type(name: str, declared: RequestField) -> Any:
    """The pydantic type of a field, with the bounds of its declaration and of the server."""
    if declared.kind is FieldKind.COUNT:
        return Annotated[int, Field(strict=True, ge=declared.low, le=MAX_COUNTS.get(name, declared.high))]
    if declared.kind is FieldKind.FLAG:
        return StrictBool
    one = VALUE_TYPES[declared.kind]
    if declared.low is not None:
        one = Annotated[float, Field(strict=True, ge=declared.low, le=declared.high)]
    if declared.keyword is not None:
        one = one | Literal[declared.keyword]
    if not declared.several:
        return one if DEFAULTS[name] is not None else one | None
    most = limits.REFERENCES if name == "reference_id" else MAX_VALUES.get(declared.kind, limits.REFERENCES)
    many: Any = Annotated[list[one], Field(max_length=most)]  # type: ignore[valid-type]  # known at run time only
    read = _as_regions if declared.kind is FieldKind.REGION else _as_list
    return Annotated[many, BeforeValidator(read, one | many | None)]


def _wire_field(name: str, declared: RequestField) -> tuple[Any, Any]:
    # a list has no default in the schema: generated clients would send it as text
    default = {"default_factory": list} if declared.several else {"default": DEFAULTS[name]}
    return _wire_type(name, declared), Field(**default, description=declared.help + WIRE_HELP.get(name, ""))


class SearchFields(StrictModel):
    """A composed query: references (images first, then uploads, then items), what should be different, and how it is weighted.

    A field that accepts several values takes one value or a list. The fields are those of `Retriever.search`, and `upload`.
    """

    model_config = ConfigDict(json_schema_extra={"examples": [{"prompt": "in red", "k": 5}]})

    upload: Annotated[Images, BeforeValidator(_as_list, str | Images | None)] = Field(
        default_factory=list, description="reference images by the names that POST /api/uploads gave them"
    )

    @model_validator(mode="after")
    def _check_totals(self) -> Self:
        for what, most, names in (
            ("references", limits.REFERENCES, ("image", "upload", "reference_id")),
            ("prompts", limits.PROMPTS, ("prompt", "avoid")),
        ):
            if (count := sum(len(getattr(self, name)) for name in names)) > most:
                raise error_of(f"{count} {what}; a request takes up to {most}")
        return self

    def to_request(self, uploads: Uploads, **changes: Any) -> SearchRequest:
        """The request, with `changes` in the place of its own values. Images that it brings are stored as uploads.

        Raises OptionError for what contradicts itself, ImageError for an unreadable image, ExpiredError for an unknown upload.
        """
        given = {name: getattr(self, name) for name in REQUEST_FIELDS}
        tokens = [*map(uploads.add_text, given["image"]), *self.upload]
        return SearchRequest.parse(**given | {"image": [uploads.path(token) for token in tokens]} | changes)


if TYPE_CHECKING:
    SearchBody = SearchFields
else:
    wire_fields = {name: _wire_field(name, declared) for name, declared in REQUEST_FIELDS.items()}
    SearchBody = create_model(
        "SearchBody", __base__=SearchFields, __module__=__name__, __doc__=SearchFields.__doc__, **wire_fields
    )


class BatchRequest(StrictModel):
    """Several requests at once. An invalid one gets its own error, so the schema accepts anything in its place."""

    requests: list[Annotated[SearchBody | Any, Field(union_mode="left_to_right")]] = Field(
        min_length=1,
        max_length=limits.BATCH,
        description="the requests",
        validation_alias=AliasChoices("requests", "asks"),  # the earlier name
    )


class TurnBody(SearchBody):
    """One turn of a conversation: what it adds to the turns before it."""

    drop: Annotated[list[str], Field(max_length=len(REQUEST_FIELDS)), BeforeValidator(_as_list, str | list[str] | None)] = (
        Field(default_factory=list, description="fields of earlier turns to forget, such as where or judge")
    )


def _without_nulls(turn: Any) -> Any:
    """A turn without the fields that are null, which it does not name."""
    return {name: value for name, value in turn.items() if value is not None} if isinstance(turn, dict) else turn


class SessionRequest(StrictModel):
    """All turns of a conversation; the server stores none of them. Each adds to those before it.

    Prompts, phrases to avoid, likes and dislikes accumulate; an empty list drops them. References replace earlier ones. Other fields
    have the value of the last turn that names them; `drop` forgets them.
    """

    model_config = ConfigDict(json_schema_extra={"examples": [{"turns": [{"prompt": "a red dress"}, {"prompt": "with dots"}]}]})

    turns: list[Annotated[TurnBody, BeforeValidator(_without_nulls)]] = Field(
        min_length=1, max_length=limits.TURNS, description="what each turn asks for, oldest first"
    )
    decay: Share = Field(
        default=DEFAULT_DECAY,
        description="how much of the strength of its prompts a turn keeps with each further turn; 0 follows the last turn only",
    )

    def to_search(self) -> SearchBody:
        """The turns as one search. Raises OptionError if it asks for too much, or its fields contradict each other."""
        return validate(SearchBody, merge_turns([turn.model_dump(exclude_unset=True) for turn in self.turns], self.decay))


class HitResponse(BaseModel):
    """One item of a ranking; its contributions sum to its score. The path of `Hit` stays on the server."""

    rank: int = Field(description="from 1")
    id: str = Field(description="id of the item")
    title: str = Field(description="what to call the item: the value of its title field, or its id as readable words")
    score: float = Field(
        description="higher is better; under automatic weights in standard deviations above the gallery's average item"
    )
    contributions: dict[str, float] = Field(description="weight × term score of each term")
    fields: dict[str, Value] = Field(description="the fields of the item")


class HitsResponse(BaseModel):
    """The hits of a ranking. They come first in a response, because some agents read only its beginning."""

    hits: list[HitResponse] = Field(description="the best items, best first")


def _public(value: Any) -> Any:
    """A value without the folders of this machine."""
    if isinstance(value, str):
        return without_folders(value)
    return {name: _public(one) for name, one in value.items()} if isinstance(value, dict) else value


class RankingResponse(BaseModel):
    """A ranking without its hits: the fields of `Ranking.query`."""

    k: int = Field(description="the number of hits that was requested")
    searched: int = Field(description="items that could appear")
    hidden: dict[str, int] = Field(description="items that could not, by what hid them")
    weights: dict[str, float] = Field(description="of each term")
    words: dict[str, str] = Field(description="the text behind each term that has one")
    rule: str = Field(description="the rule that combined the term scores")
    pool: int | None = Field(description="candidates that were scored, if that was not every item")
    note: Annotated[str | None, AfterValidator(_public)] = Field(
        description="remarks on the result, such as why there are fewer hits than requested"
    )
    caption: str | None = Field(description="the description of the first reference")
    why: str | None = Field(description="which weights were chosen, and why, if they were")
    answerable: float | None = Field(description="how well the gallery fits the query, 0 to 1")
    has_match: bool = Field(
        description=f"whether an item matches the query: there are hits, and answerable is not below {NO_MATCH}"
    )


class SearchResponse(RankingResponse, HitsResponse):  # pydantic puts the fields of the last base first
    """A ranking, and what was chosen for it."""

    asked: int = Field(description="the earlier name of k")
    seconds: float = Field(description="duration of the search, without waiting")

    @classmethod
    def of(cls, ranking: Ranking, titles: list[str], fields: list[Mapping[str, Any]], seconds: float) -> SearchResponse:
        hits = [
            HitResponse(**hit.to_dict(), title=title, fields=dict(of_hit))
            for hit, title, of_hit in zip(ranking, titles, fields, strict=True)
        ]
        return cls(**ranking.query, hits=hits, asked=ranking.k, seconds=seconds)


class BatchResponse(BaseModel):
    """The response to each request of a batch, in their order."""

    answers: list[SearchResponse | ErrorResponse] = Field(description="a ranking, or the error of a wrong request")


class ItemResponse(BaseModel):
    """An item of the gallery."""

    id: str = Field(description="its id")
    hash: str | None = Field(description="hash of the content of its image; null if the image was never read")
    width: int | None = Field(description="of its image, in pixels; null if the image was never read")
    height: int | None = Field(description="of its image, in pixels; null if the image was never read")
    fields: dict[str, Value] = Field(description="its fields, which filters use")

    @classmethod
    def of(cls, item: Item) -> ItemResponse:
        content = None if item.hash.startswith(UNSEEN) else item.hash
        return cls(id=item.id, hash=content, width=item.width, height=item.height, fields=dict(item.fields))


class ItemPageResponse(BaseModel):
    """Some of the items that pass the filter."""

    items: list[ItemResponse] = Field(description="the items, in insertion order")
    total: int = Field(description="the number of items that pass the filter")

    @classmethod
    def of(cls, page: ItemPage) -> ItemPageResponse:
        return cls(items=list(map(ItemResponse.of, page.items)), total=page.total)


class EncoderResponse(BaseModel):
    """The identity of an encoder."""

    model: str = Field(description="name of the model; of a local model, the name of its folder")
    weights: str = Field(description="hash of the weights")
    preprocessing: str = Field(description="how images are prepared, as JSON text where the encoder is an open_clip model")


class SettingResponse(BaseModel):
    """The weights of PDV."""

    alpha_image: float = Field(description=REQUEST_FIELDS["alpha_image"].help)
    alpha_text: float = Field(description=REQUEST_FIELDS["alpha_text"].help)
    beta: float = Field(description=REQUEST_FIELDS["beta"].help)


class IndexResponse(BaseModel):
    """The index of a gallery. What does not apply to it is null: a Milvus server has only `type` and `server`."""

    factory: str | None = Field(default=None, description="its FAISS factory string")
    reason: str | None = Field(default=None, description="why it was chosen")
    advice: str | None = Field(default=None, description="what to do about it; null if nothing needs to be done")
    device: str | None = Field(default=None, description="where it is searched")
    rows: int | None = Field(default=None, description="rows that it covers; null if none was built")
    uncovered: int | None = Field(default=None, description="rows that it does not cover, and that are scored one by one")
    recall: float | None = Field(default=None, description="share of exact results that it found when it was tuned")
    nprobe: int | None = Field(default=None, description="cells that are searched (IVF)")
    ef: int | None = Field(default=None, description="breadth of the walk (HNSW)")
    overfetch: float | None = Field(default=None, description="candidates for each requested result")
    type: str | None = Field(default=None, description="index type on the Milvus server")
    server: str | None = Field(default=None, description="version of the Milvus server")


class CaptionsResponse(BaseModel):
    """How the captions of items count in their vectors."""

    field: str = Field(description="the field of the items that holds their captions")
    weight: float = Field(description="the weight of a caption; that of the image is 1 minus it")


class InfoResponse(BaseModel):
    """What the gallery is: items, encoder, fields for filters."""

    items: int = Field(description="the number of items")
    deleted: int | None = Field(default=None, description="deleted items whose space is not free yet; null on a Milvus server")
    dim: int = Field(description="dimensions of a vector")
    encoder: EncoderResponse = Field(description="the encoder that made the gallery")
    decode: str = Field(description="how images are decoded: exact or fast")
    colors: str = Field(description="whether color profiles of images count: srgb or raw")
    dtype: str | None = Field(description="the dtype in which the encoder computed images, null if it is not known")
    captions: CaptionsResponse | None = Field(description="how captions count in the vectors, null if they do not")
    setting: SettingResponse | None = Field(description="the PDV weights that are stored for this gallery")
    fields: dict[str, FieldType] = Field(description="each field of items with its type")
    title_field: str | None = Field(description="the field that names the items, null if there is none")
    vocabulary: str = Field(description="the sentence that captions are made of, and where it comes from")
    index: IndexResponse = Field(description="the index, and why it was chosen")
    composers: list[str] = Field(description="names for `composer` in a query with a reference and a prompt")
    rules: list[str] = Field(description="names for `rule`")
    judges: list[str] = Field(description="names for `judge`")

    @classmethod
    def of(cls, info: Mapping[str, Any]) -> InfoResponse:
        """`SearchService.info` without the files and folders of this machine."""
        return cls.model_validate({name: _public(value) for name, value in info.items()})


class UploadResponse(BaseModel):
    """An image that was uploaded."""

    upload: str = Field(description="the name of the image, for the field `upload` of a request")


class HealthResponse(BaseModel):
    """Sent while the server can answer."""

    status: str = Field(default="ok", description="always ok")
    items: int = Field(description="the number of items of the gallery")
