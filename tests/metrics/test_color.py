from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.color import deltaE_ciede2000, lab2rgb, rgb2lab

from fusionblocks.image import luma, with_luma
from fusionblocks.metrics import chroma_difference
from fusionblocks.metrics.color import _difference


def colours(seed: int, batch: int = 2) -> torch.Tensor:
    return torch.rand(batch, 3, 20, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def by_scikit_image(fused: torch.Tensor, visible: torch.Tensor) -> np.ndarray:
    lab, reference = (rgb2lab(x.movedim(1, -1).numpy()) for x in (fused, visible))
    lab[..., 0] = reference[..., 0]  # equal lightness
    return deltaE_ciede2000(lab, reference).mean(axis=(1, 2))


def test_against_scikit_image() -> None:
    fused, visible = colours(0), colours(1)
    np.testing.assert_allclose(chroma_difference(fused, visible), by_scikit_image(fused, visible), rtol=1e-6)
    near = (visible + 0.02 * (fused - 0.5)).clamp(0, 1)
    np.testing.assert_allclose(chroma_difference(near, visible), by_scikit_image(near, visible), rtol=1e-6)
    # near black, the linear part of both curves, where scikit-image rounds its constants to four digits
    dark, darker = visible * 0.03, fused * 0.03
    np.testing.assert_allclose(chroma_difference(darker, dark), by_scikit_image(darker, dark), rtol=1e-5)


def test_uint8_is_float_over_255() -> None:
    fused, visible = ((x * 255).round().to(torch.uint8) for x in (colours(0), colours(1)))
    torch.testing.assert_close(
        chroma_difference(fused, visible), chroma_difference(fused.double() / 255, visible.double() / 255)
    )


# pairs of the published test data that have equal lightness: a*, b*, a*, b*, difference
SHARMA = [
    (2.6772, -79.7751, 0.0, -82.7485, 2.0425),
    (3.1571, -77.2803, 0.0, -82.7485, 2.8615),
    (2.8361, -74.0200, 0.0, -82.7485, 3.4412),
    (-1.3802, -84.2814, 0.0, -82.7485, 1.0000),
    (0.0, 0.0, -1.0, 2.0, 2.3669),
    (-1.0, 2.0, 0.0, 0.0, 2.3669),
    (2.4900, -0.0010, -2.4900, 0.0009, 7.1792),
    (2.4900, -0.0010, -2.4900, 0.0011, 7.2195),
    (-0.0010, 2.4900, 0.0009, -2.4900, 4.8045),
    (-0.0010, 2.4900, 0.0011, -2.4900, 4.7461),
    (2.5, 0.0, 0.0, -2.5, 4.3065),
    (2.5, 0.0, 3.1736, 0.5854, 1.0000),
    (2.5, 0.0, 3.2972, 0.0, 1.0000),
    (2.5, 0.0, 1.8634, 0.5757, 1.0000),
]


@pytest.mark.parametrize(("a1", "b1", "a2", "b2", "expected"), SHARMA)
def test_published_test_data(a1: float, b1: float, a2: float, b2: float, expected: float) -> None:
    first, second = (torch.tensor(x, dtype=torch.float64).view(1, 2, 1, 1) for x in ((a1, b1), (a2, b2)))
    assert _difference(first, second).item() == pytest.approx(expected, abs=5e-5)
    assert _difference(second, first).item() == pytest.approx(expected, abs=5e-5)


def test_lightness_does_not_count_and_gray_does() -> None:
    reference = np.full((16, 16, 3), (50.0, 20.0, -15.0))
    lighter = reference + (15.0, 0, 0)
    same = [torch.from_numpy(lab2rgb(x)).movedim(-1, 0)[None] for x in (reference, lighter)]
    assert chroma_difference(*same).item() < 1e-3
    gray = luma(same[0]).expand(1, 3, 16, 16)
    assert chroma_difference(gray, same[0]).item() > 10
    assert chroma_difference(gray, 1 - gray).item() < 1e-2  # two grays


def test_keeping_the_chroma_is_near_and_losing_it_far() -> None:
    visible = 0.25 + 0.5 * colours(2)
    brighter = (luma(visible) * 1.15).clamp(0, 1)
    kept, lost = with_luma(brighter, visible), brighter.expand_as(visible)
    assert (3 * chroma_difference(kept, visible) < chroma_difference(lost, visible)).all()


def test_gradients() -> None:
    given = [(0.1 + 0.8 * x[:1, :, :4, :5]).requires_grad_() for x in (colours(0), colours(1))]
    assert torch.autograd.gradcheck(chroma_difference, given, fast_mode=True)


def test_errors_name_what_is_wrong() -> None:
    visible = colours(0)
    with pytest.raises(ValueError, match=r"fused must have shape \(B, 3, H, W\), got \(2, 1, 20, 24\)"):
        chroma_difference(visible[:, :1], visible)
    with pytest.raises(ValueError, match=r"the same shape, got \(2, 3, 20, 20\) and \(2, 3, 20, 24\)"):
        chroma_difference(visible[..., :20], visible)
    with pytest.raises(TypeError, match="fused must be of a floating-point dtype, got torch.int32"):
        chroma_difference(visible.int(), visible)
    with pytest.raises(ValueError, match="visible must have values in"):
        chroma_difference(visible, visible * 255)
    with pytest.raises(ValueError, match="fused must have finite values, got 1 NaN"):
        chroma_difference(visible.clone().index_put_((torch.tensor(0),) * 4, torch.tensor(torch.nan).double()), visible)
