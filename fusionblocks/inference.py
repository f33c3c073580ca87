"""Pictures in, picture out: fusing any pair with any network."""

from __future__ import annotations

import functools
import inspect
import warnings
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from fusionblocks.image import (
    array_to_tensor,
    check_range,
    check_values,
    image_to_array,
    luma,
    read_image,
    tensor_to_array,
    with_luma,
)
from fusionblocks.image.checks import check_pair
from fusionblocks.models._packaged import has_random_weights
from fusionblocks.models.base import FusionModel, closest, evaluating
from fusionblocks.models.registry import DEFAULT_MODEL, create_model
from fusionblocks.models.wrapping import as_network
from fusionblocks.optimization import optimize

MOST_STRETCH = 0.02
"""How much the aspects of two pictures may differ when one is resized to the other's size."""
Picture = str | Path | Image.Image | np.ndarray | Tensor


def fuse(
    infrared: Picture,
    visible: Picture,
    *,
    model: nn.Module | str | None = None,
    resize: Literal["infrared", "visible"] | None = None,
    tile: int | None = None,
    thermal_range: tuple[float, float] | None = None,
    **guidance: Any,
) -> Any:
    """Fuse an infrared and a visible picture into a colour picture of their size.

    A network that fuses luma keeps the visible picture's chroma (BT.601, full range); colours that leave the RGB
    cube are brought back at constant hue. The network runs where its weights are, in evaluation mode;
    the default one where ``visible`` is.

    Args:
        infrared: The infrared picture: a path, a PIL image, an array ``(H, W)`` or ``(H, W, C)`` of uint8, uint16 or
            float in [0, 1], or a tensor ``(C, H, W)`` or ``(B, C, H, W)``, uint8 or float in [0, 1]. Three channels
            are reduced to their luma; 16-bit counts are stretched over the scene's own range
            (:func:`fusionblocks.image.thermal_limits`).
        visible: The visible picture, likewise; one channel counts as gray.
        model: A network, a name of :func:`fusionblocks.list_models`, or ``None`` for the default, ``"fusionblocks"``.
            Any module that takes a pair and returns a picture is one (:func:`fusionblocks.wrap`), and so is a network
            within ``torch.compile``, ``DataParallel`` or an averaged copy.
        resize: Which of the two to resize when their sizes differ; ``None`` refuses such a pair. Pictures whose aspects
            differ by more than 2 % are refused too: one would be stretched.
        tile: Longest side in pixels of the pieces that a large picture is cut into, which bounds the memory.
            Pieces overlap by an eighth and are blended. ``None`` fuses the picture whole. Networks with global
            attention see a piece at a time then, so the result differs a little.
        thermal_range: What becomes black and white in the infrared picture, in its own units: counts, gray levels, or
            the values of floats. Use the same for a whole sequence, so that it does not flicker when something hot
            enters. ``None`` takes 16-bit counts by the picture's own range and the others as they are.
        **guidance: The network's further inputs by name (``semantic``, ``infrared_mask``, ...): float arrays
            or tensors, with or without the batch dimension. A mask has the visible picture's size, and may be a path,
            a PIL image, or of booleans, uint8 or uint16 too.

    Returns:
        An RGB picture in the kind of ``visible``: a ``PIL.Image`` for paths and PIL images, ``(H, W, 3)`` uint8 for
        arrays, float ``(3, H, W)`` or ``(B, 3, H, W)`` in [0, 1] for tensors.

    Raises:
        FileNotFoundError: If a file does not exist.
        TypeError: If a picture is of an unknown kind or dtype, or the network takes no such guidance.
        ValueError: If a file cannot be read, a shape is no picture's, sizes or batches differ, values are not in
            [0, 1], or the network's result is not finite.

    Example:
        >>> import numpy as np
        >>> import fusionblocks as fb
        >>> infrared = np.random.default_rng(0).random((48, 65))
        >>> visible = np.random.default_rng(1).integers(0, 256, (48, 65, 3), np.uint8)
        >>> fused = fb.fuse(infrared, visible)
        >>> fused.shape, fused.dtype
        ((48, 65, 3), dtype('uint8'))
    """
    network = _network(model, visible)
    inputs, colour = network_inputs(network, infrared, visible, resize, guidance, thermal_range)
    with torch.inference_mode(), evaluating(network):
        fused = network(**inputs).fused if tile is None else _in_tiles(network, inputs, tile)
        fused = colour_picture(network, fused, colour)
    return in_kind(fused.clone(), visible)


def network_inputs(
    network: FusionModel,
    infrared: Picture,
    visible: Picture,
    resize: str | None,
    guidance: dict[str, Any],
    thermal_range: tuple[float, float] | None = None,
) -> tuple[dict[str, Any], Tensor]:
    """Return what a network is called with for any pictures, checked, on its device and in its dtype.

    Beside it stands the visible picture ``(B, 3, H, W)`` in float32, for its colours.
    """
    device, dtype = _placement(network, visible)
    limits = None if thermal_range is None else check_range("thermal_range", thermal_range)
    thermal = _luma(_to_batch("infrared", infrared, thermal=True, limits=limits)).to(device)
    colour = _rgb(_to_batch("visible", visible)).to(device)
    thermal, colour = _same_size(thermal, colour, resize)
    check_pair(thermal, colour)
    guides = _guides(network, guidance, device, dtype)
    for name, value in guides.items():
        if name.endswith("mask") and value is not None and value.shape[2:] != colour.shape[2:]:
            sizes = [f"{picture.shape[-2]}x{picture.shape[-1]}" for picture in (colour, value)]
            raise ValueError(f"{name} must have the pair's size, {sizes[0]}, got {sizes[1]} (height x width)")
    return {"infrared": thermal.to(dtype), "visible": colour.to(dtype), **guides}, colour


def colour_picture(network: FusionModel, fused: Tensor, visible: Tensor) -> Tensor:
    """Return what a network's head emitted as an RGB picture ``(B, 3, H, W)`` in [0, 1]."""
    fused = fused.float()
    if not torch.isfinite(fused).all():
        raise ValueError(f"the fused picture of {network.name!r} is not finite: are its weights sound?")
    return fused.clamp(0, 1) if network.fused_channels == 3 else with_luma(fused.clamp(0, 1), visible)


def _network(model: nn.Module | str | None, visible: Picture) -> FusionModel:
    if model is None:
        return _default_network(visible.device if isinstance(visible, Tensor) else torch.device("cpu"))
    if isinstance(model, str):
        network = create_model(model)
        if has_random_weights(network):
            warnings.warn(
                f"{model!r} fuses with random weights when given by name: load its weights and pass the network",
                stacklevel=3,
            )
        return network
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a network, a name or None, got {type(model).__name__}")
    return as_network(model)


@functools.cache
def _default_network(device: torch.device) -> FusionModel:
    """Return the network that fuses when none is named, made fast for a CPU; its file is read once."""
    network = create_model(DEFAULT_MODEL).to(device)
    return optimize(network, outputs=("fused",)) if device.type == "cpu" else network


def _placement(network: FusionModel, visible: Picture) -> tuple[torch.device, torch.dtype]:
    """Return where the network runs; one without weights runs where the picture is."""
    weight = next(network.parameters(), None)
    if weight is not None:
        return weight.device, weight.dtype
    return visible.device if isinstance(visible, Tensor) else torch.device("cpu"), torch.float32


def _to_batch(
    name: str, picture: Picture, *, thermal: bool = False, limits: tuple[float, float] | None = None
) -> Tensor:
    """Return any picture as a float tensor ``(B, C, H, W)`` in [0, 1]."""
    if isinstance(picture, str | Path):
        picture = read_image(picture, any_float=limits is not None)
    elif isinstance(picture, Image.Image):
        picture = image_to_array(picture, name)
    if isinstance(picture, np.ndarray):
        return array_to_tensor(name, picture, thermal=thermal, limits=limits)[None]
    if not isinstance(picture, Tensor):
        raise TypeError(f"{name} must be a path, a PIL image, an array or a tensor, got {type(picture).__name__}")
    if picture.ndim not in (3, 4) or picture.shape[-3] not in (1, 3) or 0 in picture.shape:
        raise ValueError(
            f"{name} must have shape (C, H, W) or (B, C, H, W) with 1 or 3 channels, got {tuple(picture.shape)}"
        )
    if limits is not None and not picture.is_complex() and picture.dtype != torch.bool:
        low, high = limits
        picture = ((picture.double() - low) / (high - low)).clamp(0, 1).float()
    elif picture.dtype == torch.uint8:
        picture = picture.float() / 255
    if not torch.is_floating_point(picture):
        raise TypeError(f"{name} must be uint8 or float in [0, 1], got {picture.dtype}")
    check_values(name, picture)
    return picture.float().reshape(-1, *picture.shape[-3:])


def _luma(picture: Tensor) -> Tensor:
    return luma(picture) if picture.shape[1] == 3 else picture


def _rgb(picture: Tensor) -> Tensor:
    return picture if picture.shape[1] == 3 else picture.expand(-1, 3, -1, -1)


def _same_size(infrared: Tensor, visible: Tensor, resize: str | None) -> tuple[Tensor, Tensor]:
    """Resize the picture that ``resize`` names, or refuse two sizes."""
    if resize not in (None, "infrared", "visible"):
        raise ValueError(f"resize must be None, 'infrared' or 'visible', got {resize!r}")
    sizes = [(picture.shape[-2], picture.shape[-1]) for picture in (infrared, visible)]
    if sizes[0] == sizes[1]:
        return infrared, visible
    if resize is None:
        (h_infrared, w_infrared), (h_visible, w_visible) = sizes
        raise ValueError(
            f"infrared and visible must have the same size, got {h_infrared}x{w_infrared} and {h_visible}x{w_visible} "
            "(height x width); pass resize='infrared' or resize='visible' to resize that one, if the two are aligned"
        )
    check_aspects(*sizes)
    if resize == "infrared":
        return _resized(infrared, sizes[1]), visible
    return infrared, _resized(visible, sizes[0])


def check_aspects(infrared: tuple[int, int], visible: tuple[int, int]) -> None:
    """Refuse to resize one picture onto the other, each ``(height, width)``, if that would stretch it."""
    aspects = [width / height for height, width in (infrared, visible)]
    # one pixel more or less is rounding, not another aspect
    rounding = sum(1 / side for size in (infrared, visible) for side in size)
    if abs(aspects[0] / aspects[1] - 1) > max(MOST_STRETCH, rounding):
        raise ValueError(
            f"infrared is {infrared[0]}x{infrared[1]} and visible {visible[0]}x{visible[1]} (height x width), of "
            f"aspects {aspects[0]:.3f} and {aspects[1]:.3f}: resizing would stretch one by more than "
            f"{MOST_STRETCH:.0%}; crop both to the field of view that they share first"
        )


def _resized(picture: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(picture, size, mode="bicubic", antialias=True).clamp(0, 1)


def _guides(network: FusionModel, guidance: dict[str, Any], device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """Return the guidance as batched tensors beside the pair, refusing names that the network does not take."""
    known = [name for name in inspect.signature(network.forward).parameters if name not in ("infrared", "visible")]
    guides = {}
    for name, value in guidance.items():
        if name not in known:
            takes = f"it takes {', '.join(known)}" if known else "it takes none"
            raise TypeError(f"{network.name!r} takes no guidance {name!r}{closest(name, known)}; {takes}")
        if name.endswith("mask") and value is not None:
            value = _mask(name, value)
        elif isinstance(value, np.ndarray):
            value = torch.from_numpy(np.ascontiguousarray(value))
        if isinstance(value, Tensor):
            value = value.to(device, dtype)
            value = value.reshape(*[1] * (2 - value.ndim), *value.shape)
        guides[name] = value
    return guides


def _mask(name: str, value: Any) -> Tensor:
    """Return a mask of any kind as a float tensor ``(B, 1, H, W)`` in [0, 1]."""
    if isinstance(value, str | Path | Image.Image):
        return _luma(_to_batch(name, value))
    if isinstance(value, np.ndarray):
        value = torch.from_numpy(np.ascontiguousarray(value))
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a path, a PIL image, an array or a tensor, got {type(value).__name__}")
    full = {torch.bool: 1, torch.uint8: 255, torch.uint16: 65535}.get(value.dtype)
    if full is not None:
        value = value.float() / full
    if not torch.is_floating_point(value):
        raise TypeError(f"{name} must be of booleans, uint8, uint16 or float in [0, 1], got {value.dtype}")
    check_values(name, value)
    return value.reshape(*[1] * (4 - value.ndim), *value.shape)


def _in_tiles(network: FusionModel, pair: dict[str, Any], tile: int) -> Tensor:
    """Fuse overlapping pieces and blend them with weights that fall linearly towards each piece's border."""
    if not isinstance(tile, int) or tile < 64:
        raise ValueError(f"tile must be an integer of at least 64 pixels, got {tile!r}")
    if any(name not in pair for name in network.guidance_names):
        # a guide sees the picture whole
        pair = {**network.ask_guide(pair["infrared"], pair["visible"]), **pair}
    height, width = pair["infrared"].shape[-2:]
    total: Tensor | None = None
    weights: Tensor | None = None
    for rows in _spans(height, tile):
        for columns in _spans(width, tile):
            piece = {
                name: value[..., rows, columns]
                if isinstance(value, Tensor) and value.shape[-2:] == (height, width)
                else value
                for name, value in pair.items()
            }
            fused = network(**piece).fused.float()
            if total is None or weights is None:
                total = fused.new_zeros(*fused.shape[:2], height, width)
                weights = fused.new_zeros(height, width)
            window = torch.outer(_ramp(fused.shape[-2], tile), _ramp(fused.shape[-1], tile)).to(fused)
            total[..., rows, columns] += fused * window
            weights[rows, columns] += window
    assert total is not None and weights is not None  # noqa: S101 -- a picture has at least one piece
    return total / weights


def _spans(length: int, tile: int) -> list[slice]:
    """Return overlapping spans of at most ``tile`` that cover ``length``, as even as can be."""
    if length <= tile:
        return [slice(0, length)]
    count = -(-(length - tile // 8) // (tile - tile // 8))
    starts = [round(i * (length - tile) / (count - 1)) for i in range(count)]
    return [slice(start, start + tile) for start in starts]


def _ramp(length: int, tile: int) -> Tensor:
    """Return blending weights along a piece: 1 inside, falling towards both ends over the overlap, never 0."""
    overlap = max(tile // 8, 1)
    distance = torch.arange(1, length + 1).minimum(torch.arange(length, 0, -1))
    return (distance / overlap).clamp(max=1)


def in_kind(fused: Tensor, visible: Picture) -> Any:
    """Return the fused batch in the kind of the visible picture."""
    if isinstance(visible, Tensor):
        fused = fused.to(visible.device)
        return fused if visible.ndim == 4 else fused[0]
    array = tensor_to_array(fused[0])
    return array if isinstance(visible, np.ndarray) else Image.fromarray(array)
