"""Methods by name: those of an installed package, in a process of its own, and those that a program registers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from PIL import Image

import mmretrieve as mm
from mmretrieve.composers import make_composer
from mmretrieve.errors import GalleryError, OptionError
from mmretrieve.language.captioners.tagger import Tagger
from mmretrieve.language.options import LanguageOptions, captioner_from
from mmretrieve.wardrobe.captions import vocabulary

PLUGIN = Path(__file__).parent / "plugin"
COLORS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "yellow": (255, 255, 0), "purple": (128, 0, 128)}
PROGRAM = """
import json, sys
import mmretrieve as mm

folder, pictures = sys.argv[1:]
encoder = mm.load_encoder("mosaic")
mm.testing.check_encoder(encoder)
mm.testing.check_composer("blend", encoder=encoder)
mm.testing.check_rule("weakest")
mm.Gallery.create(folder, encoder=encoder).add(pictures)
retriever = mm.Retriever.open(folder, parts=mm.Parts(captioner="main-color", rewriter="template"))
request = {"image": f"{pictures}/red.png", "prompt": "blue", "k": 5}
blend = retriever.search(**request, composer="blend")
weakest = retriever.search(**request, composer="blend", rule="weakest")
captions = retriever.search(**request, composer="captions")
judged = retriever.search(**request, composer="blend", judge="brightest", judge_weight=float("inf"))
lazy = mm.Retriever.open(folder, lazy=True).search(prompt="green", k=1)
print(json.dumps([type(retriever.encoder).__name__, blend.ids, weakest.ids, captions.words, judged.ids, lazy.ids]))
assert "pytest" not in sys.modules
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a process in which the package is installed: its module and the metadata that pip would write."""
    project = tomllib.loads((PLUGIN / "pyproject.toml").read_text())["project"]
    info = tmp_path_factory.mktemp("site") / f"mmretrieve_mosaic-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    groups = ([f"[{group}]", *map(" = ".join, points.items())] for group, points in project["entry-points"].items())
    (info / "entry_points.txt").write_text("\n".join(line for group in groups for line in group))
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(info.parent), str(PLUGIN), *sys.path])}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for name, color in COLORS.items():
        Image.new("RGB", (40, 30), color).save(folder / f"{name}.png")
    return folder


@pytest.fixture(scope="module")
def mosaic_gallery(installed: dict[str, str], pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A gallery that the shell made with the encoder of the package."""
    folder = tmp_path_factory.mktemp("galleries") / "mosaic.gallery"
    run(installed, "-m", "mmretrieve", "index", str(pictures), "--gallery", str(folder), "--encoder", "mosaic")
    return folder


def run(environment: dict[str, str], *words: str) -> str:
    done = subprocess.run([sys.executable, *words], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_python_searches_with_an_installed_package(installed: dict[str, str], pictures: Path, tmp_path: Path) -> None:
    encoder, blend, weakest, words, judged, lazy = json.loads(run(installed, "-c", PROGRAM, str(tmp_path / "g"), str(pictures)))
    assert encoder == "Mosaic"
    assert blend[0] == "blue.png"  # 3 · 1 − 1/3, against (3 + 1) / √3 of purple
    assert weakest[0] == "purple.png"  # 1/√3 to both red and blue, which are −1/3 to each other
    assert words["text"] == "red picture"
    assert words["composed"] == "red picture, blue"
    assert judged[0] == "yellow.png"  # two channels of three
    assert lazy == ["green.png"]


def test_the_shell_searches_with_an_installed_package(installed: dict[str, str], mosaic_gallery: Path, pictures: Path) -> None:
    query = ("--image", str(pictures / "red.png"), "--prompt", "blue", "--json")
    weakest = run(
        installed, "-m", "mmretrieve", "search", str(mosaic_gallery), *query, "--composer", "blend", "--rule", "weakest"
    )
    assert json.loads(weakest.splitlines()[0])["id"] == "purple.png"
    captions = ("--captioner", "main-color", "--rewriter", "template")
    captioned = run(installed, "-m", "mmretrieve", "search", str(mosaic_gallery), *query, *captions)
    assert json.loads(captioned.splitlines()[0])["query"]["words"]["text"] == "red picture"


def test_a_gallery_names_the_encoder_of_a_package_that_is_missing(mosaic_gallery: Path) -> None:
    with pytest.raises(GalleryError, match="was made by 'mosaic', which load_encoder does not know; pass encoder="):
        mm.Retriever.open(mosaic_gallery)
    assert set(mm.Gallery.open(mosaic_gallery).ids) == {f"{name}.png" for name in COLORS}


class Renamed:
    """The vectors of another encoder, under a name of its own."""

    def __init__(self, encoder: mm.Encoder, name: str) -> None:
        self.identity = mm.EncoderIdentity(name, "renamed", "none")
        self.dim, self.encode_images, self.encode_texts = encoder.dim, encoder.encode_images, encoder.encode_texts


@pytest.mark.usefixtures("registered")
def test_a_registered_encoder_opens_the_galleries_that_name_it(
    encoder: mm.Encoder, photos: Path, tmp_path: Path, retriever: mm.Retriever
) -> None:
    contexts = []
    mm.register_encoder("again", lambda context: contexts.append(context) or Renamed(encoder, context.name))
    mm.Gallery.create(tmp_path / "g", encoder=mm.load_encoder("again", device="cpu")).add(photos)
    for lazy in (False, True):
        opened = mm.Retriever.open(tmp_path / "g", device="cpu", lazy=lazy)
        assert opened.search(prompt="in red").ids == retriever.search(prompt="in red").ids
    assert {(context.name, context.device.type, context.preprocessing) for context in contexts} == {("again", "cpu", "plain")}
    assert opened.encoder.fits_context(["a " * 1000]) == [True], "it has no limit"
    opened.gallery.delete(opened.gallery.ids[:3])
    assert opened.gallery.add(photos).added == 3


@pytest.mark.usefixtures("registered")
def test_names_of_encoders_are_checked(encoder: mm.Encoder) -> None:
    mm.register_encoder("mine", lambda context: Renamed(encoder, "other"))  # noqa: ARG005
    mm.register_encoder("half", lambda context: context)
    for name, message in (
        ("mine", r"encoder 'mine': its identity names the model 'other', .*; give it EncoderIdentity\('mine', …\)"),
        ("half", "encoder 'half': its factory returned EncoderContext without 'identity'"),
        ("hal", "unknown encoder 'hal'; did you mean 'half'\\? choose from: wardrobe, mine, half, MODEL/TAG"),
    ):
        with pytest.raises(OptionError, match=message):
            mm.load_encoder(name)
    with pytest.raises(OptionError, match="encoder 'wardrobe' exists already"):
        mm.register_encoder("wardrobe", lambda context: context)
    with pytest.raises(OptionError, match="encoder 'bad': its factory does not take one argument"):
        mm.register_encoder("bad", lambda: None)  # type: ignore[misc,arg-type]


@pytest.mark.usefixtures("registered")
def test_a_captioner_has_the_same_name_everywhere(made: Path, encoder: mm.Encoder, photos: Path) -> None:
    contexts = []
    mm.register_captioner("once", lambda context: contexts.append(context) or Tagger(context.encoder, context.vocabulary, 1))
    words = vocabulary()
    request = {"image": sorted(photos.rglob("*.png"))[0], "prompt": "in red"}
    for name, rounds in (("once", 1), ("tagger", 2)):
        named, given = (
            mm.Retriever.open(made, encoder=encoder, parts=mm.Parts(captioner=captioner, vocabulary=words))
            for captioner in (name, Tagger(encoder, words, rounds))
        )
        for composer in ("captions", "sdr"):
            assert named.search(**request, composer=composer) == given.search(**request, composer=composer)
        options = captioner_from(LanguageOptions(captioner=name), encoder, vocabulary=words)
        assert (type(options), options.rounds) == (Tagger, rounds)
        assert make_composer("captions", encoder, mm.Parts(captioner=name)).captioner.rounds == rounds
    assert len(contexts) == 3, "a retriever builds it once"
    assert all(context.encoder is encoder for context in contexts)
    unknown = mm.Retriever.open(made, encoder=encoder, parts=mm.Parts(captioner="tager"))
    for search in (lambda: unknown.search(**request), lambda: LanguageOptions(captioner="tager")):
        with pytest.raises(
            OptionError, match=r"unknown captioner 'tager'; did you mean 'tagger'\? choose from: tagger, .*once"
        ):
            search()
