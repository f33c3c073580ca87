"""Where things stand: a street and a yard, drawn by a generator, the same at every picture size."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from fusionblocks.data.synthetic.canvas import Camera, Canvas, Colour, Texture
from fusionblocks.data.synthetic.materials import Facade, Street, Yard, sign, sky, wall
from fusionblocks.data.synthetic.objects import Car, Light, Person, hedge, post, tree, wall_lamp

T = TypeVar("T")

SODIUM: Colour = (1.0, 0.60, 0.24)
LED: Colour = (0.82, 0.91, 1.0)
HEADLAMP: Colour = (1.0, 0.95, 0.84)
NEON: tuple[Colour, ...] = ((1.0, 0.12, 0.2), (0.1, 0.85, 1.0), (0.25, 1.0, 0.35), (1.0, 0.35, 0.85), (1.0, 0.75, 0.15))
PAINTS: tuple[Colour, ...] = (
    (0.25, 0.03, 0.03),
    (0.04, 0.07, 0.18),
    (0.3, 0.3, 0.32),
    (0.05, 0.05, 0.055),
    (0.4, 0.38, 0.33),
)
CLOTHES: tuple[Colour, ...] = ((1.0, 0.95, 0.9), (0.8, 0.9, 1.2), (1.1, 0.9, 0.85), (0.9, 1.0, 0.9))
WALLS: tuple[tuple[Colour, str], ...] = (
    ((0.24, 0.12, 0.085), "brick"),
    ((0.19, 0.10, 0.08), "brick"),
    ((0.26, 0.22, 0.16), "plaster"),
    ((0.20, 0.21, 0.22), "plaster"),
    ((0.22, 0.16, 0.12), "brick"),
    ((0.25, 0.20, 0.17), "plaster"),
)
WORDS = ("HOTEL", "CAFE", "BAR", "PIZZA", "TAXI", "SHOP", "OPEN", "FOTO", "PARK", "TEA", "BOOTS", "FISH")


@dataclass
class Stage:
    """A layout that is drawn but not yet painted: how to paint it (which tells its lights), its people, its air."""

    camera: Camera
    paint: Callable[[Canvas], list[Light]]
    people: list[Person]
    ambient: Colour
    air: Colour
    exposure: float


def _u(rng: np.random.Generator, low: float, high: float) -> float:
    return float(rng.uniform(low, high))


def _one(rng: np.random.Generator, options: Sequence[T]) -> T:
    return options[int(rng.integers(len(options)))]


def _parked(rng: np.random.Generator, x: float, z: float, pose: str, engine: float) -> Car:
    return Car(x, z, pose, _one(rng, PAINTS), engine, False, _plate(rng))


def _lit(rng: np.random.Generator, share: float) -> np.ndarray:
    on = rng.random((16, 32)) < share
    return np.where(on, rng.uniform(0.15, 0.75, on.shape), 0.0).astype(np.float32)


def _plate(rng: np.random.Generator) -> str:
    return "".join(rng.choice(list("ABCEFHKLPRST"), 2)) + "".join(str(d) for d in rng.integers(1, 10, 3))


def _person(rng: np.random.Generator, x: float, z: float) -> Person:
    side = rng.random() < 0.5
    return Person(
        x,
        z,
        height=_u(rng, 1.6, 1.9),
        stride=float(rng.uniform(0.1, 0.26) if side else rng.uniform(0.0, 0.1)),
        swing=float(rng.uniform(-0.16, 0.16) if side else rng.uniform(-0.05, 0.12)),
        turn=float(rng.uniform(0.35, 0.6) if side else rng.uniform(0.85, 1.0)),
        bag=bool(rng.random() < 0.3),
        jacket=_u(rng, 0.64, 0.84),
        cloth=_u(rng, 0.68, 0.92),
        hue=_one(rng, CLOTHES),
    )


def walker(seed: int) -> Person:
    """Return somebody who walks, as a seed draws them."""
    return _person(np.random.default_rng([seed, 4]), 0.0, 0.0)


def _facade(rng: np.random.Generator, length: float, height: float, texture: Texture, share: float) -> Facade:
    tint, kind = _one(rng, WALLS)
    bay, storey = _u(rng, 2.3, 3.2), _u(rng, 3.0, 3.6)
    window = (_u(rng, 1.0, 1.4), _u(rng, 1.5, 2.0))
    return Facade(tint, kind, length, height, bay, storey, window, _lit(rng, share), texture, _u(rng, 0.3, 0.38))


def _sky_light(rng: np.random.Generator, dusk: bool) -> tuple[Colour, Colour, Colour]:
    """Colours of the zenith, of the glow at the horizon, and of the ambient light."""
    red = rng.random() < 0.6
    if dusk:
        return (0.035, 0.06, 0.13), (0.34, 0.17, 0.10) if red else (0.16, 0.15, 0.2), (0.11, 0.12, 0.17)
    return (0.004, 0.006, 0.014), (0.035, 0.024, 0.016), (0.018, 0.021, 0.030)


def street(rng: np.random.Generator, textures: tuple[Texture, Texture, Texture], dusk: bool) -> Stage:
    """A street in perspective: house fronts, parked cars, a car that comes with its lamps on, street lamps, signs."""
    rough, soft, leaf = textures
    camera = Camera(_u(rng, 1.9, 2.9), _u(rng, -0.12, 0.12), _u(rng, 0.42, 0.5))
    zenith, glow, ambient = _sky_light(rng, dusk)
    hue = SODIUM if rng.random() < 0.65 else LED
    half = _u(rng, 3.4, 4.0)
    middle = _u(rng, -0.8, 0.8)
    left, right = middle - half, middle + half
    fronts = (left - _u(rng, 2.2, 3.2), right + _u(rng, 2.2, 3.2))
    crossing = _u(rng, 8, 12) if rng.random() < 0.6 else -10.0
    ground = Street(left, right, middle, crossing, _u(rng, 0.35, 1.0) if rng.random() < 0.7 else 0.08)

    share = 0.16
    houses: list[tuple[float, float, float, Facade]] = []
    boards: list[tuple[float, float, float, str, Colour]] = []
    for front in fronts:
        z = _u(rng, -4, 2)
        while z < 75:
            length, height = _u(rng, 8, 15), _u(rng, 7.5, 15)
            houses.append((front, z, length, _facade(rng, length, height, rough, share)))
            if 8 < z + 0.5 * length < 34 and rng.random() < 0.75:
                word, tube = _one(rng, WORDS), _one(rng, NEON)
                while any(word == board[3] for board in boards):  # no two signs alike
                    word = WORDS[(WORDS.index(word) + 1) % len(WORDS)]
                boards.append((front, max(8.0, z + _u(rng, 0.2, 0.7) * length), 3.3, word, tube))
            z += length
    closing = _facade(rng, 26.0, _u(rng, 8, 13), rough, share)

    lamp_side = 1 if rng.random() < 0.5 else -1
    lamp_z = _u(rng, 9.5, 13)
    posts = [
        (right + 0.6 if s > 0 else left - 0.6, lamp_z + 11.0 * k, -s) for k, s in enumerate((lamp_side, -lamp_side) * 2)
    ]
    oncoming = Car(middle - 0.5 * half, _u(rng, 13, 20), "towards", (0.1, 0.1, 0.11), 1.0, True, _plate(rng))
    kerbside = [
        _parked(rng, right - 1.15, _u(rng, 7.5, 9.5), "away", _u(rng, 0.75, 1)),
        _parked(rng, right - 1.15, _u(rng, 15, 18), "away", _u(rng, 0, 0.3)),
    ]
    if rng.random() < 0.5:
        kerbside.append(_parked(rng, left + 1.1, _u(rng, 25, 30), "towards", 0.4))
    trees = [(left - 1.0, _u(rng, 17, 24), 5.5)] if rng.random() < 0.6 else []
    if rng.random() < 0.5:
        trees.append((right + 1.3, _u(rng, 20, 30), 6.0))
    tree_seed = int(rng.integers(1 << 31))

    near = _u(rng, 7.5, 9.5)
    walk = max(left - _u(rng, 0.6, 1.6), camera.place(0.09, near)[0])
    people = [
        _person(rng, walk, near),  # on the left walk
        _person(rng, oncoming.x + float(rng.choice([-1.35, 1.4])), oncoming.z + 0.6),  # beside the headlamps
        _person(rng, middle + _u(rng, 0.1, 0.9), _u(rng, 11, 14)),  # crossing the road
        _person(rng, right + _u(rng, 0.9, 1.7), _u(rng, 13, 17)),  # behind the parked car
        _person(rng, left - _u(rng, 0.8, 1.8), _u(rng, 13, 16)),
        _person(rng, middle + _u(rng, -0.5, 1.5), _u(rng, 24, 34)),
    ]
    people = [people[0], people[1], *(p for p in people[2:] if rng.random() < 0.65)]

    def paint(canvas: Canvas) -> list[Light]:
        sky(canvas, soft, zenith, glow, 1.0)
        ground.paint(canvas, rough, soft)
        canvas.panel("z", 78.0, (-13.0 + middle, 13.0 + middle), (0, closing.height), closing)
        for front, z, length, facade in sorted(houses, key=lambda h: -h[1]):
            canvas.panel("x", front, (z, z + length), (0, facade.height), facade, mirror=front > 0)
            end = (front - 9.0, front) if front < 0 else (front, front + 9.0)
            canvas.panel("z", z, end, (0, facade.height), wall(facade.tint, facade.kind, rough, 0.32, facade.height))
        lights = []
        for front, z, bottom, word, tube in boards:
            stacked = len(word) > 3
            size = (0.75, 0.62 * len(word)) if stacked else (1.7, 0.9)
            span = (front + 0.15, front + 0.15 + size[0]) if front < 0 else (front - 0.15 - size[0], front - 0.15)
            canvas.panel("z", z, span, (bottom, bottom + size[1]), sign(word, size, bottom, tube, 1.3, stacked))
            lights.append(Light(sum(span) / 2, bottom + 0.5 * size[1], z - 0.4, tube, 1.6, hidden=True))
        plants = np.random.default_rng(tree_seed)
        for x, z, tall in trees:
            tree(canvas, plants, x, z, tall, leaf)
            canvas.shadow(x, z, 1.2, 0.5)
        for x, z, way in posts:
            lights.append(post(canvas, x, z, 6.2, 1.3 * way, hue, 26.0))
        for car in (oncoming, *kerbside):
            car.paint(canvas)
            canvas.shadow(car.x, car.z + 0.6, 0.75, 0.85, (0.0, 3.0))
        for side in (-0.62, 0.62):
            lights.append(Light(oncoming.x + side, 0.68, oncoming.z - 0.05, HEADLAMP, 90.0, 1.15, (0.0, -0.08, -1.0)))
        return lights

    air = (0.20, 0.19, 0.20) if dusk else (0.085, 0.075, 0.065)
    return Stage(camera, paint, people, ambient, air, 1.15 if dusk else 1.25)


def yard(rng: np.random.Generator, textures: tuple[Texture, Texture, Texture], dusk: bool) -> Stage:
    """A yard seen from above eye level: a house with a flood lamp, walls, numbered parking bays, cars, a tree."""
    rough, soft, leaf = textures
    camera = Camera(_u(rng, 2.6, 3.8), _u(rng, -0.1, 0.1), _u(rng, 0.34, 0.4))
    zenith, glow, ambient = _sky_light(rng, dusk)
    hue = SODIUM if rng.random() < 0.5 else LED
    back = _u(rng, 19, 23)
    height = _u(rng, 7, 11)
    facade = _facade(rng, 19.0, height, rough, 0.25)
    start = _u(rng, -9, -7)
    wing = _facade(rng, 16.0, height * _u(rng, 0.7, 1.2), rough, 0.12)
    side = _u(rng, 10, 11.5)
    fence_x, fence_tint = _u(rng, -10.5, -9), _one(rng, WALLS)
    word, tube = _one(rng, WORDS), _one(rng, NEON)
    bays = (-1.2, -1.2 + 3 * 2.7)
    front = back - 7.0
    ground = Yard(bays, front, 2.7, int(rng.integers(2, 7)) * 10 + 1, _u(rng, 0, 0.8))
    lamp_x = _u(rng, -4.5, -2.5)
    cars = [
        _parked(rng, bays[0] + 1.35, front + 0.6, "towards", 1.0),
        _parked(rng, bays[0] + 1.35 + 5.4, front + 0.5, "away", _u(rng, 0, 0.25)),
    ]
    if rng.random() < 0.6:
        pose = "left" if rng.random() < 0.5 else "right"
        cars.append(_parked(rng, _u(rng, 2.4, 3.4), _u(rng, 9.5, 11), pose, 0.85))
    tree_x, tree_z, tree_seed = fence_x + 2.4, _u(rng, 14, 17), int(rng.integers(1 << 31))
    mast = (side - 2.6, _u(rng, 14, 16))
    people = [
        _person(rng, _u(rng, -3.4, -2.0), _u(rng, 7.5, 9.0)),  # near
        _person(rng, lamp_x + _u(rng, -0.5, 0.9), back - 1.2),  # below the flood lamp
        _person(rng, tree_x + 0.4, tree_z - 1.6),  # by the tree
        _person(rng, _u(rng, 0.2, 2.0), _u(rng, 7.8, 9.2)),
        _person(rng, side - 1.4, _u(rng, 15, 17)),
    ]
    people = [people[0], people[1], *(p for p in people[2:] if rng.random() < 0.7)]

    def paint(canvas: Canvas) -> list[Light]:
        sky(canvas, soft, zenith, glow, 1.0)
        ground.paint(canvas, rough, soft)
        canvas.panel("z", 60.0, (-60, 60), (0, 7.0), wall((0.1, 0.1, 0.11), "plaster", soft, 0.24))
        hedge(canvas, (-30.0, 30.0), 33.0, 4.0, leaf)
        canvas.panel("z", back, (start, start + facade.length), (0, height), facade)
        gate = (start + 12.2, start + 15.6)
        canvas.panel("z", back - 0.02, gate, (0, 3.0), wall((0.12, 0.14, 0.15), "concrete", rough, 0.30, 3.0))
        size = (0.42 * 4 * len(word) / 2.2, 1.0)
        first = max(start + 6.4, lamp_x + 2.8)
        board = (first, first + size[0])
        canvas.panel("z", back - 0.1, board, (2.9, 3.9), sign(word, size, 2.9, tube, 1.1))
        canvas.panel("x", side, (back - 16.0, back), (0, wing.height), wing, mirror=True)
        canvas.panel("x", fence_x, (2.0, back + 4), (0, 2.4), wall(*fence_tint, rough, 0.31, 2.4))
        lights = [Light(sum(board) / 2, 3.3, back - 0.6, tube, 1.4, hidden=True)]
        tree(canvas, np.random.default_rng(tree_seed), tree_x, tree_z, 5.5, leaf)
        canvas.shadow(tree_x, tree_z, 1.3, 0.55)
        for car in cars:
            car.paint(canvas)
            if car.pose in ("left", "right"):
                canvas.shadow(car.x - 1.5, car.z + 0.8, 0.8, 0.85, (3.0, 0.0))
            else:
                canvas.shadow(car.x, car.z + 0.6, 0.75, 0.85, (0.0, 3.0))
        lights.append(wall_lamp(canvas, lamp_x, 3.4, back - 0.1, hue, 34.0))
        lights.append(post(canvas, *mast, 5.6, -1.2, hue, 16.0))
        return lights

    air = (0.20, 0.19, 0.20) if dusk else (0.08, 0.075, 0.07)
    return Stage(camera, paint, people, ambient, air, 1.2 if dusk else 1.35)


def cast_shadows(canvas: Canvas, people: list[Person], lights: list[Light]) -> None:
    """A contact shadow under each person and one cast away from the lamp that lights them most."""
    for person in people:
        canvas.shadow(person.x, person.z, 0.28, 0.6)
        lamps = [light for light in lights if not light.hidden and light.beam is None]
        if not lamps:
            continue
        lamp = max(
            lamps, key=lambda lamp: lamp.power / ((lamp.x - person.x) ** 2 + (lamp.z - person.z) ** 2 + lamp.y**2)
        )
        dx, dz = person.x - lamp.x, person.z - lamp.z
        away = math.hypot(dx, dz)
        length = min(2.6, person.height * away / max(lamp.y - person.height, 1.0))
        if away > 0.2:
            canvas.shadow(person.x, person.z, 0.2, 0.5, (dx / away * length, dz / away * length))
