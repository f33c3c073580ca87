"""Pictures with the class of their degradation: folders of them, or clean pictures degraded on the fly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor
from torch.utils.data import Dataset

from fusionblocks._support.checks import check_number, check_whole
from fusionblocks._support.names import closest
from fusionblocks.data.degradations import DEGRADATIONS, degrade
from fusionblocks.data.pairs import natural_key
from fusionblocks.image import READABLE_SUFFIXES, array_to_tensor, check_picture, check_values, read_image

CLEAN = "clean"


def class_folders(folder: str | Path, classes: Sequence[str] | None = None) -> dict[str, tuple[Path, ...]]:
    """List the pictures of a folder that has one folder a class.

    Args:
        folder: The folder of class folders; their names are the class names. Names that start with a dot are left out.
        classes: The classes in their order; there must be a folder for each and no other. By default all there are, in
            alphabetical order.

    Returns:
        The picture files of each class, sorted so that ``2`` comes before ``10``.

    Raises:
        NotADirectoryError: If there is no such folder.
        ValueError: If there are fewer than two class folders, one holds no picture, one is not among ``classes``, or a
            class has none.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from fusionblocks.data import class_folders
        >>> root = Path(tempfile.mkdtemp())
        >>> for file in ("haze/1.png", "clean/2.png", "clean/10.png"):
        ...     (root / file).parent.mkdir(exist_ok=True)
        ...     (root / file).touch()
        >>> {name: [file.name for file in files] for name, files in class_folders(root).items()}
        {'clean': ['2.png', '10.png'], 'haze': ['1.png']}
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise NotADirectoryError(f"there is no folder {folder}")
    found = {path.name: path for path in sorted(folder.iterdir()) if path.is_dir() and not path.name.startswith(".")}
    if not found:
        raise ValueError(f"{folder} has no class folders: expected one folder of pictures for each class")
    if len(found) == 1:
        raise ValueError(
            f"{folder} has one class folder, {next(iter(found))}: at least two classes are to be told apart"
        )
    if classes is not None:
        check_known(f"class folder in {folder}", found, tuple(classes))
        if missing := [name for name in classes if name not in found]:
            raise ValueError(f"{folder} has no folder for the classes {', '.join(missing)}")
    return {name: pictures_in(found[name]) for name in classes or found}


def hold_out(
    items: Sequence[Any], share: float = 0.2, *, seed: int = 0, what: str = "items"
) -> tuple[list[Any], list[Any]]:
    """Split pictures by chance into those to learn from and those to judge by, at least one each.

    Args:
        items: What to split; each part keeps its order.
        share: How large the second part is, in (0, 1).
        seed: Of the choice.
        what: What the items are, for the message.

    Returns:
        The items to learn from and the held-out ones.

    Raises:
        ValueError: If there are fewer than two items or the share is not in (0, 1).

    Example:
        >>> from fusionblocks.data import hold_out
        >>> [len(part) for part in hold_out(range(10), 0.3)]
        [7, 3]
    """
    if len(items) < 2:
        raise ValueError(f"{what} must be at least two pictures, to learn from one and judge by the other")
    if not 0 < share < 1:
        raise ValueError(f"share must lie between 0 and 1, got {share}")
    count = min(max(1, round(share * len(items))), len(items) - 1)
    chosen = set(torch.randperm(len(items), generator=_generator(seed, len(items)))[:count].tolist())
    learned = [item for index, item in enumerate(items) if index not in chosen]
    return learned, [items[index] for index in sorted(chosen)]


def check_known(what: str, names: Mapping[str, object] | Sequence[str], known: Sequence[str]) -> None:
    """Raise on a name that is not among the known ones, with the closest of them."""
    for name in names:
        if name not in known:
            expected = f"expected one of {', '.join(map(repr, known))}"
            raise ValueError(f"unknown {what}: {name!r}, {expected}{closest(name, known, '; {}')}")


class LabelledPictures(Dataset[tuple[Tensor, int]]):
    """Pictures of known classes, in RGB and of one size.

    Args:
        items: Each a picture, the path of one or a float tensor ``(C, H, W)`` in [0, 1], with the index of its class.
        size: Rows and columns to resize to (antialiased, stretched to a square), as the classifier itself would; None
            leaves sizes alone.
        flip: Mirror every picture or not, by chance, as training wants it.
        seed: Of the mirroring.

    Raises:
        ValueError: If there are no items, or a file is not a picture; the message names it.

    Example:
        >>> import torch
        >>> from fusionblocks.data import LabelledPictures
        >>> picture, label = LabelledPictures([(torch.rand(1, 48, 64), 2)], size=32)[0]
        >>> picture.shape, label
        (torch.Size([3, 32, 32]), 2)
    """

    def __init__(
        self,
        items: Sequence[tuple[str | Path | Tensor, int]],
        *,
        size: int | None = 224,
        flip: bool = False,
        seed: int = 0,
    ) -> None:
        if not len(items):
            raise ValueError("items must hold at least one picture, got none")
        self.items, self.flip = items, flip
        self.size = None if size is None else check_whole("size", size, 1)
        self.seed = check_whole("seed", seed, 0)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        source, label = self.items[index]
        picture = _open(source)
        if self.flip:
            picture = _flip_by_chance(picture, _generator(self.seed, index))
        return _finish(picture, self.size), label


class DegradedPictures(Dataset[tuple[Tensor, int]]):
    """Clean pictures degraded on the fly, each class in turn, with the index of the class.

    An item's draws depend on ``seed`` and its index alone: the same data in every run, order and number of workers, and
    no two items alike. A picture is degraded at its own size and resized after it, as happens to a real one.

    Args:
        pictures: Clean pictures: paths, or float tensors ``(C, H, W)`` in [0, 1].
        classes: Class names, each of ``DEGRADATIONS`` or ``"clean"``.
        length: How many items; by default each picture in each class once.
        size: Rows and columns to resize to (antialiased, stretched to a square), as the classifier itself would; None
            leaves sizes alone.
        strength: Lowest and highest strength; each item draws its own between them.
        flip: Mirror every picture or not, by chance, as training wants it.
        seed: Of all draws.

    Raises:
        ValueError: If there are no pictures, fewer than two classes, an unknown or a doubled one, or a range is wrong.

    Example:
        >>> from fusionblocks.data import DegradedPictures, synthetic_scene
        >>> clean = [synthetic_scene(seed, height=48, width=64).visible for seed in range(2)]
        >>> data = DegradedPictures(clean, ("clean", "haze"), size=32)
        >>> len(data), data[3][0].shape, data.classes[data[3][1]]
        (4, torch.Size([3, 32, 32]), 'haze')
    """

    def __init__(
        self,
        pictures: Sequence[str | Path | Tensor],
        classes: Sequence[str] = (CLEAN, *DEGRADATIONS),
        *,
        length: int | None = None,
        size: int | None = 224,
        strength: tuple[float, float] = (0.3, 1.0),
        flip: bool = False,
        seed: int = 0,
    ) -> None:
        if not len(pictures):
            raise ValueError("pictures must hold at least one picture, got none")
        if len(classes) < 2 or len(set(classes)) < len(classes):
            raise ValueError(f"classes must be at least two different names, got {', '.join(map(repr, classes))}")
        check_known("class", classes, (CLEAN, *DEGRADATIONS))
        self.pictures, self.classes = pictures, tuple(classes)
        self.length = len(pictures) * len(classes) if length is None else check_whole("length", length, 1)
        self.size = None if size is None else check_whole("size", size, 1)
        self.weakest, self.strongest = (check_number("strength", bound, least=0, most=1) for bound in strength)
        if not 0 < self.weakest <= self.strongest:
            raise ValueError(f"strength must be a rising range above 0, got {tuple(strength)}")
        self.flip = flip
        self.seed = check_whole("seed", seed, 0)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        if not 0 <= index < self.length:
            raise IndexError(f"index must lie in [0, {self.length}), got {index}")
        which, label = divmod(index, len(self.classes))
        picture = _open(self.pictures[which % len(self.pictures)])
        generator = _generator(self.seed, index)
        if self.flip:
            picture = _flip_by_chance(picture, generator)
        share = float(torch.rand(1, generator=generator))
        if self.classes[label] != CLEAN:
            strength = self.weakest + share * (self.strongest - self.weakest)
            picture = degrade(picture, self.classes[label], strength=strength, generator=generator)
        return _finish(picture, self.size), label


def pictures_in(folder: Path) -> tuple[Path, ...]:
    """Return the picture files of a folder in natural order."""
    files = [file for file in folder.iterdir() if file.suffix.lower() in READABLE_SUFFIXES and file.name[0] != "."]
    if not files:
        raise ValueError(f"folder {folder} holds no picture ({', '.join(sorted(READABLE_SUFFIXES))})")
    return tuple(sorted(files, key=lambda file: natural_key(file.name)))


def _open(source: str | Path | Tensor) -> Tensor:
    """Return a picture as ``(C, H, W)``."""
    if isinstance(source, Tensor):
        check_picture("picture", source[None], channels=(1, 3))
        check_values("picture", source)
        return source
    return array_to_tensor(str(source), read_image(source))


def _generator(seed: int, index: int) -> Generator:
    state = np.random.SeedSequence([seed, index]).generate_state(1, np.uint64)[0]
    return Generator().manual_seed(int(state >> np.uint64(1)))


def _flip_by_chance(picture: Tensor, generator: Generator) -> Tensor:
    return picture.flip(-1) if torch.rand(1, generator=generator) < 0.5 else picture


def _finish(picture: Tensor, size: int | None) -> Tensor:
    """Return a picture as ``(3, size, size)``; gray becomes three equal channels."""
    picture = picture.expand(3, -1, -1)
    if size is None or picture.shape[-2:] == (size, size):
        return picture.contiguous()
    return F.interpolate(picture[None], (size, size), mode="bicubic", antialias=True)[0].clamp(0, 1)
