"""Squared error, signal-to-noise ratio and correlations."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from skimage.metrics import mean_squared_error as reference_error
from skimage.metrics import peak_signal_noise_ratio as reference_psnr
from torch import Tensor

from fusionblocks.metrics import (
    correlation,
    mean_squared_error,
    peak_signal_to_noise_ratio,
    sum_of_correlations_of_differences,
)
from tests.helpers.gray import gray, triple

METRICS = [mean_squared_error, peak_signal_to_noise_ratio, correlation, sum_of_correlations_of_differences]
VARIANTS = ["cddfuse", "vifb", "standard"]

metrics = pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.__name__)


def constant(level: int) -> Tensor:
    return torch.full((1, 1, 16, 16), level, dtype=torch.uint8)


def arrays(*pictures: Tensor) -> list[np.ndarray]:
    return [picture[0, 0].numpy().astype(float) for picture in pictures]


def test_mean_squared_error_is_scikit_images_averaged() -> None:
    fused, infrared, visible = triple(1, 21, 30)
    f, a, b = arrays(fused, infrared, visible)
    expected = (reference_error(f, a) + reference_error(f, b)) / 2
    assert mean_squared_error(fused, infrared, visible).item() == pytest.approx(expected, rel=1e-12)


def test_standard_psnr_of_two_equal_sources_is_scikit_images() -> None:
    fused, infrared, _ = triple(1, 21, 30)
    f, a = arrays(fused, infrared)
    score = peak_signal_to_noise_ratio(fused, infrared, infrared, variant="standard").item()
    assert score == pytest.approx(reference_psnr(a, f, data_range=255), rel=1e-12)


def test_psnr_by_hand() -> None:
    fused, infrared, visible = constant(100), constant(90), constant(120)  # errors 100 and 400
    expected = {
        "cddfuse": 10 * math.log10(100**2 / 250),
        "standard": 10 * math.log10(255**2 / 250),
        "vifb": 10 * math.log10(255**2 / ((math.sqrt(100 * 256) + math.sqrt(400 * 256)) / 2 / 256)),
    }
    for variant, value in expected.items():
        score = peak_signal_to_noise_ratio(fused, infrared, visible, variant=variant)  # type: ignore[arg-type]
        assert score.item() == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize("variant", VARIANTS)
def test_psnr_without_noise_is_infinite(variant: str) -> None:
    for level in (0, 77):
        picture = constant(level)
        assert peak_signal_to_noise_ratio(picture, picture, picture, variant=variant).item() == math.inf  # type: ignore[arg-type]


def test_psnr_of_a_black_result() -> None:
    assert peak_signal_to_noise_ratio(constant(0), constant(9), constant(9)).item() == -math.inf
    score = peak_signal_to_noise_ratio(constant(0), constant(255), constant(255), variant="standard")
    assert score.item() == 0


def test_correlations_are_numpys() -> None:
    fused, infrared, visible = gray(1, 21, 30, seed=5), gray(1, 21, 30, seed=6), gray(1, 21, 30, seed=7)
    f, a, b = (array.ravel() for array in arrays(fused, infrared, visible))

    def r(x: np.ndarray, y: np.ndarray) -> float:
        return float(np.corrcoef(x, y)[0, 1])

    expected = (r(a, f) + r(b, f)) / 2
    assert correlation(fused, infrared, visible).item() == pytest.approx(expected, rel=1e-10)
    score = sum_of_correlations_of_differences(fused, infrared, visible).item()
    assert score == pytest.approx(r(a, f - b) + r(b, f - a), rel=1e-10)


def test_identities() -> None:
    picture = gray(1, 16, 16)
    assert mean_squared_error(picture, picture, picture).item() == 0
    assert correlation(picture, picture, picture).item() == pytest.approx(1, rel=1e-12)
    assert correlation(picture, 255 - picture, 255 - picture).item() == pytest.approx(-1, rel=1e-12)
    # the result is the plain sum of both sources: each difference is the other source
    infrared, visible = gray(1, 16, 16, seed=1) // 2, gray(1, 16, 16, seed=2) // 2
    score = sum_of_correlations_of_differences(infrared + visible, infrared, visible)
    assert score.item() == pytest.approx(2, rel=1e-12)


def test_correlation_ignores_contrast_and_brightness() -> None:
    fused, infrared, visible = (picture.double() / 255 for picture in triple(1, 16, 16))
    expected = correlation(fused, infrared, visible)
    torch.testing.assert_close(correlation(fused / 3 + 0.1, infrared / 2, visible), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("level", [0.0, 0.3, 1.0])
def test_a_constant_picture_correlates_with_nothing(level: float) -> None:
    flat, picture = torch.full((1, 1, 16, 16), level, dtype=torch.float64), gray(1, 16, 16).double() / 255
    assert correlation(flat, picture, picture).item() == 0
    assert correlation(picture, flat, flat).item() == 0
    assert correlation(picture, picture, flat).item() == pytest.approx(0.5, rel=1e-12)
    assert sum_of_correlations_of_differences(picture, flat, flat).item() == 0
    assert sum_of_correlations_of_differences(flat, flat, flat).item() == 0
    # one source is the result itself: nothing is left for the other one to explain
    assert sum_of_correlations_of_differences(picture, picture, picture).item() == 0


@metrics
def test_the_sources_may_change_places(metric: Callable[..., Tensor]) -> None:
    fused, infrared, visible = gray(2, 16, 23, seed=3), gray(2, 16, 23, seed=4), gray(2, 16, 23, seed=5)
    swapped = metric(fused, visible, infrared)
    torch.testing.assert_close(metric(fused, infrared, visible), swapped, rtol=1e-12, atol=0)


@metrics
def test_flips_and_turns_change_nothing(metric: Callable[..., Tensor]) -> None:
    pictures = triple(2, 16, 23)
    expected = metric(*pictures)
    for change in (lambda x: x.flip(-1), lambda x: x.flip(-2), lambda x: x.mT):
        torch.testing.assert_close(metric(*map(change, pictures)), expected, rtol=1e-11, atol=0)


@metrics
def test_a_batch_scores_as_its_pictures(metric: Callable[..., Tensor]) -> None:
    batch = triple(3, 16, 23)
    scores = metric(*batch)
    assert scores.shape == (3,)
    assert scores.dtype == torch.float64
    singles = [metric(*one) for one in zip(*(pictures.split(1) for pictures in batch))]
    torch.testing.assert_close(scores, torch.cat(singles), rtol=1e-12, atol=0)
    assert len(set(scores.tolist())) == 3


@metrics
def test_uint8_scores_as_float(metric: Callable[..., Tensor]) -> None:
    pictures = triple(2, 16, 23)
    assert torch.equal(metric(*pictures), metric(*(picture.float() / 255 for picture in pictures)))


@metrics
def test_gradients(metric: Callable[..., Tensor]) -> None:
    torch.manual_seed(0)
    pictures = [torch.rand(2, 1, 4, 5, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    assert torch.autograd.gradcheck(metric, pictures, eps=1e-7)


@pytest.mark.parametrize("metric", [correlation, sum_of_correlations_of_differences])
def test_gradients_of_constant_pictures_are_finite(metric: Callable[..., Tensor]) -> None:
    pictures = [torch.full((1, 1, 6, 6), 0.5, requires_grad=True) for _ in range(3)]
    metric(*pictures).sum().backward()
    assert all(picture.grad is not None and bool(picture.grad.isfinite().all()) for picture in pictures)


@metrics
def test_absent_sources_are_refused(metric: Callable[..., Tensor]) -> None:
    picture = gray(1, 16, 16)
    with pytest.raises(TypeError, match="^visible must be a tensor"):
        metric(picture, picture, None)


def test_unknown_variants_are_refused() -> None:
    with pytest.raises(
        ValueError, match="^variant must be one of 'cddfuse', 'vifb', 'standard', 'psfusion', got 'mine'$"
    ):
        peak_signal_to_noise_ratio(*triple(1, 8, 8), variant="mine")  # type: ignore[arg-type]
