from __future__ import annotations

import inspect
import json

import pytest
import torch
from torch import nn

from fusionblocks import NoiseConditionedUNet
from fusionblocks.models.sgdfuse import checkpoint as sgdfuse
from tests.helpers.golden import FORWARD, assert_close, load_case

NARROW = {"channels": 16, "norm_groups": 4, "layers_per_block": 1, "attention_levels": (1,)}


def narrow(**options) -> NoiseConditionedUNet:
    torch.manual_seed(0)
    return NoiseConditionedUNet(**{**NARROW, **options}).eval()


def noisy(batch: int = 2, height: int = 16, width: int = 24) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    return torch.randn(batch, 5, height, width), torch.rand(batch)


class AttendingLayer(nn.Module):
    """One residual block with its attention, as a level of the network holds them."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.resnet, self.attention = block.resnets[0], block.attentions[0]

    def forward(self, x: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
        return self.attention(self.resnet(x, embedding))


def test_a_layer_equals_the_published_one() -> None:
    case = load_case("sgd_unet_block")
    unet = NoiseConditionedUNet(multipliers=(1, 2), layers_per_block=1, attention_levels=(1,))
    layer = AttendingLayer(unet.down_blocks[1]).eval()
    layer.load_state_dict(sgdfuse.convert(case.state), strict=True)
    with torch.no_grad():
        assert_close(layer(**case.inputs), case.outputs["out"], "residual block with attention", **FORWARD)


def test_equals_the_published_network() -> None:
    case = load_case("sgd_unet_full")
    unet = NoiseConditionedUNet(attention_levels=(1,)).eval()
    unet.load_state_dict(sgdfuse.convert(case.state), strict=True)
    with torch.no_grad():
        assert_close(unet(**case.inputs), case.outputs["out"], "noise", **FORWARD)


def test_decoder_features_come_from_the_same_pass() -> None:
    unet, (x, noise_level) = narrow(), noisy()
    seen: dict[str, torch.Tensor] = {}
    unet.conv_norm_out.register_forward_pre_hook(lambda _, inputs: seen.update(last=inputs[0]))
    with torch.no_grad():
        prediction, features = unet.forward_features(x, noise_level)
        assert torch.equal(prediction, unet(x, noise_level))
    assert [tuple(f.shape) for f in features] == [(2, 16 * 2**i, 16 // 2**i, 24 // 2**i) for i in range(4)]
    assert tuple(f.shape[1] for f in features) == unet.feature_channels == (16, 32, 64, 128)
    assert torch.equal(features[0], seen["last"])


def test_agrees_with_the_library_it_builds_on() -> None:
    unet, (x, noise_level) = narrow(), noisy()
    unet.register_to_config(center_input_sample=False, time_embedding_type="positional")
    with torch.no_grad():
        expected = super(NoiseConditionedUNet, unet).forward(x, noise_level).sample
        assert_close(unet(x, noise_level), expected, "diffusers' own pass", rtol=1e-5, atol=1e-6)


def test_the_noise_level_matters_and_takes_both_shapes() -> None:
    unet, (x, noise_level) = narrow(), noisy()
    with torch.no_grad():
        out = unet(x, noise_level)
        assert torch.equal(out, unet(x, noise_level[:, None]))
        other = unet(x, torch.stack([noise_level[0], noise_level[1] / 2]))
    assert_close(other[0], out[0], "the picture whose level stayed", rtol=1e-4, atol=1e-6)
    assert (other[1] - out[1]).abs().max() > 1e-4


@pytest.mark.parametrize("levels", [(), (0,), (1, 2)])
def test_attention_levels(levels) -> None:
    unet = narrow(multipliers=(1, 2, 2), attention_levels=levels)
    for way in (unet.down_blocks, unet.up_blocks[::-1]):
        assert tuple(i for i, block in enumerate(way) if hasattr(block, "attentions")) == levels
    for module in unet.modules():
        assert getattr(module, "heads", 1) == 1
    assert torch.isfinite(unet(*noisy(1))).all()


def test_gradients_reach_every_parameter_also_with_checkpointing() -> None:
    unet, (x, noise_level) = narrow(dropout=0.0), noisy()
    gradients = []
    for checkpointing in (False, True):
        if checkpointing:
            unet.enable_gradient_checkpointing()
        unet.train().zero_grad()
        unet(x, noise_level).square().mean().backward()
        for name, parameter in unet.named_parameters():
            assert parameter.grad is not None, f"no gradient reaches {name}"
            assert torch.isfinite(parameter.grad).all(), name
        gradients.append([parameter.grad.clone() for parameter in unet.parameters()])
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-6)


def test_compiles_and_exports() -> None:
    torch.compiler.reset()
    unet, inputs = narrow(multipliers=(1, 2)), noisy()
    with torch.no_grad():
        expected = unet(*inputs)
        compiled = torch.compile(unet, fullgraph=True, backend="aot_eager")(*inputs)
        exported = torch.export.export(unet, inputs).module()(*inputs)
    for out in (compiled, exported):
        assert_close(out, expected, "noise", rtol=1e-4, atol=1e-5)


def test_channels_last_and_autocast() -> None:
    unet, (x, noise_level) = narrow(), noisy()
    with torch.no_grad():
        expected = unet(x, noise_level)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rough = unet(x, noise_level).float()
        last = unet.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last), noise_level)
    assert (rough - expected).norm() / expected.norm() < 0.1
    assert_close(last, expected, "channels-last", rtol=1e-4, atol=1e-5)


def test_half_precision_weights() -> None:
    unet, (x, noise_level) = narrow().to(torch.bfloat16), noisy()
    with torch.no_grad():
        assert torch.isfinite(unet(x.to(torch.bfloat16), noise_level)).all()


def test_saves_and_loads_by_itself(tmp_path) -> None:
    unet, inputs = narrow(), noisy()
    unet.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    options = {key: value for key, value in saved.items() if not key.startswith("_")}
    assert options.keys() == inspect.signature(NoiseConditionedUNet).parameters.keys()
    assert options["attention_levels"] == [1]
    loaded = NoiseConditionedUNet.from_pretrained(tmp_path)
    assert loaded.size_multiple == 8
    with torch.no_grad():
        assert torch.equal(loaded(*inputs), unet(*inputs))


def test_wrong_inputs_are_refused_by_name() -> None:
    unet, (x, noise_level) = narrow(), noisy()
    for wrong in (x[0], x[:, :4]):
        with pytest.raises(ValueError, match="x must have shape"):
            unet(wrong, noise_level)
    with pytest.raises(ValueError, match="multiples of 8, got 16x20"):
        unet(x[..., :20], noise_level)
    for wrong in (noise_level[:1], noise_level[0], noise_level[:, None].repeat(1, 2)):
        with pytest.raises(ValueError, match="noise_level"):
            unet(x, wrong)
    for wrong in (0.5, torch.tensor([1, 0])):
        with pytest.raises(TypeError, match="noise_level"):
            unet(x, wrong)
    with pytest.raises(TypeError, match="x must be"):
        unet((255 * x).to(torch.uint8), noise_level)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": 10}, "norm_groups"),
        ({"channels": 0}, "norm_groups"),
        ({"multipliers": ()}, "multipliers"),
        ({"layers_per_block": 0}, "layers_per_block"),
        ({"norm_groups": 0}, "norm_groups"),
        ({"dropout": 1.0}, "dropout"),
        ({"attention_levels": (4,)}, "attention_levels"),
        ({"in_channels": 0}, "in_channels"),
    ],
)
def test_wrong_options_are_refused_by_name(options, message) -> None:
    with pytest.raises(ValueError, match=message):
        narrow(**options)
