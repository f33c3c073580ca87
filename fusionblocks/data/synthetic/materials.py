"""Surfaces of the synthetic scene: lettering, facades, walls, and the ground of a street and of a yard."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fusionblocks.data.synthetic.canvas import (
    BUILDING,
    GROUND,
    SIGN,
    SKY_DEPTH,
    WINDOW,
    Array,
    Canvas,
    Colour,
    Patch,
    Texture,
    colour,
)

Paint = Callable[[Array, Array, Array], Patch]

# 3x5 dot letters, one octal digit for each row.
_FONT = {
    **{"A": "25755", "B": "65656", "C": "34443", "E": "74647", "F": "74644", "G": "34553", "H": "55755", "I": "72227"},
    **{"K": "55655", "L": "44447", "N": "75555", "O": "75557", "P": "65644", "R": "65655", "S": "34216", "T": "72222"},
    **{"X": "55255", "Z": "71247", "0": "25552", "1": "26227", "2": "61247", "3": "71317", "4": "55711", "5": "74616"},
    **{"6": "34757", "7": "71222", "8": "75757", "9": "75716", " ": "00000"},
}


def lettering(text: str, stacked: bool = False) -> Array:
    """Dots of a text, with a blank row or column after each letter; ``stacked`` puts one letter below the other."""
    letters = [np.array([[int(d) >> k & 1 for k in (2, 1, 0)] for d in _FONT[c]], bool) for c in text]
    gap = ((0, 1), (0, 0)) if stacked else ((0, 0), (0, 1))
    return np.concatenate([np.pad(letter, gap) for letter in letters], axis=0 if stacked else 1)


def dots(pattern: Array, u: Array, v: Array, left: float, top: float, cell: float) -> Array:
    """Where a dot pattern whose upper left corner lies at ``(left, top)`` is set."""
    column = np.floor((u - left) / cell).astype(np.int32)
    row = np.floor((top - v) / cell).astype(np.int32)
    inside = (column >= 0) & (column < pattern.shape[1]) & (row >= 0) & (row < pattern.shape[0])
    return inside & pattern[np.clip(row, 0, pattern.shape[0] - 1), np.clip(column, 0, pattern.shape[1] - 1)]


def coarse(pixel: Array, size: float) -> Array:
    """Strength of a detail of ``size`` metres: 1 where pixels are far smaller, 0 where they swallow it."""
    return np.clip(1.4 - 1.6 * pixel / size, 0, 1)


def masonry(u: Array, v: Array, pixel: Array, tint: Array, texture: Texture, kind: str) -> Array:
    """Albedo of a wall of ``kind`` brick, plaster or concrete, ``(3, h, w)``."""
    stain = 0.10 * texture(u, v, 0.11)
    if kind == "plaster":
        return tint * (1 + stain + 0.05 * coarse(pixel, 0.05) * texture(u, v, 0.013))
    height, length = (0.11, 0.36) if kind == "brick" else (1.1, 2.4)
    row = np.floor(v / height)
    shifted = u / length + 0.5 * (row % 2)
    brick = np.floor(shifted)
    joint = 0.014 if kind == "brick" else 0.025
    mortar = ((v - row * height) < joint) | ((shifted - brick) * length < joint)
    sharp = coarse(pixel, height)
    tone = (0.22 if kind == "brick" else 0.08) * texture.pick(brick, row) * sharp
    wall = tint * (1 + tone + stain)
    return np.where(mortar, wall * (1 - sharp) + sharp * (wall * 0.35 + 0.05), wall)


@dataclass(frozen=True)
class Facade:
    """Measures and look of one house front; ``lit[floor, bay]`` holds the brightness of its windows, 0 when dark."""

    tint: Colour
    kind: str
    length: float
    height: float
    bay: float
    storey: float
    window: tuple[float, float]
    lit: Array
    texture: Texture
    warmth: float = 0.35
    parapet: float = 0.5

    def __call__(self, u: Array, v: Array, pixel: Array) -> Patch:
        bays, storeys = max(1, int(self.length / self.bay)), max(1, int((self.height - self.parapet) / self.storey))
        margin = 0.5 * (self.length - bays * self.bay)
        column, row = np.floor((u - margin) / self.bay), np.floor(v / self.storey)
        # offsets from the middle of the window of this bay and storey
        x, y = u - margin - (column + 0.5) * self.bay, v - (row + 0.52) * self.storey
        half_w, half_h = self.window[0] / 2, self.window[1] / 2
        there = (column >= 0) & (column < bays) & (row >= 0) & (row < storeys)
        opening = there & (np.abs(x) < half_w) & (np.abs(y) < half_h)
        bars = (np.abs(x) < 0.035) | (np.abs(y - 0.3 * half_h) < 0.03)
        frame = opening & ((np.abs(x) > half_w - 0.07) | (np.abs(y) > half_h - 0.07) | bars)
        sill = there & (np.abs(x) < half_w + 0.14) & (y < -half_h) & (y > -half_h - 0.13)
        lintel = there & (np.abs(x) < half_w + 0.1) & (y > half_h) & (y < half_h + 0.2)
        glass = opening & ~frame

        wall = masonry(u, v, pixel, colour(self.tint), self.texture, self.kind)
        cornice = (v > self.height - self.parapet) & (v < self.height - self.parapet + 0.22)
        band = np.abs(v - self.storey) < 0.09
        light = np.where(sill | lintel | cornice | band, 1.7, 1.0) * np.where(v < 0.6, 0.6, 1.0)
        albedo = np.where(glass, 0.02, np.where(frame, 0.16, wall * light))

        which = self.lit[row.astype(np.int32) % self.lit.shape[0], column.astype(np.int32) % self.lit.shape[1]]
        shaded = (
            y > half_h * (0.9 - 1.3 * np.abs(self.texture.pick(column + 7, row + 3)))
        ) * 0.35  # a half-drawn blind
        curtain = 1 - 0.5 * (np.abs(x) > half_w * 0.62) * (0.6 + 0.4 * np.sin(60 * x))
        room = which * (0.75 + 0.35 * y / half_h + 0.2 * self.texture(u, v, 0.04)) * curtain * (1 - shaded)
        hue = np.where(self.texture.pick(column + 11, row + 5) > 0.9, colour((0.6, 0.8, 1.0)), colour((1.0, 0.66, 0.3)))
        emission = hue * np.where(glass, np.maximum(room, 0), 0)

        thermal = self.warmth + 0.014 * self.texture(u, v, 0.25) + 0.02 * np.clip(1 - v / 3, 0, 1)
        heated = 0.07 + 0.11 * np.clip(which / 0.3, 0, 1) + 0.04 * np.clip(y / half_h, -1, 1)
        thermal = np.where(opening, self.warmth + heated, thermal)
        return Patch(np.broadcast_to(True, v.shape), albedo, thermal, np.where(opening, WINDOW, BUILDING), emission)


def wall(tint: Colour, kind: str, texture: Texture, warmth: float = 0.32, height: float = 100.0) -> Paint:
    """A blank wall with a coping."""

    def paint(u: Array, v: Array, pixel: Array) -> Patch:
        albedo = masonry(u, v, pixel, colour(tint), texture, kind) * np.where(v > height - 0.12, 1.6, 1.0)
        thermal = warmth + 0.012 * texture(u, v, 0.25)
        return Patch(np.broadcast_to(True, v.shape), albedo, thermal, BUILDING)

    return paint


def sign(
    text: str,
    size: tuple[float, float],
    bottom: float,
    hue: Colour,
    glow: float,
    stacked: bool = False,
) -> Paint:
    """A board ``size`` metres wide and high with glowing letters and rim; ``stacked`` sets the letters upright."""
    pattern = lettering(text, stacked)
    rows, columns = pattern.shape
    cell = min(0.82 * size[0] / columns, 0.86 * size[1] / rows)
    left, top = 0.5 * (size[0] - (columns - (not stacked)) * cell), bottom + 0.5 * (size[1] + (rows - stacked) * cell)

    def paint(u: Array, v: Array, pixel: Array) -> Patch:
        ink = dots(pattern, u, v, left, top, cell)
        rim = (np.minimum(u, size[0] - u) < 0.05) | (np.minimum(v - bottom, bottom + size[1] - v) < 0.05)
        emission = colour(hue) * np.where(ink | rim, glow, 0.05 * glow)
        return Patch(np.broadcast_to(True, v.shape), 0.05, 0.40 + 0.02 * (v > bottom + 0.5 * size[1]), SIGN, emission)

    return paint


@dataclass(frozen=True)
class Street:
    """The lateral measures of a street in metres: kerbs, house fronts and the middle line."""

    left_kerb: float
    right_kerb: float
    middle: float
    crossing: float  # distance of the zebra crossing
    wetness: float

    def paint(self, canvas: Canvas, rough: Texture, soft: Texture) -> None:
        """Asphalt with marks, patches and puddles, kerbs and paved walks: the ground of the canvas."""
        rows = canvas.ground_rows()
        if rows.start >= rows.stop:
            return
        x, z, depth = canvas.ground(rows)
        pixel = depth / canvas.focal * (1 + 0.35 * depth / canvas.camera.eye)  # foreshortened along z
        road = (x > self.left_kerb) & (x < self.right_kerb)
        grain = rough(x, z, 0.017) * coarse(pixel, 0.12)
        patches = soft(x, z, 0.23)
        gutter = np.clip(1 - np.minimum(np.abs(x - self.left_kerb), np.abs(x - self.right_kerb)) / 0.5, 0, 1)
        tracks = sum(np.exp(-(((x - self.middle - o) / 0.35) ** 2)) for o in (-2.5, -1.0, 1.0, 2.5))
        crack = np.exp(-((soft(x + 31, z, 0.09) / 0.035) ** 2)) * coarse(pixel, 0.2)
        asphalt = 0.115 * (1 + 0.26 * grain + 0.2 * patches - 0.35 * gutter - 0.12 * tracks - 0.35 * crack)

        slab_x, slab_z = np.floor(x / 0.6), np.floor(z / 0.6 + 0.5 * (np.floor(x / 0.6) % 2))
        joint = ((x / 0.6 - slab_x) < 0.05) | ((z / 0.6 + 0.5 * (slab_x % 2) - slab_z) < 0.06)
        sharp = coarse(pixel, 0.5)
        paving = 0.17 * (
            1 + 0.16 * rough.pick(slab_x, slab_z) * sharp + 0.1 * patches + 0.14 * grain - 0.5 * joint * sharp
        )
        edge = np.minimum(x - self.left_kerb, self.right_kerb - x)
        kerb = (edge < 0) & (edge > -0.22) & (z % 1.0 > 0.03)
        ground = np.where(road, asphalt, np.where(kerb, 0.27 * (1 + 0.12 * grain), paving))

        dashes = (np.abs(x - self.middle) < 0.075) & (z % 4.5 < 2.6)
        lines = np.abs(edge - 0.35) < 0.06
        zebra = (np.abs(z - self.crossing) < 1.5) & ((x - self.middle) % 1.0 < 0.5) & (edge > 0.5)
        lines &= np.abs(z - self.crossing) > 1.8
        dashes &= np.abs(z - self.crossing) > 1.5
        worn = np.clip(0.85 + 0.3 * grain + 0.22 * patches, 0.25, 1)
        marks = road & (dashes | lines | zebra) & (z > 0)
        paint = np.where(marks, worn, 0)
        ground = ground * (1 - paint) + 0.62 * paint
        wet = self.wetness * np.clip(0.9 * soft(x + 11, z * 0.6, 0.16) + 1.2 * gutter - 0.15, 0, 1) * road
        wet = np.clip(3 * wet, 0, 1) * min(1.0, 2 * self.wetness) + 0.3 * self.wetness * road

        canvas.albedo[:, rows] = colour((1.0, 0.97, 0.93)) * (ground * (1 - 0.55 * wet))
        canvas.thermal[rows] = np.where(road, 0.33 + 0.015 * tracks, 0.29) + 0.012 * patches - 0.04 * wet
        canvas.wet[rows] = wet
        _finish(canvas, rows, depth)


@dataclass(frozen=True)
class Yard:
    """A yard: concrete slabs with joints, oil stains, grass in the seams, numbered parking bays."""

    bays: tuple[float, float]  # x where the row of bays starts and ends
    front: float  # z where the bays start
    width: float
    number: int
    wetness: float

    def paint(self, canvas: Canvas, rough: Texture, soft: Texture) -> None:
        """Paint the ground of the canvas."""
        rows = canvas.ground_rows()
        if rows.start >= rows.stop:
            return
        x, z, depth = canvas.ground(rows)
        pixel = depth / canvas.focal * (1 + 0.35 * depth / canvas.camera.eye)
        grain = rough(x, z, 0.017) * coarse(pixel, 0.12)
        patches = soft(x, z, 0.23)
        slab_x, slab_z = np.floor(x / 2.5), np.floor(z / 3.0)
        p, q = x - slab_x * 2.5, z - slab_z * 3.0
        joint = np.minimum(np.minimum(p, 2.5 - p), np.minimum(q, 3.0 - q))
        crack = np.exp(-((soft(x + 31, z, 0.09) / 0.03) ** 2)) * coarse(pixel, 0.2)
        seam = np.clip(1 - joint / (0.035 + 0.25 * pixel), 0, 1)
        stain = np.clip(soft(x + 17, z + 5, 0.06) - 0.7, 0, 1)
        concrete = 0.16 * (1 + 0.1 * rough.pick(slab_x, slab_z) + 0.2 * grain + 0.2 * patches - 0.4 * crack)
        concrete = concrete * (1 - 0.6 * seam) * (1 - 0.55 * stain)
        grass = np.clip(soft(x + 3, z + 40, 0.3) - 0.9 + 0.9 * (seam > 0), 0, 1) * np.clip(
            0.6 + 0.6 * rough(x, z, 0.03), 0, 1
        )

        first, last = self.bays
        across = (x - first) / self.width
        inside = (x > first - 0.06) & (x < last + 0.06) & (z > self.front) & (z < self.front + 5)
        lines = inside & (np.abs(across - np.round(across)) * self.width < 0.06)
        lines |= inside & (np.abs(z - self.front - 5) < 0.07)
        bay = np.floor(across)
        for k in range(round((last - first) / self.width)):
            digits = lettering(str(self.number + k))
            left = first + (k + 0.5) * self.width - 0.09 * digits.shape[1]
            lines |= (bay == k) & dots(digits, x, z, left, self.front + 1.6, 0.18)
        paint = np.where(lines, np.clip(0.8 + 0.3 * grain + 0.25 * patches, 0.2, 1), 0)
        wet = np.clip(3 * self.wetness * np.clip(soft(x + 11, z, 0.16) - 0.5, 0, 1), 0, 1)

        base = colour((1.0, 0.98, 0.94)) * concrete * (1 - grass) + colour((0.035, 0.06, 0.02)) * grass
        base = (base * (1 - paint) + colour((0.55, 0.5, 0.3)) * paint) * (1 - 0.5 * wet)
        canvas.albedo[:, rows] = base
        canvas.thermal[rows] = (
            0.32 + 0.012 * patches + 0.02 * rough.pick(slab_x, slab_z) * 0.3 - 0.05 * grass - 0.04 * wet
        )
        canvas.wet[rows] = wet
        _finish(canvas, rows, depth)


def _finish(canvas: Canvas, rows: slice, depth: Array) -> None:
    canvas.depth[rows] = np.minimum(depth, SKY_DEPTH)
    canvas.normal[:, rows] = colour((0.0, 1.0, 0.0))
    canvas.label[rows] = GROUND


def sky(canvas: Canvas, soft: Texture, high: Colour, low: Colour, clouds: float) -> None:
    """A gradient from ``high`` to the glow ``low`` above the horizon, clouds lit from below; cold in the infrared."""
    rows = slice(0, min(canvas.height, max(0, int(canvas.horizon) + 2)))
    up = np.clip(-canvas.down[rows] * 1.9, 0, 1)
    bank = np.clip(soft(canvas.ray_x * 3 / (up + 0.25), 2.2 / (up + 0.25), 0.09), -1.5, 2)
    glow = np.exp(-3.2 * up) * (1 + 0.25 * clouds * bank)
    canvas.emission[:, rows] = colour(high) * (1 + 0.35 * clouds * bank) + colour(low) * np.maximum(glow, 0)
    canvas.thermal[rows] = 0.07 + 0.11 * np.exp(-5 * up) + 0.02 * clouds * bank
