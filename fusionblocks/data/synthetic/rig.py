"""A thermal and a colour camera side by side, with other views, resolutions and lenses, and what is true about them."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
import torch

from fusionblocks._support.checks import check_number, check_whole
from fusionblocks.data.synthetic.scenes import synthetic_scene
from fusionblocks.image.filters import gaussian_blur
from fusionblocks.image.lens import Lens
from fusionblocks.image.planar import mapped, similarity

COLDEST, SPAN = 5.0, 40.0
"""Degrees Celsius at the scene's darkest infrared, and up to its brightest."""
ZERO = 273.15


class RigPair(NamedTuple):
    """One pair of a :class:`SyntheticRig`.

    Args:
        infrared: Hundredths of a kelvin, ``(h, w)`` uint16, as radiometric cameras write them.
        visible: RGB ``(H, W, 3)`` uint8.
    """

    infrared: np.ndarray
    visible: np.ndarray


class SyntheticRig(NamedTuple):
    """What :func:`synthetic_rig` returns.

    Args:
        pairs: What both cameras took, scene by scene.
        matrix: ``(3, 3)``: from infrared to visible pixels ``(x, y)``, between ideal pinhole cameras where there are
            lenses.
        infrared_lens: The infrared camera's distortion, or None.
        visible_lens: The visible camera's distortion, or None.
    """

    pairs: list[RigPair]
    matrix: np.ndarray
    infrared_lens: Lens | None
    visible_lens: Lens | None


def synthetic_rig(
    count: int = 5,
    seed: int = 0,
    *,
    infrared_size: tuple[int, int] = (120, 160),
    visible_size: tuple[int, int] = (240, 320),
    view: float = 0.75,
    degrees: float = 1.5,
    shift: tuple[float, float] = (0.03, -0.02),
    distortion: float = 0.0,
    noise: float = 0.05,
    time: Literal["night", "dusk"] = "dusk",
) -> SyntheticRig:
    """Return pairs of two cameras that are not aligned, and the exact map between them.

    The infrared camera has its own resolution and sees the middle of the visible one's view, a little turned and moved.
    There is no parallax: everything is far away.

    Args:
        count: How many scenes.
        seed: The first scene's seed; the same seed gives the same pairs.
        infrared_size: Height and width of the infrared pictures.
        visible_size: Height and width of the visible pictures.
        view: Share of the visible picture's width that the infrared camera sees, above 0.1.
        degrees: Turn of the infrared camera.
        shift: How far the middle of its view lies from the visible one's, as shares of the visible width and height.
        distortion: Barrel distortion of both lenses, ``-k1`` of :class:`~fusionblocks.image.Lens`; 0 for none.
        noise: Of both sensors, see :func:`synthetic_scene`.
        time: Time of day, see :func:`synthetic_scene`.

    Returns:
        The pairs, the matrix and the lenses.

    Raises:
        TypeError: If a number has another type.
        ValueError: If a number is out of its range.

    Example:
        >>> from fusionblocks.data import synthetic_rig
        >>> rig = synthetic_rig(1, infrared_size=(60, 80), visible_size=(120, 160))
        >>> rig.pairs[0].infrared.shape, rig.pairs[0].infrared.dtype, rig.pairs[0].visible.shape
        ((60, 80), dtype('uint16'), (120, 160, 3))
    """
    count = check_whole("count", count, 1)
    view = check_number("view", view, least=0, most=1.5)
    if view < 0.1:
        raise ValueError(f"view must be at least 0.1, got {view}")
    (height, width), (full_height, full_width) = infrared_size, visible_size
    middle = ((full_width - 1) / 2, (full_height - 1) / 2)
    scale = view * full_width / width
    matrix = similarity(scale, degrees, (0, 0), (0, 0))
    goal = np.add(middle, np.multiply(shift, (full_width, full_height)))
    matrix[:2, 2] = goal - matrix[:2, :2] @ [(width - 1) / 2, (height - 1) / 2]
    lenses = [_lens(size, distortion) for size in (infrared_size, visible_size)]
    pairs = []
    for i in range(count):
        # drawn larger, so that what a camera sees is as sharp as its pixels
        scene = synthetic_scene(seed + i, height=2 * full_height, width=2 * full_width, noise=0.0, time=time)
        random = np.random.default_rng((seed + i, 1))
        there = _ideal(infrared_size, lenses[0])
        thermal = _seen(scene.infrared, mapped(matrix, there), infrared_size, scale, visible_size)
        colour = _seen(scene.visible, _ideal(visible_size, lenses[1]), visible_size, 1.0, visible_size)
        thermal = thermal[..., 0] + noise * 0.1 * random.standard_normal(infrared_size)
        colour = colour + noise * 0.2 * random.standard_normal(colour.shape)
        pairs.append(RigPair(centikelvin(thermal), np.rint(255 * colour.clip(0, 1)).astype(np.uint8)))
    return SyntheticRig(pairs, matrix, lenses[0], lenses[1])


def centikelvin(thermal: np.ndarray) -> np.ndarray:
    """Return an infrared picture in [0, 1] as hundredths of a kelvin, uint16."""
    return np.rint(100 * (ZERO + COLDEST + SPAN * thermal)).clip(0, 65535).astype(np.uint16)


def _lens(size: tuple[int, int], distortion: float) -> Lens | None:
    if distortion == 0:
        return None
    height, width = size
    focal = 0.9 * width
    camera = np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]])
    return Lens(camera, (-distortion, 0, 0, 0, 0))


def _ideal(size: tuple[int, int], lens: Lens | None) -> np.ndarray:
    """Return where the pixels of a real picture lie in that of an ideal pinhole camera, ``(H W, 2)``."""
    grid = np.stack(np.meshgrid(np.arange(size[1]), np.arange(size[0])), -1).reshape(-1, 2).astype(np.float64)
    return grid if lens is None else lens.straighten(grid)


def _seen(
    scene: torch.Tensor, places: np.ndarray, size: tuple[int, int], pixel: float, full: tuple[int, int]
) -> np.ndarray:
    """Return what pixels see of a scene that is drawn at twice the visible size, ``(H, W, C)``.

    Args:
        scene: ``(C, 2 H, 2 W)``.
        places: Where the pixels' centres lie, in visible pixels, ``(N, 2)``.
        size: Height and width of the picture.
        pixel: Side of a pixel, in visible pixels.
        full: Height and width of the visible picture.
    """
    sharp = gaussian_blur(scene[None].double(), max(0.8 * pixel, 0.5))
    sides = torch.tensor([full[1], full[0]], dtype=torch.float64)
    # visible pixel centres to grid coordinates of the drawn scene, whose corners are the visible picture's
    grid = 2 * (torch.from_numpy(places) + 0.5) / sides - 1
    sampled = torch.nn.functional.grid_sample(
        sharp, grid.reshape(1, *size, 2), mode="bilinear", padding_mode="reflection", align_corners=False
    )
    return sampled[0].numpy().transpose(1, 2, 0)
