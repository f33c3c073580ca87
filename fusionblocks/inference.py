"""Pictures in, picture out: fusing any pair with any network."""

from __future__ import annotations

import functools
import inspect
import warnings
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from fusionblocks._support.names import closest
from fusionblocks.alignment.alignment import Alignment
from fusionblocks.image import (
    array_to_image,
    check_range,
    check_values,
    doubts,
    image_to_array,
    luma,
    open_infrared,
    read_image,
    tensor_to_array,
    with_luma,
)
from fusionblocks.image.checks import check_pair
from fusionblocks.image.convert import array_rows
from fusionblocks.image.infrared import ThermalRange
from fusionblocks.image.rows import Rows, Shape, WholeOnlyError, strip_rows
from fusionblocks.metrics.reading import read_gray_levels
from fusionblocks.models.base import FusionModel, evaluating
from fusionblocks.models.packaged import has_random_weights
from fusionblocks.models.registry import DEFAULT_MODEL, create_model
from fusionblocks.models.wrapping import as_network
from fusionblocks.optimization import optimize

MOST_STRETCH = 0.02
"""How much the aspects of two pictures may differ when one is resized to the other's size."""
STRIP_PIXELS = 2**18
"""Pixels that are worked out at once: few enough for the memory, enough that the rows around a strip cost little."""
WHOLE_PIXELS = 2**21
"""Pixels above which a picture is not fused whole, if the network can go by rows."""

Picture = str | Path | Image.Image | np.ndarray | Tensor


def fuse(
    infrared: Picture,
    visible: Picture,
    *,
    model: nn.Module | str | None = None,
    resize: Literal["infrared", "visible"] | None = None,
    tile: int | Literal["auto"] | None = "auto",
    thermal_range: ThermalRange = None,
    black_hot: bool = False,
    alignment: Alignment | None = None,
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
        tile: How large a picture is worked out at once, which bounds the memory. The result is that of the whole
            picture up to rounding, without seams: what a network gathers of the whole picture it gathers first.
            ``"auto"`` goes a strip of rows at a time above two megapixels, if the network can; an integer always
            does, with strips of ``tile * tile`` pixels; ``None`` fuses the picture whole.
        thermal_range: What becomes black and white in the infrared picture, in its own units: counts, gray levels, or
            the values of floats. Use the same for a whole sequence, so that it does not flicker when something hot
            enters. ``"auto"`` takes the picture's own range, whatever its unit (a tensor as it is), and so does
            ``"scene"``, which on the command line is the range of the whole folder
            (:func:`fusionblocks.image.scene_range`). ``None`` takes 16-bit counts and radiometric files by the
            picture's own range and the others as they are.
        black_hot: Whether hot is black in the infrared picture, and not white.
        alignment: How the infrared camera lies over the visible one (:func:`fusionblocks.align`), for pictures as the
            two cameras took them, of any two sizes. Where the infrared camera does not see, the result is the visible
            picture, blended over a soft border. None takes a pair that is aligned already.
        **guidance: The network's further inputs by name (``semantic``, ``infrared_mask``, ...): float arrays
            or tensors, with or without the batch dimension. A mask has the visible picture's size, and may be a path,
            a PIL image, or of booleans, uint8 or uint16 too.

    Warns:
        UserWarning: If a picture is empty or has its bytes swapped, or both seem to be swapped; if the infrared picture
            is in false colours, or lacks data.

    Returns:
        An RGB picture in the kind of ``visible``: a ``PIL.Image`` for paths and PIL images, ``(H, W, 3)`` uint8 for
        arrays, float ``(3, H, W)`` or ``(B, 3, H, W)`` in [0, 1] for tensors.

    Raises:
        FileNotFoundError: If a file does not exist.
        TypeError: If a picture is of an unknown kind or dtype, or the network takes no such guidance.
        ValueError: If a file cannot be read, a shape is not a picture's, sizes or batches differ, values are not in
            [0, 1], the network's result is not finite, or ``tile`` is an integer and the network needs pictures whole.

    Example:
        >>> import numpy as np
        >>> import fusionblocks as fb
        >>> infrared = np.random.default_rng(0).random((48, 65))
        >>> visible = np.random.default_rng(1).integers(0, 256, (48, 65, 3), np.uint8)
        >>> fused = fb.fuse(infrared, visible)
        >>> fused.shape, fused.dtype
        ((48, 65, 3), dtype('uint8'))
    """
    network = network_of(model, visible.device if isinstance(visible, Tensor) else torch.device("cpu"))
    device, dtype = _placement(network, visible)
    pair = open_pair(infrared, visible, resize, device, thermal_range, alignment, black_hot)
    guides = _guides(network, guidance, pair.visible.shape, device, dtype)
    result = _Result(pair.visible.shape, visible)
    with torch.inference_mode(), evaluating(network):
        for rows, fused in _fused(network, pair, guides, dtype, tile).strips():
            own = pair.visible.read(rows.start, rows.stop)
            result.write(rows, _where_both_see(pair, rows, colour_picture(network, fused, own), own))
    return result.picture()


class Pair(NamedTuple):
    """Both pictures by rows, float32 in [0, 1]: ``(B, 1, H, W)`` and ``(B, 3, H, W)``."""

    infrared: Rows
    visible: Rows
    seen: Tensor | None = None
    """How much the infrared camera counts, ``(1, 1, H, W)``; None where it sees all."""


def open_pair(
    infrared: Picture,
    visible: Picture,
    resize: str | None,
    device: torch.device,
    thermal_range: ThermalRange,
    alignment: Alignment | None,
    black_hot: bool = False,
) -> Pair:
    """Return any pictures as a pair, checked; samples of eight or sixteen bits stay so until their rows are read."""
    seen = _visible(visible)
    if isinstance(infrared, Tensor):
        thermal = _tensor_rows("infrared", infrared, _limits_of_tensor(thermal_range))
    else:
        opened = open_infrared("infrared", infrared, thermal_range)
        if isinstance(seen, np.ndarray):
            _tell(doubts(opened.values, seen))
        thermal = array_rows("infrared", opened.values, thermal=True, limits=opened.limits)
    if black_hot:
        thermal = thermal.map(lambda x: 1 - x)
    colour = _tensor_rows("visible", seen) if isinstance(seen, Tensor) else array_rows("visible", seen)
    if alignment is not None:
        return _aligned(thermal, colour, alignment, resize, device)
    thermal, colour = _same_size(thermal, colour, resize)
    pair = Pair(thermal.map(lambda x: _luma(x).to(device)), colour.map(lambda x: _rgb(x).to(device)))
    check_pair(pair.infrared.read(0, 1), pair.visible.read(0, 1))  # of batches; the sizes are the same by now
    return pair


def _aligned(infrared: Rows, visible: Rows, alignment: Alignment, resize: str | None, device: torch.device) -> Pair:
    """Return a pair as both cameras took it as the visible camera sees it."""
    if not isinstance(alignment, Alignment):
        raise TypeError(f"alignment must be an Alignment, got {type(alignment).__name__}")
    if resize is not None:
        raise ValueError(f"resize={resize!r} and alignment exclude each other: an alignment brings its own sizes")
    size = visible.shape[1:]
    colour = visible.map(lambda x: _rgb(x).to(device))
    thermal = alignment.warp(_luma(infrared.whole()).to(device), size)
    seen = torch.from_numpy(alignment.soft_coverage(size)).to(device)[None, None]
    # beyond its view the infrared picture goes on as the visible one, so that a network finds no edge there
    beyond = seen < 1
    if not bool(beyond.any()):
        return Pair(Rows.of(thermal, size[0]), colour)
    thermal = torch.lerp(luma(colour.whole()), thermal, seen)
    return Pair(Rows.of(thermal, size[0]), colour, seen)


def _where_both_see(pair: Pair, rows: slice, fused: Tensor, visible: Tensor) -> Tensor:
    """Return fused rows where the infrared camera sees, visible ones elsewhere."""
    return fused if pair.seen is None else torch.lerp(visible, fused, pair.seen[:, :, rows])


def pair_levels(
    infrared: str | Path,
    visible: str | Path,
    *,
    resize: str | None = None,
    thermal_range: ThermalRange = None,
    black_hot: bool = False,
    alignment: Alignment | None = None,
    colour: bool = False,
) -> tuple[Tensor, Tensor]:
    """Return the pair that :func:`fuse` sees as metrics take it: gray levels ``(1, 1, H, W)``, uint8.

    An 8-bit visible picture of its own size becomes gray as :func:`fusionblocks.metrics.read_gray_levels` makes it.

    Args:
        infrared: A path.
        visible: A path.
        resize: As for :func:`fuse`, like all that follow.
        thermal_range: What becomes black and white in the infrared picture.
        black_hot: Whether hot is black.
        alignment: How the infrared camera lies over the visible one.
        colour: Return the visible picture's three channels, ``(1, 3, H, W)``, instead of its luma.

    Raises:
        FileNotFoundError: If a file does not exist.
        ValueError: As by :func:`fuse`.

    No example: the command line calls it.
    """
    pair = open_pair(infrared, visible, resize, torch.device("cpu"), thermal_range, alignment, black_hot)
    array = read_image(visible)
    if colour:
        levels = (pair.visible.whole() * 255).round().to(torch.uint8)
    elif array.dtype != np.uint16 and array.shape[:2] == pair.visible.shape[1:]:
        levels = read_gray_levels(visible)
    else:
        levels = (luma(pair.visible.whole()) * 255).round().to(torch.uint8)
    return (pair.infrared.whole() * 255).round().to(torch.uint8), levels


def network_inputs(
    network: FusionModel,
    infrared: Picture,
    visible: Picture,
    resize: str | None,
    guidance: dict[str, Any],
    thermal_range: ThermalRange = None,
    alignment: Alignment | None = None,
    black_hot: bool = False,
) -> tuple[dict[str, Any], Tensor]:
    """Return what a network is called with for any pictures, checked, on its device and in its dtype.

    Beside it stands the visible picture ``(B, 3, H, W)`` in float32, for its colours.
    """
    device, dtype = _placement(network, visible)
    pair = open_pair(infrared, visible, resize, device, thermal_range, alignment, black_hot)
    guides = _guides(network, guidance, pair.visible.shape, device, dtype)
    return _whole(pair, guides, dtype), pair.visible.whole()


def _whole(pair: Pair, guides: dict[str, Any], dtype: torch.dtype) -> dict[str, Any]:
    return {"infrared": pair.infrared.whole().to(dtype), "visible": pair.visible.whole().to(dtype), **guides}


def _fused(
    network: FusionModel, pair: Pair, guides: dict[str, Any], dtype: torch.dtype, tile: int | str | None
) -> Rows:
    """Return what the network's head emits, of the whole pair or by rows."""
    if tile is not None and tile != "auto" and (not isinstance(tile, int) or tile < 64):
        raise ValueError(f"tile must be an integer of at least 64 pixels, 'auto' or None, got {tile!r}")
    batch, height, width = pair.visible.shape
    if isinstance(tile, int) or (tile == "auto" and batch * height * width > WHOLE_PIXELS):
        strip = strip_rows(batch * width, tile * tile if isinstance(tile, int) else STRIP_PIXELS)
        try:
            return network.by_rows(
                *(picture.map(lambda x: x.to(dtype)).in_strips(strip) for picture in (pair.infrared, pair.visible))
            )
        except WholeOnlyError as reason:
            if tile != "auto":
                raise ValueError(
                    f"{network.name!r} needs pictures whole, got tile={tile}: {reason}; leave tile away"
                ) from reason
    fused = network(**_whole(pair, guides, dtype)).fused
    return Rows.of(fused, strip_rows(batch * width, STRIP_PIXELS))


class _Result:
    """The fused picture in the kind of the visible one, written strip by strip."""

    def __init__(self, shape: Shape, kind: Picture) -> None:
        self.kind = kind
        batch, height, width = shape
        if isinstance(kind, Tensor):
            self.tensor = torch.empty(batch, 3, height, width, device=kind.device)
        else:
            self.array = np.empty((height, width, 3), np.uint8)

    def write(self, rows: slice, strip: Tensor) -> None:
        """Write some rows ``(B, 3, h, W)`` in [0, 1]."""
        if isinstance(self.kind, Tensor):
            self.tensor[:, :, rows] = strip
        else:
            self.array[rows] = tensor_to_array(strip[0])

    def picture(self) -> Any:
        """Return the picture."""
        if isinstance(self.kind, Tensor):
            return self.tensor if self.kind.ndim == 4 else self.tensor[0]
        return self.array if isinstance(self.kind, np.ndarray) else array_to_image(self.array)


def colour_picture(network: FusionModel, fused: Tensor, visible: Tensor) -> Tensor:
    """Return what a network's head emitted as an RGB picture ``(B, 3, H, W)`` in [0, 1]."""
    fused = fused.float()
    if not torch.isfinite(fused).all():
        raise ValueError(f"the fused picture of {network.name!r} is not finite: are its weights sound?")
    return fused.clamp(0, 1) if network.fused_channels == 3 else with_luma(fused.clamp(0, 1), visible)


def network_of(model: nn.Module | str | None, device: torch.device) -> FusionModel:
    """Return the network that is meant; the default one on a device."""
    if model is None:
        return _default_network(device)
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


def _visible(picture: Picture) -> np.ndarray | Tensor:
    """Return the visible picture as an array or a tensor."""
    if isinstance(picture, str | Path):
        return read_image(picture)
    if isinstance(picture, Image.Image):
        return image_to_array(picture, "visible")
    if not isinstance(picture, np.ndarray | Tensor):
        raise TypeError(f"visible must be a path, a PIL image, an array or a tensor, got {type(picture).__name__}")
    return picture


def _tell(doubts: list[str]) -> None:
    for doubt in doubts:
        warnings.warn(doubt, stacklevel=4)


def _limits_of_tensor(thermal_range: ThermalRange) -> tuple[float, float] | None:
    """Return the numbers of a range; a tensor is taken as it is where the range is to be its own."""
    if thermal_range is None or thermal_range in ("auto", "scene"):
        return None
    return check_range("thermal_range", thermal_range)


def _tensor_rows(name: str, picture: Tensor, limits: tuple[float, float] | None = None) -> Rows:
    """Return a tensor by rows ``(B, C, H, W)``, float32 in [0, 1]."""
    if picture.ndim not in (3, 4) or picture.shape[-3] not in (1, 3) or 0 in picture.shape:
        raise ValueError(
            f"{name} must have shape (C, H, W) or (B, C, H, W) with 1 or 3 channels, got {tuple(picture.shape)}"
        )
    if limits is not None and not picture.is_complex() and picture.dtype != torch.bool:
        low, high = limits
        picture = ((picture.double() - low) / (high - low)).clamp(0, 1).float()
    full = 255 if picture.dtype == torch.uint8 else 1
    if full == 1 and not torch.is_floating_point(picture):
        raise TypeError(f"{name} must be uint8 or float in [0, 1], got {picture.dtype}")
    if full == 1:
        check_values(name, picture)
    picture = picture.reshape(-1, *picture.shape[-3:])
    return Rows.of(picture, picture.shape[2]).map(lambda x: x.float() / full)


def _luma(picture: Tensor) -> Tensor:
    return luma(picture) if picture.shape[1] == 3 else picture


def _rgb(picture: Tensor) -> Tensor:
    return picture if picture.shape[1] == 3 else picture.expand(-1, 3, -1, -1)


def _same_size(infrared: Rows, visible: Rows, resize: str | None) -> tuple[Rows, Rows]:
    """Resize the picture that ``resize`` names, or refuse two sizes."""
    if resize not in (None, "infrared", "visible"):
        raise ValueError(f"resize must be None, 'infrared' or 'visible', got {resize!r}")
    sizes = [picture.shape[1:] for picture in (infrared, visible)]
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


def _resized(picture: Rows, size: tuple[int, int]) -> Rows:
    return Rows.of(F.interpolate(picture.whole(), size, mode="bicubic", antialias=True).clamp(0, 1), size[0])


def _guides(
    network: FusionModel, guidance: dict[str, Any], shape: Shape, device: torch.device, dtype: torch.dtype
) -> dict[str, Any]:
    """Return the guidance as batched tensors beside the pair, refusing names that the network does not take."""
    known = [name for name in inspect.signature(network.forward).parameters if name not in ("infrared", "visible")]
    guides = {}
    for name, value in guidance.items():
        if name not in known:
            takes = f"it takes {', '.join(known)}" if known else "it takes none"
            raise TypeError(f"{network.name!r} takes no guidance {name!r}{closest(name, known)}; {takes}")
        if name.endswith("mask") and value is not None:
            value = _mask(name, value)
            if value.shape[2:] != shape[1:]:
                sizes = [f"{height}x{width}" for height, width in (shape[1:], value.shape[2:])]
                raise ValueError(f"{name} must have the pair's size, {sizes[0]}, got {sizes[1]} (height x width)")
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
        value = image_to_array(value, name) if isinstance(value, Image.Image) else read_image(value)
        return _luma(array_rows(name, value).whole())
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


def in_kind(fused: Tensor, visible: Picture) -> Any:
    """Return the fused batch in the kind of the visible picture."""
    result = _Result(Shape(fused.shape[0], fused.shape[2], fused.shape[3]), visible)
    result.write(slice(None), fused)
    return result.picture()
