"""The map between two cameras, and their lenses, from a board that both see."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fusionblocks.alignment.alignment import Alignment
from fusionblocks.alignment.points import fit, left_out
from fusionblocks.image.lens import Lens

LEAST_VIEWS = 5
"""Views from which lenses are told."""


def from_board(
    pairs: list[tuple[np.ndarray, np.ndarray]], board: tuple[int, int], circles: bool, model: str | None
) -> Alignment:
    """Return the alignment of two cameras from pictures ``(H, W)`` in [0, 1] of a board.

    Args:
        pairs: Infrared and visible pictures.
        board: Inner corners or circles, along a row and along a column.
        circles: Whether the board is a grid of circles.
        model: One of ``MODELS``, None for ``"homography"``.

    Raises:
        ImportError: If OpenCV is not installed.
        ValueError: If no pair shows the board to both cameras.
    """
    try:
        import cv2
    except ImportError as missing:
        raise ImportError("boards need OpenCV: pip install 'fusionblocks[align]'") from missing
    if len(board) != 2 or any(not isinstance(n, int) or isinstance(n, bool) or n < 2 for n in board):
        raise ValueError(f"board must be two integers of at least 2, points along a row and a column, got {board!r}")
    views: list[tuple[np.ndarray, np.ndarray]] = []
    for pair in pairs:
        here, there = (_found(cv2, picture, board, circles) for picture in pair)
        if here is not None and there is not None:
            views.append((here, there))
    if not views:
        kind = "grid of circles" if circles else "chessboard"
        raise ValueError(f"no pair shows a {kind} of {board[0]}x{board[1]} points to both cameras, of {len(pairs)}")
    sizes = [(picture.shape[0], picture.shape[1]) for picture in pairs[0]]
    lenses: list[Lens | None] = [None, None]
    if len(views) >= LEAST_VIEWS:
        lenses = [_calibrated(cv2, [view[i] for view in views], board, sizes[i]) for i in (0, 1)]
    straight = [
        np.concatenate([view[i] if lens is None else lens.straighten(view[i]) for view in views])
        for i, lens in enumerate(lenses)
    ]
    points = np.concatenate(straight, axis=1)
    model = model or "homography"
    matrix = fit(points, model)
    error = left_out(points[:: max(1, len(points) // 40)], model)
    return Alignment(
        matrix,
        sizes[0],
        sizes[1],
        error=error / math.sqrt(len(views)),
        reliable=error < 0.01 * max(sizes[1]),
        model=model,
        infrared_lens=lenses[0],
        visible_lens=lenses[1],
    )


def _found(cv2: Any, picture: np.ndarray, board: tuple[int, int], circles: bool) -> np.ndarray | None:
    """Return the board's points ``(N, 2)`` in their order, None if they are not all seen."""
    gray = np.rint(255 * picture).astype(np.uint8)
    for image in (gray, 255 - gray):  # what is warm may be dark to the eye
        if circles:
            seen, points = cv2.findCirclesGrid(image, board, flags=cv2.CALIB_CB_SYMMETRIC_GRID)
        else:
            seen, points = cv2.findChessboardCornersSB(image, board, flags=cv2.CALIB_CB_ACCURACY)
        if seen:
            return _ordered(points.reshape(-1, 2).astype(np.float64), board)
    return None


def _ordered(points: np.ndarray, board: tuple[int, int]) -> np.ndarray:
    """Return points that begin at the upper left, whichever way the board was read: cameras of a rig stand alike."""
    grid = points.reshape(board[1], board[0], 2)
    if grid[:, -1, 0].mean() < grid[:, 0, 0].mean():
        grid = grid[:, ::-1]
    if grid[-1, :, 1].mean() < grid[0, :, 1].mean():
        grid = grid[::-1]
    return grid.reshape(-1, 2)


def _calibrated(cv2: Any, views: list[np.ndarray], board: tuple[int, int], size: tuple[int, int]) -> Lens:
    plane = np.zeros((board[0] * board[1], 3), np.float32)
    plane[:, :2] = np.stack(np.meshgrid(np.arange(board[0]), np.arange(board[1])), -1).reshape(-1, 2)
    corners = [view.astype(np.float32)[:, None] for view in views]
    flags = cv2.CALIB_FIX_K3 | cv2.CALIB_ZERO_TANGENT_DIST
    _, camera, distortion, _, _ = cv2.calibrateCamera(
        [plane] * len(views), corners, (size[1], size[0]), None, None, flags=flags
    )
    return Lens(camera, distortion.reshape(-1)[:5])
