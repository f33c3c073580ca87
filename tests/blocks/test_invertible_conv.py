from __future__ import annotations

import pytest
import torch

from fusionblocks.blocks import InvertibleConv1x1
from tests.helpers.block_tester import BlockTester


class TestInvertibleConv1x1(BlockTester):
    variants = [{"channels": 64}, {"channels": 3}]

    def build(self, **options):
        return InvertibleConv1x1(**options)

    def inputs(self, options, batch, height, width):
        return {"x": torch.randn(batch, options["channels"], height, width)}


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-3)], ids=["float64", "float32"]
)
def test_the_inverse_undoes_the_convolution(dtype, tolerance):
    torch.manual_seed(0)
    conv = InvertibleConv1x1(64).to(dtype)
    x = torch.randn(2, 64, 5, 7, dtype=dtype)
    restored = conv.inverse(conv(x))
    assert restored.dtype == dtype
    assert (restored - x).abs().max() < tolerance


def test_the_inverse_is_differentiable():
    torch.manual_seed(0)
    conv = InvertibleConv1x1(3).double()
    y = torch.randn(1, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(conv.inverse, (y,))
    conv.inverse(y).square().sum().backward()
    assert conv.weight.grad.abs().max() > 0


def test_half_precision_is_solved_in_float32():
    torch.manual_seed(0)
    conv = InvertibleConv1x1(8)
    torch.nn.init.orthogonal_(conv.weight)
    y = torch.randn(1, 8, 4, 4)
    rough = conv.bfloat16().inverse(y.bfloat16())
    assert rough.dtype == torch.bfloat16
    expected = conv.float().inverse(y.bfloat16().float())
    torch.testing.assert_close(rough.float(), expected, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("rank", [0, 5])
def test_a_singular_matrix_is_refused(rank):
    torch.manual_seed(0)
    conv = InvertibleConv1x1(6)
    with torch.no_grad():
        conv.weight.copy_((torch.randn(6, rank) @ torch.randn(rank, 6))[..., None, None])
    with pytest.raises(ValueError, match=r"6 x 6 channel matrix.*singular"):
        conv.inverse(torch.rand(1, 6, 2, 2))


def test_wrong_inputs_of_the_inverse_are_refused_by_name():
    with pytest.raises(ValueError, match=r"y must have shape.*6"):
        InvertibleConv1x1(6).inverse(torch.rand(1, 5, 2, 2))
    with pytest.raises(ValueError, match="channels"):
        InvertibleConv1x1(0)
