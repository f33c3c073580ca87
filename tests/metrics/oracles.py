"""Published formulations written down literally, window by window or with scipy, to compare with."""

from __future__ import annotations

import numpy as np
from scipy import ndimage, signal

Array = np.ndarray


def gaussian_window(side: int, sigma: float) -> Array:
    y, x = np.mgrid[-(side // 2) : side // 2 + 1, -(side // 2) : side // 2 + 1]
    window = np.exp(-(x * x + y * y) / (2 * sigma * sigma))
    return window / window.sum()


def vif(reference: Array, distorted: Array) -> float:
    kept = available = 0.0
    for scale in range(1, 5):
        side = 2 ** (5 - scale) + 1
        window = gaussian_window(side, side / 5)

        def smooth(x: Array, window: Array = window) -> Array:
            return signal.convolve2d(x, window, mode="valid")

        if scale > 1:
            reference, distorted = smooth(reference)[::2, ::2], smooth(distorted)[::2, ::2]
        mean_r, mean_d = smooth(reference), smooth(distorted)
        var_r = np.maximum(smooth(reference * reference) - mean_r**2, 0)
        var_d = np.maximum(smooth(distorted * distorted) - mean_d**2, 0)
        cov = smooth(reference * distorted) - mean_r * mean_d
        gain = cov / (var_r + 1e-10)
        noise = var_d - gain * cov
        flat = var_r < 1e-10
        gain[flat], noise[flat], var_r[flat] = 0, var_d[flat], 0
        flat = var_d < 1e-10
        gain[flat], noise[flat] = 0, 0
        inverted = gain < 0
        noise[inverted], gain[inverted] = var_d[inverted], 0
        noise = np.maximum(noise, 1e-10)
        kept += np.log10(1 + gain**2 * var_r / (noise + 2)).sum()
        available += np.log10(1 + var_r / 2).sum()
    return 1.0 if available == 0 else kept / available


def qabf(fused: Array, sources: list[Array], scale: float = 1.0) -> float:
    upper = np.array([[1.0, 2, 1], [0, 0, 0], [-1, -2, -1]])
    side = np.array([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]])

    def edges(x: Array) -> tuple[Array, Array]:
        sx = signal.convolve2d(scale * x, side, mode="same")
        sy = signal.convolve2d(scale * x, upper, mode="same")
        angle = np.full_like(x, np.pi / 2)
        angle[sx != 0] = np.arctan(sy[sx != 0] / sx[sx != 0])
        return np.sqrt(sx**2 + sy**2), angle

    strength_f, angle_f = edges(fused)
    kept = present = 0.0
    for source in sources:
        strength, angle = edges(source)
        ratio = np.zeros_like(source)
        for at in np.ndindex(source.shape):
            g, gf = strength[at], strength_f[at]
            ratio[at] = gf / g if g > gf else gf if g == gf else g / gf
        agreement = 1 - np.abs(angle - angle_f) / (np.pi / 2)
        quality = 0.9994 / (1 + np.exp(-15 * (ratio - 0.5))) * 0.9879 / (1 + np.exp(-22 * (agreement - 0.8)))
        kept += (quality * strength).sum()
        present += strength.sum()
    return kept / present


def nabf(fused: Array, sources: list[Array], stronger_than: str) -> float:
    def edges(x: Array) -> tuple[Array, Array]:
        down, across = ndimage.sobel(x, axis=0), ndimage.sobel(x, axis=1)
        return np.sqrt(down**2 + across**2), np.arctan2(down, across)

    strength_f, angle_f = edges(fused)
    artificial, total, stronger = np.zeros_like(fused), 0.0, []
    for source in sources:
        strength, angle = edges(source)
        ratio = np.zeros_like(source)
        edge = strength > 0
        ratio[edge] = np.minimum(strength, strength_f)[edge] / np.maximum(strength, strength_f)[edge]
        turn = np.abs(np.abs(angle - angle_f) - np.pi / 2) * 2 / np.pi
        quality = np.sqrt(0.9999 / (1 + np.exp(-19 * (ratio - 0.5))) * 0.9995 / (1 + np.exp(-22 * (turn - 0.5))))
        weight = np.where(strength >= 2, 0.001 * strength**1.5, 0.001)
        artificial += (1 - quality) * weight
        total += weight.sum()
        stronger.append(strength_f > strength)
    where = stronger[0] if stronger_than == "infrared" else stronger[0] & stronger[1]
    return (artificial * where).sum() / total


def stretch(x: Array) -> Array:
    return np.floor((x - x.min()) / (x.max() - x.min()) * 255 + 0.5)


def frequency_plane(shape: tuple[int, int], across: float, down: float) -> Array:
    """Return the radius of the centred frequencies, ``freqspace`` times a factor for each direction."""
    v, u = ((np.arange(n) - n // 2) * 2 / n for n in shape)
    return np.hypot(*np.meshgrid(across * u, down * v))


def filter_centred(x: Array, gain: Array) -> Array:
    filtered = np.fft.ifft2(np.fft.ifftshift(np.fft.fftshift(np.fft.fft2(x)) * gain))
    return filtered.real


def qcb(fused: Array, sources: list[Array]) -> float:
    height, width = fused.shape
    radius = frequency_plane(fused.shape, width / 30, height / 30)
    gain = np.exp(-((radius / 15.3870) ** 2)) - 0.7622 * np.exp(-((radius / 1.3456) ** 2))

    def perceived(x: Array) -> Array:
        y, z = np.mgrid[-15:16, -15:16]
        blurs = [
            signal.correlate2d(
                filter_centred(stretch(x), gain),
                np.exp(-(y * y + z * z) / (2 * sigma**2)) / (2 * np.pi * sigma**2),
                mode="same",
            )
            for sigma in (2, 4)
        ]
        contrast = np.abs(blurs[0] / blurs[1] - 1)
        return contrast**3 / (contrast**2 + 0.0001)

    c1, c2, cf = (perceived(x) for x in (*sources, fused))
    q1, q2 = (np.where(c < cf, c / cf, cf / c) for c in (c1, c2))
    return float(((c1**2 * q1 + c2**2 * q2) / (c1**2 + c2**2)).mean())


def qcv(fused: Array, sources: list[Array], side: int = 16, exponent: float = 5) -> float:
    height, width = fused.shape
    radius = frequency_plane(fused.shape, width / 8, height / 8)
    gain = 2.6 * (0.0192 + 0.144 * radius) * np.exp(-((0.144 * radius) ** 1.1))
    kernel = np.array([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]])
    weighted = total = 0.0
    for source in sources:
        level = stretch(source)
        strength = np.hypot(
            signal.correlate2d(level, kernel, mode="same"), signal.correlate2d(level, kernel.T, mode="same")
        )
        seen = filter_centred(level - stretch(fused), gain)
        for top in range(0, height, side):
            for left in range(0, width, side):
                region = np.s_[top : top + side, left : left + side]
                salience = (strength[region] ** exponent).sum()
                weighted += salience * (seen[region] ** 2).sum() / side**2
                total += salience
    return weighted / total
