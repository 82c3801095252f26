"""Composing the queries of a benchmark: captions, prompt orders, rules, and scores batch by batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import mmretrieve as mm
from eval.benchmarks.base import Benchmark, BenchmarkQuery, Protocol
from eval.runs import compositions
from eval.runs.compositions import ComposedBenchmark, MethodConfig, PromptOrder, average_compositions, compose
from eval.runs.judging import BenchmarkJudge
from mmretrieve import ComposerName, Composition, Parts, RuleName
from mmretrieve.composer_input import ComposerInput
from mmretrieve.errors import OptionError
from mmretrieve.judges.reranking import rerank
from mmretrieve.language.paraphrases import TemplateParaphraser
from mmretrieve.scoring import term_scores
from mmretrieve.vectors import Float32, unit

BOTH = (ComposerName.PROMPT, ComposerName.SUM, ComposerName.PIC2WORD, ComposerName.SEARLE, ComposerName.LINCIR)


@dataclass
class Speaker:
    """Captions by number, the reference's id in them; records how many were requested."""

    counts: list[int] = field(default_factory=list)

    def captions(self, queries: Sequence[ComposerInput], count: int = 1) -> list[list[str]]:
        self.counts.append(count)
        return [[f"a dress {query.id} {i}" for i in range(count)] for query in queries]


@pytest.fixture
def bench(photos: Path) -> Benchmark:
    """Three queries over the drawings: the first has two wordings, the second an empty one, the third one."""
    files = {path.name: path for path in sorted(photos.rglob("*.png"))}
    ids = tuple(files)[:12]
    queries = (
        BenchmarkQuery("0", ids[3], ("in red and shorter", "shorter and in red"), (ids[4],), "a blue dress", "clothes"),
        BenchmarkQuery("1", ids[0], (" ",), (ids[2],), "a coat", "coats"),
        BenchmarkQuery("2", ids[9], ("striped",), (ids[1],), "a green shirt", "shirts"),
    )
    protocol = Protocol(headline="recall@1", recalls=(1,))
    return Benchmark("tiny", "test", ids, queries, files.__getitem__, protocol)


@pytest.fixture
def gallery(bench: Benchmark, encoder: mm.Encoder) -> Float32:
    return encoder.encode_images([bench.image_path(id_) for id_ in bench.gallery_ids])


def test_default_prompt_orders() -> None:
    for composer in ComposerName:
        expected = PromptOrder.BOTH if composer in (*BOTH, ComposerName.SEARLE_OTI) else PromptOrder.FIRST
        assert MethodConfig(composer).prompt_orders is expected
        for orders in PromptOrder:
            assert MethodConfig(composer, orders=orders).prompt_orders is orders
    with pytest.raises(OptionError, match="unknown prompt order 'last'; choose from: first, both"):
        PromptOrder("last")


def test_both_orders_are_the_normalized_mean(bench: Benchmark, gallery: Float32, encoder: mm.Encoder) -> None:
    composed = compose(bench, gallery, encoder, MethodConfig(ComposerName.SUM), Parts())
    rows = encoder.encode_texts(["in red and shorter", "shorter and in red", ".", "striped"]).astype(np.float64)
    mean = (rows[0] + rows[1]) / 2
    result = [composition["prompt"] for composition in composed.compositions]
    np.testing.assert_allclose(result[0], mean / np.linalg.norm(mean), atol=1e-6)
    assert np.abs(result[0] - rows[0]).max() > 1e-3
    np.testing.assert_allclose(result[1:], rows[2:], atol=1e-6)  # who has one saying says it twice
    for composition, query in zip(composed.compositions, bench.queries, strict=True):
        np.testing.assert_allclose(composition["image"], gallery[bench.id2row[query.reference]], atol=1e-6)
    first = compose(bench, gallery, encoder, MethodConfig(ComposerName.SUM, orders=PromptOrder.FIRST), Parts())
    np.testing.assert_allclose(first.compositions[0]["prompt"], rows[0], atol=1e-6)


def test_the_mean_keeps_the_texts_and_weights_of_the_first_wording() -> None:
    terms = unit(np.random.default_rng(1).normal(size=(2, 2, 5)).reshape(4, 5)).reshape(2, 2, 5)
    one, other = (
        Composition(("image", "text"), rows, (0.25, 0.5), {"text": text}) for rows, text in zip(terms, "ab", strict=True)
    )
    mean = average_compositions([one, other])
    assert (mean.words, mean.weights) == (one.words, one.weights)
    for i in range(2):
        whole = terms[0, i].astype(float) + terms[1, i]
        np.testing.assert_allclose(mean.terms[i], whole / np.linalg.norm(whole), atol=1e-6)
    assert average_compositions([one]) is one
    with pytest.raises(
        mm.MMRetrieveError, match=r"one order of a prompt has the terms image, text, another image, prompt: .* first"
    ):
        average_compositions([one, replace(other, names=("image", "prompt"))])


def test_an_empty_prompt_becomes_a_dot(bench: Benchmark, gallery: Float32, encoder: mm.Encoder) -> None:
    composed = compose(bench, gallery, encoder, MethodConfig(ComposerName.PROMPT), Parts()).compositions
    assert [composition.words["prompt"] for composition in composed] == ["in red and shorter", ".", "striped"]


def texts(bench: Benchmark, gallery: Float32, encoder: mm.Encoder, config: MethodConfig, speaker: Speaker) -> list[str]:
    composed = compose(bench, gallery, encoder, config, Parts(captioner=speaker))
    return [composition.words["text"] for composition in composed.compositions]


def test_which_captions_are_used(bench: Benchmark, gallery: Float32, encoder: mm.Encoder) -> None:
    ids = [query.reference for query in bench.queries]
    speaker, captions = Speaker(), ComposerName.CAPTIONS
    assert texts(bench, gallery, encoder, MethodConfig(captions), speaker) == ["a blue dress", "a coat", "a green shirt"]
    assert texts(bench, gallery, encoder, MethodConfig(captions, concept=True), speaker) == ["clothes", "coats", "shirts"]
    assert speaker.counts == []
    assert texts(bench, gallery, encoder, MethodConfig(captions, benchmark_captions=False), speaker) == [
        f"a dress {id_} 0" for id_ in ids
    ]
    assert speaker.counts == [1]
    for ensemble in (ComposerName.LDRE, ComposerName.SEIZE):  # make their own, whatever is given
        assert all(text.startswith("a dress ") for text in texts(bench, gallery, encoder, MethodConfig(ensemble), speaker))
    assert speaker.counts == [1, 15, 15]
    some = replace(bench, queries=(replace(bench.queries[0], caption=None), *bench.queries[1:]))
    assert texts(some, gallery, encoder, MethodConfig(captions), speaker) == [f"a dress {ids[0]} 0", "a coat", "a green shirt"]
    without = replace(bench, queries=(replace(bench.queries[0], concept=None), *bench.queries[1:]))
    with pytest.raises(mm.MMRetrieveError, match="tiny has no shared concepts"):
        compose(without, gallery, encoder, MethodConfig(captions, concept=True), Parts())


def test_the_rule_is_that_of_the_method_or_of_the_composer(bench: Benchmark, gallery: Float32, encoder: mm.Encoder) -> None:
    def rules(config: MethodConfig) -> set[RuleName]:
        return {one.rule.name for one in compose(bench, gallery, encoder, config, Parts(captioner=Speaker())).compositions}

    assert rules(MethodConfig(ComposerName.SEIZE)) == {RuleName.HINGE}
    assert rules(MethodConfig(ComposerName.SEIZE, RuleName.LINEAR)) == {RuleName.LINEAR}
    assert rules(MethodConfig(ComposerName.CAPTIONS, RuleName.PRODUCT)) == {RuleName.PRODUCT}


def test_a_missing_part_of_a_method_is_an_error(bench: Benchmark, gallery: Float32, encoder: mm.Encoder) -> None:
    with pytest.raises(mm.MMRetrieveError, match="needs a describer"):
        compose(bench, gallery, encoder, MethodConfig(ComposerName.ONE_STEP), Parts())


def composed_of(terms: Sequence[int]) -> ComposedBenchmark:
    """Compositions of so many random terms each, over 30 items."""
    rng = np.random.default_rng(3)
    compositions = []
    for count in terms:
        names = tuple(f"t{i}" for i in range(count))
        compositions.append(Composition(names, unit(rng.normal(size=(count, 6))), tuple(rng.normal(size=count))))
    queries = tuple(BenchmarkQuery(str(i), "0", ("p",)) for i in range(max(1, len(terms))))
    benchmark = Benchmark("random", "test", tuple(map(str, range(30))), queries, Path, Protocol(headline="recall@1"))
    return ComposedBenchmark(benchmark, compositions, unit(rng.normal(size=(30, 6))))


@pytest.mark.parametrize("rows", [1, 4, 5, 1000])
def test_batches_score_as_single_queries_do(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compositions, "TERM_BATCH_SIZE", rows)
    composed = composed_of([4, 1, 3, 4, 9, 2])
    result = list(composed)
    assert [composition for composition, _ in result] == list(composed.compositions)
    for composition, scores in result:
        np.testing.assert_array_equal(scores, term_scores(composition.terms, composed.gallery))
    again = [scores for _, scores in composed]  # a second look gives the same
    for (_, one), other in zip(result, again, strict=True):
        np.testing.assert_array_equal(one, other)


def test_only_one_batch_is_scored_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    batch_sizes: list[int] = []

    def counting(terms: Float32, gallery: Float32) -> Float32:
        batch_sizes.append(len(terms))
        return term_scores(terms, gallery)

    monkeypatch.setattr(compositions, "TERM_BATCH_SIZE", 8)
    monkeypatch.setattr(compositions, "term_scores", counting)
    rest = iter(composed_of([4] * 7))
    next(rest)
    assert batch_sizes == [8]
    assert len(list(rest)) == 6
    assert batch_sizes == [8, 8, 8, 4]


def test_no_compositions_give_no_scores() -> None:
    assert list(composed_of([])) == []


def test_item_scores_use_the_new_weights() -> None:
    composed = composed_of([2, 3])
    for composition, row in zip(
        composed.compositions, composed.item_scores(lambda c: replace(c, weights=(2.0,) * len(c.names))), strict=True
    ):
        expected = 2 * (composed.gallery.astype(np.float64) @ composition.terms.sum(axis=0, dtype=np.float64))
        np.testing.assert_allclose(row, expected, atol=1e-6)


class Opposed:
    """Prefers the last of what it sees, and keeps how much that was."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, int]] = []

    def rank(self, query: Mapping[str, Any], documents: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        assert isinstance(query["image"], Image.Image)
        self.seen.append((query["text"], len(documents)))
        return [{"corpus_id": i, "score": i} for i in range(len(documents))]


@pytest.mark.parametrize("weight", [0.0, 0.3, 2.0, inf])
def test_a_judge_of_a_run_ranks_as_in_a_search(bench: Benchmark, gallery: Float32, encoder: mm.Encoder, weight: float) -> None:
    plain = compose(bench, gallery, encoder, MethodConfig(ComposerName.SUM, orders=PromptOrder.FIRST), Parts())
    judge = Opposed()
    judged = replace(plain, judge=BenchmarkJudge(judge, 4, weight))
    for query, before, after in zip(
        bench.queries, plain.item_scores(lambda c: c), judged.item_scores(lambda c: c), strict=True
    ):
        rows = bench.top_rows(query, before, len(before) - 1)
        hits = [mm.Hit(rank, bench.gallery_ids[row], before[row], {"all": before[row]}) for rank, row in enumerate(rows, 1)]
        ranking = mm.Ranking(tuple(hits), k=len(hits), searched=len(before), weights={"all": 1.0})
        expected = rerank(ranking, [0.0, 1.0, 2.0, 3.0], weight)
        assert [bench.gallery_ids[row] for row in bench.top_rows(query, after, len(rows))] == list(expected.ids)
        if weight != inf:
            scores = {hit.id: hit.score for hit in expected}
            np.testing.assert_allclose([after[row] for row in rows], [scores[hit.id] for hit in hits], atol=1e-12)
    assert judge.seen == [(query.prompts[0].strip(), 4) for query in bench.queries]


def test_a_judge_that_fails_ends_a_run(bench: Benchmark, gallery: Float32, encoder: mm.Encoder) -> None:
    class Silent:
        def rank(self, *_: object) -> list[dict[str, Any]]:
            return []

    plain = compose(bench, gallery, encoder, MethodConfig(ComposerName.IMAGE), Parts())
    with pytest.raises(mm.MMRetrieveError, match="Silent scored none of the 11 items"):
        list(replace(plain, judge=BenchmarkJudge(Silent())).item_scores(lambda c: c))


def test_paraphrases_of_a_run_are_those_of_a_search(bench: Benchmark, gallery: Float32, encoder: mm.Encoder) -> None:
    one, several = (
        compose(bench, gallery, encoder, MethodConfig(ComposerName.SUM, orders=PromptOrder.FIRST, paraphrases=n), Parts())
        for n in (1, 3)
    )
    texts = ["striped", *TemplateParaphraser().paraphrase(["striped"], 2)[0]]
    assert len(texts) == 3
    mean = encoder.encode_texts(texts).astype(np.float64).mean(axis=0)
    np.testing.assert_allclose(several.compositions[2]["prompt"], mean / np.linalg.norm(mean), atol=1e-6)
    assert np.abs(one.compositions[2]["prompt"] - several.compositions[2]["prompt"]).max() > 1e-3
    with pytest.raises(OptionError, match="'joint' takes each prompt in one wording"):
        MethodConfig(ComposerName.JOINT, paraphrases=2)
