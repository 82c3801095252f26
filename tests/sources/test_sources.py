"""Sources: the same pictures come out the same whatever they are kept in, and nothing that is broken is lost unsaid."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import random
import tarfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet as pq

from mmretrieve.errors import GalleryError, ImageError, OptionError
from mmretrieve.images import open_image
from mmretrieve.sources import Columns, parquet_files, parquet_rows, read_source
from mmretrieve.sources.base import Source, SourceItem, UnreadableItem
from mmretrieve.sources.location import Location
from mmretrieve.sources.values import fields_of, number_of, value_of

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
BLOCK = tarfile.BLOCKSIZE


def write_tar(path: Path, members: Iterable[tuple[str, bytes]], **options: object) -> Path:
    with tarfile.open(path, "w", **options) as archive:  # type: ignore[call-overload]
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def write_rows(path: Path, columns: Mapping[str, object], **options: object) -> Path:
    pq.write_table(pa.table(columns), path, **options)
    return path


def write_text(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode())
    return path


def images(rows: Iterable[tuple[bytes | None, str | None] | None]) -> pa.Array:
    return pa.array([row and {"bytes": row[0], "path": row[1]} for row in rows], IMAGE)


def items(source: Source) -> list[SourceItem]:
    entries = list(source)
    assert [entry for entry in entries if isinstance(entry, UnreadableItem)] == []
    return [entry for entry in entries if isinstance(entry, SourceItem)]


def problems(source: Source) -> dict[str, str]:
    return {entry.id: entry.reason for entry in source if isinstance(entry, UnreadableItem)}


def content(item: SourceItem) -> bytes:
    with item.location.open() as file:
        return file.read()


def contents(source: Source) -> dict[str, bytes]:
    return {item.id: content(item) for item in items(source)}


def fields(path: Path, columns: Columns = Columns()) -> dict[str, dict[str, object]]:  # noqa: B008
    return {item.id: dict(item.fields) for item in items(read_source(path, columns))}


# --- the same pictures, whatever they are kept in


@pytest.fixture(scope="module")
def loose(photos: Path) -> dict[str, bytes]:
    return {path.relative_to(photos).as_posix(): path.read_bytes() for path in sorted(photos.rglob("*.png"))}


def as_folder(photos: Path, _: Path, __: Mapping[str, bytes]) -> Path:
    return photos


def as_tar(_: Path, folder: Path, loose: Mapping[str, bytes]) -> Path:
    return write_tar(folder / "a.tar", reversed([(f"./{name}", content) for name, content in loose.items()]))


def as_structs(_: Path, folder: Path, loose: Mapping[str, bytes]) -> Path:
    rows = images((content, name) for name, content in loose.items())
    return write_rows(folder / "a.parquet", {"label": range(len(loose)), "image": rows}, row_group_size=7)


def as_bytes(_: Path, folder: Path, loose: Mapping[str, bytes]) -> Path:
    return write_rows(folder / "a.parquet", {"id": list(loose), "jpg": list(loose.values())}, row_group_size=13)


def as_paths(photos: Path, _: Path, loose: Mapping[str, bytes]) -> Path:
    return write_rows(photos.parent / "paths.parquet", {"id": list(loose), "path": [f"{photos.name}/{name}" for name in loose]})


def as_csv(photos: Path, _: Path, loose: Mapping[str, bytes]) -> Path:
    text = "id,file\n" + "".join(f"{name},{photos.name}/{name}\n" for name in loose)
    return write_text(photos.parent / "paths.csv", text)


def as_jsonl(photos: Path, _: Path, loose: Mapping[str, bytes]) -> Path:
    lines = (json.dumps({"id": name, "file_name": str(photos / name)}) for name in loose)
    return write_text(photos.parent / "paths.jsonl", "\n".join(lines))


Keeping = Callable[[Path, Path, Mapping[str, bytes]], Path]


@pytest.mark.parametrize("keep", [as_folder, as_tar, as_structs, as_bytes, as_paths, as_csv, as_jsonl])
def test_ids_order_and_bytes_are_those_of_the_folder(
    keep: Keeping, photos: Path, tmp_path: Path, loose: dict[str, bytes]
) -> None:
    path = keep(photos, tmp_path, loose)
    source = read_source(path)
    assert len(source) == len(loose) == 60
    assert source.name == str(path.resolve()) == read_source(str(path)).name
    entries = contents(source)
    assert entries == loose
    assert list(entries) == sorted(loose)
    assert list(source) == list(source)


@pytest.mark.parametrize("keep", [as_folder, as_tar, as_structs])
def test_locations_open_in_many_threads(keep: Keeping, photos: Path, tmp_path: Path, loose: dict[str, bytes]) -> None:
    entries = items(read_source(keep(photos, tmp_path, loose)))
    random.Random(0).shuffle(entries)
    with ThreadPoolExecutor(8) as pool:
        for item, read in zip(entries, pool.map(content, entries), strict=True):
            assert read == loose[item.id]
    with entries[0].location.open() as file:
        assert open_image(file).size == (96, 96)


def test_a_single_image_is_a_source(photos: Path) -> None:
    path = next(photos.rglob("*.png"))
    assert contents(read_source(path)) == {path.name: path.read_bytes()}
    assert len(read_source(path)) == 1


# --- places


def test_a_part_has_a_name(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "00000.tar", [("x.jpg", b"abcdef")])
    with Location(str(path), f"tar:{BLOCK}:6").open() as file:
        assert (file.name, file.read()) == (f"00000.tar at {BLOCK}", b"abcdef")
    rows = write_rows(tmp_path / "a.parquet", {"image": images([(b"abc", None)])})
    with Location(str(rows), "parquet:0:image.bytes").open() as file:
        assert (file.name, file.read()) == ("a.parquet, row 0", b"abc")
        with pytest.raises(ImageError, match=r"^a.parquet, row 0: not an image"):
            open_image(file)


@pytest.mark.parametrize(
    ("member", "message"),
    [
        (None, "no such image"),
        ("tar:0:1", "no such file"),
        ("parquet:0:image", "no such file"),
    ],
)
def test_a_missing_file_is_named(member: str | None, message: str, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=f"gone: {message}$"):
        Location(str(tmp_path / "gone"), member).open()
    with pytest.raises(ImageError, match="gone: "):
        Location(str(tmp_path / "gone"), member).fingerprint()


@pytest.mark.parametrize("member", [None, "tar:0:1", "parquet:0:image"])
def test_special_files_are_refused_without_blocking(member: str | None, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, reason in ((tmp_path / "pipe", "is not a regular file"), (tmp_path, "is a folder")):
        with pytest.raises(ImageError, match=reason):
            Location(str(path), member).open()
    with pytest.raises(ImageError, match="cannot be read"):
        Location(f"{tmp_path}/a\0b", member).open()


@pytest.mark.parametrize(
    ("member", "message"),
    [
        ("tar:500:600", r"is shorter than when it was indexed \(no 600 bytes at 500\); index it again"),
        (f"tar:{10**30}:1", "is shorter than when it was indexed"),
        ("tar:1", "invalid member 'tar:1'"),
        ("tar:-1:5", "invalid member"),
        ("zip:1:2", "invalid member 'zip:1:2'"),
        ("parquet:1:image", "cannot be read as Parquet"),
    ],
)
def test_a_missing_part_is_an_error(member: str, message: str, tmp_path: Path) -> None:
    path = write_text(tmp_path / "x", "x" * 1000)
    with pytest.raises(ImageError, match=message) as caught:
        Location(str(path), member).open()
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_the_fingerprint_changes_with_the_file(tmp_path: Path) -> None:
    path = write_text(tmp_path / "x", "abc")
    os.utime(path, ns=(5, 1_234_567_890_123_456_789))
    assert Location(str(path)).fingerprint() == "3-1234567890123456789"


@pytest.mark.parametrize(
    ("row", "column", "message"),
    [
        (2, "image.bytes", "there is no row 2; the file has 2 rows"),
        (1, "image.bytes", "no image in row 1"),
        (0, "image.thumb", "there is no column 'image.thumb'"),
        (0, "label", "column 'label' does not contain bytes"),
    ],
)
def test_a_missing_cell_is_an_error(row: int, column: str, message: str, tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.parquet", {"image": images([(b"abc", "x"), None]), "label": [1, 2]})
    with pytest.raises(ImageError, match=message) as caught:
        Location(str(path), f"parquet:{row}:{column}").open()
    assert str(caught.value).startswith(f"{path}: ")


def test_a_cell_of_a_changed_file_is_read_again(tmp_path: Path) -> None:
    location = Location(str(tmp_path / "a.parquet"), "parquet:1:jpg")
    for word in (b"old", b"new"):
        write_rows(tmp_path / "a.parquet", {"jpg": [b"", word]})
        os.utime(location.path, ns=(0, len(word) + word[0]))
        with location.open() as file:
            assert file.read() == word


def test_a_cell_reads_only_its_row_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_rows(tmp_path / "a.parquet", {"jpg": [bytes([i]) * 1000 for i in range(100)]}, row_group_size=10)
    opened: list[int] = []
    stream = parquet_files.stream

    def counting(path: str, metadata: object, group: int, column: str) -> object:
        opened.append(group)
        return stream(path, metadata, group, column)

    monkeypatch.setattr(parquet_files, "stream", counting)
    for row in (57, 58, 50, 59, 41):
        assert parquet_files.read_cell(str(path), row, "jpg", "as it is") == bytes([row]) * 1000
    assert opened == [5, 4]


def test_a_row_group_is_read_in_batches_and_again_from_its_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_files, "BATCH_BYTES", 3000)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    path = write_rows(tmp_path / "a.parquet", {"jpg": [bytes([i]) + os.urandom(999) for i in range(100)]})
    window = parquet_files._RowGroupColumn(str(path), 0, "jpg")
    for row in (0, 99, 50, 51, 48, 0, 99):
        assert (window.value(row) or b"")[0] == row
        assert window._buffered() <= 7
    with pytest.raises(ImageError, match="there is no row 100"):
        parquet_rows.cell(str(path), 100, "jpg", "")


def test_without_pyarrow_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_rows(tmp_path / "a.parquet", {"jpg": [b"x"]})
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    for ask in (lambda: read_source(path), lambda: Location(str(path), "parquet:0:jpg").open()):
        with pytest.raises(GalleryError, match=r"^reading Parquet files needs .*pip install 'mmretrieve\[parquet\]'$"):
            ask()


# --- folders


@given(
    st.sets(
        st.lists(st.sampled_from(["a", "b", "a.tar", "a!", "a0", "B", "é"]), min_size=1, max_size=3).map(tuple), max_size=12
    )
)
@settings(max_examples=40, deadline=None)
def test_a_folder_tree_is_sorted_by_id(tmp_path_factory: pytest.TempPathFactory, paths: set[tuple[str, ...]]) -> None:
    root = tmp_path_factory.mktemp("tree")
    expected = {"x.png"}
    write_text(root / "x.png", "")
    for *folders, name in paths:
        location = root.joinpath(*folders)
        if all(member.is_dir() or not member.exists() for member in (location, *location.parents) if root in member.parents):
            location.mkdir(parents=True, exist_ok=True)
            if name.endswith(".tar") and not (location / name).exists():
                write_tar(location / name, [("z.png", b""), ("b/a.png", b"")])
                expected |= {"/".join((*folders, name, inner)) for inner in ("z.png", "b/a.png")}
            elif not name.endswith(".tar"):
                write_text(location / f"{name}.png", "")
                expected.add("/".join((*folders, f"{name}.png")))
    source = read_source(root)
    assert [item.id for item in items(source)] == sorted(expected)
    assert len(source) == len(expected)


def test_hidden_files_and_links_to_folders_are_skipped(tmp_path: Path) -> None:
    root = tmp_path / "root"
    for name in ("a.JPG", "sub/b.png", ".c.png", ".d/e.png", "f.txt", "sub.png/g.gif", "rows.parquet"):
        write_text(root / name, name)
    write_text(tmp_path / "outside/h.png", "outside")
    (root / "linked").symlink_to(tmp_path / "outside")
    (root / "linked.png").symlink_to(tmp_path / "outside/h.png")
    (root / "nowhere.png").symlink_to(tmp_path / "gone")
    entries = items(read_source(root))
    assert [item.id for item in entries] == ["a.JPG", "linked.png", "nowhere.png", "sub.png/g.gif", "sub/b.png"]
    assert entries[1].location.path == str(tmp_path / "outside/h.png")
    with pytest.raises(ImageError, match="no such image"):
        entries[2].location.open()


def test_tars_in_a_folder_are_folders(tmp_path: Path) -> None:
    write_text(tmp_path / "sub/b.png", "loose")
    write_tar(tmp_path / "sub/a.tar", [("x/y.jpg", b"packed"), ("x/y.txt", b"a caption")])
    write_text(tmp_path / "sub/broken.tar", "no tar")
    write_text(tmp_path / "a.parquet", "a sidecar of img2dataset")
    source = read_source(tmp_path)
    assert len(source) == 3
    entries = list(source)
    assert [entry.id for entry in entries] == ["sub/a.tar/x/y.jpg", "sub/b.png", "sub/broken.tar"]
    assert isinstance(entries[0], SourceItem)
    assert (content(entries[0]), entries[0].fields) == (b"packed", {"caption": "a caption"})
    assert problems(source)["sub/broken.tar"].startswith("not a readable tar archive")


def test_a_folder_that_cannot_be_listed_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_text(tmp_path / "a.png", "")
    write_text(tmp_path / "closed/b.png", "")
    listing = os.scandir

    def scandir(path: str) -> object:
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied")
        return listing(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert problems(read_source(tmp_path)) == {"closed": "this folder cannot be listed (Permission denied)"}


def test_an_empty_source_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(GalleryError, match=r"no images in this folder; looked for .*\.jpg"):
        read_source(tmp_path)
    write_tar(tmp_path / "a.tar", [("x.txt", b"")])
    with pytest.raises(GalleryError, match="no images in this folder"):
        read_source(tmp_path)
    with pytest.raises(GalleryError, match=r"a.tar: no images in this tar"):
        read_source(tmp_path / "a.tar")
    for url in ("https://example.org/a.jpg", Path("https://example.org/a.tar"), "s3://bucket/folder"):
        with pytest.raises(GalleryError, match="URLs are not fetched; download the images first"):
            read_source(url)
    with pytest.raises(GalleryError, match="no such file or folder"):
        read_source(tmp_path / "gone")


def test_an_unsupported_file_names_the_supported_formats(tmp_path: Path) -> None:
    write_text(tmp_path / "a.zip", "")
    with pytest.raises(GalleryError, match=r"a folder, an image \(.*\.jpg.*uncompressed \.tar.*\.parquet.*\.csv \.tsv \.jsonl"):
        read_source(tmp_path / "a.zip")
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(GalleryError, match="not a regular file"):
        read_source(tmp_path / "pipe.csv")


def test_columns_are_refused_for_sources_without_columns(photos: Path, tmp_path: Path) -> None:
    for path in (photos, next(photos.rglob("*.png")), write_tar(tmp_path / "a.tar", [("x.jpg", b"")])):
        with pytest.raises(OptionError, match="columns can be chosen only for tables and Parquet files"):
            read_source(path, Columns(id="key"))


# --- tars


def test_sidecars_apply_to_all_images_of_a_group(tmp_path: Path) -> None:
    record = {"caption": "from JSON", "size": {"w": 1}, "ok": True, "nothing": None}
    path = write_tar(
        tmp_path / "a.tar",
        [
            ("b/x.json", json.dumps(record).encode()),
            ("./b/x.left.jpg", b"left"),
            ("b/x.right.PNG", b"right"),
            ("b/x.txt", b"from text"),
            ("a/x.jpg", b"another folder"),
            ("a/x.cls", b"17\n"),
            ("a/x.txt", " é\n".encode()),
            ("b/x.cls", b"007"),
            (".hidden/y.jpg", b""),
            ("b/._x.jpg", b""),
            ("text.json", b"only"),
        ],
    )
    sidecar_fields = {"caption": "from JSON", "size": '{"w": 1}', "ok": 1, "nothing": None, "cls": "007"}
    assert fields(path) == {
        "a/x.jpg": {"caption": "é", "cls": 17},
        "b/x.left.jpg": sidecar_fields,
        "b/x.right.PNG": sidecar_fields,
    }
    assert list(contents(read_source(path)).values()) == [b"another folder", b"left", b"right"]


@pytest.mark.parametrize(
    ("name", "beside", "reason"),
    [
        ("x.json", b"{", "x.json: not JSON"),
        ("x.json", b"[1]", "x.json: expected a JSON object, got '[1]'"),
        ("x.json", b'{"a": 1, "A": 2}', "x.json: the columns 'a' and 'A' have the same name"),
        ("x.json", b'{"a": 1, "a": 2}', "x.json: duplicate key 'a'"),
        ("x.json", b'{"a": "\\ud800"}', "x.json: the field 'a' cannot be stored"),
        ("x.json", b"[" * 100_000, "x.json: JSON that cannot be read (nested too deeply)"),
        ("x.txt", b"\xff", "x.txt: not UTF-8 text, at byte 0"),
        ("x.json", b" " * (17 << 20), "x.json: 17,825,792 bytes exceed the limit"),
    ],
)
def test_an_image_with_an_unreadable_sidecar_is_reported(name: str, beside: bytes, reason: str, tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", [("x.jpg", b"x"), (name, beside), ("y.jpg", b"y")])
    entries = list(read_source(path))
    assert [entry.id for entry in entries] == ["x.jpg", "y.jpg"]
    assert isinstance(entries[0], UnreadableItem)
    assert entries[0].reason.startswith(reason)
    assert isinstance(entries[1], SourceItem)


def test_links_and_repeated_names_are_followed_or_reported(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", [("a/x.jpg", b"old"), ("a/x.jpg", b"new")], format=tarfile.PAX_FORMAT)
    with tarfile.open(path, "a") as archive:
        for name, kind, target in [
            ("hard.jpg", tarfile.LNKTYPE, "./a/x.jpg"),
            ("b/soft.jpg", tarfile.SYMTYPE, "../a/x.jpg"),
            ("lost.jpg", tarfile.SYMTYPE, "/etc/passwd"),
            ("pipe.jpg", tarfile.FIFOTYPE, ""),
            ("folder.jpg", tarfile.DIRTYPE, ""),
        ]:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            archive.addfile(info)
    source = read_source(path)
    entries = {entry.id: content(entry) for entry in source if isinstance(entry, SourceItem)}
    assert entries == {"a/x.jpg": b"new", "hard.jpg": b"new", "b/soft.jpg": b"new"}
    assert problems(source) == {
        "a/x.jpg": "a later member has the same name and replaces it",
        "lost.jpg": "a link to /etc/passwd, which is not a file in this tar",
        "pipe.jpg": "not a regular file",
    }
    assert len(source) == 6


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_dialect_of_tar_is_read(form: int, tmp_path: Path) -> None:
    long = "/".join(["a" * 60] * 3) + "/x.jpg"
    path = write_tar(tmp_path / "a.tar", [(long, b"long"), ("b.jpg", b"short")], format=form)
    assert contents(read_source(path)) == {long: b"long", "b.jpg": b"short"}


@given(st.integers(0, 7 * BLOCK), st.booleans())
@settings(max_examples=60, deadline=None)
def test_a_damaged_tar_gives_the_members_before_the_damage(
    tmp_path_factory: pytest.TempPathFactory, at: int, cut: bool
) -> None:
    folder = tmp_path_factory.getbasetemp()
    write_text(folder / "a.jpg", "")
    path = write_tar(folder / "a.tar", [(f"{name}.jpg", name.encode() * 300) for name in "abc"])
    whole = path.read_bytes()[: 7 * BLOCK]  # three headers, three contents, half of the end mark
    path.write_bytes(whole[:at] if cut else whole[:at] + b"\xff" * BLOCK + whole[at + BLOCK :])
    entries = list(read_one(path))
    good = [entry for entry in entries if isinstance(entry, SourceItem)]
    if cut and at == 7 * BLOCK:
        assert [item.id for item in good] == ["a.jpg", "b.jpg", "c.jpg"]
        assert len(entries) == 3
    elif cut:
        complete = sum(1 for end in (2 * BLOCK - 212, 4 * BLOCK - 212, 6 * BLOCK - 212) if at >= end)
        assert [item.id for item in good] == ["a.jpg", "b.jpg", "c.jpg"][:complete]
        assert isinstance(entries[-1], UnreadableItem)
        assert entries[-1].id == "a.tar"
        assert not complete or entries[-1].reason.startswith(f"damaged after {complete} members (")
    assert len(entries) - len(good) <= 1


def read_one(path: Path) -> list[SourceItem | UnreadableItem]:
    """What a tar gives, its own error being an entry."""
    try:
        source = read_source(path)
    except GalleryError as error:
        return [UnreadableItem(path.name, str(error))]
    entries = list(source)
    assert len(source) == len(entries)
    return entries


def test_a_damaged_header_is_not_an_end_marker(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", [(f"{name}.jpg", b"x") for name in "abc"])
    with path.open("r+b") as file:
        file.seek(4 * BLOCK)
        file.write(b"garbage")
    source = read_source(path)
    assert [entry.id for entry in source] == ["a.jpg", "b.jpg", "a.tar"]
    assert problems(source) == {"a.tar": f"damaged after 2 members (no header at byte {4 * BLOCK})"}


def test_a_header_that_points_backwards_ends_the_tar(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", [("a.jpg", b"x")])
    back = tarfile.TarInfo("b.jpg")
    back.size = -2 * BLOCK
    with path.open("r+b") as file:
        file.seek(2 * BLOCK)
        file.write(back.tobuf(tarfile.GNU_FORMAT))
    source = read_source(path)
    assert [entry.id for entry in source] == ["a.jpg", "a.tar"]
    assert problems(source) == {"a.tar": "damaged after 1 members (two members overlap)"}


@pytest.mark.parametrize(("mode", "suffix"), [("w:gz", "gz"), ("w:bz2", "bz2"), ("w:xz", "xz")])
def test_a_compressed_tar_is_refused_by_name_and_by_content(mode: str, suffix: str, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / f"a.tar.{suffix}", mode) as archive:  # type: ignore[call-overload]
        archive.addfile(tarfile.TarInfo("x.jpg"))
    (tmp_path / "b.tar").write_bytes((tmp_path / f"a.tar.{suffix}").read_bytes())
    for name in (f"a.tar.{suffix}", "b.tar"):
        with pytest.raises(
            GalleryError, match=f"{name}: .*compressed.* cannot be read in place; unpack or repack it as a plain .tar$"
        ):
            read_source(tmp_path / name)
    write_text(tmp_path / "x.jpg", "")
    assert list(problems(read_source(tmp_path))) == ["b.tar"]


# --- parquet


def test_other_columns_become_fields(tmp_path: Path) -> None:
    path = write_rows(
        tmp_path / "a.parquet",
        {
            "image": images([(b"x", "x.jpg"), (b"y", "y.jpg")]),
            "mask": images([(b"m", None), None]),
            "text": ["é", None],
            "number": pa.array([1.5, math.nan]),
            "whole": pa.array([2**63, 7], pa.uint64()),
            "flag": [True, False],
            "day": [date(2024, 2, 29), None],
            "time": pa.array([1_700_000_000_123_456_789, None], pa.timestamp("ns")),
            "zone": pa.array([datetime(2024, 1, 2, 3), None], pa.timestamp("s", "UTC")),
            "spent": pa.array([timedelta(hours=1), None]),
            "price": pa.array([Decimal("9.50"), Decimal("0.10")]),
            "tags": [["a", "b"], []],
            "box": [{"x": 1, "y": None}, None],
            "blobs": pa.array([[b"x"], None], pa.list_(pa.binary())),
            "class": pa.array(["cat", "dog"]).dictionary_encode(),
        },
    )
    assert fields(path) == {
        "x.jpg": {
            "text": "é",
            "number": 1.5,
            "whole": "9223372036854775808",
            "flag": 1,
            "day": "2024-02-29",
            "time": "2023-11-14T22:13:20.123456",
            "zone": "2024-01-02T03:00:00+00:00",
            "spent": "1:00:00",
            "price": 9.5,
            "tags": '["a", "b"]',
            "box": '{"x": 1, "y": null}',
            "class": "cat",
        },
        "y.jpg": {
            "text": None,
            "number": None,
            "whole": 7,
            "flag": 0,
            "day": None,
            "time": None,
            "zone": None,
            "spent": None,
            "price": 0.1,
            "tags": "[]",
            "box": None,
            "class": "dog",
        },
    }


@pytest.mark.parametrize(
    ("columns", "named", "ids"),
    [
        ({"id": ["p", "q"]}, Columns(), ["p", "q"]),
        ({"key": [3, 4]}, Columns(), ["3", "4"]),
        ({"id": ["p", "q"], "key": ["r", "s"]}, Columns(id="KEY"), ["r", "s"]),
        ({}, Columns(), ["x.jpg", "y.jpg"]),
        ({"image": images([(b"x", "x.jpg"), (b"y", "x.jpg")])}, Columns(), ["00000000", "00000001"]),
        ({"image": images([(b"x", None), (b"y", "y.jpg")])}, Columns(), ["00000000", "00000001"]),
        ({"image": [b"x", b"y"]}, Columns(), ["00000000", "00000001"]),
        ({"image": pa.array([{"bytes": b"x"}, {"bytes": b"y"}])}, Columns(), ["00000000", "00000001"]),
        ({"image": ["no", "no"], "shot": [b"x", b"y"]}, Columns(image="shot"), ["00000000", "00000001"]),
    ],
)
def test_ids_come_from_a_column_the_path_or_the_row(
    columns: dict[str, object], named: Columns, ids: list[str], tmp_path: Path
) -> None:
    whole = {"image": images([(b"x", "x.jpg"), (b"y", "y.jpg")]), **columns}
    path = write_rows(tmp_path / "a.parquet", whole)
    assert contents(read_source(path, named)) == dict(zip(ids, (b"x", b"y"), strict=True))


def test_missing_images_are_reported_and_paths_are_followed(tmp_path: Path) -> None:
    write_text(tmp_path / "sub/z.jpg", "z")
    rows = images([(b"x", "x.jpg"), None, (None, "sub/z.jpg"), (None, None)])
    path = write_rows(tmp_path / "a.parquet", {"id": ["a", "b", "c", "d"], "image": rows}, row_group_size=2)
    source = read_source(path)
    assert len(source) == 4
    assert [entry.id for entry in source] == ["a", "b", "c", "d"]
    assert {entry.id: content(entry) for entry in source if isinstance(entry, SourceItem)} == {"a": b"x", "c": b"z"}
    assert problems(source) == {id_: f"{path}, row {row}: there is no image in this row" for id_, row in (("b", 1), ("d", 3))}


def test_iteration_reads_no_image_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_rows(tmp_path / "a.parquet", {"image": images([(b"x", "x.jpg")] * 3), "label": [1, 2, 3]})
    columns_read: list[str] = []
    real = parquet_files.open_file

    class Watched:
        def __init__(self, file: pq.ParquetFile) -> None:
            self._file = file

        def __enter__(self) -> Watched:
            return self

        def __exit__(self, *_: object) -> None:
            self._file.close()

        def __getattr__(self, name: str) -> object:
            return getattr(self._file, name)

        def iter_batches(self, *values: object, columns: list[str], **options: object) -> object:
            columns_read.extend(columns)
            return self._file.iter_batches(*values, columns=columns, **options)

    monkeypatch.setattr(parquet_files, "open_file", lambda path, **options: Watched(real(path, **options)))
    monkeypatch.setattr(parquet_rows, "iterate_isolated", lambda function, *arguments: function(*arguments))
    assert len(items(read_source(path))) == 3
    assert set(columns_read) == {"image.path", "label"}


@pytest.mark.parametrize(
    ("columns", "named", "message"),
    [
        ({"path": ["x"]}, Columns(image="file"), "there is no column 'file'; the columns are: path$"),
        ({"path": ["x"]}, Columns(id="key"), "there is no column 'key'; the columns are: path$"),
        ({"label": [1], "text": ["x"]}, Columns(), "no column of images among label, text"),
        ({"label": [1]}, Columns(image="label"), "images must be bytes or paths; 'label' contains whole numbers"),
        ({"path": ["x"], "id": [1.5]}, Columns(), "ids must be text or whole numbers; 'id' contains other values"),
        ({"path": ["x"], "Title": [1], "title ": [2]}, Columns(), "the columns 'Title' and 'title' have the same name"),
    ],
)
def test_unsuitable_columns_are_named(columns: dict[str, object], named: Columns, message: str, tmp_path: Path) -> None:
    with pytest.raises(GalleryError, match=message) as caught:
        read_source(write_rows(tmp_path / "a.parquet", columns), named)
    assert str(caught.value).startswith(str(tmp_path / "a.parquet"))


def test_a_folder_of_parquet_files_is_one_source(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for name in ("test", "train"):
        write_rows(tmp_path / f"data/{name}.parquet", {"image": images([(name.encode(), "1.jpg")])})
    write_text(tmp_path / "data/broken.parquet", "no parquet")
    source = read_source(tmp_path)
    assert (len(source), source.name) == (3, str(tmp_path))
    assert [entry.id for entry in source] == ["data/broken.parquet", "data/test.parquet/1.jpg", "data/train.parquet/1.jpg"]
    assert "cannot be read as Parquet" in problems(source)["data/broken.parquet"]
    for name in ("test", "train"):
        write_rows(tmp_path / f"data/{name}.parquet", {"id": [name], "jpg": [name.encode()]})
    assert [entry.id for entry in read_source(tmp_path)] == ["data/broken.parquet", "test", "train"]
    write_rows(tmp_path / "data/train.parquet", {"id": ["test", "other"], "jpg": [b"x", b"y"]})
    assert problems(read_source(tmp_path))["data/train.parquet, row 0"] == (
        f"duplicate id 'test', first used in {tmp_path}/data/test.parquet, row 0; choose another id column"
    )
    write_rows(tmp_path / "data/train.parquet", {"label": ["other"]})
    assert "no column of images" in problems(read_source(tmp_path))["data/train.parquet"]


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"id": ["a", "a", "b"]}, "duplicate id 'a', first used in row 0; choose another id column"),
        ({"id": ["a", None, "b"]}, "the id is empty"),
        ({"id": ["a", " ", "b"]}, "the id is empty"),
    ],
)
def test_a_row_with_a_wrong_id_is_passed_over(columns: dict[str, object], reason: str, tmp_path: Path) -> None:
    entries = list(read_source(write_rows(tmp_path / "a.parquet", {"path": ["x", "y", "z"], **columns})))
    assert [entry.id for entry in entries] == ["a", "a.parquet, row 1", "b"]
    assert isinstance(entries[1], UnreadableItem)
    assert entries[1].reason == reason


def test_a_damaged_parquet_file_is_an_error_of_one_line(tmp_path: Path) -> None:
    path = write_text(tmp_path / "a.parquet", "PAR1 nothing PAR1")
    for source in (path, tmp_path):
        with pytest.raises(GalleryError, match=r"a.parquet: cannot be read as Parquet") as caught:
            read_source(source)
        assert "\n" not in str(caught.value)


def test_a_damaged_parquet_file_reports_the_row(tmp_path: Path) -> None:
    names = [os.urandom(20).hex() for _ in range(3000)]
    options = {"row_group_size": 1500, "use_dictionary": False, "write_statistics": False, "compression": "none"}
    path = write_rows(tmp_path / "a.parquet", {"jpg": [b"x"] * 3000, "name": names}, **options)
    start = pq.read_metadata(path).row_group(1).column(1).data_page_offset
    with path.open("r+b") as file:
        file.seek(start)
        file.write(b"\xff" * 64)
    entries = list(read_source(path))
    assert [entry.id for entry in entries[:2]] == ["00000000", "00000001"]
    assert isinstance(entries[-1], UnreadableItem)
    assert entries[-1].id == "a.parquet"
    assert entries[-1].reason.startswith(f"damaged after {len(entries) - 1} rows (")
    assert len(entries) > 1000


# --- tables of paths


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_table_of_urls_is_not_fetched(kind: str, tmp_path: Path) -> None:
    url, path = "https://example.org/x.jpg", tmp_path / f"a.{kind}"
    if kind == "csv":
        write_text(path, f"path\n{url}\n")
    else:
        pq.write_table(pa.table({"path": [url]}), path)
    (item,) = items(read_source(path))
    with pytest.raises(ImageError, match="URLs are not fetched; download the image"):
        item.location.open()


def test_a_csv_row_is_an_image_with_fields(tmp_path: Path) -> None:
    text = '\ufeffid, title ,file,n,zip,big\r\n1,"a, ""b""\r\nc",x.jpg,1,007,1e5000\r\n\r\n2,,sub/../y.jpg,2.50,1,2\r\n'
    path = write_text(tmp_path / "a.csv", text)
    assert fields(path) == {
        "1": {"title": 'a, "b"\r\nc', "n": 1, "zip": "007", "big": "1e5000"},
        "2": {"title": None, "n": 2.5, "zip": "1", "big": "2"},
    }
    assert [item.location for item in items(read_source(path))] == [
        Location(str(tmp_path / "x.jpg")),
        Location(str(tmp_path / "sub/../y.jpg")),
    ]


def test_a_tsv_is_split_at_tabs(tmp_path: Path) -> None:
    path = write_text(tmp_path / "a.TSV", "path\ttitle\nx.jpg\ta, b\n")
    assert fields(path) == {"x.jpg": {"title": "a, b"}}


@pytest.mark.parametrize("name", ["image_path", "path", "file", "file_name", "filepath", "filename", "image", "Image_Path"])
def test_usual_column_names_are_recognized(name: str, tmp_path: Path) -> None:
    assert list(fields(write_text(tmp_path / "a.csv", f"label,{name}\n1,./x.jpg\n"))) == ["./x.jpg"]
    assert list(fields(write_text(tmp_path / "a.jsonl", json.dumps({"label": 1, name: "./x.jpg"})))) == ["./x.jpg"]


def test_columns_can_be_named(tmp_path: Path) -> None:
    path = write_text(tmp_path / "a.csv", "id,path,shot,sku\n1,no,x.jpg,s1\n")
    assert fields(path, Columns(image="shot", id="sku")) == {"s1": {"id": 1, "path": "no"}}
    path = write_text(tmp_path / "a.ndjson", '{"id": 1, "path": "no", "shot": "x.jpg", "sku": 7}')
    assert fields(path, Columns(image="shot", id="sku")) == {"7": {"id": 1, "path": "no"}}


def test_jsonl_values_become_fields(tmp_path: Path) -> None:
    lines = [
        '{"path": "x.jpg", "n": 1, "f": 1.5, "ok": true, "no": null, "tags": ["é", NaN], "big": 123456789012345678901}',
        "",
        '{"path": "y.jpg", "f": NaN, "i": -Infinity, "e": 1e999, "extra ": {"a": false}, "n": "007"}\r',
    ]
    assert fields(write_text(tmp_path / "a.jsonl", "\ufeff" + "\n".join(lines) + "\n")) == {
        "x.jpg": {"n": 1, "f": 1.5, "ok": 1, "no": None, "tags": '["é", null]', "big": "123456789012345678901"},
        "y.jpg": {"f": None, "i": None, "e": None, "extra": '{"a": false}', "n": "007"},
    }


def test_a_record_without_an_image_is_reported(tmp_path: Path) -> None:
    table = write_text(tmp_path / "a.csv", "id,path\na,x.jpg\nb,\n")
    objects = write_text(tmp_path / "a.jsonl", '{"id": "a", "path": "x.jpg"}\n\n{"id": "b", "path": null}')
    for path, line in ((table, 3), (objects, 3)):
        source = read_source(path)
        assert len(source) == 2
        assert problems(source) == {"b": f"{path}, line {line}: the column 'path' is empty"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "a.csv: the file is empty; expected a header line"),
        ("path\n", "a.csv: the table has no records"),
        (
            "label,title\n1,2\n",
            "no column of image paths among label, title; name the column, or rename it to one of image_path, path",
        ),
        ("path,Title,title\nx,1,2\n", "a.csv, line 1: the columns 'Title' and 'title' have the same name"),
        ('path,a\nx,"1\n', "a.csv, line 2: unexpected end of data"),
        ('path,"a\nx,1\n', "a.csv, line 1: unexpected end of data"),
        ("path,\0\nx,1\n", "a.csv, line 1: contains a null byte"),
        ("id,path\n1\n", "a.csv, line 2: 1 values for 2 columns"),
    ],
)
def test_a_csv_that_cannot_be_read_names_the_line(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(GalleryError, match=message):
        read_source(write_text(tmp_path / "a.csv", text))


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "a.jsonl: the file is empty; expected one JSON object per line"),
        (['{"path": "x", "path": "y"}'], "line 1: duplicate key 'path'"),
        (['{"path": "x", "a": 1, "A": 2}'], "line 1: the columns 'a' and 'A' have the same name"),
        (['{"path": "x", "": 1}'], "line 1: column 2 has no name"),
        (['{"path": "x", "id": ""}'], "line 1: the id is empty"),
        (['{"path": "x", "id": null}'], "line 1: the id is empty"),
        (['{"path": "x", "id": 1.5}'], "line 1: 'id' must be valid text, got 1.5"),
        (['{"path": "x", "id": true}'], "line 1: 'id' must be valid text, got True"),
        (['{"path": 5, "id": 1}'], "line 1: 'path' must be valid text, got 5"),
        (['{"path": "x", "a": "\\ud800"}'], "line 1: the field 'a' cannot be stored: .* is not valid text"),
        (['{"path": "x", "a": ' + "1" * 5000 + "}"], "line 1: JSON that cannot be read"),
        (['{"path": "x", "a": ' + "[" * 100_000], "line 1: JSON that cannot be read .nested too deeply"),
    ],
)
def test_a_jsonl_that_cannot_be_read_names_the_line(lines: Sequence[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(GalleryError, match=message) as caught:
        read_source(write_text(tmp_path / "a.jsonl", "\n".join(lines)))
    assert str(caught.value).startswith(str(tmp_path / "a.jsonl"))


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_tables_are_utf8_and_their_columns_exist(name: str, tmp_path: Path) -> None:
    text = "path\nx\n" if name == "a.csv" else '{"path": "x"}\n'
    path = write_text(tmp_path / name, text)
    with pytest.raises(GalleryError, match=f"{name}: there is no column 'sku'; the columns are: path$"):
        read_source(path, Columns(id="sku"))
    path.write_bytes(text.encode() + b"\xff\n")
    line = len(path.read_bytes().splitlines())
    assert problems(read_source(path)) == {f"{name}, line {line}": "not UTF-8 text; save the table as UTF-8"}


def test_a_missing_image_is_an_error_on_reading(tmp_path: Path) -> None:
    (item,) = items(read_source(write_text(tmp_path / "a.csv", "path\nsub/gone.jpg\n")))
    with pytest.raises(ImageError, match=r"sub/gone.jpg: no such image"):
        item.location.open()


CELL = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
NUMBER = st.one_of(st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False, allow_infinity=False)).map(str)


@given(st.lists(st.tuples(CELL, st.one_of(NUMBER, st.just("")), st.one_of(NUMBER, CELL)), min_size=1, max_size=8))
@settings(max_examples=60, deadline=None)
def test_csv_round_trip(tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str, str]]) -> None:
    path = tmp_path_factory.getbasetemp() / "any.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("path", "text", "number", "mixed"), *((f"{i}.jpg", *row) for i, row in enumerate(rows))])
    entries = list(fields(path).values())
    for name, written in zip(("text", "number", "mixed"), zip(*rows, strict=True), strict=True):
        read = [record[name] for record in entries]
        if all(number_of(text) is not None for text in written if text):
            assert read == [number_of(text) for text in written]
        else:
            assert read == [text or None for text in written]


# --- values


@pytest.mark.parametrize(
    ("text", "number"),
    [("7", 7), ("-7", -7), ("0", 0), ("9.50", 9.5), ("-0.0", -0.0), ("1e3", 1000.0), ("0.1", 0.1), (str(2**63 - 1), 2**63 - 1)],
)
def test_numbers_are_read(text: str, number: float) -> None:
    assert number_of(text) == number
    assert type(number_of(text)) is type(number)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "007",
        "+7",
        "-0",
        " 7",
        "7 ",
        "1e5000",
        "1e-5000",
        "0.12345678901234567890",
        str(2**63),
        "nan",
        "inf",
        "1_000",
        "٣",
        "0x10",
        ".5",
        "5.",
        "1,5",
        "1" * 5000,
    ],
)
def test_inexact_numbers_stay_text(text: str) -> None:
    assert number_of(text) is None


@given(st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**63), 2**63 - 1))
def test_number_round_trip(number: float) -> None:
    read = number_of(repr(number))
    assert (read, type(read)) == (number, type(number))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | CELL,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(CELL, inner, max_size=3),
    max_leaves=8,
)


@given(JSON)
def test_any_value_becomes_a_storable_value(raw: object) -> None:
    value = value_of(raw)
    assert value is None or type(value) in (str, int, float)
    assert not isinstance(value, int) or -(2**63) <= value < 2**63
    assert not isinstance(value, float) or math.isfinite(value)
    if isinstance(raw, list | dict):
        json.loads(str(value), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def test_field_names_follow_the_rules_of_column_names() -> None:
    assert fields_of({" a b ": 1, "Ä": 2, "ä": 3}, "x") == {"a b": 1, "Ä": 2, "ä": 3}
    for names, message in (({"a": 1, " A": 2}, "x: the columns 'a' and 'A'"), ({" ": 1}, "x: column 1 has no name")):
        with pytest.raises(GalleryError, match=message):
            fields_of(names, "x")


# --- research data


@pytest.mark.shared_data
def test_the_catalogue_is_a_source(catalogue: Path) -> None:
    source = read_source(catalogue / "items.csv")
    entries = items(source)
    assert len(source) == len(entries) == 3125
    assert entries[0].id == "21179"
    assert entries[0].location == Location(str((catalogue / "images/21179.jpg").resolve()))
    assert dict(entries[0].fields) == {
        "title": "ADIDAS Men Adi Stars Tread Black Flip Flops",
        "article": "flip flops",
        "colour": "black",
        "gender": "men",
        "usage": "casual",
    }
    with entries[-1].location.open() as file:
        assert min(open_image(file).size) > 0
