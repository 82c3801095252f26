"""Patience: many attempts at once, each repeated with growing pauses, and none any more where nothing answers."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from threading import Event, Lock
from typing import Generic, TypeVar

T = TypeVar("T")
DEFAULT_TIMEOUT = 60.0  # seconds an attempt may take
LONGEST_PAUSE = 60.0
DEAD_AFTER = 3  # questions in a row without an answer: one may be to blame itself, three are not


class ModelRequestError(Exception):
    """An attempt that brought nothing: why, whether another one may help, and the seconds to wait before it at least."""

    def __init__(self, reason: str, *, again: bool, after: float = 0.0) -> None:
        super().__init__(reason)
        self.again, self.after = again, min(after, LONGEST_PAUSE)


class RetryingBatch(Generic[T]):
    """One round of questions. `attempt` answers one of them or raises NoAnswerError; anything else it raises ends the round.

    After the round `failures` holds why the questions failed that have no answer; those after DEAD_AFTER failures in a row
    were not asked at all.
    """

    def __init__(self, attempt: Callable[[T], str], *, retries: int, pause: float) -> None:
        self.failures: list[str] = []
        self._attempt = attempt
        self._pauses = [0.0, *(min(pause * 2**i, LONGEST_PAUSE) for i in range(retries))]
        self._over = Event()
        self._lock = Lock()
        self._in_a_row = 0

    def answers(self, questions: Sequence[T], concurrency: int) -> Generator[tuple[T, str]]:
        """Questions with their answers, as they come in. Waits for those under way even where it is left early."""
        with ThreadPoolExecutor(concurrency) as pool:
            asked = {pool.submit(self._answer, question): question for question in questions}
            try:
                for future in as_completed(asked):
                    if (said := future.result()) is not None:
                        yield asked[future], said
            finally:
                self._over.set()

    def _answer(self, question: T) -> str | None:
        """The answer, or None where there is none."""
        failure: ModelRequestError | None = None
        for pause in self._pauses:
            if self._over.wait(max(pause, failure.after if failure else 0.0)):
                break
            try:
                said = self._attempt(question)
            except ModelRequestError as error:
                failure = error
                if not error.again:
                    break
            else:
                self._count(None)
                return said
        if failure is not None:
            self._count(failure)
        return None

    def _count(self, failure: ModelRequestError | None) -> None:
        with self._lock:
            self._in_a_row = 0 if failure is None else self._in_a_row + 1
            if failure is not None:
                self.failures.append(str(failure))
            if self._in_a_row >= DEAD_AFTER:
                self._over.set()
