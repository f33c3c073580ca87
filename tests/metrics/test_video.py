from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fusionblocks.image import gaussian_blur
from fusionblocks.metrics import (
    background_flicker,
    dense_inverse_search,
    motion_smoothness,
    self_warping_error,
    warp,
)


def textured(frames: int, step: int, seed: int = 0) -> Tensor:
    """Return a clip of a texture that moves so many pixels a frame."""
    noise = torch.rand(1, 1, 64, 96, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    smooth = gaussian_blur(noise, 2.0)
    smooth = (smooth - smooth.min()) / (smooth.max() - smooth.min())
    return torch.cat([smooth.roll(step * i, dims=3) for i in range(frames)])


def moves(step: int):
    """Return a flow that knows the answer."""

    def flow(first: Tensor, second: Tensor) -> Tensor:
        sign = 1 if torch.equal(first.roll(step, dims=3), second) else -1
        field = torch.zeros(len(first), 2, *first.shape[-2:])
        field[:, 0] = sign * step
        return field

    return flow


def test_flicker_is_counted_where_both_sources_stand_still() -> None:
    still = textured(4, 0)
    assert background_flicker(still, still, still) == 0
    blinking = still * torch.tensor([1.0, 0.9, 1.0, 0.9]).view(4, 1, 1, 1)
    assert background_flicker(blinking, still, still).item() == pytest.approx((25.5 * still).mean().item())
    # where a source moves the fused picture may change
    half = still.clone()
    half[1::2, :, :, 48:] = 0
    changed = still.clone()
    changed[:, :, :, 48:] = torch.rand(4, 1, 64, 48)
    assert background_flicker(changed, half, still) < 0.1 < background_flicker(changed, still, still)
    noise = torch.rand(3, 1, 64, 96)
    assert torch.isnan(background_flicker(noise, noise, noise))


def test_a_sequence_that_moves_as_its_sources_has_no_self_warping_error() -> None:
    clip = textured(4, 3)
    inner = self_warping_error(clip, clip, clip, flow=moves(3))
    # only the columns that come in from the border differ, and they are hidden by definition of neither
    assert inner < 255 * 2 * 3 / 96
    flicker = clip + 0.1 * torch.tensor([0.0, 1.0, 0.0, 1.0]).view(4, 1, 1, 1) * (1 - clip)
    assert self_warping_error(flicker, clip, clip, flow=moves(3)) > inner + 10


def test_hidden_pixels_do_not_count() -> None:
    clip = textured(3, 0)
    broken = clip.clone()
    broken[1, :, :, :48] = 0

    def flow(first: Tensor, second: Tensor) -> Tensor:
        field = torch.zeros(len(first), 2, 64, 96)
        if torch.equal(first, second):  # of the sources: the left half goes and does not come back
            field[:, 0, :, :40] = 2.0
        return field

    # forward and backward flow of the left half disagree by 4 pixels, so that only the gap up to 48 is left
    error = self_warping_error(broken, clip, clip, flow=flow)
    all_seen = self_warping_error(broken, clip, clip, flow=lambda a, b: torch.zeros(len(a), 2, 64, 96))
    assert 0 < error < all_seen / 2


def test_smooth_motion_as_in_both_sources_is_zero() -> None:
    clip = textured(4, 2)
    assert motion_smoothness(clip, clip, clip, flow=moves(2)) == 0
    jerky = {0: 0.0, 1: 3.0, 2: 0.0}

    def flow(first: Tensor, second: Tensor) -> Tensor:
        field = torch.zeros(len(first), 2, 64, 96)
        if first.mean() < 60:  # the fused clip is darker
            for i in range(3):
                field[i, 0] = jerky[i]
        return field

    # the flow's x component changes by 3 each time, its y component by 0
    assert motion_smoothness(clip / 8, clip, clip, flow=flow).item() == pytest.approx(1.5)


def test_optical_flow_finds_the_motion() -> None:
    pytest.importorskip("cv2")
    clip = 255 * textured(2, 3)
    flow = dense_inverse_search(clip[:1], clip[1:])
    middle = flow[0, :, 16:48, 24:72].flatten(1).median(dim=1).values
    assert (middle - torch.tensor([3.0, 0.0], dtype=torch.float64)).abs().max() < 0.2
    moved = warp(clip[1:], flow)
    assert (moved - clip[:1])[..., 16:48, 24:72].abs().mean() < 3
    clip = textured(5, 2)
    steady, jumping = clip, clip * torch.tensor([1.0, 0.8, 1.0, 0.8, 1.0]).view(5, 1, 1, 1)
    assert self_warping_error(steady, clip, clip) < self_warping_error(jumping, clip, clip)
    assert motion_smoothness(steady, clip, clip) < motion_smoothness(jumping, clip, clip)


def test_bad_clips_are_refused() -> None:
    clip = textured(2, 0)
    with pytest.raises(ValueError, match="fused must have at least 2 frames"):
        background_flicker(clip[:1], clip[:1], clip[:1])
    for metric in (self_warping_error, motion_smoothness):
        with pytest.raises(ValueError, match="fused must have at least 3 frames"):
            metric(clip, clip, clip)
        with pytest.raises(ValueError, match=r"flow must return a tensor of shape \(\d, 2, 64, 96\), got"):
            metric(*[textured(3, 0)] * 3, flow=lambda a, b: a)
    with pytest.raises(ValueError, match="fused and visible must have the same"):
        background_flicker(clip, clip, clip[:1])
