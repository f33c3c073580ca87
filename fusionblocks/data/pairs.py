"""Pictures of several folders, matched by name."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fusionblocks.image import READABLE_SUFFIXES


@dataclass(frozen=True)
class ImageGroup:
    """One file of each folder, all of one name.

    Args:
        name: Their common stem.
        files: The file of each folder, under the folder's name.
    """

    name: str
    files: Mapping[str, Path]


@dataclass(frozen=True)
class FolderGroups:
    """What several folders hold.

    Args:
        groups: The groups in natural order.
        problems: A line for each name that some folder lacks or has twice.
    """

    groups: tuple[ImageGroup, ...]
    problems: tuple[str, ...]


@dataclass(frozen=True)
class ImagePair:
    """Two files of one scene.

    Args:
        name: Their common stem.
        infrared: The infrared picture.
        visible: The visible picture.
    """

    name: str
    infrared: Path
    visible: Path


@dataclass(frozen=True)
class FolderPairs:
    """What two folders hold.

    Args:
        pairs: The pairs in natural order.
        problems: A line for each name that makes no pair.
    """

    pairs: tuple[ImagePair, ...]
    problems: tuple[str, ...]


def natural_key(name: str) -> tuple[tuple[int, int, str], ...]:
    """Return a sorting key that puts ``2`` before ``10``."""
    parts = re.findall(r"\d+|\D+", name)
    return tuple((0, int(part), part) if part.isdigit() else (1, 0, part.casefold()) for part in parts)


def match_folders(folders: Mapping[str, str | Path]) -> FolderGroups:
    """Match the pictures of any number of folders by file name, whatever their extensions.

    Args:
        folders: The folders, each under the name that messages call it by.

    Returns:
        One group for each name that every folder has, sorted so that ``2`` comes before ``10``, and the problems: names
        that some folder lacks, and names that a folder has twice (with two extensions).

    Raises:
        NotADirectoryError: If one of them is not a folder.
        ValueError: If two of them are the same folder, or one holds no picture.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from fusionblocks.data import match_folders
        >>> root = Path(tempfile.mkdtemp())
        >>> for file in ("ir/1.tiff", "ir/2.tiff", "vis/1.jpg", "vis/2.jpg", "psfusion/1.png"):
        ...     (root / file).parent.mkdir(exist_ok=True)
        ...     (root / file).touch()
        >>> listing = match_folders({"infrared": root / "ir", "visible": root / "vis", "psfusion": root / "psfusion"})
        >>> [(group.name, group.files["visible"].name) for group in listing.groups]
        [('1', '1.jpg')]
        >>> listing.problems
        ('2: not in the psfusion folder',)
    """
    paths = {kind: Path(folder) for kind, folder in folders.items()}
    seen: dict[Path, str] = {}
    for kind, path in paths.items():
        other = seen.setdefault(path.resolve(), kind)
        if other != kind:
            raise ValueError(f"{other} and {kind} are the same folder: {path}")
    files = {kind: _pictures(kind, path) for kind, path in paths.items()}
    groups, problems = [], []
    for name in sorted({name for found in files.values() for name in found}, key=natural_key):
        having = [kind for kind in paths if name in files[kind]]
        twice = [kind for kind in having if len(files[kind][name]) > 1]
        if len(having) == 1 < len(paths):
            problems.append(f"{name}: only in the {having[0]} folder")
        elif len(having) < len(paths):
            lacking = [kind for kind in paths if kind not in having]
            problems.append(f"{name}: not in the {' and '.join(lacking)} folder{'s' * (len(lacking) > 1)}")
        elif twice:
            found = ", ".join(file.name for file in files[twice[0]][name])
            problems.append(f"{name}: more than one file of this name in the {twice[0]} folder ({found})")
        else:
            groups.append(ImageGroup(name, {kind: files[kind][name][0] for kind in paths}))
    return FolderGroups(tuple(groups), tuple(problems))


def pair_folders(infrared: str | Path, visible: str | Path) -> FolderPairs:
    """Pair the pictures of two folders by file name, whatever their extensions.

    Args:
        infrared: Folder of infrared pictures.
        visible: Folder of visible pictures.

    Returns:
        The pairs, sorted so that ``2`` comes before ``10``, and the problems: names that only one folder has, and
        names that a folder has twice (with two extensions).

    Raises:
        NotADirectoryError: If one of the two is not a folder.
        ValueError: If both are the same folder, or one holds no picture.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from fusionblocks.data import pair_folders
        >>> root = Path(tempfile.mkdtemp())
        >>> for file in ("ir/2.tiff", "ir/10.png", "vis/2.jpg", "vis/10.png", "vis/11.png"):
        ...     (root / file).parent.mkdir(exist_ok=True)
        ...     (root / file).touch()
        >>> listing = pair_folders(root / "ir", root / "vis")
        >>> [pair.name for pair in listing.pairs]
        ['2', '10']
        >>> listing.problems
        ('11: only in the visible folder',)
    """
    listing = match_folders({"infrared": infrared, "visible": visible})
    pairs = (ImagePair(group.name, group.files["infrared"], group.files["visible"]) for group in listing.groups)
    return FolderPairs(tuple(pairs), listing.problems)


def _pictures(kind: str, folder: Path) -> dict[str, list[Path]]:
    """Return the picture files of a folder by stem."""
    if not folder.is_dir():
        raise NotADirectoryError(f"{kind} must be a folder, got {folder}")
    files = defaultdict(list)
    for file in sorted(folder.iterdir()):
        if file.suffix.lower() in READABLE_SUFFIXES and not file.name.startswith("."):
            files[file.stem].append(file)
    if not files:
        raise ValueError(f"{kind} folder {folder} holds no picture ({', '.join(sorted(READABLE_SUFFIXES))})")
    return dict(files)
