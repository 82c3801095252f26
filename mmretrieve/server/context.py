"""What every route, tool and page of one server shares: the service, uploads, and the threads that compute."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property
from time import perf_counter
from typing import Any

from mmretrieve.request import SearchRequest
from mmretrieve.retriever import Retriever
from mmretrieve.server.concurrency import BoundedExecutor
from mmretrieve.server.errors import validate
from mmretrieve.server.limits import COMPUTED_TOGETHER, Limits
from mmretrieve.server.schemas import SearchBody, SearchResponse
from mmretrieve.server.uploads import Uploads
from mmretrieve.service import SearchService

FILTER_NICENESS = 10  # a filter may compute for half a minute, beside everything else


@dataclass(frozen=True)
class AppContext:
    """The service, the images that were uploaded, and the executors.

    What computes, what only reads, and what has a filter, which may take long, wait apart from each other.
    """

    service: SearchService
    uploads: Uploads
    search_executor: BoundedExecutor
    read_executor: BoundedExecutor
    filter_executor: BoundedExecutor

    @classmethod
    def of(cls, retriever: Retriever, limits: Limits, *, reads_files: bool = False) -> AppContext:
        """reads_files: whether clients are on this machine, and may name files as images."""
        return cls(
            SearchService(retriever),
            Uploads(limits, reads_files=reads_files),
            BoundedExecutor(limits.workers, limits.waiting, limits.seconds, limits.given_up, batch=COMPUTED_TOGETHER),
            BoundedExecutor(limits.workers, limits.reading, limits.seconds, limits.given_up),
            BoundedExecutor(limits.filtering, limits.waiting, limits.seconds, limits.given_up, niceness=FILTER_NICENESS),
        )

    @property
    def executors(self) -> dict[str, BoundedExecutor]:
        """The executors by what they do."""
        return {"searching": self.search_executor, "reading": self.read_executor, "filtering": self.filter_executor}

    def executor_of(self, request: Any) -> BoundedExecutor:
        """The executor of a search, or of another request that may have a filter, as `where` or as `filters` of the page."""
        has_filter = getattr(request, "where", None) is not None or bool(getattr(request, "filters", None))
        return self.filter_executor if has_filter else self.search_executor

    async def search(self, body: SearchBody, images: Sequence[bytes] = ()) -> SearchResponse:
        """The response to a request with more images, computed together with others of its kind that wait."""
        waiting = WaitingSearch(body, tuple(images), self.uploads)
        return await self.executor_of(body).run_together(self.search_together, waiting, waiting.kind)

    def search_together(self, searches: Sequence[WaitingSearch]) -> list[SearchResponse]:
        """The rankings of `Retriever.search`, with the fields of each hit and the seconds that all took."""
        started = perf_counter()
        rankings = self.service.search([search.request for search in searches])
        responses = []
        for ranking, fields in zip(rankings, self.service.fields(rankings), strict=True):
            titles = list(map(self.service.gallery.title, ranking.ids, fields))
            responses.append(SearchResponse.of(ranking, titles, fields, perf_counter() - started))
        return responses

    def close(self) -> None:
        for executor in self.executors.values():
            executor.close()
        self.uploads.close()


@dataclass(frozen=True)
class WaitingSearch:
    """A search that waits for a thread, where its images are decoded.

    images: files of a form, before the images of the body.
    """

    body: SearchBody
    images: tuple[bytes, ...]
    uploads: Uploads

    @property
    def kind(self) -> Hashable:
        """Equal for searches that may be computed together: what takes long must not delay what does not. A judge looks at one alone."""
        composer, rule, *images = (getattr(self.body, name) for name in ("composer", "rule", "image", "upload", "region"))
        alone = None if getattr(self.body, "judge", None) is None else object()
        return composer, rule, bool(self.images) or any(images), alone

    @cached_property
    def request(self) -> SearchRequest:
        """The parsed request. Raises OptionError for too many references, ImageError for an image that cannot be read."""
        if not self.images:
            return self.body.to_request(self.uploads)
        uploads = [*map(self.uploads.add, self.images), *self.body.upload]
        body = validate(SearchBody, self.body.model_dump(exclude_unset=True) | {"upload": uploads})
        return body.to_request(self.uploads)
