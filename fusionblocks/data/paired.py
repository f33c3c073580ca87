"""Aligned infrared-visible pairs as a dataset: paired by name, decoded once, drawn anew in every epoch."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Self

import torch
from torch import Tensor
from torch.utils.data import Dataset

from fusionblocks._support.checks import check_choice, check_whole
from fusionblocks.data._cache import PictureCache
from fusionblocks.data._draws import Draw, generator_of
from fusionblocks.data._reading import PACKED, PairReader, finished
from fusionblocks.data.label_masks import MASKS
from fusionblocks.data.labelled import check_known
from fusionblocks.data.pairs import ImageGroup, UnpairedError, match_folders, told
from fusionblocks.data.transforms import Compose, PairedTransform
from fusionblocks.image import check_range
from fusionblocks.image.infrared import ThermalRange, same_range
from fusionblocks.image.labels import check_class_count

#: How many bytes ``cache=True`` allows.
DEFAULT_CACHE = 4 * 2**30
_READERS = 4  # threads that fill the cache


class PairedImages(Dataset[dict[str, Any]]):
    """Aligned pairs of two folders, by name, with labels and masks where there are any.

    An item is a dict: ``infrared`` ``(1, H, W)`` and ``visible`` ``(3, H, W)``, float32 in [0, 1]; ``name``; with
    labels, ``labels`` ``(H, W)`` int64; and for each of ``masks`` its map ``(1, H, W)``, float32 in [0, 1].

    What chance decides in an item depends on ``seed``, the epoch and the item's index alone: the same crops in every
    run, whatever the order and the number of workers. :meth:`set_epoch` reaches running workers too.

    Args:
        infrared: Folder of infrared pictures. Three channels are reduced to their luma; counts of 16 bits are
            stretched over the range of the whole picture's scene (:func:`fusionblocks.image.thermal_limits`).
        visible: Folder of visible pictures; one channel counts as gray.
        transform: What is done to an item, such as :class:`PairedCrop` or a :class:`Compose` of several; any callable
            that takes and returns the dict will do.
        labels: Folder of label pictures, one class number a pixel, 255 for no class (``fusionblocks.image.VOID``);
            palettes are read by their indices.
        masks: Which of ``"binary"`` (foreground), ``"boundary"`` (borders of classes) and ``"salient"`` to add: names,
            derived from the labels, or a mapping from name to the folder that has them, None to derive. Pixels of no
            class are 0 in derived masks.
        num_classes: How many classes there are, at most 255; labels beyond are refused. None takes all.
        ignore_index: A further label of the files that stands for no class; it becomes 255.
        salient_classes: The classes of the derived ``"salient"`` mask; None takes all but the background, 0.
        thermal_range: What becomes 0 and 1 in all infrared pictures: numbers in their own unit (counts, degrees, gray
            levels); ``"auto"``, each picture's own range; ``"scene"``, that of all together, of fifty at most. None
            takes 16-bit counts and radiometric files by their own range and others as they are.
        unpaired: What to do about names that lack a picture or have two: ``"error"``, or ``"skip"`` them.
        cache: Whether to decode once: pictures are read when the dataset is made and kept as they are decoded, up to
            4 GiB or this many bytes, in memory that worker processes share. What has no room is read each time.
        seed: Of all draws.

    Attributes:
        groups: The files of each item.
        problems: A line for each name that was left out.

    Raises:
        NotADirectoryError: If a folder does not exist.
        UnpairedError: If names have no partner; it lists ten, its ``problems`` all.
        ValueError: If a folder or everything is empty, or an option is unknown. On reading: if a picture is damaged,
            the sizes of a pair differ, or labels lie outside the classes; the message names the file.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> from pathlib import Path
        >>> from fusionblocks.data import PairedCrop, PairedImages
        >>> from fusionblocks.image import write_image
        >>> root = Path(tempfile.mkdtemp())
        >>> for folder, shape in (("ir", (48, 64)), ("vi", (48, 64, 3))):
        ...     (root / folder).mkdir()
        ...     write_image(root / folder / "1.png", np.zeros(shape, np.uint8))
        >>> pairs = PairedImages(root / "ir", root / "vi", transform=PairedCrop(32))
        >>> len(pairs), pairs[0]["infrared"].shape, pairs[0]["visible"].shape, pairs[0]["name"]
        (1, torch.Size([1, 32, 32]), torch.Size([3, 32, 32]), '1')
    """

    def __init__(
        self,
        infrared: str | Path,
        visible: str | Path,
        *,
        transform: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
        labels: str | Path | None = None,
        masks: Sequence[str] | Mapping[str, str | Path | None] = (),
        num_classes: int | None = None,
        ignore_index: int | None = None,
        salient_classes: Sequence[int] | None = None,
        thermal_range: ThermalRange = None,
        unpaired: Literal["error", "skip"] = "error",
        cache: bool | int = False,
        seed: int = 0,
    ) -> None:
        folders: dict[str, str | Path] = {"infrared": infrared, "visible": visible}
        if labels is not None:
            folders["labels"] = labels
        if isinstance(masks, Mapping):
            folders |= {name: folder for name, folder in masks.items() if folder is not None}
        reader = _reader(masks, num_classes, ignore_index, salient_classes, thermal_range)
        listing = match_folders(folders)
        self._start(listing.groups, listing.problems, reader, transform, unpaired, cache, seed)

    @classmethod
    def from_groups(
        cls,
        groups: Sequence[ImageGroup],
        *,
        transform: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
        masks: Sequence[str] = (),
        num_classes: int | None = None,
        ignore_index: int | None = None,
        salient_classes: Sequence[int] | None = None,
        thermal_range: ThermalRange = None,
        unpaired: Literal["error", "skip"] = "error",
        problems: Sequence[str] = (),
        cache: bool | int = False,
        seed: int = 0,
    ) -> Self:
        """Make the dataset of files that are matched already.

        Args:
            groups: The files of each item under ``infrared`` and ``visible``, or ``packed`` for one file with red,
                green, blue and infrared; and under ``labels`` and the names of masks.
            transform: As for the class, like all that follow.
            masks: Masks to add, read where a group has a file for them, else derived from its labels.
            num_classes: How many classes there are.
            ignore_index: A further label of the files that stands for no class.
            salient_classes: The classes of the derived ``"salient"`` mask.
            thermal_range: What becomes 0 and 1 in all infrared pictures.
            unpaired: What to do about the problems.
            problems: A line for each name that makes no item.
            cache: Whether to decode once.
            seed: Of all draws.
        """
        pairs = cls.__new__(cls)
        reader = _reader(masks, num_classes, ignore_index, salient_classes, thermal_range)
        pairs._start(tuple(groups), tuple(problems), reader, transform, unpaired, cache, seed)
        return pairs

    def _start(
        self,
        groups: tuple[ImageGroup, ...],
        problems: tuple[str, ...],
        reader: PairReader,
        transform: Callable[[dict[str, Any]], dict[str, Any]] | None,
        unpaired: str,
        cache: bool | int,
        seed: int,
    ) -> None:
        if unpaired not in ("error", "skip"):
            raise ValueError(f"unpaired must be 'error' or 'skip', got {unpaired!r}")
        if problems and (unpaired == "error" or not groups):
            raise UnpairedError(told(problems, skip=bool(groups)), problems)
        if not groups:
            raise ValueError("there are no pairs")
        _check_masks(groups, reader)
        self.groups, self.problems = groups, problems
        self.reader = replace(reader, thermal_range=_common_range(groups, reader.thermal_range))
        self.transform = transform
        self.seed = check_whole("seed", seed, 0)
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()
        self._cache = _new_cache(cache)
        self._fill()

    def __len__(self) -> int:
        return len(self.groups)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.draw(index)

    @property
    def names(self) -> list[str]:
        """The names of the items."""
        return [group.name for group in self.groups]

    @property
    def epoch(self) -> int:
        """The epoch whose draws items get."""
        return int(self._epoch)

    @property
    def cached(self) -> int:
        """How many pairs are kept in memory."""
        return 0 if self._cache is None else len(self._cache)

    def set_epoch(self, epoch: int) -> None:
        """Let items draw anew, in this process and in its workers; call it between two epochs.

        Args:
            epoch: The number of the epoch, from 0.
        """
        self._epoch.fill_(check_whole("epoch", epoch, 0))

    def draw(self, index: int, repeat: int = 0) -> dict[str, Any]:
        """Return an item, or one more version of it.

        Args:
            index: Which item.
            repeat: Which version: each draws its own crop from the same pictures.

        Raises:
            IndexError: If there is no such item.
        """
        if not -len(self) <= index < len(self):
            raise IndexError(f"index must lie in [0, {len(self)}), got {index}")
        return self.transformed(self.read(index), index, repeat)

    def read(self, index: int) -> dict[str, Any]:
        """Return the decoded pictures of an item, from memory where they are kept: uint8, unless they are deeper."""
        group = self.groups[index]
        kept = None if self._cache is None else self._cache.get(_key(group))
        return {**(self.reader.read(group) if kept is None else kept), "name": group.name}

    def transformed(self, item: dict[str, Any], index: int, repeat: int = 0) -> dict[str, Any]:
        """Return what becomes of decoded pictures in this epoch."""
        generator = generator_of(self.seed, Draw.ITEM, self.epoch, index % len(self), repeat)
        raw = True
        for step in _steps(self.transform):
            if raw and not (isinstance(step, PairedTransform) and step.any_dtype):
                item, raw = finished(item), False
            item = step(item, generator) if isinstance(step, PairedTransform) else step(item)
        if raw:
            return finished(item)
        return {name: value.contiguous() if isinstance(value, Tensor) else value for name, value in item.items()}

    def subset(
        self, indices: Sequence[int], *, transform: Callable[[dict[str, Any]], dict[str, Any]] | None = None
    ) -> Self:
        """Return the dataset of some of the items, which shares this one's memory.

        Args:
            indices: Which, in their order.
            transform: What is done to them; None: what is done here.

        Raises:
            IndexError: If there is no such item.
            ValueError: If there are none.

        Example:
            >>> from fusionblocks.data import hold_out
            >>> learned, judged = hold_out(range(10), 0.2)  # pairs.subset(learned), pairs.subset(judged)
            >>> len(learned), len(judged)
            (8, 2)
        """
        part = copy.copy(self)
        part.groups = tuple(self.groups[index] for index in indices)
        if not part.groups:
            raise ValueError("indices must hold at least one item, got none")
        part.transform = self.transform if transform is None else transform
        part._epoch = self._epoch.clone().share_memory_()
        return part

    def _fill(self) -> None:
        """Decode until the memory is full."""
        cache = self._cache
        if cache is None:
            return
        with ThreadPoolExecutor(_READERS) as pool:
            for start in range(0, len(self), 4 * _READERS):
                block = self.groups[start : start + 4 * _READERS]
                decoded = zip(block, pool.map(self.reader.read, block), strict=True)
                if not all(cache.add(_key(group), parts) for group, parts in decoded):
                    break
        cache.trim()


def _key(group: ImageGroup) -> str:
    """Return what tells an item from all others; two splits may have the same names."""
    return "\n".join(map(str, group.files.values()))


def _reader(
    masks: Sequence[str] | Mapping[str, str | Path | None],
    num_classes: int | None,
    ignore_index: int | None,
    salient_classes: Sequence[int] | None,
    thermal_range: ThermalRange,
) -> PairReader:
    if isinstance(masks, str):
        raise TypeError(f"masks must be a sequence of names or a mapping, got the string {masks!r}")
    check_known("mask", tuple(masks), MASKS)
    if num_classes is not None:
        check_class_count("num_classes", check_whole("num_classes", num_classes, 1))
    salient = None if salient_classes is None else tuple(salient_classes)
    if not (thermal_range is None or isinstance(thermal_range, str)):
        thermal_range = check_range("thermal_range", thermal_range)
    elif thermal_range is not None:
        check_choice("thermal_range", thermal_range, ("auto", "scene"))
    return PairReader(tuple(masks), num_classes, ignore_index, salient, thermal_range)


def _common_range(groups: Sequence[ImageGroup], thermal_range: ThermalRange) -> ThermalRange:
    """Return a range that each picture may be read with."""
    files = [group.files["infrared"] for group in groups if "infrared" in group.files]
    return same_range(thermal_range, files) if files else thermal_range


def _check_masks(groups: Sequence[ImageGroup], reader: PairReader) -> None:
    for mask in reader.masks:
        for group in groups:
            if mask not in group.files and "labels" not in group.files:
                raise ValueError(f"the {mask} mask of {group.name} has neither a file nor labels to derive it from")
    for group in groups:
        if PACKED not in group.files and not {"infrared", "visible"} <= set(group.files):
            raise ValueError(f"{group.name} must have an infrared and a visible file, got {', '.join(group.files)}")


def _new_cache(cache: bool | int) -> PictureCache | None:
    if cache is False:
        return None
    return PictureCache(DEFAULT_CACHE if cache is True else check_whole("cache", cache, 1))


def _steps(transform: Callable[..., dict[str, Any]] | None) -> list[Callable[..., dict[str, Any]]]:
    """Return the parts of a transform, those of nested compositions included."""
    if transform is None:
        return []
    if isinstance(transform, Compose):
        return [step for part in transform.transforms for step in _steps(part)]
    return [transform]
