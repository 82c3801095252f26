"""What `python -m benchmarks` runs: each benchmark at a size of seconds, and the figures of its result that the overview shows."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from typing import Any, NamedTuple

from benchmarks.plots import Value


class Headline(NamedTuple):
    """A figure of a result: what it is, its unit, and the keys that lead to it. It is a number or a summary with a median."""

    label: str
    unit: str
    keys: tuple[str, ...]

    def read(self, result: Mapping[str, Any]) -> Value:
        value: Value = reduce(lambda part, key: part[key], self.keys, result)
        return value


class ShortRun(NamedTuple):
    """A benchmark, the arguments that keep it short, and its headlines."""

    name: str
    arguments: tuple[str, ...]
    headlines: tuple[Headline, ...]


def _peers(system: str) -> tuple[Headline, ...]:
    searches = ("data", "10,000 synthetic", "systems", system, "search")
    return (
        Headline(f"{system}, search", "ms of CPU", (*searches, "all", "CPU ms")),
        Headline(f"{system}, filter of 10 %", "ms of CPU", (*searches, "10 %", "CPU ms")),
    )


INDEXING = ("times as fast as the plain loop in processor time",)
FLAT_SEARCH = ("indexes", "flat", "hits", "10", "whole search")
SHORT_SET = (
    ShortRun(
        "starts",
        ("--runs", "1", "--models"),
        (
            Headline("search, an item", "s of CPU", ("seconds", "mmretrieve search, an item", "CPU")),
            Headline("search, an item and a prompt", "s of CPU", ("seconds", "mmretrieve search, an item and a prompt", "CPU")),
            Headline("server, an item and a prompt", "s of CPU", ("seconds", "server, an item and a prompt", "CPU")),
        ),
    ),
    ShortRun(
        "first",
        (),
        (
            Headline("plain loop", "images a second", ("images a second", "plain open_clip loop, float32, batches of 64")),
            Headline("index", "images a second", ("images a second", "index (decode, thumbnail, encode, commit)")),
            Headline("search", "ms", ("milliseconds", "search")),
            Headline("slider move", "ms", ("milliseconds", "slider move")),
        ),
    ),
    ShortRun(
        "dtypes",
        ("--photos", "16", "--rounds", "1"),
        (
            Headline("index, float32", "times the plain loop", (*INDEXING, "index, float32, exact decoding")),
            Headline("index, int8", "times the plain loop", (*INDEXING, "index, int8, exact decoding")),
        ),
    ),
    ShortRun(
        "growth",
        ("--sizes", "1000", "100000"),
        (
            Headline("add 1,000 to 100,000", "ms", ("sizes", "100000", "times", "add 1,000", "wall")),
            Headline("delete one of 100,000", "ms", ("sizes", "100000", "times", "delete one", "wall")),
            Headline("open 100,000", "ms", ("sizes", "100000", "times", "open", "wall")),
        ),
    ),
    ShortRun(
        "search",
        ("--sizes", "20000"),
        (
            Headline("whole search, 20,000", "ms over plain FAISS", ("sizes", "20000", *FLAT_SEARCH, "ms over plain FAISS")),
            Headline("three terms, 20,000", "ms", ("sizes", "20000", "all items", "term scores of three terms")),
            Headline("product rule, 20,000", "ms", ("sizes", "20000", "all items", "product rule")),
        ),
    ),
    ShortRun(
        "million",
        ("--sizes", "10000"),
        (
            Headline("flat, 10,000", "ms", ("sizes", "10000", "flat float16", "p50_ms")),
            Headline("IVF, 8 bits, 10,000", "ms", ("sizes", "10000", "IVF, 8 bits", "p50_ms")),
        ),
    ),
    ShortRun(
        "server",
        ("--seconds", "10"),
        (
            Headline("50 clients", "requests a second", ("requests a second",)),
            Headline("50 clients, p50", "ms", ("milliseconds", "p50")),
            Headline("50 clients, p99", "ms", ("milliseconds", "p99")),
            Headline("one client, p50", "ms", ("milliseconds of one client alone", "p50")),
        ),
    ),
    ShortRun(
        "peers",
        ("--sizes", "10000", "--queries", "100", "--systems", "mmretrieve", "FAISS flat", "FAISS IVF"),
        (*_peers("mmretrieve"), *_peers("FAISS flat"), *_peers("FAISS IVF")),
    ),
)
