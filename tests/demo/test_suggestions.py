"""Words to try as prompts."""

from __future__ import annotations

from pathlib import Path

import pytest

import mmretrieve as mm
from demo.suggestions import MAX_PER_GROUP, MAX_SUGGESTIONS, Suggestions, new_words, sample_words
from mmretrieve.language.vocabulary import Vocabulary, WordGroup
from mmretrieve.request import SearchRequest
from mmretrieve.service import SearchService

HATS = Vocabulary(
    "a {colour} {kind}", (WordGroup("kind", ("cap", "beret", "fedora")), WordGroup("colour", ("", "red", "blue")))
)


@pytest.fixture(scope="module")
def wardrobe() -> SearchService:
    return SearchService(mm.Retriever.open(mm.wardrobe.gallery_folder()))


def words_of(service: SearchService) -> set[str]:
    vocabulary = service.gallery.vocabulary
    assert vocabulary is not None
    return {word for group in vocabulary.groups for word in group.words if word}


def test_words_near_a_reference_are_of_the_gallery_and_not_in_its_caption(wardrobe: SearchService) -> None:
    request = SearchRequest.parse(reference_id=mm.wardrobe.drawings()[3].id, prompt="in red")
    words = Suggestions(wardrobe).suggest(request, seed=0)
    caption = wardrobe.search([request])[0].words["text"]
    assert 4 <= len(words) == len(set(words)) <= MAX_SUGGESTIONS
    assert set(words) <= words_of(wardrobe)
    assert [word for word in words if word in caption.split()] == []


def test_without_a_reference_words_are_a_sample(wardrobe: SearchService) -> None:
    request = SearchRequest.parse(prompt="in red")
    samples = [Suggestions(wardrobe).suggest(request, seed) for seed in (0, 0, 1)]
    assert samples[0] == samples[1] != samples[2]
    assert set(samples[0]) <= words_of(wardrobe)


def test_a_gallery_without_fields_suggests_only_near_a_reference(made: Path) -> None:
    service = SearchService(mm.Retriever.open(made))
    assert service.gallery.vocabulary is None
    suggestions = Suggestions(service)
    assert suggestions.suggest(SearchRequest.parse(prompt="in red"), seed=0) == []
    assert suggestions.suggest(SearchRequest.parse(reference_id=service.gallery.ids[0]), seed=0) != []


def test_a_sample_has_a_few_words_of_each_group() -> None:
    words = sample_words(HATS, seed=0)
    assert len(set(words) & {"cap", "beret", "fedora"}) == MAX_PER_GROUP
    assert len(set(words) & {"red", "blue"}) == MAX_PER_GROUP
    assert "" not in words


def test_new_words_are_those_that_other_captions_have() -> None:
    assert new_words(HATS, "a red cap", ["a blue cap", "a red beret", "a red fedora", "a cap"]) == ["blue", "beret", "fedora"]
