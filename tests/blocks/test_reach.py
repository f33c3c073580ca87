"""How far a module sees: what is declared, held against what a changed row changes."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from timm.layers import ConvMlp, ConvNormAct, GroupNormAct, LayerNorm2d
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

import fusionblocks as fb
from fusionblocks import blocks
from fusionblocks.blocks import reach

HEIGHT, WIDTH, ROW = 61, 9, 30
ONE: dict[str, Callable[[], nn.Module]] = {
    "conv 3": lambda: nn.Conv2d(4, 4, 3, padding=1),
    "conv 7, dilated": lambda: nn.Conv2d(4, 4, 7, padding=9, dilation=3),
    "conv 5x3": lambda: nn.Conv2d(4, 4, (5, 3), padding=(2, 1)),
    "conv same": lambda: nn.Conv2d(4, 4, 4, padding="same"),
    "conv reflected": lambda: nn.Conv2d(4, 4, 5, padding=2, padding_mode="reflect"),
    "conv replicated": lambda: nn.Conv2d(4, 4, 3, padding=1, padding_mode="replicate"),
    "max pooling": lambda: nn.MaxPool2d(5, stride=1, padding=2),
    "mean pooling": lambda: nn.AvgPool2d(3, 1, 1),
    "sequence": lambda: nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(True), nn.Conv2d(4, 4, 3, padding=1)),
    "twice the same": lambda: nn.Sequential(*[nn.Conv2d(4, 4, 3, padding=1)] * 3),
    "conv and norm": lambda: ConvNormAct(4, 4, 3, dilation=2),
    "norm over channels": lambda: nn.Sequential(LayerNorm2d(4), nn.Softmax(dim=1), nn.BatchNorm2d(4)),
    "ConvMlp": lambda: ConvMlp(4, 8),
    "LeFF": lambda: blocks.LeFF(4),
    "LeFF 5x5": lambda: with_child(blocks.LeFF(4), depthwise=nn.Conv2d(4, 4, 5, padding=2)),
    "InvertedResidual": lambda: blocks.InvertedResidual(4),
    "InvertibleConv1x1": lambda: blocks.InvertibleConv1x1(4),
    "GradientResidualDense": lambda: blocks.GradientResidualDense(4),
    "DetailFusion": lambda: blocks.DetailFusion(4),
    "ModalityGraph": lambda: blocks.graph_reasoning.ModalityGraph(4, dilations=(1, 3)),
    "DenseLayer": lambda: blocks.DenseLayer(4, 8),
    "DSRM": lambda: blocks.DSRM(4),
    "FReLU": lambda: blocks.FReLU(4, kernel_size=5),
    "S2PM": lambda: blocks.S2PM(4, 4),
    "ImageHead": lambda: blocks.ImageHead(4),
    "UniNet": lambda: blocks.UniNet(4),
    "MixtureOfExperts": lambda: blocks.MixtureOfExperts(4),
    "LowLightExpert": lambda: blocks.LowLightExpert(4),
    "MSFEM": lambda: blocks.MSFEM(4, hidden_channels=4),
}
SEVERAL: dict[str, Callable[[], nn.Module]] = {
    "DetailNode": lambda: blocks.DetailNode(8),
    "AffineCoupling": lambda: blocks.AffineCoupling(8),
    "AffineCoupling, forwards": lambda: blocks.AffineCoupling(8, reverse=False),
    "ConvGRUCell": lambda: blocks.ConvGRUCell(4, kernel_size=3),
    "GraphReasoning": lambda: blocks.GraphReasoning(4, dilations=(1, 3)),
    "GlobalRefinement": lambda: blocks.GlobalRefinement(4),
}


def with_child(module: nn.Module, **children: nn.Module) -> nn.Module:
    for name, child in children.items():
        setattr(module, name, child)
    return module


class Whole(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(dim=(2, 3), keepdim=True)


def drawn(build: Callable[[], nn.Module]) -> nn.Module:
    """Return a module in evaluation in which nothing is zero: no gain, no bias, no norm's statistics."""
    torch.manual_seed(0)
    module = build().double().eval()
    for tensor in module.state_dict().values():
        if tensor.is_floating_point():
            tensor.add_(0.1 * torch.rand_like(tensor))
    return module


@torch.no_grad()
def changed_rows(module: nn.Module, *inputs: Tensor) -> int:
    """Return how far from a changed row the rows are that change with it."""

    def run(inputs: list[Tensor]) -> list[Tensor]:
        result = module(*(x.clone() for x in inputs))
        return [result] if isinstance(result, Tensor) else list(result)

    before = run([*inputs])
    changed = [x.clone() for x in inputs]
    for x in changed:
        x[:, :, ROW] += 0.3 * torch.rand_like(x[:, :, ROW])
    rows = [(a != b).any(dim=(0, 1, 3)).nonzero() - ROW for a, b in zip(before, run(changed), strict=True)]
    return max(int(row.abs().max()) for row in rows)


@pytest.mark.parametrize("name", ONE)
def test_declared_is_measured(name: str) -> None:
    module = drawn(ONE[name])
    assert reach(module) == changed_rows(module, torch.rand(1, 4, HEIGHT, WIDTH).double())


@pytest.mark.parametrize("name", SEVERAL)
def test_declared_is_measured_with_several_inputs(name: str) -> None:
    module = drawn(SEVERAL[name])
    count = 3 if name == "GlobalRefinement" else 2
    assert reach(module) == changed_rows(module, *torch.rand(count, 1, 4, HEIGHT, WIDTH).double())


def test_every_block_that_declares_a_reach_is_measured() -> None:
    declared = {
        name for name in blocks.__all__ if isinstance(cls := getattr(blocks, name), type) and "reach" in vars(cls)
    }
    assert declared <= {name.partition(",")[0].partition(" ")[0] for name in (*ONE, *SEVERAL)}


@pytest.mark.parametrize("name", [name for name in (*ONE, *SEVERAL) if hasattr(blocks, name)])
def test_no_part_is_forgotten(name: str) -> None:
    """With any part that sees the whole map, a block's reach is unknown."""
    block = drawn({**ONE, **SEVERAL}[name])
    leaves = [path for path, module in block.named_modules() if path and not [*module.children()]]
    assert leaves or isinstance(block, nn.Conv2d)
    for path in leaves:
        if path.endswith(("bn.drop",)):
            continue  # timm's norm holds it, and never gets another
        edited = copy.deepcopy(block)
        edited.set_submodule(path, Whole())
        assert reach(edited) is None, path


class Rolled(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.roll(5, dims=2))


class OtherHelper(blocks.MixtureOfExperts):
    def gate(self, x: Tensor) -> Tensor:
        return super().gate(x).mean(dim=2, keepdim=True).expand(-1, -1, x.shape[2], -1)


class Named(nn.Conv2d):
    """A subclass that changes nothing."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, 3, padding=1)
        self.purpose = "edges"


def compiled() -> nn.Module:
    module = nn.Conv2d(4, 4, 3, padding=1)
    module.compile(backend="eager")
    return module


def hooked() -> nn.Module:
    module = nn.Conv2d(4, 4, 3, padding=1)
    module.register_forward_hook(lambda module, args, output: output - output.mean())
    return module


def patched() -> nn.Module:
    module = nn.Conv2d(4, 4, 3, padding=1)
    module.forward = lambda x: x.flip(2)
    return module


@pytest.mark.parametrize(
    "build",
    [
        Whole, compiled, hooked, patched,
        lambda: nn.Conv2d(4, 4, 3, stride=2, padding=1),
        lambda: nn.Conv2d(4, 4, 3),
        lambda: nn.Conv2d(4, 4, (3, 5), padding=1),
        lambda: nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular"),
        lambda: nn.ConvTranspose2d(4, 4, 3, padding=1),
        lambda: nn.MaxPool2d(2),
        lambda: nn.AvgPool2d(3),
        lambda: nn.GroupNorm(2, 4),
        lambda: nn.InstanceNorm2d(4),
        lambda: nn.BatchNorm2d(4, track_running_stats=False),
        lambda: nn.Softmax(dim=2),
        lambda: nn.Upsample(scale_factor=2),
        lambda: nn.AdaptiveAvgPool2d(1),
        lambda: nn.Sequential(nn.LeakyReLU(inplace=True), nn.Conv2d(4, 4, 3, padding=1)),
        lambda: nn.Sequential(nn.Conv2d(4, 4, 1), hooked()),
        lambda: Rolled(4, 4, 3, padding=1),
        lambda: OtherHelper(4),
        lambda: ConvNormAct(4, 4, 3, norm_layer=GroupNormAct, norm_kwargs={"group_size": 2}),
        lambda: parametrizations.weight_norm(nn.Conv2d(4, 4, 3, padding=1)),
        lambda: prune.random_unstructured(nn.Conv2d(4, 4, 3, padding=1), "weight", 0.5),
        lambda: blocks.TransformerBlock(8),
        lambda: blocks.SDFM(8, 8),
        lambda: fb.create_model("laplacian"),
    ],
)  # fmt: skip
def test_what_is_unknown(build: Callable[[], nn.Module]) -> None:
    assert reach(build().eval()) is None


def test_what_is_trained_is_unknown() -> None:
    assert reach(nn.BatchNorm2d(4)) is None
    assert reach(nn.BatchNorm2d(4).eval()) == 0


def test_a_subclass_that_changes_nothing_is_known() -> None:
    assert reach(Named(4)) == 1
