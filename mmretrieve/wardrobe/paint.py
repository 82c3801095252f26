"""Draws one share of the gallery: `python -m mmretrieve.wardrobe.paint FOLDER SHARES SHARE`."""

from __future__ import annotations

import sys
from pathlib import Path

from mmretrieve.wardrobe.draw import draw
from mmretrieve.wardrobe.world import drawings


def main(folder: str, shares: str, share: str) -> None:
    for drawing in drawings()[int(share) :: int(shares)]:
        picture = draw(drawing.garment, drawing.detail, seed=drawing.seed)
        picture.save(Path(folder, drawing.id), compress_level=3)


if __name__ == "__main__":
    main(*sys.argv[1:])
