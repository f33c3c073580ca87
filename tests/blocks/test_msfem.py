from __future__ import annotations

import pytest
import torch

from fusionblocks import MSFEM
from fusionblocks.models.sgdfuse import checkpoint as sgdfuse
from tests.helpers.block_tester import BlockTester


class TestMSFEM(BlockTester):
    golden = "sgd_msfem"
    layout = sgdfuse
    variants = [{}, {"channels": 3, "hidden_channels": 6, "kernel_sizes": (3, 9)}]

    def build(self, **options):
        return MSFEM(**options)

    def inputs(self, options, batch, height, width):
        return {"x": torch.rand(batch, options.get("channels", 1), height, width)}

    def test_adds_between_zero_and_one(self) -> None:
        block, inputs = self.make()
        gain = block(**inputs) - inputs["x"]
        assert gain.min() >= 0
        assert gain.max() <= 1

    def test_reach_is_the_largest_kernel_and_two_depthwise_layers(self) -> None:
        block = MSFEM(hidden_channels=4, kernel_sizes=(3, 7))
        x = torch.rand(1, 1, 31, 31, requires_grad=True)
        block(x)[..., 15, 15].sum().backward()
        rows = x.grad[0, 0].abs().sum(1).nonzero().flatten().tolist()
        assert (rows[0], rows[-1]) == (15 - 5, 15 + 5)  # 3 + 1 + 1 on either side

    @pytest.mark.parametrize("sizes", [(), (4,), (3, 0), (3, -5), (3.0,)])
    def test_refuses_wrong_kernels(self, sizes) -> None:
        with pytest.raises(ValueError, match="kernel_sizes"):
            MSFEM(kernel_sizes=sizes)

    def test_refuses_wrong_widths(self) -> None:
        with pytest.raises(ValueError, match="channels"):
            MSFEM(0)
        with pytest.raises(ValueError, match="hidden_channels"):
            MSFEM(hidden_channels=0)
