"""Objects as encoders: any one with the members, with an identity of its own or a given one; models recognized without an import."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mmretrieve as mm
from mmretrieve.encoders.base import BatchEncoder, ContextLimit, Encoder
from mmretrieve.encoders.loading import as_encoder
from mmretrieve.errors import EncoderError, OptionError
from mmretrieve.vectors import unit

IDENTITY = mm.EncoderIdentity("mine", "5f2c", "none")


class Nameless:
    """An encoder without an identity."""

    dim = 8
    context_length = 3

    def encode_images(self, images: Iterable[Any], progress: Any = None) -> np.ndarray:  # noqa: ARG002
        return unit(np.ones((len(list(images)), 8)))

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        return unit(np.ones((len(texts), 8)))

    def fits_context(self, texts: Sequence[str]) -> list[bool]:
        return [len(text.split()) <= 3 for text in texts]


class Named(Nameless):
    identity = IDENTITY


def test_an_encoder_is_returned_as_it_is(encoder: Encoder) -> None:
    own = Named()
    assert mm.load_encoder(own) is own
    assert mm.load_encoder(encoder) is encoder


def test_an_object_without_an_identity_gets_one_or_is_refused(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(
        OptionError,
        match="an object of type Nameless has no identity, by which a gallery recognizes its encoder: give load_enc",
    ):
        mm.load_encoder(Nameless())
    encoder = mm.load_encoder(Nameless(), identity=IDENTITY)
    assert isinstance(encoder, Encoder)
    assert isinstance(encoder, ContextLimit)
    assert not isinstance(encoder, BatchEncoder)
    assert (encoder.identity, encoder.dim, encoder.fits_context(["in red", "a b c d"])) == (IDENTITY, 8, [True, False])
    mm.Gallery.create(tmp_path / "g", encoder=encoder).add(photos)
    assert len(mm.Retriever.open(tmp_path / "g", encoder=Named()).search(prompt="in red", k=3)) == 3
    with pytest.raises(OptionError, match="expected an encoder or an EncoderIdentity"):
        mm.Gallery.create(tmp_path / "h", encoder=Nameless())


@pytest.mark.parametrize(
    ("value", "options", "message"),
    [
        (
            object(),
            {},
            "an object of type object is no encoder, which has dim, encode_images, encode_texts and identity: it has no dim",
        ),
        ((1, 2), {"identity": IDENTITY}, "an object of type tuple is no encoder"),
        (Named(), {"device": "cpu"}, "device, dtype and preprocessing are for names of encoders"),
        ("wardrobe", {"identity": IDENTITY}, "that of 'wardrobe' follows from its weights"),
    ],
)
def test_wrong_arguments_are_refused(value: object, options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        mm.load_encoder(value, **options)


def test_galleries_are_created_and_opened_with_names_of_encoders(photos: Path, tmp_path: Path) -> None:
    gallery = mm.Gallery.create(tmp_path / "g", encoder="wardrobe")
    assert gallery.add(photos).added == len(gallery) > 0
    assert mm.Retriever.open(tmp_path / "g", encoder="wardrobe").search(prompt="in red", k=3).ids
    with pytest.raises(OptionError, match="'wardrobes'"):
        mm.Retriever.open(tmp_path / "g", encoder="wardrobes")
    with pytest.raises(OptionError, match="'wardrobes'"):
        mm.Gallery.create(tmp_path / "h", encoder="wardrobes")
    assert not (tmp_path / "h").exists()


def test_models_are_recognized_without_an_import() -> None:
    """What is passed to every gallery imports no package; a class of that package does, and one derived from it, too."""
    code = (
        "import sys, mmretrieve.retriever\n"
        "from mmretrieve.encoders.loading import as_encoder\n"
        "as_encoder(object()), as_encoder((1, 2)), as_encoder('wardrobe')\n"
        "assert not {'torch', 'transformers', 'sentence_transformers'} & set(sys.modules), 'something heavy'\n"
        "Model = type('Model', (), {'__module__': 'transformers.models.bert'})\n"
        "Derived = type('Derived', (Model,), {'__module__': 'somebody'})\n"
        "for model in (Model(), Derived()):\n"
        "    try: as_encoder(model)\n"
        "    except ValueError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    kind = "of transformers of type None; expected one of clip, metaclip_2, siglip, siglip2"
    assert done.stdout.splitlines() == [f"a Model {kind}", f"a Derived {kind}"]


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package, file in (("sentence_transformers", "modules.json"), ("transformers", "config.json")):
        (tmp_path / package).mkdir()
        (tmp_path / package / file).write_text("{}")
        monkeypatch.setitem(sys.modules, package, None)
        monkeypatch.delitem(sys.modules, f"mmretrieve.encoders.{package}", raising=False)
        name = package.replace("_", "-")
        with pytest.raises(EncoderError, match=rf"a model of {name} needs the package {name}; .*'mmretrieve\[encoders\]'"):
            mm.load_encoder(tmp_path / package)


def test_an_encoder_derived_from_a_model_stays_itself() -> None:
    derived = type("Mine", (Named, type("Model", (), {"__module__": "transformers.models.bert"})), {})()
    assert as_encoder(derived) is derived
