"""Entropy, standard deviation, spatial frequency and average gradient."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from skimage.measure import shannon_entropy
from torch import Tensor

from fusionblocks.metrics import average_gradient, entropy, evaluate, spatial_frequency, standard_deviation
from tests.helpers.gray import gray

METRICS = [entropy, standard_deviation, spatial_frequency, average_gradient]
SMOOTH = [
    (standard_deviation, {}),
    *[(spatial_frequency, {"variant": variant}) for variant in ("cddfuse", "vifb")],
    *[(average_gradient, {"variant": variant}) for variant in ("cddfuse", "smfnet", "vifb")],
]

metrics = pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.__name__)


def levels(rows: list[list[int]]) -> Tensor:
    return torch.tensor(rows, dtype=torch.uint8)[None, None]


def test_entropy_of_counted_levels() -> None:
    picture = levels([[0, 0, 0, 0], [255, 255, 7, 8]])  # shares 1/2, 1/4, 1/8, 1/8
    assert entropy(picture).item() == pytest.approx(0.5 + 0.5 + 0.375 + 0.375, rel=1e-14)
    assert entropy(torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)).item() == 8


def test_entropy_rounds_to_the_nearest_level() -> None:
    picture = torch.tensor([[[[10.4, 9.6], [10.6, 11.4]]]]) / 255
    assert entropy(picture).item() == 1


def test_entropy_agrees_with_scikit_image() -> None:
    picture = gray(1, 37, 50)
    assert entropy(picture).item() == pytest.approx(shannon_entropy(picture.numpy(), base=2), rel=1e-12)


def test_standard_deviation_is_numpys() -> None:
    picture = gray(1, 37, 50)
    assert standard_deviation(picture).item() == pytest.approx(np.std(picture.numpy().astype(float)), rel=1e-12)


def test_spatial_frequency_by_hand() -> None:
    picture = levels([[0, 3, 0], [4, 7, 4]])
    # rows: four differences of 3; columns: three of 4
    assert spatial_frequency(picture).item() == pytest.approx(5, rel=1e-14)
    expected = math.sqrt((4 * 9 + 3 * 16) / 6)
    assert spatial_frequency(picture, variant="vifb").item() == pytest.approx(expected, rel=1e-14)


def test_average_gradient_by_hand() -> None:
    # a plane that rises by 3 along rows and by 4 along columns: magnitude 5 everywhere
    rise = torch.arange(5)[:, None] * 4 + torch.arange(6) * 3
    picture = levels(rise.tolist())
    assert average_gradient(picture, variant="smfnet").item() == pytest.approx(5, rel=1e-14)
    assert average_gradient(picture).item() == pytest.approx(5 / math.sqrt(2), rel=1e-14)
    expected = 5 / math.sqrt(2) * 30 / 20
    assert average_gradient(picture, variant="vifb").item() == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize("shape", [(2, 2), (2, 9), (9, 2), (12, 17)])
def test_average_gradient_is_numpys_gradient(shape: tuple[int, int]) -> None:
    picture = gray(1, *shape)
    down, across = np.gradient(picture[0, 0].numpy().astype(float))
    expected = np.sqrt(down**2 + across**2).mean()
    assert average_gradient(picture, variant="smfnet").item() == pytest.approx(expected, rel=1e-12)


@metrics
def test_a_constant_picture_scores_zero(metric: Callable[..., Tensor]) -> None:
    for value in (0.0, 0.3, 1.0):
        assert metric(torch.full((1, 1, 16, 16), value)).item() == pytest.approx(0, abs=1e-12)


@metrics
def test_flips_and_turns_change_nothing(metric: Callable[..., Tensor]) -> None:
    picture = gray(2, 16, 23)
    expected = metric(picture)
    for changed in (picture.flip(-1), picture.flip(-2), picture.mT):
        torch.testing.assert_close(metric(changed), expected, rtol=1e-12, atol=0)


@metrics
def test_a_batch_scores_as_its_pictures(metric: Callable[..., Tensor]) -> None:
    batch = gray(3, 16, 23)
    scores = metric(batch)
    assert scores.shape == (3,)
    assert scores.dtype == torch.float64
    torch.testing.assert_close(scores, torch.cat([metric(one) for one in batch.split(1)]), rtol=1e-12, atol=0)
    assert len(set(scores.tolist())) == 3


@metrics
def test_uint8_scores_as_float(metric: Callable[..., Tensor]) -> None:
    picture = gray(2, 16, 23)
    assert torch.equal(metric(picture), metric(picture.float() / 255))


@metrics
def test_sources_are_unused_and_checked(metric: Callable[..., Tensor]) -> None:
    picture, other = gray(1, 16, 16), gray(1, 16, 16, seed=1)
    assert torch.equal(metric(picture, other, other), metric(picture))
    with pytest.raises(ValueError, match="fused and infrared must have the same size"):
        metric(picture, gray(1, 16, 17))


@pytest.mark.parametrize(("metric", "options"), SMOOTH)
def test_gradients(metric: Callable[..., Tensor], options: dict[str, str]) -> None:
    torch.manual_seed(0)
    picture = torch.rand(2, 1, 5, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: metric(x, **options), picture, eps=1e-7)


@pytest.mark.parametrize(("metric", "options"), SMOOTH)
def test_gradients_of_a_constant_picture_are_finite(metric: Callable[..., Tensor], options: dict[str, str]) -> None:
    picture = torch.full((1, 1, 6, 6), 0.5, requires_grad=True)
    metric(picture, **options).sum().backward()
    assert picture.grad is not None
    assert torch.equal(picture.grad, torch.zeros_like(picture))


@pytest.mark.parametrize(("metric", "name"), [(spatial_frequency, "SF"), (average_gradient, "AG")])
@pytest.mark.parametrize("size", [(1, 8), (8, 1)])
def test_one_row_or_column_is_too_small(metric: Callable[..., Tensor], name: str, size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=f"^{name} is defined for pictures of at least 2x2"):
        metric(gray(1, *size) if min(size) > 5 else torch.zeros(1, 1, *size))


@pytest.mark.parametrize("metric", [spatial_frequency, average_gradient])
def test_unknown_variants_are_refused(metric: Callable[..., Tensor]) -> None:
    with pytest.raises(ValueError, match="^variant must be one of 'cddfuse', .*, got 'mine'"):
        metric(gray(1, 8, 8), variant="mine")


def test_nothing_to_tell_is_zero_without_a_sign() -> None:
    constant = torch.full((1, 1, 16, 16), 7 / 255)
    scores = evaluate(constant, constant, constant, metrics=("EN", "MI"), convention="cddfuse")
    assert all(value.item() == 0 and not torch.signbit(value).any() for value in scores.values())
