"""The image tower with a short last block, against the tower of open_clip itself."""

import copy

import open_clip
import pytest
import torch
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn

from mmretrieve.encoders import int8
from mmretrieve.encoders.image_tower import ClassTokenBlock, with_short_last_block

SIZE = 32


def tower_of(**options: object) -> VisionTransformer:
    torch.manual_seed(0)
    defaults = {"image_size": SIZE, "patch_size": 8, "width": 64, "layers": 3, "heads": 4, "mlp_ratio": 4.0, "output_dim": 32}
    return VisionTransformer(**(defaults | options)).eval().requires_grad_(False)


@pytest.fixture
def images() -> Tensor:
    return torch.randn(5, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"ls_init_value": 0.3},
        {"act_layer": open_clip.transformer.QuickGELU},
        {"final_ln_after_pool": True},
        {"no_ln_pre": True},
    ],
    ids=["plain", "layer scale", "QuickGELU", "norm after pooling", "no first norm"],
)
def test_features_are_those_of_the_whole_tower(options: dict[str, object], images: Tensor) -> None:
    tower = tower_of(**options)
    expected, names = tower(images), list(tower.state_dict())
    short = with_short_last_block(tower)
    assert isinstance(short.transformer.resblocks[-1], ClassTokenBlock)
    assert torch.allclose(short(images), expected, atol=1e-5)
    assert list(short.state_dict()) == names


@pytest.mark.parametrize(("count", "last"), [(1, 17), (5, 7), (40, 1)])
def test_the_last_block_computes_32_rows(count: int, last: int) -> None:
    tower = with_short_last_block(tower_of())
    positions: list[int] = []
    for block in tower.transformer.resblocks:
        block.mlp.register_forward_hook(lambda _module, inputs, _outputs: positions.append(inputs[0].shape[1]))
    tower(torch.randn(count, 3, SIZE, SIZE))
    assert positions == [17, 17, last]


@pytest.mark.parametrize(
    "options", [{"pool_type": "avg"}, {"pool_type": "none"}, {"attentional_pool": True}, {"output_tokens": True}]
)
def test_towers_that_read_other_positions_stay_whole(options: dict[str, object], images: Tensor) -> None:
    tower = tower_of(**options)
    whole = copy.deepcopy(tower)
    expected, outputs = whole(images), with_short_last_block(tower)(images)
    pairs = zip(expected, outputs, strict=True) if isinstance(expected, tuple) else [(expected, outputs)]
    assert all(torch.equal(a, b) for a, b in pairs)
    assert not any(isinstance(module, ClassTokenBlock) for module in tower.modules())


def test_other_towers_stay_as_they_are() -> None:
    tower = nn.Linear(2, 2)
    assert with_short_last_block(tower) is tower


def test_an_int8_tower_agrees_with_the_whole_one_in_int8(images: Tensor) -> None:
    tower = tower_of()
    whole = int8.quantized(tower)(images)
    short = int8.quantized(with_short_last_block(tower))
    assert isinstance(short.transformer.resblocks[-1], ClassTokenBlock)
    assert torch.allclose(short(images), whole, atol=1e-5)
