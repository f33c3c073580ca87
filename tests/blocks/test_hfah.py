from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fusionblocks import HFAH
from fusionblocks.models.sgdfuse import checkpoint as sgdfuse
from tests.helpers.block_tester import BlockTester


class NamedLevels(HFAH):
    """The head with one keyword a level, as the tester feeds it."""

    def forward(self, **levels: Tensor) -> Tensor:
        return super().forward(list(levels.values()))


class TestHFAH(BlockTester):
    golden = "sgd_hfah"
    layout = sgdfuse
    variants = [{}, {"in_channels": (8, 24), "out_channels": 1, "hidden_channels": 12, "reduction": 4}]

    def build(self, **options):
        return NamedLevels(**options)

    def inputs(self, options, batch, height, width):
        widths = options.get("in_channels", (64, 128, 256, 512))
        return {
            f"f{level + 1}": torch.rand(batch, channels, -(-height // 2**level), -(-width // 2**level))
            for level, channels in enumerate(widths)
        }

    def test_refuses_wrong_inputs_by_name(self) -> None:
        block, inputs = HFAH((8, 24)), self.inputs({"in_channels": (8, 24)}, 2, 8, 6)
        fine, coarse = inputs.values()
        with pytest.raises(ValueError, match=r"features must have 2 levels, got 1"):
            block([fine])
        with pytest.raises(ValueError, match=r"features\[1\].*24"):
            block([fine, fine])
        with pytest.raises(ValueError, match=r"features\[0\]"):
            block([fine[0], coarse])
        with pytest.raises(TypeError, match=r"features\[0\]"):
            block([fine.to(torch.uint8), coarse])
        with pytest.raises(ValueError, match=r"features\[1\].*batch"):
            block([fine, coarse[:1]])

    def test_picture_is_within_minus_one_and_one_and_as_large_as_the_finest_level(self) -> None:
        block, inputs = self.make()
        picture = block(**{name: 100 * tensor for name, tensor in inputs.items()})
        assert picture.shape == (1, 3, *inputs["f1"].shape[-2:])
        assert picture.abs().max() <= 1

    def test_levels_of_any_size_serve(self) -> None:
        block = HFAH((8, 24), hidden_channels=4)
        assert block([torch.rand(1, 8, 9, 7), torch.rand(1, 24, 9, 7)]).shape == (1, 3, 9, 7)
        assert block([torch.rand(1, 8, 9, 7), torch.rand(1, 24, 1, 1)]).shape == (1, 3, 9, 7)

    @pytest.mark.parametrize("widths", [(), 64, (64, 0)])
    def test_refuses_wrong_widths(self, widths) -> None:
        with pytest.raises(ValueError, match="in_channels"):
            HFAH(widths)
