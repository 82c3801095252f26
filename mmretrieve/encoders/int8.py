"""Image towers whose linear layers compute in 8-bit integers, on x86 CPUs.

Each row of the inputs has a scale and an offset of its own, so an image has the same vector in every batch. Inputs have 8 bits and weights 7:
AVX2 adds pairs of products in 16 bits, which 255 · 63 · 2 does not exceed. Inputs of 7 bits and weights of 8, as in
`torch.ao.quantization`, agree less, because single large inputs stretch the scale of a row.
"""

from __future__ import annotations

import copy

import torch
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn

from mmretrieve.encoders.image_tower import with_plain_attention

INPUT_LEVELS, WEIGHT_LEVELS = 255, 63  # 0 to 255, and -63 to 63
SMALLEST_SCALE = 1e-12  # of rows of equal values


def is_supported() -> bool:
    """Whether this CPU and this build of torch multiply 8-bit integers faster than floats."""
    has_instructions = torch.backends.cpu.get_cpu_capability().startswith("AVX")
    has_onednn = bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]
    return has_instructions and has_onednn and hasattr(torch.ops.onednn, "qlinear_pointwise")


def quantized(tower: nn.Module) -> nn.Module:
    """A copy of the tower that shares its weights, with linear layers and attention of 8-bit integers. The rest stays float32."""
    shared = {id(tensor): tensor for tensor in (*tower.parameters(), *tower.buffers())}
    return _replace_layers(with_plain_attention(copy.deepcopy(tower, shared), Int8Linear))


def largest_input(tower: nn.Module) -> int:
    """The largest number of inputs of a linear layer; 0 without one."""
    return max((layer.in_features for layer in tower.modules() if isinstance(layer, nn.Linear)), default=0)


def _replace_layers(module: nn.Module) -> nn.Module:
    for name, child in module.named_children():
        if type(child) is nn.Linear:
            setattr(module, name, Int8Linear(child.weight, child.bias))
        elif isinstance(child, nn.Conv2d) and isinstance(module, VisionTransformer) and _is_of_patches(child):
            module.conv1 = Int8Patches(child)
        else:
            _replace_layers(child)
    return module


class Int8Linear(nn.Module):
    """`nn.Linear` in 8-bit integers. It keeps the float32 weights for code that reads them."""

    def __init__(self, weight_oi: Tensor, bias_o: Tensor | None) -> None:
        super().__init__()
        self.weight, self.bias = weight_oi, bias_o
        self._scale_o = (weight_oi.abs().amax(1) / WEIGHT_LEVELS).clamp_min(SMALLEST_SCALE)
        rounded_oi = (weight_oi / self._scale_o[:, None]).round().to(torch.int8)
        self._sums_o = rounded_oi.sum(1) * self._scale_o
        self._no_offset_o = torch.zeros(len(weight_oi), dtype=torch.int32)
        self._packed = torch.ops.onednn.qlinear_prepack(rounded_oi, None)

    def forward(self, inputs: Tensor) -> Tensor:
        """W x + b, for inputs x = lowest + step · u of each row: step · W u + lowest · (row sums of W) + b, with whole u from 0 to 255."""
        rows_ni = inputs.reshape(-1, inputs.shape[-1])
        lowest_n1 = rows_ni.amin(1, keepdim=True)
        step_n1 = (rows_ni.amax(1, keepdim=True) - lowest_n1).clamp_min_(SMALLEST_SCALE) / INPUT_LEVELS
        rounded_ni = (rows_ni - lowest_n1).div_(step_n1).round_().to(torch.int16).to(torch.uint8)  # to uint8 at once is slower
        products_no = torch.ops.onednn.qlinear_pointwise(
            rounded_ni, 1.0, 0, self._packed, self._scale_o, self._no_offset_o, None, 1.0, 0, torch.float32, "none", [], ""
        )
        offset = torch.zeros(()) if self.bias is None else self.bias
        outputs_no = torch.addcmul(offset, lowest_n1, self._sums_o).addcmul_(products_no, step_n1)
        return outputs_no.view(*inputs.shape[:-1], -1)


class Int8Patches(nn.Module):
    """A convolution of patches side by side: a linear layer of the values of each."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.weight, self.bias = convolution.weight, convolution.bias
        self._side = convolution.kernel_size[0]
        self._linear = Int8Linear(convolution.weight.flatten(1), convolution.bias)

    def forward(self, images_bchw: Tensor) -> Tensor:
        batch, channels, height, width = images_bchw.shape
        rows, columns = height // self._side, width // self._side
        images_bchw = images_bchw[:, :, : rows * self._side, : columns * self._side]
        patches = images_bchw.reshape(batch, channels, rows, self._side, columns, self._side).permute(0, 2, 4, 1, 3, 5)
        return self._linear(patches.reshape(batch, rows * columns, -1)).transpose(1, 2).unflatten(2, (rows, columns))  # type: ignore[no-any-return]


def _is_of_patches(convolution: nn.Conv2d) -> bool:
    """Whether a convolution reads patches without gaps, overlap or padding."""
    side = convolution.kernel_size[0]
    return (
        convolution.kernel_size == convolution.stride == (side, side)
        and tuple(convolution.padding) == (0, 0)
        and convolution.dilation == (1, 1)
        and convolution.groups == 1
    )
