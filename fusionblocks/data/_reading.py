"""One pair from its files: decoded, checked, eight-bit pictures left as they lie until an item is made of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fusionblocks.data.label_masks import boundary_mask, class_mask
from fusionblocks.data.pairs import ImageGroup
from fusionblocks.image import array_to_tensor, luma, open_infrared, read_image
from fusionblocks.image.infrared import ThermalRange
from fusionblocks.image.labels import VOID, with_void

PACKED = "packed"  # one file with red, green, blue and infrared
BACKGROUND = 0


@dataclass(frozen=True)
class PairReader:
    """How the files of a group become the tensors of an item.

    Pictures come as uint8 where the file has eight bits, which is a quarter of the memory and what a crop is cheap to
    take from; :func:`finished` makes floats of them.
    """

    masks: tuple[str, ...] = ()
    num_classes: int | None = None
    ignore_index: int | None = None
    salient_classes: tuple[int, ...] | None = None
    thermal_range: ThermalRange = None

    def read(self, group: ImageGroup) -> dict[str, Tensor]:
        files = group.files
        if PACKED in files:
            infrared, visible = _packed(files[PACKED], self.thermal_range)
        else:
            infrared, visible = _infrared(files["infrared"], self.thermal_range), _visible(files["visible"])
        parts = {"infrared": infrared, "visible": visible}
        if "labels" in files:
            parts["labels"] = self._labels(files["labels"])
        for mask in self.masks:
            parts[mask] = _mask(files[mask]) if mask in files else self._derived(mask, parts["labels"])
        _check_sizes(group, parts)
        return parts

    def _labels(self, file: Path) -> Tensor:
        array = read_image(file, raw=True)
        if array.ndim == 3 and (array[..., :1] == array[..., :3]).all():
            array = array[..., 0]
        if array.ndim == 3 or not np.issubdtype(array.dtype, np.integer):
            raise ValueError(f"labels {file} must be one number a pixel, got a picture of {array.shape} {array.dtype}")
        labels = torch.from_numpy(array if array.dtype == np.uint8 else array.astype(np.int64))
        labels = with_void(labels, self.ignore_index)
        if self.num_classes is not None:
            found = labels.flatten().bincount().nonzero().flatten().tolist()
            outside = [label for label in found if label >= self.num_classes and label != VOID]
            if outside:
                raise ValueError(
                    f"labels {file} hold {', '.join(map(str, outside))}, expected 0 to {self.num_classes - 1}, "
                    f"or {VOID} for no class"
                )
        return labels

    def _derived(self, mask: str, labels: Tensor) -> Tensor:
        if mask == "boundary":
            marked = boundary_mask(labels)
        elif mask == "salient" and self.salient_classes is not None:
            marked = class_mask(labels, self.salient_classes)
        else:
            marked = (labels != BACKGROUND) & (labels != VOID)
        return marked[None].to(torch.uint8) * 255


def finished(item: dict[str, object]) -> dict[str, object]:
    """Return an item with float pictures in [0, 1] and int64 labels, each contiguous and in memory of its own."""
    made: dict[str, object] = {}
    for name, value in item.items():
        if isinstance(value, Tensor) and name == "labels":
            value = value.to(torch.int64, copy=True)
        elif isinstance(value, Tensor) and value.dtype == torch.uint8:
            value = value.float() / 255
        elif isinstance(value, Tensor):
            value = value.clone(memory_format=torch.contiguous_format)
        if isinstance(value, Tensor):
            value = (value.expand(3, -1, -1) if name == "visible" else value).contiguous()
        made[name] = value
    return made


def _infrared(file: Path, thermal_range: ThermalRange) -> Tensor:
    opened = open_infrared(f"infrared {file}", file, thermal_range)
    return _one_channel(str(file), opened.values, thermal=True, limits=opened.limits)


def _mask(file: Path) -> Tensor:
    picture = _one_channel(str(file), read_image(file), thermal=False)
    if picture.dtype == torch.uint8:
        found = set(picture.flatten().bincount().nonzero().flatten().tolist())
        if 1 in found and found <= {0, 1, VOID}:  # classes: black and white, and beside them perhaps no class
            return (picture == 1).to(torch.uint8) * 255
    return picture


def _one_channel(name: str, array: np.ndarray, thermal: bool, limits: tuple[float, float] | None = None) -> Tensor:
    if array.ndim == 3 and (array[..., :1] == array).all():  # gray, stored as three equal channels
        array = array[..., 0]
    if array.ndim == 2 and array.dtype == np.uint8 and limits is None:
        return torch.from_numpy(array)[None]
    picture = array_to_tensor(name, array, thermal=thermal, limits=limits)
    return luma(picture[None])[0] if picture.shape[0] == 3 else picture


def _visible(file: Path) -> Tensor:
    """Return a visible picture of one channel or three."""
    array = read_image(file)
    if array.dtype != np.uint8:
        return array_to_tensor(str(file), array)
    return torch.from_numpy(array)[None] if array.ndim == 2 else torch.from_numpy(array).permute(2, 0, 1)


def _packed(file: Path, thermal_range: ThermalRange) -> tuple[Tensor, Tensor]:
    array = read_image(file, raw=True)
    if array.ndim != 3 or array.shape[2] != 4:
        raise ValueError(
            f"{file} must have red, green, blue and infrared in 4 channels of 8 bits, got {array.dtype} {array.shape}"
        )
    channels = torch.from_numpy(array).permute(2, 0, 1)
    limits = None if isinstance(thermal_range, str) else thermal_range  # eight bits are their own range
    infrared = channels[3:] if limits is None else array_to_tensor(str(file), array[..., 3], limits=limits)
    return infrared, channels[:3]


def _check_sizes(group: ImageGroup, parts: dict[str, Tensor]) -> None:
    sizes = {name: f"{part.shape[-2]}x{part.shape[-1]}" for name, part in parts.items()}
    for name, size in sizes.items():
        if size != sizes["visible"]:
            raise ValueError(
                f"{group.name}: {name} and visible must have the same size, got {size} and {sizes['visible']} "
                f"(height x width) in {group.files.get(name, group.name)} and {group.files.get('visible', group.name)}"
            )
