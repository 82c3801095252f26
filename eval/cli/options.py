"""From the shell's words to a run: benchmark and parts, encoder, vectors, composer and weights, checked before anything is encoded."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from eval.benchmarks import load_suite
from eval.benchmarks.base import Benchmark
from eval.benchmarks.json_files import checksum
from eval.runs.compositions import MethodConfig, PromptOrder, compose
from eval.runs.features import features
from eval.runs.record import StageTimer, encoder_of, slug
from eval.runs.run import EvalRun, RunPart
from eval.runs.weight_settings import weighing
from mmretrieve import ComposerName, Parts, RuleName, Vocabulary
from mmretrieve.cli.arguments import chosen
from mmretrieve.composers import make_composer, parts_from
from mmretrieve.encoders.base import Progress
from mmretrieve.errors import OptionError
from mmretrieve.language.options import NAMED, LanguageOptions
from mmretrieve.options import Choice

if TYPE_CHECKING:
    from mmretrieve.encoders.openclip import OpenClipEncoder

RECORDED = (
    "composer",
    "rule",
    "pdv",
    "weights",
    "preprocessing",
    "reference",
    "concept",
    "prompt_orders",
    "phi",
    "allow_missing",
    "dtype",
)
LONGEST = 200  # letters of a name
PRIVATE = frozenset({"key", "endpoint", "memory", "timeout", "offline", "device"})


class ReferenceMode(Choice):
    """Whether the reference stays in the ranking, where a run says otherwise than the protocol."""

    KEEP = "keep"
    DROP = "drop"


def make_run(options: argparse.Namespace, split: str | None = None, *, measured: bool = True) -> EvalRun:
    """Everything that `run`, `sweep` and `submit` begin with: the benchmark, encoded and composed. `measured`: its targets are needed.

    Raises OptionError for words that contradict each other, MMRetrieveError for what cannot be read, loaded or composed.
    """
    suite = [_with_reference(part, options.reference) for part in load_suite(options.benchmark, options.root, split)]
    if measured:
        for benchmark in suite:
            benchmark.check_public()
    if options.name is not None and (Path(options.name).name != options.name or len(options.name) > LONGEST):
        raise OptionError(f"--name is the name of files, not a path, and at most {LONGEST} letters; got {options.name!r:.60}")
    speakers = _speakers(options)
    way = _way(options)
    encoder = _encoder(options)
    family = str(options.benchmark)
    told = weighing(
        getattr(options, "pdv", None),
        getattr(options, "weights", None),
        composer=way.composer,
        benchmark=family,
        model=encoder.identity.model,
        keep_rule=way.rule is not None,
    )
    make_composer(
        way.composer, encoder, _parts(speakers, encoder, options), score=lambda rows: rows, rule=way.rule or RuleName.LINEAR
    )
    watch = StageTimer()
    parts = [_part(benchmark, encoder, way, speakers, options, watch) for benchmark in suite]
    recorded = _recorded(options)
    name = options.name or slug(
        family, suite[0].split, encoder_of(encoder)["model"], way.composer, told.label, *_extras(recorded)
    )
    return EvalRun(name, family, encoder, way, told, parts, recorded, watch)


def _part(
    benchmark: Benchmark,
    encoder: OpenClipEncoder,
    way: MethodConfig,
    speakers: LanguageOptions,
    options: argparse.Namespace,
    watch: StageTimer,
) -> RunPart:
    with watch.on("encode images"), _bar(len(benchmark.gallery_ids), "pictures", benchmark.name) as bar:
        folder = None if options.features is None else _own(options.features, benchmark)
        benchmark, gallery = features(
            benchmark, encoder, folder, allow_missing=bool(options.allow_missing), progress=bar.update
        )
    with watch.on("compose"), _bar(len(benchmark.queries), "answers", benchmark.name) as bar:
        parts = _parts(speakers, encoder, options, benchmark.vocabulary, bar.update)
        return RunPart(benchmark, compose(benchmark, gallery, encoder, way, parts))


def _parts(
    speakers: LanguageOptions,
    encoder: OpenClipEncoder,
    options: argparse.Namespace,
    vocabulary: Vocabulary | None = None,
    progress: Progress | None = None,
) -> Parts:
    return parts_from(speakers, encoder, vocabulary=vocabulary, phi=options.phi, progress=progress)


def _own(folder: Path, benchmark: Benchmark) -> Path:
    """Of each part and split its own, in the folder that was named."""
    return folder / slug(benchmark.name, benchmark.split)


def _speakers(options: argparse.Namespace) -> LanguageOptions:
    """Who speaks. --allow-missing is about pictures, too, so it needs no file."""
    said = chosen(options, LanguageOptions)
    if not any(Path(str(said.get(role))).is_file() for role in NAMED):
        said.pop("allow_missing", None)
    return LanguageOptions(**said)


def _way(options: argparse.Namespace) -> MethodConfig:
    orders = None if options.prompt_orders is None else PromptOrder(options.prompt_orders)
    rule = None if options.rule is None else RuleName(options.rule)
    given = options.captioner is None
    if options.concept and not given:
        raise OptionError("give --concept or --captioner, not both")
    return MethodConfig(ComposerName(options.composer), rule, given, options.concept, orders)


def _encoder(options: argparse.Namespace) -> OpenClipEncoder:
    from mmretrieve.encoders.openclip import load_encoder  # torch only once the words make sense

    return load_encoder(options.encoder, device=options.device, dtype=options.dtype, preprocessing=options.preprocessing)


def _with_reference(benchmark: Benchmark, reference: str | None) -> Benchmark:
    if reference is None:
        return benchmark
    keeps = ReferenceMode(reference) is ReferenceMode.KEEP
    if benchmark.protocol.candidates_alone:
        raise OptionError(f"{benchmark.name}: the reference is never in the ranking; leave --reference out")
    if keeps is benchmark.protocol.keeps_reference:
        return benchmark
    said = f"{benchmark.name}: the reference {'stays in' if keeps else 'leaves'} the ranking, against the protocol"
    remark = "; ".join(filter(None, (benchmark.remark, said)))
    return replace(benchmark, protocol=replace(benchmark.protocol, keeps_reference=keeps), remark=remark)


def _recorded(options: argparse.Namespace) -> dict[str, Any]:
    """What was chosen, in plain values; of files the name and a checksum, and nothing that is private."""
    own = {name: getattr(options, name, None) for name in RECORDED}
    said = {name: value for name, value in chosen(options, LanguageOptions).items() if name not in PRIVATE}
    return {name: _plain(value) for name, value in (own | said).items()}


def _extras(recorded: Mapping[str, Any]) -> Iterator[str]:
    """What tells a run from another one of the same benchmark, encoder, composer and weights."""
    for name, value in recorded.items():
        if name not in ("composer", "pdv", "weights", "allow_missing") and value not in (None, False, "plain", "float32"):
            yield f"{name}={value}" if value is not True else name


def _plain(value: object) -> object:
    if isinstance(value, Path) or (isinstance(value, str) and Path(value).is_file()):
        return f"{Path(str(value)).name} {checksum(Path(str(value)))[:8]}"
    return value


@contextmanager
def _bar(total: int, unit: str, what: str) -> Iterator[Any]:
    with tqdm(total=total, unit=f" {unit}", desc=what, disable=None, file=sys.stderr, leave=False) as bar:
        yield bar
