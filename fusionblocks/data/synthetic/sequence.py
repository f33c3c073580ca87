"""A synthetic scene that somebody walks through, seen by both cameras frame by frame."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal, NamedTuple

import numpy as np

from fusionblocks._support.checks import check_number, check_whole
from fusionblocks.data.synthetic.places import walker
from fusionblocks.data.synthetic.rig import RigPair, centikelvin
from fusionblocks.data.synthetic.scenes import MINIMUM_SIZE, draw_stage, render

DEPTH = 9.0
"""Metres from the camera at which the walker crosses."""
STEP = 0.7
"""Metres that a step takes."""


class SyntheticSequence(NamedTuple):
    """What :func:`synthetic_sequence` returns.

    Args:
        pairs: What both cameras took, frame by frame; they are aligned.
        moving: ``(T, H, W)`` of booleans: where either picture differs from the first one by more than its noise.
    """

    pairs: list[RigPair]
    moving: np.ndarray


def synthetic_sequence(
    frames: int = 25,
    seed: int = 0,
    *,
    height: int = 240,
    width: int = 320,
    noise: float = 0.01,
    time: Literal["night", "dusk"] = "dusk",
) -> SyntheticSequence:
    """Return a scene that a person enters, crosses and leaves, the infrared pictures in hundredths of a kelvin.

    The first and the last frame are empty, and the camera stands still: what changes besides the walker and the shadow
    is the noise.

    Args:
        frames: How many, at least 3.
        seed: Which scene; the same seed gives the same frames.
        height: Rows, at least 32.
        width: Columns, at least 32.
        noise: Of both sensors, see :func:`synthetic_scene`.
        time: Time of day, see :func:`synthetic_scene`.

    Raises:
        TypeError: If a number has another type.
        ValueError: If a number is out of its range.

    Example:
        >>> from fusionblocks.data import synthetic_sequence
        >>> sequence = synthetic_sequence(3, seed=1, height=48, width=64)
        >>> pair = sequence.pairs[1]
        >>> pair.infrared.shape, pair.infrared.dtype, pair.visible.shape
        ((48, 64), dtype('uint16'), (48, 64, 3))
        >>> sequence.moving.any(axis=(1, 2)).tolist()
        [False, True, False]
    """
    frames, seed = check_whole("frames", frames, 3), check_whole("seed", seed, 0)
    height, width = check_whole("height", height, MINIMUM_SIZE), check_whole("width", width, MINIMUM_SIZE)
    noise = check_number("noise", noise, least=0, most=0.5)
    pairs, moving = [], []
    first = None
    for i in range(frames):
        stage = draw_stage(seed, None, time)
        if 0 < i < frames - 1:
            x, z = stage.camera.place((i - 0.5) / (frames - 2) if frames > 3 else 0.5, DEPTH)
            phase = math.sin(math.pi * x / STEP)
            person = dataclasses.replace(walker(seed), x=x, z=z, stride=0.2 * abs(phase) + 0.04, swing=0.14 * phase)
            stage.people.append(person)
        clean = render(stage, height, width, 0.0, 0.0, np.random.default_rng(0))
        first = clean if first is None else first
        changed = (clean.infrared - first.infrared).abs()[0] + (clean.visible - first.visible).abs().amax(0)
        moving.append((changed > 1 / 255).numpy())
        random = np.random.default_rng([seed, 3, i])
        thermal = clean.infrared[0].numpy() + 0.5 * noise * random.standard_normal((height, width))
        colour = clean.visible.permute(1, 2, 0).numpy() + noise * random.standard_normal((height, width, 3))
        pairs.append(RigPair(centikelvin(thermal), np.rint(255 * colour.clip(0, 1)).astype(np.uint8)))
    return SyntheticSequence(pairs, np.stack(moving))
