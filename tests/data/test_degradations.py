"""Degradations: their formulas where nothing is drawn, and what holds for every kind."""

from __future__ import annotations

import math

import pytest
import torch

from fusionblocks.data import DEGRADATIONS, degrade, synthetic_scene

STRENGTHS = (0.1, 0.25, 0.5, 0.75, 1.0)
every_kind = pytest.mark.parametrize("kind", DEGRADATIONS)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def scene() -> torch.Tensor:
    return synthetic_scene(7, height=90, width=120, time="dusk").visible


def distance(a: torch.Tensor, b: torch.Tensor) -> float:
    return (a - b).square().mean().sqrt().item()


@every_kind
def test_strength_zero_is_the_picture_in_a_tensor_of_its_own(scene, kind: str) -> None:
    same = degrade(scene, kind, strength=0.0)
    assert torch.equal(same, scene)
    assert same.data_ptr() != scene.data_ptr()


@every_kind
def test_the_stronger_the_farther_from_the_picture(scene, kind: str) -> None:
    distances = [distance(degrade(scene, kind, strength=strength, generator=seeded()), scene) for strength in STRENGTHS]
    assert distances == sorted(distances)
    assert distances[0] > 0.001
    assert distances[-1] > 2 * distances[0]
    assert distance(degrade(scene, kind, strength=1e-5, generator=seeded()), scene) < 0.001, "strength 0 is the limit"


@every_kind
@pytest.mark.parametrize("shape", [(1, 37, 50), (3, 37, 50), (2, 1, 40, 33), (2, 3, 1, 1), (1, 3, 3, 200)])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_shapes_dtypes_and_range(kind: str, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    picture = torch.rand(shape, generator=seeded(1)).to(dtype)
    before = picture.clone()
    degraded = degrade(picture, kind, strength=0.9, generator=seeded())
    assert (degraded.shape, degraded.dtype) == (picture.shape, dtype)
    assert torch.isfinite(degraded).all()
    assert 0 <= degraded.min() <= degraded.max() <= 1
    assert torch.equal(picture, before)


@every_kind
def test_a_seed_repeats_itself_and_dtypes_agree(scene, kind: str) -> None:
    first = degrade(scene, kind, generator=seeded(5))
    state = torch.get_rng_state()
    assert torch.equal(first, degrade(scene, kind, generator=seeded(5)))
    assert torch.equal(state, torch.get_rng_state()), "the global generator is left alone"
    torch.testing.assert_close(degrade(scene.double(), kind, generator=seeded(5)).float(), first, rtol=0, atol=1e-5)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        torch.testing.assert_close(degrade(scene, kind), first, rtol=0, atol=0)


@pytest.mark.parametrize("kind", ["haze", "low_light", "rain", "noise", "stripes"])
def test_each_picture_of_a_batch_has_draws_of_its_own(scene, kind: str) -> None:
    batch = degrade(torch.stack([scene, scene]), kind, generator=seeded(2))
    generator = seeded(2)
    one_by_one = [degrade(scene, kind, generator=generator) for _ in range(2)]
    assert torch.equal(batch, torch.stack(one_by_one))
    assert not torch.equal(batch[0], batch[1])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@every_kind
def test_the_device_draws_nothing(scene, kind: str) -> None:
    there = degrade(scene.cuda(), kind, generator=seeded())
    assert there.is_cuda
    torch.testing.assert_close(there.cpu(), degrade(scene, kind, generator=seeded()), rtol=0, atol=1e-5)


# --- each kind by itself ---------------------------------------------------------------------------------------------


def test_haze_is_the_scattering_model_of_a_given_depth() -> None:
    picture, depth = torch.rand(2, 3, 20, 30, generator=seeded()), torch.rand(2, 1, 20, 30, generator=seeded(1))
    hazy = degrade(picture, "haze", strength=0.5, generator=seeded(), depth=depth)
    through = torch.exp(-1.5 * depth)
    airlight = (hazy - picture * through) / (1 - through)
    for one in airlight:
        flat = one.flatten(1)
        torch.testing.assert_close(flat.median(1, keepdim=True).values.expand_as(flat), flat, rtol=0, atol=1e-2)
        assert 0.65 < flat.median() < 1
    assert torch.equal(degrade(picture, "haze", depth=torch.zeros(20, 30)), picture)


def test_haze_of_its_own_is_thicker_above_and_takes_contrast(scene) -> None:
    change = [(degrade(scene, "haze", generator=seeded(seed)) - scene).abs().mean((0, 2)) for seed in range(4)]
    assert all(rows[:20].mean() > 1.5 * rows[-20:].mean() for rows in change)
    detail = [picture.diff(dim=-1).abs().mean() for picture in (degrade(scene, "haze", generator=seeded()), scene)]
    assert detail[0] < 0.7 * detail[1]


def test_low_light_is_a_gamma_with_noise_that_grows_with_the_light() -> None:
    levels = torch.tensor([0.0, 0.5, 1.0])[:, None, None].expand(3, 100, 100)
    dark = torch.cat([degrade(level[None], "low_light", strength=0.4, generator=seeded()) for level in levels])
    assert dark[1].mean() == pytest.approx(0.5**2, abs=0.005)
    assert dark[1].std() == pytest.approx(0.024 * math.sqrt(1.25), rel=0.05)
    assert dark[0].max() < 0.15


def test_over_exposure_counts_stops_and_clips() -> None:
    gray = torch.full((1, 8, 8), 0.2)
    bright = degrade(gray, "over_exposure", strength=0.5)
    torch.testing.assert_close(bright**2.2, 4 * gray**2.2)
    assert (degrade(torch.full((1, 8, 8), 0.6), "over_exposure") == 1).all()


def test_rain_is_sparse_bright_and_slanted_alike() -> None:
    black = torch.zeros(3, 160, 120)
    wet = degrade(black, "rain", strength=0.5, generator=seeded())
    assert torch.equal(wet[0], wet[1])
    assert 0.05 < (wet[0] > 0.05).float().mean() < 0.7
    assert degrade(torch.ones(3, 40, 40), "rain", generator=seeded()).min() > 1 - 1e-6, "white hides rain"
    down = (wet[0, 1:] - wet[0, :-1]).abs().mean()
    across = (wet[0, :, 1:] - wet[0, :, :-1]).abs().mean()
    assert down < 0.7 * across, "streaks are nearer vertical than horizontal"


def test_noise_has_the_standard_deviation_it_says() -> None:
    gray = torch.full((3, 100, 100), 0.5)
    for strength in (0.2, 0.5):
        noisy = degrade(gray, "noise", strength=strength, generator=seeded())
        assert noisy.std() == pytest.approx(0.2 * strength, rel=0.03)
        assert noisy.mean() == pytest.approx(0.5, abs=0.005)


def test_stripes_are_columns_shared_by_the_channels() -> None:
    gray = torch.full((3, 50, 300), 0.5)
    striped = degrade(gray, "stripes", generator=seeded())
    assert torch.equal(striped, striped[:1, :1].expand_as(striped))
    assert striped[0, 0].std() == pytest.approx(0.06 * math.sqrt(1 + 0.5**2), rel=0.15)


def test_low_contrast_keeps_the_mean_and_shrinks_the_rest(scene) -> None:
    flat = degrade(scene, "low_contrast", strength=0.8)
    assert flat.mean() == pytest.approx(scene.mean().item(), abs=1e-5)
    assert flat.std() == pytest.approx(0.32 * scene.std().item(), rel=1e-3)


# --- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"kind": "hase"}, ValueError, "kind must be one of 'haze', .*, got 'hase'; did you mean 'haze'"),
        ({"kind": "clean"}, ValueError, "kind must be one of .*, got 'clean'"),
        ({"kind": 3}, TypeError, "kind must be one of .*, got int"),
        ({"strength": 1.5}, ValueError, r"strength must lie in \[0, 1\], got 1.5"),
        ({"strength": float("nan")}, ValueError, r"strength must lie in \[0, 1\], got nan"),
        ({"strength": "much"}, TypeError, "strength must be a number, got 'much'"),
        ({"generator": 3}, TypeError, "generator must be a torch.Generator, got int"),
        ({"picture": torch.zeros(3, 4, 4, dtype=torch.uint8)}, TypeError, "picture must be of a floating-point dtype"),
        ({"picture": torch.zeros(2, 4, 4)}, ValueError, r"picture must have shape \(B, 1 or 3, H, W\)"),
        ({"picture": torch.full((3, 4, 4), 2.0)}, ValueError, r"picture must have values in \[0, 1\]"),
        ({"picture": [1]}, TypeError, "picture must be a tensor .*, got list"),
        ({"depth": torch.zeros(4, 5)}, ValueError, r"depth must have shape \(4, 4\), .*, got \(4, 5\)"),
        ({"depth": torch.full((4, 4), 9.0)}, ValueError, r"depth must have values in \[0, 1\]"),
        ({"depth": torch.zeros(4, 4), "kind": "rain"}, ValueError, "depth is for kind 'haze' alone, got kind 'rain'"),
    ],
)
def test_what_is_refused(arguments: dict, error: type[Exception], message: str) -> None:
    picture = arguments.pop("picture", torch.zeros(3, 4, 4))
    kind = arguments.pop("kind", "haze")
    with pytest.raises(error, match=message):
        degrade(picture, kind, **arguments)
