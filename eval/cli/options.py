"""From the options of a command to a run: benchmark, encoder, vectors, composer and weights, checked before anything is encoded."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from eval.benchmarks import Benchmark, load_suite
from eval.files import file_checksum
from eval.runs.compositions import EMPTY_PROMPT, ComposedBenchmark, MethodConfig, PromptOrder, compose
from eval.runs.features import encode_gallery
from eval.runs.run import EvalRun, StageTimer, describe_encoder
from eval.runs.weight_settings import make_weight_setting
from mmretrieve import RuleName
from mmretrieve.cli.arguments import given_fields, search_fields
from mmretrieve.composers import make_composer, parts_from
from mmretrieve.encoders.base import NamedEncoder, Progress
from mmretrieve.errors import OptionError
from mmretrieve.judges.factory import register_judge_of
from mmretrieve.language.options import BACKENDS, LanguageOptions
from mmretrieve.options import OptionEnum
from mmretrieve.request import SearchRequest

SEARCH_FIELDS = ("paraphrases", "judge", "judge_k", "judge_weight")  # that a run has in common with a search
RECORDED = (
    "composer",
    "rule",
    "pdv",
    "weights",
    "preprocessing",
    "reference",
    "concept",
    "prompt_orders",
    *SEARCH_FIELDS,
    "phi",
    "allow_missing",
    "dtype",
)
UNNAMED = ("composer", "pdv", "weights", "allow_missing")  # not in file names, or already there as a label
DEFAULTS = (None, False, "plain", "float32")  # values that are left out of file names
MAX_NAME_LENGTH = 200
PRIVATE = frozenset({"key", "endpoint", "memory", "timeout", "offline", "device"})


class ReferenceMode(OptionEnum):
    """Whether the reference stays in the ranking, where a run departs from the protocol."""

    KEEP = "keep"
    DROP = "drop"


def make_run(options: argparse.Namespace, split: str | None = None, *, needs_targets: bool = True) -> EvalRun:
    """The start of `run`, `sweep` and `submit`: the benchmark, encoded and composed.

    Parameters
    ----------
    options : parsed arguments.
    split : of the benchmark; None means its default.
    needs_targets : whether the targets of the split must be public.

    Raises
    ------
    OptionError : options contradict each other.
    MMRetrieveError : something cannot be read, loaded or composed.
    """
    suite = [_apply_reference_mode(part, options.reference) for part in load_suite(options.benchmark, options.root, split)]
    if needs_targets:
        for benchmark in suite:
            benchmark.check_public()
    _check_name(options.name)
    language = _language_options(options)
    register_judge_of(language)
    config = _method_config(options)
    encoder = _load_encoder(options)
    family = str(options.benchmark)
    setting = make_weight_setting(
        getattr(options, "pdv", None),
        getattr(options, "weights", None),
        composer=config.composer,
        benchmark=family,
        model=encoder.identity.model,
        keep_rule=config.rule is not None,
    )
    parts = parts_from(language, encoder, phi=options.phi)
    make_composer(config.composer, encoder, parts, score=lambda rows: rows, rule=config.rule or RuleName.LINEAR)  # checks it
    timer = StageTimer()
    run_parts = [_make_part(benchmark, encoder, config, language, options, timer) for benchmark in suite]
    recorded = _recorded_options(options)
    model = describe_encoder(encoder).model
    name = options.name or file_slug(family, suite[0].split, model, config.composer, setting.label, *_name_extras(recorded))
    return EvalRun(name, family, encoder, config, setting, run_parts, recorded, timer)


def file_slug(*parts: str) -> str:
    """A file name made of several parts: letters, digits, dots and commas stay, other characters become hyphens.

    >>> file_slug("cirr", "val", "PDV-F -1/1.2/0.5")
    'cirr_val_PDV-F-minus1-1.2-0.5'
    """
    spelled = (re.sub(r"(?<![A-Za-z0-9.])-(?=[\d.])", "minus", part).replace("+", "plus") for part in parts if part)
    return "_".join(re.sub(r"[^A-Za-z0-9.,=]+", "-", part).strip("-") for part in spelled)


def _make_part(
    benchmark: Benchmark,
    encoder: NamedEncoder,
    config: MethodConfig,
    language: LanguageOptions,
    options: argparse.Namespace,
    timer: StageTimer,
) -> ComposedBenchmark:
    folder = None if options.features is None else options.features / file_slug(benchmark.name, benchmark.split)
    with timer.measure("encode images"), _progress_bar(len(benchmark.gallery_ids), "images", benchmark.name) as advance:
        benchmark, gallery = encode_gallery(
            benchmark, encoder, folder, allow_missing=bool(options.allow_missing), progress=advance
        )
    with timer.measure("compose"), _progress_bar(len(benchmark.queries), "answers", benchmark.name) as advance:
        parts = parts_from(language, encoder, vocabulary=benchmark.vocabulary, phi=options.phi, progress=advance)
        return compose(benchmark, gallery, encoder, config, parts)


def _check_name(name: str | None) -> None:
    if name is not None and (Path(name).name != name or len(name) > MAX_NAME_LENGTH):
        raise OptionError(
            f"--name should be the name of files, not a path, with at most {MAX_NAME_LENGTH} characters; got {name!r:.60}"
        )


def _language_options(options: argparse.Namespace) -> LanguageOptions:
    """Captioner, rewriter and their options. --allow-missing applies to images too, so it does not need a file of texts."""
    values = given_fields(options, LanguageOptions)
    if not any(os.path.isfile(str(values.get(role))) for role in BACKENDS):
        values.pop("allow_missing", None)
    return LanguageOptions(**values)


def _method_config(options: argparse.Namespace) -> MethodConfig:
    orders = None if options.prompt_orders is None else PromptOrder(options.prompt_orders)
    if options.concept and options.captioner is not None:
        raise OptionError("give --concept or --captioner, not both")
    request = SearchRequest.parse(prompt=EMPTY_PROMPT, **search_fields(options, SEARCH_FIELDS))  # checks them
    return MethodConfig(
        options.composer,
        options.rule,
        options.captioner is None,
        options.concept,
        orders,
        request.paraphrases,
        options.judge,
        request.judge_k,
        float(request.judge_weight),
    )


def _load_encoder(options: argparse.Namespace) -> NamedEncoder:
    from mmretrieve.encoders.loading import load_encoder  # imports torch, once the options are valid

    return load_encoder(options.encoder, device=options.device, dtype=options.dtype, preprocessing=options.preprocessing)


def _apply_reference_mode(benchmark: Benchmark, mode: str | None) -> Benchmark:
    if mode is None:
        return benchmark
    keeps = ReferenceMode(mode) is ReferenceMode.KEEP
    if benchmark.protocol.candidates_alone:
        raise OptionError(f"{benchmark.name}: the reference is never in the ranking; leave --reference out")
    if keeps is benchmark.protocol.keeps_reference:
        return benchmark
    departure = f"{benchmark.name}: the reference {'stays in' if keeps else 'leaves'} the ranking, against the protocol"
    remark = "; ".join(filter(None, (benchmark.remark, departure)))
    return replace(benchmark, protocol=replace(benchmark.protocol, keeps_reference=keeps), remark=remark)


def _recorded_options(options: argparse.Namespace) -> dict[str, Any]:
    """The options for the record, as plain values: the name and a checksum of files, and nothing private."""
    own = {name: getattr(options, name, None) for name in RECORDED}
    language = {name: value for name, value in given_fields(options, LanguageOptions).items() if name not in PRIVATE}
    return {name: _to_plain(value) for name, value in (own | language).items()}


def _name_extras(recorded: Mapping[str, Any]) -> Iterator[str]:
    """The options that tell a run from another one with the same benchmark, encoder, composer and weights."""
    for name, value in recorded.items():
        if name not in UNNAMED and value not in DEFAULTS:
            yield f"{name}={value}" if value is not True else name


def _to_plain(value: object) -> object:
    if isinstance(value, Path) or (isinstance(value, str) and os.path.isfile(value)):
        return f"{Path(str(value)).name} {file_checksum(Path(str(value)))[:8]}"
    return value


@contextmanager
def _progress_bar(total: int, unit: str, title: str) -> Iterator[Progress]:
    with tqdm(total=total, unit=f" {unit}", desc=title, disable=None, file=sys.stderr, leave=False) as bar:
        yield bar.update
