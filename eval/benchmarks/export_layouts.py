"""The wardrobe as CIRR, FashionIQ and CIRCO would hold it: what stands in each file, and where each drawing lies.

Pictures, queries and right answers are the wardrobe's own; only the form is that of the released sets. Of CIRR and CIRCO
two lines of clothes in five, with their pictures and queries, are the split whose targets stay hidden, so that its queries
name no picture that val's name. Where a layout has room for one right answer it is the first of the wardrobe's; the others
stay in the gallery, as unnamed right answers do in the released sets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import Any

from mmretrieve import wardrobe
from mmretrieve.options import Choice
from mmretrieve.wardrobe import captions
from mmretrieve.wardrobe.attributes import Detail, Garment, GarmentType, Pattern, Sleeves
from mmretrieve.wardrobe.dataset import Drawing, WardrobeQuery

SEED = 20261  # of image sets and second captions; each draws from a generator of its own: this and the query's id
FIVE, HIDDEN = 5, (1, 3)  # of every five lines of clothes, those whose targets stay hidden
LOOK_ALIKES = 2  # in the reference's shoot, and as many again in the target's garment
CATEGORIES: Mapping[str, tuple[GarmentType, ...]] = {
    "dress": (
        GarmentType.DRESS,
        GarmentType.JUMPSUIT,
        GarmentType.SKIRT,
        GarmentType.TROUSERS,
        GarmentType.SHORTS,
    ),  # all that is worn about the legs
    "shirt": (GarmentType.SHIRT, GarmentType.JACKET, GarmentType.COAT),  # opens in front
    "toptee": (GarmentType.TOP, GarmentType.SWEATER, GarmentType.HOODIE),  # is pulled over the head
}
COCO = "COCO2017_unlabeled"


class BenchmarkLayout(Choice):
    """Whose files are written."""

    CIRR = "cirr"
    FASHIONIQ = "fashioniq"
    CIRCO = "circo"


@dataclass(frozen=True)
class LayoutPart:
    """One benchmark of a plan and its counts; `name` and `split` are those of `load_benchmark`."""

    name: str
    split: str
    queries: int
    images: int


@dataclass(frozen=True)
class ExportPlan:
    """JSON values and drawings, each by the path of its file inside the folder."""

    parts: tuple[LayoutPart, ...]
    files: Mapping[str, Any]
    pictures: Mapping[str, Drawing]


def plan(layout: BenchmarkLayout) -> ExportPlan:
    """All that belongs into a folder of that layout, the same every time."""
    return {BenchmarkLayout.CIRR: _cirr, BenchmarkLayout.FASHIONIQ: _fashioniq, BenchmarkLayout.CIRCO: _circo}[layout]()


def aspects(reference: Garment, query: WardrobeQuery) -> list[str]:
    """CIRCO's names for what is asked, often none: a pattern on what was plain and sleeves where there were none are an
    addition; the others are heard in the words of the prompt.
    """
    said = set(query.prompt.replace(",", "").split())
    bare = {"pattern": Pattern.PLAIN, "sleeves": Sleeves.NONE}
    shown = {
        "addition": any(getattr(reference, name) is bare[name] for name in query.changed if name in bare),
        "negation": not said.isdisjoint({"without", "no", "sleeveless"}),
        "compare_change": "instead" in said,
        "statement_with_conjunction": "and" in said,
    }
    return [name for name, is_shown in shown.items() if is_shown]


def _cirr() -> ExportPlan:
    parts: list[LayoutPart] = []
    files: dict[str, Any] = {}
    pictures: dict[str, Drawing] = {}
    for split, folder in (("val", "dev"), ("test1", "test1")):
        queries, drawings = _share(hidden=split != "val")
        places = {_name(drawing.id): f"{folder}/{drawing.id}" for drawing in drawings}
        files[f"captions/cap.rc2.{split}.json"] = [_pair(query, with_target=split == "val") for query in queries]
        files[f"image_splits/split.rc2.{split}.json"] = {name: f"./{place}" for name, place in places.items()}
        pictures |= dict(zip(places.values(), drawings, strict=True))
        parts.append(LayoutPart("cirr", split, len(queries), len(drawings)))
    return ExportPlan(tuple(parts), files, pictures)


def _pair(query: WardrobeQuery, *, with_target: bool) -> dict[str, Any]:
    """Its image set: reference, target, and four that fit the picture or the words but never both."""
    random = Random(f"{SEED} {query.id}")
    reference, target = _drawing(query.reference), _drawing(query.targets[0])
    others = [d for d in _lines()[_line(reference)] if d.id not in (query.reference, *query.targets)]
    same_shoot = [d.id for d in others if d.detail == reference.detail]
    same_garment = [d.id for d in others if d.garment == target.garment]
    chosen = [*random.sample(same_shoot, LOOK_ALIKES), *random.sample(same_garment, LOOK_ALIKES)]
    members = random.sample([_name(id_) for id_ in (reference.id, target.id, *chosen)], 2 + len(chosen))
    image_set = {"id": int(query.id), "members": members, "reference_rank": members.index(_name(reference.id))}
    told: dict[str, Any] = {}
    if with_target:
        image_set["target_rank"] = members.index(_name(target.id))
        told = {"target_hard": _name(target.id), "target_soft": {_name(id_): 1.0 for id_ in query.targets}}
    return {"pairid": int(query.id), "reference": _name(reference.id), **told, "caption": query.prompt, "img_set": image_set}


def _fashioniq() -> ExportPlan:
    parts: list[LayoutPart] = []
    files: dict[str, Any] = {}
    pictures: dict[str, Drawing] = {}
    for category, kinds in CATEGORIES.items():
        drawings = [drawing for drawing in wardrobe.drawings() if drawing.garment.kind in kinds]
        queries = [query for query in wardrobe.queries() if _drawing(query.reference).garment.kind in kinds]
        files[f"captions/cap.{category}.val.json"] = [
            {"target": _name(q.targets[0]), "candidate": _name(q.reference), "captions": [q.prompt, _other_words(q)]}
            for q in queries
        ]
        files[f"image_splits/split.{category}.val.json"] = [_name(drawing.id) for drawing in drawings]
        pictures |= {f"images/{drawing.id}": drawing for drawing in drawings}
        parts.append(LayoutPart(f"fashioniq:{category}", "val", len(queries), len(drawings)))
    return ExportPlan(tuple(parts), files, pictures)


def _other_words(query: WardrobeQuery) -> str:
    """The same change, said in another way than the prompt."""
    random, after = Random(f"{SEED} {query.id}"), _drawing(query.targets[0]).garment
    while (said := captions.change_prompt(after, list(query.changed), random)) == query.prompt:
        pass
    return said


def _circo() -> ExportPlan:
    drawings = wardrobe.drawings()
    images = [{"id": drawing.seed, "file_name": f"{drawing.seed:012}.jpg"} for drawing in drawings]
    files: dict[str, Any] = {f"{COCO}/annotations/image_info_unlabeled2017.json": {"images": images}}
    parts = []
    for split in ("val", "test"):
        queries, _ = _share(hidden=split == "test")
        files[f"annotations/{split}.json"] = [_scene(i, q, with_targets=split == "val") for i, q in enumerate(queries)]
        parts.append(LayoutPart("circo", split, len(queries), len(drawings)))
    pictures = {f"{COCO}/unlabeled2017/{drawing.seed:012}.jpg": drawing for drawing in drawings}
    return ExportPlan(tuple(parts), files, pictures)


def _scene(number: int, query: WardrobeQuery, *, with_targets: bool) -> dict[str, Any]:
    reference, targets = _drawing(query.reference), [_drawing(id_).seed for id_ in query.targets]
    noun = captions.with_article(captions.NOUNS[reference.garment.kind][0])
    asked = {"reference_img_id": reference.seed, "relative_caption": query.prompt, "shared_concept": noun, "id": number}
    if not with_targets:
        return asked
    told = {"target_img_id": targets[0], "gt_img_ids": targets, "semantic_aspects": aspects(reference.garment, query)}
    return asked | told


def _share(*, hidden: bool) -> tuple[list[WardrobeQuery], list[Drawing]]:
    """The queries and drawings of the lines that are hidden, or of those that are not, in the wardrobe's order."""
    chosen = {line for i, line in enumerate(_lines()) if (i % FIVE in HIDDEN) is hidden}
    queries = [query for query in wardrobe.queries() if _line(_drawing(query.reference)) in chosen]
    return queries, [drawing for drawing in wardrobe.drawings() if _line(drawing) in chosen]


@cache
def _lines() -> dict[frozenset[Garment], list[Drawing]]:
    """Drawings by line of clothes, lines of one kind side by side. A line shows the same garments in each of its shoots."""
    lines: dict[frozenset[Garment], list[Drawing]] = {}
    for drawing in sorted(wardrobe.drawings(), key=lambda drawing: drawing.garment.kind):
        lines.setdefault(_line(drawing), []).append(drawing)
    return lines


def _line(drawing: Drawing) -> frozenset[Garment]:
    return _worn()[drawing.detail]


@cache
def _worn() -> dict[Detail, frozenset[Garment]]:
    """The garments of each shoot."""
    shoots: dict[Detail, set[Garment]] = {}
    for drawing in wardrobe.drawings():
        shoots.setdefault(drawing.detail, set()).add(drawing.garment)
    return {detail: frozenset(garments) for detail, garments in shoots.items()}


@cache
def _drawing(id_: str) -> Drawing:
    return next(drawing for drawing in wardrobe.drawings() if drawing.id == id_)


def _name(id_: str) -> str:
    return id_.removesuffix(".png")
