"""Pictures of two folders, paired by name."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from fusionblocks.image import READABLE_SUFFIXES


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


def pair_folders(infrared: str | Path, visible: str | Path) -> FolderPairs:
    """Pair the pictures of two folders by file name, whatever their extensions.

    Args:
        infrared: Folder of infrared pictures.
        visible: Folder of visible pictures.

    Returns:
        The pairs, sorted so that ``2`` comes before ``10``, and the problems: names that only one folder has, and
        names that a folder has twice (with two extensions).

    Raises:
        NotADirectoryError: If one of the two is no folder.
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
    folders = {"infrared": Path(infrared), "visible": Path(visible)}
    if folders["infrared"].resolve() == folders["visible"].resolve():
        raise ValueError(f"infrared and visible are the same folder: {infrared}")
    files = {kind: _pictures(kind, folder) for kind, folder in folders.items()}
    pairs, problems = [], []
    for name in sorted({*files["infrared"], *files["visible"]}, key=natural_key):
        missing = [kind for kind in folders if name not in files[kind]]
        twice = [kind for kind in folders if len(files[kind].get(name, ())) > 1]
        if missing:
            other = "visible" if missing == ["infrared"] else "infrared"
            problems.append(f"{name}: only in the {other} folder")
        elif twice:
            found = ", ".join(file.name for file in files[twice[0]][name])
            problems.append(f"{name}: more than one file of this name in the {twice[0]} folder ({found})")
        else:
            pairs.append(ImagePair(name, files["infrared"][name][0], files["visible"][name][0]))
    return FolderPairs(tuple(pairs), tuple(problems))


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
