from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from scipy import ndimage
from skimage.metrics import structural_similarity

from fusionblocks.image import ssim, ssim_map


def pair(height: int, width: int, noise: float = 0.2) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(2, 3, height, width, dtype=torch.float64, generator=generator)
    y = (x + noise * torch.randn(x.shape, dtype=torch.float64, generator=generator)).clamp(0, 1)
    return x, y


@pytest.mark.parametrize("size", [(11, 11), (24, 31), (64, 45)])
def test_against_scikit_image(size: tuple[int, int]) -> None:
    x, y = pair(*size)
    ours = ssim_map(x, y)
    assert ours.shape == (2, 3, size[0] - 10, size[1] - 10)
    for b in range(2):
        for c in range(3):
            _, expected = structural_similarity(
                x[b, c].numpy(), y[b, c].numpy(), gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
                data_range=1, full=True,
            )  # fmt: skip
            np.testing.assert_allclose(ours[b, c].numpy(), expected[5:-5, 5:-5], rtol=1e-9)
    torch.testing.assert_close(ssim(x, y), ours.mean(dim=(1, 2, 3)))


@pytest.mark.parametrize(("padding", "mode"), [("reflect", "mirror"), ("zero", "constant")])
def test_borders_against_scipy(padding: str, mode: str) -> None:
    x, y = pair(15, 12)
    a, b = x[0, 0].numpy(), y[0, 0].numpy()

    def mean(p: np.ndarray) -> np.ndarray:
        return ndimage.gaussian_filter(p, 1.5, mode=mode, radius=5)

    numerator = (2 * mean(a) * mean(b) + 1e-4) * (2 * (mean(a * b) - mean(a) * mean(b)) + 9e-4)
    spread = mean(a * a) - mean(a) ** 2 + mean(b * b) - mean(b) ** 2
    expected = numerator / ((mean(a) ** 2 + mean(b) ** 2 + 1e-4) * (spread + 9e-4))
    np.testing.assert_allclose(ssim_map(x, y, padding=padding)[0, 0].numpy(), expected, rtol=1e-9)


def test_equal_pictures_symmetry_and_order() -> None:
    x, y = pair(20, 20)
    torch.testing.assert_close(ssim(x, x), torch.ones(2, dtype=torch.float64))
    torch.testing.assert_close(ssim(x, y), ssim(y, x))
    less, more = pair(20, 20, noise=0.05)[1], pair(20, 20, noise=0.5)[1]
    assert (ssim(x, less) > ssim(x, more)).all()
    assert (ssim(x, 1 - x) < 0).all()


def test_data_range() -> None:
    x, y = pair(16, 16)
    torch.testing.assert_close(ssim(255 * x, 255 * y, data_range=255.0), ssim(x, y))


def test_each_picture_by_itself() -> None:
    x, y = pair(16, 16)
    torch.testing.assert_close(ssim(x[1:], y[1:]), ssim(x, y)[1:])


def test_gradients() -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.rand(2, 1, 1, 6, 5, dtype=torch.float64, generator=generator).requires_grad_().unbind(0)
    assert torch.autograd.gradcheck(lambda x, y: ssim(x, y, window_size=5), (x, y))
    assert torch.autograd.gradcheck(lambda x, y: ssim(x, y, window_size=5, padding="reflect"), (x, y))


def test_low_precision_and_autocast_do_not_spoil_it() -> None:
    x, y = (picture.float() for picture in pair(32, 32))
    expected = ssim(x, y)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(ssim(x, y), expected)
    half = ssim(x.bfloat16(), y.bfloat16())
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, ssim(x.bfloat16().double(), y.bfloat16().double()).float(), rtol=1e-4, atol=1e-5)


def test_compiles() -> None:
    x, y = pair(20, 16)
    torch.testing.assert_close(torch.compile(ssim, fullgraph=True, backend="aot_eager")(x, y), ssim(x, y))


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"y": torch.rand(1, 1, 16, 15)}, ValueError, "x and y must have the same shape, got (1, 1, 16, 16) and"),
        ({"x": torch.rand(16, 16)}, ValueError, "x must have shape (B, C, H, W), got (16, 16)"),
        ({"y": np.zeros((1, 1, 16, 16))}, TypeError, "y must be a tensor of shape (B, C, H, W), got ndarray"),
        ({"x": torch.zeros(1, 1, 16, 16, dtype=torch.uint8)}, TypeError, "x must be of a floating-point dtype"),
        ({"data_range": 0.0}, ValueError, "data_range must be a positive number, got 0.0"),
        ({"padding": "same"}, ValueError, "padding must be 'valid', 'reflect' or 'zero', got 'same'"),
        ({"window_size": 17}, ValueError, "no smaller than the window of 17 pixels, got 16x16"),
        ({"window_size": 10}, ValueError, "must be a positive odd number, got 10"),
        ({"sigma": -1.0}, ValueError, "sigma must be a positive number, got -1.0"),
    ],
)
def test_errors(changes: dict, error: type[Exception], message: str) -> None:
    arguments = {"x": torch.rand(1, 1, 16, 16), "y": torch.rand(1, 1, 16, 16), **changes}
    with pytest.raises(error, match=re.escape(message)):
        ssim(**arguments)
