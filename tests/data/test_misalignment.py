from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Generator

import fusionblocks as fb
from fusionblocks.data import Compose, PairedFlip, PairedMisalign
from fusionblocks.image.planar import mapped, sample

SCENE = fb.data.synthetic_scene(1, height=96, width=128)
ITEM = {"infrared": SCENE.infrared, "visible": SCENE.visible, "name": "1"}


@pytest.mark.parametrize("perspective", [0.0, 0.05])
def test_the_truth_takes_moved_pixels_to_where_they_were(perspective: float) -> None:
    moved = PairedMisalign(perspective=perspective)(ITEM, Generator().manual_seed(3))
    matrix = moved["misalignment"].numpy()
    assert moved["visible"] is ITEM["visible"]
    # the picture moved back is the picture, where both are seen
    back = sample(moved["infrared"][None], np.linalg.inv(matrix), (96, 128))[0]
    seen = sample(moved["infrared_seen"][None], np.linalg.inv(matrix), (96, 128))[0] > 0.999
    assert 0.5 < seen.float().mean() < 1
    assert (back - ITEM["infrared"])[seen].abs().mean() < 0.02
    assert (moved["infrared"] - ITEM["infrared"]).abs().mean() > 0.02
    # no edge of nothing
    assert (moved["infrared"][moved["infrared_seen"] == 0] > 0).float().mean() > 0.9


def test_draws_keep_to_their_bounds_and_their_seed() -> None:
    transform = PairedMisalign(shift=0.1, scale=0.2, degrees=10)
    centre = np.array([[63.5, 47.5]])
    for seed in range(30):
        matrix = transform(ITEM, Generator().manual_seed(seed))["misalignment"].numpy()
        assert np.linalg.norm(mapped(matrix, centre) - centre) <= 12.8
        scale = np.sqrt(np.linalg.det(matrix[:2, :2]))
        assert 0.8 <= scale <= 1.2
        assert abs(np.degrees(np.arctan2(matrix[1, 0], matrix[0, 0]))) <= 10
        again = transform(ITEM, Generator().manual_seed(seed))["misalignment"].numpy()
        assert np.array_equal(matrix, again)


def test_an_item_that_is_left_has_the_identity() -> None:
    item = PairedMisalign(probability=0)(ITEM)
    assert torch.equal(item["misalignment"], torch.eye(3, dtype=torch.float64))
    assert (item["infrared"] - ITEM["infrared"]).abs().max() < 1e-6
    assert bool((item["infrared_seen"] == 1).all())
    composed = Compose([PairedFlip(horizontal=1.0), PairedMisalign(probability=0)])(ITEM)
    assert (composed["infrared"] - ITEM["infrared"].flip(-1)).abs().max() < 1e-6


def test_bad_arguments_are_named() -> None:
    for options, message in (
        ({"shift": 0.6}, r"shift must lie in \[0, 0.5\]"),
        ({"degrees": -1}, r"degrees must lie in \[0, 45\]"),
        ({"perspective": 1}, r"perspective must lie in \[0, 0.25\]"),
    ):
        with pytest.raises(ValueError, match=message):
            PairedMisalign(**options)
