from __future__ import annotations

import pytest
import torch

from fusionblocks.blocks import DegradationExperts, DehazeExpert, LowLightExpert
from fusionblocks.models.sgafusion import checkpoint as sgafusion
from tests.helpers.block_tester import BlockTester
from tests.helpers.golden import FORWARD, assert_close, load_case


class TestDehazeExpert(BlockTester):
    variants = [{}, {"channels": 6, "pool_size": 5, "airlight_channels": 9}]
    sizes = [(1, 11, 13), (3, 33, 41)]

    def build(self, **options):
        return DehazeExpert(**options)

    def inputs(self, options, batch, height, width):
        return {"x": torch.randn(batch, options.get("channels", 16), height, width)}

    def test_equals_the_published_block(self):
        case = load_case("sga_dehaze_expert")
        block = DehazeExpert().eval()
        block.load_state_dict(sgafusion.convert(case.state), strict=True)
        transmission, airlight = block.estimate(case.inputs["x"])
        actual = {"transmission": transmission, "airlight": airlight, "out": block(case.inputs["x"])}
        assert actual.keys() == case.outputs.keys()
        for name, expected in case.outputs.items():
            assert_close(actual[name], expected, name, **FORWARD)


class TestLowLightExpert(BlockTester):
    golden = "sga_low_light_expert"
    layout = sgafusion
    variants = [{}, {"channels": 6, "iterations": 3}]

    def build(self, **options):
        return LowLightExpert(**options)

    def inputs(self, options, batch, height, width):
        return {"x": torch.randn(batch, options.get("channels", 16), height, width)}


class TestDegradationExperts(BlockTester):
    golden = "sga_degradation_experts"
    layout = sgafusion
    variants = [{}, {"channels": 6, "iterations": 3, "pool_size": 4}]

    def build(self, **options):
        return DegradationExperts(**options)

    def inputs(self, options, batch, height, width):
        return {"x": torch.randn(batch, options.get("channels", 16), height, width)}


def test_known_haze_is_removed():
    torch.manual_seed(0)
    expert = DehazeExpert(4, pool_size=4)
    clear = torch.rand(2, 4, 9, 7)
    transmission, airlight = expert.estimate(clear)
    expert.estimate = lambda x: (transmission, airlight)
    hazy = clear * transmission + airlight[:, :, None, None] * (1 - transmission)
    torch.testing.assert_close(expert(hazy), clear)


def test_the_transmission_has_a_floor():
    expert, x = DehazeExpert(4, pool_size=4, min_transmission=0.25), torch.randn(1, 4, 9, 7)
    with torch.no_grad():
        expert.head.bias.fill_(-100.0)
    transmission, airlight = expert.estimate(x)
    assert transmission.max() < 1e-6
    torch.testing.assert_close(expert(x), (x - airlight[..., None, None]) / 0.25 + airlight[..., None, None])


def test_the_enhancement_is_clamped_at_every_step():
    torch.manual_seed(0)
    expert, x = LowLightExpert(4, iterations=3), 3 * torch.randn(1, 4, 9, 7)
    step = expert(x) - x
    assert step.min() >= -1e-6
    assert step.max() <= 1 + 1e-6
    assert expert.curves(x).shape == (1, 3, 9, 7)
    # strength 0 moves nothing: the input, clamped, comes on top of the input
    with torch.no_grad():
        expert.head.weight.zero_()
        expert.head.bias.fill_(-1e5)
    torch.testing.assert_close(expert(x), x.clamp(0, 1) + x)


def test_airlight_pooling_exports_with_free_sizes():
    expert = DehazeExpert(4, pool_size=32, airlight_channels=8).eval()
    free = torch.export.Dim.DYNAMIC
    program = torch.export.export(
        expert, (torch.rand(2, 4, 37, 50),), dynamic_shapes={"x": {0: free, 2: free, 3: free}}
    )
    other = torch.rand(3, 4, 20, 71)
    torch.testing.assert_close(program.module()(other), expert(other))


def test_wrong_arguments_are_refused_by_name():
    for cls, options in (
        (DehazeExpert, {"channels": 0}),
        (DehazeExpert, {"pool_size": 0}),
        (DehazeExpert, {"min_transmission": 0.0}),
        (LowLightExpert, {"iterations": 0}),
        (DegradationExperts, {"channels": -1}),
        (DegradationExperts, {"min_transmission": 2.0}),
    ):
        with pytest.raises(ValueError, match=next(iter(options))):
            cls(**options)
