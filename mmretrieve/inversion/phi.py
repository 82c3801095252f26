"""phi: a small network that maps an image feature to a pseudo token, in the two published architectures.

Pic2Word (arXiv 2302.03084): two blocks Linear → Dropout → ReLU, width 512, then `fc_out`.
SEARLE (arXiv 2303.15247) and LinCIR (arXiv 2312.01998): Linear → GELU → Dropout, twice, 4 times the input width, then Linear.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from mmretrieve.encoders.openclip import OpenClipEncoder
from mmretrieve.errors import EncoderError
from mmretrieve.options import check_regular
from mmretrieve.vectors import Float32

ENCODER_KEY, FILE = "encoder weights", "phi.safetensors"
CONTAINER_KEYS = ("Phi", "state_dict_img2text", "state_dict")  # of the phi in published checkpoints


class Pic2WordPhi(nn.Module):
    """The network of Pic2Word (arXiv 2302.03084), with the weights `layers.{0,1}.0.*` and `fc_out.*`."""

    first, last = "layers.0.0.weight", "fc_out.weight"

    def __init__(self, dim: int, hidden: int, width: int, dropout: float = 0.1) -> None:
        super().__init__()
        blocks = [nn.Sequential(nn.Linear(size, hidden), nn.Dropout(dropout), nn.ReLU()) for size in (dim, hidden)]
        self.layers, self.fc_out = nn.ModuleList(blocks), nn.Linear(hidden, width)

    def forward(self, features: Tensor) -> Tensor:
        for block in self.layers:
            features = block(features)
        out: Tensor = self.fc_out(features)
        return out


class SearlePhi(nn.Module):
    """The network of SEARLE (arXiv 2303.15247) and LinCIR (arXiv 2312.01998), with the weights `layers.{0,3,6}.*`."""

    first, last = "layers.0.weight", "layers.6.weight"

    def __init__(self, dim: int, hidden: int, width: int, dropout: float = 0.5) -> None:
        super().__init__()
        inner = (
            nn.Linear(dim, hidden),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, hidden),
            nn.GELU(),
            nn.Dropout(dropout),
        )
        self.layers = nn.Sequential(*inner, nn.Linear(hidden, width))

    def forward(self, features: Tensor) -> Tensor:
        out: Tensor = self.layers(features)
        return out


@dataclass(frozen=True)
class Phi:
    """A phi network, bound to the encoder it was made for."""

    net: nn.Module
    encoder_weights: str

    def tokens(self, features: Float32, encoder: OpenClipEncoder) -> Tensor:
        """(n, width) pseudo tokens for (n, d) image features, not normalized. Raises EncoderError for another encoder."""
        if encoder.identity.weights != self.encoder_weights:
            raise EncoderError(
                f"this phi was made for the encoder with weights {self.encoder_weights[:12]}, not for {encoder.identity}; give the phi of this encoder"
            )
        with torch.inference_mode():
            tokens: Tensor = self.net.eval()(torch.from_numpy(np.asarray(features, dtype=np.float32)))
        return tokens


def load_phi(path: str | Path, encoder: OpenClipEncoder) -> Phi:
    """Loads a phi for an encoder.

    Parameters
    ----------
    path : str or Path
        A published checkpoint (`.pt`, read with `weights_only`), or a safetensors file of `save_phi`.
    encoder : OpenClipEncoder
        The encoder it was made for. Published checkpoints do not name their encoder; for them only the widths are checked.

    Raises
    ------
    EncoderError
        The file is not a phi (missing and unexpected keys are named), or it was made for another encoder.
    """
    weights, made_for = _read(Path(path))
    net, (dim, inner, width) = _architecture(weights, Path(path))
    expected = (encoder.dim, encoder.pseudo_tokens.width)
    if (dim, width) != expected or made_for not in (None, encoder.identity.weights):
        origin = f"for the encoder with weights {made_for[:12]}" if made_for else f"from {dim} to {width} dimensions"
        raise EncoderError(
            f"{path}: this phi is {origin}; {encoder.identity} needs one from {expected[0]} to {expected[1]} dimensions"
        )
    with torch.device("meta"):  # without memory: the widths are those of a stranger's file, whose weights may have other shapes
        module = net(dim, inner, width)
    try:
        module.load_state_dict({name: value.float() for name, value in weights.items()}, assign=True)
    except RuntimeError as error:
        raise EncoderError(f"{path}: the shapes do not fit a {net.__name__}: {' '.join(str(error).split())}") from error
    return Phi(module.eval().requires_grad_(False), encoder.identity.weights)


def save_phi(net: SearlePhi | Pic2WordPhi, path: Path, encoder: OpenClipEncoder) -> None:
    """Writes the float16 weights and the identity of their encoder as safetensors. The file is replaced atomically."""
    weights = {name: value.detach().cpu().half().contiguous() for name, value in net.state_dict().items()}
    with replacing(path) as partial:
        save_file(weights, partial, {ENCODER_KEY: encoder.identity.weights, "encoder": encoder.identity.model})


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file that replaces `path` when the block ends. Raises EncoderError if it cannot be written; then `path` is unchanged."""
    partial = path.with_name(f"{path.name}.part")
    try:
        yield partial
        partial.replace(path)
    except (OSError, RuntimeError, SafetensorError) as error:  # PyTorch's and safetensors' own errors do not name the file
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        reason = getattr(error, "strerror", None) or "is the disk full?"
        raise EncoderError(f"{path}: could not be written ({reason}); what was saved before is safe") from error


def _read(path: Path) -> tuple[dict[str, Tensor], str | None]:
    """The weights by their plain names, and the weights hash of the encoder if the file contains it."""
    try:
        check_regular(path)
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not iterable itself
                return _plain_names(weights), (file.metadata() or {}).get(ENCODER_KEY)
        return _plain_names(torch.load(path, map_location="cpu", weights_only=True)), None
    except OSError as error:
        raise EncoderError(f"{path}: {error.strerror or error}") from error
    except Exception as error:  # of the parser; also a file that would need to execute code
        raise EncoderError(
            f"{path}: not a checkpoint of plain tensors ({type(error).__name__}), which is the only supported format"
        ) from error


def _plain_names(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    inner = next((checkpoint[name] for name in CONTAINER_KEYS if isinstance(checkpoint.get(name), Mapping)), checkpoint)
    names = {str(name).removeprefix("Phi.").removeprefix("module."): value for name, value in inner.items()}
    return {name: value for name, value in names.items() if isinstance(value, Tensor)}


def _architecture(weights: Mapping[str, Tensor], path: Path) -> tuple[type[Pic2WordPhi | SearlePhi], tuple[int, int, int]]:
    """The network class and the (input, inner, output) widths of weights. Raises EncoderError, naming what does not fit."""
    net = Pic2WordPhi if Pic2WordPhi.last in weights else SearlePhi
    expected = set(net(1, 1, 1).state_dict())
    missing, extra = sorted(expected - set(weights)), sorted(set(weights) - expected)
    if missing or extra:
        differences = [f"{what}: {', '.join(names[:8])}" for what, names in (("missing", missing), ("extra", extra)) if names]
        raise EncoderError(f"{path}: not the phi of Pic2Word, SEARLE or LinCIR; {'; '.join(differences)}")
    if invalid := [name for name, value in weights.items() if not _is_finite(value)]:
        raise EncoderError(f"{path}: {invalid[0]} does not contain finite floating-point numbers")
    first, last = weights[net.first], weights[net.last]
    if first.ndim != 2 or last.ndim != 2:
        raise EncoderError(
            f"{path}: expected matrices in {net.first} and {net.last}, got {tuple(first.shape)}, {tuple(last.shape)}"
        )
    return net, (int(first.shape[1]), int(first.shape[0]), int(last.shape[0]))


def _is_finite(value: Tensor) -> bool:
    """Whether a tensor has numbers, and all are finite. A file may have tensors without numbers ("meta"), and sparse ones."""
    is_dense = value.device.type == "cpu" and value.layout is torch.strided and value.is_floating_point()
    return is_dense and bool(value.isfinite().all())
