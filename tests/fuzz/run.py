"""Gives every parser of `targets.py` strange inputs, each under a limit of time and memory, and keeps those that are faults.

    python -m tests.fuzz.run                 # the kept inputs, and six new ones for each parser: what `make test` runs
    python -m tests.fuzz.run MINUTES         # new ones for so long, guided by coverage where atheris is installed
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
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
CORPUS = Path(__file__).parent / "corpus"
QUICK = int(os.environ.get("MMRETRIEVE_FUZZ", "1")) * 6  # new inputs for each parser without a time
MAX_INPUT, HANG_SECONDS = 1 << 20, 120
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
    """One parser: counts its inputs, and keeps one input of each kind of fault. `last` holds the input that is being tried."""

    def __init__(self, name: str, last: mmap.mmap) -> None:
        from tests.fuzz import targets

        self.name, self.target, self.targets, self.last = name, targets.TARGETS[name], targets, last
        self.seeds = [*self.target.seeds(), *(path.read_bytes() for path in sorted((CORPUS / name).glob("*")))]
        self.tried, self.faults = 0, dict[str, str]()

    def one(self, data: bytes) -> None:
        """Tries an input, and keeps it if its fault is new."""
        self.last[: 8 + len(data)] = len(data).to_bytes(8, "little") + data
        self.tried += 1
        try:
            with limited(self.targets.SECONDS):
                self.targets.check(self.target, data)
        except Exception as error:
            frames = [frame for frame in traceback.extract_tb(error.__traceback__) if ROOT.name in frame.filename]
            kind = f"{type(error).__name__} at {Path(frames[-1].filename).name}:{frames[-1].name}"
            if kind not in self.faults:
                self.faults[kind] = f"{keep(self.name, data)}: {kind}: {' '.join(str(error).split())[:200]}"


def keep(name: str, data: bytes) -> str:
    """Writes an input to the corpus. Returns where."""
    path = CORPUS / name / hashlib.sha256(data).hexdigest()[:12]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return f"{path.relative_to(ROOT)} ({len(data)} bytes)"


@contextmanager
def limited(seconds: int) -> Iterator[None]:
    """Raises TimeoutError within, after that time."""

    def late(*_: object) -> None:
        raise TimeoutError(f"took more than {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


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
    data = last[8 : 8 + int.from_bytes(last[:8], "little")]
    fault = f"{keep(name, data)}: the process {'hung' if is_silent else 'died'}"
    return {"tried": 0, "faults": [fault]}


def child(fuzzer: Fuzzer, seconds: float, is_guided: bool, sender: int) -> None:
    """Fuzzes in this process, which ends once it has sent its counts."""
    logging.disable(logging.CRITICAL)
    for data in fuzzer.seeds:
        fuzzer.one(data)
    limit = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() + fuzzer.targets.MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    ends = time.monotonic() + seconds

    def finish() -> None:
        os.write(sender, json.dumps({"tried": fuzzer.tried, "faults": list(fuzzer.faults.values())}).encode())
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
        words = ["-rss_limit_mb=0", f"-timeout={HANG_SECONDS}", "-verbosity=0", f"-max_len={MAX_INPUT // 2}", str(folder)]
        atheris.Setup([sys.argv[0], *words], one)
        atheris.Fuzz()
    dice, enough = random.Random(f"{fuzzer.name}{time.time_ns() if seconds else 0}"), len(fuzzer.seeds) + QUICK
    while seconds or fuzzer.tried < enough:
        one(mutated(dice, fuzzer.seeds)) if seconds else fuzzer.one(mutated(dice, fuzzer.seeds))
    finish()


def main(words: list[str]) -> int:
    """Fuzzes the parsers that are named, or all, and prints what was tried. 1 if there was a fault."""
    minutes, wanted = float(words[0]) if words else 0.0, words[1:]
    is_guided = minutes > 0 and find_spec("atheris") is not None
    with instrumented(is_guided):
        from tests.fuzz.targets import TARGETS
    names = [name for name in TARGETS if name in (wanted or TARGETS)]
    results = {name: fuzz(name, 60 * minutes / len(names), is_guided) for name in names}
    for name, result in results.items():
        sys.stdout.writelines(f"FAULT  {fault}\n" for fault in result["faults"])
        if minutes:
            sys.stdout.write(f"{name}: {result['tried']} inputs\n")
    tried, faults = (sum(counts) for counts in zip(*((r["tried"], len(r["faults"])) for r in results.values()), strict=True))
    way = "guided by coverage" if is_guided else "mutated"
    sys.stdout.write(f"{tried} inputs ({way}) for {len(names)} parsers, {faults} faults\n")
    return int(faults > 0)


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
