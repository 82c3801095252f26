"""Parquet files with columns of any type: a value is read as text or number, or its column is named as left out."""

from __future__ import annotations

import uuid
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet as pq

import mmretrieve as mm
from mmretrieve.errors import GalleryError
from mmretrieve.sources import Columns, read_source
from mmretrieve.sources.base import ReportingSource, SourceItem, UnreadableItem
from mmretrieve.sources.values import value_of

UUID_BYTES = uuid.UUID("12345678-1234-5678-1234-567812345678").bytes


def read(path: Path, columns: dict[str, object], named: Columns = Columns()) -> tuple[dict[str, object], tuple[str, ...]]:  # noqa: B008
    """The fields of the first row of a table of two images, and the notes."""
    pq.write_table(pa.table({"path": ["x.jpg", "y.jpg"], **columns}), path)
    source = read_source(path, named)
    assert isinstance(source, ReportingSource)
    first, second = source
    assert isinstance(first, SourceItem), first
    assert isinstance(second, SourceItem), second
    return dict(first.fields), source.report().notes


def extension(arrow_type: pa.DataType, values: list[object], storage: pa.DataType) -> pa.Array:
    return pa.ExtensionArray.from_storage(arrow_type, pa.array(values, storage))


def nested(depth: int) -> pa.Array:
    value: object = 1
    arrow_type = pa.int64()
    for _ in range(depth):
        value, arrow_type = [value], pa.list_(arrow_type)
    return pa.array([value, None], arrow_type)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        (pa.array([UUID_BYTES, None], pa.uuid()), "12345678-1234-5678-1234-567812345678"),
        (pa.array([Decimal(2**100), None], pa.decimal128(38, 0)), str(2**100)),
        (pa.array([Decimal("0.5"), None], pa.decimal256(70, 2)), 0.5),
        (pa.array([Decimal(2**200), None], pa.decimal256(70, 0)), str(2**200)),
        (pa.array([2**64 - 1, None], pa.uint64()), str(2**64 - 1)),
        (pa.array([1_500_000, None], pa.duration("us")), "0:00:01.500000"),
        (pa.array([1_000_000_001, None], pa.time64("ns")), "00:00:01"),
        (pa.array([2**30, None], pa.timestamp("ms", "Europe/Zurich")), "1970-01-13T11:15:41.824000+01:00"),
        (pa.array([2**30, None], pa.timestamp("ms", "Foo/Bar")), "1970-01-13 10:15:41.824"),
        (pa.array([2**60, None], pa.timestamp("us")), "<value out of range: 1152921504606846976>"),
        (pa.array([2**30, None], pa.int32()).cast(pa.date32()), "<value out of range: 1073741824>"),
        (pa.nulls(2), None),
        (pa.array([1.5, None], pa.float16()), 1.5),
        (pa.array([[("a", 1)], None], pa.map_(pa.string(), pa.int32())), '[["a", 1]]'),
        (pa.array([{"a": {"b": [1, None]}}, None]), '{"a": {"b": [1, null]}}'),
        (
            pa.StructArray.from_arrays([pa.array([UUID_BYTES, None], pa.uuid()), pa.array([Decimal("1.5"), None])], ["a", "b"]),
            '{"a": "12345678-1234-5678-1234-567812345678", "b": 1.5}',
        ),
        (pa.array(["a", "b"]).dictionary_encode(), "a"),
        (pa.array(["a", "b"], pa.string_view()), "a"),
        (extension(pa.fixed_shape_tensor(pa.int32(), [2]), [[1, 2], [3, 4]], pa.list_(pa.int32(), 2)), "[1, 2]"),
        (extension(pa.json_(), ['{"a":1}', None], pa.string()), '{"a":1}'),
        (extension(pa.bool8(), [1, None], pa.int8()), 1),
        (extension(pa.opaque(pa.string(), "shape", "vendor"), ["round", None], pa.string()), "round"),
        (nested(20), "[" * 20 + "1" + "]" * 20),
    ],
)  # fmt: skip
def test_a_column_of_any_type_is_read(column: pa.Array, value: object, tmp_path: Path) -> None:
    assert read(tmp_path / "a.parquet", {"field": column}) == ({"field": value}, ())


@pytest.mark.parametrize(
    "column",
    [
        pa.array([b"0" * 12, None], pa.binary(12)),  # how Parquet stores intervals, and others store 128-bit integers
        pa.array([b"a", b"b"]).dictionary_encode(),
        pa.array([[{"a": b"x"}], None]),
        pa.array([{"bytes": b"x", "path": None}, None]),
        extension(pa.opaque(pa.binary(), "shape", "vendor"), [b"x", None], pa.binary()),
    ],
)
def test_a_column_of_bytes_is_named_as_left_out(column: pa.Array, tmp_path: Path) -> None:
    named = Columns(image="path")
    columns = {"field": column, "n": [1, 2]}
    expected = ({"n": 1}, ("a.parquet: 'field': left out, because no field contains bytes",))
    assert read(tmp_path / "a.parquet", columns, named) == expected


def test_a_column_without_a_name_is_left_out(tmp_path: Path) -> None:
    assert read(tmp_path / "a.parquet", {"": [0, 1], "n": [1, 2]}) == (
        {"n": 1},
        ("a.parquet: columns without a name are left out (1)",),
    )


def test_columns_that_are_nested_too_deeply_are_one_error(tmp_path: Path) -> None:
    with pytest.raises(GalleryError, match=r"a.parquet: cannot be read as Parquet \("):
        read(tmp_path / "a.parquet", {"field": nested(500)})


def test_ids_may_be_uuids(tmp_path: Path) -> None:
    pq.write_table(pa.table({"path": ["x.jpg"], "id": pa.array([UUID_BYTES], pa.uuid())}), tmp_path / "a.parquet")
    assert [entry.id for entry in read_source(tmp_path / "a.parquet")] == [str(uuid.UUID(bytes=UUID_BYTES))]


def test_text_that_is_not_utf8_stops_only_its_row(tmp_path: Path) -> None:
    text = pa.Array.from_buffers(pa.string(), 2, [None, pa.py_buffer(b"\0\0\0\0\1\0\0\0\2\0\0\0"), pa.py_buffer(b"\xffa")])
    pq.write_table(pa.table({"path": ["x.jpg", "y.jpg"], "text": text}), tmp_path / "a.parquet")
    first, second = read_source(tmp_path / "a.parquet")
    assert isinstance(first, UnreadableItem)
    assert first.reason.endswith("row 0: the field 'text' cannot be stored: '\\udcff' is not valid text")
    assert isinstance(second, SourceItem)
    assert second.fields == {"text": "a"}


def test_any_object_has_a_value() -> None:
    """What is no number, text, list or mapping is its text; it was converted for ever."""
    assert value_of(uuid.UUID(bytes=UUID_BYTES)) == "12345678-1234-5678-1234-567812345678"
    assert value_of([uuid.UUID(bytes=UUID_BYTES)]) == '["12345678-1234-5678-1234-567812345678"]'
    assert value_of(np.float32(0.5)) == 0.5
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(GalleryError, match="nested too deeply"):
        value_of(deep)
    with pytest.raises(GalleryError, match="bytes are not text"):
        value_of(b"x")


def test_folders_named_key_value_are_fields_of_rows(tmp_path: Path) -> None:
    for year, split, name in ((2020, "train", "a"), (2021, "1", "b"), ("__HIVE_DEFAULT_PARTITION__", "2", "c")):
        folder = tmp_path / f"data/year={year}/split={split}"
        folder.mkdir(parents=True)
        pq.write_table(pa.table({"path": [f"{name}.jpg"], "n": [1]}), folder / "part-0.parquet")
    pq.write_table(pa.table({"path": ["d.jpg"], "year": [7]}), tmp_path / "data/year=2021/own.parquet")
    fields = {
        entry.id.rpartition("/")[2]: dict(entry.fields) for entry in read_source(tmp_path) if isinstance(entry, SourceItem)
    }
    assert fields == {
        "a.jpg": {"year": 2020, "split": "train", "n": 1},
        "b.jpg": {"year": 2021, "split": "1", "n": 1},
        "c.jpg": {"year": None, "split": "2", "n": 1},
        "d.jpg": {"year": 7},
    }


@pytest.mark.parametrize("names", [("dataset_info.json", "state.json"), ("dataset_dict.json", "train/state.json")])
def test_a_folder_of_save_to_disk_says_what_to_do(names: tuple[str, ...], tmp_path: Path) -> None:
    for name in (*names, "train/data-00000-of-00001.arrow"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")
    with pytest.raises(GalleryError, match=r"a dataset written by save_to_disk.*load_from_disk\(FOLDER\)\.to_parquet\(FILE\)"):
        read_source(tmp_path)


def test_paths_of_imported_metadata_are_relative_to_their_file(tmp_path: Path, photos: Path, encoder: mm.Encoder) -> None:
    """The same paths in the metadata, wherever the command runs."""
    image = next(photos.rglob("*.png"))
    folder = tmp_path / "embeddings"
    for name in ("img_emb", "metadata", "images"):
        (folder / name).mkdir(parents=True)
    (folder / "images/x.png").write_bytes(image.read_bytes())
    paths = ["../images/x.png", str(image), "https://example.org/z.png"]
    pq.write_table(pa.table({"image_path": paths}), folder / "metadata/metadata_0.parquet")
    np.save(folder / "img_emb/img_emb_0.npy", np.eye(3, encoder.dim, dtype=np.float16))
    gallery = mm.Gallery.create(tmp_path / "g", encoder=encoder)
    gallery.import_vectors(folder)
    assert list(gallery.ids) == paths
    assert [item.path for item in gallery.items(paths)] == [f"{folder}/metadata/../images/x.png", *paths[1:]]
    assert gallery.picture(paths[0]).size == (96, 96)
