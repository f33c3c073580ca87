from __future__ import annotations

import pytest
import torch

from fusionblocks import SemanticInjection
from fusionblocks.models.psfusion import checkpoint as psfusion
from tests.helpers.block_tester import BlockTester


class TestSemanticInjection(BlockTester):
    golden = "psf_semantic_injection"
    layout = psfusion
    golden_options = {"channels": 32, "semantic_channels": 64, "hidden_channels": 32}
    variants = [
        {"channels": 8, "semantic_channels": 12},
        {"channels": 3, "semantic_channels": 2, "hidden_channels": 5},
    ]

    def build(self, **options):
        return SemanticInjection(**options)

    def inputs(self, options, batch, height, width):
        return {
            "x": torch.randn(batch, options["channels"], height, width),
            "semantic": torch.randn(batch, options["semantic_channels"], (height + 3) // 4, (width + 3) // 4),
        }

    def test_ignores_contrast_and_brightness_of_each_map(self) -> None:
        block, inputs = self.make()
        expected = block(**inputs)
        torch.testing.assert_close(block(**{**inputs, "x": 3 * inputs["x"] + 2}), expected, rtol=1e-4, atol=1e-4)

    @pytest.mark.parametrize("training", [False, True])
    def test_one_pixel_keeps_the_shift_alone(self, training) -> None:
        block, inputs = self.make(size=(2, 1, 1))
        out = block.train(training)(**inputs)
        bias = block.bn.bias if training else block.bn(torch.zeros_like(inputs["x"])).mean((0, 2, 3))
        torch.testing.assert_close(out, block.beta(block.embedding(inputs["semantic"])) + bias[:, None, None])

    def test_refuses_another_batch(self) -> None:
        block, inputs = self.make(size=(3, 8, 8))
        with pytest.raises(ValueError, match="x and semantic must have the same batch size, got 3 and 1"):
            block(**{**inputs, "semantic": inputs["semantic"][:1]})


def test_refuses_wrong_widths() -> None:
    with pytest.raises(ValueError, match="semantic_channels"):
        SemanticInjection(8, 0)
    with pytest.raises(ValueError, match="hidden_channels"):
        SemanticInjection(8, 8, hidden_channels=-1)
