"""Trains a phi from captions alone, as LinCIR does (arXiv 2312.01998): no picture is needed.

Every noun phrase of a caption gives way to one pseudo token, made by phi from the caption's own text feature with noise
on it, and the sentence should mean what it meant: the loss is the mean squared error to the caption's feature.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from mmretrieve.encoders.openclip import OpenClipEncoder
from mmretrieve.encoders.pseudo_tokens import Pieces
from mmretrieve.errors import EncoderError, OptionError
from mmretrieve.inversion.phi import SearlePhi, save_phi
from mmretrieve.inversion.phrases import cut
from mmretrieve.inversion.recipe import PhiRecipe

MOST_HELD_OUT, SHARE_HELD_OUT = 2048, 0.05
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ValidationPoint:
    """One point of the validation curve: mean squared errors, per number of a text feature."""

    step: int
    training: float
    validation: float
    seconds: float


@dataclass(frozen=True)
class PhraseSplit:
    """Captions that have a noun phrase, whole and in pieces."""

    captions: tuple[str, ...]
    pieces: tuple[Pieces, ...]

    def __len__(self) -> int:
        return len(self.captions)


def read_captions(path: Path) -> list[str]:
    """One caption a line; empty lines are passed over. OptionError where the file cannot be read or holds none."""
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(f"{path}: cannot be read as text, one caption a line ({error})") from error
    if not any(lines):
        raise OptionError(f"{path}: holds no caption; expected one a line")
    return [line for line in lines if line]


def train_phi(
    captions: Sequence[str],
    encoder: OpenClipEncoder,
    out: Path,
    recipe: PhiRecipe | None = None,
    *,
    report: Callable[[ValidationPoint], object] | None = None,
) -> ValidationPoint:
    """Trains, and keeps in `out` the phi of the lowest validation loss, which is returned with its step.

    A twentieth of the captions is held out. The curve is written beside `out` (`.curve.jsonl`), and the state of the run
    (`.state`), from which an interrupted run goes on to the same end. OptionError where too few captions have a noun phrase
    or the run in `.state` is another one.
    """
    if out.suffix != ".safetensors" or out.is_dir() or not out.absolute().parent.is_dir():
        raise OptionError(f"{out}: a phi is written to a .safetensors file in a folder that is there")
    return _Run(captions, encoder, out, recipe or PhiRecipe(), report).go()


class _Run:
    def __init__(
        self,
        captions: Sequence[str],
        encoder: OpenClipEncoder,
        out: Path,
        recipe: PhiRecipe,
        report: Callable[[ValidationPoint], object] | None,
    ) -> None:
        self.encoder, self.out, self.recipe, self.report = encoder, out, recipe, report
        self.training, self.held_out = _split(captions)
        torch.manual_seed(recipe.seed)
        self.net = SearlePhi(encoder.dim, 4 * encoder.dim, encoder.pseudo_tokens.width).to(encoder.device)
        self.optimizer = torch.optim.AdamW(self.net.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay)
        self.step, self.curve = 0, list[ValidationPoint]()
        self.state_file, self.curve_file = out.with_suffix(".state"), out.with_suffix(".curve.jsonl")
        self.mark = {"recipe": asdict(recipe), "encoder": encoder.identity.weights, "captions": _digest(captions)}

    def go(self) -> ValidationPoint:
        self._resume()
        started, losses = time.monotonic(), list[float]()
        while self.step < self.recipe.steps:
            losses.append(self._learn())
            self.step += 1
            if self.step % self.recipe.validate_every == 0 or self.step == self.recipe.steps:
                point = ValidationPoint(self.step, sum(losses) / len(losses), self.validate(), time.monotonic() - started)
                if not (math.isfinite(point.training) and math.isfinite(point.validation)):
                    raise OptionError(f"the loss at step {self.step} is {point.training}; lower the learning rate or the noise")
                self._keep(point)
                losses.clear()
        return min(self.curve, key=lambda point: point.validation)

    def _learn(self) -> float:
        generator = torch.Generator().manual_seed(
            self.recipe.seed * 1_000_003 + self.step
        )  # so that a resumed run draws the same
        chosen = torch.randint(len(self.training), (min(self.recipe.batch, len(self.training)),), generator=generator).tolist()
        self.net.train()
        torch.manual_seed(self.step)  # dropout
        loss = self._loss(self.training, chosen, generator)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return float(loss.item())

    @torch.no_grad()
    def validate(self) -> float:
        """The loss on what is held out, without noise and dropout."""
        self.net.eval()
        total = 0.0
        for start in range(0, len(self.held_out), self.recipe.batch):
            rows = range(start, min(start + self.recipe.batch, len(self.held_out)))
            total += float(self._loss(self.held_out, rows, None).item()) * len(rows)
        return total / len(self.held_out)

    def _loss(self, data: PhraseSplit, rows: Sequence[int], generator: torch.Generator | None) -> Tensor:
        features = torch.from_numpy(self.encoder.text_features([data.captions[i] for i in rows]))
        noisy = features
        if generator is not None:
            scale = self.recipe.noise * torch.rand(len(features), 1, generator=generator)
            noisy = features + scale * torch.randn(features.shape, generator=generator)
        tokens = self.net(noisy.to(self.encoder.device))
        said = self.encoder.pseudo_tokens.features([data.pieces[i] for i in rows], tokens)
        return F.mse_loss(said, features.to(said.device))

    def _keep(self, point: ValidationPoint) -> None:
        """Writes the phi where it is the best so far, then the state and the curve: a run goes on from whole points."""
        if point.validation < min((known.validation for known in self.curve), default=float("inf")):
            save_phi(self.net, self.out, self.encoder)
        self.curve.append(point)
        state: dict[str, Any] = {
            "mark": json.dumps(self.mark, sort_keys=True),
            "step": self.step,
            "net": self.net.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "curve": [list(asdict(known).values()) for known in self.curve],
        }
        partial = self.state_file.with_name(f"{self.state_file.name}.part")
        torch.save(state, partial)
        os.replace(partial, self.state_file)
        self.curve_file.write_text("".join(json.dumps(asdict(known)) + "\n" for known in self.curve), encoding="utf-8")
        if self.report is not None:
            self.report(point)

    def _resume(self) -> None:
        if not self.state_file.exists():
            return
        try:
            state = torch.load(self.state_file, map_location=self.encoder.device, weights_only=True)
            mark, self.step = state["mark"], state["step"]
            self.curve = [ValidationPoint(*values) for values in state["curve"]]
            self.net.load_state_dict(state["net"])
            self.optimizer.load_state_dict(state["optimizer"])
        except Exception as error:  # whatever torch stumbles on
            raise EncoderError(f"{self.state_file}: not the state of a training run; delete it to begin again") from error
        if mark != json.dumps(self.mark, sort_keys=True):
            raise OptionError(
                f"{self.state_file}: belongs to a run with other captions, encoder or settings; delete it or name another --out"
            )
        if not self.out.exists():
            raise OptionError(f"{self.out} is gone, but its run in {self.state_file} is there; delete that to begin again")
        logger.info("going on from step %d", self.step)


def _digest(captions: Sequence[str]) -> str:
    return hashlib.blake2b("\n".join(captions).encode(), digest_size=16).hexdigest()


def _split(captions: Sequence[str]) -> tuple[PhraseSplit, PhraseSplit]:
    """(training, held out): captions with a noun phrase, the held-out ones spread evenly over the file, none in both."""
    pieces = {caption: cut(caption) for caption in dict.fromkeys(captions)}
    usable = [caption for caption, own in pieces.items() if len(own) > 1]
    every = max(2, round(1 / SHARE_HELD_OUT), len(usable) // MOST_HELD_OUT)
    held_out, training = usable[::every], [caption for i, caption in enumerate(usable) if i % every]
    if not training:
        raise OptionError(
            f"{len(usable)} of {len(captions)} captions have a noun phrase; training needs some to learn from and some to hold out"
        )
    return tuple(PhraseSplit(tuple(part), tuple(pieces[caption] for caption in part)) for part in (training, held_out))  # type: ignore[return-value]
