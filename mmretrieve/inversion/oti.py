"""Optimization-based textual inversion (SEARLE, arXiv 2303.15247): gradient descent on one pseudo token per image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from mmretrieve.encoders.base import Progress
from mmretrieve.encoders.openclip import OpenClipEncoder
from mmretrieve.encoders.pseudo_tokens import Pieces
from mmretrieve.errors import OptionError
from mmretrieve.vectors import Float32, unit

TEMPLATES = tuple(Path(__file__).with_name("templates.txt").read_text(encoding="utf-8").splitlines())
Phrase = tuple[Pieces, str]
"""A phrase split at a concept, and the whole phrase: `(("a", "runs in a park"), "a dog runs in a park")`."""


@dataclass(frozen=True, kw_only=True)
class OTI:
    """The published settings: 350 steps of AdamW, learning rate 2e-2, weight decay 0.01, exponential mean of the tokens (0.99).

    Each step inserts the token in one of `templates` and minimizes 1 − cosine of sentence and image. With phrases about the
    content of the image, it also minimizes (× `phrase_weight`) 1 − cosine of each phrase with the token in the place of its
    concept and the phrase itself. Raises OptionError for settings out of range.
    """

    steps: int = 350
    learning_rate: float = 2e-2
    weight_decay: float = 0.01
    mean: float = 0.99
    spread: float = 0.02
    phrase_weight: float = 0.5
    batch: int = 256
    seed: int = 0
    templates: Sequence[str] = TEMPLATES

    def __post_init__(self) -> None:
        for name, expected, is_valid in (
            ("steps", "a whole number of at least 0", self.steps >= 0),
            ("batch", "a whole number of at least 1", self.batch >= 1),
            ("learning_rate", "a number between 0 and 1", 0 < self.learning_rate < 1),
            ("mean", "a number from 0 to less than 1", 0 <= self.mean < 1),
            ("templates", "a list of at least one sentence with *", bool(self.templates)),
        ):
            if not is_valid:
                raise OptionError(f"OTI: {name} must be {expected}, got {getattr(self, name)!r}")

    def tokens(
        self,
        features: Float32,
        encoder: OpenClipEncoder,
        *,
        phrases: Sequence[Sequence[Phrase]] | None = None,
        progress: Progress | None = None,
    ) -> Tensor:
        """(n, width) pseudo tokens for (n, d) image features of any length. They do not depend on the batch.

        `phrases` are those of each image. `progress` is called with the number of images of each completed batch.
        """
        targets = torch.from_numpy(unit(features, "image features")).to(encoder.device)
        batches = [torch.empty(0, encoder.pseudo_tokens.width)]
        for start in range(0, len(targets), self.batch):
            rows = slice(start, start + self.batch)
            batches.append(self._optimize(targets[rows], encoder, phrases[rows] if phrases is not None else None))
            if progress is not None:
                progress(len(batches[-1]))
        return torch.cat(batches)

    def start(self, count: int, width: int) -> Tensor:
        """(count, width) initial tokens: the same random token for every image."""
        generator = torch.Generator().manual_seed(self.seed)
        return (torch.randn(1, width, generator=generator) * self.spread).repeat(count, 1)

    def _optimize(self, targets: Tensor, encoder: OpenClipEncoder, phrases: Sequence[Sequence[Phrase]] | None) -> Tensor:
        tokens = self.start(len(targets), encoder.pseudo_tokens.width).to(encoder.device).requires_grad_()
        optimizer = torch.optim.AdamW([tokens], lr=self.learning_rate, weight_decay=self.weight_decay)
        sampler = torch.Generator().manual_seed(self.seed)
        mean = tokens.detach().clone()
        for step in range(self.steps):
            template = self.templates[int(torch.randint(len(self.templates), (1,), generator=sampler))]
            loss = _cosine_loss(encoder, [template.split("*")] * len(targets), tokens, targets)
            if phrases is not None:
                loss = loss + self.phrase_weight * _phrase_loss(encoder, phrases, tokens, step)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            mean.lerp_(tokens.detach(), 1 - self.mean)
        return mean.cpu()


def _cosine_loss(encoder: OpenClipEncoder, sentences: Sequence[Pieces], tokens: Tensor, targets: Tensor) -> Tensor:
    """Σ (1 − cosine) of each sentence and its target."""
    features = F.normalize(encoder.pseudo_tokens.features(sentences, tokens), dim=-1)
    return (1 - (features * targets).sum(dim=-1)).sum()


def _phrase_loss(encoder: OpenClipEncoder, phrases: Sequence[Sequence[Phrase]], tokens: Tensor, step: int) -> Tensor:
    chosen = [several[step % len(several)] for several in phrases]
    targets = torch.from_numpy(encoder.encode_texts([whole for _, whole in chosen])).to(encoder.device)
    return _cosine_loss(encoder, [pieces for pieces, _ in chosen], tokens, targets)
