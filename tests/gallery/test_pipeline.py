"""Indexing overlaps decoding, encoding and commits across the borders of batches, and loses nothing when one of them fails."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import ColourEncoder
from PIL import Image

import mmretrieve as mm
from mmretrieve.concurrency import MAX_WORKERS, StreamWorker, map_batches_ahead
from mmretrieve.errors import EncoderError
from mmretrieve.gallery import encoding, ingest
from mmretrieve.gallery.store.store import Store
from mmretrieve.images import open_image
from mmretrieve.sources.base import SourceItem
from mmretrieve.sources.location import Location
from mmretrieve.vectors import unit

BATCH_SIZE, PICTURES = 8, 64


class SlowEncoder(ColourEncoder):
    """Encodes one image after the other. `seconds`: for each."""

    def __init__(self, seconds: float = 0) -> None:
        self.seconds = seconds

    def encode_images(self, images: Iterable[Any], progress: Any = None) -> np.ndarray:
        return super().encode_images(map(self.look, images), progress)

    def look(self, image: Any) -> Any:
        time.sleep(self.seconds)
        return image


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, random = tmp_path_factory.mktemp("pictures"), np.random.default_rng(3)
    for i in range(PICTURES):
        Image.fromarray(random.integers(0, 255, (8, 8, 3), dtype=np.uint8)).save(folder / f"{i:02}.png")
    return folder


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest, "INGEST_BATCH_SIZE", BATCH_SIZE)


def reopened(gallery: mm.Gallery) -> mm.Gallery:
    return mm.Gallery.open(gallery.path, device="cpu")


def names(*numbers: int) -> tuple[str, ...]:
    return tuple(f"{i:02}.png" for i in range(*numbers))


def test_a_slow_decoder_encoder_and_commit_take_the_time_of_one(
    tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of the three takes 1.28 s, one image or one commit at a time."""
    decoder, append, seconds = threading.Lock(), Store.append, 0.02
    mm.Gallery.create(tmp_path / "warm", encoder=ColourEncoder()).add(pictures)

    def slow_open(*args: Any, **kwargs: Any) -> Image.Image:
        with decoder:
            time.sleep(seconds)
        return open_image(*args, **kwargs)

    def slow_append(store: Store, items: Any, *args: Any) -> None:
        time.sleep(seconds * len(items))
        append(store, items, *args)

    monkeypatch.setattr(encoding, "open_image", slow_open)
    monkeypatch.setattr(Store, "append", slow_append)
    gallery = mm.Gallery.create(tmp_path / "g", encoder=SlowEncoder(seconds))
    started = time.perf_counter()
    report = gallery.add(pictures)
    took = time.perf_counter() - started
    assert report.added == PICTURES
    assert took < 0.6 * 3 * PICTURES * seconds
    assert gallery.ids == names(PICTURES)


def test_few_decoded_images_wait_for_the_encoder(tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alive, most = set[int](), list[int]()

    def counted(*args: Any, **kwargs: Any) -> Image.Image:
        image = open_image(*args, **kwargs)
        number = len(most)
        alive.add(number)
        weakref.finalize(image, alive.discard, number)
        most.append(len(alive))
        return image

    monkeypatch.setattr(encoding, "open_image", counted)
    mm.Gallery.create(tmp_path / "g", encoder=SlowEncoder(0.005)).add(pictures)
    assert len(most) == PICTURES
    assert (
        2 * MAX_WORKERS - 2 <= max(most) <= 3 * MAX_WORKERS + 2
    )  # those ahead, those that are decoded, those in the encoder's hands


def test_vectors_do_not_depend_on_when_batches_arrive(tmp_path: Path, pictures: Path, encoder: mm.Encoder) -> None:
    """An interrupted run repeats the same batches, so it ends with the same bytes."""
    gallery = mm.Gallery.create(tmp_path / "g", encoder=encoder)
    gallery.add(pictures)
    paths = [pictures / id_ for id_ in gallery.ids]
    batches = [encoder.encode_images(paths[start : start + BATCH_SIZE]) for start in range(0, PICTURES, BATCH_SIZE)]
    np.testing.assert_array_equal(gallery.vectors(), unit(np.concatenate(batches).astype(np.float16)))


def test_what_came_before_an_error_of_the_encoder_is_committed(tmp_path: Path, pictures: Path) -> None:
    class Failing(SlowEncoder):
        calls = 0

        def encode_images(self, images: Iterable[Any], progress: Any = None) -> np.ndarray:
            self.calls += 1
            if self.calls == 4:
                raise RuntimeError("the encoder broke")
            return super().encode_images(images, progress)

    gallery = mm.Gallery.create(tmp_path / "g", encoder=Failing())
    with pytest.raises(EncoderError, match="encoder 'colours' failed: RuntimeError: the encoder broke"):
        gallery.add(pictures)
    assert reopened(gallery).ids == names(3 * BATCH_SIZE)
    assert gallery.add(pictures).added == PICTURES - 3 * BATCH_SIZE
    assert (reopened(gallery).ids, reopened(gallery).verify()) == (names(PICTURES), [])


def test_what_came_before_an_error_of_the_source_is_committed(tmp_path: Path, pictures: Path) -> None:
    class Failing:
        name = "a list"

        def __len__(self) -> int:
            return PICTURES

        def __iter__(self) -> Iterator[SourceItem]:
            for path in sorted(pictures.iterdir())[:20]:
                yield SourceItem(path.name, Location(str(path)))
            raise OSError("the disk is gone")

    gallery = mm.Gallery.create(tmp_path / "g", encoder=ColourEncoder())
    with pytest.raises(OSError, match="the disk is gone"):
        gallery.add(Failing())
    assert reopened(gallery).ids == names(2 * BATCH_SIZE)


def test_nothing_behind_a_failed_commit_is_committed(tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    append = Store.append

    def failing(store: Store, items: Any, *args: Any) -> None:
        if items[0].id == names(PICTURES)[2 * BATCH_SIZE]:
            raise OSError("the disk is full")
        append(store, items, *args)

    gallery = mm.Gallery.create(tmp_path / "g", encoder=ColourEncoder())
    with monkeypatch.context() as patch:
        patch.setattr(Store, "append", failing)
        with pytest.raises(OSError, match="the disk is full"):
            gallery.add(pictures)
    assert reopened(gallery).ids == names(2 * BATCH_SIZE)
    assert gallery.add(pictures).added == PICTURES - 2 * BATCH_SIZE


def test_an_interrupt_stops_the_encoder_soon_and_keeps_whole_batches(
    tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append, encoder, seen = Store.append, SlowEncoder(0.01), list[Any]()
    monkeypatch.setattr(encoder, "look", lambda image: seen.append(image) or SlowEncoder.look(encoder, image))

    def interrupted(store: Store, *args: Any) -> None:
        append(store, *args)
        raise KeyboardInterrupt

    gallery = mm.Gallery.create(tmp_path / "g", encoder=encoder)
    with monkeypatch.context() as patch:
        patch.setattr(Store, "append", interrupted)
        with pytest.raises(KeyboardInterrupt):
            gallery.add(pictures)
    assert reopened(gallery).ids == names(BATCH_SIZE)
    time.sleep(0.1)
    assert len(seen) < PICTURES // 2
    assert gallery.add(pictures).added == PICTURES - BATCH_SIZE, "the lock of the writer is free"


def test_an_id_that_comes_back_waits_for_the_commit_of_the_first(
    tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingest, "INGEST_BATCH_SIZE", 1)
    gallery = mm.Gallery.create(tmp_path / "g", encoder=ColourEncoder())
    items = [("a", pictures / "00.png"), ("b", pictures / "01.png"), ("a", pictures / "02.png"), ("a", pictures / "02.png")]
    report = gallery.add_items(items, update=True)
    assert (report.added, report.updated, report.skipped, dict(report.failed)) == (2, 1, 1, {})
    assert gallery.item("a").path == str(pictures / "02.png")
    expected = ColourEncoder().encode_images([Image.open(pictures / "02.png")])
    np.testing.assert_allclose(gallery.vectors(["a"]), expected, atol=1e-3)


def test_images_in_memory_do_not_wait_for_later_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    append, read, when_committed = Store.append, list[int](), list[int]()

    def counted(store: Store, *args: Any) -> None:
        when_committed.append(len(read))
        append(store, *args)

    def items() -> Iterator[tuple[str, np.ndarray]]:
        for i in range(3 * BATCH_SIZE):
            read.append(i)
            yield f"{i}", np.full((8, 8, 3), i, np.uint8)

    monkeypatch.setattr(Store, "append", counted)
    mm.Gallery.create(tmp_path / "g", encoder=ColourEncoder()).add_items(items())
    assert when_committed == [BATCH_SIZE, 2 * BATCH_SIZE, 3 * BATCH_SIZE]


def test_a_field_has_one_type_in_batches_that_are_not_committed(
    tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingest, "INGEST_BATCH_SIZE", 1)
    gallery = mm.Gallery.create(tmp_path / "g", encoder=ColourEncoder())
    report = gallery.add_items([(f"{i}", pictures / f"{i:02}.png", {"size": size}) for i, size in enumerate([1, 2, "large"])])
    assert (report.added, list(report.failed)) == (2, ["2"])
    assert "'size' contains numbers" in report.failed["2"]


def test_a_copy_in_the_next_batch_is_not_encoded_again(tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest, "INGEST_BATCH_SIZE", 1)
    seen, encoder = list[Any](), SlowEncoder(0.05)
    monkeypatch.setattr(encoder, "look", lambda image: seen.append(image) or SlowEncoder.look(encoder, image))
    folder = tmp_path / "copies"
    folder.mkdir()
    for name in "abc":
        (folder / f"{name}.png").write_bytes((pictures / "00.png").read_bytes())
        (folder / f"{name} broken.png").write_bytes(b"no image")
    gallery = mm.Gallery.create(tmp_path / "g", encoder=encoder)
    done = list[int]()
    report = gallery.add(folder, progress=done.append)
    assert gallery.ids == ("a.png", "b.png", "c.png")
    assert sum(done) == 6
    assert len(seen) == 1
    assert len({row.tobytes() for row in gallery.vectors()}) == 1
    assert sorted(report.failed) == ["a broken.png", "b broken.png", "c broken.png"]
    assert all("not an image" in reason for reason in report.failed.values())


WRONG_ROWS: dict[str, tuple[Callable[[np.ndarray], Any], str]] = {
    "too few": (lambda rows: rows[1:], r"returned shape \(7, 32\) for 8 images; expected an array of shape \(8, 32\)"),
    "narrow": (lambda rows: rows[:, :2], r"returned shape \(8, 2\) for 8 images"),
    "wide": (lambda rows: np.hstack([rows, rows]), r"returned shape \(8, 64\) for 8 images"),
    "flat": (lambda rows: rows.ravel(), r"returned shape \(256,\) for 8 images"),
    "long": (lambda rows: 2 * rows, "returned a row of length 2 for images; an encoder returns unit rows"),
    "complex": (lambda rows: rows.astype(complex), "returned a ndarray, which is no array of numbers, for 8 images"),
    "ragged": (lambda rows: [*rows[1:], rows[0, :2]], "returned a list, which is no array of numbers, for 8 images"),
    "nothing": (lambda _: None, "returned a NoneType, which is no array of numbers, for 8 images"),
}


@pytest.mark.parametrize("kind", WRONG_ROWS)
def test_an_encoder_that_returns_wrong_rows_is_named_and_nothing_of_them_is_stored(
    tmp_path: Path, pictures: Path, kind: str
) -> None:
    wrong, line = WRONG_ROWS[kind]

    class Wrong(ColourEncoder):
        def encode_images(self, images: Iterable[Any], progress: Any = None) -> np.ndarray:
            return wrong(super().encode_images(images, progress))

    gallery = mm.Gallery.create(tmp_path / "g", encoder=ColourEncoder())
    gallery.add_items([("first", pictures / "63.png")])  # which is in the last batch
    before = gallery.vectors().copy()
    with pytest.raises(EncoderError, match=f"encoder 'colours' {line}"):
        mm.Gallery.open(tmp_path / "g", encoder=Wrong()).add(pictures)
    after = reopened(gallery)
    assert (after.ids, after.verify(), after.vectors().tolist()) == (("first",), [], before.tolist())
    assert mm.Gallery.open(tmp_path / "g", encoder=ColourEncoder()).add(pictures).added == PICTURES - 1


@pytest.mark.parametrize("kind", ["narrow", "batches of other sizes"])
def test_wrong_features_of_an_encoder_of_batches_are_not_stored(tmp_path: Path, pictures: Path, kind: str) -> None:
    class Wrong(ColourEncoder):
        def feature_batches(self, batches: Iterable[Iterable[Any]]) -> Iterator[np.ndarray]:
            for batch in batches:
                rows = self.encode_images(batch)
                yield rows[:, :2] if kind == "narrow" else rows[1:]

    gallery = mm.Gallery.create(tmp_path / "g", encoder=Wrong())
    with pytest.raises(EncoderError, match=r"encoder 'colours' returned shape .* for 8 images"):
        gallery.add(pictures)
    assert (reopened(gallery).ids, reopened(gallery).verify()) == ((), [])


def test_a_worker_ends_a_stream_where_nothing_is_waiting() -> None:
    streams = list[list[list[int]]]()

    def lengths(batches: Iterator[Iterator[int]]) -> Iterator[int]:
        streams.append([])
        for batch in batches:
            streams[-1].append(list(batch))
            yield len(streams[-1][-1])

    with StreamWorker[int, int](lengths) as worker:
        worker.put([1, 2])
        assert worker.get() == 2
        time.sleep(0.05)
        worker.put([3])
        assert worker.get() == 1
    assert streams == [[[1, 2]], [[3]]]


def test_batches_without_items_keep_their_place() -> None:
    batches = [[], [1, 2, 3], [], [], [4], []]
    assert [list(batch) for batch in map_batches_ahead(lambda item: 10 * item, batches, 2)] == [
        [],
        [10, 20, 30],
        [],
        [],
        [40],
        [],
    ]
