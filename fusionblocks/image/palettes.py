"""False colours of thermal cameras: recognised, and turned back into intensities."""

from __future__ import annotations

import functools

import numpy as np

# Colours from cold to hot at equal distances. Cameras differ in shades, so a few knots tell a palette: those of iron
# and rainbow as FLIR's cameras show them, the others as matplotlib defines them.
_KNOTS = {
    "iron": "000000 10006e 3d008b 6b009a 93009c b5029a c80b8b d92e6f"
    " e5401e ee5f04 f28003 f7a600 fcc400 fee21f fff37f fffff9",
    "rainbow": "000000 00007f 0000ff 007fff 00ffff 00ff7f 00ff00 7fff00 ffff00 ff7f00 ff0000 ff7f7f ffffff",
    "jet": "000080 0000ff 0080ff 00ffff 80ff80 ffff00 ff8000 ff0000 800000",
    "hot": "0b0000 600000 b50000 ff0b00 ff6000 ffb500 ffff0f ffff8f ffffff",
    "inferno": "000004 110a30 320a5e 57106e 781c6d 9a2865 bc3754 d84c3e ed6925 f98c0a fcb418 f4df53 fcffa4",
    "magma": "000004 1d1147 51127c 832681 b73779 e55064 fb8761 fec287 fcfdbf",
    "plasma": "0d0887 4c02a1 7e03a8 aa2395 cc4778 e56b5d f89441 fdc328 f0f921",
    "viridis": "440154 472d7b 3b528b 2c728e 21918c 27ad81 5cc863 aadc32 fde725",
    "turbo": "30123b 4040a2 466be3 4294ff 28bceb 18ddc2 32f298 6dfe62 a4fc3c cbed34 ecd13a fdae35 fb8122 ec530f d23105 "
    "ac1701 7a0403",
    "afmhot": "000000 800000 ff8000 ffff80 ffffff",
    "wheel": "ff0029 ff2d00 ff8400 ffda00 cdff00 77ff00 20ff00 00ff36 00ff8c 00ffdc 00cbff 0074ff 001dff 3a00ff 9100ff "
    "e800ff ff00bf",
    "rainbow from red": "ff0000 ff4100 ff8000 ffbe00 fcfd00 7dff00 03fc03 00827d 0305fa 5700ff aa00ff",
    "hsv": "ff0000 ff7c00 fcf500 84ff00 08ff00 00ff74 00fff6 008cff 0010ff 6c00ff e800ff ff0094 ff0018",
    "cool": "00ffff ff00ff",
    "spectrum": "8000ff 4062fa 00b5eb 40ecd4 80ffb4 c0eb8d ffb360 ff6232 ff0000",
}
CLOSED = ("hsv",)
"""Palettes that end where they begin."""
ADVICE = "give the camera's counts or degrees, or a gray palette"
COLOURED = 24
"""Levels between the largest and the smallest of a pixel's three channels from which it has a colour."""
LEAST_COLOURED = 0.3
"""Share of coloured pixels from which a picture may be one in false colours."""
NEAR = 32
"""Distance from a palette's curve, in levels, up to which a colour is taken to be one of it."""
LEAST_NEAR = 0.75
"""Share of a picture's colours that are near the palette they come from; JPEG moves those at edges."""
SAMPLE = 1024
"""Pixels that are looked at, about."""
FEW = 128
"""Cells of 16 levels a side, of 4096, that hold nearly all colours of a picture that was made with some palette."""
VIVID = 64
"""Median of the levels between the channels from which colours are no camera's but a palette's."""


def intensities(name: str, picture: np.ndarray) -> tuple[np.ndarray, str | None]:
    """Return the intensities of a picture in false colours, and the palette's name; others as they are, and None.

    Args:
        name: The argument's name, for errors.
        picture: ``(H, W, 3)`` uint8; any other shape or dtype is returned as it is.

    Returns:
        ``(H, W)`` uint8 with 0 for the palette's coldest and 255 for its hottest colour, and ``"iron"``,
        ``"rainbow"``, ...; or the picture itself and None.

    Raises:
        ValueError: If it has been made with a palette that is not known.

    Example:
        >>> import numpy as np
        >>> from fusionblocks.image import intensities
        >>> ramp = np.linspace(0, 255, 64).round().astype(np.uint8)
        >>> blue_to_red = np.stack([ramp, 0 * ramp, 255 - ramp], axis=-1)[None].repeat(8, axis=0)
        >>> intensities("infrared", blue_to_red)
        Traceback (most recent call last):
            ...
        ValueError: infrared is in false colours of a palette that is not known: give the camera's counts ...
    """
    if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8:
        return picture, None
    sample = picture.reshape(-1, 3)[:: max(1, picture.shape[0] * picture.shape[1] // SAMPLE)].astype(np.int16)
    spread = sample.max(axis=1) - sample.min(axis=1)
    if (spread >= COLOURED).mean() < LEAST_COLOURED:
        return picture, None
    palette, near = min(((key, *_fit(sample, key)) for key in _KNOTS), key=lambda item: item[2])[:2]
    if near >= LEAST_NEAR:
        if palette in CLOSED:
            ends = "whose coldest and hottest colours are one"
            raise ValueError(f"{name} is in false colours of the palette {palette}, {ends}: {ADVICE}")
        return _inverted(picture, _curve(palette)), palette
    cells = np.bincount(((sample[:, 0] >> 4) << 8) | ((sample[:, 1] >> 4) << 4) | (sample[:, 2] >> 4), minlength=4096)
    most = np.searchsorted(np.cumsum(np.sort(cells)[::-1]), 0.98 * len(sample)) + 1
    if np.median(spread) >= VIVID and most <= FEW:
        raise ValueError(f"{name} is in false colours of a palette that is not known: {ADVICE}")
    return picture, None


@functools.cache
def _curve(palette: str) -> np.ndarray:
    """Return the 256 colours of a palette."""
    knots = np.array([list(bytes.fromhex(knot)) for knot in _KNOTS[palette].split()], np.float32)
    places = np.linspace(0, len(knots) - 1, 256)
    return np.stack([np.interp(places, np.arange(len(knots)), knots[:, i]) for i in range(3)], axis=1)


def _fit(colours: np.ndarray, palette: str) -> tuple[float, float]:
    """Return the share of colours that are near a palette's curve, and their mean distance up to twice as near."""
    distances = np.sqrt(_distances(colours, _curve(palette)).min(axis=1).clip(min=0))
    return float((distances <= NEAR).mean()), float(distances.clip(max=2 * NEAR).mean())


def _distances(colours: np.ndarray, curve: np.ndarray) -> np.ndarray:
    """Return the squared distance of every colour to every colour of a curve."""
    colours, curve = colours.astype(np.float32), curve.astype(np.float32)
    return (colours**2).sum(1)[:, None] - 2 * colours @ curve.T + (curve**2).sum(1)


def _inverted(picture: np.ndarray, curve: np.ndarray) -> np.ndarray:
    """Return the place on a curve that is nearest to each pixel's colour."""
    packed = picture.astype(np.uint32) @ np.array([65536, 256, 1], np.uint32)
    values, places = np.unique(packed, return_inverse=True)
    colours = np.stack([values >> 16, values >> 8 & 255, values & 255], axis=1)
    nearest = np.concatenate(
        [_distances(colours[i : i + 4096], curve).argmin(axis=1) for i in range(0, len(colours), 4096)]
    )
    return nearest.astype(np.uint8)[places].reshape(picture.shape[:2])
