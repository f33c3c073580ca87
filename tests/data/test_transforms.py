"""Joint changes: what happens to one picture of an item happens to all of them."""

from __future__ import annotations

import pytest
import torch

from fusionblocks.data import Compose, PairedCrop, PairedDegrade, PairedFlip, PairedRotate, PairedTransform, degrade


def numbered(height: int = 12, width: int = 16, dtype: torch.dtype = torch.float32) -> dict:
    """An item whose pixels say where they came from, the same in every picture."""
    places = torch.arange(height * width).view(1, height, width)
    grey = places.to(dtype) if dtype == torch.uint8 else places.to(dtype) / (height * width)
    return {
        "infrared": grey,
        "visible": grey.expand(3, -1, -1),
        "labels": places[0],
        "boundary": grey.clone(),
        "name": "street",
        "semantic": torch.arange(height * width),
    }


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def assert_joint(item: dict, whole: int) -> None:
    """All pictures show the same places in the same order."""
    labels = item["labels"]
    for name in ("infrared", "visible", "boundary"):
        for channel in item[name]:
            assert torch.equal((channel.double() * whole).round().long(), labels), name


@pytest.mark.parametrize(
    "transform",
    [
        PairedCrop((8, 10)),
        PairedFlip(vertical=0.5),
        PairedRotate(),
        PairedCrop(20, pad=True),
        PairedCrop(8, center=True),
    ],
    ids=lambda transform: type(transform).__name__,
)
def test_all_pictures_move_alike_and_the_rest_stays(transform: PairedTransform) -> None:
    for size in ((12, 16), (16, 16)):
        item = numbered(*size)
        before = {name: value.clone() for name, value in item.items() if isinstance(value, torch.Tensor)}
        for seed in range(12):
            moved = transform(item, generator(seed))
            assert_joint(moved, size[0] * size[1])
            assert moved["name"] == "street"
            assert torch.equal(moved["semantic"], before["semantic"])
        assert all(torch.equal(item[name], value) for name, value in before.items()), "the given item has changed"


def test_crops_reach_every_place_and_depend_on_the_generator_alone() -> None:
    item = numbered()
    corners = {int(PairedCrop(10)(item, generator(seed))["labels"][0, 0]) for seed in range(400)}
    assert corners == {row * 16 + column for row in range(3) for column in range(7)}
    state = torch.get_rng_state()
    first, again = (PairedCrop(10)(item, generator(5))["labels"] for _ in range(2))
    assert torch.equal(first, again)
    assert torch.equal(state, torch.get_rng_state())
    torch.manual_seed(5)
    assert torch.equal(PairedCrop(10)(item)["labels"], first), "without a generator the global one is drawn from"


def test_the_middle_crop_and_the_padded_one() -> None:
    item = numbered(12, 16)
    assert PairedCrop((4, 6), center=True)(item)["labels"][0, 0] == 4 * 16 + 5
    padded = PairedCrop((14, 16), pad=True)(item)["labels"]
    assert torch.equal(padded[1:13], item["labels"])
    assert torch.equal(padded[0], item["labels"][1]), "a reflection does not repeat the edge"


def test_a_crop_that_does_not_fit_names_both_sizes() -> None:
    with pytest.raises(ValueError, match=r"street: a crop of 16x16 does not fit into a picture of 12x16 .*pad=True"):
        PairedCrop(16)(numbered())


def test_flips_come_as_often_as_they_should() -> None:
    item = numbered()
    seen = [PairedFlip(horizontal=0.25, vertical=0.5)(item, generator(seed))["labels"][0, 0] for seed in range(800)]
    left_right, top_bottom = (sum(int(place) in places for place in seen) / 800 for places in ((15, 191), (176, 191)))
    assert abs(left_right - 0.25) < 0.05
    assert abs(top_bottom - 0.5) < 0.05


def test_turns_are_right_angles_and_keep_the_shape_of_a_picture_that_is_not_square() -> None:
    square = {tuple(PairedRotate()(numbered(4, 4), generator(seed))["labels"].flatten().tolist()) for seed in range(60)}
    assert square == {tuple(torch.arange(16).view(4, 4).rot90(turns).flatten().tolist()) for turns in range(4)}
    turned = [PairedRotate()(numbered(4, 6), generator(seed))["labels"] for seed in range(40)]
    assert {labels.shape for labels in turned} == {(4, 6)}
    assert {int(labels[0, 0]) for labels in turned} == {0, 23}


def test_moving_takes_eight_bits_as_they_are() -> None:
    for transform in (PairedCrop(20, pad=True), PairedFlip(horizontal=1.0), PairedRotate()):
        moved = transform(numbered(12, 16, torch.uint8), generator(1))
        assert {moved[name].dtype for name in ("infrared", "visible", "boundary")} == {torch.uint8}


def test_compositions_take_any_callable_and_draw_in_turn() -> None:
    item = numbered(16, 16)
    both = Compose([PairedCrop(8), lambda item: {**item, "name": "seen"}, PairedRotate()])
    source = generator(3)
    expected = PairedRotate()(PairedCrop(8)(item, source), source)["labels"]
    moved = both(item, generator(3))
    assert torch.equal(moved["labels"], expected)
    assert moved["name"] == "seen"
    with pytest.raises(TypeError, match="transforms must be callables, got str"):
        Compose(["crop"])  # type: ignore[list-item]


# --- degradations ----------------------------------------------------------------------------------------------------


def clean() -> dict:
    noise = torch.rand(1, 32, 40, generator=generator(0))
    return {"infrared": noise, "visible": noise.expand(3, -1, -1), "labels": torch.zeros(32, 40).long(), "name": "a"}


def test_one_degradation_holds_for_both_modalities() -> None:
    both = PairedDegrade(("noise", "low_contrast"), modalities=("infrared", "visible"), probability=1.0)
    gray = PairedDegrade(("haze",), modalities=("infrared", "visible"), probability=1.0, strength=(0.5, 0.5))
    for seed in range(6):
        item = both(clean(), generator(seed))
        changed = [not torch.equal(item[name], clean()[name]) for name in ("infrared", "visible")]
        assert changed == [True, True]
    item = gray(clean(), generator(0))
    # the same airlight and depth: the infrared picture lies among the three tinted channels
    assert (item["visible"].mean() - item["infrared"].mean()).abs() < 0.05
    assert torch.equal(item["labels"], clean()["labels"])


def test_degradations_come_as_often_and_as_strong_as_they_should() -> None:
    transform = PairedDegrade(("over_exposure",), probability=0.25, strength=(0.2, 0.4), keep_clean=True)
    flat = {"infrared": torch.full((1, 4, 4), 0.1), "visible": torch.full((3, 4, 4), 0.1)}
    items = [transform(flat, generator(seed)) for seed in range(400)]
    assert all(torch.equal(item["clean_visible"], flat["visible"]) for item in items)
    assert all(torch.equal(item["infrared"], flat["infrared"]) and "clean_infrared" not in item for item in items)
    levels = [float(item["visible"].mean()) for item in items]
    degraded = [level for level in levels if level > 0.1 + 1e-6]
    assert abs(len(degraded) / 400 - 0.25) < 0.06
    bounds = [float(degrade(flat["visible"], "over_exposure", strength=strength).mean()) for strength in (0.2, 0.4)]
    assert bounds[0] <= min(degraded) < max(degraded) <= bounds[1]


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: PairedDegrade(("low-light",)), ValueError, "unknown degradation: 'low-light', .*mean 'low_light'"),
        (lambda: PairedDegrade(modalities=("visual",)), ValueError, "unknown modality: 'visual', .*mean 'visible'"),
        (lambda: PairedDegrade(()), ValueError, "kinds must be at least one name"),
        (lambda: PairedDegrade("haze"), ValueError, "kinds must be at least one name in a sequence, got 'haze'"),
        (lambda: PairedDegrade(strength=(0.0, 0.5)), ValueError, "strength must be a rising range above 0"),
        (lambda: PairedFlip(horizontal=1.5), ValueError, r"horizontal must lie in \[0, 1\], got 1.5"),
        (lambda: PairedCrop(0), ValueError, "size must be at least 1, got 0"),
        (lambda: PairedCrop((1, 2, 3)), ValueError, "size must be one number or rows and columns"),
        (lambda: PairedFlip()({"infrared": torch.rand(1, 2, 2)}), TypeError, "an item must have visible as a tensor"),
        (
            lambda: PairedCrop(2)({"infrared": torch.rand(1, 4, 4), "visible": torch.rand(3, 4, 5), "name": "b"}),
            ValueError,
            "b: infrared and visible must have the same size, got 4x4 and 4x5",
        ),
    ],
)
def test_what_is_refused(make, error, message: str) -> None:
    with pytest.raises(error, match=message):
        make()
