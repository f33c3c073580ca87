"""What weather, light and sensors do to a clean picture: drawn, of a chosen strength, each under its class name."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from fusionblocks._support.checks import check_number
from fusionblocks._support.names import closest
from fusionblocks.image import check_picture, check_values

#: The kinds of :func:`degrade`, the class names of a classifier of degradations; ``"clean"`` is not among them.
DEGRADATIONS = ("haze", "low_light", "over_exposure", "rain", "noise", "stripes", "low_contrast")

# what strength 1 stands for
HAZE_DEPTH = 3.0  # optical depth of the farthest point: 5 % of its light arrives
GAMMA = 2.5  # added to 1
DARK_NOISE = 0.06  # standard deviation of read noise; shot noise adds as much at white
STOPS = 4.0  # of exposure
DISPLAY_GAMMA = 2.2
GAUSSIAN_NOISE = 0.2  # standard deviation
STRIPE_OFFSET, STRIPE_GAIN = 0.12, 0.12  # standard deviations over the columns
CONTRAST_LOST = 0.85


def degrade(
    picture: Tensor,
    kind: str,
    *,
    strength: float = 0.5,
    generator: Generator | None = None,
    depth: Tensor | None = None,
) -> Tensor:
    r"""Degrade a clean picture: haze, low light, over-exposure, rain, noise, sensor stripes or low contrast.

    With the clean picture :math:`J` in [0, 1], strength :math:`s`, noise :math:`n` of variance 1, all of it clipped to
    [0, 1]:

    ``"haze"`` (visible)
        :math:`J t + A (1 - t)` with :math:`t = e^{-3 s d}`: the atmospheric scattering model with depth :math:`d` in
        [0, 1] and an almost white airlight :math:`A` in [0.7, 1] (the range of RESIDE).
    ``"low_light"`` (visible)
        :math:`D + 0.06 s \sqrt{1 + D}\, n` with :math:`D = J^{1 + 2.5 s}`: darkened by a gamma, as LLNet was trained,
        with noise whose variance grows with the light as that of photons does.
    ``"over_exposure"`` (visible)
        :math:`2^{4 s / 2.2} J`: up to four stops too long, clipped where the sensor is full.
    ``"rain"`` (visible)
        :math:`J + R - J R`: streaks :math:`R` laid over by the screen model, slanted alike, more and brighter with the
        strength.
    ``"noise"`` (both)
        :math:`J + 0.2 s\, n`: white Gaussian noise, up to 51 gray levels.
    ``"stripes"`` (infrared)
        :math:`(1 + 0.12 s\, g) J + 0.12 s\, o`: a gain :math:`g` and an offset :math:`o` for each column, Gaussian, the
        fixed pattern of uncooled detectors whose columns share an amplifier.
    ``"low_contrast"`` (both)
        :math:`m + (1 - 0.85 s) (J - m)` around the picture's mean :math:`m`.

    What is drawn does not depend on the strength: with one seed, a stronger degradation is more of the same. It is
    drawn on the CPU, picture by picture, and so is the same on any device.

    Args:
        picture: ``(C, H, W)`` or ``(B, C, H, W)``, floating point in [0, 1], with 1 or 3 channels. Each picture of a
            batch is degraded by draws of its own.
        kind: One of ``DEGRADATIONS``.
        strength: From 0, the picture itself, to 1.
        generator: Source of all draws, on the CPU; None takes PyTorch's global one.
        depth: For haze alone: how far each pixel is, ``(H, W)``, ``(1, H, W)`` or ``(B, 1, H, W)`` in [0, 1] with 1 the
            farthest. By default a plausible one is drawn: ground that recedes to a horizon, uneven air above it.

    Returns:
        The degraded picture: a new tensor of the same shape, dtype and device, in [0, 1].

    Raises:
        TypeError: If an argument is of the wrong type, or the picture is not floating point.
        ValueError: If the kind is unknown, a shape or a range is wrong, the generator is not on the CPU, or a depth is
            given for another kind than haze.

    Reference:
        Benchmarking Single-Image Dehazing and Beyond, 2019 (haze); LLNet: A Deep Autoencoder Approach to Natural
        Low-light Image Enhancement, 2017; Removing Rain from a Single Image via Discriminative Sparse Coding, 2015;
        Beyond a Gaussian Denoiser, 2017; Single-Image-Based Nonuniformity Correction of Uncooled Long-Wave Infrared
        Detectors, 2018.

    Example:
        >>> import torch
        >>> from fusionblocks.data import degrade, synthetic_scene
        >>> visible = synthetic_scene(seed=3, height=48, width=64).visible
        >>> dark = degrade(visible, "low_light", strength=0.8, generator=torch.Generator().manual_seed(0))
        >>> bool(dark.mean() < visible.mean() / 2)
        True
    """
    batched = isinstance(picture, Tensor) and picture.ndim == 4
    pictures = picture if batched or not isinstance(picture, Tensor) else picture[None]
    check_picture("picture", pictures, channels=(1, 3))
    check_values("picture", pictures)
    effect = _effect(kind)
    strength = check_number("strength", strength, least=0, most=1)
    if generator is not None and not isinstance(generator, Generator):
        raise TypeError(f"generator must be a torch.Generator, got {type(generator).__name__}")
    if generator is not None and generator.device.type != "cpu":
        raise ValueError(f"generator must be on the CPU, got one on {generator.device}")
    if depth is not None:
        if kind != "haze":
            raise ValueError(f"depth is for kind 'haze' alone, got kind {kind!r}")
        depth = _depth_of(pictures, depth)

    exact = pictures if pictures.dtype == torch.float64 else pictures.float()
    degraded = []
    for index, one in enumerate(exact):
        extra = () if depth is None else (depth[index],)
        degraded.append(effect(one, strength, generator, *extra))
    result = torch.stack(degraded).clamp(0, 1).to(pictures.dtype) if strength else pictures.clone()
    return result if batched else result[0]


# --- the kinds: (C, H, W) to (C, H, W), not clipped ------------------------------------------------------------------


def _haze(picture: Tensor, strength: float, generator: Generator | None, depth: Tensor | None = None) -> Tensor:
    airlight = 0.7 + 0.3 * _uniform(picture, generator, 1, 1, 1)
    tint = 0.06 * (_uniform(picture, generator, 3, 1, 1) - 0.5)
    drawn = _receding(picture, generator)
    transmission = torch.exp(-HAZE_DEPTH * strength * (drawn if depth is None else depth))
    airlight = (airlight + tint[: picture.shape[0]]).clamp(0, 1)
    return picture * transmission + airlight * (1 - transmission)


def _low_light(picture: Tensor, strength: float, generator: Generator | None) -> Tensor:
    dark = picture.clamp(0, 1) ** (1 + GAMMA * strength)
    return dark + DARK_NOISE * strength * torch.sqrt(1 + dark) * _normal(picture, generator, *picture.shape)


def _over_exposure(picture: Tensor, strength: float, generator: Generator | None) -> Tensor:
    # a gain of linear light is a smaller one of the display's values
    return picture * 2 ** (STOPS * strength / DISPLAY_GAMMA)


def _rain(picture: Tensor, strength: float, generator: Generator | None) -> Tensor:
    slant = math.radians(40 * (float(_uniform(picture, generator, 1)) - 0.5))
    side = max(picture.shape[-2:])
    streaks = picture.new_zeros(1, *picture.shape[-2:])
    for number, length in ((3000, 0.04), (500, 0.12)):  # far drops are many and short, near ones few and long
        chance = _uniform(picture, generator, *picture.shape[-2:])
        brightness = 0.4 + 0.6 * _uniform(picture, generator, *picture.shape[-2:])
        drops = (chance < strength * number / side**2) * brightness
        streaks = torch.maximum(streaks, _smear(drops[None], max(4.0, length * side), slant))
    streaks = (streaks * (0.3 + 0.4 * strength)).clamp(0, 1)
    return picture + streaks - picture * streaks


def _noise(picture: Tensor, strength: float, generator: Generator | None) -> Tensor:
    return picture + GAUSSIAN_NOISE * strength * _normal(picture, generator, *picture.shape)


def _stripes(picture: Tensor, strength: float, generator: Generator | None) -> Tensor:
    gain, offset = _normal(picture, generator, 2, 1, 1, picture.shape[-1])
    return (1 + STRIPE_GAIN * strength * gain) * picture + STRIPE_OFFSET * strength * offset


def _low_contrast(picture: Tensor, strength: float, generator: Generator | None) -> Tensor:
    mean = picture.mean()
    return mean + (1 - CONTRAST_LOST * strength) * (picture - mean)


_EFFECTS: dict[str, Callable[..., Tensor]] = dict(
    zip(DEGRADATIONS, (_haze, _low_light, _over_exposure, _rain, _noise, _stripes, _low_contrast), strict=True)
)


def _effect(kind: str) -> Callable[..., Tensor]:
    if not isinstance(kind, str):
        raise TypeError(f"kind must be one of {', '.join(map(repr, DEGRADATIONS))}, got {type(kind).__name__}")
    if kind not in _EFFECTS:
        hint = closest(kind, DEGRADATIONS, "; {}")
        raise ValueError(f"kind must be one of {', '.join(map(repr, DEGRADATIONS))}, got {kind!r}{hint}")
    return _EFFECTS[kind]


# --- what they are made of -------------------------------------------------------------------------------------------


def _uniform(like: Tensor, generator: Generator | None, *shape: int) -> Tensor:
    return torch.rand(shape, generator=generator, dtype=torch.float32, device="cpu").to(like)


def _normal(like: Tensor, generator: Generator | None, *shape: int) -> Tensor:
    return torch.randn(shape, generator=generator, dtype=torch.float32, device="cpu").to(like)


def _receding(picture: Tensor, generator: Generator | None) -> Tensor:
    """Draw a depth ``(1, H, W)`` in [0.05, 1]: ground that recedes to a horizon, and smooth unevenness."""
    height, width = picture.shape[-2:]
    horizon = 0.25 + 0.3 * float(_uniform(picture, generator, 1))
    rows = (torch.arange(height).to(picture) + 0.5) / height
    ground = 0.12 / (0.12 + (rows - horizon).clamp(min=0) / (1 - horizon))  # one over the distance below the horizon
    uneven = F.interpolate(_normal(picture, generator, 1, 1, 4, 5), (height, width), mode="bicubic")[0]
    return (ground[None, :, None] * (1 + 0.15 * uneven)).clamp(0.05, 1)


def _smear(drops: Tensor, length: float, slant: float) -> Tensor:
    """Draw each drop of ``(1, H, W)`` out into a soft streak of ``length`` pixels, ``slant`` radians off vertical."""
    tall, wide = math.ceil(length / 2), math.ceil(length / 2 * abs(math.sin(slant))) + 1
    down, across = (torch.arange(-radius, radius + 1).to(drops) for radius in (tall, wide))
    down, across = down[:, None], across[None, :]
    along = down * math.cos(slant) + across * math.sin(slant)
    aside = across * math.cos(slant) - down * math.sin(slant)
    kernel = torch.exp(-0.5 * (aside / 0.5) ** 2) * (1 - (2 * along / length).square()).clamp(min=0)
    return F.conv2d(drops[None], kernel[None, None], padding=(tall, wide))[0]


def _depth_of(pictures: Tensor, depth: Tensor) -> Tensor:
    """Return a given depth as ``(B, 1, H, W)``, on the pictures' device."""
    check_values("depth", depth)
    batch, _, height, width = pictures.shape
    shapes = {(height, width), (1, height, width), (batch, 1, height, width)}
    if tuple(depth.shape) not in shapes:
        expected = f"({height}, {width}), (1, {height}, {width}) or ({batch}, 1, {height}, {width})"
        raise ValueError(f"depth must have shape {expected}, got {tuple(depth.shape)}")
    exact = torch.float64 if pictures.dtype == torch.float64 else torch.float32
    return depth.to(pictures.device, exact).reshape(-1, 1, height, width).expand(batch, -1, -1, -1)
