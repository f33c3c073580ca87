from __future__ import annotations

import functools

import numpy as np
import pytest
import torch

from fusionblocks.metrics import chen_blum, chen_varshney
from tests.metrics import oracles
from tests.metrics.pictures import arrays, pictures

SIZES = [(16, 16), (33, 48), (64, 51), (90, 75)]


@pytest.mark.parametrize("size", SIZES)
def test_chen_blum_against_the_published_formulation(size: tuple[int, int]) -> None:
    given = pictures(*size)
    expected = [oracles.qcb(f, [a, b]) for f, a, b in arrays(*given)]
    np.testing.assert_allclose(chen_blum(*given), expected, rtol=1e-8)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("window", "exponent"), [(16, 5.0), (8, 2.0), (11, 1.0)])
def test_chen_varshney_against_the_published_formulation(size: tuple[int, int], window: int, exponent: float) -> None:
    given = pictures(*size)
    expected = [oracles.qcv(f, [a, b], window, exponent) for f, a, b in arrays(*given)]
    np.testing.assert_allclose(chen_varshney(*given, window=window, exponent=exponent), expected, rtol=1e-9)


def test_a_source_is_fused_perfectly_and_worse_pictures_score_worse() -> None:
    _, infrared, visible = pictures(64, 64)
    assert chen_blum(visible, visible, visible).tolist() == [1, 1]
    assert chen_varshney(visible, visible, visible).tolist() == [0, 0]
    noise = torch.randint(0, 256, visible.shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    mean = ((infrared.int() + visible.int()) // 2).to(torch.uint8)
    assert (chen_blum(mean, infrared, visible) > chen_blum(noise, infrared, visible)).all()
    assert (chen_varshney(mean, infrared, visible) < chen_varshney(noise, infrared, visible)).all()


@pytest.mark.parametrize("metric", [chen_blum, chen_varshney])
def test_invariances(metric) -> None:
    fused, infrared, visible = pictures(64, 64)
    score = metric(fused, infrared, visible)
    torch.testing.assert_close(metric(fused, visible, infrared), score)  # order of the sources
    turned = [x.flip(-1) for x in (fused, infrared, visible)]
    torch.testing.assert_close(metric(*turned), score)  # left and right
    # brightness and contrast are stretched away
    halved = [(x // 2 * 2) for x in (fused, infrared, visible)]
    torch.testing.assert_close(metric(*(x // 2 for x in halved)), metric(*halved))


@pytest.mark.parametrize("metric", [chen_blum, chen_varshney])
def test_pictures_of_a_batch_do_not_mix(metric) -> None:
    given = pictures(48, 50, batch=3)
    alone = torch.cat([metric(*(x[i : i + 1] for x in given)) for i in range(3)])
    torch.testing.assert_close(metric(*given), alone, rtol=1e-12, atol=0)


def test_constant_pictures() -> None:
    _, _, visible = pictures()
    for level in (0, 90):
        constant = torch.full_like(visible, level)
        assert chen_blum(constant, constant, constant).tolist() == [1, 1]
        assert chen_blum(constant, visible, visible).tolist() == [0, 0]
        assert chen_blum(visible, constant, constant).tolist() == [0, 0]
        assert chen_varshney(constant, constant, constant).tolist() == [0, 0]
        for fused, source in ((constant, visible), (visible, constant)):
            score = chen_varshney(fused, source, source)
            assert (score.isfinite() & (score > 0)).all()


def test_constant_sources_weigh_every_region_alike() -> None:
    _, _, visible = pictures(32, 32, batch=1)
    constant = torch.zeros_like(visible)
    level = oracles.stretch(visible[0, 0].double().numpy())
    radius = oracles.frequency_plane((32, 32), 4, 4)
    gain = 2.6 * (0.0192 + 0.144 * radius) * np.exp(-((0.144 * radius) ** 1.1))
    expected = (oracles.filter_centred(level, gain) ** 2).mean()
    assert chen_varshney(visible, constant, constant).item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("size", "call", "message"),
    [
        ((15, 16), chen_varshney, "Qcv is defined for pictures of at least 16x16 pixels, got 15x16"),
        ((16, 16), functools.partial(chen_varshney, window=0), "window must be a positive number of pixels, got 0"),
        ((16, 16), functools.partial(chen_varshney, exponent=0), "exponent must be a positive number, got 0"),
    ],
)
def test_errors_name_what_is_wrong(size: tuple[int, int], call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(*pictures(*size))
