"""Writes the wardrobe in the layouts of CIRR, FashionIQ and CIRCO, to try out loaders, runs, sweeps and submissions.

Images, queries and targets are the wardrobe's; only the form is that of the released sets. For CIRR and CIRCO, two clothing
lines in five, with their images and queries, form the split whose targets are hidden, so that its queries mention no image of
val. Where a layout has room for one target, it is the first of the wardrobe's; the others stay in the gallery, as unlabeled
right answers do in the released sets.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

from PIL import Image

from mmretrieve import wardrobe
from mmretrieve.encoders.base import Progress
from mmretrieve.errors import MMRetrieveError, OptionError, unknown
from mmretrieve.wardrobe import captions
from mmretrieve.wardrobe.attributes import Detail, Garment, Kind, Pattern, Sleeves
from mmretrieve.wardrobe.dataset import Drawing, WardrobeQuery

JPEG_QUALITY = 95
LAYOUTS = ("cirr", "fashioniq", "circo")
SEED = 20261  # of image sets and second captions; each query has its own generator, seeded by this number and its id
LINE_CYCLE, HIDDEN_LINES = 5, (1, 3)  # of every five clothing lines, those whose targets are hidden
SIMILAR_IMAGES = 2  # with the reference's detail, and as many again with the target's garment
CATEGORIES: Mapping[str, tuple[Kind, ...]] = {
    "dress": (Kind.DRESS, Kind.JUMPSUIT, Kind.SKIRT, Kind.TROUSERS, Kind.SHORTS),
    "shirt": (Kind.SHIRT, Kind.JACKET, Kind.COAT),
    "toptee": (Kind.TOP, Kind.SWEATER, Kind.HOODIE),
}
COCO = "COCO2017_unlabeled"


@dataclass(frozen=True)
class LayoutPart:
    """One benchmark of an export and its counts; `name` and `split` are those of `load_benchmark`."""

    name: str
    split: str
    queries: int
    images: int


@dataclass(frozen=True)
class WardrobeExport:
    """What a folder contains: the benchmarks in it, and JSON values and drawings by the path of their file."""

    parts: tuple[LayoutPart, ...]
    files: Mapping[str, Any]
    images: Mapping[str, Drawing]


def export_wardrobe(layout: str, out: str | Path, *, progress: Progress | None = None) -> WardrobeExport:
    """Writes the 2,000 drawings and 500 queries into the folder `out`, which `load_benchmark` then reads as its root.

    The bytes are the same every time. `out` appears complete at the end, or not at all.

    Parameters
    ----------
    layout : "cirr", "fashioniq" or "circo".
    out : a new or empty folder.
    progress : called after each image.

    Raises
    ------
    OptionError : the layout is unknown, or `out` is not empty.
    MMRetrieveError : `out` cannot be written.
    """
    folder, export = Path(out).resolve(), plan_export(layout)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise OptionError(f"{folder} exists and is not an empty folder; name a new one")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as temporary:
            complete = Path(temporary) / folder.name
            _write(export, complete, progress)
            if folder.exists():
                folder.rmdir()
            complete.rename(folder)
    except OSError as error:
        raise MMRetrieveError(f"{folder}: cannot be written ({error}); nothing of it is left") from error
    return export


def plan_export(layout: str) -> WardrobeExport:
    """The content of a folder of that layout, the same every time. OptionError where the layout is unknown."""
    match layout:
        case "cirr":
            return _plan_cirr()
        case "fashioniq":
            return _plan_fashioniq()
        case "circo":
            return _plan_circo()
        case _:
            raise unknown("benchmark layout", layout, LAYOUTS)


def query_aspects(reference: Garment, query: WardrobeQuery) -> list[str]:
    """CIRCO's aspects of a query, often none. A pattern on a plain garment and sleeves on a sleeveless one are an addition; the
    other aspects are read from the words of the prompt.
    """
    words_of_prompt = set(query.prompt.replace(",", "").split())
    bare = {"pattern": Pattern.PLAIN, "sleeves": Sleeves.NONE}
    applies = {
        "addition": any(getattr(reference, name) is bare[name] for name in query.changed if name in bare),
        "negation": not words_of_prompt.isdisjoint({"without", "no", "sleeveless"}),
        "compare_change": "instead" in words_of_prompt,
        "statement_with_conjunction": "and" in words_of_prompt,
    }
    return [name for name, is_true in applies.items() if is_true]


def _plan_cirr() -> WardrobeExport:
    parts: list[LayoutPart] = []
    files: dict[str, Any] = {}
    images_by_path: dict[str, Drawing] = {}
    for split, folder in (("val", "dev"), ("test1", "test1")):
        queries, drawings = _select_split(hidden=split != "val")
        paths = {_name(drawing.id): f"{folder}/{drawing.id}" for drawing in drawings}
        files[f"captions/cap.rc2.{split}.json"] = [_cirr_query(query, with_target=split == "val") for query in queries]
        files[f"image_splits/split.rc2.{split}.json"] = {name: f"./{path}" for name, path in paths.items()}
        images_by_path |= dict(zip(paths.values(), drawings, strict=True))
        parts.append(LayoutPart("cirr", split, len(queries), len(drawings)))
    return WardrobeExport(tuple(parts), files, images_by_path)


def _cirr_query(query: WardrobeQuery, *, with_target: bool) -> dict[str, Any]:
    """A CIRR record. Its image set: reference, target, and four images that match the reference or the prompt but never both."""
    random = Random(f"{SEED} {query.id}")
    reference, target = _drawing(query.reference), _drawing(query.targets[0])
    others = [d for d in _clothing_lines()[_clothing_line(reference)] if d.id not in (query.reference, *query.targets)]
    same_detail = [d.id for d in others if d.detail == reference.detail]
    same_garment = [d.id for d in others if d.garment == target.garment]
    distractors = [*random.sample(same_detail, SIMILAR_IMAGES), *random.sample(same_garment, SIMILAR_IMAGES)]
    members = random.sample([_name(id_) for id_ in (reference.id, target.id, *distractors)], 2 + len(distractors))
    image_set = {"id": int(query.id), "members": members, "reference_rank": members.index(_name(reference.id))}
    target_fields: dict[str, Any] = {}
    if with_target:
        image_set["target_rank"] = members.index(_name(target.id))
        target_fields = {"target_hard": _name(target.id), "target_soft": {_name(id_): 1.0 for id_ in query.targets}}
    return {
        "pairid": int(query.id),
        "reference": _name(reference.id),
        **target_fields,
        "caption": query.prompt,
        "img_set": image_set,
    }


def _plan_fashioniq() -> WardrobeExport:
    parts: list[LayoutPart] = []
    files: dict[str, Any] = {}
    images_by_path: dict[str, Drawing] = {}
    for category, kinds in CATEGORIES.items():
        drawings = [drawing for drawing in wardrobe.drawings() if drawing.garment.kind in kinds]
        queries = [query for query in wardrobe.queries() if _drawing(query.reference).garment.kind in kinds]
        files[f"captions/cap.{category}.val.json"] = [
            {"target": _name(q.targets[0]), "candidate": _name(q.reference), "captions": [q.prompt, _second_caption(q)]}
            for q in queries
        ]
        files[f"image_splits/split.{category}.val.json"] = [_name(drawing.id) for drawing in drawings]
        images_by_path |= {f"images/{drawing.id}": drawing for drawing in drawings}
        parts.append(LayoutPart(f"fashioniq:{category}", "val", len(queries), len(drawings)))
    return WardrobeExport(tuple(parts), files, images_by_path)


def _second_caption(query: WardrobeQuery) -> str:
    """Another wording of the prompt."""
    random, after = Random(f"{SEED} {query.id}"), _drawing(query.targets[0]).garment
    while (text := captions.change_prompt(after, list(query.changed), random)) == query.prompt:
        pass
    return text


def _plan_circo() -> WardrobeExport:
    drawings = wardrobe.drawings()
    images = [{"id": drawing.seed, "file_name": f"{drawing.seed:012}.jpg"} for drawing in drawings]
    files: dict[str, Any] = {f"{COCO}/annotations/image_info_unlabeled2017.json": {"images": images}}
    parts = []
    for split in ("val", "test"):
        queries, _ = _select_split(hidden=split == "test")
        files[f"annotations/{split}.json"] = [_circo_query(i, q, with_targets=split == "val") for i, q in enumerate(queries)]
        parts.append(LayoutPart("circo", split, len(queries), len(drawings)))
    images_by_path = {f"{COCO}/unlabeled2017/{drawing.seed:012}.jpg": drawing for drawing in drawings}
    return WardrobeExport(tuple(parts), files, images_by_path)


def _circo_query(number: int, query: WardrobeQuery, *, with_targets: bool) -> dict[str, Any]:
    reference, targets = _drawing(query.reference), [_drawing(id_).seed for id_ in query.targets]
    noun = captions.with_article(captions.NOUNS[reference.garment.kind][0])
    record = {"reference_img_id": reference.seed, "relative_caption": query.prompt, "shared_concept": noun, "id": number}
    if not with_targets:
        return record
    target_fields = {
        "target_img_id": targets[0],
        "gt_img_ids": targets,
        "semantic_aspects": query_aspects(reference.garment, query),
    }
    return record | target_fields


def _select_split(*, hidden: bool) -> tuple[list[WardrobeQuery], list[Drawing]]:
    """Queries and drawings of the clothing lines whose targets are hidden, or of the others, in the wardrobe's order."""
    lines = {line for i, line in enumerate(_clothing_lines()) if (i % LINE_CYCLE in HIDDEN_LINES) is hidden}
    queries = [query for query in wardrobe.queries() if _clothing_line(_drawing(query.reference)) in lines]
    return queries, [drawing for drawing in wardrobe.drawings() if _clothing_line(drawing) in lines]


@cache
def _clothing_lines() -> dict[frozenset[Garment], list[Drawing]]:
    """Drawings by clothing line, ordered by kind. A line shows the same garments with each of its details."""
    lines: dict[frozenset[Garment], list[Drawing]] = {}
    for drawing in sorted(wardrobe.drawings(), key=lambda drawing: drawing.garment.kind):
        lines.setdefault(_clothing_line(drawing), []).append(drawing)
    return lines


def _clothing_line(drawing: Drawing) -> frozenset[Garment]:
    return _garments_by_detail()[drawing.detail]


@cache
def _garments_by_detail() -> dict[Detail, frozenset[Garment]]:
    """The garments that are drawn with each detail."""
    garments_of: dict[Detail, set[Garment]] = {}
    for drawing in wardrobe.drawings():
        garments_of.setdefault(drawing.detail, set()).add(drawing.garment)
    return {detail: frozenset(garments) for detail, garments in garments_of.items()}


@cache
def _drawing(id_: str) -> Drawing:
    return next(drawing for drawing in wardrobe.drawings() if drawing.id == id_)


def _name(id_: str) -> str:
    return id_.removesuffix(".png")


def _write(export: WardrobeExport, folder: Path, progress: Progress | None) -> None:
    for path in (*export.files, *export.images):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
    for path, value in export.files.items():
        (folder / path).write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8", newline="\n")
    for path, drawing in export.images.items():
        _copy_image(wardrobe.pictures_folder() / drawing.id, folder / path)
        if progress is not None:
            progress(1)


def _copy_image(source: Path, path: Path) -> None:
    if source.suffix == path.suffix:
        shutil.copyfile(source, path)
        return
    with Image.open(source) as image:
        image.convert("RGB").save(path, quality=JPEG_QUALITY)
