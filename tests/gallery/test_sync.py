"""`sync` and sources that are away, moved files, Unicode forms of names, and what is left out."""

from __future__ import annotations

import json
import os
import shutil
import unicodedata
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from helpers import ColourEncoder
from PIL import Image

import mmretrieve as mm
from mmretrieve.cli.main import main
from mmretrieve.errors import OptionError
from mmretrieve.gallery.ingest import REPEATED_ID
from mmretrieve.gallery.store.records import ItemRecord
from mmretrieve.gallery.store.store import VECTORS


class CountingEncoder(ColourEncoder):
    """Counts the images that it encodes."""

    def __init__(self) -> None:
        self.count = 0

    def encode_images(self, images: Iterable[Image.Image], progress: object = None) -> np.ndarray:
        images = list(images)
        self.count += len(images)
        return super().encode_images(images, progress)


@pytest.fixture
def counting() -> CountingEncoder:
    return CountingEncoder()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Fifty images: 45 in `disk/a` and `disk/b`, 4 in `few`, one in `one`."""
    return paint(
        tmp_path / "source", [*(f"disk/{'ab'[i % 2]}/{i}" for i in range(45)), *(f"few/{i}" for i in range(4)), "one/x"]
    )


def paint(folder: Path, names: Iterable[str]) -> Path:
    for name in names:
        path = folder / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(list(name.encode())).integers(0, 255, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    return folder


@pytest.fixture
def filled(tmp_path: Path, source: Path, counting: CountingEncoder) -> mm.Gallery:
    gallery = mm.Gallery.create(tmp_path / "g", encoder=counting)
    assert gallery.add(source) == mm.AddReport(added=50)
    return gallery


# --- a source that is away


@pytest.mark.parametrize(
    ("away", "message"),
    [
        ("disk", "45 of the 50 items of this source are missing, as if a disk or share were away; if they were deleted on purpose, allow it with allow_removal=0.9"),
        ("few", "all 4 items of the folder 'few' are missing, as if its disk were not mounted; if they were deleted on purpose, allow it with allow_removal=0.08"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("mount_point_stays", [True, False])
def test_a_folder_that_is_away_is_not_an_empty_one(
    away: str, message: str, mount_point_stays: bool, filled: mm.Gallery, source: Path
) -> None:
    paint(source, ["new"])
    count = sum(path.is_file() for path in (source / away).rglob("*"))
    shutil.rmtree(source / away)
    if mount_point_stays:
        (source / away).mkdir()
    report = filled.sync(source)
    assert (report.added, report.removed, report.not_removed, len(filled)) == (1, 0, count, 51)
    assert report.notes == (f"{source}: no item was removed: {message}",)
    share = float(message.rpartition("=")[2])
    assert filled.sync(source, allow_removal=share - 0.02).removed == 0
    assert filled.sync(source, allow_removal=share).removed == count
    assert filled.sync(source).not_removed == 0


def test_a_source_that_is_empty_or_gone_is_an_error(filled: mm.Gallery, source: Path) -> None:
    shutil.rmtree(source)
    with pytest.raises(mm.MMRetrieveError, match="no such file or folder"):
        filled.sync(source, allow_removal=1)
    source.mkdir()
    with pytest.raises(mm.MMRetrieveError, match="no images in this folder"):
        filled.sync(source, allow_removal=1)
    assert len(filled) == 50


@pytest.mark.parametrize(
    "error", [PermissionError(13, "Permission denied"), OSError(116, "Stale file handle"), TimeoutError(110, "timed out")]
)
def test_a_folder_that_cannot_be_listed_keeps_its_items(
    error: OSError, filled: mm.Gallery, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listing = os.scandir

    def scandir(path: str) -> object:
        if str(path).endswith("few"):
            raise error
        return listing(path)

    monkeypatch.setattr(os, "scandir", scandir)
    report = filled.sync(source, allow_removal=1)
    assert (report.removed, report.not_removed, len(filled)) == (0, 4, 50)
    assert dict(report.failed) == {"few": f"this folder cannot be listed ({error.strerror})"}


def test_ordinary_deletions_are_followed(filled: mm.Gallery, source: Path) -> None:
    """Up to a tenth of the items, some of a folder, and a folder of one."""
    for name in ("disk/a/0.png", "disk/b/1.png", "few/0.png", "few/1.png", "one/x.png"):
        (source / name).unlink()
    assert filled.sync(source).removed == 5
    (source / "few/2.png").unlink()
    assert filled.sync(source).removed == 1
    (source / "few/3.png").unlink()
    assert filled.sync(source).removed == 1, "a folder that had one item left"


def test_a_table_that_lost_its_rows_is_away_too(source: Path, tmp_path: Path) -> None:
    paths = [str(path) for path in sorted(source.rglob("*.png"))]
    table = tmp_path / "items.csv"
    table.write_text("\n".join(["id,path", *(f"sku {i},{path}" for i, path in enumerate(paths))]))
    gallery = mm.Gallery.create(tmp_path / "other", encoder=CountingEncoder())
    gallery.sync(table)
    table.write_text("\n".join(table.read_text().splitlines()[:30]))
    assert (gallery.sync(table).not_removed, len(gallery)) == (21, 50)


def test_the_shell_exits_with_1_and_removes_on_request(
    source: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    gallery = str(tmp_path / "shell")
    assert main(["sync", str(source), "--gallery", gallery, "--encoder", "wardrobe", "--quiet"]) == 0
    shutil.rmtree(source / "disk")
    capsys.readouterr()
    assert main(["sync", str(source), "--gallery", gallery, "--quiet"]) == 1
    printed = capsys.readouterr()
    assert printed.out == f"{gallery}: 0 added, 45 not removed, 5 unchanged, 0 failed; 50 items\n"
    assert printed.err.startswith(f"note: {source}: no item was removed: 45 of the 50 items")
    assert printed.err.endswith("allow it with --allow-removal 0.9\n")
    assert main(["sync", str(source), "--gallery", gallery, "--quiet", "--allow-removal", "0.5"]) == 1
    assert main(["sync", str(source), "--gallery", gallery, "--quiet", "--allow-removal", "0.9"]) == 0
    assert len(mm.Gallery.open(gallery)) == 5
    with pytest.raises(SystemExit, match="2"):
        main(["sync", str(source), "--gallery", gallery, "--allow-removal", "90"])


@pytest.mark.parametrize("share", [-0.1, 1.5, "1", True, float("nan")])
def test_a_wrong_share_is_refused(share: object, filled: mm.Gallery, source: Path) -> None:
    with pytest.raises(OptionError, match="allow_removal must be a number from 0 to 1"):
        filled.sync(source, allow_removal=share)  # type: ignore[arg-type]


# --- vectors that exist


def test_moved_files_keep_their_vectors_and_are_not_missing(
    filled: mm.Gallery, source: Path, counting: CountingEncoder
) -> None:
    vectors = dict(zip(filled.ids, filled.vectors(), strict=True))
    (source / "disk").rename(source / "disk 2026")
    report = filled.sync(source)
    assert (report.added, report.removed, report.not_removed, counting.count) == (45, 45, 0, 50)
    np.testing.assert_array_equal(filled.vectors(["disk 2026/a/0.png"])[0], vectors["disk/a/0.png"])
    assert filled.verify() == []


def test_copies_elsewhere_do_not_stand_for_a_folder_that_is_away(filled: mm.Gallery, source: Path) -> None:
    shutil.copytree(source / "few", source / "copies")
    assert filled.sync(source).added == 4
    shutil.rmtree(source / "few")
    assert filled.sync(source).not_removed == 4


def test_what_was_deleted_comes_back_without_being_encoded(
    filled: mm.Gallery, source: Path, counting: CountingEncoder, tmp_path: Path
) -> None:
    (source / "disk").rename(tmp_path / "unmounted")
    vectors, thumbnail = filled.vectors(["disk/a/0.png"]), filled.thumbnail("disk/a/0.png")
    assert filled.sync(source, allow_removal=1).removed == 45
    (tmp_path / "unmounted").rename(source / "disk")
    assert (filled.sync(source).added, counting.count) == (45, 50)
    np.testing.assert_array_equal(filled.vectors(["disk/a/0.png"]), vectors)
    filled.compact()
    assert filled.thumbnail("disk/a/0.png") == thumbnail
    assert filled.verify() == []


def test_a_damaged_vector_is_not_copied(filled: mm.Gallery, source: Path, counting: CountingEncoder) -> None:
    shutil.copy(source / "one/x.png", source / "copy.png")
    row = filled.ids.index("one/x.png")
    with (filled.path / VECTORS).open("r+b") as file:
        file.seek(row * filled.dim * 2)
        file.write(b"\xff\x00")
    assert (filled.sync(source).added, counting.count) == (1, 51)
    (damage,) = filled.verify()
    assert "one/x.png" in damage


# --- one name in two forms

COMPOSED, DECOMPOSED = (unicodedata.normalize(form, "Zürich/Bär é.png") for form in ("NFC", "NFD"))


@pytest.mark.parametrize(("first", "second"), [(COMPOSED, DECOMPOSED), (DECOMPOSED, COMPOSED)])
def test_forms_of_a_name_are_one_name(first: str, second: str, tmp_path: Path, counting: CountingEncoder) -> None:
    """Indexed from one file system, synced from another that writes names in the other form."""
    root = paint(tmp_path / "source", [first[:-4], "other"])
    gallery = mm.Gallery.create(tmp_path / "g", encoder=counting)
    gallery.add(root)
    (root / second).parent.mkdir()
    (root / first).rename(root / second)
    assert gallery.sync(root) == mm.AddReport(skipped=2)
    assert (counting.count, gallery.ids) == (2, (COMPOSED, "other.png"))
    assert Path(gallery.item(first).path) == root / second
    for form in (first, second):
        assert gallery.item(form).id == COMPOSED
        assert form in gallery
        assert len(gallery.vectors([form])) == 1
        assert gallery.thumbnail(form)
        ranking = gallery.search(gallery.vectors([form])[0], k=2, exclude=[form])
        assert ranking.ids == ("other.png",)
    gallery.delete([second])
    assert gallery.ids == ("other.png",)
    assert not [name for name in (first, "none", "", "a\ud800", None, 3) if name in gallery]


def test_an_old_gallery_with_the_other_form_is_kept(
    tmp_path: Path, counting: CountingEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = paint(tmp_path / "Zürich", [DECOMPOSED[:-4]])
    gallery = mm.Gallery.create(tmp_path / "g", encoder=counting)
    monkeypatch.setattr("mmretrieve.gallery.ingest.normalize", lambda form, text: text)  # noqa: ARG005 - as it was
    gallery.add(root)
    monkeypatch.undo()
    assert gallery.ids == (DECOMPOSED,)
    assert gallery.sync(root) == mm.AddReport(skipped=1)
    assert (gallery.item(COMPOSED).id, counting.count) == (DECOMPOSED, 1)
    paint(root, ["other", "more"])
    (root / DECOMPOSED).unlink()
    assert gallery.sync(root, allow_removal=1).removed == 1


def test_fields_that_a_table_added_stay_when_a_file_is_replaced_or_renamed(tmp_path: Path, counting: CountingEncoder) -> None:
    root = paint(tmp_path / "photos", ["kept", "replaced", "renamed", "copy 1", "gone"])
    shutil.copyfile(root / "copy 1.png", root / "copy 2.png")
    table = tmp_path / "items.csv"
    names = sorted(path.name for path in root.iterdir())
    table.write_text("path,price\n" + "".join(f"photos/{name},{price}\n" for price, name in enumerate(names)))
    gallery = mm.Gallery.create(tmp_path / "g", encoder=counting)
    gallery.add(root)
    assert gallery.add(table).updated == len(names)
    prices = {name: gallery.item(name).fields["price"] for name in names}
    paint(tmp_path / "other", ["another picture"])
    (tmp_path / "other/another picture.png").replace(root / "replaced.png")
    for name, new in (("renamed", "new"), ("copy 1", "copy 3"), ("copy 2", "copy 4")):
        (root / f"{name}.png").rename(root / f"{new}.png")
    (root / "gone.png").unlink()
    report = gallery.sync(root, allow_removal=1)
    assert (report.added, report.updated, report.removed) == (3, 1, 4)
    after = {item.id: item.fields.get("price") for item in gallery.items(gallery.ids)}
    assert {after.pop("copy 3.png"), after.pop("copy 4.png")} == {prices["copy 1.png"], prices["copy 2.png"]}
    assert after == {name: prices[name] for name in ("kept.png", "replaced.png")} | {"new.png": prices["renamed.png"]}
    assert (gallery.verify(), gallery.sync(root)) == ([], mm.AddReport(skipped=5))


@pytest.mark.parametrize("batch_size", [1, 256], ids=["in different batches", "in one batch"])
def test_two_files_with_one_name_are_named(
    tmp_path: Path, counting: CountingEncoder, monkeypatch: pytest.MonkeyPatch, batch_size: int
) -> None:
    monkeypatch.setattr("mmretrieve.gallery.ingest.INGEST_BATCH_SIZE", batch_size)
    root = paint(tmp_path / "source", ["first", COMPOSED[:-4], DECOMPOSED[:-4]])
    gallery = mm.Gallery.create(tmp_path / "g", encoder=counting)
    for report in (gallery.add(root), gallery.sync(root), gallery.sync(root)):
        assert dict(report.failed) == {COMPOSED: REPEATED_ID}
    assert (set(gallery.ids), counting.count) == ({"first.png", COMPOSED}, 2)


# --- what is left out


def test_a_report_counts_what_is_left_out(
    source: Path, tmp_path: Path, counting: CountingEncoder, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in (
        "film.mov",
        "few/film.MP4",
        "raw/a.CR2",
        "notes.txt",
        ".DS_Store",
        "@eaDir/few/thumb.png",
        "few/.@__thumb/x.jpg",
    ):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(b"x")
    (source / "link").symlink_to(source / "few", target_is_directory=True)
    gallery = mm.Gallery.create(tmp_path / "g", encoder=counting)
    report = gallery.add(source, exclude=["disk"])
    assert report.added == 5
    expected = {"videos": 2, "camera RAW images": 1, "other files": 1, "hidden or system files": 3, "linked folders": 1}
    assert report.ignored == {**expected, "excluded": 1}
    assert gallery.sync(source, exclude=["disk/"]).ignored == report.ignored
    shell = str(tmp_path / "shell")
    assert (
        main(
            [
                "index",
                str(source),
                "--gallery",
                shell,
                "--encoder",
                "wardrobe",
                "--quiet",
                "--exclude",
                "disk",
                "--exclude",
                "1.*",
            ]
        )
        == 0
    )
    assert capsys.readouterr() == (
        f"{shell}: 4 added, 0 unchanged, 0 failed; 4 items\n",
        "note: left out: camera RAW images (1), videos (2), linked folders (1), hidden or system files (3), excluded (2), other files (1)\n",
    )
    assert main(["sync", str(source), "--gallery", shell, "--quiet", "--exclude", "disk", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["ignored"] == report.ignored


def test_notes_of_a_table_are_in_the_report(source: Path, tmp_path: Path, counting: CountingEncoder) -> None:
    paths = sorted(source.rglob("*.png"))[:3]
    table = tmp_path / "items.csv"
    table.write_text("path,price\n" + "".join(f"{path},{price}\n" for path, price in zip(paths, ("1", "?", "3"), strict=True)))
    gallery = mm.Gallery.create(tmp_path / "g", encoder=counting)
    assert gallery.add(table).notes == (
        "items.csv: the column 'price' is text, because line 3 has '?'; 2 other values are numbers",
    )


def test_the_first_shard_reports_for_all(source: Path) -> None:
    from mmretrieve.gallery.ingest import Shard

    (source / "film.mov").write_bytes(b"x")
    assert [Shard(mm.read_source(source), number, 2).report().ignored for number in (1, 2)] == [{"videos": 1}, {}]


def test_records_know_their_rows(filled: mm.Gallery) -> None:
    """A look-up by several ids answers by the ids that were asked."""
    records: dict[str, ItemRecord] = filled._store.ledger.records_by_id(["few/1.png", "nothing", "few/0.png"])
    assert {id_: record.item.id for id_, record in records.items()} == {"few/1.png": "few/1.png", "few/0.png": "few/0.png"}
