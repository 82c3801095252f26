"""Training of the wardrobe's small CLIP on drawings: `python -m mmretrieve.wardrobe.train --out FOLDER`.

With `--captions FILE` it writes the captions on which the wardrobe's phi network is trained instead.

A run draws its own images, takes about an hour on two cores and writes an open_clip local folder. The loss is CLIP's (arXiv
2103.00020), in which all captions of the same garment in the batch are positives (as in UniCL, arXiv 2204.03610), plus SLIP's
(arXiv 2112.12750), which pulls two views of one drawing together. The second part preserves in the image vector what captions
never mention. No image–text–image triplets are used.
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
from mmretrieve.wardrobe.attributes import Garment, choices, garments, is_unseen, random_detail
from mmretrieve.wardrobe.captions import caption, change_prompt, training_captions, varied_caption, vocabulary
from mmretrieve.wardrobe.draw import draw

logger = logging.getLogger(__name__)
SIZE = 64  # pixels
PHI_CAPTIONS = 40_000  # for the training of a phi network
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
class TrainingStage:
    """The parameters of one stage of the training. Captions and batches depend on nothing else."""

    steps: int
    garments: int  # in a batch
    shoots: int  # of each garment in a batch
    looks: int | None  # distinct pairs of color and pattern in a batch; None does not restrict them
    learning_rate: float
    warmup: int
    second_views: int = 64  # drawings of a batch of which a second view is encoded
    weight_decay: float = 0.05
    view_weight: float = 0.3
    view_temperature: float = 0.1
    seed: int = 0


FIRST_STAGE = TrainingStage(steps=2600, garments=48, shoots=4, looks=None, learning_rate=1.5e-3, warmup=150)
# Batches of a few colors and patterns, in which shape, sleeves and neckline have to distinguish the garments.
SECOND_STAGE = TrainingStage(steps=600, garments=96, shoots=2, looks=8, learning_rate=6e-4, warmup=50, seed=1)


def seen_garments(seed: int) -> list[Garment]:
    """All garments that are not held out, in random order."""
    seen = [garment for garment in garments() if not is_unseen(garment)]
    Random(seed).shuffle(seen)
    return seen


def draw_shoots(garment: Garment) -> NDArray[np.uint8]:
    """Drawings of one garment in different scenes: (SHOOTS, SIZE, SIZE, 3) uint8."""
    random = Random(f"train/{garment}")
    images = [draw(garment, random_detail(random), seed=random.randrange(1 << 30), size=SIZE) for _ in range(SHOOTS)]
    return np.stack([np.asarray(image) for image in images])


def training_caption(garment: Garment, random: Random) -> str:
    """A caption with random wording: varied, plain with omitted attributes, a fragment, or one followed by a fragment."""
    style = random.random()
    names = list(choices(garment.kind))
    fragment = change_prompt(garment, random.sample(names, random.choice((1, 1, 2))), random)
    if style < 0.20:
        return fragment
    if style < 0.55:
        text = varied_caption(garment, random)
    else:
        text = caption(garment, omit={name for name in names if random.random() < 0.25})
    return text if random.random() < 0.65 else f"{text}, {fragment}"


def augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Normalized random views of images, shifted, scaled and tinted a little.

    Parameters
    ----------
    images : (n, 3, SIZE, SIZE) uint8.
    generator : source of randomness.

    Returns
    -------
    (n, 3, SIZE, SIZE) float32, normalized as the encoder expects.
    """
    count = len(images)

    def jitter(*shape: int, limit: float) -> Tensor:
        return (torch.rand(*shape, generator=generator) * 2 - 1) * limit

    transform = torch.zeros(count, 2, 3)
    transform[:, 0, 0] = transform[:, 1, 1] = 1 + jitter(count, limit=0.12)
    transform[:, :, 2] = jitter(count, 2, limit=0.10)
    grid = F.affine_grid(transform, [count, 3, SIZE, SIZE], align_corners=False)
    moved = F.grid_sample(images.float() / 255, grid, padding_mode="reflection", align_corners=False)
    tinted = moved * (1 + jitter(count, 1, 1, 1, limit=0.05)) * (1 + jitter(count, 3, 1, 1, limit=0.02))
    mean, std = torch.tensor(PREPROCESS["mean"]).view(3, 1, 1), torch.tensor(PREPROCESS["std"]).view(3, 1, 1)
    return (tinted.clamp(0, 1) - mean) / std


def clip_loss(images: Tensor, texts: Tensor, garment_ids: Tensor, scale: Tensor) -> Tensor:
    """CLIP's loss in which all pairs of the same garment are positives.

    Parameters
    ----------
    images, texts : (n, d) unit rows.
    garment_ids : (n,) equal for rows of the same garment.
    scale : logit scale.

    Returns
    -------
    The mean cross-entropy of both directions, a scalar.

    Source: CLIP (arXiv 2103.00020), UniCL (arXiv 2204.03610).
    """
    targets = (garment_ids[:, None] == garment_ids[None, :]).float()
    targets /= targets.sum(1, keepdim=True)
    logits = scale * images @ texts.T
    return (F.cross_entropy(logits, targets) + F.cross_entropy(logits.T, targets)) / 2


def view_loss(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """Contrastive loss between two views of the same images.

    Parameters
    ----------
    first, second : (n, d) unit rows; row i of both is a view of image i.
    temperature : divides the scores.

    Returns
    -------
    The mean cross-entropy of both directions, a scalar.

    Source: SLIP (arXiv 2112.12750).
    """
    logits = first @ second.T / temperature
    targets = torch.arange(len(first))
    return (F.cross_entropy(logits, targets) + F.cross_entropy(logits.T, targets)) / 2


def train(
    model: CLIP, stage: TrainingStage, images: Tensor, subjects: list[Garment], folder: Path, *, report_every: int = 100
) -> None:
    """Train the model for one stage. Every `report_every` steps its losses are logged and it is saved.

    Parameters
    ----------
    model : the model; it is changed.
    stage : parameters of the stage.
    images : (garments, SHOOTS, 3, SIZE, SIZE) uint8.
    subjects : the garment of each row of `images`.
    folder : where the model is saved.
    report_every : steps between two reports.
    """
    torch.manual_seed(stage.seed)
    random, generator = Random(stage.seed), torch.Generator().manual_seed(stage.seed)
    tokenizer = open_clip.SimpleTokenizer(context_length=MODEL["text_cfg"]["context_length"])
    sample_batch = BatchSampler(subjects, stage, generator)
    optimizer = _optimizer(model.train(), stage)
    started, losses = time.monotonic(), np.zeros(2)
    for step in range(stage.steps):
        for group in optimizer.param_groups:
            group["lr"] = stage.learning_rate * _schedule(step, stage)
        chosen, shoots = sample_batch()
        batch = images[chosen, shoots]
        repeated = batch[: stage.second_views]
        with torch.autocast("cpu", torch.bfloat16):
            encoded = model.encode_image(augment(torch.cat([batch, repeated]), generator), normalize=True).float()
        tokens = tokenizer([training_caption(subjects[i], random) for i in chosen.tolist()])
        texts = F.normalize(encode_tokens(model, tokens), dim=-1)
        first, second = encoded[: len(batch)], encoded[len(batch) :]
        text_loss = clip_loss(first, texts, chosen, model.logit_scale.exp().clamp(max=100))
        image_loss = view_loss(first[: len(repeated)], second, stage.view_temperature)
        optimizer.zero_grad(set_to_none=True)
        (text_loss + stage.view_weight * image_loss).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses += (text_loss.item(), image_loss.item())
        if (step + 1) % report_every == 0 or step + 1 == stage.steps:
            _report(step + 1, stage.steps, losses / (step % report_every + 1), time.monotonic() - started)
            losses[:] = 0
            save(model, folder)


class BatchSampler:
    """Samples batches: calling it returns (n,) indices of garments, and the shoot of each."""

    def __init__(self, subjects: list[Garment], stage: TrainingStage, generator: torch.Generator) -> None:
        self.count, self.stage, self.generator = len(subjects), stage, generator
        looks: dict[tuple[str, str], list[int]] = {}
        for i, garment in enumerate(subjects):
            looks.setdefault((garment.colour, garment.pattern), []).append(i)
        self.looks = [torch.tensor(rows) for rows in looks.values()]

    def __call__(self) -> tuple[Tensor, Tensor]:
        stage = self.stage
        garments = self._of_few_looks(stage.looks) if stage.looks else self._sample(self.count, stage.garments)
        shoots = torch.rand(len(garments), SHOOTS, generator=self.generator).argsort(1)[:, : stage.shoots]
        return garments.repeat_interleave(stage.shoots), shoots.flatten()

    def _of_few_looks(self, looks: int) -> Tensor:
        share = self.stage.garments // looks
        return torch.cat([self.looks[i][self._sample(len(self.looks[i]), share)] for i in self._sample(len(self.looks), looks)])

    def _sample(self, count: int, size: int) -> Tensor:
        return torch.randint(count, (size,), generator=self.generator)


def _report(step: int, steps: int, losses: NDArray[np.float64], seconds: float) -> None:
    logger.info("step %d/%d  clip %.3f  views %.3f  %.0f s", step, steps, *losses, seconds)


def _optimizer(model: CLIP, stage: TrainingStage) -> torch.optim.Optimizer:
    decayed = [p for name, p in model.named_parameters() if p.ndim >= 2 and "embedding" not in name]
    kept = [p for name, p in model.named_parameters() if p.ndim < 2 or "embedding" in name]
    groups = [{"params": decayed, "weight_decay": stage.weight_decay}, {"params": kept, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=stage.learning_rate, betas=(0.9, 0.98))


def _schedule(step: int, stage: TrainingStage) -> float:
    if step < stage.warmup:
        return (step + 1) / stage.warmup
    return 0.5 * (1 + math.cos(math.pi * (step - stage.warmup) / max(1, stage.steps - stage.warmup)))


def save(model: CLIP, folder: Path) -> None:
    """Write an open_clip local folder: configuration, float16 weights, and the vocabulary of the tagger."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {"model_cfg": MODEL, "preprocess_cfg": PREPROCESS}
    (folder / "open_clip_config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    weights = {name: value.half().contiguous() for name, value in model.state_dict().items()}
    save_file(weights, folder / "open_clip_model.safetensors")
    vocabulary().write(folder / "vocabulary.json")


def main(arguments: list[str] | None = None) -> None:
    """Train the model with both stages, or with the second one alone."""
    parser = argparse.ArgumentParser(prog="python -m mmretrieve.wardrobe.train", description=__doc__.splitlines()[0])
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument("--captions", type=Path, metavar="FILE", help="write captions for a phi network, one a line, and exit")
    target.add_argument("--out", type=Path, metavar="FOLDER", help="folder of the model, which is saved every hundred steps")
    parser.add_argument(
        "--second-stage", type=Path, metavar="FOLDER", help="start from this model and run only the second stage"
    )
    options = parser.parse_args(arguments)
    if options.captions:
        options.captions.write_text("\n".join(training_captions(PHI_CAPTIONS)) + "\n", encoding="utf-8")
        return
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    subjects, started = seen_garments(FIRST_STAGE.seed), time.monotonic()
    with ProcessPoolExecutor() as pool:
        drawn = np.stack(list(pool.map(draw_shoots, subjects, chunksize=32)))
    logger.info("%d drawings in %.0f s", drawn.shape[0] * SHOOTS, time.monotonic() - started)
    images = torch.from_numpy(drawn).permute(0, 1, 4, 2, 3)
    model = new_model(FIRST_STAGE.seed)
    if options.second_stage:
        model.load_state_dict(load_file(options.second_stage / "open_clip_model.safetensors"))
    for stage in (SECOND_STAGE,) if options.second_stage else (FIRST_STAGE, SECOND_STAGE):
        train(model, stage, images, subjects, options.out)


def new_model(seed: int) -> CLIP:
    """The untrained model."""
    torch.manual_seed(seed)
    return CLIP(**MODEL)


if __name__ == "__main__":
    main()
