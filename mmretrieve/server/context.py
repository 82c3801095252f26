"""What every route, tool and page of one server shares: the service, uploads, and the threads that compute."""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter
from typing import Any

from mmretrieve.ranking import Ranking
from mmretrieve.retriever import Retriever
from mmretrieve.server.concurrency import BoundedExecutor
from mmretrieve.server.limits import Limits
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
            BoundedExecutor(limits.workers, limits.waiting, limits.seconds, limits.given_up),
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

    def search(self, body: SearchBody) -> SearchResponse:
        """The ranking of `Retriever.search`, with the fields of each hit and the seconds that it took."""
        started = perf_counter()
        return self.response(self.service.search(body.to_request(self.uploads)), started)

    def response(self, ranking: Ranking, started: float) -> SearchResponse:
        fields = self.service.fields(ranking)
        titles = list(map(self.service.gallery.title, ranking.ids, fields))
        return SearchResponse.of(ranking, titles, fields, perf_counter() - started)

    def close(self) -> None:
        for executor in self.executors.values():
            executor.close()
        self.uploads.close()
