"""From lit surfaces to two sensors: illumination, wet reflections, glare, haze, tone curve, blur and noise."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from fusionblocks.data.synthetic.canvas import GROUND, Array, Canvas, Colour, colour
from fusionblocks.data.synthetic.objects import Light


def illuminate(canvas: Canvas, lights: Sequence[Light], ambient: Colour) -> Array:
    """Light that leaves each surface to the camera, ``(3, H, W)``: Lambert's law under point lights and an even sky."""
    x, z = canvas.depth * canvas.ray_x, canvas.depth * canvas.ray_z
    y = canvas.camera.eye - canvas.depth * canvas.down
    nx, ny, nz = canvas.normal
    total = np.zeros_like(canvas.albedo)
    for light in lights:
        dx, dy, dz = light.x - x, light.y - y, light.z - z
        square = dx * dx + dy * dy + dz * dz + np.float32(0.3)
        inverse = 1 / np.sqrt(square)
        # a little of the light wraps round corners, as walls and ground pass it on
        cosine = np.maximum(
            (nx * dx + ny * dy + nz * dz) * inverse * np.float32(0.85) + np.float32(0.15), np.float32(0.03)
        )
        shed = np.float32(light.power) * cosine * inverse * inverse
        if light.beam is not None:
            bx, by, bz = light.beam
            aim = np.maximum(-(dx * bx + dy * by + dz * bz) * inverse, 0)
            shed *= aim**12
        total += colour(light.hue) * shed
    total *= canvas.shade
    total += colour(ambient) * (np.float32(0.4) + np.float32(0.6) * canvas.shade)
    total *= canvas.albedo
    total += canvas.emission
    return total


def gaussian_matrix(size: int, sigma: float) -> Array:
    """A Gaussian blur of ``size`` samples as a matrix with rows of sum one."""
    offset = np.arange(size, dtype=np.float32)[:, None] - np.arange(size, dtype=np.float32)[None, :]
    matrix = np.exp(-0.5 * (offset / sigma) ** 2)
    return matrix / matrix.sum(axis=1, keepdims=True)


def blur(x: Array, sigma: float) -> Array:
    """Gaussian blur of ``(..., H, W)``: a short stencil when narrow, matrix products when wide."""
    if sigma < 2:
        radius = max(1, math.ceil(3 * sigma))
        weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2).astype(np.float32)
        weights /= weights.sum()
        edges = [(0, 0)] * (x.ndim - 2)
        height, width = x.shape[-2:]
        padded = np.pad(x, [*edges, (radius, radius), (0, 0)], mode="edge")
        x = sum((w * padded[..., k : k + height, :] for k, w in enumerate(weights)), np.zeros_like(x))
        padded = np.pad(x, [*edges, (0, 0), (radius, radius)], mode="edge")
        return sum((w * padded[..., k : k + width] for k, w in enumerate(weights)), np.zeros_like(x))
    return gaussian_matrix(x.shape[-2], sigma) @ x @ gaussian_matrix(x.shape[-1], sigma).T


def pool(x: Array, factor: int) -> Array:
    """Mean over blocks of ``factor x factor``."""
    height, width = x.shape[-2] // factor, x.shape[-1] // factor
    return x.reshape(*x.shape[:-2], height, factor, width, factor).mean(axis=(-3, -1), dtype=np.float32)


def reflect(linear: Array, wet: Array, label: Array, frame: Canvas, lights: Sequence[Light]) -> None:
    """Add what a wet ground mirrors: the scene turned over at the horizon, and a streak under each light."""
    if not wet.any():
        return
    height = linear.shape[1]
    first = min(height - 1, max(0, int(frame.horizon)))
    soft = blur(np.minimum(linear, 2.0), max(2.0, 0.006 * frame.frame))
    below = np.arange(first, height)
    mirrored = np.clip(np.rint(2 * frame.horizon - below), 0, height - 1).astype(np.int64)
    grazing = np.clip(1.0 - 0.9 * frame.down[first:] / 0.5, 0.25, 1.0)
    strength = 0.6 * wet[first:] * grazing
    linear[:, first:] += strength * soft[:, mirrored]
    rows, columns = np.arange(first, height)[:, None] + 0.5, np.arange(linear.shape[2])[None, :] + 0.5
    ground = label[first:] == GROUND
    for light in lights:
        across, drop, depth = frame.camera.project(light.x, light.y, light.z)
        if light.hidden or depth < 1:
            continue
        foot = frame.camera.project(light.x, 0.0, light.z)[1]
        u = frame.centre + across * frame.frame
        v = frame.horizon + (2 * foot - drop) * frame.frame  # the mirror image of the light
        v0 = frame.horizon + foot * frame.frame
        width = 0.012 * frame.frame * (1 + 0.4 * light.power / 30)
        tall = 0.16 * frame.frame
        streak = np.exp(-(((columns - u) / (width * (1 + 0.6 * np.maximum(rows - v0, 0) / tall))) ** 2))
        streak = streak * np.exp(-(((rows - v) / tall) ** 2)) * np.clip((rows - v0) / (0.3 * tall), 0, 1)
        linear[:, first:] += colour(light.hue) * (1.6 * min(1.5, light.power / 25) * streak * strength * ground)


def veil(linear: Array, depth: Array, frame: Canvas, lights: Sequence[Light], haze: float, air: Colour) -> Array:
    """Haze by the scattering model, with density per metre from ``haze``; lamps light the air around them."""
    if haze <= 0:
        return linear
    through = np.exp(-0.09 * haze * np.minimum(depth, 90.0))
    rows = np.arange(linear.shape[1], dtype=np.float32)[:, None] + 0.5
    columns = np.arange(linear.shape[2], dtype=np.float32)[None, :] + 0.5
    lit = np.broadcast_to(colour(air), linear.shape).copy()
    for light in lights:
        across, drop, away = frame.camera.project(light.x, light.y, light.z)
        if light.hidden or away < 1:
            continue
        square = ((columns - frame.centre) / frame.frame - across) ** 2 + (
            (rows - frame.horizon) / frame.frame - drop
        ) ** 2
        lit += colour(light.hue) * (0.05 * light.power / 25 * 10 / max(away, 8.0) / (1 + square / 0.03))
    return linear * through + lit * (1 - through)


def glare(linear: Array, depth: Array, frame: Canvas, lights: Sequence[Light], haze: float) -> None:
    """Add the halo, the veil and the faint star that each visible lamp spreads in the lens."""
    rows = np.arange(linear.shape[1], dtype=np.float32)[:, None] + 0.5
    columns = np.arange(linear.shape[2], dtype=np.float32)[None, :] + 0.5
    for number, light in enumerate(lights):
        across, drop, away = frame.camera.project(light.x, light.y, light.z)
        u, v = frame.centre + across * frame.frame, frame.horizon + drop * frame.frame
        if light.hidden or away < 1 or not (-40 < u < linear.shape[2] + 40 and -40 < v < linear.shape[1] + 40):
            continue
        i, j = min(max(int(v), 0), linear.shape[1] - 1), min(max(int(u), 0), linear.shape[2] - 1)
        near = depth[max(0, i - 1) : i + 2, max(0, j - 1) : j + 2]
        if (near < away - 1.0).mean() > 0.7:
            continue  # something hides the lamp
        x, y = (columns - u) / frame.frame, (rows - v) / frame.frame
        square = x * x + y * y
        scale = light.glare * math.sqrt(12 / max(away, 6.0)) * (1 + 0.8 * haze)
        core, wide = 0.020 * scale, 0.05 * scale
        spread = 3.0 * np.exp(-square / core**2) + 0.42 / (1 + square / wide**2) ** 1.35
        for angle in (0.35 + 0.1 * number, 1.92 + 0.1 * number):
            c, s = math.cos(angle), math.sin(angle)
            spike = np.exp(-(((c * y - s * x) / 0.0025) ** 2)) * np.exp(-np.abs(c * x + s * y) / (0.045 * scale))
            spread = spread + 0.25 * spike
        white = 0.75 * colour(light.hue) + 0.25
        linear += white * spread.astype(np.float32)


def tone(linear: Array, exposure: float) -> Array:
    """The camera's response: a film-like shoulder, then the display curve."""
    return (1 - np.exp(-exposure * np.maximum(linear, 0))) ** np.float32(1 / 2.2)


def visible_noise(rng: np.random.Generator, picture: Array, noise: float) -> Array:
    """Sensor noise: in mid-tones near ``noise``, up to 1.8 times that in the dark, with coarser chroma."""
    if noise == 0:
        return picture
    luma = np.tensordot(np.array([0.299, 0.587, 0.114], np.float32), picture, 1)
    amount = noise * (0.5 + 1.3 * np.exp(-3.5 * luma))
    shared = rng.standard_normal(luma.shape, np.float32)
    grain: Array = rng.standard_normal(picture.shape, np.float32)
    chroma = (grain + np.roll(grain, 1, -1) + np.roll(grain, 1, -2) + np.roll(grain, (1, 1), (-1, -2))) / 2
    return picture + amount * (0.85 * shared + 0.5 * chroma)


def infrared_noise(rng: np.random.Generator, picture: Array, noise: float) -> Array:
    """Noise of an uncooled detector: half of ``noise`` in each pixel, a fifth in each column, less in each row."""
    if noise == 0:
        return picture
    height, width = picture.shape
    pixel = 0.5 * rng.standard_normal((height, width), np.float32)
    column = 0.2 * rng.standard_normal((1, width), np.float32)
    row = 0.1 * rng.standard_normal((height, 1), np.float32)
    return picture + noise * (pixel + column + row)


def labels(label: Array, factor: int) -> Array:
    """The class most seen in each block of ``factor x factor``; of two equal ones, the later class."""
    height, width = label.shape[0] // factor, label.shape[1] // factor
    blocks = label.reshape(height, factor, width, factor)
    best = np.zeros((height, width), np.int64)
    most = np.zeros((height, width), np.int64)
    for kind in range(int(label.max()) + 1):
        count = (blocks == kind).sum(axis=(1, 3))
        best = np.where((count >= most) & (count > 0), kind, best)
        most = np.maximum(most, count)
    return best
