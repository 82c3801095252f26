"""The image tower of an open_clip model: its input size, the pixels that it reads, and a last block that computes only what is read of it.

The feature of an image is the output of the last block at the class token, and within a block only attention reads other positions. The
queries, the output projection and the MLP of these are ten twelfths of the block. Omitting them gives the same feature within rounding:
ViT-B/32 is 5 % faster, the built-in tower 20 %. `patch_features` computes the block at the patches instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial, reduce
from math import ceil
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from open_clip.transform import CenterCrop, CenterCropOrPad, MaybeConvertMode, Resize, ResizeKeepRatio
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from PIL import Image
from torch import Tensor, nn

MIN_ROWS = 32  # of a matrix product: kernels for fewer round differently from process to process
MAX_PATCH_ROWS = 8  # and columns; finer grids are averaged


def input_size(tower: Any) -> int:
    """The longer side of the images that a tower reads, in pixels."""
    size = tower.image_size
    return int(max(size) if isinstance(size, tuple | list) else size)


def make_resize(transforms: Sequence[Callable[[Any], Any]]) -> Callable[[Image.Image], Tensor]:
    """A function that applies transforms of open_clip to an RGB image and returns (height, width, 3) uint8 pixels.

    For the transforms that open_clip makes of a configuration, torch resizes, in a fraction of the time of Pillow. Of 255 levels, a value
    differs by 2 at most.
    """
    resize: Any
    resize, *others = transforms
    new_size = (
        _keeping_ratio if isinstance(resize, ResizeKeepRatio) else _of_shorter_side if isinstance(resize, Resize) else None
    )
    crops = [each for each in others if not isinstance(each, MaybeConvertMode)]
    if new_size is None or not all(isinstance(crop, CenterCrop | CenterCropOrPad) for crop in crops):
        return partial(_transformed, transforms)
    return partial(_resized, partial(new_size, resize), resize.interpolation.value, crops)


def _transformed(transforms: Sequence[Callable[[Any], Any]], image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(reduce(lambda picture, transform: transform(picture), transforms, image)))


def _resized(
    new_size: Callable[[Image.Image], Sequence[int]], mode: str, crops: Sequence[Callable[[Tensor], Tensor]], image: Image.Image
) -> Tensor:
    pixels: Tensor = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]
    height, width = new_size(image)
    if (height, width) != tuple(pixels.shape[2:]):
        pixels = F.interpolate(pixels, (height, width), mode=mode, antialias=True)
    for crop in crops:
        pixels = crop(pixels)
    return pixels[0].permute(1, 2, 0)


def _keeping_ratio(resize: ResizeKeepRatio, image: Image.Image) -> Sequence[int]:
    height, width = resize.get_params(image, resize.size, resize.longest)
    return height, width


def _of_shorter_side(resize: Resize, image: Image.Image) -> Sequence[int]:
    """Height and width for a size that is that of the shorter side, or both."""
    short, size = min(image.size), resize.size
    return [int(size * side / short) for side in reversed(image.size)] if isinstance(size, int) else size


def with_short_last_block(tower: Any) -> Any:
    """The tower, whose last block becomes a `ClassTokenBlock` if only its class token is read. Names of weights stay."""
    if type(tower) is VisionTransformer and tower.pool_type == "tok" and tower.attn_pool is None and not tower.output_tokens:
        last: Any = tower.transformer.resblocks[-1]
        if type(last) is ResidualAttentionBlock and type(last.attn) is nn.MultiheadAttention and last.attn.batch_first:
            last.__class__ = ClassTokenBlock
    return tower


class ClassTokenBlock(ResidualAttentionBlock):
    """The last block of a tower, computed at the class token, which is the first position, and for few images at others after it."""

    def forward(self, rows_bld: Tensor, attn_mask: None = None) -> Tensor:
        """(b, l, d) inputs → (b, p, d) outputs at the first p positions: as few as give MIN_ROWS rows."""
        return self.outputs_at(slice(ceil(MIN_ROWS / len(rows_bld))), rows_bld, attn_mask)

    def outputs_at(self, positions: slice, rows_bld: Tensor, attn_mask: None = None) -> Tensor:
        """(b, l, d) inputs → (b, p, d) outputs at p positions."""
        normal_bld = self.ln_1(rows_bld)
        queries_bpd = normal_bld[:, positions].contiguous()  # otherwise bfloat16 is rounded between a product and its bias
        attended_bpd = self.attn(queries_bpd, normal_bld, normal_bld, need_weights=False, attn_mask=attn_mask)[0]
        outputs_bpd = rows_bld[:, positions] + self.ls_1(attended_bpd)
        return outputs_bpd + self.ls_2(self.mlp(self.ln_2(outputs_bpd)))  # type: ignore[no-any-return]


def has_patches(tower: Any) -> bool:
    """Whether `patch_features` can read the tower: its last block is a `ClassTokenBlock`."""
    return isinstance(tower, VisionTransformer) and isinstance(tower.transformer.resblocks[-1], ClassTokenBlock)


def patch_grid(tower: VisionTransformer) -> tuple[int, int]:
    """The rows and columns of the features that `patch_features` returns, at most 8 each."""
    rows, columns = tower.grid_size
    return min(rows, MAX_PATCH_ROWS), min(columns, MAX_PATCH_ROWS)


def patch_features(tower: VisionTransformer, images_bchw: Tensor) -> Tensor:
    """(b, p, d) features of the patches of images, row by row, projected as the class token is. Finer grids than 8 × 8 are averaged.

    Source: MulVec (arXiv 2608.25305).
    """
    *blocks, last = tower.transformer.resblocks
    rows_blw = reduce(lambda rows, block: block(rows), blocks, tower._embeds(images_bchw))
    features_bld = tower.ln_post(last.outputs_at(slice(1, None), rows_blw)) @ tower.proj
    grids_bdrc = features_bld.transpose(1, 2).unflatten(2, tower.grid_size)
    return F.adaptive_avg_pool2d(grids_bdrc, patch_grid(tower)).flatten(2).transpose(1, 2)


class PlainAttention(nn.Module):
    """`nn.MultiheadAttention` in products of its own, which are rounded alike in every batch. Its fast paths are not.

    Parameters
    ----------
    attention : nn.MultiheadAttention
        Its weights are shared.
    make_linear : callable
        Makes a linear layer of a weight and a bias.
    of_few_queries : bool, default=False
        Whether queries are some of the rows, as in a `ClassTokenBlock`, and projected apart from keys and values.
    """

    def __init__(
        self, attention: Any, make_linear: Callable[[Tensor, Tensor | None], nn.Module], *, of_few_queries: bool = False
    ) -> None:
        super().__init__()
        self._heads = attention.num_heads
        # the parts of the projection that are computed together
        sizes = [attention.embed_dim * part for part in ((1, 2) if of_few_queries else (3,))]
        biases = [None] * len(sizes) if attention.in_proj_bias is None else attention.in_proj_bias.split(sizes)
        self._inputs = nn.ModuleList(map(make_linear, attention.in_proj_weight.split(sizes), biases))
        self._output = make_linear(attention.out_proj.weight, attention.out_proj.bias)

    def forward(self, queries_bqd: Tensor, rows_bld: Tensor, *_: Tensor, **_options: object) -> tuple[Tensor, None]:
        """(b, q, d) queries and (b, l, d) rows → (b, q, d)."""
        *of_queries, of_rows = self._inputs
        parts = [*(layer(queries_bqd) for layer in of_queries), of_rows(rows_bld)]
        queries_nqh, keys_nlh, values_nlh = (each for part in parts for each in self._heads_of(part, rows_bld.shape[-1]))
        shares_nql = torch.bmm(queries_nqh * queries_nqh.shape[-1] ** -0.5, keys_nlh.transpose(1, 2)).softmax(-1)
        attended = torch.bmm(shares_nql, values_nlh).view(len(rows_bld), self._heads, queries_bqd.shape[1], -1)
        return self._output(attended.transpose(1, 2).reshape(queries_bqd.shape)), None

    def _heads_of(self, projected_blp: Tensor, dim: int) -> Iterator[Tensor]:
        """Yields queries, keys or values of (batch · heads, length, dim / heads)."""
        batch, length, width = projected_blp.shape
        parts = projected_blp.view(batch, length, width // dim, self._heads, -1).permute(2, 0, 3, 1, 4)
        return (part.reshape(batch * self._heads, length, -1).contiguous() for part in parts)


class SharedLinear(nn.Module):
    """`nn.Linear` of given weights."""

    def __init__(self, weight_oi: Tensor, bias_o: Tensor | None) -> None:
        super().__init__()
        self.weight, self.bias = weight_oi, bias_o

    def forward(self, inputs: Tensor) -> Tensor:
        return F.linear(inputs, self.weight, self.bias)


def with_plain_attention(
    tower: nn.Module, make_linear: Callable[[Tensor, Tensor | None], nn.Module] = SharedLinear
) -> nn.Module:
    """The tower, whose blocks of open_clip have a `PlainAttention`. If it has no others, a bfloat16 vector does not depend on the batch."""
    for block in tower.modules():
        attention = getattr(block, "attn", None)
        if (
            isinstance(block, ResidualAttentionBlock)
            and isinstance(attention, nn.MultiheadAttention)
            and attention._qkv_same_embed_dim
            and attention.batch_first
        ):
            block.attn = PlainAttention(attention, make_linear, of_few_queries=isinstance(block, ClassTokenBlock))
    return tower
