"""The facade: a gallery, the encoder that made it, and a composer, behind one `search`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Unpack

from PIL import Image

from mmretrieve.balance import balanced
from mmretrieve.combining import combined
from mmretrieve.composers import Parts, make_composer
from mmretrieve.composers.base import Composer
from mmretrieve.composition import Composition
from mmretrieve.directions import PDV
from mmretrieve.encoders.base import Encoder
from mmretrieve.errors import GalleryError, ImageError, MMRetrieveError, OptionError
from mmretrieve.gallery.gallery import Gallery
from mmretrieve.gallery.index.plan import Device
from mmretrieve.gallery.store.records import Item
from mmretrieve.images import DEFAULT_IMAGE_SIZE, ImageLike, Region, content_hash, cropped, open_image
from mmretrieve.options import AUTO, BALANCED, DEFAULT_K, LEARNED_WORDS, ComposerName, RuleName
from mmretrieve.query import Query
from mmretrieve.question import Asked, Question, read_ids, read_question
from mmretrieve.ranking import Ranking
from mmretrieve.rules import make_rule
from mmretrieve.vectors import is_number

MORE, LESS = 0.75, -0.25  # Rocchio: what is wanted, and what is not, beside the query's own 1


class Retriever:
    """Answers "like this picture, but …" from one gallery."""

    def __init__(self, gallery: Gallery, encoder: Encoder, *, parts: Parts | None = None) -> None:
        gallery.check_encoder(encoder)
        self.gallery, self.encoder, self._parts = gallery, encoder, parts or Parts()
        self._composers: dict[tuple[ComposerName, RuleName], Composer] = {}

    @classmethod
    def open(
        cls,
        path: str | Path,
        *,
        encoder: Encoder | None = None,
        device: str = "auto",
        dtype: str = "auto",
        parts: Parts | Callable[[Encoder], Parts] | None = None,
    ) -> Retriever:
        """The gallery at `path` with the encoder that made it, loaded by the name the gallery remembers unless given.

        device: where the encoder computes and, for "cuda" or "auto", the index is searched (see `Gallery.open`).
        parts: what composers are built of: a captioner, a rewriter, a phi, …, or a function that makes them once the
        encoder is there. Raises GalleryError where that name now
        loads another encoder, or `encoder` is another; both are named.
        """
        gallery = Gallery.open(path, device=_searching(device))
        encoder = encoder or _encoder_of(gallery, device, dtype)
        return cls(gallery, encoder, parts=parts(encoder) if callable(parts) else parts)

    def compose(
        self,
        image: ImageLike | Sequence[ImageLike] | None = None,
        prompt: str | Sequence[str] | None = None,
        **more: Unpack[Question],
    ) -> Composition:
        """The terms of a query under the base weights of its composer; images and words are encoded here and only here.

        image: one or several paths, PIL images or open files. prompt: one or several, whose directions add. What else
        can be asked is listed in `Question`. Raises OptionError for what contradicts itself or says nothing, ImageError
        for an unreadable image, GalleryError for an unknown id.
        """
        ask = read_question(image, prompt, more)
        composition = self._composed(ask) if ask.references or ask.prompts else None
        for role, weight, ids in (("more", MORE, ask.more_like), ("less", LESS, ask.less_like)):
            if ids:
                if composition is not None and not composition.rule.weighs:
                    raise OptionError(
                        f"the {composition.rule.name.value!r} rule has no weights: leave out more_like and less_like"
                    )
                liked = role, self.gallery.vectors(ids), weight, ids
                composition = Composition.of(*liked) if composition is None else composition.plus(*liked)
        if composition is None:
            raise OptionError("a query needs a reference image, a prompt, or both")
        return composition

    def weigh(
        self,
        composition: Composition,
        *,
        alpha_image: float | Literal["auto"] | None = None,
        alpha_text: float | None = None,
        beta: float | None = None,
        weights: Mapping[str, float] | Literal["balanced"] | None = None,
    ) -> Composition:
        """The composition under PDV weights: what is named here, else the gallery's setting, else the base method.

        alpha_image "auto" takes the closed form of `automatic_alpha_image`. weights: of each role, instead of the knobs;
        a role not named weighs 0; or "balanced" (see `balance`). OptionError where knobs or roles are named that these
        terms, or their rule, do not have.
        """
        named = {
            name: value
            for name, value in (("alpha_image", alpha_image), ("alpha_text", alpha_text), ("beta", beta))
            if value is not None
        }
        if weights is not None:
            return self._weighed(composition, weights, named)
        if not named and not (self.gallery.setting is not None and composition.is_base):
            return composition  # what has no PDV, or a weighting of its own, keeps it
        setting = self.gallery.setting or PDV()
        knobs: dict[str, float] = {"alpha_image": setting.alpha_image, "alpha_text": setting.alpha_text, "beta": setting.beta}
        if named.get("alpha_image") == AUTO:
            named["alpha_image"] = composition.automatic_alpha_image()
        return composition.with_pdv(PDV(**(knobs | named)))  # type: ignore[arg-type]

    def search(
        self,
        image: ImageLike | Sequence[ImageLike] | None = None,
        prompt: str | Sequence[str] | None = None,
        *,
        k: int = DEFAULT_K,
        alpha_image: float | Literal["auto"] | None = None,
        alpha_text: float | None = None,
        beta: float | None = None,
        weights: Mapping[str, float] | Literal["balanced"] | None = None,
        min_score: float | None = None,
        where: str | None = None,
        exclude: Collection[str] = (),
        exclude_reference: bool = False,
        **more: Unpack[Question],
    ) -> Ranking:
        """The k items that best match a reference image and a prompt: `compose`, then `weigh`, then one search of the gallery.

        What can be asked besides is listed in `Question`. Items of `exclude` do not appear, nor, with exclude_reference,
        the references themselves (by id, or as any file of the same content), nor what scores below min_score, nor what
        does not fulfil `where`, an SQL expression over the items' fields.
        The ranking is as long as k or what is left, and notes it when shorter.
        """
        if min_score is not None and not is_number(min_score):
            raise OptionError(f"min_score must be a finite number, got {min_score!r}")
        hidden = read_ids("exclude", exclude)
        if exclude_reference:
            hidden += self.ids_of_references(image, prompt, **more)
        composition = self.compose(image, prompt, **more)
        weighed = self.weigh(composition, alpha_image=alpha_image, alpha_text=alpha_text, beta=beta, weights=weights)
        return self.gallery.search(weighed, k, exclude=hidden, where=where, min_score=min_score)

    def ids_of_references(
        self,
        image: ImageLike | Sequence[ImageLike] | None = None,
        prompt: str | Sequence[str] | None = None,
        **more: Unpack[Question],
    ) -> list[str]:
        """The items that the references of a question are: by id, or by the content of their files.

        OptionError where it has no reference, or one that is neither.
        """
        ask = read_question(image, prompt, more)
        if not ask.references:
            raise OptionError("exclude_reference was asked for, but the query has no reference")
        if unnamed := [image for image in ask.images if not isinstance(image, str | Path)]:
            raise OptionError(f"exclude_reference needs a file or an item's id; a {type(unnamed[0]).__name__} has neither")
        copies = [self.gallery.copies(content_hash(Path(image))) for image in ask.images if isinstance(image, str | Path)]
        return [*ask.ids, *(id_ for found in copies for id_ in found)]

    def _weighed(self, composition: Composition, weights: Mapping[str, float] | str, named: Collection[str]) -> Composition:
        if named:
            raise OptionError(f"give weights or {', '.join(named)}, not both")
        if weights == BALANCED:
            return balanced(composition, self.gallery.spread)
        if not isinstance(weights, Mapping) or not all(isinstance(role, str) and is_number(w) for role, w in weights.items()):
            raise OptionError(
                f"weights are numbers by role, such as {{'image': 1, 'prompt': 2}}, or {BALANCED!r}; got {weights!r}"
            )
        return composition.with_weights(weights)

    def _composed(self, ask: Asked) -> Composition:
        """One composition for each reference and prompt, combined."""
        references: list[dict[str, Any]] = self._references(ask) or [{}]
        prompts: list[str | None] = [*ask.prompts] or [None]
        queries = [Query(prompt=prompt, **reference) for reference in references for prompt in prompts]
        parts = self._composer(ask.composer, ask.rule).compose(queries)
        rows = [parts[start : start + len(prompts)] for start in range(0, len(parts), len(prompts))]
        composition = combined(rows, ask.image_weights or [1.0], ask.strengths or [1.0])
        if ask.rule is None:
            return composition
        return composition.with_rule(make_rule(ask.rule, learned_words=ask.composer in LEARNED_WORDS))

    def _references(self, ask: Asked) -> list[dict[str, Any]]:
        """What a `Query` says of its reference, for each of them: of images first, then of items."""
        of_images, of_items = ask.regions[: len(ask.images)], ask.regions[len(ask.images) :]
        looked_at = [*map(self._image, ask.images, of_images), *map(self._item, ask.ids, of_items)]
        unseen = [picture for _, picture in looked_at if picture is not None]
        vectors = iter(self.encoder.encode_images(unseen) if unseen else ())
        captions: list[str | None] = [*ask.captions] or [None] * len(looked_at)
        return [
            said | {"caption": caption} | ({} if picture is None else {"vector": next(vectors)})
            for (said, picture), caption in zip(looked_at, captions, strict=True)
        ]

    def _image(self, image: ImageLike, region: Region | None) -> tuple[dict[str, Any], ImageLike | None]:
        """What a query says of an image, and the picture that has yet to be encoded. A part of it is another picture, without a name."""
        opened = self._opened(image)
        if region is not None:
            part = cropped(opened, region)
            return {"image": part}, part
        if not isinstance(image, str | Path):
            return {"image": opened}, opened
        return {"image": image, "id": Path(image).name}, opened

    def _item(self, id_: str, region: Region | None) -> tuple[dict[str, Any], ImageLike | None]:
        """The same of an item, whose vector is there already."""
        if region is not None:
            part = cropped(self.gallery.picture(id_), region)
            return {"image": part}, part
        return {"vector": self.gallery.vectors([id_])[0], "image": self._shown(self.gallery.item(id_)), "id": id_}, None

    def _shown(self, item: Item) -> ImageLike | None:
        """The picture of an item, None where it is no longer the one that was added: a method must not look at another."""
        try:
            picture = self.gallery.picture(item.id)
        except ImageError:
            return None
        return picture if item.place.part else Path(item.path)

    def _opened(self, image: ImageLike) -> Image.Image:
        """The reference decoded as the gallery's own pictures were."""
        return open_image(image, decode=self.gallery.decode, size=getattr(self.encoder, "image_size", DEFAULT_IMAGE_SIZE))

    def _composer(self, name: ComposerName, rule: RuleName | None) -> Composer:
        key = name, rule or RuleName.LINEAR
        if key not in self._composers:
            self._composers[key] = make_composer(name, self.encoder, self._parts, score=self.gallery.scores, rule=key[1])
        return self._composers[key]


def _searching(device: str) -> Device:
    """What searches where torch computes on `device`: FAISS knows all GPUs of the machine or none, and nothing of Apple's."""
    kind = device.partition(":")[0]
    return Device(kind) if kind in (Device.AUTO, Device.CUDA) else Device.CPU


def _encoder_of(gallery: Gallery, device: str, dtype: str) -> Encoder:
    from mmretrieve.encoders.openclip import load_encoder, preprocessing_of  # torch only where an encoder is not given

    try:
        identity = gallery.encoder_identity
        return load_encoder(identity.model, device=device, dtype=dtype, preprocessing=preprocessing_of(identity))
    except OptionError:
        raise
    except MMRetrieveError as error:
        raise GalleryError(f"{gallery.path}: the encoder that made this gallery cannot be loaded: {error}") from error
