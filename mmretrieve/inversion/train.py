"""Trains a phi network from captions alone, as LinCIR does (arXiv 2312.01998). No images are needed.

Every noun phrase of a caption is replaced by one pseudo token, which phi makes from the text feature of the caption plus noise.
The loss is the mean squared error between the feature of that sentence and the feature of the caption.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from mmretrieve.encoders.openclip import OpenClipEncoder
from mmretrieve.errors import EncoderError, OptionError
from mmretrieve.inversion.phi import SearlePhi, replacing, save_phi
from mmretrieve.inversion.recipe import PhiRecipe, SplitCaption, split_captions
from mmretrieve.options import check_regular

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ValidationPoint:
    """One point of the validation curve: mean squared errors per component of a text feature."""

    step: int
    training: float
    validation: float
    seconds: float


def read_captions(path: Path) -> list[str]:
    """Reads one caption per line; empty lines are skipped. Raises OptionError if the file cannot be read or has no caption."""
    try:
        lines = [line.strip() for line in check_regular(path).read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        reason = "not UTF-8 text" if isinstance(error, UnicodeDecodeError) else (error.strerror or str(error)).lower()
        raise OptionError(f"{path}: {reason}; expected a text file with one caption per line") from error
    if not any(lines):
        raise OptionError(f"{path}: contains no caption; expected one caption per line")
    return [line for line in lines if line]


def train_phi(
    captions: Sequence[str],
    encoder: OpenClipEncoder,
    out: Path,
    recipe: PhiRecipe | None = None,
    *,
    report: Callable[[ValidationPoint], object] | None = None,
) -> ValidationPoint:
    """Trains a phi and saves the weights with the lowest validation loss.

    One twentieth of the captions is used for validation. An interrupted run resumes from its state and ends with the same
    weights.

    Parameters
    ----------
    captions : sequence of str
        The training data.
    encoder : OpenClipEncoder
        The encoder for which the phi is made.
    out : Path
        A .safetensors file. The validation curve (`.curve.jsonl`) and the state of the run (`.state`) are written next to it.
    recipe : PhiRecipe, optional
        The settings.
    report : callable, optional
        Called with every ValidationPoint.

    Returns
    -------
    ValidationPoint
        The point with the lowest validation loss.

    Raises
    ------
    OptionError
        Too few captions have a noun phrase, the loss is not finite, or the state belongs to another run.
    """
    if out.is_dir():
        raise OptionError(f"{out} is a folder: give --out FILE.safetensors in it")
    if out.suffix != ".safetensors":
        raise OptionError(f"{out}: the name of the file must end in .safetensors")
    if not out.absolute().parent.is_dir():
        raise OptionError(f"{out}: there is no folder {out.absolute().parent}; create it first")
    return _Run(captions, encoder, out, recipe or PhiRecipe(), report).run()


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
        self.training, self.validation = split_captions(captions)
        torch.manual_seed(recipe.seed)
        self.net = SearlePhi(encoder.dim, 4 * encoder.dim, encoder.pseudo_tokens.width).to(encoder.device)
        self.optimizer = torch.optim.AdamW(self.net.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay)
        self.step, self.curve = 0, list[ValidationPoint]()
        self.state_file, self.curve_file = out.with_suffix(".state"), out.with_suffix(".curve.jsonl")
        self.run_identity = {"recipe": asdict(recipe), "encoder": encoder.identity.weights, "captions": _digest(captions)}

    def run(self) -> ValidationPoint:
        self._resume()
        started, losses = time.monotonic(), list[float]()
        while self.step < self.recipe.steps:
            losses.append(self._train_step())
            self.step += 1
            if self.step % self.recipe.validate_every == 0 or self.step == self.recipe.steps:
                point = ValidationPoint(self.step, sum(losses) / len(losses), self.validate(), time.monotonic() - started)
                if not (math.isfinite(point.training) and math.isfinite(point.validation)):
                    raise OptionError(f"the loss at step {self.step} is {point.training}; lower the learning rate or the noise")
                self._save(point)
                losses.clear()
        return min(self.curve, key=lambda point: point.validation)

    def _train_step(self) -> float:
        generator = torch.Generator().manual_seed(
            self.recipe.seed * 1_000_003 + self.step
        )  # a resumed run draws the same batches
        rows = torch.randint(len(self.training), (min(self.recipe.batch, len(self.training)),), generator=generator).tolist()
        self.net.train()
        torch.manual_seed(self.step)  # seeds dropout
        loss = self._loss([self.training[row] for row in rows], generator)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return float(loss.item())

    @torch.no_grad()
    def validate(self) -> float:
        """The loss on the validation captions, without noise and dropout."""
        self.net.eval()
        total = 0.0
        for start in range(0, len(self.validation), self.recipe.batch):
            captions = self.validation[start : start + self.recipe.batch]
            total += float(self._loss(captions, None).item()) * len(captions)
        return total / len(self.validation)

    def _loss(self, captions: Sequence[SplitCaption], generator: torch.Generator | None) -> Tensor:
        features = torch.from_numpy(self.encoder.text_features([caption for caption, _ in captions]))
        noisy = features
        if generator is not None:
            scale = self.recipe.noise * torch.rand(len(features), 1, generator=generator)
            noisy = features + scale * torch.randn(features.shape, generator=generator)
        tokens = self.net(noisy.to(self.encoder.device))
        predicted = self.encoder.pseudo_tokens.features([pieces for _, pieces in captions], tokens)
        return F.mse_loss(predicted, features.to(predicted.device))

    def _save(self, point: ValidationPoint) -> None:
        """Saves the phi if it is the best so far, then the state and the curve, so that a run resumes at a validation point."""
        if point.validation < min((earlier.validation for earlier in self.curve), default=float("inf")):
            save_phi(self.net, self.out, self.encoder)
        self.curve.append(point)
        state: dict[str, Any] = {
            "mark": json.dumps(self.run_identity, sort_keys=True),
            "step": self.step,
            "net": self.net.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "curve": [list(asdict(earlier).values()) for earlier in self.curve],
        }
        with replacing(self.state_file) as partial:
            torch.save(state, partial)
        with replacing(self.curve_file) as partial:
            partial.write_text("".join(json.dumps(asdict(earlier)) + "\n" for earlier in self.curve), encoding="utf-8")
        if self.report is not None:
            self.report(point)

    def _resume(self) -> None:
        if not self.state_file.exists():
            return
        try:
            state = torch.load(self.state_file, map_location=self.encoder.device, weights_only=True)
            run_identity, self.step = state["mark"], state["step"]
            self.curve = [ValidationPoint(*values) for values in state["curve"]]
            self.net.load_state_dict(state["net"])
            self.optimizer.load_state_dict(state["optimizer"])
        except Exception as error:  # of torch or of a missing key
            raise EncoderError(f"{self.state_file}: not the state of a training run; delete it to start again") from error
        if run_identity != json.dumps(self.run_identity, sort_keys=True):
            raise OptionError(
                f"{self.state_file}: belongs to a run with other captions, encoder or settings; delete it or choose another --out"
            )
        if not self.out.exists():
            raise OptionError(
                f"{self.out} is missing, but the state of its run exists; delete {self.state_file} to start again"
            )
        logger.info("resuming from step %d", self.step)


def _digest(captions: Sequence[str]) -> str:
    return hashlib.blake2b("\n".join(captions).encode(), digest_size=16).hexdigest()
