"""Synthetic aligned infrared-visible scenes: rendered, seeded, labelled, free of any licence but the project's own."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fusionblocks._support.checks import check_number, check_whole
from fusionblocks.data.synthetic import optics
from fusionblocks.data.synthetic.canvas import CLASS_NAMES, Array, Canvas, Texture
from fusionblocks.data.synthetic.places import Stage, cast_shadows, street, yard

__all__ = ["CLASS_NAMES", "SyntheticScene", "synthetic_scene"]

MINIMUM_SIZE = 32
LAYOUTS = {"street": street, "yard": yard}
TIMES = ("night", "dusk")


class SyntheticScene(NamedTuple):
    """An aligned pair and its semantic mask.

    Attributes:
        infrared: The thermal image, ``(1, H, W)`` float32 in [0, 1], white is hot.
        visible: The colour image, ``(3, H, W)`` float32 RGB in [0, 1].
        mask: The class of each pixel, ``(H, W)`` int64, an index into ``CLASS_NAMES``.
    """

    infrared: Tensor
    visible: Tensor
    mask: Tensor


def synthetic_scene(
    seed: int = 0,
    *,
    height: int = 480,
    width: int = 640,
    haze: float = 0.0,
    noise: float = 0.02,
    layout: Literal["street", "yard"] | None = None,
    time: Literal["night", "dusk"] | None = None,
) -> SyntheticScene:
    """Render a believable aligned infrared-visible pair of a street or a yard, with its semantic mask.

    The visible image has what only light shows: lettering, lane marks, brick and window panes, coloured signs, but also
    glare, darkness and haze. The infrared image has what only heat shows: people, engines, tyres and heated windows,
    but hardly any texture. One seed gives one scene at every size.

    Args:
        seed: Which scene, a whole number from 0. The global random state is neither used nor changed.
        height: Rows of both images, at least 32.
        width: Columns of both images, at least 32.
        haze: Density of the haze, from 0 (clear) to 1 (contrast falls to a tenth within 26 metres). It veils the
            visible image by the atmospheric scattering model and hardly touches the infrared one.
        noise: Standard deviation of the visible sensor's noise in mid-tones, in [0, 0.5]; it nearly doubles in the
            dark. The infrared sensor has half of it, with column and row stripes.
        layout: ``"street"`` or ``"yard"``; None lets the seed choose.
        time: ``"night"`` or ``"dusk"``; None lets the seed choose.

    Returns:
        The named tuple ``(infrared, visible, mask)``, without a batch dimension.

    Raises:
        TypeError: If ``seed``, ``height`` or ``width`` is not an integer, or ``haze`` or ``noise`` is not a number.
        ValueError: If an argument lies outside its range or names an unknown layout or time.

    Example:
        >>> from fusionblocks.data import CLASS_NAMES, synthetic_scene
        >>> scene = synthetic_scene(seed=3, height=48, width=64)
        >>> scene.infrared.shape, scene.visible.shape, scene.mask.shape
        (torch.Size([1, 48, 64]), torch.Size([3, 48, 64]), torch.Size([48, 64]))
        >>> CLASS_NAMES[int(scene.mask[0, 0])] in ("sky", "building", "vegetation", "window")
        True
    """
    seed = check_whole("seed", seed, 0)
    height, width = check_whole("height", height, MINIMUM_SIZE), check_whole("width", width, MINIMUM_SIZE)
    haze, noise = check_number("haze", haze, least=0, most=1), check_number("noise", noise, least=0, most=0.5)
    for name, value, known in (("layout", layout, tuple(LAYOUTS)), ("time", time, TIMES)):
        if value is not None and value not in known:
            raise ValueError(f"{name} must be one of {', '.join(map(repr, known))} or None, got {value!r}")

    stage = draw_stage(seed, layout, time)
    return render(stage, height, width, haze, noise, np.random.default_rng([seed, 2]))


def draw_stage(seed: int, layout: str | None, time: str | None) -> Stage:
    """Return the layout that a seed draws."""
    layout_rng = np.random.default_rng([seed, 1])
    # Draw both choices always, so that naming the seed's own choice changes nothing.
    drawn_layout = "street" if layout_rng.random() < 0.65 else "yard"
    drawn_dusk = bool(layout_rng.random() < 0.25)
    textures = (Texture(layout_rng, 0.55), Texture(layout_rng, 1.5), Texture(layout_rng, 0.9))
    dusk = drawn_dusk if time is None else time == "dusk"
    return LAYOUTS[layout or drawn_layout](layout_rng, textures, dusk)


def render(
    stage: Stage, height: int, width: int, haze: float, noise: float, sensor_rng: np.random.Generator
) -> SyntheticScene:
    """Return a picture of a layout by both cameras."""
    # Surfaces are rendered finer than the picture and averaged, which smooths every edge.
    factor = 2 if height * width > 160 * 120 else 4
    canvas = Canvas(height * factor, width * factor, stage.camera)
    lights = stage.paint(canvas)
    cast_shadows(canvas, stage.people, lights)
    linear = optics.illuminate(canvas, lights, stage.ambient)
    for person in sorted(stage.people, key=lambda person: -person.z):
        person.paint(canvas, linear)

    frame = Canvas(height, width, stage.camera)
    depth = optics.pool(canvas.depth, factor)
    visible = _visible(
        optics.pool(linear, factor), canvas, frame, depth, factor, lights, haze, stage.air, stage.exposure
    )
    infrared = _infrared(optics.pool(canvas.thermal, factor), depth, frame, haze)
    visible = optics.visible_noise(sensor_rng, visible, noise)
    infrared = optics.infrared_noise(sensor_rng, infrared, noise)
    mask = optics.labels(canvas.label, factor)
    return SyntheticScene(
        torch.from_numpy(np.clip(infrared, 0, 1)[None].astype(np.float32)),
        torch.from_numpy(np.clip(visible, 0, 1).astype(np.float32)),
        torch.from_numpy(mask),
    )


def _visible(
    linear: Array,
    canvas: Canvas,
    frame: Canvas,
    depth: Array,
    factor: int,
    lights: list[optics.Light],
    haze: float,
    air: tuple[float, float, float],
    exposure: float,
) -> Array:
    wet = optics.pool(canvas.wet, factor)
    optics.reflect(linear, wet, canvas.label[::factor, ::factor], frame, lights)
    linear = optics.veil(linear, depth, frame, lights, haze, air)
    optics.glare(linear, depth, frame, lights, haze)
    bloom = optics.blur(np.minimum(linear, 2.0), max(2.0, 0.02 * frame.frame))
    linear = 0.93 * linear + 0.07 * bloom
    return optics.tone(optics.blur(linear, 0.4), exposure)


def _infrared(thermal: Array, depth: Array, frame: Canvas, haze: float) -> Array:
    through = np.exp(-(0.0008 + 0.004 * haze) * np.minimum(depth, 90.0))
    thermal = 0.2 + (thermal - 0.2) * through
    return optics.blur(thermal, max(0.4, 0.0017 * frame.frame))
