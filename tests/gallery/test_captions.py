"""Captions blended into the vectors of a gallery."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mmretrieve as mm
from mmretrieve.cli.main import main
from mmretrieve.gallery import ingest

WEIGHT = 0.15


@pytest.fixture(scope="module")
def encoder() -> mm.Encoder:
    return mm.load_encoder("wardrobe")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for path in sorted(mm.wardrobe.pictures_folder().glob("*.png"))[:6]:
        shutil.copy(path, folder)
    return folder


@pytest.fixture
def captions(pictures: Path) -> dict[str, str]:
    """Of all images but the last two, by names without suffix."""
    return {path.stem: f"a photo of a {path.stem.split('-')[0]} hat" for path in sorted(pictures.iterdir())[:-2]}


def create(path: Path, encoder: mm.Encoder, **settings: Any) -> mm.Gallery:
    return mm.Gallery.create(path, encoder=encoder, **settings)


def blended(images: np.ndarray, texts: np.ndarray, weight: float) -> np.ndarray:
    """The formula of the issue, written out, as it is stored."""
    sums = (1 - weight) * images.astype(np.float64) + weight * texts
    return (sums / np.linalg.norm(sums, axis=1, keepdims=True)).astype(np.float16).astype(np.float32)


def test_vectors_are_the_formula_and_images_without_a_caption_keep_theirs(
    tmp_path: Path, encoder: mm.Encoder, pictures: Path, captions: dict[str, str]
) -> None:
    gallery = create(tmp_path / "g", encoder, caption_weight=WEIGHT)
    report = gallery.add(pictures, captions=captions)
    images = encoder.encode_images(sorted(pictures.iterdir()))
    expected = blended(images[:4], encoder.encode_texts(list(captions.values())), WEIGHT)
    rows = np.asarray(gallery._view.float16_rows).astype(np.float32)
    assert np.array_equal(rows[:4], expected)
    assert np.array_equal(rows[4:], images[4:].astype(np.float16).astype(np.float32))
    assert report.notes == (f"{pictures}: 2 of 6 new items have no caption: their vectors are those of their images",)
    assert gallery.info()["captions"] == {"field": "caption", "weight": WEIGHT}


@pytest.mark.parametrize("name", ["gallery.sqlite", "vectors.f16", "thumbnails.bin"])
def test_weight_0_leaves_every_byte(tmp_path: Path, pictures: Path, captions: dict[str, str], name: str) -> None:
    (tmp_path / "captions.json").write_text(json.dumps(captions))
    common = ["index", str(pictures), "--encoder", "wardrobe", "--quiet", "--gallery"]
    assert main([*common, str(tmp_path / "plain")]) == 0
    more = ["--captions", str(tmp_path / "captions.json"), "--caption-weight", "0"]
    assert main([*common, str(tmp_path / "zero"), *more]) == 0
    assert (tmp_path / "zero" / name).read_bytes() == (tmp_path / "plain" / name).read_bytes()


def test_the_same_captions_change_nothing_and_another_one_only_its_item(
    tmp_path: Path, encoder: mm.Encoder, pictures: Path, captions: dict[str, str]
) -> None:
    gallery = create(tmp_path / "g", encoder, caption_weight=WEIGHT)
    gallery.add(pictures, captions=captions)
    before = {name: (tmp_path / "g" / name).read_bytes() for name in ("gallery.sqlite", "vectors.f16")}
    assert str(gallery.add(pictures, captions=captions)) == str(gallery.add(pictures)) == "0 added, 6 skipped, 0 failed"
    assert {name: (tmp_path / "g" / name).read_bytes() for name in before} == before
    changed = next(iter(captions))
    others = [id_ for id_ in gallery.ids if not id_.startswith(changed)]
    vectors = gallery.vectors(others)
    captions[changed] = "a photo of green shoes"
    assert str(gallery.add(pictures, captions=captions)) == "0 added, 1 updated, 5 skipped, 0 failed"
    fresh = create(tmp_path / "fresh", encoder, caption_weight=WEIGHT)
    fresh.add(pictures, captions=captions)
    assert np.array_equal(gallery.vectors(fresh.ids), fresh.vectors())
    assert np.array_equal(gallery.vectors(others), vectors)
    assert gallery.verify() == []


def test_copies_of_an_image_share_a_vector_only_under_one_caption(
    tmp_path: Path, encoder: mm.Encoder, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingest, "INGEST_BATCH_SIZE", 2)  # copies in one batch, in batches on their way, and in committed ones
    path = sorted(pictures.iterdir())[0]
    ids = [f"copy {i}" for i in range(9)]
    texts = ["a photo of a red hat", "a photo of green shoes", None]
    gallery = create(tmp_path / "g", encoder, caption_weight=WEIGHT)
    fields = [{} if text is None else {"Caption": text} for text in (texts[i // 3 % 3] for i in range(9))]
    gallery.add_items(list(zip(ids, [path] * 9, fields, strict=True)))
    image = np.repeat(encoder.encode_images([path]), 2, axis=0)
    expected = [*blended(image, encoder.encode_texts(texts[:2]), WEIGHT), image[0].astype(np.float16).astype(np.float32)]
    rows = np.asarray(gallery._view.float16_rows).astype(np.float32)
    assert all(np.array_equal(rows[i], expected[i // 3 % 3]) for i in range(9))


def test_an_image_from_memory_is_encoded_again_for_another_caption(tmp_path: Path, encoder: mm.Encoder) -> None:
    gallery, pixels = create(tmp_path / "g", encoder, caption_field="alt"), np.full((64, 64, 3), 90, np.uint8)
    for text, report in (("a gray hat", "1 added, 0 skipped"), ("gray shoes", "0 added, 1 updated, 0 skipped")):
        assert str(gallery.add_items([("gray", pixels, {"alt": text})])) == f"{report}, 0 failed"
        expected = blended(encoder.encode_images([pixels]), encoder.encode_texts([text]), WEIGHT)
        assert np.allclose(gallery.vectors(), expected, atol=1e-3)
    assert str(gallery.add_items([("gray", pixels, {"alt": None})])) == "0 added, 1 updated, 0 skipped, 0 failed"
    assert np.allclose(gallery.vectors(), encoder.encode_images([pixels]), atol=1e-3)


def test_a_table_gives_captions_to_the_items_of_a_folder(tmp_path: Path, encoder: mm.Encoder, pictures: Path) -> None:
    gallery = create(tmp_path / "g", encoder, caption_field="title")
    gallery.add(pictures)
    name = gallery.ids[0]
    table = tmp_path / "table.csv"
    table.write_text(f"path,title\n{pictures / name},a photo of green shoes\n")
    assert str(gallery.add(table)) == "0 added, 1 updated, 0 skipped, 0 failed"
    image = encoder.encode_images([pictures / name])
    assert np.allclose(
        gallery.vectors([name]), blended(image, encoder.encode_texts(["a photo of green shoes"]), WEIGHT), atol=1e-3
    )
    assert len(gallery) == 6


def test_an_image_that_is_gone_keeps_its_vector_and_its_caption(
    tmp_path: Path, encoder: mm.Encoder, pictures: Path, captions: dict[str, str]
) -> None:
    gallery = create(tmp_path / "g", encoder, caption_weight=WEIGHT)
    gallery.add(pictures, captions=captions)
    name, before = gallery.ids[0], gallery.vectors()
    table = tmp_path / "table.csv"
    (pictures / name).rename(tmp_path / name)
    table.write_text(f"path,caption\n{tmp_path / name},green shoes\n")
    report = gallery.add(table)
    assert len(report.failed) == 1
    assert np.array_equal(gallery.vectors(), before)


def test_copies_of_a_gallery_keep_the_weight_and_others_are_refused(
    tmp_path: Path, encoder: mm.Encoder, pictures: Path, captions: dict[str, str]
) -> None:
    gallery = create(tmp_path / "g", encoder, caption_weight=WEIGHT)
    gallery.add(pictures, captions=captions)
    copy = mm.Gallery.like(tmp_path / "copy", gallery)
    assert copy.merge(gallery.path).added == 6
    assert copy.manifest.captions == gallery.manifest.captions
    assert np.array_equal(copy.vectors(), gallery.vectors())
    plain = create(tmp_path / "plain", encoder)
    with pytest.raises(mm.MMRetrieveError, match=r"captions \(0.15 of the field 'caption' and none\)"):
        plain.merge(gallery.path)
    with pytest.raises(mm.MMRetrieveError, match="leave out captions"):
        plain.add(gallery.path, captions=captions)
    reopened = mm.Gallery.open(gallery.path, encoder=encoder)
    assert reopened.add(pictures, captions=captions).skipped == 6


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"caption_weight": 1.5}, "caption_weight must be a number from 0 to 1, got 1.5"),
        ({"caption_weight": True}, "caption_weight must be a number from 0 to 1, got True"),
        ({"caption_field": " "}, "caption_field must be the name of a field, got ' '"),
    ],
)
def test_wrong_settings(tmp_path: Path, encoder: mm.Encoder, setting: dict[str, Any], message: str) -> None:
    with pytest.raises(mm.MMRetrieveError, match=message):
        create(tmp_path / "g", encoder, **setting)
    assert not (tmp_path / "g").exists()


def test_wrong_captions(tmp_path: Path, encoder: mm.Encoder, pictures: Path) -> None:
    gallery = create(tmp_path / "g", encoder, caption_weight=WEIGHT)
    for captions, message in (
        ({"a": 3}, "texts by the ids"),
        (3, "must be a path"),
        (tmp_path / "none.json", "cannot be read"),
    ):
        with pytest.raises(mm.MMRetrieveError, match=message):
            gallery.add(pictures, captions=captions)  # type: ignore[arg-type]
    assert len(gallery) == 0


@pytest.mark.parametrize(
    ("first", "then", "message"),
    [
        (["--captions", "{file}"], ["--caption-weight", "0.3"], "made with --caption-weight 0.15"),
        (["--captions", "{file}"], ["--caption-field", "title"], "made with --caption-field caption"),
        ([], ["--captions", "{file}"], "captions have no weight in this gallery"),
        ([], ["--id-field", "name"], "--id-field names a field of the file of --captions"),
    ],
)
def test_another_weight_is_one_clear_line(
    tmp_path: Path, pictures: Path, capsys: pytest.CaptureFixture[str], first: list[str], then: list[str], message: str
) -> None:
    file = tmp_path / "captions.csv"
    file.write_text("id,caption\nnobody,a hat\n")
    common = ["index", str(pictures), "--encoder", "wardrobe", "--quiet", "--gallery", str(tmp_path / "g")]
    assert main([*common, *(word.format(file=file) for word in first)]) == 0
    capsys.readouterr()
    assert main([*common, *(word.format(file=file) for word in then)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
