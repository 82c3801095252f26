"""Everything that can be asked at once, read and checked: the same words in Python and in the shell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

from mmretrieve.errors import OptionError
from mmretrieve.images import ImageLike, Region
from mmretrieve.options import WITHOUT_CAPTIONS, ComposerName, RuleName
from mmretrieve.vectors import is_number


class Question(TypedDict, total=False):
    """What a query may say beside images and prompts.

    reference_id: items of the gallery as references, after the images where there are both. region: of each reference the
    part that counts, (left, top, right, bottom) in shares of its sides, or None for all of it. image_weight: how much each reference counts (1). strength: how
    far to go along each prompt (1; 0 ignores it, below 0 goes the other way). avoid: prompts to go away from, at
    strength −1. more_like, less_like: items of the gallery to be near to, and far from. caption: each reference in words.
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
class Asked:
    """A question with everything in lists, and checked. `prompts` holds those to avoid too, at strength −1."""

    images: list[ImageLike]
    ids: list[str]
    regions: list[Region | None]
    image_weights: list[float]
    captions: list[str]
    prompts: list[str]
    strengths: list[float]
    more_like: list[str]
    less_like: list[str]
    composer: ComposerName
    rule: RuleName | None

    @property
    def references(self) -> int:
        return len(self.images) + len(self.ids)


def read_question(image: ImageLike | Sequence[ImageLike] | None, prompt: str | Sequence[str] | None, more: Question) -> Asked:
    """OptionError, in one line, for words that are unknown, contradict each other, or are not equally many."""
    if strange := set(more) - set(Question.__annotations__):
        raise OptionError(
            f"unknown words in a query: {', '.join(sorted(strange))}; known: {', '.join(Question.__annotations__)}"
        )
    images, ids = _several(image), read_ids("reference_id", more.get("reference_id"))
    prompts, avoided = _several(prompt), _several(more.get("avoid"))
    composer = more.get("composer")
    asked = Asked(
        images,
        ids,
        _regions(more.get("region"), len(images) + len(ids)),
        _numbers(more.get("image_weight"), len(images) + len(ids), "image_weight", "references"),
        _several(more.get("caption")),
        [*prompts, *avoided],
        [*_numbers(more.get("strength"), len(prompts), "strength", "prompts"), *[-1.0] * len(avoided)],
        read_ids("more_like", more.get("more_like")),
        read_ids("less_like", more.get("less_like")),
        _usual(bool(images or ids), bool(prompts or avoided)) if composer is None else ComposerName(composer),
        None if more.get("rule") is None else RuleName(more["rule"]),  # type: ignore[arg-type]
    )
    _check_use(asked)
    return asked


def read_ids(name: str, value: Any) -> list[str]:
    """One id or several as a list. OptionError, naming the option, for anything else."""
    ids = list(value) if isinstance(value, set | frozenset) else _several(value)
    if wrong := [id_ for id_ in ids if not isinstance(id_, str)]:
        raise OptionError(f"{name} must be ids of items, got {wrong[0]!r}")
    return ids


def _check_use(asked: Asked) -> None:
    """Refuses what was said and would not be heard."""
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
