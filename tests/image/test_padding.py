from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fusionblocks.image import Padding, check_pair, crop, pad_to_multiple, reflect_pad, with_luma

SIZES = [(1, 1), (1, 9), (2, 3), (3, 2), (5, 7), (16, 16), (31, 33), (37, 50), (65, 1)]


@pytest.mark.parametrize("multiple", [1, 2, 5, 16, 32])
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_pads_evenly_to_the_next_multiple_and_crops_back(height: int, width: int, multiple: int) -> None:
    x = torch.rand(2, 3, height, width)
    before = x.clone()
    padded, padding = pad_to_multiple(x, multiple)
    assert padded.shape[-2:] == (-(-height // multiple) * multiple, -(-width // multiple) * multiple)
    assert padding.right - padding.left in (0, 1)
    assert padding.bottom - padding.top in (0, 1)
    assert torch.equal(crop(padded, padding), x)
    assert torch.equal(x, before)
    sides = ((0, 0), (0, 0), (padding.top, padding.bottom), (padding.left, padding.right))
    assert np.array_equal(padded.numpy(), np.pad(x.numpy(), sides, mode="reflect"))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.uint8, torch.bool])
def test_any_dtype_and_rank(dtype: torch.dtype) -> None:
    x = (torch.rand(5, 7) * 255).to(dtype)
    padded, padding = pad_to_multiple(x, 8)
    assert padded.dtype == dtype
    assert padded.shape == (8, 8)
    assert torch.equal(crop(padded, padding), x)
    assert torch.equal(padded, pad_to_multiple(x.expand(2, 1, 1, 5, 7), 8)[0][1, 0, 0])


def test_reflects_again_where_the_padding_is_larger_than_the_picture() -> None:
    x = torch.tensor([[1, 2, 3]])
    padded = reflect_pad(x, Padding(left=1, right=5, top=0, bottom=1))
    assert padded.tolist() == [[2, 1, 2, 3, 2, 1, 2, 3, 2]] * 2
    assert reflect_pad(torch.tensor([[7.0]]), Padding(3, 2, 1, 0)).tolist() == [[7.0] * 6] * 2


def test_crop_is_a_view() -> None:
    x = torch.zeros(1, 1, 8, 8)
    crop(x, Padding(left=1, right=2, top=3, bottom=0)).fill_(1)
    assert x.sum() == 5 * 5


@pytest.mark.parametrize("size", [(2, 3), (5, 7)])
def test_gradients(size: tuple[int, int]) -> None:
    x = torch.rand(1, 2, *size, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: pad_to_multiple(x, 8)[0], x)


def test_the_two_ways_of_padding_agree() -> None:
    x = torch.rand(2, 3, 9, 11)
    padding = Padding(left=10, right=3, top=8, bottom=1)
    compiled = torch.compile(lambda x: reflect_pad(x, padding), fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(x), reflect_pad(x, padding))


class _Padded(nn.Module):
    def forward(self, infrared: Tensor, visible: Tensor) -> Tensor:
        check_pair(infrared, visible)
        pair, padding = pad_to_multiple(torch.cat((infrared, visible), dim=1), 8)
        return with_luma(crop(pair[:, :1] ** 2, padding), crop(pair[:, 1:], padding))


def test_one_export_serves_every_size() -> None:
    sizes = {2: torch.export.Dim("height", min=2, max=4096), 3: torch.export.Dim("width", min=2, max=4096)}
    example = (torch.rand(1, 1, 37, 50), torch.rand(1, 3, 37, 50))
    exported = torch.export.export(_Padded(), example, dynamic_shapes={"infrared": sizes, "visible": sizes}).module()
    for height, width in [(37, 50), (40, 48), (3, 5), (64, 9)]:
        pair = torch.rand(1, 1, height, width), torch.rand(1, 3, height, width)
        torch.testing.assert_close(exported(*pair), _Padded()(*pair), rtol=0, atol=1e-6)


def test_one_compilation_serves_many_sizes() -> None:
    network = _Padded()
    compiled = torch.compile(network, fullgraph=True, dynamic=True, backend="aot_eager")
    for height, width in [(37, 50), (40, 48), (3, 5)]:
        pair = torch.rand(1, 1, height, width), torch.rand(1, 3, height, width)
        torch.testing.assert_close(compiled(*pair), network(*pair), rtol=0, atol=1e-6)


@pytest.mark.parametrize("multiple", [0, -2, 2.0, True, "8"])
def test_refuses_a_multiple_that_is_no_positive_integer(multiple: object) -> None:
    with pytest.raises(ValueError, match=f"multiple must be a positive integer, got {multiple!r}"):
        pad_to_multiple(torch.rand(4, 4), multiple)  # type: ignore[arg-type]


def test_refuses_pictures_without_pixels_and_smaller_than_their_padding() -> None:
    with pytest.raises(
        ValueError, match=r"x must have shape \(..., H, W\) with at least one pixel, got \(1, 3, 0, 4\)"
    ):
        pad_to_multiple(torch.rand(1, 3, 0, 4), 8)
    with pytest.raises(ValueError, match="x must be larger than its padding, got 3x8"):
        crop(torch.rand(1, 1, 3, 8), Padding(0, 0, 1, 2))
