from __future__ import annotations

import colorsys
import re

import numpy as np
import pytest
import torch
from PIL import Image

from fusionblocks.image import luma, rgb_to_ycbcr, with_luma, ycbcr_to_rgb

CORNERS = torch.tensor([[r, g, b] for r in (0.0, 1.0) for g in (0.0, 1.0) for b in (0.0, 1.0)])


def colours(count: int = 4000, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Random colours, the corners of the cube among them, as a picture (3, 1, count)."""
    generator = torch.Generator().manual_seed(0)
    random = torch.rand(count - 8, 3, generator=generator)
    return torch.cat((CORNERS, random)).T[:, None].to(dtype)


def test_known_colours() -> None:
    # by hand from ITU-R BT.601: Y = .299 R + .587 G + .114 B, Cb = (B - Y) / 1.772 + .5, Cr = (R - Y) / 1.402 + .5
    red = torch.tensor([1.0, 0.0, 0.0]).view(3, 1, 1)
    torch.testing.assert_close(rgb_to_ycbcr(red).flatten(), torch.tensor([0.299, 0.5 - 0.299 / 1.772, 1.0]))
    blue = torch.tensor([0.0, 0.0, 1.0]).view(3, 1, 1)
    torch.testing.assert_close(rgb_to_ycbcr(blue).flatten(), torch.tensor([0.114, 1.0, 0.5 - 0.114 / 1.402]))
    green = torch.tensor([0.0, 1.0, 0.0]).view(3, 1, 1)
    torch.testing.assert_close(luma(green).flatten(), torch.tensor([0.587]))


def test_agrees_with_pillow() -> None:
    array = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    expected = np.asarray(Image.fromarray(array).convert("YCbCr")).astype(np.float64)
    ours = rgb_to_ycbcr(torch.from_numpy(array).permute(2, 0, 1).double() / 255).permute(1, 2, 0).numpy() * 255
    ours[..., 1:] += 0.5  # Pillow centres chroma at 128, which is 0.5 / 255 above the middle of the range
    assert np.abs(ours - expected).max() < 1.01  # Pillow truncates to whole levels
    gray = np.asarray(Image.fromarray(array).convert("L")).astype(np.float64)
    assert np.abs(luma(torch.from_numpy(array).permute(2, 0, 1).double())[0].numpy() - gray).max() < 0.51


def test_round_trips() -> None:
    rgb = colours()
    torch.testing.assert_close(ycbcr_to_rgb(rgb_to_ycbcr(rgb)), rgb, rtol=0, atol=1e-6)
    ycbcr = colours()
    torch.testing.assert_close(rgb_to_ycbcr(ycbcr_to_rgb(ycbcr)), ycbcr, rtol=0, atol=1e-6)
    assert torch.equal(rgb_to_ycbcr(rgb)[:1], luma(rgb))


def test_range_of_chroma() -> None:
    ycbcr = rgb_to_ycbcr(colours(dtype=torch.float64))
    assert ycbcr.min() == 0
    assert ycbcr.max() == 1
    gray = rgb_to_ycbcr(torch.linspace(0, 1, 50, dtype=torch.float64).expand(3, 1, 50))
    torch.testing.assert_close(gray[1:], torch.full((2, 1, 50), 0.5, dtype=torch.float64))


def test_with_luma_keeps_hue_and_luma_and_stays_in_gamut() -> None:
    rgb = colours(dtype=torch.float64)
    target = torch.rand(1, 1, rgb.shape[-1], dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    target[..., 8:16] = 0
    target[..., 16:24] = 1
    before = rgb.clone()
    result = with_luma(target, rgb)
    assert torch.equal(rgb, before)
    assert result.min() >= 0
    assert result.max() <= 1
    torch.testing.assert_close(luma(result), target, rtol=0, atol=1e-12)
    # the chroma vector keeps its direction and never grows
    old, new = rgb - luma(rgb), result - luma(result)
    saturation = (old * new).sum(0) / (old * old).sum(0).clamp_min(1e-30)
    torch.testing.assert_close(new, saturation * old, rtol=0, atol=1e-12)
    assert saturation.min() >= -1e-12
    assert saturation.max() <= 1 + 1e-9
    # the reduction is the smallest that fits: where there is any, a channel lies on the border of the gamut
    reduced = (saturation < 1 - 1e-9) & (old.abs().amax(0) > 1e-9)
    assert 0.2 < reduced.double().mean() < 0.95
    distance = torch.minimum(result, 1 - result).amin(0)
    assert distance[reduced].max() < 1e-12


def test_with_luma_keeps_the_hue_of_hsv() -> None:
    rgb = colours(500, dtype=torch.float64)
    result = with_luma(torch.full((1, 1, 500), 0.35, dtype=torch.float64), rgb)
    for old, new in zip(rgb[:, 0].T.tolist(), result[:, 0].T.tolist(), strict=True):
        if max(old) - min(old) > 1e-6:
            difference = abs(colorsys.rgb_to_hsv(*old)[0] - colorsys.rgb_to_hsv(*new)[0])
            assert min(difference, 1 - difference) < 1e-6


def test_with_luma_is_the_identity_for_a_pictures_own_luma() -> None:
    rgb = colours()
    torch.testing.assert_close(with_luma(luma(rgb), rgb), rgb, rtol=0, atol=2e-6)


def test_with_luma_adds_the_plain_chroma_where_it_fits() -> None:
    rgb = torch.tensor([0.4, 0.5, 0.6]).view(3, 1, 1)
    target = torch.full((1, 1, 1), 0.45)
    expected = ycbcr_to_rgb(torch.cat((target, rgb_to_ycbcr(rgb)[1:])))
    torch.testing.assert_close(with_luma(target, rgb), expected)


def test_with_luma_clamps_the_luma() -> None:
    rgb = torch.rand(2, 3, 1, 4)
    assert torch.equal(with_luma(torch.full((2, 1, 1, 4), 1.7), rgb), torch.ones(2, 3, 1, 4))
    assert torch.equal(with_luma(torch.full((2, 1, 1, 4), -0.2), rgb), torch.zeros(2, 3, 1, 4))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_with_luma_in_half_precision(dtype: torch.dtype) -> None:
    rgb = colours(dtype=dtype)
    target = torch.rand(1, 1, rgb.shape[-1]).to(dtype)
    result = with_luma(target, rgb)
    assert result.dtype == dtype
    assert result.min() >= 0
    assert result.max() <= 1
    reference = with_luma(target.double(), rgb.double())
    assert (result.double() - reference).abs().max() < 16 * torch.finfo(dtype).eps


def test_gradients() -> None:
    rgb = torch.rand(2, 3, 2, 3, dtype=torch.float64, requires_grad=True)
    target = torch.rand(2, 1, 2, 3, dtype=torch.float64, requires_grad=True)
    for function in (luma, rgb_to_ycbcr, ycbcr_to_rgb):
        assert torch.autograd.gradcheck(function, rgb)
    assert torch.autograd.gradcheck(with_luma, (target, rgb))


def test_gradients_are_finite_for_gray_black_and_white() -> None:
    rgb = torch.tensor([0.0, 0.5, 1.0]).expand(3, 1, 3).clone().requires_grad_()
    for value in (0.0, 0.5, 1.0):
        target = torch.full((1, 1, 3), value, requires_grad=True)
        grads = torch.autograd.grad(with_luma(target, rgb).square().sum(), (target, rgb))
        assert all(torch.isfinite(grad).all() for grad in grads)
        assert all(grad.abs().max() < 100 for grad in grads)


def test_compiles() -> None:
    rgb, target = torch.rand(2, 3, 5, 7), torch.rand(2, 1, 5, 7)
    compiled = torch.compile(with_luma, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(target, rgb), with_luma(target, rgb))


def test_errors() -> None:
    with pytest.raises(ValueError, match=re.escape("rgb must have shape (..., 3, H, W), got (2, 1, 4, 4)")):
        luma(torch.rand(2, 1, 4, 4))
    with pytest.raises(TypeError, match=r"rgb must be of a floating-point dtype, got torch.uint8"):
        rgb_to_ycbcr(torch.zeros(3, 4, 4, dtype=torch.uint8))
    with pytest.raises(ValueError, match=re.escape("ycbcr must have shape (..., 3, H, W), got (4, 4)")):
        ycbcr_to_rgb(torch.rand(4, 4))
    with pytest.raises(ValueError, match=re.escape("luma must have shape (..., 1, H, W), got (3, 4, 4)")):
        with_luma(torch.rand(3, 4, 4), torch.rand(3, 4, 4))
    with pytest.raises(ValueError, match="luma and rgb must have the same shape but for channels"):
        with_luma(torch.rand(1, 4, 4), torch.rand(3, 4, 5))
