"""The door of every metric: what is refused, by which message, and what becomes of what is let in."""

from __future__ import annotations

import pytest
import torch

from fusionblocks.metrics._inputs import Levels, check_smallest, gray_levels
from tests.helpers.gray import gray, triple


def test_uint8_and_float_become_the_same_levels() -> None:
    levels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    for dtype in (torch.float32, torch.float64):
        f, a, b = gray_levels(levels, levels.to(dtype) / 255, (levels.float() / 255).to(dtype))
        assert f.dtype == a.dtype == b.dtype == torch.float64
        assert torch.equal(f, levels.double())
        assert torch.equal(a, f)
        assert torch.equal(b, f)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_keeps_the_levels_it_can_tell_apart(dtype: torch.dtype) -> None:
    levels = torch.arange(256, dtype=torch.float64).view(1, 1, 16, 16)
    f, _, _ = gray_levels((levels / 255).to(dtype), None, None, optional=True)
    worst = 255 * torch.finfo(dtype).eps
    assert torch.equal(f, f.round())
    assert (f - levels).abs().max() <= worst
    if dtype == torch.float16:
        assert torch.equal(f, levels)


def test_levels_between_whole_ones_stay() -> None:
    between = torch.tensor([[[[0.25, 100.5, 254.999]]]], dtype=torch.float64)
    f, _, _ = gray_levels(between / 255, None, None, optional=True)
    torch.testing.assert_close(f, between, rtol=0, atol=1e-12)


def test_rounding_beyond_the_range_is_cut_off() -> None:
    f, _, _ = gray_levels(torch.tensor([[[[-5e-5, 1 + 5e-5]]]]), None, None, optional=True)
    assert f.flatten().tolist() == [0.0, 255.0]


def test_gradients_pass_and_inputs_stay() -> None:
    x = (gray(1, 8, 8).float() / 255).requires_grad_()
    before = x.detach().clone()
    f, _, _ = gray_levels(x, None, None, optional=True)
    f.sum().backward()
    assert torch.equal(x.detach(), before)
    assert x.grad is not None
    assert torch.equal(x.grad, torch.full_like(x, 255))


def test_checked_levels_are_taken_as_they_are() -> None:
    pictures = [Levels(x.double()) for x in triple(1, 4, 4)]
    assert all(out is given.values for out, given in zip(gray_levels(*pictures), pictures))


NAMES = ["fused", "infrared", "visible"]


def with_one(index: int, wrong: object) -> list[object]:
    pictures: list[object] = [torch.full((2, 1, 5, 6), 0.5)] * 3
    pictures[index] = wrong
    return pictures


@pytest.mark.parametrize("index", range(3))
@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        (None, TypeError, "must be a tensor.*got NoneType"),
        ("a.png", TypeError, "must be a tensor.*got str"),
        (torch.zeros(5, 6), ValueError, r"\(B, 1, H, W\).*got shape \(5, 6\)"),
        (torch.zeros(2, 3, 5, 6), ValueError, r"got shape \(2, 3, 5, 6\); take the luma"),
        (torch.zeros(2, 5, 6, 3), ValueError, r"got shape \(2, 5, 6, 3\); take the luma"),
        (torch.zeros(2, 1, 0, 6), ValueError, r"got shape \(2, 1, 0, 6\)$"),
        (torch.zeros(2, 1, 5, 6, dtype=torch.bool), TypeError, "got torch.bool$"),
        (torch.zeros(2, 1, 5, 6, dtype=torch.uint16), TypeError, "got torch.uint16; normalise"),
        (torch.zeros(2, 1, 5, 6, dtype=torch.int64), TypeError, "got torch.int64; normalise"),
        (torch.zeros(2, 1, 5, 6, dtype=torch.complex64), TypeError, "got torch.complex64$"),
        (
            torch.full((2, 1, 5, 6), 128.0),
            ValueError,
            r"values in \[0, 1\] \(or be uint8\), got values from 128 to 128",
        ),
        (torch.full((2, 1, 5, 6), -0.1), ValueError, r"values in \[0, 1\]"),
    ],
)
def test_unfit_pictures_are_refused_by_name(index: int, wrong: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^{NAMES[index]} .*{message}"):
        gray_levels(*with_one(index, wrong))  # type: ignore[arg-type]


@pytest.mark.parametrize("index", range(3))
@pytest.mark.parametrize(
    ("value", "count", "message"),
    [
        (float("nan"), 3, "has 3 NaN values in picture 1"),
        (float("nan"), 1, "has 1 NaN value in picture 1"),
        (float("inf"), 2, "has 2 infinite values in picture 1"),
        (-float("inf"), 1, "has 1 infinite value in picture 1"),
    ],
)
def test_values_that_are_no_number_are_counted(index: int, value: float, count: int, message: str) -> None:
    picture = torch.full((2, 1, 5, 6), 0.5)
    picture[1, 0, 2, :count] = value
    with pytest.raises(ValueError, match=f"^{NAMES[index]} {message}$"):
        gray_levels(*with_one(index, picture))  # type: ignore[arg-type]


@pytest.mark.parametrize("index", [1, 2])
def test_differing_batches_and_sizes_are_named(index: int) -> None:
    with pytest.raises(ValueError, match=f"fused and {NAMES[index]} must have the same batch size, got 2 and 3"):
        gray_levels(*with_one(index, torch.zeros(3, 1, 5, 6)))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=f"fused and {NAMES[index]} must have the same size, got 5x6 and 6x5"):
        gray_levels(*with_one(index, torch.zeros(2, 1, 6, 5)))  # type: ignore[arg-type]


def test_differing_devices_are_named() -> None:
    picture = Levels(torch.zeros(1, 1, 2, 2))
    elsewhere = Levels(torch.zeros(1, 1, 2, 2, device="meta"))
    with pytest.raises(ValueError, match="fused and visible must be on the same device, got cpu and meta"):
        gray_levels(picture, picture, elsewhere)


def test_sources_may_be_absent_where_a_metric_says_so() -> None:
    picture = gray(1, 4, 4)
    assert gray_levels(picture, None, None, optional=True)[1:] == (None, None)
    with pytest.raises(TypeError, match="^infrared must be a tensor"):
        gray_levels(picture, None, picture)
    with pytest.raises(TypeError, match="^fused must be a tensor"):
        gray_levels(None, picture, picture, optional=True)  # type: ignore[call-overload]
    with pytest.raises(ValueError, match="^visible must have values"):
        gray_levels(picture, None, torch.full((1, 1, 4, 4), 2.0), optional=True)


@pytest.mark.parametrize("size", [(15, 20), (20, 15)])
def test_too_small_a_picture_is_told_the_smallest_size(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=rf"^VIF is defined for .* at least 16x16 pixels, got {size[0]}x{size[1]} "):
        check_smallest("VIF", torch.zeros(1, 1, *size), 16)
    check_smallest("VIF", torch.zeros(1, 1, 16, 16), 16)
