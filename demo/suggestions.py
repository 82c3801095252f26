"""Words to try as prompts, from the vocabulary of the gallery."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from random import Random

from mmretrieve.composer_input import ComposerInput
from mmretrieve.language.captioners.gallery import GalleryCaptioner
from mmretrieve.language.captioners.tagger import Tagger
from mmretrieve.language.vocabulary import Vocabulary, default_vocabulary
from mmretrieve.request import SearchRequest
from mmretrieve.service import SearchService

REFERENCE_CAPTIONS = 60  # of a reference, whose words are suggested
MAX_SUGGESTIONS, MAX_PER_GROUP = 8, 2


class Suggestions:
    """Suggests words of the vocabulary of a gallery; of a gallery without one, words of the vocabulary of its encoder."""

    def __init__(self, service: SearchService) -> None:
        self._service = service
        self._default = default_vocabulary(service.retriever.encoder)
        self._tagger: Tagger | None = None

    def suggest(self, request: SearchRequest, seed: int) -> list[str]:
        """Words that would change the first reference slightly; without a reference, words of the gallery, others for another seed."""
        vocabulary = self._service.gallery.vocabulary
        if request.reference_count:
            reference = SearchRequest.parse(image=request.image, reference_id=request.reference_id)
            return self._near(reference, vocabulary or self._default)
        return [] if vocabulary is None else sample_words(vocabulary, seed)

    def _near(self, request: SearchRequest, vocabulary: Vocabulary) -> list[str]:
        """Words of captions that are nearly as likely as that of the reference."""
        tagger = self._tagger
        if tagger is None or tagger.vocabulary != vocabulary:  # the gallery may have new items
            self._tagger = tagger = Tagger(self._service.retriever.encoder, vocabulary)
        gallery = self._service.gallery
        vector = self._service.retriever.compose_requests([request])[0].terms[0]
        fields = None if request.image else gallery.item(request.reference_id[0]).fields
        captioner = GalleryCaptioner(gallery.vocabulary, gallery.fields_near, tagger)
        caption, *others = captioner.captions([ComposerInput(vector=vector, fields=fields)], REFERENCE_CAPTIONS)[0]
        return new_words(vocabulary, caption, others)[:MAX_SUGGESTIONS]


def sample_words(vocabulary: Vocabulary, seed: int) -> list[str]:
    """A random sample of words, at most MAX_PER_GROUP of each group of the vocabulary, the same for the same seed."""
    random = Random(seed)
    groups = [[word for word in group.words if word] for group in vocabulary.groups]
    words = [word for group in groups for word in random.sample(group, min(MAX_PER_GROUP, len(group)))]
    return list(dict.fromkeys(words))[:MAX_SUGGESTIONS]


def new_words(vocabulary: Vocabulary, caption: str, others: Sequence[str]) -> list[str]:
    """Words that the other captions have and the caption has not, at most MAX_PER_GROUP of each group of the vocabulary."""
    words: dict[str, None] = {}
    per_group: Counter[str] = Counter()
    for other in others:
        for group in vocabulary.groups:
            new = [word for word in group.words if word and _contains(other, word) and not _contains(caption, word)]
            longest = max(new, key=len, default=None)
            if longest and longest not in words and per_group[group.name] < MAX_PER_GROUP:
                words[longest] = None
                per_group[group.name] += 1
    return list(words)


def _contains(sentence: str, word: str) -> bool:
    return re.search(rf"\b{re.escape(word)}\b", sentence) is not None
