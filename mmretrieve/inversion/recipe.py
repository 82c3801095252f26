"""What a training run of a phi depends on besides captions and encoder. Nothing heavy here: the shell shows its defaults."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from mmretrieve.errors import OptionError


@dataclass(frozen=True, kw_only=True)
class PhiRecipe:
    """Learning rate and weight decay as published (LinCIR). OptionError for settings that cannot train."""

    steps: int = 20_000
    batch: int = 512
    learning_rate: float = 1e-4
    weight_decay: float = 0.01
    noise: float = 1.0
    validate_every: int = 500
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "validate_every"):
            if getattr(self, name) < 1:
                raise OptionError(f"{name} must be at least 1, got {getattr(self, name)!r}")
        if not (0 < self.learning_rate < inf and 0 <= self.noise < inf):
            raise OptionError(
                f"learning_rate must be above 0 and noise at least 0, got {self.learning_rate!r} and {self.noise!r}"
            )
