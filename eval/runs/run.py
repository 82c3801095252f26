"""One method with one weight setting and one encoder, evaluated on a benchmark and its parts, and where its numbers come from."""

from __future__ import annotations

import platform
import subprocess
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval.benchmarks.base import Benchmark, BenchmarkQuery, Ranker
from eval.metrics import target_ranks
from eval.runs.compositions import EMPTY_PROMPT, ComposedBenchmark, MethodConfig, compose
from eval.runs.records import (
    SCORE_DIGITS,
    PartRecord,
    QueriesRecord,
    QueryResult,
    RankedTarget,
    RunRecord,
    ScoredItem,
    SingleTermResult,
    SubmissionRecord,
)
from eval.runs.weight_settings import BASE_SETTING, WeightSetting
from mmretrieve import ComposerName, Composition, Encoder, EncoderIdentity, Parts
from mmretrieve.language.options import ENDPOINT, RULES
from mmretrieve.options import BASE, CaptionerName, RewriterName, RuleName
from mmretrieve.registry import COMPOSERS

PACKAGES = ("mmretrieve", "torch", "open-clip-torch", "numpy", "pillow")  # whose versions a record has
MAX_HITS = 6  # best hits of each query in a record
SINGLE_TERMS = (ComposerName.IMAGE, ComposerName.PROMPT)  # composers of one term, whose results every run records
MAX_REMARKS = 5  # different remarks of compositions in a record
TEXT_ROLES = {"rewriter": RewriterName.TEMPLATE.value, "compiler": RULES, "describer": ENDPOINT, "editor": ENDPOINT}
"""The roles beside the captioner that make texts or pictures, and what fills each in the evaluation unless another is named."""


@dataclass
class StageTimer:
    """Seconds by stage."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Adds the time that the block takes to its stage."""
        started = time.perf_counter()
        yield
        self.seconds[stage] = round(self.seconds.get(stage, 0.0) + time.perf_counter() - started, 2)


@dataclass
class EvalRun:
    """A method, its weights and the parts it is evaluated on; `options` are recorded as they are."""

    name: str
    family: str
    encoder: Encoder
    config: MethodConfig
    setting: WeightSetting
    parts: Sequence[ComposedBenchmark]
    options: Mapping[str, Any]
    timer: StageTimer = field(default_factory=StageTimer)

    def evaluate(self, *, single_terms: bool = True) -> tuple[RunRecord, QueriesRecord]:
        """The record of the run, and the results of its queries.

        single_terms: whether the results say what the image and the prompt reach alone.
        """
        results: dict[str, tuple[QueryResult, ...]] = {}
        metrics: dict[str, dict[str, float]] = {}
        remarks: Counter[str] = Counter()
        for part in self.parts:
            with self.timer.measure("measure"):
                values, composed = _evaluate_part(part, self.setting)
            with self.timer.measure("single terms"):
                results[part.benchmark.name] = _add_single_terms(composed, part, self.encoder) if single_terms else composed
            metrics[part.benchmark.name] = part.benchmark.mean_metrics(values)
            remarks.update(c.remark for c in part.compositions if c.remark)
        record = RunRecord(
            kind="run",
            headline=self.parts[0].benchmark.protocol.headline,
            weighing=self.setting.label,
            metrics=average_parts(list(metrics.values())),
            parts={part.benchmark.name: describe_part(part.benchmark, metrics[part.benchmark.name]) for part in self.parts},
            remarks=tuple(self.list_remarks(remarks)),
            **self.record_fields(),
        )
        names = tuple(metric.name for metric in self.parts[0].benchmark.metrics)
        return record, QueriesRecord(name=self.name, metrics=names, parts=results)

    def describe_submission(self) -> SubmissionRecord:
        """How the ranked lists of a submission were made."""
        return SubmissionRecord(
            kind="submission",
            weighing=self.setting.label,
            parts={part.benchmark.name: describe_part(part.benchmark) for part in self.parts},
            remarks=tuple(self.list_remarks()),
            **self.record_fields(),
        )

    def record_fields(self) -> dict[str, Any]:
        """The fields that a run has in common with a sweep and a submission."""
        return {
            "name": self.name,
            "benchmark": self.family,
            "split": self.parts[0].benchmark.split,
            "label": self.label,
            "composer": str(self.config.composer),
            "rule": str(self.config.rule or RuleName.LINEAR),
            "options": dict(self.options),
            "encoder": describe_encoder(self.encoder),
            "provenance": collect_provenance(self.encoder, self.timer.seconds),
        }

    @property
    def label(self) -> str:
        """Method, sources of its texts and weights, for a table: "captions (tagger, template) + PDV-F 1.4/1.2/0.75"."""
        sources = f" ({', '.join(self.text_sources)})" if self.text_sources else ""
        rule = "" if self.config.rule is None else f", {self.config.rule} rule"
        method = f"{self.config.composer}{sources}{rule}{self._paraphrases}{self._judge}"
        return method if self.setting.label == BASE else f"{method} + {self.setting.label}"

    @property
    def text_sources(self) -> tuple[str, ...]:
        """Where the captions of references come from, and what rewrites them and compiles roles, as far as the composer uses each."""
        uses = COMPOSERS[self.config.composer].uses
        names = {"captioner": self._captioner} | {
            role: str(self.options.get(role) or name) for role, name in TEXT_ROLES.items()
        }
        return tuple(name for role, name in names.items() if role in uses)

    @property
    def _paraphrases(self) -> str:
        return "" if self.config.paraphrases == 1 else f", {self.config.paraphrases} wordings"

    @property
    def _judge(self) -> str:
        config = self.config
        return "" if config.judge is None else f", judge {config.judge} of {config.judge_k} at {config.judge_weight:g}"

    @property
    def _captioner(self) -> str:
        if self.config.concept:
            return "concept"
        if any(self.config.caption(query) is not None for part in self.parts for query in part.benchmark.queries):
            return "benchmark captions"
        return str(self.options.get("captioner") or CaptionerName.TAGGER)

    def list_remarks(self, of_compositions: Mapping[str, int] | None = None) -> list[str]:
        """What a reader of the numbers must know: of the data, of empty prompts, and the most frequent of compositions."""
        remarks = [part.benchmark.remark for part in self.parts if part.benchmark.remark]
        for part in self.parts:
            empty = sum(not query.prompts[0].strip() for query in part.benchmark.queries)
            if empty:
                prompts = "empty prompt" if empty == 1 else "empty prompts"
                remarks.append(f"{part.benchmark.name}: {empty} {prompts} replaced by {EMPTY_PROMPT!r}")
        counts = Counter(of_compositions or {}).most_common(MAX_REMARKS)
        return remarks + [f"{count:,} queries: {remark}" for remark, count in counts]


def describe_encoder(encoder: Encoder) -> EncoderIdentity:
    """The identity of an encoder; of a local one the name of its folder, not its path."""
    return encoder.identity.without_folder()


def describe_part(benchmark: Benchmark, metrics: Mapping[str, float] | None = None) -> PartRecord:
    """The data that a part of a record was measured on, and its metrics, where there are any."""
    measured: dict[str, Any] = {} if metrics is None else {"metrics": dict(metrics)}
    return PartRecord(
        **measured,
        queries=len(benchmark.queries),
        gallery=len(benchmark.gallery_ids),
        keeps_reference=benchmark.protocol.keeps_reference,
        checksum=benchmark.checksum,
        remark=benchmark.remark,
    )


def collect_provenance(encoder: Encoder, seconds: Mapping[str, float]) -> dict[str, Any]:
    """Versions, commit, machine, device, dtype and seconds by stage."""
    return {
        "versions": {name: version(name) for name in PACKAGES},
        "commit": _commit(),
        "machine": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "device": str(getattr(encoder, "device", "")),
        "dtype": str(getattr(encoder, "dtype", "")).removeprefix("torch."),
        "seconds": dict(seconds),
    }


def average_parts(metrics: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Metric → unweighted mean over the parts; a metric that a part does not have is left out.

    >>> average_parts([{"recall@1": 10.0, "map@5": 1.0}, {"recall@1": 30.0}])
    {'recall@1': 20.0}
    """
    common = [name for name in metrics[0] if all(name in part for part in metrics)]
    return {name: float(np.mean([part[name] for part in metrics])) for name in common}


def _evaluate_part(part: ComposedBenchmark, setting: WeightSetting) -> tuple[NDArray[np.float64], tuple[QueryResult, ...]]:
    """(queries, metrics) ×100, and the result of each query."""
    results: list[QueryResult] = []

    def rankers() -> Iterator[Ranker]:
        weighed = part.weighed(lambda composition: setting.weigh(composition, part.spread))
        for query, (composition, contributions) in zip(part.benchmark.queries, weighed, strict=True):
            scores = np.sum(list(contributions.values()), axis=0)
            yield partial(target_ranks, scores)
            results.append(_describe_query(part.benchmark, query, composition, contributions, scores))

    values = part.benchmark.rank_table(rankers()).values
    rounded = [tuple(None if np.isnan(v) else round(float(v), SCORE_DIGITS) for v in row) for row in values]
    return values, tuple(result.model_copy(update={"values": row}) for result, row in zip(results, rounded, strict=True))


def _add_single_terms(results: Sequence[QueryResult], part: ComposedBenchmark, encoder: Encoder) -> tuple[QueryResult, ...]:
    """The results, each with what `--composer image` and `--composer prompt` reach for its query."""
    by_term = {
        name.value: _evaluate_part(compose(part.benchmark, part.gallery, encoder, MethodConfig(name), Parts()), BASE_SETTING)[1]
        for name in SINGLE_TERMS
    }
    return tuple(
        result.model_copy(update={"single_terms": {name: _shorten(single[i]) for name, single in by_term.items()}})
        for i, result in enumerate(results)
    )


def _shorten(result: QueryResult) -> SingleTermResult:
    assert result.target is not None  # a run measures only public targets
    return SingleTermResult(rank=result.target.rank, hits=tuple(hit.id for hit in result.hits), values=result.values)


def _describe_query(
    benchmark: Benchmark,
    query: BenchmarkQuery,
    composition: Composition,
    contributions: Mapping[str, NDArray[np.float64]],
    scores: NDArray[np.float64],
) -> QueryResult:
    """A query's result, still without values: its best target and best hits, with the contribution of each term to them."""

    def score_item(row: int) -> dict[str, Any]:
        return {
            "id": benchmark.gallery_ids[row],
            "score": round(float(scores[row]), SCORE_DIGITS),
            "contributions": {
                name: round(float(values[row]), SCORE_DIGITS) for name, values in contributions.items() if values[row]
            },
        }

    task = benchmark.ranking_task(query, subset=benchmark.protocol.candidates_alone)
    best_target = max(task.targets, key=lambda row: scores[row])
    return QueryResult(
        id=query.id,
        reference=query.reference,
        prompt=query.prompts[0],
        targets=query.targets,
        words=dict(composition.words),
        target=RankedTarget(**score_item(best_target), rank=int(target_ranks(scores, task)[0])),
        hits=tuple(ScoredItem(**score_item(row)) for row in benchmark.top_rows(query, scores, MAX_HITS)),
        values=(),
    )


def _commit() -> str | None:
    """The commit of the checkout, with a plus where it has changes; None outside a checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty=+"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() or None
    except (OSError, subprocess.CalledProcessError):
        return None
