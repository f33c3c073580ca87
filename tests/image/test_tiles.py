"""Tiles: they cover, their windows add up, and what sees less than a quarter of the overlap is computed exactly."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fusionblocks.image.tiles import Parts, check_parts, in_parts, spans, window

KERNEL = torch.linspace(-1, 1, 25).view(1, 1, 5, 5)


def blurred(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """See two pixels around each, with zeros beyond the border."""
    return F.conv2d(x, KERNEL.to(x), padding=2), x * y


@pytest.mark.parametrize("length", [5, 32, 33, 40, 64, 200])
@pytest.mark.parametrize(("overlap", "multiple"), [(0, 1), (1, 1), (8, 1), (16, 1), (8, 8), (16, 8)])
def test_tiles_cover_and_their_windows_never_vanish(length: int, overlap: int, multiple: int) -> None:
    length = -(-length // multiple) * multiple
    total = torch.zeros(length)
    tiles = spans(length, 32, overlap, multiple)
    for tile in tiles:
        assert tile.start % multiple == 0
        weight = window(tile, length, overlap)
        assert len(weight) == tile.stop - tile.start == min(32, length)
        total[tile] += weight
    assert tiles[0].start == 0
    assert tiles[-1].stop == length
    assert (total >= 0.999).all()
    for tile, following in zip(tiles, tiles[1:]):
        assert tile.stop - following.start >= overlap
    if len(tiles) > 2:
        torch.testing.assert_close(total[: tiles[-1].start], torch.ones(tiles[-1].start))


def test_windows_are_smooth_and_leave_out_what_sees_too_little() -> None:
    weight = window(slice(32, 96), 128, 32)
    assert not weight[:8].any()
    assert not weight[-8:].any()
    assert (weight[24:-24] == 1).all()
    assert weight.diff().abs().max() < 0.1
    assert window(slice(0, 64), 128, 32)[:40].eq(1).all()  # nothing is lost at the picture's own border


@pytest.mark.parametrize("size", [(72, 88), (31, 100), (20, 20)])
def test_a_small_receptive_field_gives_the_untiled_result(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    x, y = torch.rand(2, 1, *size), torch.rand(2, 1, *size)
    expected = blurred(x, y)
    for pictures in (None, 1):
        for got, whole in zip(in_parts(blurred, (x, y), Parts(32, 8, pictures)), expected, strict=True):
            torch.testing.assert_close(got, whole, rtol=0, atol=2e-6)
    if max(size) > 32:
        seamed = in_parts(blurred, (x, y), Parts(32, 0))[0]
        assert (seamed - expected[0]).abs().max() > 0.1


def test_slices_of_a_batch_are_seen_alone() -> None:
    seen: list[int] = []

    def observe(x: Tensor) -> tuple[Tensor]:
        seen.append(x.shape[0])
        return (2 * x,)

    x = torch.rand(5, 1, 4, 4)
    assert torch.equal(in_parts(observe, (x,), Parts(pictures=2))[0], 2 * x)
    assert seen == [2, 2, 1]


def test_half_precision_stays() -> None:
    x = torch.rand(1, 1, 40, 40, dtype=torch.bfloat16)
    (result,) = in_parts(lambda x: (x,), (x,), Parts(32, 8))
    assert result.dtype == torch.bfloat16
    torch.testing.assert_close(result, x, rtol=0, atol=4e-3)


@pytest.mark.parametrize(
    ("tile", "overlap", "message"),
    [
        (36, None, "tile must be a multiple of 8"),
        (24, None, "at least 32"),
        (0, None, "tile"),
        (True, None, "tile"),
        (64.0, None, "tile"),
        (64, 33, "overlap must be an integer from 0 to half the tile, 32"),
        (64, -1, "overlap"),
        (64, 8.0, "overlap"),
        (None, 8, "overlap goes with tile"),
    ],
)
def test_refusals(tile, overlap, message) -> None:
    with pytest.raises(ValueError, match=message):
        check_parts(tile, overlap, 8)


def test_defaults() -> None:
    assert check_parts(None, None, 8) == (None, 0)
    assert check_parts(64, None, 8) == (64, 16)
    assert check_parts(64, 0, 8) == (64, 0)
