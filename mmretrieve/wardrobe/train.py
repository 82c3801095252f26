"""Trains the small CLIP of the wardrobe on drawings: `python -m mmretrieve.wardrobe.train --out FOLDER`.

One run draws its own pictures, takes about an hour on two cores and ends with an open_clip local folder.
The loss is CLIP's (arXiv 2103.00020), with every caption of the same garment in the batch counted as right
(as in UniCL, arXiv 2204.03610), plus SLIP's (arXiv 2112.12750): two views of one drawing should meet. The second
part keeps in the image vector what captions never mention. No image–text–image triplet is ever seen.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from open_clip.model import CLIP
from safetensors.torch import load_file, save_file
from torch import Tensor

from mmretrieve.encoders.text_tower import encode_tokens
from mmretrieve.wardrobe import words
from mmretrieve.wardrobe.attributes import Background, Detail, Garment, Light, Motif, Pose, Trim, choices, garments, is_unseen
from mmretrieve.wardrobe.draw import draw

logger = logging.getLogger(__name__)
SIZE = 64
SHOOTS = 6  # drawings of each garment, each with its own detail
MODEL: dict[str, Any] = {
    "embed_dim": 128,
    "vision_cfg": {"image_size": SIZE, "layers": 4, "width": 128, "patch_size": 8, "head_width": 32},
    "text_cfg": {"context_length": 40, "vocab_size": 49408, "width": 96, "heads": 4, "layers": 4},
}
PREPROCESS: dict[str, Any] = {
    "size": [SIZE, SIZE],
    "mean": list(open_clip.OPENAI_DATASET_MEAN),
    "std": list(open_clip.OPENAI_DATASET_STD),
    "interpolation": "bicubic",
    "resize_mode": "longest",
    "fill_color": 255,
}


@dataclass(frozen=True)
class Recipe:
    """One stage of the training. A recipe always gives the same captions and batches."""

    steps: int
    garments: int  # in a batch
    shoots: int  # of each garment in a batch
    looks: int | None  # (colour, pattern) pairs in a batch; None: as they come
    learning_rate: float
    warmup: int
    second_views: int = 64  # so many drawings of a batch are looked at twice
    weight_decay: float = 0.05
    view_weight: float = 0.3
    view_temperature: float = 0.1
    seed: int = 0


BROAD = Recipe(steps=2600, garments=48, shoots=4, looks=None, learning_rate=1.5e-3, warmup=150)
ALIKE = Recipe(steps=600, garments=96, shoots=2, looks=8, learning_rate=6e-4, warmup=50, seed=1)
"""First whatever comes; then batches of a few colours and patterns, in which cut, sleeves and neck must tell garments apart."""


def random_detail(random: Random) -> Detail:
    return Detail(*(random.choice(list(values)) for values in (Motif, Trim, Pose, Background, Light)))  # type: ignore[arg-type]


def seen_garments(seed: int) -> list[Garment]:
    """Every garment whose (kind, colour, pattern) is not held out, shuffled."""
    seen = [garment for garment in garments() if not is_unseen(garment)]
    Random(seed).shuffle(seen)
    return seen


def shoots(garment: Garment) -> NDArray[np.uint8]:
    """(SHOOTS, SIZE, SIZE, 3) drawings of one garment."""
    random = Random(f"train/{garment}")
    pictures = [draw(garment, random_detail(random), seed=random.randrange(1 << 30), size=SIZE) for _ in range(SHOOTS)]
    return np.stack([np.asarray(picture) for picture in pictures])


def sentence(garment: Garment, random: Random) -> str:
    """A caption: free, plain with some groups unsaid, a mere fragment, or a longer one that says a part again."""
    style = random.random()
    names = list(choices(garment.kind))
    fragment = words.change(garment, random.sample(names, random.choice((1, 1, 2))), random)
    if style < 0.20:
        return fragment
    if style < 0.55:
        said = words.describe(garment, random)
    else:
        said = words.caption(garment, leave_out={name for name in names if random.random() < 0.25})
    return said if random.random() < 0.65 else f"{said}, {fragment}"


def views(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """(n, 3, SIZE, SIZE) bytes → the same, normalised, each moved, scaled and lit a little differently."""
    count = len(pictures)

    def jitter(*shape: int, reach: float) -> Tensor:
        return (torch.rand(*shape, generator=generator) * 2 - 1) * reach

    place = torch.zeros(count, 2, 3)
    place[:, 0, 0] = place[:, 1, 1] = 1 + jitter(count, reach=0.12)
    place[:, :, 2] = jitter(count, 2, reach=0.10)
    grid = F.affine_grid(place, [count, 3, SIZE, SIZE], align_corners=False)
    moved = F.grid_sample(pictures.float() / 255, grid, padding_mode="reflection", align_corners=False)
    dyed = moved * (1 + jitter(count, 1, 1, 1, reach=0.05)) * (1 + jitter(count, 3, 1, 1, reach=0.02))
    mean, std = torch.tensor(PREPROCESS["mean"]).view(3, 1, 1), torch.tensor(PREPROCESS["std"]).view(3, 1, 1)
    return (dyed.clamp(0, 1) - mean) / std


def clip_loss(images: Tensor, texts: Tensor, garment_ids: Tensor, scale: Tensor) -> Tensor:
    """Soft cross-entropy both ways over (n, d) unit rows; all pairs of one garment share the target."""
    targets = (garment_ids[:, None] == garment_ids[None, :]).float()
    targets /= targets.sum(1, keepdim=True)
    logits = scale * images @ texts.T
    return (F.cross_entropy(logits, targets) + F.cross_entropy(logits.T, targets)) / 2


def view_loss(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """Each of (n, d) unit rows should find its other view among all."""
    logits = first @ second.T / temperature
    targets = torch.arange(len(first))
    return (F.cross_entropy(logits, targets) + F.cross_entropy(logits.T, targets)) / 2


def train(
    model: CLIP, recipe: Recipe, pictures: Tensor, wearers: list[Garment], folder: Path, *, report_every: int = 100
) -> None:
    """Fits the model to (garments, SHOOTS, 3, SIZE, SIZE) bytes; saves it and logs its losses every so many steps."""
    torch.manual_seed(recipe.seed)
    random, generator = Random(recipe.seed), torch.Generator().manual_seed(recipe.seed)
    tokenizer = open_clip.SimpleTokenizer(context_length=MODEL["text_cfg"]["context_length"])
    choose = Chooser(wearers, recipe, generator)
    optimizer = _optimizer(model.train(), recipe)
    started, losses = time.monotonic(), np.zeros(2)
    for step in range(recipe.steps):
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * _schedule(step, recipe)
        chosen, which = choose()
        batch = pictures[chosen, which]
        again = batch[: recipe.second_views]
        with torch.autocast("cpu", torch.bfloat16):
            seen = model.encode_image(views(torch.cat([batch, again]), generator), normalize=True).float()
        said = F.normalize(encode_tokens(model, tokenizer([sentence(wearers[i], random) for i in chosen.tolist()])), dim=-1)
        first, second = seen[: len(batch)], seen[len(batch) :]
        aligned = clip_loss(first, said, chosen, model.logit_scale.exp().clamp(max=100))
        steady = view_loss(first[: len(again)], second, recipe.view_temperature)
        optimizer.zero_grad(set_to_none=True)
        (aligned + recipe.view_weight * steady).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses += (aligned.item(), steady.item())
        if (step + 1) % report_every == 0 or step + 1 == recipe.steps:
            _report(step + 1, recipe.steps, losses / (step % report_every + 1), time.monotonic() - started)
            losses[:] = 0
            save(model, folder)


class Chooser:
    """Draws batches: (n,) indices of garments and, for each, which of its shoots."""

    def __init__(self, wearers: list[Garment], recipe: Recipe, generator: torch.Generator) -> None:
        self.count, self.recipe, self.generator = len(wearers), recipe, generator
        looks: dict[tuple[str, str], list[int]] = {}
        for i, garment in enumerate(wearers):
            looks.setdefault((garment.colour, garment.pattern), []).append(i)
        self.looks = [torch.tensor(alike) for alike in looks.values()]

    def __call__(self) -> tuple[Tensor, Tensor]:
        recipe = self.recipe
        garments = self._alike(recipe.looks) if recipe.looks else self._some(self.count, recipe.garments)
        which = torch.rand(len(garments), SHOOTS, generator=self.generator).argsort(1)[:, : recipe.shoots]
        return garments.repeat_interleave(recipe.shoots), which.flatten()

    def _alike(self, looks: int) -> Tensor:
        share = self.recipe.garments // looks
        return torch.cat([self.looks[i][self._some(len(self.looks[i]), share)] for i in self._some(len(self.looks), looks)])

    def _some(self, count: int, wanted: int) -> Tensor:
        return torch.randint(count, (wanted,), generator=self.generator)


def _report(step: int, steps: int, losses: NDArray[np.float64], seconds: float) -> None:
    logger.info("step %d/%d  clip %.3f  views %.3f  %.0f s", step, steps, *losses, seconds)


def _optimizer(model: CLIP, recipe: Recipe) -> torch.optim.Optimizer:
    decayed = [p for name, p in model.named_parameters() if p.ndim >= 2 and "embedding" not in name]
    kept = [p for name, p in model.named_parameters() if p.ndim < 2 or "embedding" in name]
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": kept, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=(0.9, 0.98))


def _schedule(step: int, recipe: Recipe) -> float:
    if step < recipe.warmup:
        return (step + 1) / recipe.warmup
    return 0.5 * (1 + math.cos(math.pi * (step - recipe.warmup) / max(1, recipe.steps - recipe.warmup)))


def save(model: CLIP, folder: Path) -> None:
    """Writes the open_clip local folder: configuration, float16 weights, the tagger's vocabulary."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {"model_cfg": MODEL, "preprocess_cfg": PREPROCESS}
    (folder / "open_clip_config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    weights = {name: value.half().contiguous() for name, value in model.state_dict().items()}
    save_file(weights, folder / "open_clip_model.safetensors")
    words.vocabulary().write(folder / "vocabulary.json")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m mmretrieve.wardrobe.train", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for the model, saved every hundred steps")
    parser.add_argument("--second-stage", type=Path, metavar="FOLDER", help="go on from this model with the second stage alone")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    wearers, started = seen_garments(BROAD.seed), time.monotonic()
    with ProcessPoolExecutor() as pool:
        drawn = np.stack(list(pool.map(shoots, wearers, chunksize=32)))
    logger.info("%d drawings in %.0f s", drawn.shape[0] * SHOOTS, time.monotonic() - started)
    pictures = torch.from_numpy(drawn).permute(0, 1, 4, 2, 3)
    model = fresh_model(BROAD.seed)
    if options.second_stage:
        model.load_state_dict(load_file(options.second_stage / "open_clip_model.safetensors"))
    for recipe in (ALIKE,) if options.second_stage else (BROAD, ALIKE):
        train(model, recipe, pictures, wearers, options.out)


def fresh_model(seed: int) -> CLIP:
    """The untrained model."""
    torch.manual_seed(seed)
    return CLIP(**MODEL)


if __name__ == "__main__":
    main()
