"""Searches with and without an answer, to measure `answerable`: queries with their targets, without them, and of other domains.

Each query is searched three times: in the whole gallery ("present"), in the gallery without every item that would satisfy it
("removed"), and with a prompt that fits nothing in the gallery ("foreign"). The reference is never in the gallery.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import cycle
from typing import Any
from zlib import crc32

from eval.benchmarks import Benchmark, BenchmarkName, BenchmarkQuery
from eval.studies.inputs import held_out_queries

PRESENT, REMOVED, FOREIGN = "present", "removed", "foreign"
NOUN_FIELDS = ("article", "kind")  # fields that name what an item is
PROMPT_FIELDS = ("colour", "pattern", "sleeves", "neckline", *NOUN_FIELDS)  # fields whose values are used as prompts
MIN_ITEMS = 3  # that a phrase must be true of to be used as a prompt
FOREIGN_PROMPTS = {
    BenchmarkName.WARDROBE: (
        "refrigerator", "asdf qwertz", "a steam train", "bicycle", "with a dog", "eiffel tower", "a handbag", "pizza",
        "lorem ipsum", "mountain lake", "made of glass", "with a microphone", "sushi", "a giraffe", "xkcd",
    ),
    BenchmarkName.CATALOGUE: (
        "refrigerator", "asdf qwertz", "a steam train", "bicycle", "with a dog", "eiffel tower", "a castle", "pizza",
        "lorem ipsum", "mountain lake", "a sofa", "with a microphone", "sushi", "a giraffe", "xkcd",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class AnswerableCase:
    """A request to `Retriever.search`, its case, and whether it belongs to the held-out half."""

    case: str
    held_out: bool
    request: Mapping[str, Any]


def composed_cases(benchmark: Benchmark, captions: Mapping[str, str | None] | None = None) -> Iterator[AnswerableCase]:
    """The three cases of every query; the halves share no foreign prompt. captions: reference id → caption."""
    foreign = _foreign_prompts(benchmark.name)
    for query, held_out in zip(benchmark.queries, held_out_queries(benchmark).tolist(), strict=True):
        request: dict[str, Any] = {"reference_id": query.reference, "prompt": query.prompts[0]}
        if captions is not None:
            request["caption"] = captions[query.reference]
        without_answers = {"exclude": [query.reference, *find_satisfying(benchmark, query)]}
        yield AnswerableCase(PRESENT, held_out, request | {"exclude": [query.reference]})
        yield AnswerableCase(REMOVED, held_out, request | without_answers)
        yield AnswerableCase(FOREIGN, held_out, request | {"prompt": next(foreign[held_out]), "exclude": [query.reference]})


def text_cases(benchmark: Benchmark) -> Iterator[AnswerableCase]:
    """The three cases of prompts without a reference that are made of the items' fields ("red", "red dress")."""
    foreign = _foreign_prompts(benchmark.name)
    for phrase, ids in list_phrases(benchmark).items():
        held_out = crc32(phrase.encode()) % 2 == 1
        yield AnswerableCase(PRESENT, held_out, {"prompt": phrase})
        yield AnswerableCase(REMOVED, held_out, {"prompt": phrase, "exclude": ids})
        yield AnswerableCase(FOREIGN, held_out, {"prompt": next(foreign[held_out])})


def image_cases(benchmark: Benchmark, other: Benchmark) -> Iterator[AnswerableCase]:
    """References without a prompt: those of the benchmark, and as many images of another one."""
    for i, (query, foreign) in enumerate(zip(_by_reference(benchmark), _by_reference(other), strict=False)):
        yield AnswerableCase(PRESENT, i % 2 == 1, {"reference_id": query.reference, "exclude": [query.reference]})
        yield AnswerableCase(FOREIGN, i % 2 == 1, {"image": str(other.image_path(foreign.reference))})


def two_prompt_cases(benchmark: Benchmark) -> Iterator[tuple[AnswerableCase, AnswerableCase]]:
    """Queries that change two attributes, with one prompt ("red and striped") and with two ("red", "striped")."""
    for query, held_out in zip(benchmark.queries, held_out_queries(benchmark).tolist(), strict=True):
        values = [str(benchmark.fields[query.targets[0]][name]) for name in query.tags]
        if len(values) == 2:
            request = {"reference_id": query.reference, "exclude": [query.reference]}
            yield (
                AnswerableCase(PRESENT, held_out, request | {"prompt": " and ".join(values)}),
                AnswerableCase(PRESENT, held_out, request | {"prompt": values}),
            )


def find_satisfying(benchmark: Benchmark, query: BenchmarkQuery) -> list[str]:
    """The items of the target's kind with the changed attributes. They are more than the targets, which resemble the reference."""
    target = benchmark.fields[query.targets[0]]
    wanted = {name: target[name] for name in (*query.tags, *NOUN_FIELDS) if name in target}
    return [id_ for id_, fields in benchmark.fields.items() if all(fields[name] == value for name, value in wanted.items())]


def list_phrases(benchmark: Benchmark) -> dict[str, list[str]]:
    """Phrases made of the items' fields → the items that they are true of."""
    ids: dict[str, list[str]] = {}
    for id_, fields in benchmark.fields.items():
        values = {name: str(fields[name]) for name in PROMPT_FIELDS if fields.get(name)}
        pairs = [f"{values['colour']} {values[noun]}" for noun in NOUN_FIELDS if noun in values and "colour" in values]
        for phrase in {*values.values(), *pairs}:
            ids.setdefault(phrase, []).append(id_)
    return {phrase: ids[phrase] for phrase in sorted(ids) if len(ids[phrase]) >= MIN_ITEMS}


def _foreign_prompts(name: str) -> dict[bool, Iterator[str]]:
    """Whether held out → an endless sequence of prompts that fit nothing; the halves share none."""
    prompts = FOREIGN_PROMPTS[BenchmarkName(name)]
    return {False: cycle(prompts[::2]), True: cycle(prompts[1::2])}


def _by_reference(benchmark: Benchmark) -> list[BenchmarkQuery]:
    """One query for each reference."""
    return list({query.reference: query for query in benchmark.queries}.values())
