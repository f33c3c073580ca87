"""``fb.optimize`` of edited networks: whatever was changed, the copy computes what the network computes."""

from __future__ import annotations

import copy
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from timm.layers import LayerNorm2d
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

import fusionblocks as fb
from fusionblocks import blocks
from fusionblocks.optimization import strips
from fusionblocks.optimization.rewriting import REWRITES, Rewrite
from tests.helpers.networks import NARROW, pair, trained_like

HEIGHT, WIDTH = 70, 33
PIXELS = {"one strip": strips.PIXELS, "two strips": 36 * WIDTH, "many strips": 1}
NETWORKS = ("fusionblocks", "psfusion", "sgafusion", "smfnet")
PLACES = 2
"""Places in a network at which an edit is tried, one at a time."""


class Whole(nn.Module):
    """Sees the whole map."""

    def forward(self, x: Tensor) -> Tensor:
        return x + 0.5 * x.mean(dim=(2, 3), keepdim=True)


class Roll(nn.Module):
    """Moves rows."""

    def forward(self, x: Tensor) -> Tensor:
        return x.roll(5, dims=2)


class Halved(nn.Module):
    """A convolution with a stride, and back to the size."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv
        self.conv.stride = (2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(self.conv(x), x.shape[2:], mode="bilinear")


def wider(conv: nn.Conv2d, size: int = 9, **options: Any) -> nn.Conv2d:
    """Return a convolution of the same widths, with another kernel and geometry, whose padding keeps the size."""
    options = {"padding_mode": conv.padding_mode, "dilation": 1, **options}
    new = nn.Conv2d(
        conv.in_channels, conv.out_channels, size, padding=options["dilation"] * (size - 1) // 2,
        groups=conv.groups, bias=conv.bias is not None, **options,
    )  # fmt: skip
    new.weight.data.mul_(0.5)
    return new


def behind(part: Callable[[int], nn.Module]) -> Callable[[nn.Conv2d], nn.Module]:
    """Return an edit that puts a module behind a convolution."""
    return lambda conv: nn.Sequential(conv, part(conv.out_channels))


def hooked(conv: nn.Conv2d) -> nn.Conv2d:
    conv.register_forward_hook(lambda module, args, output: output - 0.3 * output.mean(dim=2, keepdim=True))
    return conv


def pre_hooked(conv: nn.Conv2d) -> nn.Conv2d:
    conv.register_forward_pre_hook(lambda module, args: (args[0].roll(3, dims=2),))
    return conv


def patched(conv: nn.Conv2d) -> nn.Conv2d:
    forward = conv.forward
    conv.forward = lambda x: forward(x).flip(2)
    return conv


class OtherForward(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).flip(2)


def subclassed(conv: nn.Conv2d) -> nn.Conv2d:
    conv.__class__ = OtherForward
    return conv


OF_CONVOLUTIONS: dict[str, Callable[[nn.Conv2d], nn.Module]] = {
    "7x7": lambda conv: wider(conv, 7),
    "15x15": lambda conv: wider(conv, 15),
    "dilation": lambda conv: wider(conv, 3, dilation=3),
    "stride": Halved,
    "reflected": lambda conv: wider(conv, 5, padding_mode="reflect"),
    "replicated": lambda conv: wider(conv, 3, padding_mode="replicate"),
    "circular": lambda conv: wider(conv, 3, padding_mode="circular"),
    "group norm": behind(lambda channels: nn.GroupNorm(1, channels)),
    "instance norm": behind(lambda channels: nn.InstanceNorm2d(channels)),
    "layer norm": behind(lambda channels: LayerNorm2d(channels)),
    "batch norm": behind(lambda channels: nn.BatchNorm2d(channels)),
    "batch norm without statistics": behind(lambda channels: nn.BatchNorm2d(channels, track_running_stats=False)),
    "whole map": behind(lambda channels: Whole()),
    "rolled rows": behind(lambda channels: Roll()),
    "in place": lambda conv: nn.Sequential(nn.LeakyReLU(0.5, inplace=True), conv, nn.ReLU(inplace=True)),
    "nothing": lambda conv: nn.Identity() if conv.in_channels == conv.out_channels else conv,
    "hook": hooked,
    "pre-hook": pre_hooked,
    "own forward": patched,
    "subclass": subclassed,
    "weight norm": parametrizations.weight_norm,
    "pruned": lambda conv: prune.random_unstructured(conv, "weight", 0.5),
}


@pytest.fixture(scope="module")
def networks() -> dict[str, fb.FusionModel]:
    return {name: trained_like(name, **NARROW[name]).double() for name in NETWORKS}


def inputs_of(name: str) -> dict[str, Tensor]:
    return {key: value.double() for key, value in pair(name, HEIGHT, WIDTH).items()}


def tensors(output: fb.FusionOutput) -> dict[str, Tensor]:
    features = output.features or {}
    return {name: value for name, value in {**vars(output), **features}.items() if isinstance(value, Tensor)}


@torch.no_grad()
def assert_unspoiled(model: nn.Module, inputs: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    """The optimized copy returns what the network returns, in strips of every height."""
    expected = tensors(model(**inputs))
    fast, alone = fb.optimize(model), fb.optimize(model, outputs=("fused",))
    for name, copied in (*((name, fast) for name in PIXELS), ("many strips", alone)):
        monkeypatch.setattr(strips, "PIXELS", PIXELS[name])
        for key, value in tensors(copied(**inputs)).items():
            error = (value - expected[key]).abs().max().item() / max(1.0, expected[key].abs().max().item())
            assert error < 1e-9, f"{what}, {name}, {key}: {error:.1e} off"


def edited(model: fb.FusionModel, edit: str, inputs: dict[str, Tensor], places: int) -> Iterator[tuple[str, nn.Module]]:
    """Yield copies of a network in which one convolution was edited; those that the network itself cannot run not."""
    paths = [path for path, module in model.named_modules() if type(module) is nn.Conv2d and module.padding != (0, 0)]
    paths += [path for path, module in model.named_modules() if type(module) is nn.Conv2d and path not in paths]
    order = torch.randperm(len(paths), generator=torch.Generator().manual_seed(zlib.crc32(edit.encode()))).tolist()
    found = 0
    for path in [paths[i] for i in order]:
        torch.manual_seed(0)
        copied = copy.deepcopy(model)
        copied.set_submodule(path, OF_CONVOLUTIONS[edit](copied.get_submodule(path)))
        copied = copied.double().eval()
        try:
            with torch.no_grad():
                copied(**inputs)
        except (AttributeError, RuntimeError, ValueError):
            continue  # the edit does not fit here: another size, or the block needs a plain convolution
        yield path, copied
        found += 1
        if found == places:
            return
    assert found, f"{edit} fits nowhere"


@pytest.mark.parametrize("edit", OF_CONVOLUTIONS)
@pytest.mark.parametrize("name", NETWORKS)
def test_an_edited_convolution(networks, name: str, edit: str, monkeypatch) -> None:
    inputs = inputs_of(name)
    for path, model in edited(networks[name], edit, inputs, PLACES):
        assert_unspoiled(model, inputs, monkeypatch, f"{edit} at {path}")


@pytest.mark.parametrize("size", [5, 9])
@pytest.mark.parametrize("name", NETWORKS)
def test_every_kernel_wider(networks, name: str, size: int, monkeypatch) -> None:
    torch.manual_seed(0)
    model = copy.deepcopy(networks[name])
    for path, conv in list(model.named_modules()):
        if type(conv) is nn.Conv2d and conv.kernel_size == (3, 3) and conv.padding == conv.stride == (1, 1):
            model.set_submodule(path, wider(conv, size).double())
    assert_unspoiled(model.eval(), inputs_of(name), monkeypatch, f"{size}x{size}")


def classes_in(model: nn.Module) -> list[type[nn.Module]]:
    return sorted({type(m) for m in model.modules() if type(m) in REWRITES}, key=lambda cls: cls.__name__)


def changed(value: Any) -> Any:
    return value + value.mean(dim=2, keepdim=True) if isinstance(value, Tensor) else value


@pytest.mark.parametrize("name", NETWORKS)
def test_a_subclass_with_another_forward(networks, name: str, monkeypatch) -> None:
    inputs = inputs_of(name)
    for cls in classes_in(networks[name]):
        other = type(
            "Other", (cls,), {"forward": lambda self, *args, c=cls, **kw: changed(c.forward(self, *args, **kw))}
        )
        model = copy.deepcopy(networks[name])
        first = next(module for module in model.modules() if type(module) is cls)
        first.__class__ = other
        assert_unspoiled(model, inputs, monkeypatch, f"subclass of {cls.__name__}")


@pytest.mark.parametrize("name", NETWORKS)
def test_a_subclass_that_keeps_everything_gains_too(networks, name: str, monkeypatch) -> None:
    inputs, model = inputs_of(name), copy.deepcopy(networks[name])
    count = sum(isinstance(module, Rewrite) for module in fb.optimize(model).modules())
    for module in model.modules():
        if type(module) in REWRITES:
            module.__class__ = type("Kept", (type(module),), {"purpose": "mine"})
    assert sum(isinstance(module, Rewrite) for module in fb.optimize(model).modules()) == count
    assert_unspoiled(model, inputs, monkeypatch, "subclasses")


@pytest.mark.parametrize("name", NETWORKS)
def test_a_hook_on_any_block_sees_the_whole_map(networks, name: str, monkeypatch) -> None:
    inputs = inputs_of(name)
    for cls in classes_in(networks[name]):
        model = copy.deepcopy(networks[name])
        module = next(module for module in model.modules() if type(module) is cls)
        module.register_forward_hook(lambda module, args, output: changed(output))
        assert_unspoiled(model, inputs, monkeypatch, f"hook on {cls.__name__}")


@pytest.mark.parametrize("name", NETWORKS)
def test_shared_convolutions(networks, name: str, monkeypatch) -> None:
    model = copy.deepcopy(networks[name])
    seen: dict[tuple, nn.Module] = {}
    for path, conv in list(model.named_modules()):
        if type(conv) is nn.Conv2d:
            key = (tuple(conv.weight.shape), conv.stride, conv.padding, conv.dilation, conv.groups, conv.bias is None)
            model.set_submodule(path, seen.setdefault(key, conv))
    assert_unspoiled(model, inputs_of(name), monkeypatch, "shared modules")


@pytest.mark.parametrize("name", NETWORKS)
def test_tied_weights(networks, name: str, monkeypatch) -> None:
    model = copy.deepcopy(networks[name])
    seen: dict[tuple, nn.Parameter] = {}
    for conv in model.modules():
        if type(conv) is nn.Conv2d:
            conv.weight = seen.setdefault(tuple(conv.weight.shape), conv.weight)
    assert_unspoiled(model, inputs_of(name), monkeypatch, "tied weights")


def test_a_compiled_part_is_left_alone(networks, monkeypatch) -> None:
    for compiled in ("in place", "wrapped"):
        model = copy.deepcopy(networks["smfnet"])
        if compiled == "in place":
            model.decoder.head.compile(backend="eager")
        else:
            model.decoder.head = torch.compile(model.decoder.head, backend="eager")
        with torch.no_grad():
            inputs = inputs_of("smfnet")
            torch.testing.assert_close(fb.optimize(model)(**inputs).fused, model(**inputs).fused, rtol=0, atol=1e-9)


class Foreign(nn.Module):
    """A network of one's own that holds a block, and reaches into a sequence of its own."""

    def __init__(self, block: nn.Module, channels: int = 8) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(1, channels, 3, padding=1),
            nn.BatchNorm2d(channels),
            nn.LeakyReLU(),
            nn.Conv2d(channels, channels, 1),
        )
        self.block = block
        self.head = nn.Conv2d(channels, 1, 3, padding=1)

    def forward(self, infrared: Tensor, visible: Tensor) -> fb.FusionOutput:
        taps = [infrared]
        for layer in self.stem:
            taps.append(layer(taps[-1]))
        before, normed = self.stem[0](visible[:, :1]), self.stem(visible[:, :1])
        arguments = [taps[-1], normed]
        result = self.block(*arguments) if takes_two(self.block) else self.block(taps[-1]) + normed
        result = result if isinstance(result, Tensor) else sum(result[:2])
        return fb.FusionOutput(fused=self.head(result + before + taps[1] + taps[2] + arguments[0]))


def takes_two(block: nn.Module) -> bool:
    return isinstance(block, FOREIGN_PAIRS)


FOREIGN: dict[str, Callable[[], nn.Module]] = {
    "ChannelAttention": lambda: blocks.ChannelAttention(8, num_heads=2, depthwise=False),
    "TransformerBlock": lambda: blocks.TransformerBlock(8, num_heads=2, feed_forward=nn.Conv2d(8, 8, 9, padding=4)),
    "norm over the picture": lambda: blocks.TransformerBlock(8, num_heads=2, feed_forward=nn.GroupNorm(1, 8)),
    "BaseFeatureExtraction": lambda: blocks.BaseFeatureExtraction(8, num_heads=2),
    "CAI": lambda: blocks.CAI(8, num_heads=2),
    "DetailFusion": lambda: blocks.DetailFusion(8),
    "GradientResidualDense": lambda: blocks.GradientResidualDense(8),
    "GraphReasoning": lambda: blocks.GraphReasoning(8, dilations=(1, 2)),
    "SDFM": lambda: blocks.SDFM(8, 8),
    "SDFM of nothing": lambda: empty_sdfm(),
    "AdaptiveFusion": lambda: blocks.AdaptiveFusion(8),
    "SemanticInjection": lambda: blocks.SemanticInjection(8, 8),
    "PSFM": lambda: blocks.PSFM(8, 8),
    "SceneFidelityPath": lambda: blocks.SceneFidelityPath(8, 8),
    "DSRM": lambda: blocks.DSRM(8),
    "S2PM": lambda: blocks.S2PM(8, 8),
    "MixtureOfExperts": lambda: blocks.MixtureOfExperts(8),
    "experts of one's own": lambda: blocks.MixtureOfExperts(8, experts=[Whole(), blocks.UniNet(8)]),
    "DegradationExperts": lambda: blocks.DegradationExperts(8, pool_size=4),
    "residual": lambda: resnet_block(),
}
FOREIGN_PAIRS = (blocks.GraphReasoning, blocks.SDFM, blocks.AdaptiveFusion, blocks.SemanticInjection, blocks.PSFM)


def empty_sdfm() -> nn.Module:
    block = blocks.SDFM(8, 8)
    block.infrared, block.visible = nn.Identity(), nn.Identity()
    return block


def resnet_block() -> nn.Module:
    from timm.models.resnet import BasicBlock

    return BasicBlock(8, 8)


def lively(module: nn.Module) -> nn.Module:
    """Return a module in evaluation whose gains, biases and norms are none that do nothing."""
    with torch.no_grad():
        for tensor in (*module.parameters(), *module.buffers()):
            if tensor.is_floating_point():
                tensor.add_(0.1 * torch.rand_like(tensor))
    return module.double().eval()


@pytest.mark.parametrize("name", FOREIGN)
def test_a_block_in_a_foreign_network(name: str, monkeypatch) -> None:
    torch.manual_seed(0)
    model = lively(Foreign(FOREIGN[name]()))
    inputs = inputs_of("own")
    with torch.no_grad():
        expected = model(**inputs).fused
    fast = fb.optimize(model)
    for pixels in PIXELS.values():
        monkeypatch.setattr(strips, "PIXELS", pixels)
        with torch.no_grad():
            torch.testing.assert_close(fast(**inputs).fused, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", FOREIGN)
def test_a_block_alone(name: str, monkeypatch) -> None:
    torch.manual_seed(0)
    block = lively(FOREIGN[name]())
    maps = torch.rand(2 if takes_two(block) else 1, 1, 8, HEIGHT, WIDTH).double()
    given = maps.clone()
    with torch.no_grad():
        expected = block(*maps)
        for pixels in PIXELS.values():
            monkeypatch.setattr(strips, "PIXELS", pixels)
            torch.testing.assert_close(fb.optimize(block)(*maps), expected, rtol=0, atol=1e-9)
    assert torch.equal(maps, given)
