from __future__ import annotations

import pytest
import torch

from fusionblocks.models.schedules import beta_schedule, noise_levels
from tests.helpers.golden import load_case


@pytest.mark.parametrize(("name", "steps"), [("linear", 1000), ("linear", 60), ("cosine", 2000)])
def test_equals_the_published_schedule(name: str, steps: int) -> None:
    expected = load_case("sgd_schedules").outputs[f"{name}_{steps}_betas"]
    betas = beta_schedule(name, steps)
    assert betas.dtype == torch.float64
    torch.testing.assert_close(betas, expected, rtol=1e-12, atol=1e-15)


def test_noise_levels_fall_from_the_signal_to_the_noise() -> None:
    training, short = noise_levels(beta_schedule("linear", 1000)), noise_levels(beta_schedule("linear", 60))
    for levels in (training, short):
        assert (levels.diff() < 0).all()
        assert float(levels[0]) == pytest.approx((1 - 1e-6) ** 0.5, abs=1e-15)
    assert float(training[-1]) ** 2 == pytest.approx(0.0066, abs=5e-5)
    assert float(short[-1]) ** 2 == pytest.approx(0.74, abs=5e-3)


def test_cosine_betas_are_limited() -> None:
    betas = beta_schedule("cosine", 10)
    assert 0 < betas.min()
    assert betas.max() == 0.999


def test_refusals() -> None:
    with pytest.raises(ValueError, match=r"linaer.*did you mean 'linear'"):
        beta_schedule("linaer", 10)
    for steps in (0, -1, 2.0, True):
        with pytest.raises(ValueError, match="steps"):
            beta_schedule("linear", steps)
    for start, end in ((0.0, 0.5), (0.5, 0.1), (0.1, 1.0)):
        with pytest.raises(ValueError, match="start and end"):
            beta_schedule("linear", 10, start, end)
