"""What folders and archives contain besides images is counted by kind; plugins add formats; `key=value` folders are fields."""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from mmretrieve import images
from mmretrieve.errors import GalleryError, OptionError
from mmretrieve.images import open_image
from mmretrieve.sources import read_source
from mmretrieve.sources.base import ReportingSource, SourceItem
from mmretrieve.sources.ignored import FileFilter, IgnoredKind, describe_ignored


def fill(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    return root


def tar(path: Path, *names: str) -> Path:
    with tarfile.open(path, "w") as archive:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = 1
            archive.addfile(info, io.BytesIO(b"x"))
    return path


def read(path: Path, *exclude: str) -> tuple[list[str], dict[str, int]]:
    source = read_source(path, exclude=exclude)
    assert isinstance(source, ReportingSource)
    before = dict(source.report().ignored)
    ids = [entry.id for entry in source]
    assert len(source) == len(ids)
    if path.is_dir():
        assert dict(source.report().ignored) == before
    return ids, dict(source.report().ignored)


KINDS = {
    IgnoredKind.RAW: ("a.CR2", "a.nef", "a.dng"),
    IgnoredKind.LAYERED: ("a.psd", "a.PSB", "a.xcf"),
    IgnoredKind.OTHER_IMAGES: ("a.svg", "a.pdf"),
    IgnoredKind.VIDEO: ("a.mov", "a.MP4"),
    IgnoredKind.ARCHIVE: ("a.zip", "a.tar.gz", "a.7z"),
    IgnoredKind.TABLE: ("a.csv", "a.parquet"),
    IgnoredKind.OTHER: ("a", "a.txt", "a.png.bak"),
    IgnoredKind.SYSTEM: (
        ".hidden.png",
        "._x.png",
        ".DS_Store",
        ".git/a.png",
        ".svn/a.png",
        "CVS/a.png",
        "@eaDir/x/thumb.jpg",
        ".@__thumb/a.jpg",
        "#recycle/a.jpg",
        "#snapshot/a.jpg",
        "__MACOSX/a.png",
        "Thumbs.db",
        "desktop.ini",
        "$RECYCLE.BIN/a.png",
        "System Volume Information/a.png",
        "lost+found/a.png",
        "a.png~",
        "~$a.png",
        "#a.png#",
        "Catalog Previews.lrdata/a.jpg",
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_counted(kind: IgnoredKind, tmp_path: Path) -> None:
    root = fill(tmp_path, "x.png", *KINDS[kind], *(f"sub/{name}" for name in KINDS[kind]))
    assert read(root) == (["x.png"], {kind: 2 * len(KINDS[kind])})


def test_an_archive_is_counted_as_a_folder_is(tmp_path: Path) -> None:
    names = (
        "x/a.png",
        "x/a.txt",
        "x/a.json",
        "x/film.mp4",
        "x/a.psd",
        "__MACOSX/x/._a.png",
        "x/.hidden.png",
        "README",
        "x/b.png",
    )
    expected = {"videos": 1, "PSD and other layered images": 1, "hidden or system files": 2, "other files": 1}
    path = tar(tmp_path / "a.tar", *names)
    assert read(path) == (["x/a.png", "x/b.png"], expected)
    assert read(tmp_path) == (["a.tar/x/a.png", "a.tar/x/b.png"], expected)
    assert read(path, "b.*")[0] == ["x/a.png"]
    assert read(tmp_path, "a.tar/x/a.png", "*.psd") == (
        ["a.tar/x/b.png"],
        {"excluded": 2, "videos": 1, "hidden or system files": 2, "other files": 1},
    )


def test_patterns_leave_out_files_and_folders(tmp_path: Path) -> None:
    root = fill(tmp_path, "a.png", "a_small.png", "drafts/b.png", "x/drafts/c.png", "x/d.png", "[e].png")
    for exclude, ids in (
        (["*_small.png"], ["[e].png", "a.png", "drafts/b.png", "x/d.png", "x/drafts/c.png"]),
        (["drafts"], ["[e].png", "a.png", "a_small.png", "x/d.png"]),
        (["drafts/"], ["[e].png", "a.png", "a_small.png", "x/d.png"]),
        (["x/drafts", "[[]*"], ["a.png", "a_small.png", "drafts/b.png", "x/d.png"]),
        (["x/*"], ["[e].png", "a.png", "a_small.png", "drafts/b.png"]),
        (["?.png", "DRAFTS"], ["[e].png", "a_small.png"]),
    ):
        found, ignored = read(root, *exclude)
        assert found == ids, exclude
        assert set(ignored) == {"excluded"}


@pytest.mark.parametrize("exclude", ["*.png", [1], [""], ["/"], None, 5])
def test_wrong_patterns_are_refused(exclude: object, tmp_path: Path) -> None:
    fill(tmp_path, "x.png")
    with pytest.raises(OptionError, match="exclude must be a list of patterns such as"):
        read_source(tmp_path, exclude=exclude)  # type: ignore[arg-type]


def test_patterns_are_refused_for_sources_without_folders(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("path\nx.png\n")
    fill(tmp_path, "x.png")
    for name in ("a.csv", "x.png"):
        with pytest.raises(OptionError, match="exclude can be given only for folders and tar archives"):
            read_source(tmp_path / name, exclude=["x"])


def test_a_linked_folder_is_counted(tmp_path: Path) -> None:
    root = fill(tmp_path / "root", "x.png")
    (root / "link").symlink_to(fill(tmp_path / "other", "y.png"))
    (root / "loop").symlink_to(root)
    assert read(root) == (["x.png"], {"linked folders": 2})


def test_a_folder_without_images_says_what_it_contains(tmp_path: Path) -> None:
    fill(tmp_path, "a.mov", "b.cr2", "c.CR2", ".DS_Store")
    with pytest.raises(
        GalleryError, match=r"; it contains camera RAW images \(2\), videos \(1\), hidden or system files \(1\)$"
    ):
        read_source(tmp_path)
    with pytest.raises(GalleryError, match=r"; it contains videos \(1\), other files \(1\)$"):
        read_source(tar(tmp_path / "a.tar", "a.mov", "b"))


# --- plugins


def save(path: Path, kind: str) -> Path:
    images._formats()  # registers the plugins
    Image.new("RGB", (40, 30), (200, 20, 10)).save(path, kind)
    return path


@pytest.mark.parametrize(("name", "kind", "plugin"), [("a.HEIC", "HEIF", "pillow_heif"), ("a.jxl", "JXL", "pillow_jxl")])
def test_a_plugin_reads_its_format(name: str, kind: str, plugin: str, tmp_path: Path) -> None:
    pytest.importorskip(plugin, reason="needs mmretrieve[formats]")
    path = save(tmp_path / name, kind)
    assert read(tmp_path) == ([name], {})
    pixel = open_image(path).getpixel((5, 5))
    assert max(abs(a - b) for a, b in zip(pixel, (200, 20, 10), strict=True)) < 8  # type: ignore[arg-type]
    assert open_image(path.read_bytes()).size == (40, 30)
    (tmp_path / name).write_bytes(path.read_bytes()[:60])
    with pytest.raises(images.ImageError, match=name):
        open_image(path)


def test_without_plugins_the_extra_is_named(tmp_path: Path) -> None:
    fill(tmp_path, "a.heic", "b.HEIF", "c.jxl")
    program = (
        "import sys\n"
        "for name in ('pillow_heif', 'pillow_jxl'): sys.modules[name] = None\n"
        "import mmretrieve as mm\n"
        f"try: mm.read_source({str(tmp_path)!r})\n"
        "except mm.MMRetrieveError as error: print(error)"
    )
    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60).stdout
    assert printed.rstrip().endswith(
        "it contains HEIC or HEIF images (2), JPEG XL images (1); pip install 'mmretrieve[formats]' to read HEIC or HEIF images and JPEG XL images"
    )


def test_a_plugin_that_cannot_be_imported_stops_no_other_format(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(images, "INSTALLED_PLUGINS", ("pillow_jxl",))
    monkeypatch.setitem(sys.modules, "pillow_jxl", None)
    images._formats.cache_clear()
    monkeypatch.setattr("mmretrieve.images.logger.parent.propagate", True)
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    try:
        assert open_image(tmp_path / "a.png").size == (4, 4)
        assert "pillow_jxl is installed, but cannot be used" in caplog.text
    finally:
        monkeypatch.undo()
        images._formats.cache_clear()


def test_the_report_of_a_source_is_one_line() -> None:
    assert describe_ignored({}) == ""
    assert describe_ignored({"other files": 1200, "videos": 2}) == "videos (2), other files (1,200)"
    assert FileFilter({".png"}).ignores_file("a.heic") is IgnoredKind.HEIF


# --- folders named key=value


def test_folders_named_key_value_are_fields_of_images(tmp_path: Path) -> None:
    root = fill(tmp_path, "year=2020/colour=red%20dress/a.png", "year=2021/colour=7/b.png", "year=__HIVE_DEFAULT_PARTITION__/c.png", "=x/d.png")  # fmt: skip
    tar(root / "year=2021" / "a.tar", "x=y/e.png")
    fields = {entry.id: dict(entry.fields) for entry in read_source(root) if isinstance(entry, SourceItem)}
    assert fields == {
        "year=2020/colour=red%20dress/a.png": {"year": 2020, "colour": "red dress"},
        "year=2021/colour=7/b.png": {"year": 2021, "colour": "7"},
        "year=__HIVE_DEFAULT_PARTITION__/c.png": {"year": None},
        "=x/d.png": {},
        "year=2021/a.tar/x=y/e.png": {"year": 2021},
    }
