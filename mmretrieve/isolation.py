"""Runs functions that read strangers' files with native code in child processes, so that a crash costs only the file that caused it.

A parser such as pyarrow can abort, exhaust memory or never end on a damaged file. In a child process with limits of memory and time, that
becomes a `CrashError`. Children start a new interpreter; they share nothing with threads and forks of this process.
"""

from __future__ import annotations

import io
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn, TypeVar, cast

from mmretrieve.errors import MMRetrieveError
from mmretrieve.forks import FORK_GATE

MAX_BYTES = 8 << 30  # of address space of one child
MAX_SECONDS = 120.0  # between two results of one child
MAX_IDLE = os.cpu_count() or 2  # children that wait for the next file
EXIT_SECONDS = 5.0  # that a child has to end by itself after its last answer
READY = b"\0ready\n"
SERVE = "from mmretrieve.isolation import serve; serve()"
THREADS = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL")}  # each reserves address space
MALLOC = {"MALLOC_MMAP_THRESHOLD_": "262144"}  # glibc gives larger blocks back to the system at once
R = TypeVar("R")


class CrashError(MMRetrieveError):
    """A child process crashed, or exceeded its time. The message says which."""


def run_isolated(function: Callable[..., R], *arguments: object) -> R:
    """Returns what a function of a module returns, called in a child process. Values and exceptions are pickled.

    Raises what the function raises, and CrashError.
    """
    with _borrowed() as child:
        return child.call(function, arguments)


def iterate_isolated(function: Callable[..., Iterator[R]], *arguments: object) -> Iterator[R]:
    """Yields what a generator of a module yields, which runs ahead in a child process. Raises as `run_isolated`."""
    with _borrowed() as child:
        yield from child.iterate(function, arguments)


class IsolatedReader:
    """One child process for many short calls from many threads, one at a time. What it caches stays there from call to call."""

    def __init__(self) -> None:
        self._forget_lock()
        self._child: _Child | None = None
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forget_lock)

    def _forget_lock(self) -> None:
        self._lock = threading.Lock()

    def run(self, function: Callable[..., R], *arguments: object) -> R:
        """As `run_isolated`. After a crash, the next call starts a new child."""
        with self._lock:
            if self._child is None or not self._child.is_usable:
                if self._child is not None:
                    self._child.end()
                self._child = _Child()
            return self._child.call(function, arguments)


class _Child:
    """A process that serves one request at a time: it gets a function and its arguments, and sends its value, or each value and the end."""

    def __init__(self) -> None:
        if not sys.executable:
            raise CrashError("it is read in a child process, but this Python does not know its own program (sys.executable)")
        self._owner, self._is_idle, self._is_ready = os.getpid(), True, False
        path = os.pathsep.join(map(os.path.abspath, sys.path))
        with FORK_GATE.no_fork():  # a fork would keep the ends of its pipes open
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", SERVE],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={**os.environ, **THREADS, **MALLOC, "PYTHONPATH": path},
                bufsize=0,  # a fork must not flush what a thread of its parent has not written yet
            )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._requests, self._answers = self._process.stdin, io.BufferedReader(cast(io.RawIOBase, self._process.stdout))

    @property
    def is_usable(self) -> bool:
        """Whether it waits for a request of this process. A fork must not use the child of its parent."""
        return self._is_idle and self._owner == os.getpid() and self._process.poll() is None

    def call(self, function: Callable[..., R], arguments: tuple[object, ...]) -> R:
        answer = self._answer_to((function, arguments, False))
        self._is_idle = True
        assert answer is not None
        result: R = answer[0]
        return result

    def iterate(self, function: Callable[..., Iterator[R]], arguments: tuple[object, ...]) -> Iterator[R]:
        answer = self._answer_to((function, arguments, True))
        while answer is not None:
            yield from answer
            answer = self._answer_to(None)
        self._is_idle = True

    def write(self, data: bytes) -> None:
        """Writes all of a part of a request; the system may take less at a time, for example when a signal comes."""
        rest = memoryview(data).cast("B")
        while rest:
            rest = rest[self._requests.write(rest) :]

    def _answer_to(self, request: tuple[object, ...] | None) -> tuple[Any] | None:
        """The first value for a request, or the next one, in a tuple; None at the end. Raises what the function raised."""
        is_late = threading.Event()

        def give_up() -> None:
            is_late.set()
            self._process.kill()

        timer = threading.Timer(MAX_SECONDS, give_up)
        timer.daemon = True
        timer.start()
        try:
            self._send(request)
            answer = pickle.load(self._answers)
        except (EOFError, OSError, pickle.UnpicklingError):
            self._raise_crash(is_late=is_late.is_set())
        finally:
            timer.cancel()
        if isinstance(answer, BaseException):
            self._is_idle = True
            try:
                raise answer
            finally:
                del answer  # it would keep itself, and what the callers hold, through its traceback
        value: tuple[Any] | None = answer
        return value

    def _send(self, request: tuple[object, ...] | None) -> None:
        if request is not None:
            self._is_idle = False
            with suppress(BrokenPipeError):  # it has crashed; there will be no answer
                pickle.dump(request, self, pickle.HIGHEST_PROTOCOL)  # large bytes are not copied
        while not self._is_ready:  # what is printed while Python starts is no answer
            line = self._answers.readline()
            if not line:
                raise EOFError
            self._is_ready = line.endswith(READY)

    def _raise_crash(self, *, is_late: bool) -> NoReturn:
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(EXIT_SECONDS)
        self.end()
        if is_late:
            raise CrashError(f"reading it took longer than {MAX_SECONDS:g} s")
        code = self._process.returncode
        raise CrashError(f"reading it crashed with {signal.Signals(-code).name if code < 0 else f'status {code}'}")

    def end(self) -> None:
        """Kills the process. In a fork, it is left to the parent; a thread there may hold the locks of its pipes."""
        if self._owner == os.getpid():
            self._process.kill()
            self._process.wait()
            for stream in (self._requests, self._answers):
                with suppress(OSError):
                    stream.close()


_idle: list[_Child] = []
_idle_lock = threading.Lock()


def _forget_lock() -> None:
    """A thread that held the lock does not exist in a fork."""
    global _idle_lock
    _idle_lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_lock)


@contextmanager
def _borrowed() -> Iterator[_Child]:
    """A child for one request. It is kept for the next one if it has sent everything."""
    with _idle_lock:
        waiting, usable = _idle[:], [child for child in _idle if child.is_usable]
        _idle[:] = usable[1:]
    for child in waiting:
        if child not in usable:
            child.end()
    child = usable[0] if usable else _Child()
    try:
        yield child
    finally:
        with _idle_lock:
            if is_kept := child.is_usable and len(_idle) < MAX_IDLE:
                _idle.append(child)
        if not is_kept:
            child.end()


def serve() -> None:
    """The main function of a child: serves requests until the parent closes its end."""
    _limit_resources()
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what a library prints must not be taken for an answer
    answers.write(READY)
    while True:
        try:
            request = pickle.load(requests)
        except EOFError:
            return
        for answer in _answers(*request):
            answers.write(answer)
            answers.flush()
        del request, answer  # which may be large


def _answers(function: Callable[..., Any], arguments: tuple[object, ...], is_iteration: bool) -> Iterator[bytes]:
    try:
        values = function(*arguments) if is_iteration else (function(*arguments),)
        for value in values:
            yield pickle.dumps((value,), pickle.HIGHEST_PROTOCOL)
        if is_iteration:
            yield pickle.dumps(None)
    except Exception as error:
        try:
            yield pickle.dumps(error)
        except Exception:
            yield pickle.dumps(CrashError(f"{type(error).__name__}: {error}"))


@contextmanager
def limited_memory(amount: int) -> Iterator[None]:
    """Lets this process, which is a child, allocate so many bytes more within the block, where the system has such limits.

    An allocation beyond them fails, which raises an error or ends the process.
    """
    try:
        import resource

        used = resource.getpagesize() * int(Path("/proc/self/statm").read_text().split()[5])
    except (ImportError, OSError):
        yield
        return
    before = resource.getrlimit(resource.RLIMIT_DATA)
    most = used + amount if before[1] == resource.RLIM_INFINITY else min(used + amount, before[1])
    resource.setrlimit(resource.RLIMIT_DATA, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


def _limit_resources() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of the terminal; the parent ends
    with suppress(ImportError, ValueError, OSError):  # where the system has no such limits
        import resource

        _, most = resource.getrlimit(resource.RLIMIT_AS)
        limit = MAX_BYTES if most == resource.RLIM_INFINITY else min(MAX_BYTES, most)
        resource.setrlimit(resource.RLIMIT_AS, (limit, most))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
