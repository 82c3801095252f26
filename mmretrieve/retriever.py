"""The facade: a gallery, the encoder that made it, and a composer, behind one `search`."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Literal

from mmretrieve.composers import make_composer
from mmretrieve.composers.base import Composer, Query
from mmretrieve.composers.vocabulary import Vocabulary
from mmretrieve.composition import PDV, Composition
from mmretrieve.encoders.base import Encoder
from mmretrieve.errors import GalleryError, MMRetrieveError, OptionError
from mmretrieve.gallery.gallery import Gallery
from mmretrieve.images import DEFAULT_IMAGE_SIZE, ImageLike, open_image
from mmretrieve.options import AUTO, DEFAULT_K, ComposerName
from mmretrieve.ranking import Ranking


class Retriever:
    """Answers "like this picture, but …" from one gallery."""

    def __init__(self, gallery: Gallery, encoder: Encoder, *, vocabulary: Vocabulary | None = None) -> None:
        gallery.check_encoder(encoder)
        self.gallery, self.encoder = gallery, encoder
        self._vocabulary = vocabulary
        self._composers: dict[ComposerName, Composer] = {}

    @classmethod
    def open(
        cls,
        path: str | Path,
        *,
        encoder: Encoder | None = None,
        device: str = "auto",
        dtype: str = "auto",
        vocabulary: Vocabulary | None = None,
    ) -> Retriever:
        """The gallery at `path` with the encoder that made it, loaded by the name the gallery remembers unless given.

        Raises GalleryError where that name now loads another encoder, or `encoder` is another; both are named.
        """
        gallery = Gallery.open(path)
        return cls(gallery, encoder or _encoder_of(gallery, device, dtype), vocabulary=vocabulary)

    def compose(
        self,
        image: ImageLike | None = None,
        prompt: str | None = None,
        *,
        reference_id: str | None = None,
        caption: str | None = None,
        composer: ComposerName | str | None = None,
    ) -> Composition:
        """The terms of a query under the base weights of its composer; images and words are encoded here and only here.

        image: path, PIL image or open file; or reference_id, an item of the gallery. composer: by default "captions"
        for an image with a prompt, "image" or "prompt" for one of them alone.
        Raises OptionError for an empty prompt, two references, or a caption that the composer would not use; ImageError for an unreadable image.
        """
        if image is not None and reference_id is not None:
            raise OptionError("give image or reference_id, not both")
        if image is None and reference_id is None and prompt is None:
            raise OptionError("a query needs a reference image, a prompt, or both")
        name = (
            _composer_for(image is not None or reference_id is not None, prompt) if composer is None else ComposerName(composer)
        )
        if caption is not None and name is not ComposerName.CAPTIONS:
            raise OptionError(
                f"a caption is for the 'captions' composer with an image and a prompt; this query uses {name.value!r}"
            )
        vector = None
        if reference_id is not None:
            vector = self.gallery.vectors([reference_id])[0]
        elif image is not None:
            vector = self.encoder.encode_images([self._opened(image)])[0]
        return self._composer(name).compose([Query(vector, prompt, caption, image)])[0]

    def weigh(
        self,
        composition: Composition,
        *,
        alpha_image: float | Literal["auto"] | None = None,
        alpha_text: float | None = None,
        beta: float | None = None,
    ) -> Composition:
        """The composition under PDV weights: what is named here, else the gallery's setting, else the base method.

        alpha_image "auto" takes the closed form of `automatic_alpha_image`. OptionError where knobs are named that
        these terms do not have.
        """
        named = {
            name: value
            for name, value in (("alpha_image", alpha_image), ("alpha_text", alpha_text), ("beta", beta))
            if value is not None
        }
        if not composition.takes_pdv:
            return composition.with_pdv(PDV()) if named else composition
        setting = self.gallery.setting or PDV()
        knobs: dict[str, float] = {"alpha_image": setting.alpha_image, "alpha_text": setting.alpha_text, "beta": setting.beta}
        if named.get("alpha_image") == AUTO:
            named["alpha_image"] = composition.automatic_alpha_image()
        return composition.with_pdv(PDV(**(knobs | named)))  # type: ignore[arg-type]

    def search(
        self,
        image: ImageLike | None = None,
        prompt: str | None = None,
        *,
        k: int = DEFAULT_K,
        reference_id: str | None = None,
        caption: str | None = None,
        composer: ComposerName | str | None = None,
        alpha_image: float | Literal["auto"] | None = None,
        alpha_text: float | None = None,
        beta: float | None = None,
        exclude: Collection[str] = (),
    ) -> Ranking:
        """The k items that best match a reference image and a prompt: `compose`, then `weigh`, then one search of the index.

        `exclude` names items that must not appear. The ranking is as long as k or the gallery, and notes it when shorter.
        """
        composition = self.compose(image, prompt, reference_id=reference_id, caption=caption, composer=composer)
        weighed = self.weigh(composition, alpha_image=alpha_image, alpha_text=alpha_text, beta=beta)
        return self.gallery.search(weighed, k, exclude=exclude)

    def _opened(self, image: ImageLike) -> ImageLike:
        """The reference decoded as the gallery's own pictures were."""
        return open_image(image, decode=self.gallery.decode, size=getattr(self.encoder, "image_size", DEFAULT_IMAGE_SIZE))

    def _composer(self, name: ComposerName) -> Composer:
        if name not in self._composers:
            self._composers[name] = make_composer(name, self.encoder, vocabulary=self._vocabulary)
        return self._composers[name]


def _composer_for(has_image: bool, prompt: str | None) -> ComposerName:
    if not has_image:
        return ComposerName.PROMPT
    return ComposerName.IMAGE if prompt is None else ComposerName.CAPTIONS


def _encoder_of(gallery: Gallery, device: str, dtype: str) -> Encoder:
    from mmretrieve.encoders.openclip import load_encoder  # torch only where an encoder is not given

    try:
        return load_encoder(gallery.encoder_identity.model, device=device, dtype=dtype)
    except OptionError:
        raise
    except MMRetrieveError as error:
        raise GalleryError(f"{gallery.path}: the encoder that made this gallery cannot be loaded: {error}") from error
