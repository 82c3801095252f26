"""Makes a fixture for `test_old_galleries.py`: a small gallery as this version writes it, and what this version answers.

    python tests/gallery/record_gallery.py format3      # before a change of the format, with the version that wrote it

Twelve drawings of the wardrobe with fields and an index `IVF2,SQ8`; then one item is replaced and one deleted, and titles and a
vocabulary are chosen.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

import mmretrieve as mm
from mmretrieve.composition import Composition
from mmretrieve.sources.base import SourceItem
from mmretrieve.sources.location import Location
from mmretrieve.vectors import unit
from mmretrieve.wardrobe.dataset import drawings
from mmretrieve.wardrobe.draw import draw

FIXTURES = Path(__file__).resolve().parent / "fixtures"
WHERE = ("", "price < 20 AND number <> 3", "kind LIKE '%s%'")


class Shop:
    """Every seventh drawing as a file of the current folder, with fields. `shift` draws the same garments in other places."""

    name = "the shop"

    def __init__(self, numbers: range, shift: int = 0) -> None:
        self.numbers, self.shift = numbers, shift

    def __len__(self) -> int:
        return len(self.numbers)

    def __iter__(self) -> Iterator[SourceItem]:
        for number in self.numbers:
            drawing = drawings()[7 * number]
            draw(drawing.garment, drawing.detail, seed=drawing.seed + self.shift, size=64).save(drawing.id)
            fields = {
                "number": number,
                "price": 2.5 * number,
                "name": drawing.id.split("-")[0],
                "kind": str(drawing.garment.kind),
            }
            yield SourceItem(drawing.id, Location(drawing.id), fields)


def answers(gallery: mm.Gallery) -> dict[str, Any]:
    """What a gallery has, and what it answers to six queries of three random terms, with and without filters."""
    rng = np.random.default_rng(0)
    rankings = []
    for _ in range(6):
        terms = np.round(rng.normal(size=(3, gallery.dim)) / 8 + gallery.vectors()[:3], 3)
        composition = Composition(("image", "text", "composed"), unit(terms), (0.0, 0.0, 1.0)).with_pdv(
            gallery.setting or mm.PDV()
        )
        hits = {
            where: [[hit.id, hit.score, dict(hit.contributions)] for hit in gallery.search(composition, 5, where=where or None)]
            for where in WHERE
        }
        rankings.append({"terms": terms.tolist(), "hits": hits})
    items = {
        id_: {"path": item.path, "hash": item.hash, "fields": dict(item.fields)}
        for id_, item in zip(gallery.ids, map(gallery.item, gallery.ids), strict=True)
    }
    info = {name: gallery.info()[name] for name in ("items", "deleted", "dim", "fields")}
    return {"ids": list(gallery.ids), "items": items, "rankings": rankings, "info": info}


def main(name: str) -> None:
    """Writes `fixtures/NAME.gallery` and `fixtures/NAME.json`."""
    encoder = mm.load_encoder("wardrobe", dtype="float32")
    setting = mm.PDV(alpha_image=1.4, alpha_text=1.2, beta=0.75)
    gallery = mm.Gallery.create(FIXTURES / f"{name}.gallery", encoder=encoder, setting=setting)
    with TemporaryDirectory() as folder:
        os.chdir(folder)
        gallery.add(Shop(range(12)))
        gallery.build_index("IVF2,SQ8", recall=1.0)
        gallery.add(Shop(range(6, 7), shift=1), update=True)
        gallery.delete([gallery.ids[4]])
        gallery.choose_title_field("name")
        gallery.choose_vocabulary(["kind"])
    for lock in gallery.path.glob("*.lock"):
        lock.unlink()
    (FIXTURES / f"{name}.json").write_text(json.dumps(answers(gallery)) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
