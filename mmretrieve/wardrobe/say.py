"""Writes captions of garments, one a line, to train a phi on: `python -m mmretrieve.wardrobe.say captions.txt --count 40000`."""

from __future__ import annotations

import argparse
from pathlib import Path
from random import Random

from mmretrieve.wardrobe.attributes import garments, is_unseen
from mmretrieve.wardrobe.words import caption, describe


def captions(count: int, seed: int = 0) -> list[str]:
    """`count` captions of garments that training may see, half of them free and half plain."""
    random = Random(seed)
    seen = [garment for garment in garments() if not is_unseen(garment)]
    chosen = random.choices(seen, k=count)
    return [describe(garment, random) if random.random() < 0.5 else caption(garment) for garment in chosen]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m mmretrieve.wardrobe.say", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--count", type=int, default=40_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    options.file.write_text("\n".join(captions(options.count, options.seed)) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
