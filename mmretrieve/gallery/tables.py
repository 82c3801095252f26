"""A gallery as a table of other packages: an Arrow table, from which data frames and datasets of Hugging Face are made."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from mmretrieve.errors import optional_package
from mmretrieve.gallery.base import GalleryBase
from mmretrieve.gallery.store.records import FieldType, Item
from mmretrieve.ranking.columns import free_name
from mmretrieve.sources.values import Value


def arrow_table(gallery: GalleryBase[Any], *, vectors: bool) -> Any:
    """The items in insertion order: id, image (a struct of bytes and path, or null), a column for each field, and vector if it is asked for."""
    pa = optional_package("pyarrow")
    items = gallery.list_items(limit=len(gallery)).items
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    columns = {"id": pa.array([item.id for item in items], pa.string()), "image": pa.array(map(_image, items), image)}
    for name, kind in gallery.manifest.fields.items():
        values = [item.fields.get(name) for item in items]
        columns[free_name(name, {*columns, "vector"})] = pa.array(values, _type(pa, kind, values))
    if vectors:
        rows = gallery.vectors([item.id for item in items])
        columns["vector"] = pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel(), pa.float32()), gallery.dim)
    return pa.table(columns)


def dataset(gallery: GalleryBase[Any], *, vectors: bool) -> Any:
    """`arrow_table` as a `datasets.Dataset`, whose images are decoded when they are read."""
    datasets = optional_package("datasets")
    return datasets.Dataset(arrow_table(gallery, vectors=vectors)).cast_column("image", datasets.Image())


def _image(item: Item) -> dict[str, Any] | None:
    """The path of a file, or the bytes of a part of an archive; None for an image that was added from memory."""
    if not item.path:
        return None
    if item.location.member is None:
        return {"bytes": None, "path": item.path}
    with item.location.open() as file:
        return {"bytes": file.read(), "path": None}


def _type(pa: Any, kind: FieldType, values: Iterable[Value]) -> Any:
    if kind is not FieldType.NUMBER:
        return pa.string()
    return pa.float64() if any(isinstance(value, float) for value in values) else pa.int64()
