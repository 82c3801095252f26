"""Cached vectors of images: encoded once, resumed after an interruption, refused for other data."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import mmretrieve as mm
from eval.benchmarks.base import Benchmark, BenchmarkQuery, Protocol
from eval.files import file_checksum
from eval.runs import features as keeping
from eval.runs.features import ABOUT, ROWS, encode_gallery
from mmretrieve.encoders.base import EncoderIdentity, Progress
from mmretrieve.errors import ImageError
from mmretrieve.images import ImageLike, open_image
from mmretrieve.vectors import Float32, unit

COUNT, CHUNK = 24, 8


@dataclass(frozen=True)
class Pixels:
    """A quick encoder: what a picture looks like at four by four."""

    identity: EncoderIdentity
    dim: int = 48
    dtype: str = "torch.float32"

    def encode_images(self, images: Iterable[ImageLike], progress: Progress | None = None) -> Float32:
        rows = [np.asarray(open_image(image).resize((4, 4))).ravel() + 1.0 for image in images]
        if progress is not None:
            progress(len(rows))
        return unit(np.reshape(rows, (-1, self.dim)))

    def encode_texts(self, texts: Sequence[str]) -> Float32:
        raise NotImplementedError


PIXELS = Pixels(EncoderIdentity("pixels", "f" * 64, "{}"))


@dataclass
class Counting:
    """An encoder that counts the pictures it has encoded, and is stopped before it encodes more than `stop`."""

    encoder: mm.Encoder = PIXELS
    stop: int | None = None
    with_what: BaseException = field(default_factory=KeyboardInterrupt)
    done: int = 0

    @property
    def identity(self) -> EncoderIdentity:
        return self.encoder.identity

    @property
    def dim(self) -> int:
        return self.encoder.dim

    @property
    def dtype(self) -> object:
        return getattr(self.encoder, "dtype", None)

    def encode_images(self, images: Iterable[ImageLike], progress: Progress | None = None) -> Float32:
        rows = self.encoder.encode_images(images, progress)
        if self.stop is not None and self.done + len(rows) > self.stop:
            raise self.with_what
        self.done += len(rows)
        return rows


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(keeping, "WRITE_BATCH_SIZE", CHUNK)
    monkeypatch.setenv("MMRETRIEVE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def bench(photos: Path, tmp_path: Path) -> Benchmark:
    """Pictures of its own: query n names the pictures n and n + 1."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for path in sorted(photos.rglob("*.png"))[:COUNT]:
        shutil.copy(path, folder)
    ids = tuple(sorted(path.name for path in folder.iterdir()))
    queries = tuple(BenchmarkQuery(str(i), ids[i], ("in red",), (ids[i + 1],)) for i in range(12))
    protocol = Protocol(headline="recall@1", recalls=(1,))
    return Benchmark("small:part", "test", ids, queries, lambda id_: folder / id_, protocol, checksum="abc")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "kept"


def content(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in (ABOUT, ROWS)}


def error_of(benchmark: Benchmark, encoder: mm.Encoder, folder: Path, **options: Any) -> str:
    """The one line of the error."""
    with pytest.raises(mm.MMRetrieveError) as caught:
        encode_gallery(benchmark, encoder, folder, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_vectors_are_in_the_order_of_the_ids(bench: Benchmark, encoder: mm.Encoder, folder: Path) -> None:
    result, rows = encode_gallery(bench, encoder, folder)
    assert result is bench
    assert (rows.shape, rows.dtype) == ((COUNT, encoder.dim), np.float32)
    np.testing.assert_allclose(rows, encoder.encode_images([bench.image_path(id_) for id_ in bench.gallery_ids]), atol=1e-6)
    assert np.frombuffer((folder / ROWS).read_bytes(), np.float32).reshape(COUNT, -1).tolist() == rows.tolist()


def test_a_second_run_encodes_nothing(bench: Benchmark) -> None:
    first, second, counts = Counting(), Counting(), []
    rows = encode_gallery(bench, first)[1]
    np.testing.assert_array_equal(encode_gallery(bench, second, progress=counts.append)[1], rows)
    assert (first.done, second.done, sum(counts)) == (COUNT, 0, COUNT)


@pytest.mark.parametrize("stopped_by", [KeyboardInterrupt(), RuntimeError("the machine went down")])
@pytest.mark.parametrize("stop", [0, 8, 20])
def test_an_interrupted_run_resumes_to_the_same_bytes(
    bench: Benchmark, folder: Path, tmp_path: Path, stop: int, stopped_by: BaseException
) -> None:
    encode_gallery(bench, PIXELS, tmp_path / "whole")
    with pytest.raises(type(stopped_by)):
        encode_gallery(bench, Counting(PIXELS, stop, stopped_by), folder)
    rest = Counting()
    counts: list[int] = []
    encode_gallery(bench, rest, folder, progress=counts.append)
    assert rest.done == COUNT - stop // CHUNK * CHUNK  # whole chunks are kept
    assert sum(counts) == COUNT
    assert content(folder) == content(tmp_path / "whole")


@pytest.mark.parametrize(
    ("length", "again"),
    [(0, 24), (1, 24), (9.5, 16), (16, 8), (23.99, 8), (24, 0), (24.5, 0), (25, 0), (80, 0)],
)
def test_a_partial_file_is_completed(bench: Benchmark, folder: Path, tmp_path: Path, length: float, again: int) -> None:
    """A file that ends inside a row or is too long, without a digest, as a crash leaves it."""
    encode_gallery(bench, PIXELS, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        encode_gallery(bench, Counting(PIXELS, 0), folder)
    size = int(length * PIXELS.dim * 4)
    (folder / ROWS).write_bytes((content(tmp_path / "whole")[ROWS] + b"\1" * size)[:size])
    rest = Counting()
    rows = encode_gallery(bench, rest, folder)[1]
    assert rest.done == again
    assert rows.shape == (COUNT, PIXELS.dim)
    assert content(folder) == content(tmp_path / "whole")


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"identity": replace(PIXELS.identity, weights="0" * 64)}, f"weights {'f' * 64} there, {'0' * 64} here"),
        ({"identity": replace(PIXELS.identity, preprocessing="big")}, "preprocessing {} there, big here"),
        ({"dtype": "torch.bfloat16"}, "dtype torch.float32 there, torch.bfloat16 here"),
    ],
)
def test_another_encoder_has_other_vectors(bench: Benchmark, folder: Path, changes: dict[str, Any], named: str) -> None:
    encode_gallery(bench, PIXELS)
    changed = Counting(replace(PIXELS, **changes))
    encode_gallery(bench, changed)  # of the cache, a folder of its own
    assert changed.done == COUNT
    encode_gallery(bench, PIXELS, folder)
    before = content(folder)
    assert error_of(bench, changed, folder).startswith(f"{folder} holds other vectors: {named}; ")
    assert content(folder) == before


def test_the_same_weights_under_another_name_have_the_same_vectors(bench: Benchmark) -> None:
    encode_gallery(bench, PIXELS)
    renamed = Counting(replace(PIXELS, identity=replace(PIXELS.identity, model="other")))
    encode_gallery(bench, renamed)
    assert renamed.done == 0


def test_other_annotations_and_images_have_other_vectors(bench: Benchmark, folder: Path) -> None:
    encode_gallery(bench, PIXELS)
    encode_gallery(bench, PIXELS, folder)
    shorter = replace(bench, gallery_ids=bench.gallery_ids[:-1])
    for benchmark, named in (
        (replace(bench, checksum="def"), "annotations abc there, def here"),
        (replace(bench, name="small:other"), "benchmark small:part there, small:other here"),
        (shorter, "pictures "),
        (replace(bench, gallery_ids=bench.gallery_ids[::-1]), "pictures "),
    ):
        counting = Counting()
        encode_gallery(benchmark, counting)
        assert counting.done == len(benchmark.gallery_ids)
        assert f"holds other vectors: {named}" in error_of(benchmark, PIXELS, folder)
    Image.new("RGB", (50, 50), "red").save(bench.image_path(bench.gallery_ids[7]))
    counting = Counting()
    encode_gallery(bench, counting)
    assert counting.done == COUNT
    assert "holds other vectors: pictures " in error_of(bench, PIXELS, folder)


def test_targetpad_has_other_vectors(bench: Benchmark, encoder: mm.Encoder, folder: Path) -> None:
    wide = bench.image_path(bench.gallery_ids[0])
    Image.open(wide).resize((192, 96)).save(wide)
    padded = mm.load_encoder("wardrobe", device="cpu", dtype="float32", preprocessing="targetpad")
    plain, pad = encode_gallery(bench, encoder)[1], encode_gallery(bench, padded)[1]
    assert np.abs(plain[0] - pad[0]).max() > 1e-3
    np.testing.assert_allclose(plain[1:], pad[1:], atol=1e-6)  # the drawings are square
    encode_gallery(bench, encoder, folder)
    there, _, here = error_of(bench, padded, folder).partition(" there, ")
    assert there.startswith(f"{folder} holds other vectors: preprocessing {{")
    assert "target_pad" not in there
    assert "target_pad" in here


def test_damaged_vectors_are_refused(bench: Benchmark, folder: Path) -> None:
    encode_gallery(bench, PIXELS, folder)
    whole = (folder / ROWS).read_bytes()
    flipped = bytearray(whole)
    flipped[1000] ^= 1
    for damaged in (bytes(flipped), whole[:-4], whole + b"0000", b""):
        (folder / ROWS).write_bytes(damaged)
        assert (
            error_of(bench, PIXELS, folder) == f"{folder / ROWS}: the stored vectors are damaged; delete {folder} and run again"
        )
        assert (folder / ROWS).read_bytes() == damaged
    (folder / ROWS).unlink()
    assert "are damaged" in error_of(bench, PIXELS, folder)
    (folder / ROWS).write_bytes(whole)
    for text in ("", "[]", "{}", '{"benchmark": "small:part"}'):
        (folder / ABOUT).write_text(text)
        assert f"{folder / ABOUT}: not the description of stored vectors" in error_of(bench, PIXELS, folder)
    (folder / ABOUT).unlink()
    assert f"{folder / ROWS}: about.json, which describes it, is missing" in error_of(bench, PIXELS, folder)
    assert (folder / ROWS).read_bytes() == whole


def lose(benchmark: Benchmark, *places: int) -> list[str]:
    """Deletes the images at these positions → their paths."""
    paths = [benchmark.image_path(benchmark.gallery_ids[place]) for place in places]
    for path in paths:
        path.unlink()
    return list(map(str, paths))


def test_missing_images_are_listed_and_nothing_is_encoded(bench: Benchmark, folder: Path) -> None:
    counting = Counting()
    paths = lose(bench, 3, 4, 20)
    message = error_of(bench, counting, folder)
    assert message.startswith(f"small:part: 3 of 24 images are missing or unreadable: {', '.join(paths)}; with --allow-missing")
    paths += lose(bench, *range(5, 20), 0, 1)
    assert all(path in error_of(bench, counting, folder) for path in paths)
    paths += lose(bench, 23)
    message = error_of(bench, counting, folder)
    assert message.startswith("small:part: 21 of 24 images are missing")
    assert sum(path in message for path in paths) == 20
    assert f"(all in {folder / 'missing.txt'})" in message
    assert sorted((folder / "missing.txt").read_text().splitlines()) == sorted(paths)
    assert counting.done == 0
    assert sorted(path.name for path in folder.iterdir()) == ["lock", "missing.txt"]


def test_an_image_that_is_added_later_is_encoded(bench: Benchmark, folder: Path) -> None:
    path = bench.image_path(bench.gallery_ids[3])
    path.rename(path.with_suffix(".away"))
    error_of(bench, PIXELS, folder)
    path.with_suffix(".away").rename(path)
    assert len(encode_gallery(bench, PIXELS, folder)[1]) == COUNT


def test_the_error_names_an_unreadable_image(bench: Benchmark, folder: Path) -> None:
    bench.image_path(bench.gallery_ids[20]).write_bytes(b"no picture")
    counting = Counting()
    with pytest.raises(ImageError, match=f"{bench.gallery_ids[20]}: not an image that can be read"):
        encode_gallery(bench, counting, folder)
    assert counting.done == 16  # and what came before it is kept
    assert (folder / ROWS).stat().st_size == 16 * 4 * PIXELS.dim


def test_allow_missing_drops_images_and_their_queries(bench: Benchmark, folder: Path, tmp_path: Path) -> None:
    whole = encode_gallery(bench, PIXELS, tmp_path / "whole")[1]
    lose(bench, 0, 10)
    bench.image_path(bench.gallery_ids[20]).write_bytes(b"no picture")
    counts: list[int] = []
    result, rows = encode_gallery(bench, PIXELS, folder, allow_missing=True, progress=counts.append)
    assert sum(counts) == COUNT
    left = [i for i in range(COUNT) if i not in (0, 10, 20)]
    assert result.gallery_ids == tuple(bench.gallery_ids[i] for i in left)
    np.testing.assert_allclose(rows, whole[left], atol=1e-6)
    assert [query.id for query in result.queries] == [str(i) for i in range(12) if i not in (0, 9, 10)]
    expected = "small:part: 3 of 24 images were missing and 3 of 12 queries left out: not comparable with other results"
    assert result.remark == expected
    again = Counting()
    assert encode_gallery(bench, again, folder, allow_missing=True)[0].gallery_ids == result.gallery_ids
    assert again.done == 0


def test_dropped_images_are_refused_without_allow_missing(bench: Benchmark, folder: Path) -> None:
    path = bench.image_path(bench.gallery_ids[20])
    path.write_bytes(b"no picture")
    encode_gallery(bench, PIXELS, folder, allow_missing=True)
    before = content(folder)
    assert f"1 of 24 images are missing or unreadable: {path}" in error_of(bench, PIXELS, folder)
    assert content(folder) == before
    lose(bench, 21)
    assert "1 of 24" in error_of(bench, PIXELS, folder)
    assert content(folder) == before


def test_no_remark_where_no_image_is_missing(bench: Benchmark, folder: Path) -> None:
    allowed = encode_gallery(bench, PIXELS, folder, allow_missing=True)
    assert allowed[0].remark is None
    np.testing.assert_array_equal(encode_gallery(bench, PIXELS, folder)[1], allowed[1])


def test_all_images_missing_is_an_error(bench: Benchmark, folder: Path) -> None:
    lose(bench, *range(COUNT))
    assert "no query is left to measure" in error_of(bench, PIXELS, folder, allow_missing=True)


def test_images_are_cropped_where_the_benchmark_says_so(bench: Benchmark, encoder: mm.Encoder, folder: Path) -> None:
    def crop(picture: Image.Image, id_: str) -> Image.Image:
        return picture.crop((0, 0, 48, 48)) if id_ == bench.gallery_ids[5] else picture

    rows = encode_gallery(replace(bench, crop=crop), encoder, folder)[1]
    path = bench.image_path(bench.gallery_ids[5])
    np.testing.assert_allclose(rows[5], encoder.encode_images([Image.open(path).crop((0, 0, 48, 48))])[0], atol=1e-5)
    assert np.abs(rows[5] - encoder.encode_images([path])[0]).max() > 1e-3


def test_the_description_of_stored_vectors(bench: Benchmark, folder: Path) -> None:
    encode_gallery(bench, PIXELS, folder)
    about = json.loads((folder / ABOUT).read_text())
    assert about["weights"] == PIXELS.identity.weights
    assert (about["rows"], about["dim"], about["dtype"], about["annotations"]) == (COUNT, PIXELS.dim, "torch.float32", "abc")
    assert about["digest"] == file_checksum(folder / ROWS)
