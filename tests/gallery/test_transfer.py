"""What comes from elsewhere and goes there: sources of every kind, shards and merging, clip-retrieval's layout, duplicates."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pyarrow as pa
import pytest
from helpers import FieldSource, gallery_state
from pyarrow import parquet

import mmretrieve as mm
from mmretrieve.cli.main import main
from mmretrieve.composition import Composition
from mmretrieve.errors import GalleryError, VectorError
from mmretrieve.gallery import ingest, transfer
from mmretrieve.gallery.ingest import Shard
from mmretrieve.vectors import NOT_FINITE, ZERO_VECTOR, unit


def as_tar(pictures: list[Path], path: Path) -> Path:
    with tarfile.open(path, "w") as tar:
        for picture in pictures:
            tar.add(picture, picture.name)
    return path


def as_parquet(pictures: list[Path], path: Path) -> Path:
    cells = [{"bytes": picture.read_bytes(), "path": picture.name} for picture in pictures]
    parquet.write_table(pa.table({"image": cells}), path, row_group_size=500)
    return path


def same_three_times(pictures: list[Path], folder: Path, encoder: mm.Encoder, tmp_path: Path) -> list[mm.Gallery]:
    sources = [folder, as_tar(pictures, tmp_path / "all.tar"), as_parquet(pictures, tmp_path / "all.parquet")]
    galleries = [mm.Gallery.create(tmp_path / f"{source.suffix}.gallery", encoder=encoder) for source in sources]
    for gallery, source in zip(galleries, sources, strict=True):
        assert gallery.add(source).added == len(pictures)
        assert gallery.verify() == []
    return galleries


def test_folder_tar_and_parquet_give_the_same_gallery(tmp_path: Path, encoder: mm.Encoder, photos: Path) -> None:
    flat = tmp_path / "flat"
    flat.mkdir()
    for path in photos.rglob("*.png"):
        shutil.copy(path, flat)
    one, *others = same_three_times(sorted(flat.iterdir()), flat, encoder, tmp_path)
    query = Composition(("query",), unit(one.vectors()[3][None] + 0.03), (1.0,))
    for other in others:
        assert gallery_state(other) == gallery_state(one)
        assert other.thumbnail(one.ids[5]) == one.thumbnail(one.ids[5])
        assert other.picture(one.ids[5]).tobytes() == one.picture(one.ids[5]).tobytes()
        assert [(hit.id, hit.score) for hit in other.search(query)] == [(hit.id, hit.score) for hit in one.search(query)]
        retriever = mm.Retriever(other, encoder)
        assert retriever.search(reference_id=one.ids[5], prompt="in red", k=3).ids[:3]


@pytest.mark.shared_data
def test_the_catalogue_gives_the_same_gallery_from_three_sources(tmp_path: Path, catalogue: Path) -> None:
    encoder = mm.load_encoder(str(catalogue / "model"))
    with (catalogue / "items.csv").open(encoding="utf-8", newline="") as file:
        header, *rows = list(csv.reader(file))[:401]
    place = header.index("file")
    (tmp_path / "some" / "images").mkdir(parents=True)
    for row in rows:
        shutil.copy(catalogue / row[place], tmp_path / "some" / row[place])
    with (tmp_path / "some" / "items.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    pictures = sorted((tmp_path / "some" / "images").iterdir())
    one, *others = same_three_times(pictures, tmp_path / "some" / "images", encoder, tmp_path)
    assert all(gallery_state(other) == gallery_state(one) for other in others)
    report = one.add(tmp_path / "some" / "items.csv")
    assert report == mm.AddReport(updated=400)
    assert len(one.search(Composition(("query",), one.vectors()[:1], (1.0,)), 50, where="article = 'tshirt'"))


def test_merged_shards_equal_one_index_run(
    tmp_path: Path, encoder: mm.Encoder, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingest, "INGEST_BATCH_SIZE", 8)
    source = mm.read_source(photos)
    whole = mm.Gallery.create(tmp_path / "whole", encoder=encoder)
    whole.add(source)
    for of in (1, 3, 9):
        parts = [Shard(source, number, of) for number in range(1, of + 1)]
        assert [item for part in parts for item in part] == list(source)
        assert [len(list(part)) for part in parts] == list(map(len, parts))
    merged = mm.Gallery.for_vectors(tmp_path / "merged", encoder.identity, encoder.dim)
    for number, part in enumerate(Shard(source, number, 3) for number in (1, 2, 3)):
        shard = mm.Gallery.create(tmp_path / f"shard{number}", encoder=encoder)
        shard.add(part)
        report = merged.merge(shard.path)
        assert (report.added, report.skipped) == (len(part), 0)
        assert merged.merge(shard.path).skipped == len(part)
    assert gallery_state(merged) == gallery_state(whole)
    assert merged.thumbnail(merged.ids[4]) == whole.thumbnail(whole.ids[4])
    assert (merged.verify(), mm.Gallery.open(merged.path, encoder=encoder).add(photos).skipped) == ([], 60)


def test_merging_incompatible_galleries_is_refused_and_changes_nothing(
    tmp_path: Path, encoder: mm.Encoder, gallery: mm.Gallery, photos: Path
) -> None:
    other = mm.Gallery.create(tmp_path / "other", encoder=encoder)
    clash = tmp_path / "clash"
    clash.mkdir()
    (clash / "summer").mkdir()
    shutil.copy(sorted(photos.rglob("*.png"))[7], clash / gallery.ids[0])
    shutil.copy(sorted(photos.rglob("*.png"))[8], clash / "new.png")
    other.add(clash)
    before = gallery_state(gallery)
    with pytest.raises(GalleryError, match=rf"{gallery.ids[0]}' is another image .*\(1 such ids\); .*; nothing was copied"):
        gallery.merge(other.path)
    fast = mm.Gallery.create(tmp_path / "fast", encoder=encoder, decode="fast")
    with pytest.raises(GalleryError, match="decode fast and exact; only"):
        gallery.merge(fast.path)
    assert gallery_state(gallery) == before


@pytest.fixture
def shop(tmp_path: Path, encoder: mm.Encoder, photos: Path) -> mm.Gallery:
    shop = mm.Gallery.create(tmp_path / "shop.gallery", encoder=encoder, setting=mm.PDV(beta=0.5))
    shop.add(FieldSource(photos, price=3.0))
    shop.delete(shop.ids[:2])
    return shop


def test_an_export_is_imported_without_loss(tmp_path: Path, shop: mm.Gallery, capsys: pytest.CaptureFixture[str]) -> None:
    out, back = tmp_path / "out", tmp_path / "back.gallery"
    assert main(["export", str(shop.path), str(out), "--quiet"]) == 0
    assert main(["import", str(out), "--gallery", str(back), "--quiet"]) == 0
    assert "58 added, 0 unchanged, 0 failed; 58 items" in capsys.readouterr().out
    again = mm.Gallery.open(back)
    assert gallery_state(again) == gallery_state(shop)
    assert (again.setting, again.encoder_identity, again.info()["fields"]) == (
        shop.setting,
        shop.encoder_identity,
        shop.info()["fields"],
    )
    query = Composition(("query",), unit(shop.vectors()[3][None] + 0.03), (1.0,))
    assert again.search(query, 60, where="number % 2") == shop.search(query, 60, where="number % 2")
    assert again.picture(again.ids[0]).size == (96, 96)
    assert again.thumbnail(again.ids[0])
    assert again.import_vectors(out).skipped == 58
    vectors = np.load(out / "img_emb" / "img_emb_0.npy")
    assert (vectors.dtype, vectors.shape) == (np.float16, (58, shop.dim))
    with pytest.raises(GalleryError, match="the folder is not empty"):
        shop.export(out)


def test_an_interrupted_export_is_run_again(tmp_path: Path, shop: mm.Gallery, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(transfer, "write_records", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            shop.export(out)
    with pytest.raises(GalleryError, match="this export was interrupted; run it again"):
        mm.Gallery.like(tmp_path / "b.gallery", shop).import_vectors(out)
    (out / "img_emb" / "img_emb_7.npy").write_bytes(b"of an export of more items")
    assert shop.export(out) == 58
    assert mm.Gallery.like(tmp_path / "c.gallery", shop).import_vectors(out).added == 58


KILLED = "transfer.write_records = lambda *_: os.kill(os.getpid(), signal.SIGKILL)"
FULL = "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, 2_000))"


@pytest.mark.parametrize(("fault", "end"), [(KILLED, "-9"), (FULL, "could not write")], ids=["killed", "full disk"])
def test_an_export_that_was_killed_or_met_a_full_disk_is_run_again(tmp_path: Path, made: Path, fault: str, end: str) -> None:
    out = tmp_path / "out"
    code = (
        "import os, resource, signal, sys, mmretrieve as mm; from mmretrieve.gallery import transfer; "
        f"gallery = mm.Gallery.open(sys.argv[1], device='cpu'); {fault}; gallery.export(sys.argv[2])"
    )
    child = subprocess.run([sys.executable, "-c", code, str(made), str(out)], capture_output=True, text=True, check=False)
    assert end in child.stderr + str(child.returncode)
    assert any(out.iterdir())
    gallery = mm.Gallery.open(made)
    with pytest.raises(GalleryError, match="this export was interrupted; run it again"):
        transfer.read_manifest(out)
    assert gallery.export(out) == len(gallery)
    assert mm.Gallery.like(tmp_path / "again.gallery", gallery).import_vectors(out).added == len(gallery)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, made: Path) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "out"
    mm.Gallery.open(made).export(folder)
    return folder


@pytest.mark.parametrize(
    "changed",
    [
        {"stamp": 3}, {"part": 3}, {"source": None}, {"hash": None}, {"hash": ""}, {"id": 3}, {"id": None}, {"id": ""}, {"id": "a\0b"},
        {"id": "\ud800"}, {"width": "x"}, {"width": -5}, {"height": 1.5}, {"height": 10**30}, {"width": True}, {"fields": 3},
        {"fields": None}, {"fields": {"a": [1, "\ud800"]}}, None, [], "{", "[]", '{"id": "a"}',
    ],
)  # fmt: skip
def test_a_row_that_is_not_of_an_export_is_refused_and_nothing_wrong_is_stored(
    changed: object, exported: Path, made: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(exported, tmp_path / "out")
    file = folder / "metadata" / "metadata_0.parquet"
    table = parquet.read_table(file)
    first, *rest = table["mmretrieve"].to_pylist()
    own = (
        json.dumps(json.loads(first) | changed)
        if isinstance(changed, dict)
        else changed
        if isinstance(changed, str)
        else json.dumps(changed)
    )
    column = table.schema.get_field_index("mmretrieve")
    parquet.write_table(table.set_column(column, "mmretrieve", pa.array([own, *rest])), file)
    gallery = mm.Gallery.like(tmp_path / "new.gallery", mm.Gallery.open(made))
    with pytest.raises(
        GalleryError, match=r"metadata_0.parquet: a row has .* in the column 'mmretrieve'|cannot be stored|invalid|text"
    ):
        gallery.import_vectors(folder)
    assert gallery.verify() == []


@pytest.mark.parametrize("name", ["mmretrieve.json", "img_emb/img_emb_0.npy", "metadata/metadata_0.parquet"])
def test_pipes_and_devices_in_an_export_are_refused(name: str, exported: Path, tmp_path: Path, encoder: mm.Encoder) -> None:
    for make in (os.mkfifo, lambda path: path.symlink_to("/dev/zero"), lambda path: path.mkdir()):
        folder = shutil.copytree(exported, tmp_path / f"out-{make.__name__}-{id(make)}")
        (folder / name).unlink()
        make(folder / name)
        gallery = mm.Gallery.create(folder.with_suffix(".gallery"), encoder=encoder)
        with pytest.raises(GalleryError, match=r"is not a regular file|is a folder"):
            gallery.import_vectors(folder)


@pytest.mark.parametrize("text", ["1e400", "1e308", "0", "-3", "true", '"128"', "1048577", "[]", "null", "9" * 4_000])
def test_a_dimension_that_no_gallery_has_is_refused(text: str, exported: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(exported, tmp_path / "out")
    manifest = json.loads((folder / "mmretrieve.json").read_text()) | {"dim": "DIM"}
    (folder / "mmretrieve.json").write_text(json.dumps(manifest).replace('"DIM"', text))
    assert main(["import", "--gallery", str(tmp_path / "new.gallery"), str(folder)]) == 1
    assert not (tmp_path / "new.gallery").exists()
    with pytest.raises(GalleryError, match=r"mmretrieve.json: (the manifest cannot be read|cannot be read|.*number)") as caught:
        transfer.read_manifest(folder)
    assert len(str(caught.value)) < 1_000


@pytest.mark.parametrize("array", [np.float32(3), np.ones(4), np.ones((60, 128), bool), np.ones((60, 128), "datetime64[s]")])
def test_an_array_of_another_kind_is_refused(array: np.ndarray, exported: Path, tmp_path: Path, encoder: mm.Encoder) -> None:
    folder = shutil.copytree(exported, tmp_path / "out")
    np.save(folder / "img_emb" / "img_emb_0.npy", array)
    with pytest.raises(GalleryError, match=r"img_emb_0.npy: expected numbers of shape \(n, d\)"):
        mm.Gallery.create(tmp_path / "g", encoder=encoder).import_vectors(folder)


@pytest.fixture
def foreign(tmp_path: Path, encoder: mm.Encoder) -> Path:
    """What clip-retrieval itself would have written: two parts, no word of ids or encoders."""
    folder, rng = tmp_path / "foreign", np.random.default_rng(3)
    for name in ("img_emb", "metadata"):
        (folder / name).mkdir(parents=True)
    for k in (9, 10):
        names = [f"shelf/{k}-{i}.jpg" for i in range(5)]
        np.save(folder / "img_emb" / f"img_emb_{k}.npy", rng.normal(size=(5, encoder.dim)).astype(np.float32))
        table = pa.table({"image_path": names, "caption": ["a dress"] * 5, "similarity": [0.5] * 5})
        parquet.write_table(table, folder / "metadata" / f"metadata_{k}.parquet")
    return folder


def test_embeddings_of_other_tools_can_be_searched(
    foreign: Path, tmp_path: Path, encoder: mm.Encoder, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["import", str(foreign), "--gallery", str(tmp_path / "g"), "--quiet"]) == 2
    assert "does not name the encoder of its vectors; name it with --encoder" in capsys.readouterr().err
    assert main(["import", str(foreign), "--gallery", str(tmp_path / "g"), "--encoder", "wardrobe", "--quiet"]) == 0
    gallery = mm.Gallery.open(tmp_path / "g")
    assert gallery.ids[:6] == (*(f"shelf/9-{i}.jpg" for i in range(5)), "shelf/10-0.jpg")
    assert gallery.item(gallery.ids[0]).fields == {"caption": "a dress", "similarity": 0.5}
    stored = np.load(foreign / "img_emb" / "img_emb_10.npy")
    np.testing.assert_allclose(gallery.vectors(["shelf/10-3.jpg"])[0], unit(stored[3:4])[0], atol=1e-3)
    assert mm.Retriever(gallery, encoder).search(prompt="a dress", where="caption LIKE '%dress'").ids
    assert gallery.verify() == []


def test_a_row_without_a_direction_is_named_and_the_others_are_imported(
    foreign: Path, tmp_path: Path, encoder: mm.Encoder
) -> None:
    path = foreign / "img_emb" / "img_emb_10.npy"
    rows = np.load(path)
    rows[0, 0], rows[2] = np.nan, 0
    np.save(path, rows)
    gallery = mm.Gallery.create(tmp_path / "g", encoder=encoder)
    report = gallery.import_vectors(foreign)
    assert report.failed == {"shelf/10-0.jpg": NOT_FINITE, "shelf/10-2.jpg": ZERO_VECTOR}
    assert gallery.ids == (*(f"shelf/9-{i}.jpg" for i in range(5)), *(f"shelf/10-{i}.jpg" for i in (1, 3, 4)))
    np.testing.assert_allclose(gallery.vectors(["shelf/10-3.jpg"])[0], unit(rows[3:4])[0], atol=1e-3)


def test_files_that_do_not_fit_together_are_named(foreign: Path, tmp_path: Path, encoder: mm.Encoder) -> None:
    gallery = mm.Gallery.create(tmp_path / "g", encoder=encoder)
    np.save(foreign / "img_emb" / "img_emb_10.npy", np.ones((4, encoder.dim), np.float32))
    with pytest.raises(GalleryError, match=r"metadata_10.parquet: 5 rows, but img_emb_10.npy has 4"):
        gallery.import_vectors(foreign)
    assert len(gallery) == 5  # what was committed before stays
    np.save(foreign / "img_emb" / "img_emb_10.npy", np.ones((5, 3), np.float16))
    with pytest.raises(VectorError, match=r"img_emb_10.npy: expected \d+ columns, got 3"):
        gallery.import_vectors(foreign)
    np.save(foreign / "img_emb" / "img_emb_10.npy", np.zeros((5, encoder.dim)))
    with pytest.raises(VectorError, match=r"img_emb_10.npy: row 0 is a zero vector"):
        gallery.import_vectors(foreign)
    (foreign / "metadata" / "metadata_10.parquet").unlink()
    with pytest.raises(GalleryError, match="file number 10 exists for vectors or for metadata, but not for both"):
        gallery.import_vectors(foreign)
    with pytest.raises(GalleryError, match="expected the layout of clip-retrieval"):
        gallery.import_vectors(tmp_path)
    assert gallery.verify() == []


def test_duplicates_by_content_and_near_ones(tmp_path: Path, shop: mm.Gallery) -> None:
    copies = tmp_path / "copies"
    copies.mkdir()
    third, tenth = shop.ids[3], shop.ids[10]
    for i, id_ in enumerate((third, third, tenth)):
        shutil.copy(shop.item(id_).path, copies / f"copy{i}.png")
    assert shop.duplicates() == []
    shop.add(copies)
    expected = [(third, "copy0.png", "copy1.png"), (tenth, "copy2.png")]
    assert shop.duplicates() == expected
    assert shop.duplicates(1.0) == expected
    vectors = shop.vectors()
    scores = (vectors.astype(np.float64) @ vectors.T.astype(np.float64)).astype(np.float32)
    for least in (0.97, 0.9, 0.6):
        reach = np.linalg.matrix_power((scores >= np.float32(least)).astype(np.float64), 64) > 0
        groups = {tuple(np.flatnonzero(row)) for row in reach if row.sum() > 1}
        assert shop.duplicates(least) == sorted(
            (tuple(shop.ids[i] for i in group) for group in groups), key=lambda g: shop.ids.index(g[0])
        )


def test_the_shell_syncs_merges_compacts_and_finds_duplicates(
    tmp_path: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, one, two = tmp_path / "photos", str(tmp_path / "one"), str(tmp_path / "two")
    shutil.copytree(photos, source)
    for shard in ("1/2", "2/2"):
        assert (
            main(["index", str(source), "--gallery", one, "--encoder", "wardrobe", "--shard", shard, "--quiet", "--json"]) == 0
        )
    next(source.rglob("*.png")).unlink()
    capsys.readouterr()
    assert main(["sync", str(source), "--gallery", one, "--quiet", "--json"]) == 0
    output = json.loads(capsys.readouterr().out)
    assert (output["removed"], output["items"]) == (1, 59)
    assert main(["compact", one, "--quiet"]) == 0
    assert main(["merge", two, one, "--quiet", "--json"]) == 0
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert {name: value for name, value in report.items() if value} == {"added": 59, "items": 59}
    assert main(["duplicates", two, "--min-score", "0.5", "--json", "--quiet"]) == 0
    assert sum(len(json.loads(line)) for line in capsys.readouterr().out.splitlines()) > 10
    assert main(["verify", two]) == 0
    three = str(tmp_path / "three")
    assert main(["index", two, "--gallery", three, "--quiet"]) == 0
    assert gallery_state(mm.Gallery.open(three)) == gallery_state(mm.Gallery.open(two))
    for wrong in (["index", str(source), "--gallery", one, "--shard", "3/2"], ["duplicates", one, "--min-score", "2"]):
        with pytest.raises(SystemExit, match="2"):
            main(wrong)
