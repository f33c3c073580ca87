"""A picture fused a strip at a time is the picture fused whole."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import fusionblocks as fb
from fusionblocks import inference
from fusionblocks.image import Rows
from tests.helpers.memory import peak_bytes
from tests.helpers.networks import NARROW, trained_like


def scene(height: int, width: int, batch: int = 1) -> tuple[Tensor, Tensor]:
    scenes = [fb.data.synthetic_scene(3 + i, height=max(height, 32), width=max(width, 32)) for i in range(batch)]
    pictures = torch.stack([s.infrared for s in scenes]), torch.stack([s.visible for s in scenes])
    return pictures[0][..., :height, :width], pictures[1][..., :height, :width]


@pytest.mark.parametrize("tile", [64, 96, 200])
@pytest.mark.parametrize(("height", "width"), [(300, 210), (257, 131), (65, 400), (8, 9)])
@pytest.mark.parametrize("optimized", [False, True])
@pytest.mark.parametrize("name", ["fusionblocks", "laplacian"])
def test_pieces_are_the_whole(name: str, optimized: bool, height: int, width: int, tile: int) -> None:
    model = fb.create_model(name)
    model = fb.optimize(model) if optimized else model
    pair = scene(height, width)
    whole, pieces = (fb.fuse(*pair, model=model, tile=tile) for tile in (None, tile))
    torch.testing.assert_close(pieces, whole, rtol=0, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize(
    "options", [{"channels": 8}, {"channels": 8, "scale": 1, "margin": 0}, {"channels": 8, "scale": 8, "levels": 3}]
)
def test_float64_shows_that_it_is_the_same_function(options: dict[str, int]) -> None:
    model = trained_like("fusionblocks", **options).double()
    infrared, visible = (x.double() for x in scene(150, 93, batch=2))
    expected = model(infrared, visible).fused
    for strip in (8, 30, 64):
        rows = model.by_rows(Rows.of(infrared, strip), Rows.of(visible, strip)).whole()
        torch.testing.assert_close(rows, expected, rtol=0, atol=1e-10)


def test_large_pictures_go_by_rows_of_their_own_accord(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = scene(200, 150)
    whole = fb.fuse(*pair)
    rows = []
    by_rows = fb.FusionBlocksNet.by_rows
    monkeypatch.setattr(fb.FusionBlocksNet, "by_rows", lambda self, *pair: rows.append(1) or by_rows(self, *pair))
    fb.fuse(*pair)
    assert not rows
    monkeypatch.setattr(inference, "WHOLE_PIXELS", 10_000)
    monkeypatch.setattr(inference, "STRIP_PIXELS", 5_000)
    # what watches the method is no longer the network's own
    monkeypatch.setattr(fb.models.fusionblocks.network, "must_own", lambda *_: None)
    torch.testing.assert_close(fb.fuse(*pair), whole, rtol=0, atol=1e-4)
    assert rows
    # a network that needs the picture whole gets it whole
    assert fb.fuse(*pair, model=trained_like("smfnet", **NARROW["smfnet"])).shape == whole.shape


class Blur(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 5, padding=2)

    def reach(self) -> int | None:
        return fb.blocks.reach(self.conv)

    def forward(self, infrared: Tensor, visible: Tensor) -> Tensor:
        return self.conv(torch.maximum(infrared, visible)).sigmoid()


def test_a_network_of_ones_own_goes_by_rows_when_it_tells_its_reach() -> None:
    pair, model = scene(150, 90), Blur()
    torch.testing.assert_close(fb.fuse(*pair, model=model, tile=64), fb.fuse(*pair, model=model, tile=None))
    model.conv = nn.Sequential(model.conv, nn.GroupNorm(1, 1))
    with pytest.raises(ValueError, match="'Blur' needs pictures whole, got tile=64: it is not known how many rows"):
        fb.fuse(*pair, model=model, tile=64)


def test_edited_networks_do_not_go_by_rows() -> None:
    pair = scene(150, 90)
    model = fb.create_model("fusionblocks")
    model.exchange.register_forward_hook(lambda module, args, output: output.flip(2))
    with pytest.raises(ValueError, match="needs pictures whole"):
        fb.fuse(*pair, model=model, tile=64)
    model = fb.create_model("fusionblocks")
    model.edges = nn.Sequential(model.edges, nn.InstanceNorm2d(24))
    with pytest.raises(ValueError, match="it is not known how many rows of a map Sequential sees"):
        fb.fuse(*pair, model=model, tile=64)
    model.edges = nn.Conv2d(24, 24, 9, padding=4)
    torch.testing.assert_close(
        fb.fuse(*pair, model=model, tile=64), fb.fuse(*pair, model=model, tile=None), rtol=0, atol=1e-4
    )


def test_memory_is_bounded() -> None:
    """A strip's memory, what is kept of the features (72 channels at half size), and the pictures: 80 bytes a pixel."""
    height, width = 2000, 1500
    infrared, visible = np.zeros((height, width), np.uint8), np.zeros((height, width, 3), np.uint8)
    infrared[::3] = 90
    visible[:, ::5] = 120
    fb.fuse(infrared[:64], visible[:64])
    whole, rows = (peak_bytes(lambda t=t: fb.fuse(infrared, visible, tile=t)) for t in (None, "auto"))
    assert rows < 80 * height * width + 2**27
    assert rows < whole
