"""Boards that both cameras see: drawn through known cameras, so that the truth is exact."""

from __future__ import annotations

import importlib.util
import sys

import numpy as np
import pytest

import fusionblocks as fb
from fusionblocks.image import Lens, planar

COLUMNS, ROWS = 7, 5
needs_opencv = pytest.mark.skipif(importlib.util.find_spec("cv2") is None, reason="needs OpenCV, the extra align")


def board(size: tuple[int, int], pose: np.ndarray, lens: Lens | None, *, circles: bool, warm: bool) -> np.ndarray:
    """Return a picture ``(H, W)`` uint8 of a board of unit squares, drawn four times as large and averaged."""
    fine = 4
    y, x = (np.mgrid[: size[0] * fine, : size[1] * fine] + 0.5) / fine - 0.5
    pixels = np.stack([x.ravel(), y.ravel()], axis=1)
    ideal = pixels if lens is None else lens.straighten(pixels)
    u, v = planar.mapped(np.linalg.inv(pose), ideal).T
    if circles:
        near = np.hypot(u - np.rint(u), v - np.rint(v)) < 0.28
        inside = (u > -0.5) & (u < COLUMNS - 0.5) & (v > -0.5) & (v < ROWS - 0.5)
        dark = near & inside
    else:
        inside = (u > -1) & (u < COLUMNS) & (v > -1) & (v < ROWS)
        dark = inside & ((np.floor(u) + np.floor(v)) % 2 == 0)
    drawn = np.where(dark != warm, 40.0, 210.0).reshape(size[0] * fine, size[1] * fine)
    return np.rint(drawn.reshape(size[0], fine, size[1], fine).mean((1, 3))).astype(np.uint8)


def poses(count: int, size: tuple[int, int]) -> list[np.ndarray]:
    """Return maps from a board's points to the pixels of an ideal camera, from different sides."""
    random = np.random.default_rng(3)
    focal, middle = 1.1 * size[1], ((size[1] - 1) / 2, (size[0] - 1) / 2)
    camera = np.array([[focal, 0, middle[0]], [0, focal, middle[1]], [0, 0, 1]])
    found = []
    for _ in range(count):
        a, b, c = np.deg2rad(random.uniform(-25, 25, 3)) * [1, 1, 0.3]
        turn = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
        turn = turn @ np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
        turn = turn @ np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
        centre = turn @ [-(COLUMNS - 1) / 2, -(ROWS - 1) / 2, 0]
        place = centre + [*random.uniform(-1, 1, 2), random.uniform(12, 15)]
        found.append(camera @ np.stack([turn[:, 0], turn[:, 1], place], axis=1))
    return found


@needs_opencv
@pytest.mark.parametrize("circles", [False, True])
@pytest.mark.parametrize("bent", [False, True])
def test_a_board_in_several_views(circles: bool, bent: bool) -> None:
    sizes = (240, 320), (360, 480)
    truth = planar.similarity(1.4, 1.0, (8, 6), (0, 0))  # from infrared to visible pixels of ideal cameras
    lenses: list[Lens | None] = [None, None]
    if bent:
        for i, (height, width) in enumerate(sizes):
            focal = 1.1 * width
            camera = np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]])
            lenses[i] = Lens(camera, (-0.25, 0, 0, 0, 0))
    pairs = []
    for pose in poses(8, sizes[0]):
        infrared = board(sizes[0], pose, lenses[0], circles=circles, warm=True)
        pairs.append((infrared, board(sizes[1], truth @ pose, lenses[1], circles=circles, warm=False)))
    rig = fb.align([a for a, _ in pairs], [b for _, b in pairs], board=(COLUMNS, ROWS), circles=circles)
    points = planar.shared_grid(truth, *sizes)
    straight = points if lenses[0] is None else lenses[0].straighten(points)
    there = planar.mapped(truth, straight)
    there = there if lenses[1] is None else lenses[1].bend(there)
    assert np.linalg.norm(rig.map(points) - there, axis=1).mean() < 0.5
    assert rig.reliable


@needs_opencv
def test_no_board_and_a_wrong_one() -> None:
    pair = np.zeros((120, 160), np.uint8), np.zeros((120, 160), np.uint8)
    with pytest.raises(ValueError, match="no pair shows a chessboard of 7x5 points to both cameras, of 1"):
        fb.align(*pair, board=(7, 5))
    with pytest.raises(ValueError, match=r"board must be two integers of at least 2, .*got \(7, 1\)"):
        fb.align(*pair, board=(7, 1))


def test_without_opencv_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    pair = np.zeros((120, 160), np.uint8), np.zeros((120, 160), np.uint8)
    with pytest.raises(ImportError, match=r"pip install 'fusionblocks\[align\]'"):
        fb.align(*pair, board=(7, 5))
