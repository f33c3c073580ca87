from __future__ import annotations

import inspect
from itertools import product

import pytest
import torch
from torch import nn

import fusionblocks as fb
from fusionblocks.blocks.kinds import KINDS, Projected, inputs_of
from tests.helpers.block_tester import flat

WIDTHS = {"map": (16, 24), "merge": (16, 24), "exchange": (16,), "modulate": (16,), "head": (16, 3)}
OPTIONS = {"modulate": {"semantic_channels": 12}}
PAIRS = [(kind, *pair) for kind in WIDTHS for pair in product(fb.list_blocks(kind), repeat=2)]


class Host(nn.Module):
    """A convolution before a block of any kind, a sum behind it."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(1))
        self.block = block

    def forward(self, *maps):
        return sum(out.square().mean() for out in flat(self.block(*(self.gain * x for x in maps))))


def made(kind: str, name: str) -> nn.Module:
    torch.manual_seed(0)
    return fb.create_block(name, *WIDTHS[kind], **OPTIONS.get(kind, {}))


def test_each_block_has_a_kind_or_says_why_not() -> None:
    for name in fb.list_blocks():
        cls = getattr(fb, name)
        assert (getattr(cls, "kind", None) in KINDS) != bool(getattr(cls, "stands_alone", "")), name
    assert {name for kind in KINDS for name in fb.list_blocks(kind)} < set(fb.list_blocks())
    assert fb.list_blocks("merge") == ["AdaptiveFusion", "DualCrossAttention", "PSFM", "SDFM"]
    assert fb.list_blocks(kind="invertible") == ["AffineCoupling", "DetailNode", "InvertibleConv1x1"]
    with pytest.raises(ValueError, match="unknown kind 'merges'.*did you mean 'merge'.*exchange"):
        fb.list_blocks("merges")


def test_widths_come_first() -> None:
    """A block is built by its width alone, or by both; what else it takes has defaults."""
    for kind in WIDTHS:
        for name in fb.list_blocks(kind):
            width, *others = inspect.signature(getattr(fb, name)).parameters.values()
            assert width.name in ("channels", "in_channels")
            assert all(other.default is not other.empty for other in others), name
            getattr(fb, name)(16)


@pytest.mark.parametrize("kind", WIDTHS)
def test_results_are_as_the_kind_says(kind) -> None:
    for name in fb.list_blocks(kind):
        block = made(kind, name).eval()
        maps = inputs_of(block, batch=2)
        shapes = [out.shape[1:] for out in flat(block(*maps))]
        assert (
            shapes
            == {
                "map": [(24, 8, 9)],
                "merge": [(24, 8, 9)],
                "exchange": [(8, 8, 9), (8, 8, 9)],
                "modulate": [(16, 8, 9)],
                "head": [(3, 8, 9)],
            }[kind]
        ), name


@pytest.mark.parametrize(("kind", "old", "new"), PAIRS)
def test_any_stands_in_for_any(kind, old, new) -> None:
    """Forward and backward: gradients reach what is before the block, and the block."""
    host = Host(made(kind, old))
    maps = inputs_of(host.block, batch=2)
    swapped = fb.swap(host, type(host.block), lambda _: made(kind, new))
    assert type(swapped.block) is type(made(kind, new))
    for network in (host, swapped):
        network.train()(*maps).backward()
        assert network.gain.grad is not None
        assert all(p.grad is not None and p.grad.isfinite().all() for p in network.block.parameters())


def test_semantics_may_be_a_vector_or_a_map() -> None:
    for name in fb.list_blocks("modulate"):
        block = fb.create_block(name, 16, semantic_channels=12).eval()
        x, semantic = torch.randn(2, 16, 8, 9), torch.randn(2, 12)
        vector = block(x, semantic)
        torch.testing.assert_close(block(x, semantic[..., None, None]), vector)
        assert block(x, torch.randn(2, 12, 3, 5)).shape == x.shape


def test_create_block() -> None:
    assert type(fb.create_block("SDFM", 8, 12)) is fb.SDFM
    assert type(fb.create_block("CAI", 16, 16)) is fb.CAI
    wide = fb.create_block("InvertedResidual", 8, 12, expand_ratio=1)
    assert (type(wide), wide.expand.out_channels) == (fb.InvertedResidual, 8)
    projected = fb.create_block("LeFF", 8, 12)
    assert (type(projected), projected.kind, projected.channels) == (Projected, "map", 12)
    assert fb.blocks.reach(fb.create_block("MSFEM", 8, 12)) == fb.blocks.reach(fb.MSFEM(8)) == 5
    with pytest.raises(ValueError, match="unknown block 'SDFN'.*did you mean 'SDFM'"):
        fb.create_block("SDFN", 8)
    for name in ("DetailNode", "SemanticInjection", "GraphReasoning"):
        with pytest.raises(ValueError, match=f"{name} returns as many channels as it takes, got 8 and 12"):
            fb.create_block(name, 8, 12)
    with pytest.raises(ValueError, match="out_channels must be a positive integer, got 0"):
        fb.create_block("CAI", 16, 0)
