"""Mutual information of levels and of local features."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from skimage.metrics import normalized_mutual_information as reference_nmi
from torch import Tensor

from fusionblocks.metrics import (
    entropy,
    feature_mutual_information,
    mutual_information,
    normalized_mutual_information,
)
from tests.helpers.gray import gray, triple

METRICS = [
    (mutual_information, {}),
    (mutual_information, {"stretched": True}),
    (normalized_mutual_information, {}),
    (feature_mutual_information, {"feature": "pixel"}),
    (feature_mutual_information, {"feature": "gradient"}),
]
metrics = pytest.mark.parametrize(("metric", "options"), METRICS)


def levels(rows: list[list[int]]) -> Tensor:
    return torch.tensor(rows, dtype=torch.uint8)[None, None]


def test_mutual_information_by_hand() -> None:
    fused = levels([[0, 0, 1, 1]])
    infrared = levels([[5, 5, 9, 9]])  # the same halves: one bit
    visible = levels([[5, 9, 5, 9]])  # independent halves: none
    assert mutual_information(fused, infrared, visible, unit="bits").item() == pytest.approx(1, rel=1e-14)
    assert mutual_information(fused, infrared, visible).item() == pytest.approx(math.log(2), rel=1e-14)
    assert normalized_mutual_information(fused, infrared, visible).item() == pytest.approx(1, rel=1e-14)
    assert normalized_mutual_information(fused, infrared, visible, reduction="mean").item() == pytest.approx(0.5)


def test_mutual_information_with_oneself_is_twice_the_entropy() -> None:
    picture = gray(1, 20, 30)
    score = mutual_information(picture, picture, picture, unit="bits")
    torch.testing.assert_close(score, 2 * entropy(picture), rtol=1e-12, atol=0)
    mean = mutual_information(picture, picture, picture, unit="bits", reduction="mean")
    torch.testing.assert_close(mean, entropy(picture), rtol=1e-12, atol=0)
    assert normalized_mutual_information(picture, picture, picture).item() == pytest.approx(2, rel=1e-12)


def test_units_differ_by_a_factor() -> None:
    pictures = triple(2, 20, 30)
    bits = mutual_information(*pictures, unit="bits")
    torch.testing.assert_close(mutual_information(*pictures), bits * math.log(2), rtol=1e-12, atol=0)


def test_normalized_mutual_information_follows_from_scikit_images() -> None:
    pictures = triple(1, 40, 50)
    for picture in pictures:  # its histogram spans from the darkest to the brightest level
        picture[0, 0, 0, 0], picture[0, 0, 0, 1] = 0, 255
    f, a, b = (picture[0, 0].numpy() for picture in pictures)
    # (H_F + H_S) / H_FS = q there, 2 I / (H_F + H_S) = 2 (1 - 1 / q) here
    expected = sum(2 * (1 - 1 / reference_nmi(f, source, bins=256)) for source in (a, b))
    assert normalized_mutual_information(*pictures).item() == pytest.approx(expected, rel=1e-10)


def test_stretching_spreads_each_picture_first() -> None:
    fused, infrared, visible = triple(1, 20, 30)

    def spread(x: Tensor) -> Tensor:
        low, high = x.min().double(), x.max().double()
        return ((x - low) / (high - low) * 255 + 0.5).floor().to(torch.uint8)

    narrow = [picture // 3 + 40 for picture in (fused, infrared, visible)]
    expected = mutual_information(*map(spread, narrow))
    assert torch.equal(mutual_information(*narrow, stretched=True), expected)
    # one to one as long as levels only move apart, so the number stays; levels that merge change it
    torch.testing.assert_close(mutual_information(*narrow), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("stretched", [False, True])
def test_a_constant_picture_tells_nothing(stretched: bool) -> None:
    flat, picture = torch.full((1, 1, 16, 16), 70, dtype=torch.uint8), gray(1, 16, 16)
    for metric in (mutual_information, normalized_mutual_information):
        for pictures in ((flat, picture, picture), (picture, flat, flat), (flat, flat, flat)):
            assert metric(*pictures, stretched=stretched).item() == pytest.approx(0, abs=1e-12)


def naive_window_information(a: np.ndarray, f: np.ndarray) -> float:
    """Fast-FMI of one window, position by position, from its description."""
    if np.array_equal(a, f):
        return 1.0
    pdfs = []
    for window in (a, f):
        column_wise = window.T.ravel()
        span = column_wise.max() - column_wise.min()
        spread = (column_wise - column_wise.min()) / span if span > 0 else np.ones(column_wise.size)
        pdfs.append(spread / spread.sum())
    p, q = pdfs
    positions = np.arange(1, p.size + 1)
    deviations = [math.sqrt(max(x @ positions**2 - (x @ positions) ** 2, 0)) for x in pdfs]
    flat = np.ptp(p) == 0 or np.ptp(q) == 0
    c = 0.0 if flat else float(np.corrcoef(p, q)[0, 1])
    P, Q = np.cumsum(p), np.cumsum(q)

    def bound(i: int, j: int) -> float:
        x, y = (P[i] if i >= 0 else 0.0), (Q[j] if j >= 0 else 0.0)
        return min(x, y) if c >= 0 else max(x + y - 1, 0.0)

    share = 0.0
    if c != 0 and min(deviations) > 1e-9:
        covariance = sum(bound(i, j) - P[i] * Q[j] for i in range(p.size) for j in range(p.size))
        share = c / (covariance / (deviations[0] * deviations[1]))
    joint_entropy = 0.0
    for i in range(p.size):
        for j in range(p.size):
            mass = bound(i, j) - bound(i - 1, j) - bound(i, j - 1) + bound(i - 1, j - 1)
            joint = share * mass + (1 - share) * p[i] * q[j]
            joint_entropy -= joint * math.log2(abs(joint)) if joint != 0 else 0.0
    marginal = -sum(x * math.log2(x) for pdf in pdfs for x in pdf if x > 0)
    return 2 * (marginal - joint_entropy) / marginal if marginal > 0 else 0.0


@pytest.mark.parametrize("feature", ["pixel", "gradient"])
@pytest.mark.parametrize("seed", range(3))
def test_feature_mutual_information_window_by_window(feature: str, seed: int) -> None:
    pictures = [gray(1, 9, 8, seed=10 * seed + k) for k in range(3)]
    pictures[0][..., :4, :4] = 50  # flat windows,
    pictures[1][..., :4, :5] = 90
    pictures[2][..., 5:, :] = pictures[0][..., 5:, :]  # equal ones,
    pictures[1][..., 6:, 5:] = 255 - pictures[0][..., 6:, 5:]  # and inverted ones
    f, a, b = (picture[0, 0].numpy().astype(float) for picture in pictures)
    if feature == "gradient":
        f, a, b = (np.gradient(x, axis=1) for x in (f, a, b))

    scores = [
        (naive_window_information(a[y, x], f[y, x]) + naive_window_information(b[y, x], f[y, x])) / 2
        for y, x in ((slice(i, i + 3), slice(j, j + 3)) for i in range(7) for j in range(6))
    ]

    score = feature_mutual_information(*pictures, feature=feature).item()  # type: ignore[arg-type]
    assert score == pytest.approx(float(np.mean(scores)), rel=1e-9)


def test_feature_mutual_information_of_equal_and_of_unrelated_pictures() -> None:
    picture, other = gray(1, 16, 16), gray(1, 16, 16, seed=1)
    for feature in ("pixel", "gradient"):
        same = feature_mutual_information(picture, picture, picture, feature=feature)  # type: ignore[arg-type]
        unrelated = feature_mutual_information(picture, other, other, feature=feature)  # type: ignore[arg-type]
        assert same.item() == 1
        assert unrelated.item() < 0.7


def test_feature_mutual_information_of_constant_pictures() -> None:
    flat, other = (torch.full((1, 1, 16, 16), level, dtype=torch.uint8) for level in (70, 71))
    assert feature_mutual_information(flat, flat, flat).item() == 1
    assert feature_mutual_information(flat, other, other).item() == pytest.approx(0, abs=1e-12)
    assert feature_mutual_information(flat, flat, gray(1, 16, 16)).item() == pytest.approx(0.5, abs=1e-12)


def test_the_number_of_windows_treated_at_once_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = triple(2, 16, 23)
    expected = feature_mutual_information(*pictures)
    monkeypatch.setattr("fusionblocks.metrics._copula._CHUNK_CPU", 5)
    torch.testing.assert_close(feature_mutual_information(*pictures), expected, rtol=1e-12, atol=0)


@metrics
def test_the_sources_may_change_places(metric: Callable[..., Tensor], options: dict[str, object]) -> None:
    fused, infrared, visible = triple(2, 16, 23)
    swapped = metric(fused, visible, infrared, **options)
    torch.testing.assert_close(metric(fused, infrared, visible, **options), swapped, rtol=1e-12, atol=0)


@pytest.mark.parametrize(("metric", "options"), METRICS[:3])
def test_pixels_may_change_places(metric: Callable[..., Tensor], options: dict[str, object]) -> None:
    pictures = triple(1, 16, 23)
    order = torch.randperm(16 * 23, generator=torch.Generator().manual_seed(0))
    shuffled = [picture.flatten(2)[..., order].view_as(picture) for picture in pictures]
    assert torch.equal(metric(*shuffled, **options), metric(*pictures, **options))


@metrics
def test_a_batch_scores_as_its_pictures(metric: Callable[..., Tensor], options: dict[str, object]) -> None:
    batch = triple(3, 16, 23)
    scores = metric(*batch, **options)
    assert scores.shape == (3,)
    assert scores.dtype == torch.float64
    singles = [metric(*one, **options) for one in zip(*(pictures.split(1) for pictures in batch))]
    torch.testing.assert_close(scores, torch.cat(singles), rtol=1e-12, atol=0)
    assert len(set(scores.tolist())) == 3


@metrics
def test_uint8_scores_as_float(metric: Callable[..., Tensor], options: dict[str, object]) -> None:
    pictures = triple(2, 16, 23)
    as_float = metric(*(picture.float() / 255 for picture in pictures), **options)
    assert torch.equal(metric(*pictures, **options), as_float)


def test_unknown_options_are_refused() -> None:
    pictures = triple(1, 8, 8)
    with pytest.raises(ValueError, match="^unit must be one of 'nats', 'bits', got 'bans'$"):
        mutual_information(*pictures, unit="bans")  # type: ignore[arg-type]
    for metric in (mutual_information, normalized_mutual_information):
        with pytest.raises(ValueError, match="^reduction must be one of 'sum', 'mean', got 'max'$"):
            metric(*pictures, reduction="max")
    with pytest.raises(ValueError, match="^feature must be one of 'pixel', 'gradient', 'edge', 'dct', got 'fft'$"):
        feature_mutual_information(*pictures, feature="fft")  # type: ignore[arg-type]


def test_windows_must_fit() -> None:
    small = torch.zeros(1, 1, 2, 9)
    with pytest.raises(ValueError, match="^FMI is defined for pictures of at least 3x3 pixels, got 2x9"):
        feature_mutual_information(small, small, small)
