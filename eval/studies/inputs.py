"""What studies measure: methods, captions of every source, a held-out half, a temporary retriever, and a phi where there is none."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from eval.benchmarks import Benchmark, BenchmarkName
from eval.runs.compositions import MethodConfig
from mmretrieve import (
    PDV,
    PUBLISHED,
    ComposerName,
    Encoder,
    Gallery,
    MMRetrieveError,
    Parts,
    Retriever,
    RuleName,
    Vocabulary,
    wardrobe,
)
from mmretrieve.encoders.openclip import require_open_clip
from mmretrieve.inversion.recipe import PhiRecipe
from mmretrieve.inversion.train import train_phi
from mmretrieve.language.fields import caption_from_fields, vocabulary_from_fields
from mmretrieve.language.rewriters import SwapRewriter
from mmretrieve.language.vocabulary import GENERAL, default_vocabulary
from mmretrieve.options import JudgeName, OptionEnum
from mmretrieve.vectors import Float32
from mmretrieve.wardrobe.captions import caption

ARTICLE_FIELD = "article"
ALL, HELD_OUT = "all", "held-out"  # the queries that results are reported on
PHI_RECIPE = PhiRecipe(steps=1500, batch=128, learning_rate=3e-4, validate_every=250)
MAX_SENTENCES = 40_000


class CaptionSetup(OptionEnum):
    """Where captions come from; the vocabulary of the swap rewriter has the same source."""

    GENERAL = "tagged, general vocabulary"
    OWN = "tagged, own vocabulary"
    FIELDS = "from fields"
    GIVEN = "given"


@dataclass(frozen=True)
class Method:
    """One row of the table.

    Parameters
    ----------
    label : its name in the table.
    config : how queries are composed.
    pdv : the published setting for its terms; None where the method has weights of its own.
    swap : whether captions are rewritten by the vocabulary instead of the template.
    """

    label: str
    config: MethodConfig
    pdv: PDV | None = None
    swap: bool = True

    @property
    def takes_weights(self) -> bool:
        """Whether weights can be chosen: it has several terms and no rule of its own."""
        return self.config.rule is None and self.config.composer not in (ComposerName.IMAGE, ComposerName.PROMPT)


CIREVL, LDRE, SEARLE = PUBLISHED["cirevl"], PUBLISHED["ldre"], PUBLISHED["searle-base"]
METHODS = (
    Method("image only", MethodConfig(ComposerName.IMAGE)),
    Method("prompt only", MethodConfig(ComposerName.PROMPT)),
    Method("image + prompt", MethodConfig(ComposerName.SUM)),
    Method("Slerp", MethodConfig(ComposerName.SLERP)),
    Method("product (BASIC)", MethodConfig(ComposerName.SUM, RuleName.PRODUCT)),
    Method("product − Harris", MethodConfig(ComposerName.SUM, RuleName.HARRIS)),
    Method("captions, template", MethodConfig(ComposerName.CAPTIONS), CIREVL, swap=False),
    Method("captions, swap (CIReVL's shape)", MethodConfig(ComposerName.CAPTIONS), CIREVL),
    Method("captions, swap + 3 wordings", MethodConfig(ComposerName.CAPTIONS, paraphrases=3), CIREVL),
    Method("captions, swap + judge of attributes", MethodConfig(ComposerName.CAPTIONS, judge=JudgeName.ATTRIBUTES), CIREVL),
    Method("captions, swap + judge of patches", MethodConfig(ComposerName.CAPTIONS, judge=JudgeName.LOCAL), CIREVL),
    Method("SDR-CIR", MethodConfig(ComposerName.SDR)),
    Method("role-aware (MulVec, global)", MethodConfig(ComposerName.ROLES)),
    Method("role-aware + judge of patches (MulVec)", MethodConfig(ComposerName.ROLES, judge=JudgeName.LOCAL)),
    Method("captions + SoFT", MethodConfig(ComposerName.CAPTIONS, RuleName.SOFT), CIREVL),
    Method("LDRE, 15 captions", MethodConfig(ComposerName.LDRE), LDRE),
    Method("SEIZE, 15 captions", MethodConfig(ComposerName.SEIZE), LDRE),
    Method("SEARLE-OTI", MethodConfig(ComposerName.SEARLE_OTI), SEARLE),
    Method("LinCIR", MethodConfig(ComposerName.LINCIR), SEARLE),
)


def find_method(composer: ComposerName) -> Method:
    """The last method of the table with this composer and nothing else."""
    return next(m for m in reversed(METHODS) if m.config == MethodConfig(composer))


def method_parts(method: Method, encoder: Encoder, parts: Parts) -> Parts:
    """The parts of a method's composer: `parts`, with the method's rewriter unless they have one."""
    rewriter = parts.rewriter or (SwapRewriter(parts.vocabulary or default_vocabulary(encoder)) if method.swap else None)
    return replace(parts, rewriter=rewriter)


def add_captions(benchmark: Benchmark, encoder: Encoder, source: CaptionSetup) -> tuple[Benchmark, Vocabulary]:
    """The benchmark with captions of a source, or none where a tagger makes them, and the vocabulary of tagger and rewriter.

    MMRetrieveError where the benchmark has no fields, or no captions, to use.
    """
    match source:
        case CaptionSetup.GENERAL:
            return _replace_captions(benchmark, {}), Vocabulary.read(GENERAL)
        case CaptionSetup.OWN:
            return _replace_captions(benchmark, {}), own_vocabulary(benchmark, encoder)
        case CaptionSetup.FIELDS:
            vocabulary = vocabulary_from_fields(benchmark.fields.values())
            if vocabulary is None:
                raise MMRetrieveError(f"{benchmark.name}: its items have no fields to make captions from")
            texts = {id_: caption_from_fields(fields, vocabulary) for id_, fields in benchmark.fields.items()}
            return _replace_captions(benchmark, texts), vocabulary
        case CaptionSetup.GIVEN:
            return _with_given_captions(benchmark), own_vocabulary(benchmark, encoder)


def own_vocabulary(benchmark: Benchmark, encoder: Encoder) -> Vocabulary:
    """The vocabulary of the benchmark, or of its encoder where the benchmark has none."""
    return benchmark.vocabulary or default_vocabulary(encoder)


def held_out_queries(benchmark: Benchmark) -> NDArray[np.bool_]:
    """(queries,) whether each belongs to the held-out half, on which no constant of the library was chosen.

    Where items have an `article`, the halves share none: constants chosen on shirts are reported on watches. The held-out
    articles are those with an odd checksum. Otherwise every other query is held out.
    """
    articles = [benchmark.fields.get(query.reference, {}).get(ARTICLE_FIELD) for query in benchmark.queries]
    return np.array([(i if article is None else crc32(article.encode())) % 2 == 1 for i, article in enumerate(articles)])


@contextmanager
def open_retriever(benchmark: Benchmark, vectors: Float32, encoder: Encoder) -> Iterator[Retriever]:
    """A retriever over a temporary gallery of the benchmark's images, with their fields.

    vectors: (items, d), in the order of the benchmark's ids.
    """
    ids = benchmark.gallery_ids
    paths = [str(benchmark.image_path(id_)) for id_ in ids]
    fields = [{name: value for name, value in benchmark.fields.get(id_, {}).items() if value} for id_ in ids]
    with TemporaryDirectory() as folder:
        gallery = Gallery.create(Path(folder, "gallery"), encoder=encoder)
        gallery.add_vectors(ids, vectors, paths=paths, fields=fields)
        yield Retriever(gallery, encoder)


def train_benchmark_phi(encoder: Encoder, vocabulary: Vocabulary | None, folder: Path) -> Path:
    """A phi for an encoder that has none, trained on sentences of the vocabulary; good enough to compare methods with.

    Trained on the first call, which takes a few minutes on two cores, and read from `folder` afterwards.
    """
    texts = list_sentences(vocabulary or default_vocabulary(encoder))
    key = hashlib.blake2b(repr((encoder.identity.weights, PHI_RECIPE, texts)).encode(), digest_size=8).hexdigest()
    folder.mkdir(parents=True, exist_ok=True)
    train_phi(texts, require_open_clip(encoder, "training a phi"), folder / f"phi-{key}.safetensors", PHI_RECIPE)
    return folder / f"phi-{key}.safetensors"


def list_sentences(vocabulary: Vocabulary, *, seed: int = 0) -> list[str]:
    """Up to MAX_SENTENCES different sentences of the vocabulary, in random order."""
    random = Random(seed)
    names = [group.name for group in vocabulary.groups]
    sentences = {
        vocabulary.say(vocabulary.consistent(dict(zip(names, words, strict=True))))
        for words in product(*(group.words for group in vocabulary.groups))
    }
    return random.sample(sorted(sentences), min(MAX_SENTENCES, len(sentences)))


def _with_given_captions(benchmark: Benchmark) -> Benchmark:
    """The benchmark with the captions that it provides; for the wardrobe, with a correct description of each drawing."""
    given = benchmark
    if benchmark.name == BenchmarkName.WARDROBE:
        given = _replace_captions(benchmark, {drawing.id: caption(drawing.garment) for drawing in wardrobe.drawings()})
    if any(query.caption is None for query in given.queries):
        raise MMRetrieveError(f"{benchmark.name}: some queries have no caption")
    return given


def _replace_captions(benchmark: Benchmark, texts: Mapping[str, str | None]) -> Benchmark:
    """The benchmark with these captions of references, and no others."""
    return replace(benchmark, queries=tuple(replace(query, caption=texts.get(query.reference)) for query in benchmark.queries))
