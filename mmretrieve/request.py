"""Everything that can be asked at once, read and checked: the same words in Python and in the shell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

from mmretrieve import scoring
from mmretrieve.errors import OptionError
from mmretrieve.filters import Expression, read_filter
from mmretrieve.gallery.view import SearchOptions
from mmretrieve.images import ImageLike, Region
from mmretrieve.options import BASE, DEFAULT_K, MAX_PAIRS, OWN_WEIGHTS, WITHOUT_CAPTIONS, ComposerName, RuleName
from mmretrieve.vectors import is_number

WEIGHING = ("alpha_image", "alpha_text", "beta", "weights")
CUT = ("k", "min_score", "where", "exclude", "exclude_reference")


class RequestOptions(TypedDict, total=False):
    """What a query may say beside images and prompts.

    reference_id: items of the gallery as references, after the images where there are both. region: of each reference the
    part that counts, (left, top, right, bottom) in shares of its sides, or None for all of it. image_weight: how much each reference counts (1). strength: how
    far to go along each prompt (1; 0 ignores it, below 0 goes the other way). avoid: what should not show, such as
    "stripes". more_like, less_like: items of the gallery to be near to, and far from. caption: each reference in words.
    composer: by default "captions" for an image with a prompt, "image" or "prompt" for one of them alone.
    rule: how term scores become one; by default the composer's own.
    """

    reference_id: str | Sequence[str] | None
    region: Region | Sequence[Region | None] | None
    image_weight: float | Sequence[float] | None
    strength: float | Sequence[float] | None
    avoid: str | Sequence[str] | None
    more_like: str | Sequence[str]
    less_like: str | Sequence[str]
    caption: str | Sequence[str] | None
    composer: ComposerName | str | None
    rule: RuleName | str | None


@dataclass(frozen=True)
class ParsedRequest:
    """A question with everything in lists, and checked. `names_composer` says whether it named its composer."""

    images: list[ImageLike]
    ids: list[str]
    regions: list[Region | None]
    image_weights: list[float]
    captions: list[str]
    prompts: list[str]
    strengths: list[float]
    avoid: list[str]
    more_like: list[str]
    less_like: list[str]
    composer: ComposerName
    rule: RuleName | None
    names_composer: bool

    @property
    def references(self) -> int:
        return len(self.images) + len(self.ids)

    @property
    def keeps_weights(self) -> bool:
        """Whether its composer, which it named, keeps its own weights unless others are named."""
        return self.names_composer and self.composer in OWN_WEIGHTS


@dataclass(frozen=True)
class SearchRequest:
    """A question with how it is weighed and what ends its ranking: everything that `Retriever.search` takes, checked."""

    ask: ParsedRequest
    weighing: Mapping[str, Any]
    k: int
    min_score: float | None
    where: Expression | None
    exclude: list[str]
    exclude_reference: bool

    @classmethod
    def read(
        cls,
        image: ImageLike | Sequence[ImageLike] | None,
        prompt: str | Sequence[str] | None,
        options: Mapping[str, Any],
        more: RequestOptions,
    ) -> SearchRequest:
        """options: the words of `search` that are not in `RequestOptions`; what is left out has its default. OptionError as in `read_question`."""
        ask = read_question(image, prompt, more)
        min_score = options.get("min_score")
        if min_score is not None and not is_number(min_score):
            raise OptionError(f"min_score must be a finite number, got {min_score!r}")
        said = {name: options[name] for name in WEIGHING if options.get(name) is not None}
        weighing = {"weights": BASE} if ask.keeps_weights and not said else said
        return cls(
            ask,
            {**weighing, "keep_rule": ask.rule is not None},
            scoring.check_k(options.get("k", DEFAULT_K)),
            min_score,
            read_filter(options.get("where")),
            read_ids("exclude", options.get("exclude", ())),
            bool(options.get("exclude_reference", False)),
        )

    @property
    def takes_away(self) -> bool:
        """Whether what its prompts forbid becomes terms to avoid: where its composer does not keep weights of its own."""
        return self.weighing.get("weights") != BASE or not self.ask.keeps_weights

    def cut(self, hidden: Sequence[str]) -> SearchOptions:
        """What ends its ranking, with those ids hidden."""
        return SearchOptions(self.k, hidden, self.min_score, self.where)


def read_requests(requests: Sequence[Mapping[str, Any]]) -> list[SearchRequest]:
    """Mappings of the words of `search` as requests. OptionError, with its number from 1, for one that is none."""
    if isinstance(requests, Mapping | str) or not isinstance(requests, Sequence):
        raise OptionError(f"search_many takes a list of mappings such as {{'image': …, 'prompt': …}}, got {requests!r:.80}")
    return [_numbered_request(number, request) for number, request in enumerate(requests, start=1)]


def _numbered_request(number: int, request: Mapping[str, Any]) -> SearchRequest:
    if not isinstance(request, Mapping):
        raise OptionError(f"request {number}: expected a mapping such as {{'image': …, 'prompt': …}}, got {request!r:.80}")
    words = dict(request)
    options = {name: words.pop(name) for name in (*WEIGHING, *CUT) if name in words}
    try:
        return SearchRequest.read(words.pop("image", None), words.pop("prompt", None), options, words)  # type: ignore[arg-type]  # checked there
    except OptionError as error:
        raise OptionError(f"request {number}: {error}") from error


def read_question(
    image: ImageLike | Sequence[ImageLike] | None, prompt: str | Sequence[str] | None, more: RequestOptions
) -> ParsedRequest:
    """OptionError, in one line, for words that are unknown, contradict each other, or are not equally many."""
    if strange := set(more) - set(RequestOptions.__annotations__):
        raise OptionError(
            f"unknown words in a query: {', '.join(sorted(strange))}; known: {', '.join(RequestOptions.__annotations__)}"
        )
    images, ids = _several(image), read_ids("reference_id", more.get("reference_id"))
    prompts, avoided = _several(prompt), _several(more.get("avoid"))
    composer = more.get("composer")
    asked = ParsedRequest(
        images,
        ids,
        _regions(more.get("region"), len(images) + len(ids)),
        _numbers(more.get("image_weight"), len(images) + len(ids), "image_weight", "references"),
        _several(more.get("caption")),
        prompts,
        _numbers(more.get("strength"), len(prompts), "strength", "prompts"),
        avoided,
        read_ids("more_like", more.get("more_like")),
        read_ids("less_like", more.get("less_like")),
        _usual(bool(images or ids), bool(prompts or avoided)) if composer is None else ComposerName(composer),
        None if more.get("rule") is None else RuleName(more["rule"]),  # type: ignore[arg-type]
        composer is not None,
    )
    _check_use(asked)
    return asked


def read_ids(name: str, value: Any) -> list[str]:
    """One id or several as a list. OptionError, naming the option, for anything else."""
    ids = list(value) if isinstance(value, set | frozenset) else _several(value)
    if wrong := [id_ for id_ in ids if not isinstance(id_, str)]:
        raise OptionError(f"{name} must be ids of items, got {wrong[0]!r}")
    return ids


def _check_use(asked: ParsedRequest) -> None:
    """Refuses what was said and would not be heard."""
    if asked.references * len(asked.prompts) > MAX_PAIRS:
        raise OptionError(
            f"{asked.references} references and {len(asked.prompts)} prompts would be one query that combines them all; "
            'for a ranking of each call search_many([{"image": …, "prompt": …}, …])'
        )
    if wrong := [phrase for phrase in asked.avoid if not isinstance(phrase, str) or not phrase.strip()]:
        raise OptionError(f"avoid takes words for what should not show, got {wrong[0]!r}")
    if both := {_plain(phrase) for phrase in asked.avoid} & {_plain(prompt) for prompt in asked.prompts}:
        raise OptionError(f"{min(both)!r} is asked for and avoided; leave one out")
    if asked.composer is ComposerName.IMAGE and asked.prompts:
        raise OptionError(
            "'image' looks at the reference alone and would not hear the prompt; leave it out, or choose another composer"
        )
    if asked.composer is ComposerName.PROMPT and asked.references:
        raise OptionError(
            "'prompt' hears the prompt alone and would not look at the reference; leave it out, or choose another composer"
        )
    if asked.captions and asked.composer in WITHOUT_CAPTIONS:
        raise OptionError(
            f"a caption is for a composer of words, with an image and a prompt; this query uses {asked.composer.value!r}"
        )
    if asked.captions and len(asked.captions) != asked.references:
        raise OptionError(f"{len(asked.captions)} captions for {asked.references} references; give one for each, or none")


def _plain(text: Any) -> str:
    return " ".join(str(text).casefold().split())


def _usual(has_reference: bool, has_prompt: bool) -> ComposerName:
    if not has_reference:
        return ComposerName.PROMPT
    return ComposerName.CAPTIONS if has_prompt else ComposerName.IMAGE


def _several(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


def _numbers(value: float | Sequence[float] | None, count: int, name: str, of: str) -> list[float]:
    """One number for each of `count` things, 1 where none is given."""
    numbers = [1.0] * count if value is None else _several(value)
    if len(numbers) != count:
        raise OptionError(f"{len(numbers)} values of {name} for {count} {of}; give one for each, or none")
    if wrong := [number for number in numbers if not is_number(number)]:
        raise OptionError(f"{name} must be finite numbers, got {wrong[0]!r}")
    return [float(number) for number in numbers]


def _regions(value: Any, count: int) -> list[Region | None]:
    """One region or None for each of `count` references; a single one may stand by itself."""
    if value is None:
        return [None] * count
    one = isinstance(value, list | tuple) and len(value) == 4 and all(map(is_number, value))
    regions = [value] if one else _several(value)
    if len(regions) != count:
        raise OptionError(f"{len(regions)} regions for {count} references; give one for each (None for the whole picture)")
    return [None if region is None else _region(region) for region in regions]


def _region(value: Any) -> Region:
    if not isinstance(value, list | tuple) or len(value) != 4 or not all(map(is_number, value)):
        raise OptionError(f"a region is left, top, right and bottom, got {value!r}")
    left, top, right, bottom = map(float, value)
    if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
        raise OptionError(f"a region lies between 0 and 1, left of right and top above bottom; got {value!r}")
    return left, top, right, bottom
