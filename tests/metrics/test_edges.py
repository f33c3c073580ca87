from __future__ import annotations

import numpy as np
import pytest
import torch

from fusionblocks.metrics import edge_preservation, fusion_artifacts
from tests.metrics import oracles
from tests.metrics.pictures import arrays, pictures, unit

SIZES = [(16, 16), (33, 50), (300, 240)]


@pytest.mark.parametrize("size", SIZES)
def test_qabf_against_the_published_formulation(size: tuple[int, int]) -> None:
    given = pictures(*size)
    expected = [oracles.qabf(f, [a, b]) for f, a, b in arrays(*given)]
    np.testing.assert_allclose(edge_preservation(*given), expected, rtol=1e-12)
    expected = [oracles.qabf(f, [a, b], scale=255) for f, a, b in arrays(*given)]
    np.testing.assert_allclose(edge_preservation(*given, variant="vifb"), expected, rtol=1e-12)


@pytest.mark.parametrize("stronger_than", ["both", "infrared"])
@pytest.mark.parametrize("size", SIZES)
def test_nabf_against_the_published_formulation(size: tuple[int, int], stronger_than: str) -> None:
    _, infrared, visible = pictures(*size)
    fused = (infrared.double() * 0.6 + visible.double() * 0.9).clamp(0, 255).to(torch.uint8)
    expected = [oracles.nabf(f, [a, b], stronger_than) for f, a, b in arrays(fused, infrared, visible)]
    np.testing.assert_allclose(
        fusion_artifacts(fused, infrared, visible, stronger_than=stronger_than), expected, rtol=1e-12
    )
    assert min(expected) > 1e-4  # there is something to compare


def test_qabf_by_hand() -> None:
    # a step of one level between columns that are constant: away from the frame the fused picture keeps all of it
    step = torch.zeros(1, 1, 16, 16, dtype=torch.uint8)
    step[..., 8:] = 1
    full = 0.9994 * 0.9879 / (1 + np.exp(-22 * 0.2))
    assert edge_preservation(step, step, step).item() == pytest.approx(full, rel=1e-3)
    # upright edges in the sources, level ones in the result: strong as they are, they preserve nothing
    stripes = torch.zeros(1, 1, 32, 32, dtype=torch.uint8)
    stripes[..., ::4] = stripes[..., 1::4] = 9
    across = edge_preservation(stripes.mT.contiguous(), stripes, stripes).item()
    assert across < 0.2 * edge_preservation(stripes, stripes, stripes).item()


def test_evaluators_differ_where_strengths_are_equal_alone() -> None:
    given = pictures()
    gap = edge_preservation(*given, variant="vifb") - edge_preservation(*given)
    assert (gap >= 0).all()
    assert (gap < 1e-3).all()
    faint = given[2] // 100  # on strong edges both saturate
    assert (edge_preservation(faint, faint, faint, variant="vifb") > edge_preservation(faint, faint, faint)).all()


def test_order_of_the_sources() -> None:
    fused, infrared, visible = pictures()
    for metric in (edge_preservation, fusion_artifacts):
        torch.testing.assert_close(metric(fused, infrared, visible), metric(fused, visible, infrared))
    sharp = (infrared.double() * 0.6 + visible.double() * 0.9).clamp(0, 255).to(torch.uint8)
    one = fusion_artifacts(sharp, infrared, visible, stronger_than="infrared")
    other = fusion_artifacts(sharp, visible, infrared, stronger_than="infrared")
    assert ((one - other).abs() > 1e-3).all()


def test_no_artifact_in_a_source_nor_in_a_flat_picture() -> None:
    _, infrared, visible = pictures()
    assert fusion_artifacts(visible, visible, visible).tolist() == [0, 0]
    assert fusion_artifacts(visible, infrared, visible).tolist() == [0, 0]  # never stronger than both
    assert fusion_artifacts(torch.full_like(visible, 9), infrared, visible).tolist() == [0, 0]


def test_constant_pictures() -> None:
    _, _, visible = pictures()
    black, gray = torch.zeros_like(visible), torch.full_like(visible, 100)
    assert edge_preservation(visible, black, black).tolist() == [0, 0]
    assert edge_preservation(black, black, black).tolist() == [0, 0]
    assert (edge_preservation(gray, gray, gray) > 0.9).all()  # its frame
    for fused in (black, gray, visible):
        for source in (black, gray):
            assert fusion_artifacts(fused, source, source).isfinite().all()


def test_unknown_options() -> None:
    with pytest.raises(ValueError, match="stronger_than must be one of 'both', 'infrared', got 'visible'"):
        fusion_artifacts(*pictures(), stronger_than="visible")
    with pytest.raises(ValueError, match="variant must be one of 'standard', 'psfusion', got 'matlab'"):
        fusion_artifacts(*pictures(), variant="matlab")
    with pytest.raises(ValueError, match="variant must be one of 'cddfuse', 'vifb', got 'matlab'"):
        edge_preservation(*pictures(), variant="matlab")


def test_gradients_of_qabf() -> None:
    generator = torch.Generator().manual_seed(0)
    given = [
        torch.rand(1, 1, 16, 17, dtype=torch.float64, generator=generator).mul(0.9).add(0.05).requires_grad_()
        for _ in range(3)
    ]
    assert torch.autograd.gradcheck(edge_preservation, given, fast_mode=True)
    flat = unit(*pictures())  # with regions that have no edge
    edge_preservation(*flat).sum().backward()
    assert all(x.grad is not None and x.grad.isfinite().all() for x in flat)
