"""A small deferred renderer: camera, surface buffers, upright panels, the ground plane and procedural noise.

World coordinates are metres: ``x`` to the right, ``y`` up from the ground, ``z`` along the street. The camera stands at
``(0, eye, 0)``, turned by ``yaw`` about the vertical, so an upright plane has one depth for each picture column.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Colour = tuple[float, float, float]

SKY_DEPTH = 400.0  # metres; also the far end of the ground
#: Names of the classes in a scene's semantic mask, by their number.
CLASS_NAMES = ("ground", "sky", "building", "window", "sign", "vegetation", "lamp", "car", "person")
GROUND, SKY, BUILDING, WINDOW, SIGN, VEGETATION, LAMP, CAR, PERSON = range(len(CLASS_NAMES))


@dataclass(frozen=True)
class Camera:
    """Pinhole whose lens is shifted, not tilted: verticals stay vertical; ``horizon``, ``focal`` in frame heights."""

    eye: float
    yaw: float
    horizon: float
    focal: float = 1.05

    def place(self, across: float, depth: float) -> tuple[float, float]:
        """World ``(x, z)`` of the point at a fraction ``across`` the nominal frame and ``depth`` metres away."""
        x = (across - 0.5) * (4 / 3) / self.focal
        c, s = math.cos(self.yaw), math.sin(self.yaw)
        return depth * (c * x + s), depth * (c - s * x)

    def project(self, x: float, y: float, z: float) -> tuple[float, float, float]:
        """Offset from the picture's centre column, offset below the horizon (frame heights), and depth of a point."""
        c, s = math.cos(self.yaw), math.sin(self.yaw)
        depth = s * x + c * z
        safe = max(depth, 1e-3)
        return self.focal * (c * x - s * z) / safe, self.focal * (self.eye - y) / safe, depth


class Patch(NamedTuple):
    """What a panel shows: where it covers, and the surface there (fields broadcast over the panel's window)."""

    cover: Array
    albedo: Array | float
    thermal: Array | float
    label: Array | int
    emission: Array | float = 0.0


class Window(NamedTuple):
    """The part of the picture that a panel can cover, with the panel's own coordinates there."""

    rows: slice
    columns: slice
    u: Array  # (1, w) metres along the panel
    v: Array  # (h, w) metres above the ground
    depth: Array  # (1, w) metres from the camera
    pixel: Array  # (1, w) metres that one pixel spans


def colour(values: Colour | tuple[float, ...]) -> Array:
    """A colour as ``(3, 1, 1)``, to broadcast over a window."""
    return np.asarray(values, np.float32).reshape(3, 1, 1)


class Canvas:
    """Surface buffers of one picture: depth, albedo, emission, temperature, normal, class, wetness and shadow."""

    def __init__(self, height: int, width: int, camera: Camera) -> None:
        self.height, self.width, self.camera = height, width, camera
        self.frame = min(height, 0.75 * width)  # the nominal 4:3 frame that always fits
        self.focal = camera.focal * self.frame
        self.centre = width / 2
        self.horizon = height / 2 + (camera.horizon - 0.5) * self.frame
        self.down = ((np.arange(height) + 0.5 - self.horizon) / self.focal).astype(np.float32)[:, None]
        x = ((np.arange(width) + 0.5 - self.centre) / self.focal).astype(np.float32)[None, :]
        c, s = math.cos(camera.yaw), math.sin(camera.yaw)
        self.ray_x, self.ray_z = c * x + s, c - s * x
        self.depth = np.full((height, width), SKY_DEPTH, np.float32)
        self.albedo = np.zeros((3, height, width), np.float32)
        self.emission = np.zeros((3, height, width), np.float32)
        self.thermal = np.zeros((height, width), np.float32)
        self.normal = np.zeros((3, height, width), np.float32)
        self.label = np.full((height, width), SKY, np.uint8)
        self.wet = np.zeros((height, width), np.float32)
        self.shade = np.ones((height, width), np.float32)

    def window(self, axis: str, at: float, u: tuple[float, float], v: tuple[float, float]) -> Window | None:
        """The window of the upright panel ``z = at`` (axis ``"z"``, u is x) or ``x = at`` (axis ``"x"``, u is z)."""
        across, along = (self.ray_z, self.ray_x) if axis == "z" else (self.ray_x, self.ray_z)
        with np.errstate(divide="ignore", invalid="ignore"):
            depth = at / across
            where = along * depth
        columns = np.flatnonzero((depth[0] > 0.5) & (depth[0] < SKY_DEPTH) & (where[0] >= u[0]) & (where[0] <= u[1]))
        if columns.size == 0:
            return None
        span = slice(int(columns[0]), int(columns[-1]) + 1)
        depth, where = depth[:, span], where[:, span]
        near, far = float(depth.min()), float(depth.max())
        ends = [self.horizon + self.focal * (self.camera.eye - h) / d for h in v for d in (near, far)]
        rows = slice(max(0, math.floor(min(ends))), min(self.height, math.ceil(max(ends)) + 1))
        if rows.start >= rows.stop:
            return None
        heights = self.camera.eye - self.down[rows] * depth
        return Window(rows, span, where, heights, depth, depth / self.focal)

    def panel(
        self,
        axis: str,
        at: float,
        u: tuple[float, float],
        v: tuple[float, float],
        paint: Callable[[Array, Array, Array], Patch],
        origin: float | None = None,
        mirror: bool = False,
    ) -> None:
        """Paint an upright panel where it is nearer than what stands there.

        ``paint(u, v, pixel)`` gets ``u`` measured from ``origin`` (default: the panel's start; its end if ``mirror``).
        """
        window = self.window(axis, at, u, v)
        if window is None:
            return
        rows, columns, where, heights, depth, pixel = window
        start = origin if origin is not None else (u[1] if mirror else u[0])
        patch = paint(start - where if mirror else where - start, heights, pixel)
        inside = patch.cover & (heights >= v[0]) & (heights <= v[1]) & (depth < self.depth[rows, columns])
        np.copyto(self.depth[rows, columns], depth, where=inside)
        np.copyto(self.albedo[:, rows, columns], np.asarray(patch.albedo, np.float32), where=inside)
        np.copyto(self.emission[:, rows, columns], np.asarray(patch.emission, np.float32), where=inside)
        np.copyto(self.thermal[rows, columns], np.asarray(patch.thermal, np.float32), where=inside)
        np.copyto(self.label[rows, columns], np.asarray(patch.label, np.uint8), where=inside)
        facing = (0.0, 0.0, -1.0) if axis == "z" else (-math.copysign(1.0, at), 0.0, 0.0)
        np.copyto(self.normal[:, rows, columns], colour(facing), where=inside)
        self.wet[rows, columns][inside] = 0.0
        self.shade[rows, columns][inside] = 1.0

    def level(
        self, y: float, x: tuple[float, float], z: tuple[float, float], albedo: Array, thermal: float, label: int
    ) -> None:
        """Paint a level surface below the eye, such as the roof of a car."""
        if self.camera.eye <= y:
            return
        depth = (self.camera.eye - y) / np.maximum(self.down, 1e-4)
        near, far = (pick(self.camera.project(a, y, b)[2] for a in x for b in z) for pick in (min, max))
        rows = np.flatnonzero((depth[:, 0] > max(near, 0.5)) & (depth[:, 0] < far))
        if rows.size == 0:
            return
        span = slice(int(rows[0]), int(rows[-1]) + 1)
        depth = depth[span]
        across, along = depth * self.ray_x, depth * self.ray_z
        inside = (across > x[0]) & (across < x[1]) & (along > z[0]) & (along < z[1]) & (depth < self.depth[span])
        np.copyto(self.depth[span], depth, where=inside)
        np.copyto(self.albedo[:, span], albedo, where=inside)
        np.copyto(self.thermal[span], np.float32(thermal), where=inside)
        np.copyto(self.label[span], np.uint8(label), where=inside)
        np.copyto(self.normal[:, span], colour((0.0, 1.0, 0.0)), where=inside)
        for flat, value in ((self.emission, 0.0), (self.wet, 0.0), (self.shade, 1.0)):
            np.copyto(flat[..., span, :], np.float32(value), where=inside)

    def ground_rows(self, near: float = 0.0, far: float = SKY_DEPTH) -> slice:
        """Rows that show the ground between two depths."""
        top = self.horizon + self.focal * self.camera.eye / max(far, 1e-3)
        bottom = self.height if near <= 0 else self.horizon + self.focal * self.camera.eye / near
        return slice(min(self.height, max(0, math.ceil(top))), min(self.height, max(0, math.ceil(bottom) + 1)))

    def ground(self, rows: slice) -> tuple[Array, Array, Array]:
        """World ``x`` and ``z`` of the ground seen in these rows, ``(h, W)``, and its depth ``(h, 1)``."""
        depth = self.camera.eye / np.maximum(self.down[rows], 1e-4)
        return depth * self.ray_x, depth * self.ray_z, depth

    def shadow(self, x: float, z: float, radius: float, strength: float, toward: tuple[float, float] = (0, 0)) -> None:
        """Darken the ground softly along the segment from ``(x, z)`` to ``(x, z) + toward``."""
        depth = self.camera.project(x, 0.0, z)[2]
        reach = 3 * radius + math.hypot(*toward)
        rows = self.ground_rows(max(0.5, depth - reach), depth + reach)
        if rows.start >= rows.stop:
            return
        gx, gz, _ = self.ground(rows)
        gx, gz = gx - x, gz - z
        square = toward[0] ** 2 + toward[1] ** 2
        along = np.clip((gx * toward[0] + gz * toward[1]) / square, 0, 1) if square else np.zeros_like(gx)
        distance = (gx - along * toward[0]) ** 2 + (gz - along * toward[1]) ** 2
        dark = strength * (1 - 0.7 * along) * np.exp(-distance / (radius * (1 + along)) ** 2)
        self.shade[rows] *= np.where(self.label[rows] == GROUND, 1 - dark, 1)


class Texture:
    """Periodic fractal noise of zero mean and unit deviation, looked up at world coordinates."""

    def __init__(self, rng: np.random.Generator, slope: float, size: int = 256) -> None:
        frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None, :])
        frequency[0, 0] = 1.0
        spectrum = np.fft.rfft2(rng.standard_normal((size, size))) / frequency**slope
        spectrum[0, 0] = 0.0
        tile = np.fft.irfft2(spectrum, s=(size, size))
        self.tile = np.clip(tile / tile.std(), -2.5, 2.5).astype(np.float32)
        self.size = size

    def __call__(self, u: Array, v: Array, cell: float) -> Array:
        """Bilinear noise with ``cell`` metres between its grid points."""
        p = np.asarray(u, np.float32) / np.float32(cell) + np.float32(16 * self.size)
        q = np.asarray(v, np.float32) / np.float32(cell) + np.float32(16 * self.size)
        i, j = p.astype(np.int32), q.astype(np.int32)
        p, q = p - i, q - j
        mask = self.size - 1
        flat, left, row0, row1 = self.tile.ravel(), i & mask, (j & mask) * self.size, ((j + 1) & mask) * self.size
        right = (i + 1) & mask
        a, c = flat.take(row0 + left), flat.take(row1 + left)
        top = a + (flat.take(row0 + right) - a) * p
        low = c + (flat.take(row1 + right) - c) * p
        return top + (low - top) * q

    def pick(self, i: Array, j: Array) -> Array:
        """One value for each pair of whole numbers (brick, slab or window)."""
        return self.tile[j.astype(np.int32) & (self.size - 1), i.astype(np.int32) & (self.size - 1)]


def capsule(u: Array, v: Array, a: tuple[float, float], b: tuple[float, float], ra: float, rb: float) -> Array:
    """Signed distance to a limb from ``a`` to ``b`` whose radius goes from ``ra`` to ``rb``."""
    du, dv = b[0] - a[0], b[1] - a[1]
    along = np.clip(((u - a[0]) * du + (v - a[1]) * dv) / max(du * du + dv * dv, 1e-9), 0, 1)
    return np.hypot(u - a[0] - along * du, v - a[1] - along * dv) - (ra + (rb - ra) * along)


def box(u: Array, v: Array, half_u: float, half_v: float, corner: float = 0.0) -> Array:
    """Signed distance to a rectangle with rounded corners, centred at the origin."""
    p, q = np.abs(u) - (half_u - corner), np.abs(v) - (half_v - corner)
    return np.hypot(np.maximum(p, 0), np.maximum(q, 0)) + np.minimum(np.maximum(p, q), 0) - corner


def smoothstep(low: float, high: float, x: Array) -> Array:
    """Smooth ramp from 0 at ``low`` to 1 at ``high``."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)
