"""Joint changes of an item: what happens to one modality happens to the other, to the labels and to the masks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Generator, Tensor

from fusionblocks._support.checks import check_number, check_whole
from fusionblocks.data.degradations import DEGRADATIONS, degrade
from fusionblocks.data.labelled import check_known
from fusionblocks.image import Padding, reflect_pad

#: The degradations of a visible camera, by default of :class:`PairedDegrade`.
VISIBLE_DEGRADATIONS = ("haze", "low_light", "over_exposure", "rain", "noise", "low_contrast")


class PairedTransform:
    """Base of the joint changes: a callable from item to item that draws from a given generator.

    Every tensor of the item whose last two dimensions are those of ``infrared`` is a picture of the scene and changes
    with it; anything else is passed on. The given item stays as it is.

    Example:
        >>> import torch
        >>> from fusionblocks.data import PairedTransform
        >>> class Negative(PairedTransform):
        ...     def __call__(self, item, generator=None):
        ...         return {**item, "infrared": 1 - item["infrared"]}
        >>> Negative()({"infrared": torch.zeros(1, 2, 2), "visible": torch.zeros(3, 2, 2)})["infrared"].mean()
        tensor(1.)
    """

    #: Whether it moves pixels alone, and so takes pictures of uint8 before they become floats.
    any_dtype: ClassVar[bool] = False

    def __call__(self, item: dict[str, Any], generator: Generator | None = None) -> dict[str, Any]:
        """Return the changed item; without a generator PyTorch's global one is drawn from, which workers have seeded.

        Args:
            item: A dict with ``infrared`` and ``visible``.
            generator: Source of all draws, on the CPU.
        """
        raise NotImplementedError


class Compose(PairedTransform):
    """Several changes in a row.

    Args:
        transforms: Each a :class:`PairedTransform`, or any callable from item to item.

    Example:
        >>> import torch
        >>> from fusionblocks.data import Compose, PairedCrop, PairedFlip
        >>> item = {"infrared": torch.rand(1, 48, 64), "visible": torch.rand(3, 48, 64)}
        >>> Compose([PairedCrop(32), PairedFlip()])(item)["visible"].shape
        torch.Size([3, 32, 32])
    """

    def __init__(self, transforms: Sequence[Callable[..., dict[str, Any]]]) -> None:
        for transform in transforms:
            if not callable(transform):
                raise TypeError(f"transforms must be callables, got {type(transform).__name__}")
        self.transforms = tuple(transforms)

    def __call__(self, item: dict[str, Any], generator: Generator | None = None) -> dict[str, Any]:
        for transform in self.transforms:
            item = transform(item, generator) if isinstance(transform, PairedTransform) else transform(item)
        return item


class PairedCrop(PairedTransform):
    """A window at the same place of all pictures of an item.

    Args:
        size: Rows and columns, or one number for both.
        pad: Reflect a picture that is too small, evenly on all sides, instead of refusing it.
        center: Take the middle instead of a place by chance, as validation wants it.

    Raises:
        ValueError: If the window is larger than the picture and ``pad`` is not set.

    Example:
        >>> import torch
        >>> from fusionblocks.data import PairedCrop
        >>> item = {"infrared": torch.rand(1, 48, 64), "visible": torch.rand(3, 48, 64)}
        >>> PairedCrop((32, 40))(item)["infrared"].shape
        torch.Size([1, 32, 40])
    """

    any_dtype = True

    def __init__(self, size: int | tuple[int, int], *, pad: bool = False, center: bool = False) -> None:
        sides = (size, size) if isinstance(size, int) else tuple(size)
        if len(sides) != 2:
            raise ValueError(f"size must be one number or rows and columns, got {size!r}")
        self.height, self.width = (check_whole("size", side, 1) for side in sides)
        self.pad, self.center = pad, center

    def __call__(self, item: dict[str, Any], generator: Generator | None = None) -> dict[str, Any]:
        height, width = _size(item)
        if height < self.height or width < self.width:
            if not self.pad:
                raise ValueError(
                    f"{item.get('name', 'an item')}: a crop of {self.height}x{self.width} does not fit into a picture "
                    f"of {height}x{width} (height x width); pass pad=True to reflect small pictures"
                )
            padding = Padding(*_missing(self.width - width), *_missing(self.height - height))
            item = _changed(item, lambda picture: reflect_pad(picture, padding))
            height, width = _size(item)
        top, left = self._place(height - self.height, generator), self._place(width - self.width, generator)
        return _changed(item, lambda picture: picture[..., top : top + self.height, left : left + self.width])

    def _place(self, room: int, generator: Generator | None) -> int:
        return room // 2 if self.center else int(torch.randint(room + 1, (), generator=generator))


class PairedFlip(PairedTransform):
    """Mirror all pictures of an item, or none, by chance.

    Args:
        horizontal: Chance to exchange left and right.
        vertical: Chance to exchange top and bottom.

    Example:
        >>> import torch
        >>> from fusionblocks.data import PairedFlip
        >>> item = {"infrared": torch.tensor([[[0.0, 1.0]]]), "visible": torch.zeros(3, 1, 2)}
        >>> PairedFlip(horizontal=1.0)(item)["infrared"]
        tensor([[[1., 0.]]])
    """

    any_dtype = True

    def __init__(self, *, horizontal: float = 0.5, vertical: float = 0.0) -> None:
        self.horizontal = check_number("horizontal", horizontal, least=0, most=1)
        self.vertical = check_number("vertical", vertical, least=0, most=1)

    def __call__(self, item: dict[str, Any], generator: Generator | None = None) -> dict[str, Any]:
        # drawn both always, so that one chance does not shift the other's draws
        chances = torch.rand(2, generator=generator).tolist()
        wanted = zip(chances, (self.horizontal, self.vertical), (-1, -2), strict=True)
        sides = [side for chance, bound, side in wanted if chance < bound]
        return _changed(item, lambda picture: picture.flip(sides)) if sides else item


class PairedRotate(PairedTransform):
    """Turn all pictures of an item by the same right angle, drawn by chance; no pixel is interpolated.

    Pictures that are not square are turned by 0 or 180 degrees alone, so that they keep their shape in a batch.

    Example:
        >>> import torch
        >>> from fusionblocks.data import PairedRotate
        >>> item = {"infrared": torch.rand(1, 32, 32), "visible": torch.rand(3, 32, 32)}
        >>> turned = PairedRotate()(item)
        >>> bool(turned["infrared"].sum().isclose(item["infrared"].sum()))
        True
    """

    any_dtype = True

    def __call__(self, item: dict[str, Any], generator: Generator | None = None) -> dict[str, Any]:
        height, width = _size(item)
        turns = int(torch.randint(4, (), generator=generator))
        turns = turns if height == width else 2 * (turns % 2)
        return _changed(item, lambda picture: picture.rot90(turns, (-2, -1))) if turns else item


class PairedDegrade(PairedTransform):
    """Degrade a clean pair by chance, as weather, light and sensors would; labels and masks stay.

    Args:
        kinds: Degradations of ``DEGRADATIONS`` to draw from; see :func:`degrade`.
        modalities: Which pictures; with both, one kind and strength and the same draws hold for both.
        probability: How often an item is degraded.
        strength: Lowest and highest strength, in (0, 1].
        keep_clean: Whether to keep the clean pictures as ``clean_infrared`` and ``clean_visible``.

    Raises:
        ValueError: If a kind or modality is unknown (with the closest match), or a range is wrong.

    Example:
        >>> import torch
        >>> from fusionblocks.data import PairedDegrade
        >>> item = {"infrared": torch.full((1, 48, 64), 0.5), "visible": torch.full((3, 48, 64), 0.5)}
        >>> dark = PairedDegrade(("low_light",), probability=1.0, keep_clean=True)(item)
        >>> bool(dark["visible"].mean() < dark["clean_visible"].mean())
        True
    """

    def __init__(
        self,
        kinds: Sequence[str] = VISIBLE_DEGRADATIONS,
        *,
        modalities: Sequence[str] = ("visible",),
        probability: float = 0.5,
        strength: tuple[float, float] = (0.3, 1.0),
        keep_clean: bool = False,
    ) -> None:
        if not kinds or isinstance(kinds, str):
            raise ValueError(f"kinds must be at least one name in a sequence, got {kinds!r}")
        check_known("degradation", kinds, DEGRADATIONS)
        check_known("modality", modalities, ("infrared", "visible"))
        self.kinds, self.modalities = tuple(kinds), tuple(modalities)
        self.probability = check_number("probability", probability, least=0, most=1)
        self.weakest, self.strongest = (check_number("strength", bound, least=0, most=1) for bound in strength)
        if not 0 < self.weakest <= self.strongest:
            raise ValueError(f"strength must be a rising range above 0, got {tuple(strength)}")
        self.keep_clean = keep_clean

    def __call__(self, item: dict[str, Any], generator: Generator | None = None) -> dict[str, Any]:
        chance, share = torch.rand(2, generator=generator).tolist()
        kind = self.kinds[int(torch.randint(len(self.kinds), (), generator=generator))]
        seed = int(torch.randint(2**62, (), generator=generator))
        made = dict(item)
        if self.keep_clean:
            made |= {f"clean_{modality}": item[modality] for modality in self.modalities}
        if chance < self.probability:
            strength = self.weakest + share * (self.strongest - self.weakest)
            for modality in self.modalities:
                draws = Generator().manual_seed(seed)  # the same for both
                made[modality] = degrade(item[modality], kind, strength=strength, generator=draws)
        return made


def _size(item: dict[str, Any]) -> tuple[int, int]:
    """Return rows and columns of an item, whose pictures must agree."""
    sizes = {}
    for name in ("infrared", "visible"):
        picture = item.get(name)
        if not isinstance(picture, Tensor) or picture.ndim < 2:
            raise TypeError(f"an item must have {name} as a tensor (C, H, W), got {type(picture).__name__}")
        sizes[name] = (picture.shape[-2], picture.shape[-1])
    if sizes["infrared"] != sizes["visible"]:
        (height, width), (rows, columns) = sizes.values()
        raise ValueError(
            f"{item.get('name', 'an item')}: infrared and visible must have the same size, got {height}x{width} and "
            f"{rows}x{columns} (height x width)"
        )
    return sizes["infrared"]


def _changed(item: dict[str, Any], change: Callable[[Tensor], Tensor]) -> dict[str, Any]:
    """Return an item with all pictures of the scene changed."""
    size = _size(item)
    return {
        name: change(value) if isinstance(value, Tensor) and value.shape[-2:] == size else value
        for name, value in item.items()
    }


def _missing(pixels: int) -> tuple[int, int]:
    pixels = max(pixels, 0)
    return pixels // 2, pixels - pixels // 2
