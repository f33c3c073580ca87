from __future__ import annotations

import torch

import fusionblocks as fb
from fusionblocks.image import luma
from fusionblocks.metrics import Remarks

SCENE = fb.data.synthetic_scene(1, height=96, width=128)
INFRARED, VISIBLE = SCENE.infrared[None], luma(SCENE.visible[None])


def lines(fused: torch.Tensor) -> list[str]:
    remarks = Remarks()
    remarks.update(fused.clamp(0, 1), INFRARED, VISIBLE)
    return remarks.lines()


def test_an_honest_fusion_raises_none() -> None:
    assert Remarks().lines() == []
    for fused in (torch.maximum(INFRARED, VISIBLE), (INFRARED + VISIBLE) / 2, INFRARED):
        assert lines(fused) == []


def test_burnt_and_crushed_pixels_are_told() -> None:
    (burnt, *_) = lines(torch.maximum(INFRARED, VISIBLE) * 3)
    assert burnt.endswith("% of the pixels are burnt out that are so in neither source")
    (crushed, *_) = lines(torch.minimum(INFRARED, VISIBLE) - 0.2)
    assert crushed.endswith("% of the pixels are crushed to black that are so in neither source")


def test_noise_is_told_by_what_it_raises() -> None:
    noise = 0.3 * torch.randn(INFRARED.shape, generator=torch.Generator().manual_seed(0))
    found = lines((INFRARED + VISIBLE) / 2 + noise)
    assert any(line.startswith("SF is ") and "times that of both sources together" in line for line in found)
    assert any(line.startswith("AG is ") for line in found)
    remarks = Remarks()
    remarks.update((INFRARED + noise).clamp(0, 1), INFRARED / 8, VISIBLE / 8)
    assert any(line.startswith("EN is higher than a fusion of these sources explains") for line in remarks.lines())


def test_every_picture_counts() -> None:
    remarks = Remarks()
    for _ in range(9):
        remarks.update(INFRARED, INFRARED, VISIBLE)
    remarks.update(torch.ones_like(INFRARED), INFRARED, VISIBLE)
    (line,) = remarks.lines()
    assert 9 < float(line.split(" ")[0]) <= 10
