"""Alignment of two cameras from what they show: scenes, points, or boards."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fusionblocks._support.names import closest
from fusionblocks.alignment.alignment import Alignment
from fusionblocks.alignment.points import check_points, fit, left_out, read_points, simplest
from fusionblocks.data.pairs import is_list, match_folders
from fusionblocks.image import image_to_array, luma, read_image, thermal_limits
from fusionblocks.image.infrared import values_of
from fusionblocks.image.planar import MODELS, mapped, mean_displacement

MOST_PAIRS = 20
"""Pairs of a rig that are looked at; of more, as many at equal distances."""
SCALES = (0.55, 1.25)
"""The least and the largest scale, in units of that at which both pictures show the same view."""
DEGREES = 7.5
"""The largest turn."""
AGREE = 0.008
"""Mean distance of both halves, as a share of the visible picture's longer side, up to which a map is reliable."""
AGREE_ALONE = 0.006
"""The same of a lone pair, whose halves are parts of one scene and err together."""

Picture = str | os.PathLike[str] | Image.Image | np.ndarray | Tensor


def align(
    infrared: Picture | Sequence[Picture],
    visible: Picture | Sequence[Picture],
    *,
    points: Any = None,
    board: tuple[int, int] | None = None,
    circles: bool = False,
    model: str | None = None,
    scale: float | tuple[float, float] | None = None,
    degrees: float = DEGREES,
    pattern: tuple[str, str] | None = None,
    matcher: str | Callable[..., Any] | None = None,
) -> Alignment:
    """Return how the infrared camera of a rig lies over its visible one.

    From **scenes** (the default): edges that both cameras show, whichever side is brighter, are searched over all
    scales, turns and shifts, and laid on each other by least squares, all pairs at once. Give many pairs of one rig:
    a pair in which one camera sees nothing is no harm then. Both halves of the data are aligned by themselves; where
    they disagree, the result is not ``reliable``. From **points** that both see, four or more. From a **board** with
    warm and cold squares or circles, held into view a few times, which tells the lenses' distortion too.

    Cameras side by side see near things shifted against far ones; no map of pictures can undo that. The result holds
    for the depth at which most of the scene lies.

    Args:
        infrared: A picture (a path, a PIL image, an array ``(H, W)`` or ``(H, W, C)``, or a tensor ``(C, H, W)`` or
            ``(B, C, H, W)``), a folder, or a sequence of pictures, all of one size.
        visible: The same of the visible camera; two folders are matched by :func:`fusionblocks.data.match_folders`.
        points: ``(N, 4)``: infrared x and y, visible x and y, pixel centres at integers; or a CSV file of such rows.
        board: Inner corners of a chessboard, or circles of a grid, a row and a column. Needs OpenCV.
        circles: Whether the board is a grid of circles.
        model: ``"shift"``, ``"similarity"``, ``"affine"`` or ``"homography"``. None takes the simplest that explains
            the points or the pairs.
        scale: Visible pixels for an infrared one, if known: a number (within 20 %) or the least and the largest.
        degrees: The largest turn of one camera against the other that is searched.
        matcher: Find points by a learned matcher instead of searching edges: a name of the package vismatch
            (``"xoftr"`` and ``"minima-roma"`` are made for infrared), whose weights it fetches, or any callable from
            two pictures ``(3, H, W)`` in [0, 1] to points ``(N, 4)``. Needs OpenCV.
        pattern: What the names in two folders look like, with one ``*`` for what they have in common.

    Returns:
        The alignment.

    Raises:
        FileNotFoundError: If a file or a folder does not exist.
        ImportError: If ``board`` or ``matcher`` needs a package that is not installed.
        TypeError: If an argument has another type.
        ValueError: If the pictures of a camera differ in size, their numbers differ, a picture cannot be read, or an
            option is unknown; if no pair shows the board.

    Reference:
        This library's own, of known parts: correlation by Fourier transforms, and Gauss-Newton as in "An Iterative
        Image Registration Technique with an Application to Stereo Vision", 1981.

    Example:
        >>> import fusionblocks as fb
        >>> scene = fb.data.synthetic_scene(10, height=120, width=160)
        >>> rig = fb.align(scene.infrared[:, 4:, 6:], scene.visible)
        >>> bool(abs(rig.map([[80, 60]]) - [[86, 64]]).max() < 2)
        True
    """
    if model is not None and model not in MODELS:
        raise ValueError(f"unknown model {model!r}{closest(str(model), list(MODELS))}; known: {', '.join(MODELS)}")
    given = [
        name for name, value in {"points": points, "board": board, "matcher": matcher}.items() if value is not None
    ]
    if len(given) > 1:
        raise ValueError(f"{' and '.join(given)} exclude each other")
    pairs = pairs_of(infrared, visible, pattern)
    if points is None and board is None and len(pairs) > MOST_PAIRS:
        pairs = [pairs[round(i)] for i in np.linspace(0, len(pairs) - 1, MOST_PAIRS)]
    sizes = _sizes(pairs, all_pairs=points is None)
    if points is not None:
        return _from_points(read_points(points) if isinstance(points, str | os.PathLike) else points, sizes, model)
    if board is not None:
        from fusionblocks.alignment.board import from_board

        gray = [(gray_picture("infrared", a, thermal=True), gray_picture("visible", b)) for a, b in pairs]
        return from_board(gray, board, circles, model)
    if matcher is not None:
        from fusionblocks.alignment.matchers import from_matches

        gray = [(gray_picture("infrared", a, thermal=True), gray_picture("visible", b)) for a, b in pairs]
        return from_matches(gray, matcher, model)
    return _from_scenes(pairs, sizes, model, scale, degrees)


def _from_points(points: Any, sizes: tuple[tuple[int, int], tuple[int, int]], model: str | None) -> Alignment:
    points = check_points(points)
    chosen = model or simplest(points)
    matrix = fit(points, chosen)
    error = left_out(points, chosen)
    if not math.isfinite(error):  # no point is left over
        residual = np.linalg.norm(mapped(matrix, points[:, :2]) - points[:, 2:], axis=1)
        error = math.nan if residual.max() < 1e-6 else float(residual.mean())
    # a map is nearer to the truth than one point of many is
    reliable = math.isnan(error) or error < AGREE * max(sizes[1])
    return Alignment(matrix, *sizes, error=error / math.sqrt(max(len(points) / 4, 1)), reliable=reliable, model=chosen)


def _from_scenes(
    pairs: list[tuple[Any, Any]],
    sizes: tuple[tuple[int, int], tuple[int, int]],
    model: str | None,
    scale: float | tuple[float, float] | None,
    degrees: float,
) -> Alignment:
    from fusionblocks.alignment.scenes import estimate

    if not isinstance(degrees, int | float) or isinstance(degrees, bool) or not 0 <= degrees <= 45:
        raise ValueError(f"degrees must be a number from 0 to 45, got {degrees!r}")
    infrared = torch.stack([torch.from_numpy(gray_picture("infrared", a, thermal=True)) for a, _ in pairs])[:, None]
    visible = torch.stack([torch.from_numpy(gray_picture("visible", b)) for _, b in pairs])[:, None]
    if min(*sizes[0], *sizes[1]) < 32:
        raise ValueError(f"pictures must be at least 32x32 to be aligned, got {sizes[0]} and {sizes[1]}")
    same_view = max(sizes[1][1] / sizes[0][1], sizes[1][0] / sizes[0][0])
    scales = _scales(scale, same_view)
    with torch.inference_mode():
        found = estimate(infrared, visible, model=model, scales=scales, same_view=same_view, degrees=float(degrees))
    apart = mean_displacement(*found.halves, *sizes)
    return Alignment(
        found.matrix,
        *sizes,
        # either half has half the data, so the whole is nearer to the truth than they are to each other
        error=apart / 2 if math.isfinite(apart) else math.inf,
        reliable=bool(apart <= (AGREE if len(pairs) > 1 else AGREE_ALONE) * max(sizes[1])),
        model=found.model,
    )


def _scales(scale: float | tuple[float, float] | None, same_view: float) -> tuple[float, float]:
    if scale is None:
        return SCALES[0] * same_view, SCALES[1] * same_view
    low, high = (0.8 * scale, 1.25 * scale) if isinstance(scale, int | float) else scale
    if not (math.isfinite(low) and math.isfinite(high) and 0 < low <= high):
        raise ValueError(f"scale must be a positive number or two, the first not above the second, got {scale!r}")
    return float(low), float(high)


def pairs_of(infrared: Any, visible: Any, pattern: tuple[str, str] | None = None) -> list[tuple[Any, Any]]:
    """Return the pairs that were given in any form."""
    paths = [Path(x) if isinstance(x, str | os.PathLike) else None for x in (infrared, visible)]
    folders = [path is not None and (path.is_dir() or is_list(path)) for path in paths]
    if all(folders):
        groups = match_folders({"infrared": infrared, "visible": visible}, pattern=pattern).groups
        pairs = [(group.files["infrared"], group.files["visible"]) for group in groups]
        if not pairs:
            raise ValueError(f"no names are common to {infrared} and {visible}")
        return pairs
    if any(folders):
        raise ValueError("infrared and visible must both be folders, or neither")
    lists = [_pictures(name, x) for name, x in (("infrared", infrared), ("visible", visible))]
    if len(lists[0]) != len(lists[1]):
        raise ValueError(f"infrared and visible must be equally many, got {len(lists[0])} and {len(lists[1])} pictures")
    if not lists[0]:
        raise ValueError("infrared and visible must hold at least one picture each")
    return list(zip(*lists, strict=True))


def _pictures(name: str, x: Any) -> list[Any]:
    if isinstance(x, Tensor) and x.ndim == 4:
        return list(x)
    if isinstance(x, str | os.PathLike | Image.Image | np.ndarray | Tensor):
        return [x]
    if isinstance(x, Sequence):
        return list(x)
    raise TypeError(f"{name} must be a picture, a folder or a sequence of pictures, got {type(x).__name__}")


def _sizes(pairs: list[tuple[Any, Any]], *, all_pairs: bool) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the size of each camera's pictures, which all have."""
    sizes = []
    for i, name in enumerate(("infrared", "visible")):
        found = [_size_of(name, pair[i]) for pair in (pairs if all_pairs else pairs[:1])]
        other = next((size for size in found if size != found[0]), None)
        if other is not None:
            raise ValueError(
                f"the {name} pictures of a rig must have one size, got {found[0][0]}x{found[0][1]} and "
                f"{other[0]}x{other[1]} (height x width)"
            )
        sizes.append(found[0])
    return sizes[0], sizes[1]


def _size_of(name: str, picture: Any) -> tuple[int, int]:
    if isinstance(picture, Tensor):
        if picture.ndim != 3:
            raise ValueError(f"{name} must have shape (C, H, W) or (B, C, H, W), got {tuple(picture.shape)}")
        return int(picture.shape[1]), int(picture.shape[2])
    array = _array(name, picture)
    return int(array.shape[0]), int(array.shape[1])


def _array(name: str, picture: Any) -> np.ndarray:
    if name == "infrared":
        picture = values_of(name, picture)
    elif isinstance(picture, str | os.PathLike):
        picture = read_image(picture)
    elif isinstance(picture, Image.Image):
        picture = image_to_array(picture, name)
    if not isinstance(picture, np.ndarray):
        raise TypeError(f"{name} must be a path, a PIL image, an array or a tensor, got {type(picture).__name__}")
    if picture.ndim not in (2, 3) or 0 in picture.shape or picture.shape[2:] not in ((), (1,), (3,)):
        raise ValueError(f"{name} must have shape (H, W) or (H, W, C) with 1 or 3 channels, got {picture.shape}")
    return picture


def gray_picture(name: str, picture: Any, *, thermal: bool = False) -> np.ndarray:
    """Return a picture's luma as ``(H, W)`` float32, stretched to about [0, 1] whatever its unit."""
    if isinstance(picture, Tensor):
        array, planes = None, picture.detach().cpu().double()
    else:
        array = _array(name, picture)
        layers = array[..., None] if array.ndim == 2 else array
        planes = torch.from_numpy(np.ascontiguousarray(layers.transpose(2, 0, 1)).astype(np.float64))
    gray = (luma(planes[None])[0, 0] if planes.shape[0] == 3 else planes[0]).numpy()
    known = np.isfinite(gray)
    if not known.any():
        return np.zeros(gray.shape, np.float32)
    if thermal and array is not None and array.dtype == np.uint16:
        low, high = thermal_limits(array)
    else:
        low, high = np.percentile(gray[known], (0.5, 99.5))
    gray = np.where(known, gray, (low + high) / 2)
    return np.clip((gray - low) / max(high - low, 1e-12), 0, 1).astype(np.float32)
