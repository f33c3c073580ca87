from __future__ import annotations

import functools

import numpy as np
import piq
import pytest
import torch
from scipy import ndimage
from skimage.metrics import structural_similarity as skimage_ssim

from fusionblocks.metrics import multi_scale_structural_similarity, structural_similarity
from fusionblocks.metrics.structure import _WEIGHTS
from tests.metrics.oracles import gaussian_window
from tests.metrics.pictures import arrays, pictures, unit


@pytest.mark.parametrize("size", [(16, 16), (40, 57), (260, 230)])
@pytest.mark.parametrize("data_range", [2.0, 255.0])
def test_uniform_window_is_scikit_image_by_default(size: tuple[int, int], data_range: float) -> None:
    given = pictures(*size)
    scores = [[skimage_ssim(f, s, data_range=data_range) for s in (a, b)] for f, a, b in arrays(*given)]
    for reduction, expected in (("sum", np.sum(scores, axis=1)), ("mean", np.mean(scores, axis=1))):
        ours = structural_similarity(*given, data_range=data_range, reduction=reduction)
        np.testing.assert_allclose(ours, expected, rtol=1e-9)


def test_gaussian_window_is_the_paper() -> None:
    # scikit-image crops its Gaussian window, of radius 5, to what fits
    given = pictures(40, 57)
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 255}
    expected = [skimage_ssim(f, a, **options) + skimage_ssim(f, b, **options) for f, a, b in arrays(*given)]
    np.testing.assert_allclose(structural_similarity(*given, window="gaussian"), expected, rtol=1e-9)


def test_similarity_of_constants_by_hand() -> None:
    bright, dark = (torch.full((1, 1, 16, 16), level, dtype=torch.uint8) for level in (200, 100))
    c1 = (0.01 * 255) ** 2
    expected = (2 * 200 * 100 + c1) / (200**2 + 100**2 + c1)
    for window in ("uniform", "gaussian"):
        score = structural_similarity(bright, dark, dark, window=window, reduction="mean").item()
        assert score == pytest.approx(expected, rel=1e-12)
        assert structural_similarity(dark, dark, dark, window=window).item() == pytest.approx(2, rel=1e-12)


def test_five_scales_are_piq() -> None:
    # sides that are even at every scale; torchmetrics mirrors the last scale's edge, and differs in the third digit
    fused, infrared, visible = (x.double() / 255 for x in pictures(176, 192, batch=3))
    weights = torch.tensor(_WEIGHTS, dtype=torch.float64)
    expected = [
        piq.multi_scale_ssim(fused, source, data_range=1.0, scale_weights=weights, reduction="none")
        for source in (infrared, visible)
    ]
    # piq scales the weights of the paper, which sum to 1.0001, to a sum of one
    expected = [score ** weights.sum() for score in expected]
    ours = multi_scale_structural_similarity(fused, infrared, visible)
    torch.testing.assert_close(ours, expected[0] + expected[1], rtol=1e-9, atol=0)


def test_five_scales_halve_by_blocks_and_leave_an_odd_row() -> None:
    given = pictures(181, 203)
    even = [x[..., :176, :192] for x in given]  # 16 * 11 and 16 * 12 of them reach the last scale
    scores, fewer = multi_scale_structural_similarity(*given), multi_scale_structural_similarity(*even)
    assert not torch.equal(scores, fewer)  # the finer scales see the rest
    torch.testing.assert_close(scores, fewer, rtol=0.1, atol=0)


def smfnet_ms_ssim(f: np.ndarray, s: np.ndarray) -> float:
    """MS-SSIM of even-sided pictures, mirrored at the edge."""
    window = gaussian_window(11, 1.5)
    smooth = functools.partial(ndimage.correlate, weights=window, mode="mirror")
    product, c1, c2 = 1.0, (0.01 * 255) ** 2, (0.03 * 255) ** 2
    for weight in _WEIGHTS:
        mf, ms = smooth(f), smooth(s)
        contrast = (2 * (smooth(f * s) - mf * ms) + c2) / (smooth(f * f) - mf**2 + smooth(s * s) - ms**2 + c2)
        last = weight == _WEIGHTS[-1]
        score = (contrast * ((2 * mf * ms + c1) / (mf**2 + ms**2 + c1) if last else 1)).mean()
        product *= score**weight
        f, s = ((x[::2, ::2] + x[1::2, ::2] + x[::2, 1::2] + x[1::2, 1::2]) / 4 for x in (f, s))
    return product


def test_smfnet_variant_is_of_the_infrared_image_alone() -> None:
    fused, infrared, visible = pictures(64, 96)
    ours = multi_scale_structural_similarity(fused, infrared, visible, variant="smfnet")
    expected = [smfnet_ms_ssim(f, a) for f, a in arrays(fused, infrared)]
    np.testing.assert_allclose(ours, expected, rtol=1e-9)
    other = multi_scale_structural_similarity(fused, infrared, fused, variant="smfnet", reduction="mean")
    torch.testing.assert_close(other, ours)


def test_small_and_inverted_pictures() -> None:
    fused, infrared, visible = pictures(16, 16)
    assert multi_scale_structural_similarity(fused, infrared, visible, variant="smfnet").isfinite().all()
    big = pictures(176, 176)[2]
    scores = multi_scale_structural_similarity(255 - big, big, big)  # negative covariances: 0, not NaN
    assert scores.tolist() == [0, 0]
    constant = torch.full_like(big, 7)
    torch.testing.assert_close(
        multi_scale_structural_similarity(constant, constant, constant), torch.full((2,), 2.0, dtype=torch.float64)
    )


@pytest.mark.parametrize(
    ("size", "call", "message"),
    [
        ((16, 6), structural_similarity, "SSIM is defined for pictures of at least 7x7 pixels, got 16x6"),
        (
            (10, 16),
            functools.partial(structural_similarity, window="gaussian"),
            "SSIM is defined for pictures of at least 11x11 pixels, got 10x16",
        ),
        (
            (175, 200),
            multi_scale_structural_similarity,
            "MS_SSIM of five scales is defined for pictures of at least 176x176 pixels, got 175x200",
        ),
        (
            (15, 16),
            functools.partial(multi_scale_structural_similarity, variant="smfnet"),
            "MS_SSIM is defined for pictures of at least 16x16 pixels, got 15x16",
        ),
        (
            (43, 60),
            functools.partial(multi_scale_structural_similarity, variant="psfusion"),
            "MS_SSIM of three scales is defined for pictures of at least 44x44 pixels, got 43x60",
        ),
        ((16, 16), functools.partial(structural_similarity, border="mirror"), "border must be .* got 'mirror'"),
        ((16, 16), functools.partial(structural_similarity, window="box"), "window must be .* got 'box'"),
        ((16, 16), functools.partial(structural_similarity, data_range=0), "data_range must be above 0, got 0"),
        ((16, 16), functools.partial(structural_similarity, reduction="max"), "reduction must be .* got 'max'"),
        ((16, 16), functools.partial(multi_scale_structural_similarity, variant="cddfuse"), "variant must be"),
    ],
)
def test_errors_name_what_is_wrong(size: tuple[int, int], call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(*pictures(*size))


@pytest.mark.parametrize("window", ["uniform", "gaussian"])
def test_gradients(window: str) -> None:
    given = unit(*pictures(16, 17, batch=1))
    assert torch.autograd.gradcheck(
        functools.partial(structural_similarity, window=window), given, fast_mode=True, atol=1e-4
    )


def test_gradients_of_five_scales() -> None:
    given = unit(*pictures(32, 33, batch=1))
    call = functools.partial(multi_scale_structural_similarity, variant="smfnet")
    assert torch.autograd.gradcheck(call, given, fast_mode=True, atol=1e-4)
    inverted = unit(*pictures(176, 176, batch=1))
    multi_scale_structural_similarity(1 - inverted[0], *inverted[1:]).sum().backward()
    assert inverted[0].grad is not None
    assert inverted[0].grad.isfinite().all()
