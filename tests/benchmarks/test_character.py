"""Each figure of a fused picture's character, on pictures whose figure is known."""

from __future__ import annotations

import pytest
import torch

from benchmarks import character
from fusionblocks.data import synthetic_scene
from fusionblocks.image import luma

SCENE = synthetic_scene(0, height=64, width=80)
INFRARED, VISIBLE = SCENE.infrared[None], SCENE.visible[None]
GRAY = luma(VISIBLE)


def test_chroma_that_is_kept_and_lost() -> None:
    assert character.colour(lambda _, visible: visible, INFRARED, VISIBLE) == 0
    gray = character.colour(lambda _, visible: luma(visible).expand(-1, 3, -1, -1), INFRARED, VISIBLE)
    assert gray > 1


def test_noise_is_that_of_the_noisier_source() -> None:
    noisy = (GRAY + 0.1 * torch.randn(GRAY.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)
    flat = torch.full_like(noisy, 0.5)
    assert character.noise(noisy, noisy, flat) == pytest.approx(1)
    assert character.noise(flat, noisy, flat) == pytest.approx(0, abs=1e-6)


def test_targets_of_the_brighter_source() -> None:
    brighter = torch.maximum(INFRARED, GRAY)
    assert character.targets(brighter, INFRARED, GRAY) == 0
    assert character.targets(brighter - 0.1, INFRARED, GRAY) == pytest.approx(25.5, rel=1e-4)


def test_a_pixelwise_sum_moves_with_its_pair() -> None:
    assert character.half_pixel(lambda a, b: ((a + b) / 2).expand(-1, 3, -1, -1), INFRARED, GRAY) < 1e-3
    assert character.half_pixel(lambda a, b: torch.maximum(a, b).expand(-1, 3, -1, -1), INFRARED, GRAY) > 0.1


def test_edges_of_both_sources_are_the_truth() -> None:
    assert character.edges(GRAY, GRAY, GRAY) == (1, 1, 1)
    precision, recall, _ = character.edges(GRAY, torch.zeros_like(GRAY), GRAY)
    assert (precision, recall) == (1, 1)
    precision, recall, f1 = character.edges(torch.zeros_like(GRAY), INFRARED, GRAY)
    assert (recall, f1) == (0, 0)
    assert character.edges(INFRARED, torch.zeros_like(GRAY), GRAY)[0] < 1
