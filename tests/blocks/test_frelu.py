from __future__ import annotations

import pytest
import torch

from fusionblocks import FReLU
from fusionblocks.models.psfusion import checkpoint as psfusion
from tests.helpers.block_tester import BlockTester


class TestFReLU(BlockTester):
    golden = "psf_frelu"
    layout = psfusion
    golden_options = {"channels": 32}
    variants = [{"channels": 8}, {"channels": 3, "kernel_size": 5}]

    def build(self, **options):
        return FReLU(**options)

    def inputs(self, options, batch, height, width):
        return {"x": torch.randn(batch, options["channels"], height, width)}

    def test_is_never_below_its_input(self) -> None:
        block, inputs = self.make()
        out = block(**inputs)
        assert (out >= inputs["x"]).all()
        assert (out > inputs["x"]).any()


def test_refuses_wrong_sizes() -> None:
    with pytest.raises(ValueError, match="channels"):
        FReLU(0)
    with pytest.raises(ValueError, match="kernel_size.*4"):
        FReLU(8, kernel_size=4)
