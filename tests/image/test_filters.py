from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from fusionblocks.image import gaussian_blur, gaussian_kernel, gradient_magnitude, laplacian, sobel

# names of the same borders in scipy
BORDERS = {"reflect": "mirror", "replicate": "nearest", "zero": "constant"}
SIZES = [(1, 1), (1, 6), (4, 1), (2, 2), (7, 5), (23, 40)]


def picture(height: int, width: int) -> torch.Tensor:
    return torch.rand(2, 3, height, width, dtype=torch.float64, generator=torch.Generator().manual_seed(height))


def by_plane(function, x: torch.Tensor) -> torch.Tensor:
    planes = [function(plane.numpy()) for plane in x.reshape(-1, *x.shape[-2:])]
    return torch.from_numpy(np.stack(planes)).reshape(x.shape)


@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("size", SIZES)
def test_against_scipy(size: tuple[int, int], border: str) -> None:
    x, mode = picture(*size), BORDERS[border]
    across, down = sobel(x, border=border)
    torch.testing.assert_close(across, by_plane(lambda p: ndimage.sobel(p, axis=1, mode=mode), x))
    torch.testing.assert_close(down, by_plane(lambda p: ndimage.sobel(p, axis=0, mode=mode), x))
    torch.testing.assert_close(gradient_magnitude(x, border=border), across.abs() + down.abs())
    torch.testing.assert_close(laplacian(x, border=border), by_plane(lambda p: ndimage.laplace(p, mode=mode), x))
    for sigma in (0.6, 1.5):
        expected = by_plane(lambda p, sigma=sigma: ndimage.gaussian_filter(p, sigma, mode=mode, truncate=4), x)
        torch.testing.assert_close(gaussian_blur(x, sigma, border=border), expected)


def test_values_by_hand() -> None:
    step = torch.tensor([0.0, 0.0, 1.0, 1.0]).expand(3, 4)
    assert sobel(step)[0].tolist() == [[0, 4, 4, 0]] * 3
    assert sobel(step)[1].abs().max() == 0
    assert sobel(step.T)[1].tolist() == [[0] * 3, [4] * 3, [4] * 3, [0] * 3]
    point = torch.zeros(3, 3)
    point[1, 1] = 1
    assert laplacian(point, border="zero").tolist() == [[0, 1, 0], [1, -4, 1], [0, 1, 0]]
    assert gradient_magnitude(point, border="zero").tolist() == [[2, 2, 2], [2, 0, 2], [2, 2, 2]]


def test_kernel() -> None:
    kernel = gaussian_kernel(1.5, 11, dtype=torch.float64)
    expected = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    np.testing.assert_allclose(kernel.numpy(), expected / expected.sum(), rtol=1e-14)
    assert gaussian_kernel(2.0).shape == (17,)
    assert gaussian_kernel(0.5).dtype == torch.float32
    assert gaussian_kernel(3.0, 1).tolist() == [1.0]


def test_blur_keeps_a_constant_and_the_input() -> None:
    x = torch.full((1, 2, 5, 4), 0.3)
    torch.testing.assert_close(gaussian_blur(x, 8.0), x)  # a kernel of 65 pixels over 5x4
    random = torch.rand(6, 7)
    before = random.clone()
    gaussian_blur(random, 1.0)
    sobel(random)
    assert torch.equal(random, before)


def test_channels_stay_apart() -> None:
    x = torch.zeros(1, 3, 9, 9)
    x[:, 1] = torch.rand(9, 9)
    for result in (gaussian_blur(x, 1.0), laplacian(x), *sobel(x)):
        assert result[:, 0].abs().max() == 0
        assert result[:, 2].abs().max() == 0
        assert result[:, 1].abs().max() > 0


@pytest.mark.parametrize("function", [lambda x: gaussian_blur(x, 1.0), sobel, laplacian])
def test_gradients(function) -> None:
    x = torch.rand(1, 2, 4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(function, x)


def test_autocast_does_not_reach_the_blur() -> None:
    x = torch.rand(1, 1, 20, 20)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        blurred = gaussian_blur(x, 1.5)
    assert blurred.dtype == torch.float32
    assert torch.equal(blurred, gaussian_blur(x, 1.5))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype: torch.dtype) -> None:
    x = torch.rand(1, 2, 9, 8).to(dtype)
    for function in (lambda x: gaussian_blur(x, 1.0), lambda x: sobel(x)[0], laplacian):
        result = function(x)
        assert result.dtype == dtype
        assert (result.double() - function(x.double())).abs().max() < 16 * torch.finfo(dtype).eps


def test_shapes_on_the_meta_device() -> None:
    x = torch.rand(2, 3, 20, 33, device="meta")
    assert {tuple(y.shape) for y in (gaussian_blur(x, 1.5), *sobel(x), laplacian(x, border="replicate"))} == {x.shape}


def test_compiles_and_exports() -> None:
    class Filters(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return gaussian_blur(x, 1.5) + gradient_magnitude(x, border="zero") + laplacian(x, border="replicate")

    x = torch.rand(1, 3, 20, 17)
    expected = Filters()(x)
    torch.testing.assert_close(torch.compile(Filters(), fullgraph=True, backend="aot_eager")(x), expected)
    sizes = {2: torch.export.Dim("height", min=2, max=4096), 3: torch.export.Dim("width", min=2, max=4096)}
    exported = torch.export.export(Filters(), (x,), dynamic_shapes={"x": sizes}).module()
    for size in [(20, 17), (9, 31), (3, 4)]:
        x = torch.rand(1, 3, *size)
        torch.testing.assert_close(exported(x), Filters()(x))


@pytest.mark.parametrize("sigma", [0, -1.0, float("nan"), float("inf")])
def test_refuses_a_sigma_that_is_not_positive(sigma: float) -> None:
    with pytest.raises(ValueError, match="sigma must be a positive number"):
        gaussian_blur(torch.rand(4, 4), sigma)


@pytest.mark.parametrize("size", [0, 4, -3, 3.0, True])
def test_refuses_a_size_that_is_not_odd(size: object) -> None:
    with pytest.raises(ValueError, match="size must be a positive odd number"):
        gaussian_kernel(1.0, size)  # type: ignore[arg-type]


def test_errors() -> None:
    with pytest.raises(ValueError, match="border must be one of 'reflect', 'replicate', 'zero', got 'wrap'"):
        sobel(torch.rand(4, 4), border="wrap")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"x must have shape \(..., H, W\) with at least one pixel, got \(4,\)"):
        laplacian(torch.rand(4))
    with pytest.raises(TypeError, match=r"x must be of a floating-point dtype, got torch.uint8"):
        gaussian_blur(torch.zeros(4, 4, dtype=torch.uint8), 1.0)
    with pytest.raises(TypeError, match="x must be a tensor of shape"):
        gradient_magnitude(np.zeros((4, 4)))  # type: ignore[arg-type]
