"""From a search request to what composers take: its prompts are read, its references encoded, and every pair becomes one input."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

from PIL import Image

from mmretrieve.combining import combine
from mmretrieve.composer_input import ComposerInput
from mmretrieve.composition import Composition
from mmretrieve.concurrency import LruCache, map_ahead
from mmretrieve.encoders.base import Encoder, check_supports
from mmretrieve.encoders.checked import encode_images
from mmretrieve.errors import ImageError, OptionError, VectorError
from mmretrieve.gallery.base import GalleryBase
from mmretrieve.gallery.store.records import Item
from mmretrieve.images import DEFAULT_IMAGE_SIZE, ImageLike, Region, content_hash, crop, open_image, source_name
from mmretrieve.language.base import Paraphraser
from mmretrieve.language.paraphrases import paraphrase_prompts
from mmretrieve.language.role_compiler import RuleCompiler, wish_of
from mmretrieve.options import ComposerName, Modality
from mmretrieve.registry import COMPOSERS
from mmretrieve.request import SearchRequest
from mmretrieve.rules import ScoreRule, make_rule
from mmretrieve.sources.location import Location
from mmretrieve.vectors import Float32, bad_rows

MAX_OPEN_IMAGES = 64  # opened ahead of the encoder
STATE_BATCH_SIZE = 16  # files that one thread hashes
MAX_CACHED_VECTORS = 4096  # of files: 16 MB of 1024 dimensions


_Wording = tuple[str | None, str | None]
"""A prompt or a paraphrase of it, and what remains of it: None for one taken word for word."""


@dataclass(frozen=True)
class PreparedRequest:
    """A request whose prompts have been read.

    wordings: those of each prompt, its own first. forbidden: what all prompts forbid together.
    rule: the rule that the request names; None for the composer's own.
    """

    request: SearchRequest
    wordings: tuple[tuple[_Wording, ...], ...]
    forbidden: tuple[str, ...]
    rule: ScoreRule | None

    @classmethod
    def of(
        cls,
        request: SearchRequest,
        compiler: RuleCompiler,
        paraphrases: Mapping[str, Sequence[str]] | None = None,
        *,
        word_for_word: bool = False,
    ) -> PreparedRequest:
        """Reads the prompts of a request. word_for_word: parts look prompts up by their words, so what is said before a wish stays."""
        learned_words = COMPOSERS[request.composer_name].learned_words
        rule = None if request.rule is None else make_rule(request.rule, learned_words=learned_words)
        weighs = rule is None or rule.uses_weights
        is_read = request.reads_negations and not word_for_word
        readings = [
            _read_wordings(
                [wish_of(text) if is_read else text for text in (prompt, *(paraphrases or {}).get(prompt, ()))],
                compiler if strength > 0 and weighs and request.reads_negations else None,
            )
            for prompt, strength in zip(request.prompt, request.strength, strict=True)
        ]
        phrases = dict.fromkeys(phrase for forbidden, _ in readings for phrase in forbidden if phrase not in request.avoid)
        return cls(request, tuple(wordings for _, wordings in readings), tuple(phrases), rule)

    @property
    def desired(self) -> list[str | None]:
        """What remains of each prompt, None for one taken word for word."""
        return [own[0][1] for own in self.wordings]

    @property
    def avoid(self) -> list[str]:
        """What should not be visible: what the request names, then what its prompts forbid."""
        return [*dict.fromkeys(self.request.avoid), *self.forbidden]

    @property
    def avoid_weights(self) -> tuple[float, ...]:
        """The base weight of each phrase to avoid: what a prompt forbids counts only once weights are chosen."""
        return (*(-1.0 for _ in dict.fromkeys(self.request.avoid)), *(0.0 for _ in self.forbidden))

    @property
    def composed_prompts(self) -> list[int]:
        """The prompts that are composed: those that ask for something. With captions, all of them if none does."""
        asking = [i for i, desired in enumerate(self.desired) if desired != ""]
        return asking or (list(range(len(self.desired))) if self._has_captions else [])

    @property
    def composer(self) -> str:
        """The composer of the request, or "image" if that one needs a prompt and only phrases to avoid are left of the prompts."""
        is_usable = self.composed_prompts or self._has_captions or not self.request.reference_count
        return self.request.composer_name if is_usable else ComposerName.IMAGE.value

    @property
    def _has_captions(self) -> bool:
        return COMPOSERS[self.request.composer_name].reads_captions

    def inputs(self, references: Sequence[Mapping[str, Any]]) -> list[ComposerInput]:
        """One input for each reference and prompt, prompts of the first reference first; none for a request without either."""
        request = self.request
        prompts = [self.wordings[i] for i in self.composed_prompts]
        only_forbid = len(prompts) < len(request.prompt)  # some prompts: captions lose what these forbid
        if not references and not prompts:
            return []
        avoid = tuple(self.avoid) if only_forbid else request.avoid
        return [
            _composer_input(wordings, {"avoid": avoid, **reference})
            for reference in references or [{}]
            for wordings in prompts or [((None, None),)]
        ]

    def combine(self, compositions: Sequence[Composition]) -> Composition:
        """The compositions of its inputs as one."""
        request, prompts = self.request, max(1, len(self.composed_prompts))
        rows = [compositions[start : start + prompts] for start in range(0, len(compositions), prompts)]
        strengths = [request.strength[i] for i in self.composed_prompts]
        whole = combine(rows, request.image_weight or [1.0], strengths or [1.0])
        if request.paraphrases > 1:
            unknown = [request.prompt[i] for i in self.composed_prompts if len(self.wordings[i]) == 1]
            whole = whole.with_remarks(*(f"there is no paraphrase of {prompt!r}" for prompt in unknown))
        if request.reference_count > 1 and len(request.prompt) > 1:
            return whole.with_remarks(
                f"one query: {request.reference_count} references and {len(request.prompt)} prompts were combined "
                "(search_many ranks each by itself)"
            )
        return whole


def paraphrase_requests(requests: Sequence[SearchRequest], paraphraser: Paraphraser) -> list[dict[str, tuple[str, ...]]]:
    """For each request, the paraphrases of its prompts; requests for as many paraphrases share one call. {} if it asks for none."""
    by_count: dict[int, dict[str, tuple[str, ...]]] = {1: {}}
    for count in {request.paraphrases for request in requests} - {1}:
        prompts = list(dict.fromkeys(p for request in requests if request.paraphrases == count for p in request.prompt))
        by_count[count] = dict(zip(prompts, paraphrase_prompts(paraphraser, prompts, count - 1), strict=True))
    return [by_count[request.paraphrases] for request in requests]


def _read_wordings(texts: Sequence[str], compiler: RuleCompiler | None) -> tuple[tuple[str, ...], tuple[_Wording, ...]]:
    """What a prompt forbids, and its wordings: the first text, and the paraphrases that forbid the same.

    Without a compiler, all are taken word for word.
    """
    if compiler is None:
        return (), tuple((text, None) for text in texts)
    forbidden = [compiler.roles(text).forbidden for text in texts]
    desired = [compiler.desired_text(text) if phrases else None for text, phrases in zip(texts, forbidden, strict=True)]
    readings = zip(texts, forbidden, desired, strict=True)
    return forbidden[0], tuple(
        (text, rest)
        for text, phrases, rest in readings
        if set(phrases) == set(forbidden[0]) and (rest == "") == (desired[0] == "")
    )


def _composer_input(wordings: Sequence[_Wording], values: Mapping[str, Any]) -> ComposerInput:
    """The input of a prompt, from its own wording and its paraphrases."""
    own, *others = (ComposerInput(prompt=prompt, desired=desired, **values) for prompt, desired in wordings)
    return replace(own, paraphrases=tuple(others)) if others else own


@dataclass(frozen=True)
class ReferenceReader:
    """Reads references as the gallery's own images were read: files, images and items → vectors, images, names and fields."""

    gallery: GalleryBase[Any]
    encoder: Encoder
    vectors: LruCache[Float32] = field(default_factory=lambda: LruCache(MAX_CACHED_VECTORS), repr=False, compare=False)
    """Vectors of files that were read before, by content hash."""

    def read(self, requests: Sequence[SearchRequest]) -> list[list[dict[str, Any]]]:
        """For each request, the keywords of `ComposerInput` for each of its references: images first, then items.

        All images are opened in threads and encoded together; one that several requests share is encoded once.
        Raises ImageError for an unreadable image, GalleryError for an unknown id.
        """
        references = [_references(request) for request in requests]
        unique = {reference.key: reference for several in references for reference in several}
        inputs = self._read_items([one for one in unique.values() if one.has_vector])
        inputs |= self._read_images([one for one in unique.values() if not one.has_vector])
        captions: list[Sequence[str | None]] = [request.caption or [None] * request.reference_count for request in requests]
        return [
            [{**inputs[reference.key], "caption": caption} for reference, caption in zip(several, of_each, strict=True)]
            for several, of_each in zip(references, captions, strict=True)
        ]

    def first_picture(self, request: SearchRequest) -> Image.Image | None:
        """The first reference of a request, or its region, decoded; None if it has none or the file of an item is gone."""
        references = _references(request)
        try:
            return self._open(references[0]) if references else None
        except ImageError:
            if references[0].is_item:
                return None
            raise

    def ids(self, requests: Sequence[SearchRequest]) -> list[list[str]]:
        """For each request, the items that its references are, and those with the same content.

        Raises OptionError for a request without references, and for a reference that is neither.
        """
        files = [_image_files(request) for request in requests]
        ids = list(dict.fromkeys(id_ for request in requests for id_ in request.reference_id))
        hash_of = {id_: item.hash for id_, item in zip(ids, self.gallery.items(ids), strict=True)}
        hashes = [
            [*(hash_of[id_] for id_ in request.reference_id), *map(content_hash, paths)]
            for request, paths in zip(requests, files, strict=True)
        ]
        unique = list(dict.fromkeys(content for several in hashes for content in several))
        copies = dict(zip(unique, self.gallery.copies_of(unique) if unique else (), strict=True))
        return [
            list(dict.fromkeys([*request.reference_id, *(id_ for content in several for id_ in copies[content])]))
            for request, several in zip(requests, hashes, strict=True)
        ]

    def _read_items(self, references: Sequence[_Reference]) -> dict[Hashable, dict[str, Any]]:
        """Whole items, whose vectors are stored."""
        ids = [str(reference.source) for reference in references]
        items, vectors = self.gallery.items(ids), self.gallery.vectors(ids)
        in_archives = any(item.location.member is not None for item in items)  # these are decoded
        images = map_ahead(self._item_image, items, MAX_OPEN_IMAGES) if in_archives else map(self._item_image, items)
        return {
            reference.key: {"vector": vector, "image": image, "id": item.id, "fields": item.fields}
            for reference, item, vector, image in zip(references, items, vectors, images, strict=True)
        }

    def _read_images(self, references: Sequence[_Reference]) -> dict[Hashable, dict[str, Any]]:
        """Files, images, and regions of either or of items. Whole files of a content that was read before are not opened."""
        states = dict(zip([one.key for one in references], _states_of(references), strict=True))
        inputs: dict[Hashable, dict[str, Any]] = {}
        for one in references:
            state = states[one.key]
            if state is not None and (vector := self.vectors.get(state.content)) is not None:
                inputs[one.key] = {"vector": vector, **one.file_inputs}
        new = [one for one in references if one.key not in inputs]
        for one, vector, opened in zip(new, *self._open_and_encode(new), strict=True):
            inputs[one.key] = {"vector": vector, **opened}
            state = states[one.key]
            if state is not None and state == _FileState.of(one, state.content):
                self.vectors.put(state.content, vector.copy())
            else:  # it changed meanwhile
                states[one.key] = None
        contents = {key: state.content for key, state in states.items() if state is not None}
        fields = self._fields_of(list(contents.values()))
        return {key: {**values, **fields.get(contents.get(key), {})} for key, values in inputs.items()}

    def _open_and_encode(self, references: Sequence[_Reference]) -> tuple[Float32 | tuple[()], list[dict[str, Any]]]:
        """The vectors of references, and what composers get of each besides its vector."""
        inputs: list[dict[str, Any]] = []

        def pixels() -> Iterator[Image.Image]:
            for one, picture in zip(references, map_ahead(self._open, references, MAX_OPEN_IMAGES), strict=True):
                inputs.append(one.file_inputs if one.is_file else {"image": picture})
                yield picture

        return self._encode(pixels(), references) if references else (), inputs

    def _encode(self, pictures: Iterator[Image.Image], references: Sequence[_Reference]) -> Float32:
        """The vectors of references. Raises VectorError, with the name of one, if the encoder has no direction for it."""
        check_supports(self.encoder, Modality.IMAGE, "a reference image")
        names = ", ".join(dict.fromkeys(source_name(reference.source) for reference in references))
        try:
            vectors = encode_images(self.encoder, pictures)
        except VectorError as error:
            raise VectorError(f"{names}: the encoder cannot encode it ({error})") from error
        for row, problem in bad_rows(vectors).items():
            raise VectorError(f"{source_name(references[row].source)}: the encoder cannot encode it: {problem}")
        return vectors

    def _fields_of(self, hashes: Sequence[str]) -> dict[str | None, dict[str, Any]]:
        """The fields of each content that is in the gallery: those of the first item that has it."""
        copies = zip(hashes, self.gallery.copies_of(hashes) if hashes else (), strict=True)
        first = {content: ids[0] for content, ids in copies if ids}
        items = self.gallery.items(list(first.values())) if first else ()
        return {content: {"fields": item.fields} for content, item in zip(first, items, strict=True)}

    def _open(self, reference: _Reference) -> Image.Image:
        """A reference, or its region, decoded."""
        source = reference.source
        picture = self.gallery.picture(str(source)) if reference.is_item else self._decode(source)
        return picture if reference.region is None else crop(picture, reference.region)

    def _item_image(self, item: Item) -> ImageLike | None:
        """The image of an item; None if it is no longer the one that was added, because a composer must not see another."""
        if item.location.member is None:
            return Path(item.path) if self.gallery.has_picture(item) else None
        try:
            return self.gallery.picture(item.id)
        except ImageError:
            return None

    def _decode(self, image: ImageLike) -> Image.Image:
        """The image decoded as those of the gallery were."""
        size = getattr(self.encoder, "image_size", DEFAULT_IMAGE_SIZE)
        return open_image(image, decode=self.gallery.decode, size=size, colors=self.gallery.colors)


@dataclass(frozen=True)
class _Reference:
    """An image, or an item by its id, and the region of it that counts."""

    source: ImageLike
    is_item: bool
    region: Region | None

    @property
    def has_vector(self) -> bool:
        """Whether it is a whole item, which needs no encoding."""
        return self.is_item and self.region is None

    @property
    def is_file(self) -> bool:
        """Whether it is a whole file."""
        return not self.is_item and self.region is None and isinstance(self.source, str | Path)

    @property
    def file_inputs(self) -> dict[str, Any]:
        """What composers get of a whole file. A region is another image than its file: it has no name."""
        return {"image": self.source, "id": Path(str(self.source)).name}

    @property
    def key(self) -> Hashable:
        """Equal for equal references: files by their path, images by identity."""
        return self.is_item, str(self.source) if isinstance(self.source, str | Path) else id(self.source), self.region


@dataclass(frozen=True)
class _FileState:
    """What a whole file was when it was read."""

    fingerprint: str
    content: str

    @classmethod
    def of(cls, reference: _Reference, content: str | None = None) -> _FileState | None:
        """The state of a file, hashed unless its content hash is known; None if it cannot be read, and for another reference."""
        try:
            path = Path(str(reference.source))
            return cls(Location(str(path)).fingerprint(), content or content_hash(path)) if reference.is_file else None
        except ImageError:
            return None


def _states_of(references: Sequence[_Reference]) -> Iterator[_FileState | None]:
    """The state of each reference, as `_FileState.of` gives it. A thread reads several small files in the time in which one starts."""
    batches = [references[start : start + STATE_BATCH_SIZE] for start in range(0, len(references), STATE_BATCH_SIZE)]
    return chain.from_iterable(map_ahead(lambda batch: list(map(_FileState.of, batch)), batches, MAX_OPEN_IMAGES))


def _image_files(request: SearchRequest) -> list[Path]:
    """The files that are references of a request; OptionError if it has no reference, or one that is no file."""
    if not request.reference_count:
        raise OptionError("exclude_reference needs a reference, and this query has none; leave it out")
    if unnamed := [image for image in request.image if not isinstance(image, str | Path)]:
        raise OptionError(f"exclude_reference needs files or ids of items as references, got a {type(unnamed[0]).__name__}")
    return [Path(image) for image in request.image if isinstance(image, str | Path)]


def _references(request: SearchRequest) -> list[_Reference]:
    given = [*((image, False) for image in request.image), *((id_, True) for id_ in request.reference_id)]
    return [_Reference(source, is_item, region) for (source, is_item), region in zip(given, request.region, strict=True)]
