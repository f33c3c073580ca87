"""The synthetic scene: its contract, and the physics that make it worth fusing."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from fusionblocks.data import CLASS_NAMES, SyntheticScene, synthetic_scene

SIZE = {"height": 120, "width": 160}
SEEDS = range(8)
LUMA = torch.tensor([0.299, 0.587, 0.114])


def luma(visible: torch.Tensor) -> torch.Tensor:
    return torch.einsum("c,chw->hw", LUMA, visible)


def of(scene: SyntheticScene, *names: str) -> torch.Tensor:
    """Where the mask shows one of these classes."""
    return torch.isin(scene.mask, torch.tensor([CLASS_NAMES.index(name) for name in names]))


def grown(region: torch.Tensor, radius: int) -> torch.Tensor:
    return torch.nn.functional.max_pool2d(region[None].float(), 2 * radius + 1, 1, radius)[0].bool()


def texture(picture: torch.Tensor, region: torch.Tensor) -> float:
    """Mean absolute difference of horizontal neighbours that both lie in a region."""
    inside = region[:, 1:] & region[:, :-1]
    return (picture[:, 1:] - picture[:, :-1]).abs()[inside].mean().item()


@pytest.fixture(scope="module")
def scenes() -> list[SyntheticScene]:
    return [synthetic_scene(seed, **SIZE) for seed in SEEDS]


@pytest.fixture(scope="module")
def clean() -> list[SyntheticScene]:
    return [synthetic_scene(seed, noise=0.0, **SIZE) for seed in SEEDS]


def test_shapes_dtypes_and_ranges(scenes: list[SyntheticScene]) -> None:
    for infrared, visible, mask in scenes:
        assert (infrared.shape, visible.shape, mask.shape) == ((1, 120, 160), (3, 120, 160), (120, 160))
        assert (infrared.dtype, visible.dtype, mask.dtype) == (torch.float32, torch.float32, torch.int64)
        for picture in (infrared, visible):
            assert torch.isfinite(picture).all()
            assert picture.min() >= 0
            assert picture.max() <= 1
            assert picture.max() - picture.min() > 0.7
        assert mask.min() >= 0
        assert mask.max() < len(CLASS_NAMES)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (33, 47), (32, 200), (200, 32), (96, 129)])
@pytest.mark.parametrize("layout", ["street", "yard"])
@pytest.mark.parametrize("time", ["night", "dusk"])
def test_any_size(height: int, width: int, layout: str, time: str) -> None:
    scene = synthetic_scene(5, height=height, width=width, haze=0.4, layout=layout, time=time)
    assert scene.infrared.shape == (1, height, width)
    assert scene.visible.shape == (3, height, width)
    assert scene.mask.shape == (height, width)
    assert torch.isfinite(scene.infrared).all()
    assert torch.isfinite(scene.visible).all()
    assert of(scene, "ground").any()
    assert of(scene, "building").any()


def test_same_seed_same_scene_and_another_seed_another() -> None:
    first, again, other = (synthetic_scene(seed, height=64, width=80, haze=0.3) for seed in (4, 4, 5))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first.visible, other.visible)
    assert not torch.equal(first.mask, other.mask)


def test_global_random_state_is_neither_used_nor_changed() -> None:
    torch.manual_seed(1)
    np.random.seed(1)
    random.seed(1)
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    first = synthetic_scene(2, height=48, width=64)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])
    assert random.getstate() == before[2]
    torch.manual_seed(2)
    np.random.seed(2)
    random.seed(2)
    assert torch.equal(synthetic_scene(2, height=48, width=64).visible, first.visible)


def test_one_seed_is_one_scene_at_every_size() -> None:
    small = synthetic_scene(1, height=60, width=80, noise=0.0)
    large = synthetic_scene(1, height=240, width=320, noise=0.0)
    shrunk = torch.nn.functional.avg_pool2d(large.visible, 4)
    assert (small.mask == large.mask[2::4, 2::4]).float().mean() > 0.9
    assert (small.visible - shrunk).abs().mean() < 0.05


def test_classes_present(scenes: list[SyntheticScene]) -> None:
    for scene in scenes:
        present = {CLASS_NAMES[i] for i in scene.mask.unique().tolist()}
        assert present >= {"ground", "sky", "building", "window", "lamp", "car", "person"}
    seen = {CLASS_NAMES[i] for scene in scenes for i in scene.mask.unique().tolist()}
    assert seen == set(CLASS_NAMES)


@pytest.mark.parametrize("seed", SEEDS)
def test_people_stand_out_in_infrared_and_hide_in_visible(clean: list[SyntheticScene], seed: int) -> None:
    scene = clean[seed]
    people = of(scene, "person")
    around = grown(people, 3) & ~of(scene, "person", "car", "lamp")
    hot = scene.infrared[0][people].mean() - scene.infrared[0][around].mean()
    seen = luma(scene.visible)[people].mean() - luma(scene.visible)[around].mean()
    assert hot > 0.2
    assert abs(seen) < 0.13
    assert hot > 2 * abs(seen)


@pytest.mark.parametrize("seed", SEEDS)
def test_texture_is_in_the_visible_image_alone(clean: list[SyntheticScene], seed: int) -> None:
    scene = clean[seed]
    for name in ("ground", "building", "sign"):
        region = of(scene, name) & ~grown(of(scene, "person", "car", "lamp", "vegetation"), 2)
        if region.sum() > 50:
            assert texture(luma(scene.visible), region) > 1.5 * texture(scene.infrared[0], region)


def test_heat_of_the_scene(clean: list[SyntheticScene]) -> None:
    for scene in clean:
        heat = {
            name: scene.infrared[0][of(scene, name)].mean() for name in ("sky", "building", "window", "person", "lamp")
        }
        assert heat["sky"] + 0.1 < heat["building"] < heat["window"] < heat["person"]
        assert scene.infrared[0][of(scene, "car")].max() > heat["building"] + 0.25  # an engine, a tyre or an exhaust
        assert scene.infrared[0][of(scene, "lamp")].max() > 0.7


def test_lamps_glare_into_the_visible_image_alone(clean: list[SyntheticScene]) -> None:
    for scene in clean:
        lamps = of(scene, "lamp") & (luma(scene.visible) > 0.9)
        beside = grown(lamps, 4) & ~grown(of(scene, "lamp", "person", "car", "sign"), 1)
        assert lamps.any()
        plain = of(scene, "sky", "building")
        brighter = luma(scene.visible)[beside & plain].mean() - luma(scene.visible)[plain].mean()
        assert brighter > 0.1
        assert abs(scene.infrared[0][beside & plain].mean() - scene.infrared[0][plain].mean()) < 0.17


@pytest.mark.parametrize("seed", [0, 1, 7])
def test_haze_veils_the_visible_image_and_spares_the_infrared(clean: list[SyntheticScene], seed: int) -> None:
    hazy = synthetic_scene(seed, haze=0.8, noise=0.0, **SIZE)
    slight = synthetic_scene(seed, haze=0.2, noise=0.0, **SIZE)
    clear = clean[seed]
    walls = of(clear, "building", "window", "sign")
    fades = [texture(luma(scene.visible), walls) for scene in (clear, slight, hazy)]
    assert fades[0] > fades[1] > 1.5 * fades[2]
    assert texture(hazy.infrared[0], walls) > 0.85 * texture(clear.infrared[0], walls)
    assert (hazy.infrared - clear.infrared).abs().mean() < 0.03
    assert torch.equal(hazy.mask, clear.mask)


def test_noise_is_what_it_says_and_grows_in_the_dark(clean: list[SyntheticScene]) -> None:
    noisy, noisier = (synthetic_scene(1, noise=noise, **SIZE) for noise in (0.02, 0.04))
    bright = luma(clean[1].visible)
    middle, dark = (bright > 0.35) & (bright < 0.65), (bright > 0.12) & (bright < 0.22)
    spread = {}
    for name, scene in (("noisy", noisy), ("noisier", noisier)):
        error = luma(scene.visible) - bright
        spread[name] = error[middle].std().item(), error[dark].std().item()
        assert spread[name][1] > 1.3 * spread[name][0]
    assert spread["noisy"][0] == pytest.approx(0.016, rel=0.35)
    assert spread["noisier"][0] == pytest.approx(2 * spread["noisy"][0], rel=0.1)
    infrared = (noisy.infrared - clean[1].infrared)[0]
    assert infrared.std().item() == pytest.approx(0.5 * 0.02, rel=0.3)
    assert infrared.mean(0).std() > 2 * 0.5 * 0.02 / 120**0.5  # columns share a part of it: stripes


def test_naming_the_layout_and_time_that_the_seed_draws_changes_nothing() -> None:
    free = synthetic_scene(3, height=48, width=64)
    options = [
        synthetic_scene(3, height=48, width=64, layout=layout, time=time)
        for layout in ("street", "yard")
        for time in ("night", "dusk")
    ]
    assert sum(torch.equal(free.visible, scene.visible) for scene in options) == 1
    night, dusk = (synthetic_scene(3, height=48, width=64, time=time, noise=0.0) for time in ("night", "dusk"))
    assert torch.equal(night.mask, dusk.mask)
    assert luma(dusk.visible)[of(dusk, "sky")].mean() > luma(night.visible)[of(night, "sky")].mean() + 0.1


@pytest.mark.parametrize(
    ("keywords", "error", "message"),
    [
        ({"seed": -1}, ValueError, r"seed must be at least 0, got -1"),
        ({"seed": 1.5}, TypeError, r"seed must be an integer, got 1\.5"),
        ({"seed": True}, TypeError, r"seed must be an integer, got True"),
        ({"height": 31}, ValueError, r"height must be at least 32, got 31"),
        ({"width": 8}, ValueError, r"width must be at least 32, got 8"),
        ({"width": "640"}, TypeError, r"width must be an integer, got '640'"),
        ({"haze": 1.5}, ValueError, r"haze must lie in \[0, 1\], got 1\.5"),
        ({"haze": float("nan")}, ValueError, r"haze must lie in \[0, 1\], got nan"),
        ({"haze": "thick"}, TypeError, r"haze must be a number, got 'thick'"),
        ({"noise": -0.1}, ValueError, r"noise must lie in \[0, 0\.5\], got -0\.1"),
        ({"layout": "forest"}, ValueError, r"layout must be one of 'street', 'yard' or None, got 'forest'"),
        ({"time": "noon"}, ValueError, r"time must be one of 'night', 'dusk' or None, got 'noon'"),
        ({"layout": ["street"]}, ValueError, r"layout must be one of"),
    ],
)
def test_bad_arguments_are_refused_by_name(keywords: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        synthetic_scene(**keywords)


def test_numpy_integers_serve() -> None:
    scene = synthetic_scene(np.int64(1), height=np.int32(32), width=np.int32(40))
    assert scene.infrared.shape == (1, 32, 40)
