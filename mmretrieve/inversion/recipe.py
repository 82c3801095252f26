"""What a training run of a phi depends on besides captions and encoder. Nothing heavy here: the shell shows its defaults."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from mmretrieve.errors import OptionError

MOST = 2**31


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
        for name, least in (("steps", 1), ("batch", 1), ("validate_every", 1), ("seed", 0)):
            value = getattr(self, name)
            if not isinstance(value, int) or not least <= value <= MOST:
                raise OptionError(f"{name} must be a whole number from {least} to {MOST}, got {value!r}")
        for name in ("learning_rate", "weight_decay", "noise"):
            value = getattr(self, name)
            if not isinstance(value, int | float) or not 0 <= value < inf:
                raise OptionError(f"{name} must be a number of at least 0, got {value!r}")
