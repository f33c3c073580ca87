from __future__ import annotations

import numpy as np
import pytest
import torch

from fusionblocks.image import windows
from fusionblocks.image.filters import gaussian_kernel, separable
from fusionblocks.image.windows import filter_valid
from fusionblocks.metrics import (
    edge_preservation,
    fusion_artifacts,
    structural_similarity,
    visual_information_fidelity,
)
from tests.metrics import oracles
from tests.metrics.pictures import arrays, pictures, unit


@pytest.mark.parametrize("size", [(41, 41), (48, 57), (150, 301), (230, 64)])
def test_against_the_published_formulation(size: tuple[int, int]) -> None:
    given = pictures(*size)
    expected = [oracles.vif(a, f) + oracles.vif(b, f) for f, a, b in arrays(*given)]
    np.testing.assert_allclose(visual_information_fidelity(*given), expected, rtol=1e-9)
    halves = visual_information_fidelity(*given, reduction="mean")
    np.testing.assert_allclose(halves, np.array(expected) / 2, rtol=1e-9)


def test_a_source_scores_one_with_itself_and_more_with_higher_contrast() -> None:
    _, infrared, visible = pictures()
    torch.testing.assert_close(
        visual_information_fidelity(visible, visible, visible), torch.full((2,), 2.0, dtype=torch.float64)
    )
    soft = visible // 4
    assert (visual_information_fidelity(2 * soft, soft, soft) > 2.5).all()
    assert (visual_information_fidelity(255 - visible, visible, visible) < 0.05).all()  # inverted: no information


def test_constant_pictures() -> None:
    _, _, visible = pictures()
    for level in (0, 100, 255):
        constant = torch.full_like(visible, level)
        assert visual_information_fidelity(constant, constant, constant).tolist() == [2, 2]
        assert visual_information_fidelity(visible, constant, constant).tolist() == [2, 2]  # as published
        assert visual_information_fidelity(constant, visible, visible).tolist() == [0, 0]
        mixed = visual_information_fidelity(visible, constant, visible)
        torch.testing.assert_close(mixed, torch.full((2,), 2.0, dtype=torch.float64))


def test_pictures_of_a_batch_do_not_mix() -> None:
    given = pictures(220, 200, batch=3)  # several strips, on a CPU
    together = visual_information_fidelity(*given)
    alone = torch.cat([visual_information_fidelity(*(x[i : i + 1] for x in given)) for i in range(3)])
    torch.testing.assert_close(together, alone, rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    "metric", [visual_information_fidelity, structural_similarity, edge_preservation, fusion_artifacts]
)
def test_strips_give_what_the_whole_picture_gives(metric, monkeypatch: pytest.MonkeyPatch) -> None:
    given = pictures(230, 64, batch=3)
    monkeypatch.setattr(windows, "_STRIP", 1 << 20)
    whole = metric(*given)
    for pixels in (1, 100 * 64, 2 * 100 * 64):  # one tile of rows, 96 rows, and as many of two pictures
        monkeypatch.setattr(windows, "_STRIP", pixels)
        torch.testing.assert_close(metric(*given), whole, rtol=1e-12, atol=0)


def test_smallest_size_is_named() -> None:
    with pytest.raises(ValueError, match=r"VIF is defined for pictures of at least 41x41 pixels, got 64x40"):
        visual_information_fidelity(*pictures(64, 40))
    with pytest.raises(ValueError, match="reduction must be 'sum' or 'mean', got 'max'"):
        visual_information_fidelity(*pictures(), reduction="max")


def test_gradients() -> None:
    given = unit(*pictures(41, 43, batch=1))
    assert torch.autograd.gradcheck(visual_information_fidelity, given, fast_mode=True)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(17, 17), (18, 64), (64, 65), (70, 161)])
def test_filter_is_a_convolution(size: tuple[int, int], stride: int) -> None:
    x = torch.rand(2, 3, *size, dtype=torch.float64)
    kernel = gaussian_kernel(3.4, 17, dtype=torch.float64)
    expected = separable(x, kernel)[..., ::stride, ::stride]
    torch.testing.assert_close(filter_valid(x, kernel, stride), expected, rtol=1e-12, atol=1e-13)
