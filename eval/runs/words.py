"""How well the wardrobe's encoder reads: does a garment's caption find its drawing among others, seen and held out?"""

from __future__ import annotations

from random import Random

from mmretrieve import Encoder
from mmretrieve.wardrobe.attributes import Garment, garments, is_unseen, random_detail
from mmretrieve.wardrobe.captions import caption
from mmretrieve.wardrobe.draw import draw

SAMPLE = 400


def text_to_image(encoder: Encoder, *, seed: int = 7) -> dict[str, float]:
    """Recall@1 ×100 of plain captions among one drawing each of 400 garments: held-out combinations, and seen ones."""
    return {
        "held-out combinations": _recall(encoder, [g for g in garments() if is_unseen(g)], Random(seed)),
        "seen combinations": _recall(encoder, [g for g in garments() if not is_unseen(g)], Random(seed)),
    }


def _recall(encoder: Encoder, choice: list[Garment], random: Random) -> float:
    sample = random.sample(choice, SAMPLE)
    pictures = [draw(garment, random_detail(random), seed=random.randrange(1 << 30)) for garment in sample]
    scores_tg = encoder.encode_texts([caption(garment) for garment in sample]) @ encoder.encode_images(pictures).T
    right = scores_tg.diagonal()[:, None]
    return float(100 * ((scores_tg >= right).sum(axis=1) == 1).mean())
