"""What a client gets: the documented shapes of every answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, Field

from mmretrieve.gallery.store.records import UNSEEN, Item
from mmretrieve.gallery.view import ItemPage
from mmretrieve.options import NO_MATCH
from mmretrieve.ranking import Ranking

Value = str | int | float | None


class HitResponse(BaseModel):
    """One item of a ranking; its contributions sum to its score."""

    rank: int = Field(description="from 1")
    id: str
    score: float = Field(
        description="higher is better; under automatic weights in standard deviations above the gallery's average item"
    )
    contributions: dict[str, float] = Field(description="what each term gave: weight × term score")
    fields: dict[str, Value] = Field(description="what is known of the item")


class SearchResponse(BaseModel):
    """A ranking. `note` says why there are fewer hits than asked for, and whatever else a reader should know."""

    hits: list[HitResponse]
    asked: int
    searched: int = Field(description="items that could appear")
    hidden: dict[str, int] = Field(description="items that could not, by what hid them")
    weights: dict[str, float] = Field(description="of each term")
    words: dict[str, str] = Field(description="the sentence behind each term that has one")
    rule: str
    pool: int | None = Field(description="candidates that were scored, where that was not every item")
    note: str | None
    caption: str | None = Field(description="the words in which the first reference was said")
    why: str | None = Field(description="which weights were chosen, and why, where they were")
    answerable: float | None = Field(
        description=f"how far the gallery has what was asked for, 0 to 1; below {NO_MATCH} nothing fits"
    )
    seconds: float = Field(description="that the search took, waiting left out")

    @classmethod
    def of(cls, ranking: Ranking, fields: list[Mapping[str, Any]], seconds: float) -> SearchResponse:
        hits = [
            HitResponse(rank=hit.rank, id=hit.id, score=hit.score, contributions=dict(hit.contributions), fields=dict(known))
            for hit, known in zip(ranking, fields, strict=True)
        ]
        return cls(
            hits=hits,
            asked=ranking.k,
            searched=ranking.searched,
            hidden=dict(ranking.hidden),
            weights=dict(ranking.weights),
            words=dict(ranking.words),
            rule=ranking.rule.value,
            pool=ranking.pool,
            note=ranking.note,
            caption=ranking.caption,
            why=ranking.why,
            answerable=ranking.answerable,
            seconds=seconds,
        )


class ErrorResponse(BaseModel):
    """What went wrong, in one line."""

    error: str


class ItemResponse(BaseModel):
    """An item of the gallery. `hash` is its content's, None where its picture was never read."""

    id: str
    hash: str | None
    width: int | None
    height: int | None
    fields: dict[str, Value]

    @classmethod
    def of(cls, item: Item) -> ItemResponse:
        seen = None if item.hash.startswith(UNSEEN) else item.hash
        return cls(id=item.id, hash=seen, width=item.width, height=item.height, fields=dict(item.fields))


class ItemPageResponse(BaseModel):
    """Some of `total` items, in insertion order."""

    items: list[ItemResponse]
    total: int

    @classmethod
    def of(cls, listed: ItemPage) -> ItemPageResponse:
        return cls(items=list(map(ItemResponse.of, listed.items)), total=listed.total)


class UploadResponse(BaseModel):
    """What names an uploaded picture in `upload` of a question."""

    upload: str


class HealthResponse(BaseModel):
    """Said while the server can answer."""

    status: str = "ok"
    items: int
