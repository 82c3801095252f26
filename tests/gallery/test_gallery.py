"""The gallery: what goes in comes out, nothing committed is lost, the index equals the exact ranking."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image

import mmretrieve as mm
from mmretrieve.composition import Composition
from mmretrieve.directions import PDV
from mmretrieve.errors import GalleryError, ImageError, OptionError, VectorError
from mmretrieve.gallery.store.files import LEDGER, LOCK, VECTORS
from mmretrieve.gallery.view import SearchOptions
from mmretrieve.rules import Hinge
from mmretrieve.scoring import linear, term_scores, top_k
from mmretrieve.vectors import unit


def one_term(vector: np.ndarray) -> Composition:
    return Composition(("query",), unit(vector[None]), (1.0,))


def contents(gallery: mm.Gallery) -> tuple[tuple[str, ...], bytes]:
    return gallery.ids, gallery.vectors().tobytes()


def test_add_reads_a_tree_and_keeps_unit_vectors(gallery: mm.Gallery, encoder: mm.Encoder, photos: Path) -> None:
    expected = sorted(path.relative_to(photos).as_posix() for path in photos.rglob("*.png"))
    assert list(gallery.ids) == expected
    vectors = gallery.vectors()
    assert (vectors.dtype, vectors.shape) == (np.float32, (60, encoder.dim))
    np.testing.assert_allclose(vectors, encoder.encode_images([photos / id_ for id_ in gallery.ids]), atol=1e-3)
    np.testing.assert_array_equal(gallery.vectors([gallery.ids[7], gallery.ids[2]]), vectors[[7, 2]])
    assert gallery.verify() == []


def test_adding_again_skips_and_another_opening_sees_the_same(gallery: mm.Gallery, photos: Path) -> None:
    before = contents(gallery)
    steps: list[int] = []
    report = gallery.add(photos, progress=steps.append)
    assert (report.added, report.skipped, report.failed) == (0, 60, {})
    assert sum(steps) == 60
    assert contents(gallery) == before == contents(mm.Gallery.open(gallery.path))


def test_broken_changed_and_copied_pictures(tmp_path: Path, encoder: mm.Encoder) -> None:
    source = tmp_path / "in"
    source.mkdir()
    Image.new("RGB", (50, 70), "red").save(source / "a.png")
    shutil.copy(source / "a.png", source / "b copy.png")
    (source / "c.jpg").write_bytes(b"no picture")
    (source / "notes.txt").write_text("not looked at")
    gallery = mm.Gallery.create(tmp_path / "g", encoder=encoder)
    report = gallery.add(source)
    assert (report.added, report.skipped) == (2, 0)
    assert list(report.failed) == ["c.jpg"]
    assert "not an image" in report.failed["c.jpg"]
    a, b = gallery.vectors()
    np.testing.assert_array_equal(a, b)
    Image.new("RGB", (50, 70), "blue").save(source / "a.png")
    assert "has changed" in gallery.add(source).failed["a.png"]
    assert gallery.item("b copy.png").width == 50


def test_empty_missing_and_single_sources(gallery: mm.Gallery, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(GalleryError, match="no images in this folder"):
        gallery.add(tmp_path / "empty")
    with pytest.raises(GalleryError, match="no such file or folder"):
        gallery.add(tmp_path / "nowhere")
    Image.new("RGB", (9, 9)).save(tmp_path / "one.webp")
    assert gallery.add(tmp_path / "one.webp").added == 1
    assert gallery.ids[-1] == "one.webp"


def test_delete_is_all_or_none_and_ids_can_come_back(gallery: mm.Gallery, photos: Path) -> None:
    deleted = list(gallery.ids[10:13])
    vectors = gallery.vectors(deleted)
    with pytest.raises(GalleryError, match="no item 'nothing'"):
        gallery.delete([deleted[0], "nothing"])
    assert len(gallery) == 60
    gallery.delete(deleted)
    assert len(gallery) == 57
    assert not set(deleted) & set(gallery.search(one_term(vectors[0]), 57).ids)
    assert gallery.verify() == []
    assert gallery.add(photos).added == 3
    assert gallery.ids[-3:] == tuple(sorted(deleted))
    np.testing.assert_allclose(gallery.vectors(deleted), vectors, atol=1e-3)  # another batch may round otherwise


def test_search_equals_the_exact_ranking_with_ties_and_deletes(gallery: mm.Gallery, tmp_path: Path) -> None:
    copies = tmp_path / "copies"
    copies.mkdir()
    for i in range(12):
        shutil.copy(gallery.item(gallery.ids[5]).path, copies / f"copy{i}.png")
    gallery.add(copies)
    gallery.delete([gallery.ids[0], gallery.ids[30]])
    rng = np.random.default_rng(1)
    vectors = gallery.vectors()
    for k in (1, 5, 13, 70, 500):
        query = one_term(vectors[4] + 0.1 * rng.normal(size=vectors.shape[1]))
        expected = top_k(linear(term_scores(query.terms, vectors), query.weights), k)
        assert gallery.search(query, k).ids == tuple(gallery.ids[i] for i in expected)


def test_rank_equals_search(made: Path) -> None:
    gallery = mm.Gallery.open(made)
    terms = unit(gallery.vectors()[:3] + 0.5)
    base = Composition(("image", "text", "composed"), terms, (0.0, 0.0, 1.0))
    scores = gallery.term_scores(base)
    assert scores.shape == (3, 60)
    for setting in (PDV(), PDV(alpha_image=1.4, alpha_text=1.2, beta=0.75), PDV(alpha_image=-0.5, beta=0)):
        query = base.with_pdv(setting)
        exclude = [gallery.ids[3], gallery.ids[8]]
        folded, searched = gallery.rank(query, scores, SearchOptions(15, exclude)), gallery.search(query, 15, exclude=exclude)
        assert folded == searched
        assert not set(exclude) & set(folded.ids)
        for hit in folded:
            assert sum(hit.contributions.values()) == pytest.approx(hit.score, abs=1e-12)
            expected = dict(zip(query.names, np.array(query.weights) * scores[:, gallery.ids.index(hit.id)], strict=True))
            assert hit.contributions == pytest.approx(expected)


def test_a_query_without_direction_is_refused_with_its_reason(made: Path) -> None:
    gallery = mm.Gallery.open(made)
    terms = np.repeat(gallery.vectors()[:1], 2, axis=0)
    for weights, message in (
        ((1.0, -1.0), "the weighted terms cancel each other, .*; change one of the weights"),
        ((0.0, 0.0), "all weights are 0, .*; give one term a weight other than 0"),
    ):
        with pytest.raises(OptionError, match=message):
            gallery.search(Composition(("a", "b"), terms, weights), 3)


def test_a_k_above_the_number_of_items_returns_all_with_a_note(made: Path) -> None:
    gallery = mm.Gallery.open(made)
    ranking = gallery.search(one_term(gallery.vectors()[0]), 100)
    assert len(ranking) == 60
    assert ranking.note == "60 of the 100 asked for: the gallery has no more"
    assert gallery.search(one_term(gallery.vectors()[0]), 60).note is None
    for k in (0, -3, 2.5):
        with pytest.raises(OptionError, match="k must be"):
            gallery.search(one_term(gallery.vectors()[0]), k)


def test_an_empty_gallery_can_be_searched(tmp_path: Path, encoder: mm.Encoder) -> None:
    gallery = mm.Gallery.create(tmp_path / "g", encoder=encoder)
    assert len(gallery.search(one_term(np.ones(encoder.dim)), 3)) == 0
    assert gallery.vectors().shape == (0, encoder.dim)
    assert gallery.verify() == []


def test_wrong_folders_and_wrong_encoders_are_refused(gallery: mm.Gallery, tmp_path: Path, encoder: mm.Encoder) -> None:
    with pytest.raises(GalleryError, match="not a gallery"):
        mm.Gallery.open(tmp_path)
    with pytest.raises(GalleryError, match="already contains a gallery"):
        mm.Gallery.create(gallery.path, encoder=encoder)
    with pytest.raises(GalleryError, match="already contains something else"):
        mm.Gallery.create(gallery.path.parent, encoder=encoder)
    with pytest.raises(GalleryError, match="adding needs the encoder"):
        mm.Gallery.open(gallery.path).add(tmp_path)
    with pytest.raises((GalleryError, VectorError), match="dimensions"):
        gallery.search(one_term(np.ones(3)), 1)
    (tmp_path / "false.gallery").mkdir()
    (tmp_path / "false.gallery" / LEDGER).write_bytes(b"not a database" * 100)
    with pytest.raises(GalleryError, match="damaged or is not one"):
        mm.Gallery.open(tmp_path / "false.gallery")


def test_thumbnails_are_made_once(gallery: mm.Gallery, tmp_path: Path) -> None:
    Image.new("RGB", (900, 300), "red").save(tmp_path / "wide.jpg")
    gallery.add(tmp_path / "wide.jpg")
    (tmp_path / "wide.jpg").unlink()
    with Image.open(__import__("io").BytesIO(gallery.thumbnail("wide.jpg"))) as small:
        assert small.size == (320, 107)
    (gallery.path / "thumbnails.bin").unlink()
    with pytest.raises(ImageError, match=r"wide\.jpg"):
        gallery.thumbnail("wide.jpg")
    assert gallery.thumbnail(gallery.ids[0])


def test_a_torn_write_is_cut_back_and_damage_is_named(gallery: mm.Gallery) -> None:
    before = contents(gallery)
    vectors = gallery.path / VECTORS
    with vectors.open("ab") as file:
        file.write(b"\1" * 1000)
    again = mm.Gallery.open(gallery.path)
    assert (contents(again), again.verify()) == (before, [])
    again.compact()  # any write
    assert vectors.stat().st_size == 60 * again.vectors().shape[1] * 2
    data = bytearray(vectors.read_bytes())
    data[17 * again.vectors().shape[1] * 2 + 5] ^= 0x10
    vectors.write_bytes(data)
    assert again.verify() == [f"{VECTORS}: the vector of {gallery.ids[17]!r} (row 17) is not the one that was committed"]
    vectors.write_bytes(data[:-100])
    assert any("ledger counts 60" in line for line in mm.Gallery.open(gallery.path).verify())
    with pytest.raises(GalleryError, match="ledger counts 60"):
        mm.Gallery.open(gallery.path).vectors()


def test_a_damaged_index_is_named_and_built_again(gallery: mm.Gallery) -> None:
    query = one_term(gallery.vectors()[0])
    gallery.build_index()
    expected = gallery.search(query, 5)
    file = gallery.path / "index.faiss"
    file.write_bytes(b"x" + file.read_bytes()[1:])
    again = mm.Gallery.open(gallery.path)
    assert any("index.faiss" in line for line in again.verify())
    assert again.search(query, 5) == expected
    again.build_index()
    assert again.verify() == []
    assert mm.Gallery.open(gallery.path).search(query, 5) == expected


def test_one_writer_at_a_time(gallery: mm.Gallery) -> None:
    with FileLock(gallery.path / LOCK), pytest.raises(GalleryError, match="another process is writing"):
        gallery.delete([gallery.ids[0]])
    assert len(mm.Gallery.open(gallery.path)) == 60


def test_a_full_disk_loses_nothing(gallery: mm.Gallery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = contents(gallery)
    Image.new("RGB", (9, 9)).save(tmp_path / "new.png")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(GalleryError, match="No space left"):
            gallery.add(tmp_path / "new.png")
    assert contents(mm.Gallery.open(gallery.path)) == before
    assert gallery.add(tmp_path / "new.png").added == 1
    assert gallery.verify() == []


@pytest.mark.parametrize("rule", [None, Hinge()], ids=["linear", "hinge"])
def test_a_search_reads_one_version_while_items_are_deleted(gallery: mm.Gallery, rule: Hinge | None) -> None:
    vectors = dict(zip(gallery.ids, gallery.vectors(), strict=True))
    query = one_term(gallery.vectors()[9] + 0.05)
    if rule is not None:
        query = Composition(("text", "composed"), np.concatenate([query.terms, query.terms]), (0, 1)).with_rule(rule)
    moments = [gallery.ids[n:] for n in range(41)]
    expected = {}
    for ids in moments:
        scores = term_scores(query.terms, np.stack([vectors[id_] for id_ in ids]))
        expected[len(ids)] = tuple(ids[i] for i in top_k(query.contributions(scores).sum(axis=0), 10))
    done, rankings = threading.Event(), []

    def search() -> None:
        while not done.is_set():
            rankings.append(gallery.search(query, 10))

    with ThreadPoolExecutor(3) as pool:
        searching = [pool.submit(search) for _ in range(3)]
        for id_ in gallery.ids[:40]:
            before = len(rankings)
            gallery.delete([id_])
            while len(rankings) == before and not any(one.done() for one in searching):
                time.sleep(0.001)
        done.set()
        for one in searching:
            one.result()
    assert len({ranking.searched for ranking in rankings}) > 10
    for ranking in rankings:
        assert ranking.ids == expected[ranking.searched]


def test_info_counts_everything(gallery: mm.Gallery, encoder: mm.Encoder) -> None:
    gallery.delete([gallery.ids[0]])
    info = gallery.info()
    assert (info["items"], info["deleted"], info["dim"]) == (59, 1, encoder.dim)
    assert info["encoder"]["weights"] == encoder.identity.weights
    assert info["bytes"][VECTORS] == 60 * encoder.dim * 2
    with sqlite3.connect(gallery.path / LEDGER) as ledger:
        assert ledger.execute("SELECT count(*) FROM items WHERE died = 0").fetchone() == (59,)


def test_one_bad_name_or_shape_does_not_stop_the_others(tmp_path: Path, encoder: mm.Encoder, photos: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    shutil.copy(next(photos.rglob("*.png")), source / "good.png")
    Image.new("RGB", (3000, 1)).save(source / "wide.png")
    os.mkfifo(source / "pipe.jpg")
    shutil.copy(source / "good.png", os.fsencode(source) + b"/bad\xff.png")
    gallery = mm.Gallery.create(tmp_path / "g", encoder=encoder)
    report = gallery.add(source)
    assert (report.added, gallery.ids) == (1, ("good.png",))
    assert sorted(reason.split(": ")[-1] for reason in report.failed.values()) == [
        "3000×1 pixels is too narrow; crop it",
        "cannot be read (is not a regular file)",
        "its name is not valid text",
    ]
    with pytest.raises(GalleryError, match="not valid text"):
        gallery.delete(["bad\udcff.png"])


def test_a_gallery_is_made_whole_or_not_at_all(tmp_path: Path, encoder: mm.Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(GalleryError, match=r"a gallery could not be created here .*No space left"):
            mm.Gallery.create(tmp_path / "g", encoder=encoder)
    with pytest.raises(GalleryError, match="not a gallery"):
        mm.Gallery.open(tmp_path / "g")
    assert len(mm.Gallery.create(tmp_path / "g", encoder=encoder)) == 0
    with pytest.raises(OptionError, match="setting must be a PDV"):
        mm.Gallery.create(tmp_path / "h", encoder=encoder, setting="much")
    assert not (tmp_path / "h").exists()


def test_numpy_integers_large_weights_and_single_strings(made: Path) -> None:
    gallery = mm.Gallery.open(made)
    base = Composition(("image", "composed"), unit(gallery.vectors()[:2]), (0.0, 1.0))
    assert len(gallery.search(base, np.int64(3))) == 3
    huge, plain = (gallery.search(base.weighted({"image": w, "composed": w}), 10).ids for w in (1e300, 1.0))
    assert huge == plain
    for wrong in (
        lambda: gallery.search(base, 3, exclude="abc"),
        lambda: gallery.vectors("abc"),
        lambda: gallery.delete("abc"),
    ):
        with pytest.raises(OptionError, match="got one string 'abc'"):
            wrong()
