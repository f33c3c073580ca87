"""Things that stand in the synthetic scene: people, cars, lamps, trees and boxes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fusionblocks.data.synthetic.canvas import (
    CAR,
    LAMP,
    PERSON,
    VEGETATION,
    Array,
    Canvas,
    Colour,
    Patch,
    Texture,
    box,
    capsule,
    colour,
    smoothstep,
)
from fusionblocks.data.synthetic.materials import dots, lettering


@dataclass(frozen=True)
class Light:
    """A light source: what it sheds, where, and how much it glares into the lens."""

    x: float
    y: float
    z: float
    hue: Colour
    power: float  # irradiance at one metre
    glare: float = 1.0
    beam: tuple[float, float, float] | None = None  # direction of a spotlight
    hidden: bool = False  # sheds light, is not itself seen


@dataclass(frozen=True)
class Person:
    """A standing or walking person."""

    x: float
    z: float
    height: float
    stride: float
    swing: float
    turn: float  # 1 seen from the front, less from the side
    bag: bool
    jacket: float  # how warm the jacket lets the body show, in the infrared image
    cloth: float  # how bright the clothes are beside what stands behind, in the visible image
    hue: Colour

    def body(self, u: Array, v: Array) -> tuple[Array, Array]:
        """Signed distance to the outline in metres, and the temperature shown, in [0, 1]."""
        s, w, k = self.height / 1.75, self.turn, self.stride
        u, v = u / s, v / s
        hips, shoulders = 0.085 * w, 0.19 * w
        head = np.hypot((u - 0.3 * k * 0.1) / (0.088 + 0.012 * (1 - w)), (v - 1.625) / 0.125) * 0.1 - 0.1
        half = np.interp(v, [0.8, 0.9, 1.06, 1.3, 1.42, 1.475, 1.5], [0.15, 0.175, 0.15, 0.19, 0.19, 0.1, 0.0])
        half = half * (0.45 + 0.55 * w)
        torso = np.maximum(np.abs(u) - half, np.maximum(0.82 - v, v - 1.5)).astype(np.float32)
        neck = capsule(u, v, (0, 1.4), (0, 1.56), 0.06, 0.052)
        legs, arms, hands = [], [], []
        for side in (-1, 1):
            lift = 0.12 * k if side < 0 else 0.0  # the rear heel of a step
            hip, knee = (side * hips, 0.88), (side * (hips + 0.5 * k), 0.48)
            foot = (side * (hips + k), 0.07 + lift)
            toe = (foot[0] + 0.06 * (0.3 + k), 0.05 + 0.5 * lift)
            legs += [capsule(u, v, hip, knee, 0.092, 0.066), capsule(u, v, knee, foot, 0.066, 0.046)]
            legs += [capsule(u, v, foot, toe, 0.05, 0.04)]
            elbow = (side * (shoulders + 0.055 * w) - side * self.swing * 0.5, 1.12)
            hand = (side * (shoulders + 0.07 * w) - side * self.swing + 0.08 * (1 - w), 0.87 + 0.4 * abs(self.swing))
            arms += [capsule(u, v, (side * shoulders, 1.4), elbow, 0.06, 0.05), capsule(u, v, elbow, hand, 0.05, 0.036)]
            hands += [np.hypot(u - hand[0], v - hand[1] + 0.05) - 0.05]
        leg, arm, hand_ = np.minimum.reduce(legs), np.minimum.reduce(arms), np.minimum.reduce(hands)
        outline = np.minimum.reduce([head, torso, neck, leg, arm, hand_])

        folds = 0.03 * np.sin(23 * v + 9 * u) * np.sin(17 * u - 5 * v)
        thermal = np.where(torso < 0.01, self.jacket + folds - 0.35 * np.abs(u), 0.72 + folds)
        thermal = np.where((leg < 0) & (torso > 0), 0.64 + 0.12 * smoothstep(0.3, 0.9, v) + folds, thermal)
        thermal = np.where((arm < 0) & (torso > -0.02), self.jacket - 0.06 + folds, thermal)
        thermal = np.where(v < 0.11, 0.56, thermal)
        if self.bag:
            pack = box(u - 0.02, v - 1.2, 0.13, 0.2, 0.05)
            thermal = np.where(pack < 0, 0.52, thermal)
        thermal = thermal - 0.10 * smoothstep(-0.05, 0.0, outline)
        thermal = np.where((neck < 0) | (hand_ < 0), 0.90, thermal)
        hair = smoothstep(1.66, 1.74, v)
        thermal = np.where(head < 0, 0.97 - 0.14 * hair - 0.05 * smoothstep(-0.03, 0, head), thermal)
        return outline * s, thermal

    def paint(self, canvas: Canvas, linear: Array) -> None:
        """Draw into the canvas and the lit picture ``linear``: hot in the infrared, dim in the visible."""
        reach = 0.62 * self.height
        window = canvas.window("z", self.z, (self.x - reach, self.x + reach), (0.0, 1.06 * self.height))
        if window is None:
            return
        rows, columns, where, v, depth, _ = window
        outline, thermal = self.body(where - self.x, v)
        inside = (outline < 0) & (depth < canvas.depth[rows, columns])
        behind = linear[:, rows, columns]
        # Dim clothes under dim light: as bright as what stands behind, row by row, but for the cut of the clothes.
        around = np.median(behind, axis=2)
        size = max(3, around.shape[1] // 6) | 1
        padded = np.pad(around, ((0, 0), (size // 2, size // 2)), mode="edge")
        around = np.stack([np.convolve(row, np.full(size, 1 / size), "valid") for row in padded])[..., None]
        around = 0.25 * around + 0.75 * around.mean(axis=0, keepdims=True) * colour(self.hue)
        x, y = where - self.x, v / self.height
        cut = np.where(y < 0.5, 0.75, 1.0) * (1 + 0.14 * np.sin(21 * v + 8 * x) * np.sin(15 * x))
        cut = np.where(thermal > 0.86, 1.25, cut) * np.where(y > 0.93, 0.6, 1.0) * np.where(y < 0.06, 0.6, 1.0)
        look = around * self.cloth * cut * (1 - 0.35 * smoothstep(-0.05, 0, outline)) * (1 + 0.5 * x)
        np.copyto(behind, look.astype(np.float32), where=inside)
        np.copyto(canvas.thermal[rows, columns], thermal.astype(np.float32), where=inside)
        np.copyto(canvas.depth[rows, columns], depth, where=inside)
        np.copyto(canvas.label[rows, columns], np.uint8(PERSON), where=inside)


@dataclass(frozen=True)
class Car:
    """A hatchback seen from its end and its side; ``x, z`` is the middle of the end (or side) nearest to the camera."""

    x: float
    z: float
    pose: str  # "towards" and "away" along the street, "left" and "right" (where its front points) across it
    tint: Colour
    engine: float  # 0 cold, 1 just driven
    lamps: bool
    plate: str

    def paint(self, canvas: Canvas) -> None:
        """Draw the side, the end, the hood and the roof that the camera sees."""
        tint = colour(self.tint) * np.float32(0.9)
        if self.pose in ("left", "right"):
            span = (self.x - 2.15, self.x + 2.15)
            canvas.panel("z", self.z, span, (0, 1.6), self._side, mirror=self.pose == "right")
            for inward in np.arange(0.2, 1.8, 0.2):  # slices give the sloping windscreen its width
                canvas.panel("z", self.z + inward, span, (0.6, 1.6), self._slice, mirror=self.pose == "right")
            front = (self.x > 0) == (self.pose == "left")
            end = self.x + (2.1 if self.x < 0 else -2.1)
            paint = self._front if front else self._rear
            canvas.panel("x", end, (self.z, self.z + 1.75), (0, 1.6), paint, origin=self.z + 0.875)
            sign = 1 if self.pose == "left" else -1
            nose = self.x - 2.13 * sign
            for top, first, last, warm in self._tops:
                canvas.level(
                    top, _ordered(nose + first * sign, nose + last * sign), (self.z, self.z + 1.75), tint, warm, CAR
                )
            return
        side = self.x - 0.87 if self.x > 0 else self.x + 0.87
        mirror = self.pose == "away"
        canvas.panel("x", side, (self.z + 0.02, self.z + 4.3), (0, 1.6), self._side, mirror=mirror)
        span = (self.x - 0.9, self.x + 0.9)
        for top, first, last, warm in self._tops:
            along = (self.z + 4.3 - last, self.z + 4.3 - first) if mirror else (self.z + first, self.z + last)
            canvas.level(top, (self.x - 0.82, self.x + 0.82), along, tint, warm, CAR)
        if mirror:
            canvas.panel("z", self.z, span, (0, 1.6), self._rear, origin=self.x)
        else:
            canvas.panel("z", self.z + 1.5, span, (0.2, 1.6), self._windscreen, origin=self.x)
            canvas.panel("z", self.z, span, (0, 1.0), self._front, origin=self.x)

    def _warm(self, cold: float, hot: float) -> float:
        return cold + (hot - cold) * self.engine

    @property
    def _tops(self) -> tuple[tuple[float, float, float, float], ...]:
        """Height, start and end behind the nose, and temperature of the hood and of the roof."""
        return (0.96, 0.0, 1.55, self._warm(0.23, 0.7)), (
            1.48,
            2.3 if self.pose in ("left", "right") else 1.6,
            4.28,
            self._warm(0.2, 0.3),
        )

    def _front(self, u: Array, v: Array, pixel: Array) -> Patch:
        half = np.interp(v, [0.15, 0.3, 0.85, 0.97], [0.8, 0.87, 0.87, 0.8])
        body = (np.abs(u) < half) & (v > 0.17) & (v < 0.97)
        tyre = (np.abs(np.abs(u) - 0.7) < 0.11) & (v < 0.4)
        under = (np.abs(u) < 0.62) & (v > 0.1) & (v < 0.2)
        grille = box(u, v - 0.55, 0.42, 0.1, 0.04) < 0
        bumper = (v < 0.42) & (np.abs(u) < 0.7)
        plate = box(u, v - 0.36, 0.27, 0.06) < 0
        ink = plate & dots(lettering(self.plate), u, v, -0.22, 0.395, 0.44 / (4 * len(self.plate)))
        lamp = box(np.abs(u) - 0.62, v - 0.68, 0.15, 0.07, 0.05) < 0
        albedo = np.where(grille | bumper | under | tyre & ~body, 0.02, colour(self.tint) * (0.6 + 0.5 * v))
        albedo = np.where(plate, np.where(ink, 0.02, 0.6), np.where(lamp, 0.5, albedo))
        emission = colour((1.0, 0.96, 0.86)) * np.where(lamp, 9.0 if self.lamps else 0.0, 0.0)
        emission = emission + colour((1.0, 0.9, 0.7)) * np.where(plate & ~ink, 0.04, 0.0)
        thermal = np.where(
            grille, self._warm(0.3, 0.92), self._warm(0.27, 0.55) + self._warm(0, 0.2) * smoothstep(0.7, 0.95, v)
        )
        thermal = np.where(tyre & ~body, self._warm(0.3, 0.62), thermal)
        thermal = np.where(lamp, self._warm(0.3, 0.72), np.where(plate, self._warm(0.28, 0.5), thermal))
        thermal = np.where((v < 0.22) & ~tyre, self._warm(0.28, 0.7), thermal)
        return Patch(body | tyre | under, albedo, thermal, CAR, emission)

    def _windscreen(self, u: Array, v: Array, pixel: Array) -> Patch:
        half = np.interp(v, [0.9, 1.4, 1.5], [0.87, 0.82, 0.74])
        body = (np.abs(u) < half) & (v < 1.5)
        glass = body & (np.abs(u) < half - 0.07) & (v > 1.0) & (v < 1.43)
        albedo = np.where(glass, 0.025, colour(self.tint) * 0.9)
        hood = v < 0.99
        thermal = np.where(
            glass, 0.27 + 0.06 * self.engine, np.where(hood, self._warm(0.27, 0.74), self._warm(0.26, 0.36))
        )
        return Patch(body, albedo, thermal, CAR)

    def _rear(self, u: Array, v: Array, pixel: Array) -> Patch:
        half = np.interp(v, [0.18, 0.3, 0.9, 1.05, 1.4, 1.5], [0.82, 0.87, 0.88, 0.86, 0.82, 0.74])
        body = (np.abs(u) < half) & (v > 0.2) & (v < 1.5)
        tyre = (np.abs(np.abs(u) - 0.7) < 0.11) & (v < 0.42)
        under = (np.abs(u) < 0.62) & (v > 0.1) & (v < 0.22)
        glass = body & (np.abs(u) < half - 0.1) & (v > 1.03) & (v < 1.4)
        lamp = (np.abs(np.abs(u) - 0.72) < 0.11) & (np.abs(v - 0.83) < 0.1) & body
        plate = box(u, v - 0.7, 0.27, 0.065) < 0
        ink = plate & dots(lettering(self.plate), u, v, -0.22, 0.74, 0.44 / (4 * len(self.plate)))
        seam = body & (np.abs(v - 0.58) < 0.018)
        albedo = np.where(
            glass, 0.025, np.where(under | tyre & ~body | seam, 0.02, colour(self.tint) * (0.6 + 0.5 * v))
        )
        albedo = np.where(lamp, colour((0.3, 0.02, 0.02)), np.where(plate, np.where(ink, 0.02, 0.6), albedo))
        emission = colour((1.0, 0.05, 0.03)) * np.where(lamp, 1.5 if self.lamps else 0.03, 0.0)
        emission = emission + np.where(plate & ~ink, 0.05 if self.lamps else 0.012, 0.0)
        thermal = np.where(glass, 0.27 + 0.04 * self.engine, self._warm(0.22, 0.41) + 0.03 * v)
        thermal = np.where(tyre & ~body, self._warm(0.3, 0.66), thermal)
        thermal = np.where((v < 0.36) & body, self._warm(0.27, 0.48), thermal)
        pipe = np.hypot(u + 0.5, v - 0.27)
        thermal = thermal + self._warm(0, 0.5) * np.exp(-((pipe / 0.1) ** 2))
        thermal = np.where(lamp & self.lamps, 0.5, thermal)
        return Patch(body | tyre | under, albedo, np.minimum(thermal, 1), CAR, emission)

    def _side(self, u: Array, v: Array, pixel: Array) -> Patch:
        top = np.interp(u, [0, 0.08, 1.1, 1.85, 2.4, 3.7, 4.3], [0.88, 0.93, 1.0, 1.44, 1.5, 1.5, 1.47])
        wheel = np.minimum(np.hypot(u - 0.82, v - 0.32), np.hypot(u - 3.45, v - 0.32))
        body = (v < top) & (v > 0.22) & (u > 0) & (u < 4.3) & ~((wheel < 0.37) & (v < 0.6))
        arch = (wheel < 0.37) & (v > 0.3)
        glass = body & (v > 0.98) & (v < top - 0.07) & (u > 1.35) & (u < 4.0) & (np.abs(u - 2.65) > 0.05)
        seam = body & ((np.abs(u - 1.75) < 0.015) | (np.abs(u - 2.65) < 0.015) | (np.abs(u - 3.5) < 0.012)) & (v > 0.35)
        handle = body & (np.abs(v - 0.86) < 0.02) & ((np.abs(u - 2.5) < 0.09) | (np.abs(u - 3.35) < 0.09))
        albedo = np.where(glass, 0.025, np.where(seam | handle, 0.015, colour(self.tint) * (0.45 + 0.6 * v)))
        albedo = np.where(wheel < 0.37, np.where((wheel < 0.19) & (wheel > 0.05), 0.25, 0.015), albedo)
        thermal = (
            self._warm(0.22, 0.40)
            + 0.04 * (v > 0.55)
            + self._warm(0, 0.32) * np.exp(-(((u - 0.6) / 0.6) ** 2)) * smoothstep(1.15, 0.7, v)
        )
        thermal = np.where(glass, 0.25 + 0.04 * self.engine, thermal)
        thermal = np.where(
            wheel < 0.33, self._warm(0.3, 0.6) + self._warm(0.0, 0.25) * np.exp(-((wheel / 0.14) ** 2)), thermal
        )
        under = (v < 0.24) & (v > 0.12) & (u > 0.3) & (u < 4.0) & (wheel > 0.33)
        thermal = np.where(under, self._warm(0.24, 0.42), thermal)
        return Patch(body | (wheel < 0.33) | arch | under, np.where(under, 0.01, albedo), thermal, CAR)

    def _slice(self, u: Array, v: Array, pixel: Array) -> Patch:
        side = self._side(u, v, pixel)
        screen = (u > 1.1) & (u < 2.1)
        albedo = np.where(screen, np.float32(0.025), colour(self.tint) * np.float32(0.9))
        thermal = np.where(
            screen, 0.26 + 0.05 * self.engine, np.where(u < 1.1, self._warm(0.23, 0.7), self._warm(0.2, 0.3))
        )
        return side._replace(albedo=albedo, thermal=thermal)


def _ordered(a: float, b: float) -> tuple[float, float]:
    return (a, b) if a < b else (b, a)


def post(canvas: Canvas, x: float, z: float, height: float, arm: float, hue: Colour, power: float) -> Light:
    """A street lamp with its arm towards ``x + arm``; returns the light it sheds."""

    def column(u: Array, v: Array, pixel: Array) -> Patch:
        half = 0.055 + 0.05 * np.clip(1 - v, 0, 1)
        return Patch(np.abs(u) < np.maximum(half, 0.5 * pixel), 0.05, 0.27, LAMP)

    def bracket(u: Array, v: Array, pixel: Array) -> Patch:
        along = np.clip(u / arm, 0, 1)
        bend = height - 0.35 * (1 - np.sqrt(along))
        stem = (np.abs(v - bend) < np.maximum(0.045, 0.5 * pixel)) & (u / arm >= 0) & (u / arm <= 1)
        case = box(u - arm, v - height - 0.04, 0.36, 0.07, 0.05) < 0
        bulb = box(u - arm, v - height + 0.07, 0.3, 0.08, 0.06) < 0
        emission = colour(hue) * np.where(bulb, 12.0, 0.0)
        return Patch(stem | case | bulb, 0.05, np.where(bulb | case, 0.97, 0.28), LAMP, emission)

    canvas.panel("z", z, (x - 0.15, x + 0.15), (0, height - 0.3), column, origin=x)
    low, high = sorted((x, x + arm))
    canvas.panel("z", z, (low - 0.45, high + 0.45), (height - 0.5, height + 0.25), bracket, origin=x)
    return Light(x + arm, height, z, hue, power)


def wall_lamp(canvas: Canvas, x: float, y: float, z: float, hue: Colour, power: float) -> Light:
    """A flood lamp on a wall that faces the camera; returns the light it sheds."""

    def paint(u: Array, v: Array, pixel: Array) -> Patch:
        bulb = box(u, v - y, 0.22, 0.13, 0.05) < 0
        return Patch(box(u, v - y, 0.28, 0.19, 0.05) < 0, 0.05, 0.96, LAMP, colour(hue) * np.where(bulb, 12.0, 0.0))

    canvas.panel("z", z, (x - 0.35, x + 0.35), (y - 0.25, y + 0.25), paint, origin=x)
    return Light(x, y, z - 0.6, hue, power, glare=1.3)


def tree(canvas: Canvas, rng: np.random.Generator, x: float, z: float, size: float, leaf: Texture) -> None:
    """A tree: a forked trunk and a crown of leafy clumps with gaps."""
    trunk = 0.42 * size
    spread = 0.34 * size
    angle, radius = rng.uniform(0, 2 * np.pi, 16), np.sqrt(rng.uniform(0, 1, 16))
    clumps = [
        (spread * r * np.cos(a), 0.66 * size + 0.27 * size * r * np.sin(a)) for a, r in zip(angle, radius, strict=True)
    ]
    shift = float(rng.uniform(0, 50))

    def paint(u: Array, v: Array, pixel: Array) -> Patch:
        wood = capsule(u, v, (0, 0), (0.03 * size, trunk), 0.035 * size, 0.022 * size)
        for cu, cv in clumps[:5]:
            wood = np.minimum(wood, capsule(u, v, (0.03 * size, trunk), (cu, cv), 0.018 * size, 0.005 * size))
        crown = np.minimum.reduce([np.hypot(u - cu, v - cv) - 0.15 * size for cu, cv in clumps])
        noise = leaf(u + shift, v, 0.05)
        leaves = crown + 0.16 * size * 0.5 * noise + 0.03 * size * leaf(u, v + shift, 0.012) < 0
        tone = np.clip(
            0.75 + 0.35 * leaf(u + 9, v + shift, 0.02) + 0.25 * np.clip(-crown / (0.15 * size), 0, 1), 0.1, 2
        )
        albedo = np.where(leaves, colour((0.045, 0.075, 0.03)) * tone, colour((0.05, 0.042, 0.035)))
        thermal = np.where(leaves, 0.25 + 0.02 * noise, 0.31)
        return Patch(leaves | (wood < 0), albedo, thermal, VEGETATION)

    canvas.panel("z", z, (x - 0.65 * size, x + 0.65 * size), (0, 1.25 * size), paint, origin=x)


def hedge(canvas: Canvas, x: tuple[float, float], z: float, height: float, leaf: Texture) -> None:
    """A ragged hedge across the view."""

    def paint(u: Array, v: Array, pixel: Array) -> Patch:
        top = height * (0.8 + 0.12 * leaf(u, 0 * v + 3, 0.08)) + 0.05 * leaf(u, v, 0.012)
        tone = np.clip(0.8 + 0.4 * leaf(u, v, 0.02), 0.1, 2) * (0.5 + 0.6 * v / height)
        return Patch(v < top, colour((0.045, 0.07, 0.03)) * tone, 0.26 + 0.02 * leaf(u, v, 0.05), VEGETATION)

    canvas.panel("z", z, x, (0, 1.3 * height), paint)
