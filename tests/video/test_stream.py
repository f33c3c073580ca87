from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import fusionblocks as fb
from fusionblocks.image import write_image
from fusionblocks.video import AdaptiveRange

HEIGHT, WIDTH = 96, 128
SCENE = fb.data.synthetic_scene(1, height=HEIGHT, width=WIDTH, noise=0.0, time="dusk")
COUNTS = (29000 + 1500 * SCENE.infrared[0].numpy()).astype(np.uint16)
VISIBLE = (SCENE.visible.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
PLACES = (None, 0, 20, 40, 60, 80, None, None)
"""The left edge of what walks through, frame by frame."""


def frame(left: int | None) -> np.ndarray:
    """Return the scene with something hot, hotter than all the rest."""
    counts = COUNTS.copy()
    if left is not None:
        counts[40:70, left : left + 16] = 34000
    return counts


def away(left: int | None, distance: int = 36) -> np.ndarray:
    """Return which pixels are not near what walks through: a pixel of the base is as wide as sixteen."""
    keep = np.ones((HEIGHT, WIDTH), bool)
    if left is not None:
        keep[max(40 - distance, 0) : 70 + distance, max(left - distance, 0) : left + 16 + distance] = False
    return keep


def levels(stream: fb.FusionStream) -> list[np.ndarray]:
    return [stream(frame(left), VISIBLE).astype(int) for left in PLACES]


@pytest.mark.parametrize("limits", [(29000, 31000), None, "auto"])
def test_a_hot_object_that_passes_leaves_the_background(limits: object) -> None:
    frames = levels(fb.FusionStream(thermal_range=limits))
    for left, fused in zip(PLACES, frames, strict=True):
        changes = np.abs(fused - frames[0])
        assert changes[away(left)].max() <= 1  # rounding of a picture that is near the object
        assert changes[away(left)].mean() < 0.02
        assert changes[away(left, 56)].max(initial=0) == 0
    # single frames move everything
    alone = [fb.fuse(frame(left), VISIBLE).astype(int) for left in PLACES]
    assert np.abs(alone[3] - alone[0])[away(40)].max() > 10


def test_nothing_leaves_a_trail() -> None:
    frames = levels(fb.FusionStream(thermal_range=(29000, 31000)))
    # an empty frame after the object is as the empty one before it, where it was too
    assert np.array_equal(frames[-1], frames[0])
    assert np.abs(frames[3] - frames[0]).max() > 20  # it was seen


def test_a_still_sequence_is_what_fuse_makes() -> None:
    stream = fb.FusionStream(thermal_range=(29000, 31000))
    expected = fb.fuse(COUNTS, VISIBLE, thermal_range=(29000, 31000)).astype(int)
    for _ in range(3):
        assert np.abs(stream(COUNTS, VISIBLE) - expected).max() <= 1
    assert stream.frames == 3
    assert stream.thermal_range == (29000.0, 31000.0)


@pytest.mark.parametrize("name", ["smfnet", "psfusion", "laplacian"])
def test_any_network_goes_and_keeps_its_own_weights(name: str) -> None:
    small = {"smfnet": {"channels": 8, "num_heads": 2}, "psfusion": {}, "laplacian": {}}[name]
    if name == "psfusion":
        small = {"backbone_channels": (8, 8, 8, 8)}
    model = fb.create_model(name, **small).eval()
    stream = fb.FusionStream(model, thermal_range=(29000, 31000))
    expected = fb.fuse(COUNTS, VISIBLE, model=model, thermal_range=(29000, 31000)).astype(int)
    assert np.abs(stream(COUNTS, VISIBLE) - expected).max() <= 1
    assert not any(getattr(module, "held", None) for module in model.modules())
    for mine, own in zip(model.parameters(), stream._network.parameters(), strict=True):
        assert mine.data_ptr() == own.data_ptr()


def test_a_cut_begins_anew() -> None:
    other = fb.data.synthetic_scene(3, height=HEIGHT, width=WIDTH, noise=0.0)
    counts = (29000 + 1500 * other.infrared[0].numpy()).astype(np.uint16)
    visible = 255 - (other.visible.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    stream = fb.FusionStream(thermal_range=(29000, 31000))
    for _ in range(3):
        stream(COUNTS, VISIBLE)
    expected = fb.fuse(counts, visible, thermal_range=(29000, 31000)).astype(int)
    assert np.abs(stream(counts, visible) - expected).max() <= 1
    stream.reset()
    assert (
        np.abs(stream(COUNTS, VISIBLE).astype(int) - fb.fuse(COUNTS, VISIBLE, thermal_range=(29000, 31000))).max() <= 1
    )


def test_paths_tensors_and_other_sizes(tmp_path: Path) -> None:
    write_image(tmp_path / "ir.tiff", COUNTS)
    write_image(tmp_path / "vi.png", VISIBLE)
    stream = fb.FusionStream()
    fused = stream(tmp_path / "ir.tiff", tmp_path / "vi.png")
    assert fused.size == (WIDTH, HEIGHT)
    expected = np.asarray(fb.fuse(tmp_path / "ir.tiff", tmp_path / "vi.png")).astype(int)
    assert np.abs(np.asarray(fused) - expected).max() <= 1  # attention is summed in another order
    stream = fb.FusionStream(model="laplacian")
    files = tmp_path / "ir.tiff", tmp_path / "vi.png"
    assert np.array_equal(np.asarray(stream(*files)), np.asarray(fb.fuse(*files, model="laplacian")))
    assert stream(SCENE.infrared, SCENE.visible).shape == (3, HEIGHT, WIDTH)
    assert stream(SCENE.infrared[:, :64], SCENE.visible[:, :64]).shape == (3, 64, WIDTH)
    stream = fb.FusionStream(resize="infrared")
    assert stream(COUNTS[::2, ::2], VISIBLE).shape == VISIBLE.shape
    identity = fb.Alignment(np.eye(3), (HEIGHT, WIDTH), (HEIGHT, WIDTH))
    aligned = fb.FusionStream(alignment=identity)(COUNTS, VISIBLE).astype(int)
    assert np.abs(aligned - fb.fuse(COUNTS, VISIBLE, alignment=identity)).max() <= 1


def test_bad_calls_are_refused() -> None:
    with pytest.raises(ValueError, match="for a stream, got 'scene'"):
        fb.FusionStream(thermal_range="scene")
    with pytest.raises(ValueError, match="thermal_range must be two finite numbers"):
        fb.FusionStream(thermal_range=(2, 1))
    stream = fb.FusionStream()
    with pytest.raises(ValueError, match="must have the same size"):
        stream(COUNTS[:64], VISIBLE)
    assert stream.frames == 0
    assert stream(COUNTS, VISIBLE).shape == VISIBLE.shape


# --- the range --------------------------------------------------------------------------------------------------------


def test_the_range_follows_a_lasting_change_slowly_and_a_new_scene_at_once() -> None:
    limits = AdaptiveRange()
    first = limits.update(COUNTS)
    span = first[1] - first[0]
    passed = [limits.update(frame(40)) for _ in range(100)]
    assert all(found == first for found in passed)
    followed = [limits.update((COUNTS + 100).astype(np.uint16)) for _ in range(600)]
    steps = np.abs(np.diff([low for low, _ in followed]))
    assert steps.max() <= 0.0012 * span
    assert abs(followed[-1][0] - first[0] - 100) < 0.02 * span
    other = (COUNTS // 2).astype(np.uint16)
    for _ in range(3):
        found = limits.update(other)
    assert found == AdaptiveRange().update(other)


def test_a_shutter_that_closes_for_two_frames_changes_nothing() -> None:
    limits = AdaptiveRange()
    first = limits.update(COUNTS)
    for _ in range(2):
        limits.update(np.full_like(COUNTS, 21000))
    assert limits.update(COUNTS) == first


def test_eight_bits_keep_their_levels() -> None:
    assert AdaptiveRange().update(VISIBLE[..., 0]) is None
    degrees = (20 + 10 * SCENE.infrared[0].numpy()).astype(np.float32)
    low, high = AdaptiveRange().update(degrees)
    assert 19 < low < high < 31


def test_held_matrices_do_not_stand_in_the_way_of_gradients_elsewhere() -> None:
    model = fb.create_model("fusionblocks", channels=8)
    fb.FusionStream(model)(COUNTS, VISIBLE)
    output = model(SCENE.infrared[None].requires_grad_(), SCENE.visible[None]).fused
    output.sum().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters() if parameter.grad is not None)
