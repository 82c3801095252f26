"""Judges: how answers are read, what they do to rankings, faults of every kind, and the judge that needs no model."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import mmretrieve as mm
from eval.benchmarks import load_benchmark
from mmretrieve.errors import JudgeError, OptionError
from mmretrieve.judges.attributes import AttributeJudge
from mmretrieve.judges.base import judge_logits, log_odds
from mmretrieve.judges.reranking import judge_contributions, rerank
from mmretrieve.language.vocabulary import default_vocabulary
from mmretrieve.ranking import Hit, Ranking
from mmretrieve.request import SearchRequest
from mmretrieve.service import SearchService

Answer = list[dict[str, Any]]


class FixedJudge:
    """Gives each document the score of a function; remembers what it was shown."""

    def __init__(self, score: Any = lambda _query, _image: 0.0, *, scale: str = "logit") -> None:
        self.score, self.scale = score, scale
        self.queries: list[Mapping[str, Any]] = []
        self.images: list[Image.Image] = []

    def rank(self, query: Mapping[str, Any], documents: Sequence[Mapping[str, Any]]) -> Answer:
        self.queries.append(query)
        self.images = [document["image"] for document in documents]
        return [{"corpus_id": i, "score": self.score(query, image)} for i, image in enumerate(self.images)]


class Answering:
    """A judge with one answer, or one error, to everything."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def rank(self, _query: Mapping[str, Any], _documents: Sequence[Mapping[str, Any]]) -> Any:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def redness(_: Mapping[str, Any], image: Image.Image) -> float:
    red, green, blue = np.asarray(image.convert("RGB"), np.float64).reshape(-1, 3).mean(axis=0)
    return float(red - (green + blue) / 2)


def ranking_of(scores: Sequence[float]) -> Ranking:
    hits = (Hit(i + 1, f"{i}", score, {"image": score / 4, "prompt": 3 * score / 4}) for i, score in enumerate(scores))
    return Ranking(tuple(hits), k=len(scores), searched=100, weights={"image": 1.0, "prompt": 1.0})


# How answers are read


def test_the_first_score_of_each_document_counts() -> None:
    answers = [(2, 0.5), (0, 1.0), (2, 0.9), (3, 0.7), (-1, 0.7), (1, math.nan)]
    judge = Answering([{"corpus_id": i, "score": score} for i, score in answers])
    np.testing.assert_array_equal(judge_logits(judge, {}, [{}, {}, {}]), [1.0, np.nan, 0.5])


def test_probabilities_become_logits() -> None:
    judge = FixedJudge(lambda _query, image: image.size[0] / 4, scale="probability")
    documents = [{"image": Image.new("RGB", (side, 1))} for side in (1, 2, 3, 4)]
    expected = [math.log(0.25 / 0.75), 0.0, math.log(0.75 / 0.25), log_odds(1.0)]
    np.testing.assert_allclose(judge_logits(judge, {}, documents), expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ("the second one, I think", "Answering answered 'the second one, I think', not"),
        ([{"index": 0, "score": 1.0}], "Answering answered .*, not"),
        (None, "Answering answered None, not"),
        ([{"corpus_id": 0, "score": "high"}], "Answering answered .*, not"),
        ([{"corpus_id": 9, "score": 1.0}], "Answering scored none of the 2 items that it saw"),
        ([], "Answering scored none of the 2 items that it saw"),
        (TimeoutError("no answer within 3 s"), r"Answering failed \(TimeoutError: no answer within 3 s\)"),
    ],
)
def test_an_answer_that_cannot_be_read_is_one_line(answer: object, message: str) -> None:
    with pytest.raises(JudgeError, match=message):
        judge_logits(Answering(answer), {}, [{}, {}])


def test_no_documents_are_not_shown() -> None:
    assert len(judge_logits(Answering(RuntimeError()), {}, [])) == 0


# What they do to a ranking

SCORES = st.lists(st.floats(-3, 3, width=32), min_size=1, max_size=12).map(lambda scores: sorted(scores, reverse=True))
WEIGHTS = st.one_of(st.floats(0, 100), st.just(math.inf))


@pytest.mark.property
@given(SCORES, st.floats(-10, 10), WEIGHTS)
def test_a_constant_judge_changes_nothing(scores: list[float], constant: float, weight: float) -> None:
    ranking = ranking_of(scores)
    judged = rerank(ranking, [constant] * len(scores), weight)
    assert judged.ids == ranking.ids
    if weight < math.inf:
        np.testing.assert_allclose([hit.score for hit in judged], scores, atol=1e-9)


@pytest.mark.property
@given(SCORES, st.data(), WEIGHTS)
def test_the_judge_is_one_more_term(scores: list[float], data: st.DataObject, weight: float) -> None:
    """The specification: hits without a logit count as the worst one that has, and follow it if they tie."""
    count = data.draw(st.integers(1, len(scores)))
    logits = np.array(data.draw(st.lists(st.one_of(st.just(math.nan), st.floats(-8, 8)), min_size=count, max_size=count)))
    ranking = ranking_of(scores)
    judged = rerank(ranking, logits, weight)
    assert sorted(judged.ids) == sorted(ranking.ids)
    if np.isnan(logits).all():
        assert judged is ranking
        return
    complete = np.append(logits, np.full(len(scores) - count, np.nan))
    complete = np.where(np.isnan(complete), np.nanmin(logits), complete)
    unit = np.std(scores[:count]) or 1.0
    terms = unit * (complete - np.nanmean(logits))
    totals = terms if weight == math.inf else np.array(scores) + weight * terms
    expected = sorted(range(len(scores)), key=lambda i: (-totals[i], i >= count or math.isnan(logits[i])))
    np.testing.assert_allclose([hit.score for hit in judged], totals[expected], rtol=1e-9, atol=1e-9)
    for hit, total in zip(judged, totals[[int(hit.id) for hit in judged]], strict=True):
        assert sum(hit.contributions.values()) == pytest.approx(hit.score, abs=1e-9)
        assert hit.score == pytest.approx(total, abs=1e-9)
    assert [hit.rank for hit in judged] == list(range(1, len(scores) + 1))
    assert all(hit.score >= after.score for hit, after in pairwise(judged))


def test_without_a_say_of_its_own_the_first_stage_orders_ties_only() -> None:
    assert rerank(ranking_of([3, 2, 1, 0]), [math.nan, 1.0, 1.0, 0.0], math.inf).ids == ("1", "2", "3", "0")


# In a search


def test_a_search_shows_the_pictures_of_its_best_hits(retriever: mm.Retriever) -> None:
    reference, judge = retriever.gallery.ids[3], FixedJudge(redness)
    first = retriever.search(reference_id=reference, prompt="in red", avoid="stripes", k=15)
    judged = retriever.search(reference_id=reference, prompt="in red", avoid="stripes", k=5, judge=judge, judge_k=15)
    assert judge.queries[0]["text"] == "in red, without stripes"
    assert judge.queries[0]["image"].tobytes() == retriever.gallery.picture(reference).tobytes()
    shown = [image.tobytes() for image in judge.images]
    assert shown == [retriever.gallery.picture(id_).tobytes() for id_ in first.ids]
    assert len(judged) == judged.k == 5
    assert judged.ids == rerank(first, [redness({}, image) for image in judge.images]).ids[:5]
    assert judged.answerable == retriever.search(reference_id=reference, prompt="in red", avoid="stripes", k=20).answerable
    for hit in judged:
        assert sum(hit.contributions.values()) == pytest.approx(hit.score, abs=1e-6)
        assert "judge" in hit.contributions


@pytest.mark.parametrize(
    "query",
    [{"prompt": "in red"}, {"rule": "product", "prompt": "in red"}, {"composer": "image"}, {"where": "id LIKE '%shirt%'"}],
)
def test_the_judge_alone_orders_what_it_sees(retriever: mm.Retriever, query: dict[str, Any]) -> None:
    reference = {"reference_id": retriever.gallery.ids[8]}
    first = retriever.search(**reference, **query, k=12)
    alone = retriever.search(**reference, **query, k=12, judge=FixedJudge(redness), judge_k=6, judge_weight=math.inf)
    by_redness = sorted(first.ids[:6], key=lambda id_: -redness({}, retriever.gallery.picture(id_)))
    assert alone.ids == (*by_redness, *first.ids[6:])


@pytest.mark.parametrize("weight", [0, 1.0, 1e6, math.inf, "inf"])
def test_a_judge_that_always_says_one_half_changes_no_ranking(retriever: mm.Retriever, weight: Any) -> None:
    requests = [{"reference_id": id_, "prompt": "in blue", "k": 20} for id_ in retriever.gallery.ids[:10]]
    half = FixedJudge(lambda *_: 0.5, scale="probability")
    judged = retriever.search_many([request | {"judge": half, "judge_weight": weight} for request in requests])
    assert [ranking.ids for ranking in judged] == [ranking.ids for ranking in retriever.search_many(requests)]


def test_all_ways_to_search_agree(retriever: mm.Retriever) -> None:
    service, judge = SearchService(retriever), FixedJudge(redness)
    fields = [
        {"reference_id": id_, "prompt": "in red", "judge": judge, "judge_k": 9, "k": 4} for id_ in retriever.gallery.ids[:5]
    ]
    one_by_one = [retriever.search(**each) for each in fields]
    requests = [SearchRequest.parse(**each) for each in fields]
    for request, expected in zip(requests, one_by_one, strict=True):
        scored = service.score(request)
        assert service.rank(scored, service.weigh(scored, request), request).ids == expected.ids
    assert [ranking.ids for ranking in service.search(requests)] == [ranking.ids for ranking in one_by_one]
    assert [ranking.ids for ranking in retriever.search_many(fields)] == [ranking.ids for ranking in one_by_one]


@pytest.mark.parametrize("answer", ["prose", [{"corpus_id": 99, "score": 1.0}], TimeoutError("slow")])
def test_a_judge_that_fails_leaves_the_first_stage(retriever: mm.Retriever, answer: Any) -> None:
    query = {"reference_id": retriever.gallery.ids[0], "prompt": "in red", "k": 7}
    first, judged = retriever.search(**query), retriever.search(**query, judge=Answering(answer))
    assert judged.ids == first.ids
    assert [hit.contributions for hit in judged] == [hit.contributions for hit in first]
    assert judged.note is not None
    assert judged.note.endswith("this is the order without the judge")


def test_items_without_a_picture_rank_behind(encoder: mm.Encoder, photos: Path, tmp_path: Path) -> None:
    own = mm.Gallery.create(tmp_path / "g", encoder=encoder)
    for photo in sorted(photos.rglob("*.png"))[:12]:
        (tmp_path / photo.name).write_bytes(photo.read_bytes())
    own.add(tmp_path)
    retriever = mm.Retriever(own, encoder)
    first = retriever.search(prompt="in red", k=12)
    for id_ in first.ids[:2]:
        (tmp_path / id_).unlink()
    judged = retriever.search(prompt="in red", k=12, judge=FixedJudge(lambda *_: 3.0 * time.monotonic()))
    assert judged.note == "the judge scored 10 of the 12 items; the others count as the worst of these"
    alone = retriever.search(prompt="in red", k=12, judge=FixedJudge(redness), judge_weight=math.inf)
    assert set(alone.ids[-2:]) == set(first.ids[:2])
    for id_ in first.ids:
        (tmp_path / id_).unlink(missing_ok=True)
    unseen = retriever.search(prompt="in red", k=12, judge=FixedJudge(redness))
    assert unseen.ids == first.ids
    assert unseen.note == "there is no image of the 12 best hits for the judge; this is the order without the judge"


def test_equal_scores_of_the_first_stage_leave_the_order_to_the_judge() -> None:
    for score in (0.1, 0.5, 0.7):
        assert np.argsort(judge_contributions([score] * 3, [1.0, 2.0, 3.0])).tolist() == [0, 1, 2]
        assert np.ptp(judge_contributions([score] * 3, [1.0, 2.0, 3.0])) == pytest.approx(2)


def test_a_small_gallery_has_no_remark_on_the_judge(retriever: mm.Retriever) -> None:
    ranking = retriever.search(prompt="in red", k=5, judge=FixedJudge(redness), judge_k=1_000)
    assert (len(ranking), ranking.note) == (5, None)
    alike = retriever.search(prompt="in red", k=5, judge=FixedJudge(), judge_k=9, judge_weight=math.inf)
    assert alike.note == "the judge scored all 9 items alike; this is the order without the judge"
    assert alike.ids == retriever.search(prompt="in red", k=5).ids


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"judge": "atributes"}, "unknown judge 'atributes'; did you mean 'attributes'"),
        ({"judge": 3}, r"judge must be a name or an object with rank\(query, documents\), got 3"),
        ({"judge": FixedJudge(), "judge_k": 0}, "judge_k must be a whole number of at least 1, got 0"),
        ({"judge": FixedJudge(), "judge_weight": -1}, "judge_weight must be a number of at least 0 or 'inf', got -1"),
        ({"judge": FixedJudge(), "judge_weight": math.nan}, "judge_weight must be a number of at least 0 or 'inf', got nan"),
    ],
)
def test_a_wrong_option_is_named(retriever: mm.Retriever, options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        retriever.search(prompt="in red", **options)


def test_an_oracle_reaches_the_recall_of_what_it_sees() -> None:
    """A judge that knows the targets puts one first exactly when the first stage has one among the judged items."""
    retriever = mm.Retriever.open(mm.wardrobe.gallery_folder())
    queries = load_benchmark("wardrobe").queries[::20]
    requests = [{"reference_id": query.reference, "prompt": query.prompts[0], "exclude_reference": True} for query in queries]
    remaining = iter(queries)

    class Oracle:
        def rank(self, _: Mapping[str, Any], documents: Sequence[Mapping[str, Any]]) -> Answer:
            targets = {retriever.gallery.picture(target).tobytes() for target in next(remaining).targets}
            found = [document["image"].tobytes() in targets for document in documents]
            return [{"corpus_id": i, "score": 20.0 * is_target - 10} for i, is_target in enumerate(found)]

    oracle = Oracle()
    pools = retriever.search_many([request | {"k": 3} for request in requests])
    judged = retriever.search_many(
        [request | {"k": 3, "judge": oracle, "judge_k": 3, "judge_weight": 100} for request in requests]
    )
    in_pool = [not set(query.targets).isdisjoint(pool.ids) for query, pool in zip(queries, pools, strict=True)]
    at_first = [query.targets.count(pool.ids[0]) for query, pool in zip(queries, pools, strict=True)]
    assert np.mean(at_first) < np.mean(in_pool) < 1
    assert [ranking.ids[0] in query.targets for query, ranking in zip(queries, judged, strict=True)] == in_pool


# The judge that needs no model


def test_attributes_counts_what_candidates_have(encoder: mm.Encoder) -> None:
    gallery = mm.open_gallery(mm.wardrobe.gallery_folder())
    judge = AttributeJudge(encoder, default_vocabulary(encoder))
    reference, *candidates = (gallery.item(id_) for id_ in gallery.ids[5:400:13])
    desired = {"kind": reference.fields["kind"], "pattern": reference.fields["pattern"], "colour": "black"}
    pictures = {item.id: Image.open(mm.wardrobe.pictures_folder() / item.id) for item in (reference, *candidates)}
    documents = [{"image": pictures[item.id]} for item in candidates]
    query = {"text": f"a black {desired['pattern']} {desired['kind']}"}
    scores = [one["score"] for one in judge.rank(query, documents)]
    expected = [sum(item.fields[name] == value for name, value in desired.items()) for item in candidates]
    assert len(set(expected)) > 2
    assert np.mean(np.array(scores) == expected) > 0.8
    backwards = [one["score"] for one in judge.rank(query, documents[::-1])]
    assert backwards[::-1] == scores


def test_attributes_reads_the_reference(encoder: mm.Encoder) -> None:
    judge = AttributeJudge(encoder, default_vocabulary(encoder))
    names = ["red-checked-dress-1815.png", "teal-striped-shirt-1728.png"]
    dress, shirt = (Image.open(mm.wardrobe.pictures_folder() / name) for name in names)
    of_dress, of_shirt = (
        one["score"] for one in judge.rank({"image": dress, "text": "in blue"}, [{"image": dress}, {"image": shirt}])
    )
    same, _ = (one["score"] for one in judge.rank({"image": dress}, [{"image": dress}, {"image": shirt}]))
    assert of_shirt < of_dress < same  # the color


def test_attributes_is_a_name(retriever: mm.Retriever) -> None:
    query = {"reference_id": retriever.gallery.ids[0], "prompt": "in red", "k": 8}
    by_name = retriever.search(**query, judge="attributes")
    judge = AttributeJudge(retriever.encoder, default_vocabulary(retriever.encoder))
    assert by_name == replace(retriever.search(**query, judge=judge))
    assert by_name.note is None


@pytest.mark.usefixtures("registered")
def test_a_judge_can_be_registered(retriever: mm.Retriever) -> None:
    mm.register_judge("redness", lambda context: FixedJudge(redness))  # noqa: ARG005
    query = {"prompt": "a shirt", "k": 8}
    assert retriever.search(**query, judge="redness").ids == retriever.search(**query, judge=FixedJudge(redness)).ids
    mm.register_judge("broken", lambda context: object())  # noqa: ARG005
    with pytest.raises(OptionError, match=r"judge 'broken': its factory returned object without 'rank'"):
        retriever.search(**query, judge="broken")
