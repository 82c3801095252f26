"""Stored patches: computed once, never of another image or encoder, bounded, shared by processes, and left out where they cannot be used."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import mmretrieve as mm
from mmretrieve.cli.main import main
from mmretrieve.errors import GalleryError, OptionError
from mmretrieve.gallery.store import patches as module
from mmretrieve.gallery.store.files import PATCHES
from mmretrieve.gallery.store.patches import PatchCache
from mmretrieve.judges.local import LocalJudge
from mmretrieve.language.vocabulary import Vocabulary, WordGroup

COLORS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}
VOCABULARY = Vocabulary("a {colour} thing", (WordGroup("colour", tuple(COLORS)),))


class PixelEncoder:
    """Each of three pixels of an image is a patch. Counts the images whose patches it encoded."""

    dim = 3

    def __init__(self, weights: str = "pixels", dtype: str = "float32") -> None:
        self.identity, self.dtype, self.encoded = mm.EncoderIdentity("pixels", weights, "none"), dtype, 0

    def supports(self, modality: str) -> bool:
        return modality in ("image", "text", "patches")

    def encode_images(self, images: Iterable[Any], progress: Any = None) -> np.ndarray:  # noqa: ARG002
        return np.array([_unit(_pixels(image).mean(axis=0)) for image in images], np.float32).reshape(-1, 3)

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        words = [[COLORS[word] for word in text.split() if word in COLORS] or [(1, 1, 1)] for text in texts]
        return np.array([_unit(np.mean(each, axis=0)) for each in words], np.float32).reshape(-1, 3)

    def encode_patches(self, images: Iterable[Any]) -> np.ndarray:
        patches = [[_unit(row) for row in _pixels(image)] for image in images]
        self.encoded += len(patches)
        return np.array(patches, np.float32).reshape(-1, 3, 3)


def _pixels(image: Any) -> np.ndarray:
    opened = image if isinstance(image, Image.Image) else Image.open(image)
    return np.asarray(opened.convert("RGB"), np.float64).reshape(-1, 3)


def _unit(row: np.ndarray) -> np.ndarray:
    return row / np.linalg.norm(row)


def save(path: Path, *colors: str) -> None:
    image = Image.new("RGB", (len(colors), 1))
    image.putdata([COLORS.get(color, (1, 2, 3)) for color in colors])
    image.save(path)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name, colors in {"a": "red red green", "b": "green other green", "c": "blue red blue", "d": "blue blue other"}.items():
        save(folder / f"{name}.png", *colors.split())
    return folder


@pytest.fixture
def path(pictures: Path, tmp_path: Path) -> Path:
    mm.Gallery.create(tmp_path / "gallery", encoder=PixelEncoder()).add(pictures)
    return tmp_path / "gallery"


def gallery_of(path: Path, **options: str) -> tuple[mm.Gallery, PixelEncoder]:
    """The gallery as another process opens it, and its encoder."""
    encoder = PixelEncoder(**options)
    return mm.Gallery.open(path, encoder=encoder), encoder


def assert_right(gallery: mm.Gallery, pictures: Path) -> None:
    expected = PixelEncoder().encode_patches([pictures / id_ for id_ in gallery.ids]).astype(np.float16)
    np.testing.assert_array_equal(gallery.patches(gallery.ids), expected.astype(np.float32))


def test_patches_are_computed_once(path: Path, pictures: Path) -> None:
    first, encoder = gallery_of(path)
    assert_right(first, pictures)
    assert_right(first, pictures)
    again, other = gallery_of(path)
    assert_right(again, pictures)
    assert (encoder.encoded, other.encoded) == (4, 0)
    assert first.info()["bytes"][PATCHES] == (path / PATCHES).stat().st_size > 0
    assert first.verify() == []


def test_a_copy_of_an_image_shares_its_patches(path: Path, pictures: Path) -> None:
    shutil.copy(pictures / "a.png", pictures / "e.png")
    gallery, encoder = gallery_of(path)
    gallery.add(pictures)
    assert_right(gallery, pictures)
    assert (len(gallery), encoder.encoded) == (5, 4)


def test_a_changed_image_has_other_patches(path: Path, pictures: Path) -> None:
    gallery, encoder = gallery_of(path)
    before = gallery.patches(["a.png", "b.png"])
    save(pictures / "a.png", "blue", "blue", "blue")
    np.testing.assert_array_equal(gallery.patches(["a.png", "b.png"]), before)  # those of the image that the gallery has
    gallery.add(pictures, update=True)
    assert_right(gallery, pictures)
    assert encoder.encoded == 5


@pytest.mark.parametrize("options", [{"weights": "others"}, {"dtype": "bfloat16"}])
def test_another_encoder_has_other_patches(path: Path, options: dict[str, str]) -> None:
    gallery, encoder = gallery_of(path)
    gallery.patches(gallery.ids)
    hashes = [item.hash for item in gallery.items(gallery.ids)]
    assert len(PatchCache(path, encoder).get(hashes)) == 4
    assert PatchCache(path, PixelEncoder(**options)).get(hashes) == {}


def test_gone_images_keep_stored_patches(path: Path, pictures: Path) -> None:
    gallery, _ = gallery_of(path)
    (stored,) = gallery.patches(["a.png"])
    shutil.rmtree(pictures)
    again = gallery.patches(["b.png", "a.png"])
    assert again[0] is None
    np.testing.assert_array_equal(again[1], stored)
    assert list(gallery.pictures(["b.png", "a.png"])) == [None, None]


# Searches


def search(path: Path, **options: Any) -> mm.Ranking:
    retriever = mm.Retriever.open(path, encoder=PixelEncoder(), parts=mm.Parts(vocabulary=VOCABULARY))
    return retriever.search(prompt="in red", k=4, **options)


def test_a_judge_ranks_the_same_with_and_without_images(path: Path, pictures: Path) -> None:
    cold = search(path, judge="local")
    assert cold.note is None
    assert cold == search(path, judge="local")
    shutil.rmtree(pictures)
    assert cold == search(path, judge="local")


def test_the_first_stage_stays_where_patches_are_missing(path: Path, pictures: Path) -> None:
    mm.Gallery.open(path, encoder=PixelEncoder()).patches(["a.png"])
    shutil.rmtree(pictures)
    partly = search(path, judge="local")
    assert partly.note == "the judge scored 1 of the 4 items; the others count as the worst of these"
    (path / PATCHES).unlink()
    without = search(path, judge="local")
    assert without.note == "there is no image of the 4 best hits for the judge; this is the order without the judge"
    assert without.ids == search(path).ids


def test_other_judges_see_images(path: Path) -> None:
    seen: list[set[str]] = []

    class Watching:
        def rank(self, _: Any, documents: Sequence[Any]) -> list[dict[str, Any]]:
            seen.extend(set(document) for document in documents)
            return [{"corpus_id": i, "score": 0.0} for i in range(len(documents))]

    class OtherPatches(Watching):
        patch_encoder = mm.EncoderIdentity("pixels", "others", "none")

    class SamePatches(Watching):
        patch_encoder = PixelEncoder().identity

    for judge in (Watching(), OtherPatches(), SamePatches()):
        search(path, judge=judge, judge_k=2)
    assert seen == [{"image"}] * 4 + [{"patches"}] * 2


def test_an_encoder_that_fails_is_a_remark(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> np.ndarray:
        raise RuntimeError("no patches today")

    monkeypatch.setattr(PixelEncoder, "encode_patches", fail)
    ranking = search(path, judge="local")
    assert ranking.note == "LocalJudge failed (RuntimeError: no patches today); this is the order without the judge"
    assert ranking.ids == search(path).ids


def test_documents_of_both_kinds(pictures: Path) -> None:
    encoder = PixelEncoder()
    judge, image = LocalJudge(encoder, VOCABULARY), Image.open(pictures / "a.png").convert("RGB")
    documents = [{"image": image}, {"patches": encoder.encode_patches([image])[0]}]
    one, other = judge.rank({"text": "in red"}, documents)
    assert one["score"] == other["score"] > 0


# Damage, bounds and other processes


@pytest.mark.parametrize("damage", ["text", "cut", "bytes", "vectors", "table"])
def test_damaged_patches_are_encoded_again(path: Path, pictures: Path, damage: str) -> None:
    gallery, encoder = gallery_of(path)
    gallery.patches(gallery.ids)
    file = path / PATCHES
    if damage == "text":
        file.write_text("not a database, but long enough for its header to be read " * 99)
    elif damage == "cut":
        os.truncate(file, file.stat().st_size // 2)
    elif damage == "bytes":
        data = bytearray(file.read_bytes())
        data[100::7] = b"\xff" * len(data[100::7])
        file.write_bytes(data)
    else:
        change = "UPDATE patches SET vectors = x'0011' WHERE id = 2" if damage == "vectors" else "DROP TABLE patches"
        with sqlite3.connect(file) as db:
            db.execute(change)
        db.close()
    assert_right(gallery, pictures)
    assert encoder.encoded == (5 if damage == "vectors" else 8)
    assert_right(*gallery_of(path)[:1], pictures)
    assert encoder.encoded == (5 if damage == "vectors" else 8)


def test_the_oldest_entries_of_searches_make_room(path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_BYTES", 2 * 3 * 3 * 2)  # two images of 3 × 3 float16 values
    gallery, encoder = gallery_of(path)
    for id_ in gallery.ids:
        gallery.patches([id_])
    gallery.patches(["c.png", "d.png"])
    assert encoder.encoded == 4
    assert str(gallery.store_patches()) == "2 added, 2 skipped, 0 failed"
    save(pictures / "e.png", "red", "blue", "other")
    gallery.add(pictures)
    assert_right(gallery, pictures)
    gallery.patches(["a.png", "b.png", "d.png", "e.png"])
    assert encoder.encoded == 7
    gallery.patches(["c.png"])  # of the three that searches added, the oldest
    assert encoder.encoded == 8


WRITER = """
import sys
from pathlib import Path
import numpy as np
sys.path.insert(0, sys.argv[2])
from test_stored_patches import PixelEncoder
from mmretrieve.gallery.store.patches import PatchCache
cache = PatchCache(Path(sys.argv[1]), PixelEncoder())
print("ready", flush=True)
for i in range(100_000):
    cache.put({f"{i % 50}": np.full((3, 3), i % 50, np.float16)})
"""


def test_two_writers_and_kill_9(tmp_path: Path) -> None:
    """Whenever a writer is killed, each entry is whole or absent, and the other writers go on."""
    words = [sys.executable, "-c", WRITER, str(tmp_path), str(Path(__file__).parent)]
    writers = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    cache = PatchCache(tmp_path, PixelEncoder())
    try:
        for writer in writers:
            assert writer.stdout is not None
            assert writer.stdout.readline() == "ready\n"
        cache.put({"mine": np.ones((3, 3), np.float16)})
        for writer in writers:
            while len(cache.get([str(i) for i in range(50)])) < 3:
                assert writer.poll() is None
            writer.send_signal(signal.SIGKILL)
            writer.wait()
            stored = cache.get([str(i) for i in range(50)])
            assert all((rows == int(content)).all() for content, rows in stored.items())
            cache.put({f"{writer.pid}": np.zeros((3, 3), np.float16)})
    finally:
        for writer in writers:
            writer.kill()
            writer.wait()
            assert writer.stdout is not None
            writer.stdout.close()
    assert len(cache.get(["mine", *(str(writer.pid) for writer in writers)])) == 3
    with sqlite3.connect(tmp_path / PATCHES) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    db.close()


@pytest.mark.parametrize("cause", ["link", "folder"])
def test_what_can_only_be_read_is_not_written(path: Path, pictures: Path, cause: str, monkeypatch: pytest.MonkeyPatch) -> None:
    gallery, encoder = gallery_of(path)
    gallery.patches(["a.png"])
    if cause == "link":
        shutil.move(path / PATCHES, pictures.parent / "elsewhere")
        (path / PATCHES).symlink_to(pictures.parent / "elsewhere")
    else:
        monkeypatch.setattr(os, "access", lambda *_: False)
    before = (path / PATCHES).read_bytes()
    assert [rows is None for rows in gallery.patches(gallery.ids)] == [False, True, True, True]
    assert search(path, judge="local").note is None
    with pytest.raises(GalleryError, match="can only be read"):
        gallery.store_patches()
    assert (encoder.encoded, (path / PATCHES).read_bytes()) == (1, before)


# With the gallery


def test_compaction_removes_patches_that_no_item_has(path: Path, tmp_path: Path) -> None:
    gallery, encoder = gallery_of(path)
    gallery.store_patches()
    deleted, kept = gallery.items(["a.png", "b.png"])
    gallery.delete(["a.png"])
    assert gallery.compact() == 1
    assert list(PatchCache(path, encoder).get([deleted.hash, kept.hash])) == [kept.hash]
    copy = mm.Gallery.like(tmp_path / "copy", gallery)
    copy.merge(path)
    assert not (copy.path / PATCHES).exists()


def test_store_patches_names_items_without_an_image(path: Path, pictures: Path) -> None:
    gallery, _ = gallery_of(path)
    gallery.add_vectors(["vector"], [[1, 0, 0]])
    (pictures / "b.png").unlink()
    done: list[int] = []
    report = gallery.store_patches(progress=done.append)
    reason = "there is no image to encode"
    assert report == mm.AddReport(added=3, failed={"b.png": reason, "vector": reason})
    assert (sum(done), gallery.patches(["vector"])) == (5, [None])


def test_patches_need_an_encoder_of_patches(path: Path, pictures: Path, tmp_path: Path) -> None:
    class Whole(PixelEncoder):
        def supports(self, modality: str) -> bool:
            return modality in ("image", "text")

    with pytest.raises(GalleryError, match="patches need the encoder"):
        mm.Gallery.open(path).patches(["a.png"])
    gallery = mm.Gallery.create(tmp_path / "whole", encoder=Whole())
    gallery.add(pictures)
    with pytest.raises(OptionError, match="storing patches needs an encoder of patches of images"):
        gallery.store_patches()


def test_the_shell_stores_patches(retriever: mm.Retriever, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = retriever.gallery.item(retriever.gallery.ids[0])
    folder = tmp_path / "pictures"
    folder.mkdir()
    shutil.copy(picture.path, folder)
    words = ["--gallery", str(tmp_path / "g"), "--encoder", "wardrobe", "--quiet", "--patches"]
    assert main(["index", str(folder), *words]) == 0
    assert "g: patches of images: 1 added, 0 skipped, 0 failed\n" in capsys.readouterr().err
    assert main(["index", str(tmp_path / "g"), "--gallery", str(tmp_path / "h"), "--quiet", "--patches"]) == 0
    assert "h: patches of images: 1 added, 0 skipped, 0 failed\n" in capsys.readouterr().err
    shutil.rmtree(folder)
    assert main(["search", str(tmp_path / "h"), "--prompt", "in red", "--judge", "local", "--json"]) == 0
    hit = json.loads(capsys.readouterr().out)
    assert "judge" in hit["contributions"]
    assert "the judge" not in (hit["query"]["note"] or "")


def test_gallery_reports_are_sums(path: Path) -> None:
    gallery, _ = gallery_of(path)
    first = gallery.store_patches()
    assert first + gallery.store_patches() == replace(first, skipped=4)
