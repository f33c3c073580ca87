"""What single losses mean, and what they refuse."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor

from fusionblocks import losses, metrics
from fusionblocks.losses import (
    axis_gradient_loss,
    brightness_loss,
    contrast_loss,
    correlation_ratio_loss,
    decomposition_loss,
    entropy_loss,
    feature_correlation,
    graph_decomposition_loss,
    intensity_max_loss,
    joint_gradient_loss,
    masked_intensity_loss,
    masked_patch_mse_loss,
    mutual_information_loss,
    noise_loss,
    range_loss,
    scd_loss,
    second_gradient_loss,
    source_ssim_loss,
    spatial_frequency_loss,
    ssim_loss,
    vif_loss,
)


def gray(picture: Tensor) -> Tensor:
    return (picture * torch.tensor([0.299, 0.587, 0.114], dtype=picture.dtype).view(3, 1, 1)).sum(1, keepdim=True)


def test_a_fused_luma_is_compared_with_the_maximum(given: dict[str, Tensor]) -> None:
    fused, infrared, visible = gray(given["fused"]), given["infrared"], given["visible"]
    expected = (fused - torch.maximum(infrared, gray(visible))).abs().mean()
    torch.testing.assert_close(intensity_max_loss(fused, infrared, visible), expected)
    mask = given["mask"].double()
    expected = ((1 - mask) * (torch.maximum(infrared, gray(visible)) - fused)).abs().mean()
    expected = expected + (mask * (infrared - fused)).abs().mean()
    torch.testing.assert_close(masked_intensity_loss(fused, infrared, visible, given["mask"]), expected)


def test_intensity_of_pictures_that_are_right_is_zero(given: dict[str, Tensor]) -> None:
    infrared, visible, mask = given["infrared"], given["visible"], given["mask"]
    brighter = torch.where(infrared > visible.mean(1, keepdim=True), infrared, visible)
    assert intensity_max_loss(brighter, infrared, visible) == 0
    assert masked_intensity_loss(torch.where(mask, infrared, brighter), infrared, visible, mask) == 0


def test_patches_against_scipy(given: dict[str, Tensor]) -> None:
    fused, infrared, visible = (gray(given["fused"]), given["infrared"], gray(given["visible"]))
    mask = given["mask"] & (torch.rand(given["mask"].shape) > 0.9)

    def variance(x: np.ndarray) -> np.ndarray:
        options = {"sigma": 1.5, "radius": 4, "mode": "constant"}
        return ndimage.gaussian_filter(x * x, **options) - ndimage.gaussian_filter(x, **options) ** 2

    total = []
    for f, a, b, m in zip(*(x[:, 0].numpy() for x in (fused, infrared, visible, mask))):
        errors = [ndimage.uniform_filter((f - source) ** 2, 9, mode="constant") for source in (a, b)]
        total.append(np.where(m | (variance(a) > variance(b)), *errors).mean())
    torch.testing.assert_close(masked_patch_mse_loss(fused, infrared, visible, mask).item(), float(np.mean(total)))


def test_the_salient_source_is_that_of_the_targets(given: dict[str, Tensor]) -> None:
    infrared, visible = given["infrared"], gray(given["visible"])
    everywhere = torch.ones_like(given["mask"])
    assert masked_patch_mse_loss(infrared, infrared, visible, everywhere) == 0
    assert masked_patch_mse_loss(visible, infrared, visible, everywhere, salient="visible") == 0
    soft = everywhere * torch.tensor(1e-3)  # any positive value counts, as published
    assert masked_patch_mse_loss(infrared, infrared, visible, soft) == 0
    exchanged = masked_patch_mse_loss(given["fused"], visible, infrared, given["mask"])
    published = masked_patch_mse_loss(given["fused"], infrared, visible, given["mask"], salient="visible")
    torch.testing.assert_close(published, exchanged, rtol=0, atol=0)


@pytest.mark.parametrize("border", ["zero", "replicate", "reflect"])
def test_gradients_against_a_convolution(given: dict[str, Tensor], border: str) -> None:
    kernel = torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]], dtype=torch.float64)
    kernels = torch.stack((kernel, kernel.T))[:, None]
    modes = {"zero": "constant"}

    def edges(x: Tensor) -> Tensor:
        return F.conv2d(F.pad(x, (1, 1, 1, 1), mode=modes.get(border, border)), kernels).abs()

    pictures = gray(given["fused"]), given["infrared"], gray(given["visible"])
    f, a, b = map(edges, pictures)
    per_axis = sum((f[:, i] - torch.maximum(a[:, i], b[:, i])).abs().mean() for i in range(2))
    torch.testing.assert_close(axis_gradient_loss(*pictures, border=border), per_axis)
    joint = (f.sum(1) - torch.maximum(a.sum(1), b.sum(1))).abs().mean()
    torch.testing.assert_close(joint_gradient_loss(*pictures, border=border), joint)


def test_a_frame_is_an_edge_beyond_zeros_alone() -> None:
    fused, source = torch.ones(1, 1, 8, 8), torch.zeros(1, 1, 8, 8)
    for loss in (joint_gradient_loss, axis_gradient_loss):
        assert loss(fused, source, source) > 0
        assert loss(fused, source, source, border="replicate") == 0


@pytest.mark.parametrize(("normalization", "mixed"), [("unit", 64), ("absolute", 36)])
def test_second_derivatives_against_a_convolution(given: dict[str, Tensor], normalization: str, mixed: int) -> None:
    across = torch.tensor([[-1.0, 0, 2, 0, -1], [-4, 0, 8, 0, -4], [-6, 0, 12, 0, -6]], dtype=torch.float64)
    across = torch.cat((across, across[:2].flip(0)))
    corner = torch.tensor([-1.0, -2, 0, 2, 1], dtype=torch.float64)
    kernels = torch.stack((across / 64, torch.outer(corner, corner) / mixed, across.T / 64))[:, None]

    def strength(x: Tensor) -> Tensor:
        return F.conv2d(F.pad(x, (2, 2, 2, 2), mode="replicate"), kernels).abs().sum(1)

    fused, infrared = gray(given["fused"]), given["infrared"]
    expected = (strength(fused) - strength(infrared)).abs().mean()
    torch.testing.assert_close(second_gradient_loss(fused, infrared, normalization=normalization), expected)

    if normalization == "unit":  # a curvature of one answers one, in whatever direction
        x = torch.arange(9.0, dtype=torch.float64)
        for picture in (x.square().expand(9, 9) / 2, x.square()[:, None].expand(9, 9) / 2, torch.outer(x, x)):
            inside = strength(picture[None, None])[:, 2:-2, 2:-2]
            torch.testing.assert_close(inside, torch.ones_like(inside))


def test_even_windows_are_the_published_ones() -> None:
    # 48 samples about the 25th, as the published window: its first has no counterpart
    x, y = torch.rand(2, 1, 1, 52, 60, dtype=torch.float64)
    weights = torch.exp(-((torch.arange(48, dtype=torch.float64) - 24) ** 2) / (2 * 1.5**2))
    window = torch.outer(weights, weights)[None, None] / weights.sum() ** 2

    def local(picture: Tensor) -> Tensor:
        return F.conv2d(picture, window)

    mean_x, mean_y = local(x), local(y)
    variances = local(x * x) - mean_x**2, local(y * y) - mean_y**2
    covariance = local(x * y) - mean_x * mean_y
    c1, c2 = 0.01**2, 0.03**2
    similarity = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    similarity = similarity / ((mean_x**2 + mean_y**2 + c1) * (sum(variances) + c2))
    torch.testing.assert_close(ssim_loss(x, y, window_size=48), 1 - similarity.mean(), rtol=1e-9, atol=0)


def test_source_ssim_is_the_sum_of_both(given: dict[str, Tensor]) -> None:
    fused, infrared, visible = given["fused"], given["infrared"], given["visible"]
    expected = ssim_loss(fused, visible) + ssim_loss(gray(fused), infrared)
    torch.testing.assert_close(source_ssim_loss(fused, infrared, visible), expected)


@pytest.mark.parametrize(
    ("loss", "metric"),
    [(scd_loss, metrics.sum_of_correlations_of_differences), (vif_loss, metrics.visual_information_fidelity)],
)
def test_terms_of_metrics_are_the_metrics(loss, metric, given: dict[str, Tensor]) -> None:
    pictures = gray(given["fused"]), given["infrared"], gray(given["visible"])
    torch.testing.assert_close(loss(*pictures), 2 - metric(*pictures).mean(), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(loss(given["fused"], given["infrared"], given["visible"]), loss(*pictures))


def test_ssim_of_a_small_range_is_the_published_evaluators(given: dict[str, Tensor]) -> None:
    fused, infrared, visible = gray(given["fused"]), given["infrared"], gray(given["visible"])
    levels = [(255 * picture).round() / 255 for picture in (fused, infrared, visible)]
    expected = metrics.structural_similarity(*levels, data_range=2.0, window="gaussian")
    torch.testing.assert_close(2 - source_ssim_loss(*levels, data_range=2 / 255), expected.mean(), rtol=1e-6, atol=0)
    assert source_ssim_loss(*levels, data_range=2 / 255) > source_ssim_loss(*levels)


def test_small_constants_survive_float32() -> None:
    flat = torch.full((1, 1, 24, 24), 0.7) + 1e-4 * (torch.arange(24.0) % 2)
    loss = ssim_loss(flat, flat.flip(-1), data_range=2 / 255)
    torch.testing.assert_close(loss, ssim_loss(flat.double(), flat.flip(-1).double(), data_range=2 / 255).float())


def test_signed_edges_with_a_gain(given: dict[str, Tensor]) -> None:
    visible = gray(given["visible"])
    flat = torch.full_like(visible, 0.5)
    stronger, inverted = 1.5 * visible, 1 - visible
    options = {"border": "replicate", "signed": True}
    assert axis_gradient_loss(stronger, flat, visible, gain=1.5, **options) < 1e-9
    assert axis_gradient_loss(inverted, flat, visible, border="replicate") < 1e-9
    edges = axis_gradient_loss(flat, flat, visible, border="replicate")
    torch.testing.assert_close(axis_gradient_loss(inverted, flat, visible, **options), 2 * edges)
    with pytest.raises(ValueError, match="gain"):
        axis_gradient_loss(visible, flat, visible, gain=0.0)


@pytest.mark.parametrize(
    ("loss", "metric", "unit"),
    [
        (contrast_loss, metrics.standard_deviation, 255.0),
        (spatial_frequency_loss, metrics.spatial_frequency, 255.0),
    ],
)
def test_floors_are_the_metrics(loss, metric, unit: float, given: dict[str, Tensor]) -> None:
    levels = [(255 * gray(x) if x.shape[1] == 3 else 255 * x).round() / 255 for x in given_pair(given)]
    brighter, fused = torch.maximum(*levels), 0.4 * torch.maximum(*levels)
    fused = (255 * fused).round() / 255
    expected = (1.3 * metric(brighter, *levels) - metric(fused, *levels)).mean() / unit
    torch.testing.assert_close(loss(fused, *levels, gain=1.3), expected, rtol=1e-6, atol=1e-9)
    assert loss(brighter, *levels) == 0
    assert loss(brighter, *levels, gain=1.1) > 0


def test_information_of_few_bins_is_that_of_few_levels(given: dict[str, Tensor]) -> None:
    # pictures of nine levels that lie on the bins: every estimate is exact
    levels = [(8 * x).round() / 8 for x in given_pair(given)]
    levels = [x if x.shape[1] == 1 else (8 * gray(x)).round() / 8 for x in levels]
    fused = levels[0].where(levels[1] > 0.5, levels[1])
    own = metrics.mutual_information((255 * fused).round() / 255, *((255 * x).round() / 255 for x in levels))
    value = 9 - mutual_information_loss(fused, *levels, least=9.0, bins=9)
    torch.testing.assert_close(value, own.mean(), rtol=1e-5, atol=1e-6)
    bits = metrics.entropy((255 * torch.maximum(*levels)).round() / 255) - metrics.entropy((255 * fused).round() / 255)
    torch.testing.assert_close(
        entropy_loss(fused, *levels, gain=4.0, bins=9), (bits + 4).clamp_min(0).mean(), rtol=1e-5, atol=1e-6
    )
    assert mutual_information_loss(fused, *levels, least=0.1, bins=9) == 0


def test_brightness_counts_windows_that_are_too_dark() -> None:
    infrared, visible = torch.zeros(1, 1, 32, 32), torch.ones(1, 1, 32, 32)
    fused = torch.full_like(visible, 0.5)
    assert brightness_loss(fused, infrared, visible) == 0
    fused[..., :16, :16] = 0.1  # one of nine overlapping windows whole, two by half, one by a quarter
    expected = 0.4 * (1 + 0.5 + 0.5 + 0.25) / 9
    assert brightness_loss(fused, infrared, visible).item() == pytest.approx(expected, rel=1e-5)
    assert brightness_loss(fused, infrared, visible, window_size=64).item() == pytest.approx(0.1, rel=1e-5)


def test_enough_correlation_costs_nothing(given: dict[str, Tensor]) -> None:
    infrared, visible = given["infrared"], gray(given["visible"])
    fused = (infrared + visible) / 2
    full = scd_loss(fused, infrared, visible)
    torch.testing.assert_close(scd_loss(fused, infrared, visible, least=1.99), full - 0.01)
    assert scd_loss(fused, infrared, visible, least=float(2 - full) - 0.2) == 0
    with pytest.raises(ValueError, match="least"):
        scd_loss(fused, infrared, visible, least=2.5)


def test_range_counts_what_a_picture_would_clip() -> None:
    fused = torch.tensor([-0.5, 0.0, 0.7, 1.0, 2.0]).view(1, 1, 1, 5)
    assert range_loss(fused).item() == pytest.approx((0.25 + 1) / 5)


def given_pair(given: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    return given["infrared"], given["visible"]


@pytest.mark.parametrize("loss", [scd_loss, vif_loss])
def test_a_fused_value_beyond_the_range_keeps_its_gradient(loss, given: dict[str, Tensor]) -> None:
    fused = (1.5 * given["fused"]).requires_grad_()
    (gradient,) = torch.autograd.grad(loss(fused, given["infrared"], given["visible"]), fused)
    beyond = fused.detach() > 1
    assert beyond.any()
    assert gradient[beyond].abs().min() > 0 if loss is scd_loss else gradient[beyond].abs().sum() > 0


@pytest.mark.parametrize("loss", [scd_loss, vif_loss, intensity_max_loss, axis_gradient_loss, correlation_ratio_loss])
def test_descent_lowers_the_loss(loss, given: dict[str, Tensor]) -> None:
    infrared, visible = given["infrared"], given["visible"]
    fused = (gray(visible) + infrared).div(2).requires_grad_()
    before = loss(fused, infrared, visible)
    (gradient,) = torch.autograd.grad(before, fused)
    after = loss(fused.detach() - 1e-3 * gradient / gradient.abs().max(), infrared, visible)
    assert after < before


def test_decompositions_against_their_formula(given: dict[str, Tensor]) -> None:
    def r(part: str) -> float:
        pair = (given[f"{part}_{modality}"].flatten().numpy() for modality in ("infrared", "visible"))
        return float(np.corrcoef(*pair)[0, 1])

    names = list(inspect.signature(graph_decomposition_loss).parameters)[:6]
    expected = (r("detail") ** 2 + r("graph") ** 2) / (1.01 + r("base"))
    assert graph_decomposition_loss(*(given[name] for name in names)).item() == pytest.approx(expected, rel=1e-6)
    expected = r("detail") ** 2 / (1.01 + r("base"))
    assert decomposition_loss(*(given[name] for name in names[:4])).item() == pytest.approx(expected, rel=1e-6)


def test_per_picture_is_the_mean_over_pictures(given: dict[str, Tensor]) -> None:
    pair = given["detail_infrared"], given["detail_visible"]
    pictures = given["fused"], given["infrared"], given["visible"]
    for function, tensors in (
        (feature_correlation, pair),
        (decomposition_loss, pair + pair),
        (graph_decomposition_loss, pair * 3),
        (correlation_ratio_loss, pictures),
    ):
        alone = torch.stack([function(*(x[i : i + 1] for x in tensors)) for i in range(2)]).mean()
        torch.testing.assert_close(function(*tensors, per_picture=True), alone)


def test_the_difference_form_is_bounded(given: dict[str, Tensor]) -> None:
    infrared = given["infrared"]
    both = {
        form: correlation_ratio_loss(1 - infrared, infrared, infrared, form=form) for form in ("ratio", "difference")
    }
    assert both["ratio"] < 0  # beyond the pole
    torch.testing.assert_close(both["difference"], torch.tensor(4.0, dtype=torch.float64))


def test_noise(given: dict[str, Tensor]) -> None:
    pair = given["noise_prediction"], given["noise"]
    torch.testing.assert_close(noise_loss(*pair), F.mse_loss(*pair))
    torch.testing.assert_close(noise_loss(*pair, norm="l1", reduction="sum"), F.l1_loss(*pair, reduction="sum"))


P1, P3, SMALL = torch.rand(2, 1, 8, 8), torch.rand(2, 3, 8, 8), torch.rand(2, 1, 8, 9)
LOGITS, LABELS = torch.rand(2, 4, 8, 8), torch.zeros(2, 8, 8, dtype=torch.int64)


@pytest.mark.parametrize(
    ("name", "arguments", "options", "error", "message"),
    [
        ("intensity_max", ("picture", P1, P1), {}, TypeError, "fused must be a tensor"),
        ("intensity_max", (P1.int(), P1, P1), {}, TypeError, "fused must be of a floating-point dtype"),
        ("intensity_max", (P1, P3, P1), {}, ValueError, r"infrared must have shape \(B, 1, H, W\)"),
        ("intensity_max", (P3, P1, P1), {}, ValueError, "visible must have 3 channels where fused has, got 1"),
        (
            "intensity_max",
            (P1, P1, SMALL),
            {},
            ValueError,
            "fused and visible must have the same size, got 8x8",
        ),
        (
            "joint_gradient",
            (P1, P1[:1], P1),
            {},
            ValueError,
            "fused and infrared must have the same batch",
        ),
        ("axis_gradient", (P1, P1, P1), {"border": "wrap"}, ValueError, "border must be one of"),
        ("color", (P1, P3), {}, ValueError, r"fused must have shape \(B, 3, H, W\)"),
        ("color", (P3, P3[..., 1:]), {}, ValueError, "fused and visible must have the same size"),
        ("masked_patch_mse", (P1, P1, P1, P3), {}, ValueError, "mask must be a tensor"),
        ("masked_patch_mse", (P1, P1, P1, LABELS[:, None]), {}, TypeError, "bool or float in .0, 1., got torch.int64"),
        ("masked_patch_mse", (P1, P1, P1, None), {}, TypeError, "mask must be a tensor"),
        ("masked_patch_mse", (P1, P1, P1, SMALL), {}, ValueError, "fused and mask must have the same size"),
        (
            "masked_patch_mse",
            (P1,) * 4,
            {"window_size": 4},
            ValueError,
            "an odd number, got 4",
        ),
        ("masked_patch_mse", (P1,) * 4, {"sigma": 0}, ValueError, "sigma must be above 0, got 0"),
        (
            "masked_patch_mse",
            (P1,) * 4,
            {"salient": "both"},
            ValueError,
            "salient must be one of 'infrared', ",
        ),
        ("ssim", (P1, SMALL), {}, ValueError, "image and reference must have the same shape"),
        ("ssim", (P1, P1), {}, ValueError, "image must be no smaller than the window of 11 pixels, got 8x8"),
        ("ssim", (P1, P1), {"window_size": 0}, ValueError, "window_size must be at least 1, got 0"),
        ("vif", (P1, P1, P1), {}, ValueError, r"at least 41x41 pixels for VIF, got 8x8 \(height x width\)"),
        ("l1", (P1, SMALL), {}, ValueError, "image and reference must have the same shape"),
        (
            "second_gradient",
            (P1, P1),
            {"normalization": "sum"},
            ValueError,
            "normalization must be one of 'unit', ",
        ),
        ("gram", (P1, None), {}, TypeError, "reference must be a tensor of shape"),
        (
            "decomposition",
            (P1, P1, P1, P3),
            {},
            ValueError,
            "detail_infrared and detail_visible must have",
        ),
        (
            "correlation_ratio",
            (P1, P1, P1),
            {"form": "log"},
            ValueError,
            "form must be one of 'ratio', 'difference'",
        ),
        (
            "cross_entropy",
            (LOGITS, LABELS + 4),
            {},
            ValueError,
            r"labels must be from 0 to 3 or 255 .*, got 4",
        ),
        ("cross_entropy", (LOGITS, LABELS.float()), {}, TypeError, "labels must be integers, got torch.float32"),
        ("cross_entropy", (LOGITS, LOGITS), {}, ValueError, r"labels must have shape \(B, H, W\) or \(B, 1, H, W\)"),
        (
            "ohem_cross_entropy",
            (LOGITS, LABELS[:1]),
            {},
            ValueError,
            "segmentation and labels must have the same batch",
        ),
        (
            "ohem_cross_entropy",
            (LOGITS, LABELS),
            {"threshold": 2},
            ValueError,
            "above 0 and at most 1, got 2",
        ),
        (
            "ohem_cross_entropy",
            (LOGITS, LABELS),
            {"n_min": 0},
            ValueError,
            "n_min must be at",
        ),
        ("two_class", (LOGITS, LABELS), {}, ValueError, r"logits must have shape \(B, 2, H, W\)"),
        (
            "two_class",
            (LOGITS[:, :2], LABELS + 2),
            {},
            ValueError,
            "labels must be 0 or 1 for two classes, or 255 for none, got 2",
        ),
        (
            "cross_entropy",
            (torch.zeros(1, 256, 2, 2), LABELS[:1, :2, :2]),
            {},
            ValueError,
            "the classes of segmentation must be at most 255, because the label 255 stands for no class, got 256",
        ),
        (
            "two_class",
            (LOGITS[:, :2], LABELS),
            {"positive_weights": (1,)},
            ValueError,
            "must be two numbers, got 1",
        ),
        ("noise", (P1, P1), {"norm": "l3"}, ValueError, "norm must be one of 'l1', 'l2', got 'l3'"),
    ],
)
def test_wrong_arguments(name: str, arguments: tuple, options: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        getattr(losses, f"{name}_loss")(*arguments, **options)
