from __future__ import annotations

import math
import re

import numpy as np
import pytest
import torch
from scipy import ndimage

from fusionblocks.image import gaussian_pyramid, laplacian_pyramid, max_levels, reconstruct

SIZES = [(1, 1), (2, 2), (3, 2), (5, 5), (1, 8), (16, 16), (17, 31), (37, 50), (64, 33), (329, 500)]


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_reconstruction_is_exact_at_every_size_and_depth(height: int, width: int) -> None:
    x = torch.rand(2, 3, height, width, dtype=torch.float64)
    before = x.clone()
    for levels in range(1, max_levels(height, width) + 1):
        pyramid = laplacian_pyramid(x, levels)
        assert len(pyramid) == levels
        torch.testing.assert_close(reconstruct(pyramid), x, rtol=0, atol=1e-13)
    assert torch.equal(x, before)


@pytest.mark.parametrize("size", [(5, 5), (17, 31), (37, 50)])
def test_levels_against_scipy(size: tuple[int, int]) -> None:
    x = torch.rand(*size, dtype=torch.float64)
    taps = np.array([1, 4, 6, 4, 1]) / 16
    weights = np.outer(taps, taps)
    fine = x.numpy()
    coarse = ndimage.convolve(fine, weights, mode="mirror")[::2, ::2]
    spread = np.zeros_like(fine)
    spread[::2, ::2] = coarse
    detail = fine - ndimage.convolve(spread, 4 * weights, mode="mirror")
    np.testing.assert_allclose(gaussian_pyramid(x, 2)[1].numpy(), coarse, atol=1e-14)
    np.testing.assert_allclose(laplacian_pyramid(x, 2)[0].numpy(), detail, atol=1e-14)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_a_constant_has_no_detail(height: int, width: int) -> None:
    x = torch.full((height, width), 0.7, dtype=torch.float64)
    *details, rest = laplacian_pyramid(x, max_levels(height, width))
    torch.testing.assert_close(rest, torch.full_like(rest, 0.7))
    for detail in details:
        assert detail.abs().max() < 1e-14


def test_sizes_halve_rounded_up() -> None:
    shapes = [tuple(level.shape) for level in laplacian_pyramid(torch.rand(1, 1, 37, 50), 7)]
    assert shapes == [(1, 1, *size) for size in [(37, 50), (19, 25), (10, 13), (5, 7), (3, 4), (2, 2), (1, 1)]]


def test_max_levels() -> None:
    for side in range(1, 600):
        assert max_levels(side, 1000) == max_levels(1000, side) == math.ceil(math.log2(side)) + 1
    with pytest.raises(ValueError, match=re.escape("height and width must be at least 1, got 0x4")):
        max_levels(0, 4)


def test_gradients() -> None:
    x = torch.rand(1, 1, 5, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: tuple(laplacian_pyramid(x, 3)), x)
    pyramid = [level.detach().requires_grad_() for level in laplacian_pyramid(x, 3)]
    assert torch.autograd.gradcheck(lambda *levels: reconstruct(levels), tuple(pyramid))


def test_compiles_and_exports() -> None:
    class Doubled(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return reconstruct([2 * level for level in laplacian_pyramid(x, 4)])

    x = torch.rand(1, 1, 37, 50)
    torch.testing.assert_close(torch.compile(Doubled(), fullgraph=True, backend="aot_eager")(x), 2 * x)
    torch.testing.assert_close(torch.export.export(Doubled(), (x,)).module()(x), 2 * x)


@pytest.mark.parametrize("levels", [0, 8, 2.0, True])
def test_refuses_levels_that_the_picture_cannot_have(levels: object) -> None:
    message = f"levels must be an integer from 1 to 7 for a picture of 37x50 (height x width), got {levels!r}"
    with pytest.raises(ValueError, match=re.escape(message)):
        laplacian_pyramid(torch.rand(37, 50), levels)  # type: ignore[arg-type]


def test_refuses_what_is_no_pyramid() -> None:
    with pytest.raises(ValueError, match="pyramid must have at least one level, got none"):
        reconstruct([])
    message = "pyramid[1] must have size 19x25, half of pyramid[0], got 18x25 (height x width)"
    with pytest.raises(ValueError, match=re.escape(message)):
        reconstruct([torch.rand(37, 50), torch.rand(18, 25)])
    with pytest.raises(TypeError, match=r"x must be of a floating-point dtype, got torch.uint8"):
        gaussian_pyramid(torch.zeros(8, 8, dtype=torch.uint8), 2)
