"""Creates models whose weights come from a file, without drawing the random values that the file replaces.

Nothing else of their construction changes: constants and buffers are computed, and the file is loaded into the weights by name and shape.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from math import nan
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

NAMES = "uniform_", "normal_", "trunc_normal_", "kaiming_uniform_", "kaiming_normal_", "xavier_uniform_", "xavier_normal_"
RANDOM_FILLS = {getattr(nn.init, name) for name in NAMES} | {Tensor.uniform_, Tensor.normal_}


class _NoRandomValues(TorchFunctionMode):
    """Fills tensors with NaN where random values would be drawn in place. Other threads are not affected."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func not in RANDOM_FILLS:
            return func(*args, **kwargs)
        tensor: Tensor = args[0] if args else kwargs["tensor"]
        if not tensor.detach().flatten()[:1].isnan():  # layers are often filled twice
            tensor.detach().fill_(nan)
        return tensor


def create_loaded(create: Callable[[], nn.Module]) -> nn.Module:
    """The model that `create` constructs and loads. Raises ValueError if a weight was not loaded, or is NaN in the file.

    >>> create_loaded(lambda: nn.Linear(2, 2))
    Traceback (most recent call last):
    ...
    ValueError: 2 weights are missing or not numbers; first: weight
    """
    with _NoRandomValues():
        model = create()
    values = chain(model.named_parameters(), model.named_buffers())
    if names := [name for name, value in values if value.numel() and value.is_floating_point() and value.min().isnan()]:
        raise ValueError(f"{len(names)} weights are missing or not numbers; first: {names[0]}")
    return model
