"""Gives every parser of `targets.py` strange inputs, each under a limit of time and memory, and keeps those that are faults.

    python -m tests.fuzz.run                 # the kept inputs, composed and mutated ones for each parser: what `make test` runs
    python -m tests.fuzz.run MINUTES         # half of the time composed, then guided by coverage where atheris is installed
    python -m tests.fuzz.run MINUTES NAME …  # of these parsers only

An input that is a fault is written to `corpus/NAME/`; it stays there as a regression test once it is mended. Exit status 1: a fault.
"""

from __future__ import annotations

import hashlib
import json
import logging
import mmap
import os
import random
import resource
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, find, given, settings

ROOT = Path(__file__).parents[2]
CORPUS = Path(__file__).parent / "corpus"
FUZZ = int(os.environ.get("MMRETRIEVE_FUZZ", "1"))
EXAMPLES, MUTANTS = FUZZ * 5, FUZZ * 2  # composed and mutated inputs for each parser, without a time
ENOUGH = 50  # composed inputs of which at least one must be right
MAX_INPUT, MAX_SEEDS, HANG_SECONDS, SHRINK_SECONDS = 1 << 25, 30, 120, 5
STRANGE = [None, True, -1, 0, 2**63, 10**400, 1e308, float("nan"), "", "\0", "\ud83d", "a" * 5_000, "../..", [], {}, [[]] * 50]
TOKENS = [
    b"\0",
    b"\xff\xfe",
    b'"',
    b"'",
    b"--",
    b"\r\n",
    b"%",
    b"\xf0\x9f\x98",
    b"9" * 5_000,
    b"[" * 2_000,
    b"(" * 500,
    b"NaN",
    b"-0",
]


class Fuzzer:
    """One parser: counts its inputs, and keeps one input of each kind of fault. `last` holds the input that is being tried.

    `seeds` are inputs to mutate: those of the corpus, and the first ones that it accepts.
    """

    def __init__(self, name: str, last: mmap.mmap) -> None:
        from tests.fuzz import targets

        self.name, self.target, self.targets, self.last = name, targets.TARGETS[name], targets, last
        self.seeds = [path.read_bytes() for path in sorted((CORPUS / name).glob("*"))]
        self.tried, self.accepted, self.faults = 0, 0, dict[str, str]()

    def one(self, data: bytes) -> None:
        """Tries an input, and keeps it if its fault is new."""
        try:
            self.attempt(data)
        except Exception as error:
            self.keep(error)

    def attempt(self, data: bytes) -> None:
        """Tries an input. Raises its fault."""
        self.last[: 8 + len(data)] = len(data).to_bytes(8, "little") + data
        self.tried += 1
        with limited(self.targets.SECONDS, self.targets.CPU_SECONDS):
            is_accepted = self.targets.check(self.target, data)
        self.accepted += is_accepted
        if is_accepted and len(self.seeds) < MAX_SEEDS:
            self.seeds.append(data)

    def keep(self, error: Exception, data: bytes | None = None) -> None:
        """Keeps an input, the last one if none is given, if its fault is new."""
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if ROOT.name in frame.filename]
        kind = f"{type(error).__name__} at {Path(frames[-1].filename).name}:{frames[-1].name}"
        if kind not in self.faults:
            path = keep(self.name, last_input(self.last) if data is None else data)
            self.faults[kind] = f"{path}: {kind}: {' '.join(str(error).split())[:200]}"

    def compose(self, examples: int, *, is_random: bool) -> None:
        """Tries inputs that the grammar of the parser composes. A fault ends it, once its input was made smaller for a while."""
        from tests.fuzz.grammars import GRAMMARS

        faults: list[tuple[Exception, bytes]] = []
        ends = float("inf")

        @settings(
            max_examples=examples,
            derandomize=not is_random,
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            report_multiple_bugs=False,
        )
        @given(GRAMMARS[self.name])
        def compose(data: bytes) -> None:
            nonlocal ends
            if time.monotonic() > ends:
                raise SmallEnough
            try:
                self.attempt(data)
            except Exception as error:
                faults.append((error, data))
                ends = min(ends, time.monotonic() + SHRINK_SECONDS)
                raise

        with suppress(Exception, SmallEnough):
            compose()
        if faults:
            self.keep(*min(faults, key=lambda fault: len(fault[1])))


class SmallEnough(KeyboardInterrupt):
    """Ends Hypothesis, which lets no other exception pass."""


def last_input(last: mmap.mmap) -> bytes:
    return last[8 : 8 + int.from_bytes(last[:8], "little")]


def keep(name: str, data: bytes) -> str:
    """Writes an input to the corpus. Returns where."""
    path = CORPUS / name / hashlib.sha256(data).hexdigest()[:12]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return f"{path.relative_to(ROOT)} ({len(data)} bytes)"


@contextmanager
def limited(seconds: float, cpu_seconds: float) -> Iterator[None]:
    """Raises TimeoutError within, after that time, or that time of the processor."""

    def late(*_: object) -> None:
        raise TimeoutError(f"took more than {seconds:g} s, or {cpu_seconds:g} s of the processor")

    timers = {signal.ITIMER_REAL: (signal.SIGALRM, seconds), signal.ITIMER_PROF: (signal.SIGPROF, cpu_seconds)}
    before = {number: signal.signal(number, late) for number, _ in timers.values()}
    for timer, (_, limit) in timers.items():
        signal.setitimer(timer, limit)
    try:
        yield
    finally:
        for timer in timers:
            signal.setitimer(timer, 0)
        for number, handler in before.items():
            signal.signal(number, handler)


def mutated(dice: random.Random, seeds: list[bytes]) -> bytes:
    """One of the seeds with a few changes: of a JSON value in one of its places, or of bytes."""
    data = dice.choice(seeds)
    if dice.random() < 0.5:
        try:
            return json.dumps(replaced(dice, json.loads(data))).encode()
        except (ValueError, RecursionError):
            pass
    for _ in range(dice.randint(1, 4)):
        at, end = sorted(dice.randrange(len(data) + 1) for _ in range(2))
        end = min(end, at + 64)
        data = dice.choice(
            [
                data[:at] + data[end:],
                data[:at] + data[at:end] * dice.choice([2, 50]) + data[end:],
                data[:at] + dice.randbytes(max(1, end - at)) + data[end:],
                data[:at] + dice.choice(TOKENS) + data[end:],
                data[:at] + dice.choice(seeds)[at:],
                bytes(byte ^ (1 << dice.randrange(8)) if i == at else byte for i, byte in enumerate(data)),
            ]
        )
    return data


def replaced(dice: random.Random, value: Any) -> Any:
    """A JSON value with something strange in one of its places."""
    if isinstance(value, dict) and value and dice.random() < 0.8:
        key = dice.choice(list(value))
        return {**value, (dice.choice(["", "\0", key * 2]) if dice.random() < 0.1 else key): replaced(dice, value[key])}
    if isinstance(value, list) and value and dice.random() < 0.8:
        at = dice.randrange(len(value))
        return [*value[:at], replaced(dice, value[at]), *value[at + 1 :]]
    return dice.choice(STRANGE)


def fuzz(name: str, seconds: float, is_guided: bool) -> dict[str, Any]:
    """Fuzzes one parser in a process of its own. Returns its counts; a process that dies or hangs is a fault of its last input."""
    last, (receiver, sender) = mmap.mmap(-1, MAX_INPUT), os.pipe()
    process = os.fork()
    if process == 0:
        try:
            child(Fuzzer(name, last), seconds, is_guided, sender)
        except BaseException:
            traceback.print_exc()
        os._exit(1)
    os.close(sender)
    is_silent = not select.select([receiver], [], [], seconds + HANG_SECONDS)[0]
    with open(receiver, encoding="utf-8") as pipe:
        if is_silent:
            os.kill(process, signal.SIGKILL)
        answer = pipe.read()
    os.waitpid(process, 0)
    if answer:
        return dict(json.loads(answer))
    fault = f"{keep(name, last_input(last))}: the process {'hung' if is_silent else 'died'}"
    return {"tried": 0, "composed": 0, "accepted": 0, "faults": [fault]}


def child(fuzzer: Fuzzer, seconds: float, is_guided: bool, sender: int) -> None:
    """Fuzzes in this process, which ends once it has sent its counts: kept inputs, composed ones, then those that are made of these."""
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    tempfile.tempdir = tempfile.mkdtemp()
    prepare(fuzzer)
    limit = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() + fuzzer.targets.MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    for data in list(fuzzer.seeds):
        fuzzer.one(data)
    kept, started = fuzzer.tried, time.monotonic()
    fuzzer.accepted = 0
    fuzzer.compose(EXAMPLES, is_random=seconds > 0)
    while time.monotonic() < started + seconds / 2 and not fuzzer.faults:
        fuzzer.compose(EXAMPLES, is_random=True)
    counts = {"composed": fuzzer.tried - kept, "accepted": fuzzer.accepted}
    fuzzer.seeds = fuzzer.seeds or [b""]
    ends = time.monotonic() + seconds / 2

    def finish() -> None:
        os.write(sender, json.dumps({"tried": fuzzer.tried, "faults": list(fuzzer.faults.values())} | counts).encode())
        shutil.rmtree(tempfile.gettempdir(), ignore_errors=True)
        os._exit(0)

    def one(data: bytes) -> None:
        fuzzer.one(data)
        if time.monotonic() > ends:
            finish()

    if is_guided:
        import atheris

        folder = Path(tempfile.mkdtemp())
        for number, data in enumerate(fuzzer.seeds):
            (folder / str(number)).write_bytes(data)
        words = ["-rss_limit_mb=0", f"-timeout={HANG_SECONDS}", "-verbosity=0", f"-max_len={MAX_INPUT // 64}", str(folder)]
        atheris.Setup([sys.argv[0], *words], one)
        atheris.Fuzz()
    dice, enough = random.Random(f"{fuzzer.name}{time.time_ns() if seconds else 0}"), fuzzer.tried + MUTANTS
    while seconds or fuzzer.tried < enough:
        one(mutated(dice, fuzzer.seeds)) if seconds else fuzzer.one(mutated(dice, fuzzer.seeds))
    finish()


def prepare(fuzzer: Fuzzer) -> None:
    """Loads what the first input of a parser loads, without a limit."""
    from tests.fuzz.grammars import GRAMMARS

    with suppress(Exception):
        fuzzer.targets.check(
            fuzzer.target,
            find(
                GRAMMARS[fuzzer.name], lambda _: True, settings=settings(database=None, max_examples=1, phases=[Phase.generate])
            ),
        )


def reported(name: str, seconds: float, is_guided: bool) -> dict[str, Any]:
    """Fuzzes one parser, prints what was seen, and returns its counts."""
    result = fuzz(name, seconds, is_guided)
    if result["composed"] >= ENOUGH and not result["accepted"] and not result["faults"]:
        result["faults"].append(f"{name}: none of {result['composed']} composed inputs is right, so only refusals are tested")
    sys.stdout.writelines(f"FAULT  {fault}\n" for fault in result["faults"])
    share = result["accepted"] / max(1, result["composed"])
    sys.stdout.write(f"{name}: {result['tried']} inputs, {share:.0%} of {result['composed']} composed ones right\n")
    sys.stdout.flush()
    return result


def main(words: list[str]) -> int:
    """Fuzzes the parsers that are named, or all, and prints what was tried. 1 if there was a fault."""
    minutes, wanted = float(words[0]) if words else 0.0, words[1:]
    is_guided = minutes > 0 and find_spec("atheris") is not None
    with instrumented(is_guided):  # here, so that the processes of the parsers need not import them
        from tests.fuzz import grammars  # noqa: F401
        from tests.fuzz.targets import TARGETS
    names = [name for name in TARGETS if name in (wanted or TARGETS)]
    results = {name: reported(name, 60 * minutes / len(names), is_guided) for name in names}
    tried, composed, faults = (sum(counts) for counts in zip(*map(_counts, results.values()), strict=True))
    way = "guided by coverage" if is_guided else "mutated"
    sys.stdout.write(
        f"{tried} inputs ({composed} composed, the others kept or {way}) for {len(names)} parsers, {faults} faults\n"
    )
    return int(faults > 0)


def _counts(result: dict[str, Any]) -> tuple[int, int, int]:
    return result["tried"], result["composed"], len(result["faults"])


@contextmanager
def instrumented(is_guided: bool) -> Iterator[None]:
    """Modules of the project that are imported within tell atheris what they run."""
    if not is_guided:
        yield
        return
    import atheris

    with atheris.instrument_imports(include=["mmretrieve", "eval"]):
        yield


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT / "tests"))
    sys.exit(main(sys.argv[1:]))
