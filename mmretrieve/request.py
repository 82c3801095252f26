"""A search request: every field that a search takes, declared once, and parsed and checked once.

`SearchRequest` is the source of the shell's options, of the schemas of API and MCP, of the page's requests and of the signature of
`Retriever.search`. Nothing heavy is imported here, because the shell reads these declarations before it knows its command.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from enum import StrEnum
from math import inf
from typing import TYPE_CHECKING, Any, Final, Literal

from mmretrieve.errors import OptionError, did_you_mean, unknown
from mmretrieve.options import (
    AUTO,
    BALANCED,
    BASE,
    DEFAULT_JUDGE_K,
    DEFAULT_K,
    MAX_PAIRS,
    MAX_PARAPHRASES,
    REGION_SIDES,
    ComposerName,
    check_count,
    check_size,
    is_number,
)
from mmretrieve.registry import COMPOSERS, JUDGES, RULES

if TYPE_CHECKING:
    from mmretrieve.filters import Expression
    from mmretrieve.images import ImageLike, Region

NamedWeights = Literal["auto", "base", "balanced"]
NAMED_WEIGHTS: tuple[NamedWeights, ...] = (AUTO, BASE, BALANCED)
Weights = Mapping[str, float] | NamedWeights
ALONE: Final = "inf"
EMPTY_QUERY = "the query is empty; give image, reference_id, prompt, avoid, more_like, less_like or axis"


class FieldKind(StrEnum):
    """What one value of a field is."""

    IMAGE = "image"
    TEXT = "text"
    ID = "id"
    REGION = "region"
    NUMBER = "number"
    COUNT = "count"
    COMPOSER = "composer"
    RULE = "rule"
    WEIGHTS = "weights"
    FILTER = "filter"
    FLAG = "flag"
    JUDGE = "judge"


class FieldGroup(StrEnum):
    """What a field decides: the terms of a query, their weights, or which items the ranking shows."""

    QUERY = "the query"
    WEIGHTS = "the weights"
    RANKING = "the ranking"


@dataclass(frozen=True)
class RequestField:
    """The declaration of a field.

    several: whether a list of values is accepted beside a single one. low, high: bounds of numbers, inclusive. keyword: a word
    that is accepted in the place of a number; "inf" stands for infinity. metavar: what the shell's help shows for a value.
    """

    kind: FieldKind
    group: FieldGroup
    help: str
    several: bool = False
    low: float | None = None
    high: float | None = None
    keyword: str | None = None
    metavar: str | None = None

    def parse(self, name: str, value: Any) -> Any:
        """The value in its normal form: a tuple where several are accepted. Raises OptionError, naming the field."""
        if value is None:
            return () if self.several else None
        if self.several:
            return tuple(self._parse_one(name, one) for one in _as_list(value, self.kind))
        return self._parse_one(name, value)

    def _parse_one(self, name: str, value: Any) -> Any:
        match self.kind:
            case FieldKind.TEXT:
                return check_text(name, value)
            case FieldKind.ID:
                return _check_id(name, value)
            case FieldKind.REGION:
                return None if value is None else parse_region(value)
            case FieldKind.NUMBER:
                return (
                    self.keyword if self.keyword is not None and str(value) == self.keyword else self._parse_number(name, value)
                )
            case FieldKind.COUNT:
                return check_count(name, value, high=inf if self.high is None else self.high)
            case FieldKind.COMPOSER:
                return COMPOSERS.check(value)
            case FieldKind.RULE:
                return RULES.check(value)
            case FieldKind.JUDGE:
                return JUDGES.check(value) if isinstance(value, str) else _check_judge(name, value)
            case FieldKind.WEIGHTS:
                return parse_weights(value)
            case FieldKind.FLAG:
                return _check_flag(name, value)
            case FieldKind.FILTER:
                from mmretrieve.filters import read_filter  # a third of the shell's start, which only a filter needs

                return read_filter(value)
            case FieldKind.IMAGE:  # opened by `inputs`
                return value

    def _parse_number(self, name: str, value: Any) -> float:
        low, high = self.low, self.high
        if not is_number(value) or (low is not None and value < low) or (high is not None and value > high):
            expected = _expected_number(low, high)
            alternative = "" if self.keyword is None else f" or {self.keyword!r}"
            raise OptionError(f"{name} must be {expected}{alternative}, got {value!r}")
        return check_size(name, value)


def _field(kind: FieldKind, group: FieldGroup, text: str, *, default: Any = None, **more: Any) -> Any:
    return field(default=default, metadata={"request": RequestField(kind, group, text, **more)})


def _query(kind: FieldKind, text: str, metavar: str | None = None, *, several: bool = False) -> Any:
    return _field(kind, FieldGroup.QUERY, text, metavar=metavar, several=several)


@dataclass(frozen=True)
class SearchRequest:
    """Everything that one search asks for.

    Fields that accept one value or several hold a tuple. There is one region, one image weight and, if captions are given, one
    caption for each reference (images first, then items), and one strength for each prompt.

    Parameters
    ----------
    image : path, PIL image, array, bytes, open file, or list of these
        Reference images.
    prompt : str or list of str
        What should be different.
    reference_id : str or list of str
        Items of the gallery as references.
    region : tuple of 4 float or list of them
        The part of each reference that counts: left, top, right and bottom, from 0 to 1.
    image_weight : float or list of float
        The weight of each reference.
    strength : float or list of float
        How far to follow each prompt.
    paraphrases : int, default=1
        The number of wordings of each prompt that are averaged, its own included; at most 6.
    avoid : str or list of str
        What should not be visible.
    more_like, less_like : str or list of str
        Items that results should be near to, and far from.
    axis, axis_opposite : str or list of str
        What there should be more of, such as "formal", and its opposite.
    axis_weight : float, default=1
        The weight of the axis; a negative one reverses it.
    caption : str or list of str
        A description of each reference.
    composer : str
        A name in `COMPOSERS`.
    rule : str
        A name in `RULES`.
    k : int, default=10
        The number of results, at least 1.
    alpha_image : float or "auto"
        PDV: how far the prompt moves the image.
    alpha_text : float
        PDV: how far the prompt moves the caption.
    beta : float
        PDV: from 0, follow the image, to 1, follow the caption.
    weights : mapping of str to float or str
        "auto", "base", "balanced", or a number for each role.
    min_score : float
        Leave out items that score below.
    where : str, mapping or Expression
        A condition on the fields of items: SQL, values by field, or its structure; stored as an `Expression`.
    exclude : str or collection of str
        Items that must not appear.
    exclude_reference : bool, default=False
        Leave out the references themselves.
    judge : str or Judge
        What looks at the best items and scores them: a name in `JUDGES`, or an object with `rank`.
    judge_k : int, default=20
        The number of items that the judge sees.
    judge_weight : float or "inf", default=1
        The weight of the judge's scores.

    Raises
    ------
    OptionError
        A value has the wrong type or is outside its bounds, or values contradict each other.

    Examples
    --------
    >>> from mmretrieve.request import SearchRequest
    >>> request = SearchRequest.parse(prompt="in red", reference_id="dress.jpg")
    >>> request.prompt, request.strength, request.composer_name
    (('in red',), (1.0,), 'captions')
    """

    image: tuple[ImageLike, ...] = _query(FieldKind.IMAGE, "a reference image", "P", several=True)
    prompt: tuple[str, ...] = _query(FieldKind.TEXT, "what should be different, such as 'in red'", "T", several=True)
    reference_id: tuple[str, ...] = _query(FieldKind.ID, "an item of the gallery as a reference", "ID", several=True)
    region: tuple[Region | None, ...] = _query(
        FieldKind.REGION,
        "the part of each reference that counts: left, top, right and bottom as shares of its sides",
        "L,T,R,B",
        several=True,
    )
    image_weight: tuple[float, ...] = _query(FieldKind.NUMBER, "the weight of each reference (default: 1)", "W", several=True)
    strength: tuple[float, ...] = _query(
        FieldKind.NUMBER,
        "how far to follow each prompt; 0 ignores it, negative values reverse it (default: 1)",
        "S",
        several=True,
    )
    paraphrases: int = _field(
        FieldKind.COUNT,
        FieldGroup.QUERY,
        "the number of wordings of each prompt that are averaged, its own included",
        default=1,
        low=1,
        high=MAX_PARAPHRASES,
        metavar="N",
    )
    avoid: tuple[str, ...] = _query(FieldKind.TEXT, "what should not be visible, such as 'stripes'", "T", several=True)
    more_like: tuple[str, ...] = _query(FieldKind.ID, "an item that results should be near to", "ID", several=True)
    less_like: tuple[str, ...] = _query(FieldKind.ID, "an item that results should be far from", "ID", several=True)
    axis: tuple[str, ...] = _query(
        FieldKind.TEXT, "what there should be more of, such as 'formal'; several words are averaged", "T", several=True
    )
    axis_opposite: tuple[str, ...] = _query(
        FieldKind.TEXT, "the opposite of the axis, such as 'casual' (default: 'not' it)", "T", several=True
    )
    axis_weight: float = _field(
        FieldKind.NUMBER, FieldGroup.QUERY, "the weight of the axis; a negative one reverses it", default=1.0, metavar="W"
    )
    caption: tuple[str, ...] = _query(
        FieldKind.TEXT,
        "a description of each reference (default: from its fields, from those of similar items, or by the tagger)",
        "TEXT",
        several=True,
    )
    composer: str | None = _query(
        FieldKind.COMPOSER, "the composer (default: captions for a reference with a prompt, else image or prompt)", "C"
    )
    rule: str | None = _query(FieldKind.RULE, "the rule that combines term scores (default: the composer's own)", "R")
    k: int = _field(FieldKind.COUNT, FieldGroup.RANKING, "the number of results", default=DEFAULT_K, low=1, metavar="N")
    alpha_image: float | Literal["auto"] | None = _field(
        FieldKind.NUMBER, FieldGroup.WEIGHTS, "PDV: how far the prompt moves the image", keyword=AUTO, metavar="A"
    )
    alpha_text: float | None = _field(
        FieldKind.NUMBER, FieldGroup.WEIGHTS, "PDV: how far the prompt moves the caption", metavar="A"
    )
    beta: float | None = _field(
        FieldKind.NUMBER, FieldGroup.WEIGHTS, "PDV: 0 follows the image, 1 follows the caption", low=0, high=1, metavar="B"
    )
    weights: Weights | None = _field(  # noqa: RUF009  it declares a field
        FieldKind.WEIGHTS,
        FieldGroup.WEIGHTS,
        "auto (default: chosen for the query), base (the composer's own), balanced, or a number for each role",
        metavar="W",
    )
    min_score: float | None = _field(
        FieldKind.NUMBER,
        FieldGroup.RANKING,
        "leave out items that score below; automatic weights score in standard deviations above the average item",
        metavar="S",
    )
    where: Expression | None = _field(  # noqa: RUF009  it declares a field
        FieldKind.FILTER,
        FieldGroup.RANKING,
        "an SQL condition on the fields of items: \"price < 20 AND colour = 'red'\"",
        metavar="SQL",
    )
    exclude: tuple[str, ...] = _field(
        FieldKind.ID, FieldGroup.RANKING, "an item that must not appear", several=True, metavar="ID"
    )
    exclude_reference: bool = _field(FieldKind.FLAG, FieldGroup.RANKING, "leave out the references themselves", default=False)
    judge: Any = _field(  # noqa: RUF009  it declares a field; its value is a name, or a `Judge` of a later room
        FieldKind.JUDGE, FieldGroup.RANKING, "what looks at the best items and scores them", metavar="J"
    )
    judge_k: int = _field(
        FieldKind.COUNT,
        FieldGroup.RANKING,
        "the number of items that the judge sees",
        default=DEFAULT_JUDGE_K,
        low=1,
        metavar="N",
    )
    judge_weight: float | Literal["inf"] = _field(
        FieldKind.NUMBER,
        FieldGroup.RANKING,
        "the weight of the judge; inf: the judge alone orders what it sees",
        default=1.0,
        low=0,
        keyword=ALONE,
        metavar="W",
    )

    def __post_init__(self) -> None:
        for name, declared in REQUEST_FIELDS.items():
            value = getattr(self, name)
            object.__setattr__(self, name, declared.parse(name, DEFAULTS[name] if value is None else value))
        references, prompts = self.reference_count, len(self.prompt)
        for name, filler, count, of in (
            ("region", None, references, "reference"),
            ("image_weight", 1.0, references, "reference"),
            ("strength", 1.0, prompts, "prompt"),
        ):
            values = getattr(self, name)
            if values:
                check_one_each(name, values, count, of)
            object.__setattr__(self, name, values or (filler,) * count)
        _check_consistency(self)

    @classmethod
    def parse(cls, **options: Any) -> SearchRequest:
        """Makes a request from the keywords of `Retriever.search`.

        Parameters
        ----------
        **options : Any
            Fields of the class; None stands for the default.

        Returns
        -------
        SearchRequest
            The request, checked.

        Raises
        ------
        OptionError
            A field is unknown, or as in the class.

        Examples
        --------
        >>> SearchRequest.parse(prompt="in red", k=3).k
        3
        """
        if unexpected := [name for name in options if name not in REQUEST_FIELDS]:
            raise unknown("field", unexpected[0], REQUEST_FIELDS)
        return cls(**options)

    @property
    def reference_count(self) -> int:
        return len(self.image) + len(self.reference_id)

    @property
    def is_empty(self) -> bool:
        """Whether it has nothing to search for."""
        return not (self.reference_count or self.prompt or self.avoid or self.more_like or self.less_like or self.axis)

    @property
    def composer_name(self) -> str:
        """The composer that this request gets: the one it names, else the usual one for what it has."""
        if self.composer is not None:
            return self.composer
        if not self.reference_count:
            return ComposerName.PROMPT.value
        return ComposerName.CAPTIONS.value if self.prompt or self.avoid else ComposerName.IMAGE.value

    @property
    def keeps_weights(self) -> bool:
        """Whether the composer keeps its own weights unless others are named: it was named, and is one that does so."""
        return self.composer is not None and COMPOSERS[self.composer].keeps_weights

    @property
    def reads_negations(self) -> bool:
        """Whether what prompts forbid becomes terms to avoid; not under the own weights of a composer that keeps them."""
        return not self.keeps_weights or self.weighting.get("weights") != BASE

    @property
    def weighting(self) -> dict[str, Any]:
        """The keywords of `Retriever.weigh`."""
        named = {name: value for name in WEIGHT_FIELDS if (value := getattr(self, name)) is not None}
        if not named and self.keeps_weights:
            named = {"weights": BASE}
        return named | {"keep_rule": self.rule is not None}

    @property
    def used_parts(self) -> frozenset[str]:
        """The fields of `Parts` that this request reads."""
        entry = COMPOSERS[self.composer_name]
        rule = frozenset() if self.rule is None else RULES[self.rule].uses
        words = {"vocabulary"} if self.avoid or (self.prompt and self.reads_negations) else frozenset()
        paraphraser = {"paraphraser", "vocabulary"} if self.paraphrases > 1 else frozenset()
        return entry.uses | rule | words | paraphraser


REQUEST_FIELDS: dict[str, RequestField] = {one.name: one.metadata["request"] for one in fields(SearchRequest)}
"""The declaration of every field, in the order of `Retriever.search`."""
DEFAULTS: dict[str, Any] = {one.name: one.default for one in fields(SearchRequest)}
QUERY_FIELDS, WEIGHT_FIELDS, RANKING_FIELDS = (
    tuple(name for name, declared in REQUEST_FIELDS.items() if declared.group is group) for group in FieldGroup
)


def parse_requests(requests: Sequence[Mapping[str, Any]]) -> list[SearchRequest]:
    """Mappings of the fields of a request → requests. Raises OptionError, with the number from 1, for a wrong one."""
    if isinstance(requests, Mapping | str) or not isinstance(requests, Sequence):
        raise OptionError(f"search_many takes a list of mappings such as {{'image': …, 'prompt': …}}, got {requests!r:.80}")
    return [_numbered_request(number, request) for number, request in enumerate(requests, start=1)]


def parse_weights(value: Any) -> Weights:
    """Weights by role as given, or one of NAMED_WEIGHTS. Raises OptionError for anything else."""
    if isinstance(value, str):
        for name in NAMED_WEIGHTS:
            if value == name:
                return name
    if isinstance(value, Mapping) and value and all(isinstance(role, str) and is_number(one) for role, one in value.items()):
        return {role: check_size(f"weights.{role}", weight) for role, weight in value.items()}
    raise OptionError(
        f"weights must be numbers by role, such as {{'image': 1, 'prompt': 2}}, or {AUTO!r}, {BASE!r} or {BALANCED!r}, got {value!r}"
        f"{did_you_mean(value, NAMED_WEIGHTS)}"
    )


def _expected_number(low: float | None, high: float | None) -> str:
    if low is None:
        return "a finite number"
    return f"a number of at least {low:g}" if high is None else f"a number from {low:g} to {high:g}"


def parse_region(value: Any) -> Region:
    """Left, top, right and bottom from 0 to 1. Raises OptionError for anything else."""
    if not _is_region(value):
        raise OptionError(f"a region must have {REGION_SIDES} values: left, top, right and bottom, got {value!r}")
    left, top, right, bottom = map(float, value)
    if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
        raise OptionError(f"a region must have 0 <= left < right <= 1 and 0 <= top < bottom <= 1, got {value!r}")
    return left, top, right, bottom


def check_text(name: str, value: Any) -> str:
    """The text. Raises OptionError, naming the field, for anything else and for a text without words."""
    if not isinstance(value, str):
        raise OptionError(f"{name} must be text, got {value!r}")
    if not value.strip():
        raise OptionError(f"{name} is empty; give a text, or leave {name} out")
    if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
        raise OptionError(f"{name} must be text in valid Unicode, got {value!r}")
    return value


def _check_flag(name: str, value: Any) -> bool:
    """The value as a bool. Raises OptionError, naming the field, for anything else; numpy's are accepted."""
    is_numpy_bool = getattr(value, "ndim", None) == 0 and str(getattr(value, "dtype", "")) == "bool"
    if not isinstance(value, bool) and not is_numpy_bool:
        raise OptionError(f"{name} must be True or False, got {value!r}")
    return bool(value)


def _check_judge(name: str, value: Any) -> Any:
    if not callable(getattr(value, "rank", None)):
        raise OptionError(f"{name} must be a name or an object with rank(query, documents), got {value!r:.80}")
    return value


def _check_id(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise OptionError(f"{name} must be the id of an item, got {value!r}")
    return value


def _is_region(value: Any) -> bool:
    return _is_numbers(value) and len(value) == REGION_SIDES


def _is_numbers(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) > 0 and all(map(is_number, value))


def _as_list(value: Any, kind: FieldKind) -> list[Any]:
    """One value or several as a list; one region is a sequence of numbers itself."""
    if kind is FieldKind.REGION and _is_numbers(value):
        return [value]
    several = list | tuple | set | frozenset if kind is FieldKind.ID else list | tuple
    return list(value) if isinstance(value, several) else [value]


def check_one_each(name: str, values: tuple[Any, ...], count: int, of: str) -> None:
    """Raises OptionError unless there is one value for each of `count` references or prompts."""
    if not count:
        raise OptionError(f"{name} needs a {of}, and this request has none; give one, or leave out {name}")
    if len(values) != count:
        given, expected = _counted(len(values), "value"), _counted(count, of)
        raise OptionError(f"{name} has {given} for {expected}; give one for each {of}, or none")


def _counted(count: int, noun: str) -> str:
    """`(1, "prompt")` → `"1 prompt"`, `(2, "prompt")` → `"2 prompts"`."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _numbered_request(number: int, request: Mapping[str, Any]) -> SearchRequest:
    if not isinstance(request, Mapping):
        raise OptionError(f"request {number}: expected a mapping such as {{'image': …, 'prompt': …}}, got {request!r:.80}")
    try:
        return SearchRequest.parse(**request)
    except OptionError as error:
        raise OptionError(f"request {number}: {error}") from error


def _check_consistency(request: SearchRequest) -> None:
    """Raises OptionError for fields that contradict each other, and for a field that the composer ignores."""
    references, prompts = request.reference_count, len(request.prompt)
    if references * prompts * request.paraphrases > MAX_PAIRS:
        wordings = "" if request.paraphrases == 1 else f" in {request.paraphrases} wordings"
        raise OptionError(
            f"{references} references and {prompts} prompts{wordings} are more than {MAX_PAIRS} pairs in one query; "
            'for a ranking of each, call search_many([{"image": …, "prompt": …}, …])'
        )
    if both := {normalized(phrase) for phrase in request.avoid} & {normalized(prompt) for prompt in request.prompt}:
        raise OptionError(f"{min(both)!r} is both a prompt and a phrase to avoid; leave one out")
    name, entry = request.composer_name, COMPOSERS[request.composer_name]
    if prompts and not entry.reads_prompt:
        raise OptionError(f"{name!r} ignores the prompt; leave the prompt out, or choose another composer")
    if references and not entry.reads_image:
        raise OptionError(f"{name!r} ignores the reference; leave the reference out, or choose another composer")
    if request.paraphrases > 1 and not prompts:
        raise OptionError("paraphrases needs a prompt, and this request has none; give one, or leave out paraphrases")
    if request.paraphrases > 1 and not entry.reads_paraphrases:
        raise OptionError(f"{name!r} takes each prompt in one wording; leave out paraphrases, or choose another composer")
    if not request.axis and (request.axis_opposite or request.axis_weight != DEFAULTS["axis_weight"]):
        raise OptionError("axis_opposite and axis_weight need an axis, and this request has none; give one, or leave them out")
    if request.judge is None and any(getattr(request, name) != DEFAULTS[name] for name in ("judge_k", "judge_weight")):
        raise OptionError("judge_k and judge_weight need a judge, and this request has none; name one, or leave them out")
    if request.caption and not entry.reads_captions:
        raise OptionError(
            f"a caption needs a composer that reads captions, with a reference and a prompt; this request uses {name!r}"
        )
    if request.caption:
        check_one_each("caption", request.caption, references, "reference")


def normalized(text: str) -> str:
    """The text as prompts and phrases are compared: without differences of case and of spaces."""
    return " ".join(text.casefold().split())
