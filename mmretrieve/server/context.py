"""What every route, tool and page of one server shares."""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter

from mmretrieve.ranking import Ranking
from mmretrieve.retriever import Retriever
from mmretrieve.server.concurrency import BoundedExecutor
from mmretrieve.server.limits import Limits
from mmretrieve.server.schemas import SearchBody, SearchResponse
from mmretrieve.server.uploads import Uploads
from mmretrieve.service import SearchService


@dataclass(frozen=True)
class AppContext:
    """The service, the images that were uploaded, and the executors: what computes waits for one, what only reads for the other."""

    service: SearchService
    uploads: Uploads
    searching: BoundedExecutor
    reading: BoundedExecutor

    @classmethod
    def of(cls, retriever: Retriever, limits: Limits) -> AppContext:
        return cls(
            SearchService(retriever),
            Uploads(limits),
            BoundedExecutor(limits.workers, limits.waiting, limits.seconds),
            BoundedExecutor(limits.workers, limits.reading, limits.seconds),
        )

    def search(self, body: SearchBody) -> SearchResponse:
        """The ranking of `Retriever.search`, with the fields of each hit and the seconds that it took."""
        started = perf_counter()
        return self.response(self.service.search(body.to_request(self.uploads)), started)

    def response(self, ranking: Ranking, started: float) -> SearchResponse:
        return SearchResponse.of(ranking, self.service.fields(ranking), perf_counter() - started)

    def close(self) -> None:
        self.searching.close()
        self.reading.close()
