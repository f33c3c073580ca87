"""Pictures of several folders or lists, matched by one rule."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fusionblocks.data import matching
from fusionblocks.image import READABLE_SUFFIXES

LISTED = 10
"""Problems in a message."""


@dataclass(frozen=True)
class ImageGroup:
    """One file of each folder, all of one scene.

    Args:
        name: What their names have in common.
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
        rule: How the files were matched: ``"by name"``, ``"by suffix _ir / _vi"``, ...
    """

    groups: tuple[ImageGroup, ...]
    problems: tuple[str, ...]
    rule: str = "by name"


@dataclass(frozen=True)
class ImagePair:
    """Two files of one scene.

    Args:
        name: What their names have in common.
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
        rule: How the files were matched: ``"by name"``, ``"by suffix _ir / _vi"``, ...
    """

    pairs: tuple[ImagePair, ...]
    problems: tuple[str, ...]
    rule: str = "by name"


class UnpairedError(ValueError):
    """Pictures of several folders that have no partner.

    Args:
        message: What to say.
        problems: A line for each name.

    No example: raised by :func:`match_folders` and :class:`PairedImages`, whose messages list the first names.
    """

    def __init__(self, message: str, problems: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.problems = tuple(problems)


def natural_key(name: str) -> tuple[tuple[int, int, str], ...]:
    """Return a sorting key that puts ``2`` before ``10``."""
    parts = re.findall(r"\d+|\D+", name)
    return tuple((0, int(part), part) if part.isdigit() else (1, 0, part.casefold()) for part in parts)


def is_list(path: Path) -> bool:
    """Whether a path is a text file that lists pictures."""
    return path.suffix.lower() in matching.LIST_SUFFIXES and path.is_file()


def match_folders(folders: Mapping[str, str | Path], *, pattern: tuple[str, str] | None = None) -> FolderGroups:
    """Match the pictures of any number of folders by one rule, whatever their extensions.

    The rule is the one that finds most pairs of the first two folders: equal names; equal names whatever their case;
    or names that are equal without what tells the cameras apart, at their end or beginning (``_ir`` and ``_vi``,
    ``IR1`` and ``VIS1``, ``thermal_`` and ``rgb_``, FLIR's ``_RGB`` on one side). Unicode forms do not matter. One
    folder may hold both cameras' pictures, told apart by such tags, or have a folder for each (``IR`` and ``VIS``).
    Instead of folders, text files may list the files of either camera, a path a line, paired line by line.

    Args:
        folders: The folders, each under the name that messages call it by; ``infrared`` and ``visible`` come first.
        pattern: What the names of the first two folders' files look like, with one ``*`` for what they have in common:
            ``("*_ir.png", "*_vi.png")``. None finds a rule.

    Returns:
        One group for each name that every folder has, sorted so that ``2`` comes before ``10``; the problems: names
        that some folder lacks, and names that a folder has twice (with two extensions); and the rule.

    Raises:
        NotADirectoryError: If one of them is not a folder.
        UnpairedError: If no picture has a partner; the message shows names of both, and the pattern that would pair
            them.
        ValueError: If two of them are the same folder and nothing tells its files apart, one holds no picture, a list
            names a file that is not there, or two rules fit equally well.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from fusionblocks.data import match_folders
        >>> root = Path(tempfile.mkdtemp())
        >>> for file in ("ir/1_ir.tiff", "ir/2_ir.tiff", "vis/1_vi.jpg", "vis/2_vi.jpg", "psfusion/1.png"):
        ...     (root / file).parent.mkdir(exist_ok=True)
        ...     (root / file).touch()
        >>> listing = match_folders({"infrared": root / "ir", "visible": root / "vis", "psfusion": root / "psfusion"})
        >>> [(group.name, group.files["visible"].name) for group in listing.groups], listing.rule
        ([('1', '1_vi.jpg')], 'by suffix _ir / _vi')
        >>> listing.problems
        ('2: not in the psfusion folder',)
    """
    paths = {kind: Path(folder) for kind, folder in folders.items()}
    lists = [kind for kind, path in paths.items() if is_list(path)]
    if lists:
        return _match_lists(paths, lists)
    paths, together, within = _cameras(paths, pattern)
    files = {kind: _pictures(kind, path) for kind, path in paths.items()}
    if len(files) == 1:
        ((kind, found),) = files.items()
        rule, readings = "by name", {kind: matching.plain(found, fold=False)}
    else:
        rule, readings = matching.choose(files, pattern, together=together)
    groups, problems = _grouped(readings)
    if not groups and len(files) > 1:
        first_two = dict(list(files.items())[:2])
        first, second = (readings[kind] for kind in first_two)
        if not first.single() & second.single() and not (set(first.files) & set(second.files)):
            kinds = " and ".join(first_two)
            names = f". {told(problems)}" if problems else ""
            message = f"no {kinds} pictures belong together: {matching.advice(first_two)}{names}"
            raise UnpairedError(message, problems)
    return FolderGroups(tuple(groups), tuple(problems), rule + within)


def _cameras(paths: dict[str, Path], pattern: tuple[str, str] | None) -> tuple[dict[str, Path], bool, str]:
    """Return the folders, whether the first two are one that holds both cameras' pictures, and what the rule adds."""
    kinds = list(paths)
    together, within = False, ""
    seen: dict[Path, str] = {}
    for kind, path in list(paths.items()):
        other = seen.setdefault(path.resolve(), kind)
        if other == kind:
            continue
        if [other, kind] != kinds[:2] or not path.is_dir():
            raise ValueError(f"{other} and {kind} are the same folder: {path}")
        folders = matching.named_folders(path)
        if folders is not None:
            paths = {**paths, **dict(zip(kinds[:2], folders, strict=True))}
            within = f" in {folders[0].name} / {folders[1].name}"
            continue
        together, within = True, " in one folder"
        found = _pictures(kind, path)
        if pattern is None and not all(matching.tagged(found, tags) for tags in matching.TAGS.values()):
            raise ValueError(
                f"{other} and {kind} are the same folder, {path}, and nothing in its names tells the cameras apart: "
                "give a pattern for each, such as '*_ir.png' and '*_vi.png'"
            )
    return paths, together, within


def _grouped(readings: Mapping[str, matching.Reading]) -> tuple[list[ImageGroup], list[str]]:
    """Return what all folders have once, and a line for every other name."""
    fold = any(reading.words or key != name for reading in readings.values() for key, name in reading.names.items())
    names: dict[str, str] = {}
    files: dict[str, dict[str, list[Path]]] = {}
    for kind, reading in readings.items():
        files[kind] = defaultdict(list)
        for key, found in reading.files.items():
            files[kind][key.casefold() if fold else key] += found
            names.setdefault(key.casefold() if fold else key, reading.names[key])
    groups, problems = [], []
    for key, name in sorted(names.items(), key=lambda item: natural_key(item[1])):
        having = [kind for kind in readings if key in files[kind]]
        twice = [kind for kind in having if len(files[kind][key]) > 1]
        if len(having) == 1 < len(readings):
            problems.append(f"{name}: only in the {having[0]} folder")
        elif len(having) < len(readings):
            lacking = [kind for kind in readings if kind not in having]
            problems.append(f"{name}: not in the {' and '.join(lacking)} folder{'s' * (len(lacking) > 1)}")
        elif twice:
            doubled = ", ".join(file.name for file in files[twice[0]][key])
            problems.append(f"{name}: more than one file of this name in the {twice[0]} folder ({doubled})")
        else:
            groups.append(ImageGroup(name, {kind: files[kind][key][0] for kind in readings}))
    return groups, problems


def _match_lists(paths: Mapping[str, Path], lists: Sequence[str]) -> FolderGroups:
    """Return the files that lists name, line by line; folders beside them are matched by the visible files' names."""
    first_two = [kind for kind in paths if kind in matching.TAGS]
    if not set(first_two) <= set(lists):
        other = next(kind for kind in paths if kind not in lists)
        raise ValueError(f"infrared and visible must both be lists, or neither, got {other} {paths[other]}")
    files = {kind: matching.read_list(kind, paths[kind]) for kind in lists}
    lengths = {kind: len(found) for kind, found in files.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(
            f"lists must be equally long, got {', '.join(f'{n} in {kind}' for kind, n in lengths.items())}"
        )
    names = matching.short_names(files["visible" if "visible" in files else next(iter(files))])
    groups, problems = [], []
    folders = {kind: matching.plain(_pictures(kind, paths[kind]), fold=False) for kind in paths if kind not in lists}
    for i, name in enumerate(names):
        lacking = [kind for kind, reading in folders.items() if name not in reading.single()]
        if lacking:
            problems.append(f"{name}: not in the {' and '.join(lacking)} folder{'s' * (len(lacking) > 1)}")
            continue
        found = {kind: files[kind][i] if kind in files else folders[kind].files[name][0] for kind in paths}
        groups.append(ImageGroup(name, found))
    return FolderGroups(tuple(groups), tuple(problems), "line by line")


def pair_folders(infrared: str | Path, visible: str | Path, *, pattern: tuple[str, str] | None = None) -> FolderPairs:
    """Pair the pictures of two folders, or two lists, by the rule of :func:`match_folders`.

    Args:
        infrared: Folder of infrared pictures, or a text file that lists them.
        visible: Folder of visible pictures, or a text file that lists them; or the folder that holds both.
        pattern: What both sides' names look like, with one ``*`` for what they have in common.

    Returns:
        The pairs, sorted so that ``2`` comes before ``10``; the problems: names that only one folder has, and names
        that a folder has twice (with two extensions); and the rule.

    Raises:
        NotADirectoryError: If one of the two is not a folder.
        ValueError: As by :func:`match_folders`.

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
    listing = match_folders({"infrared": infrared, "visible": visible}, pattern=pattern)
    pairs = (ImagePair(group.name, group.files["infrared"], group.files["visible"]) for group in listing.groups)
    return FolderPairs(tuple(pairs), listing.problems, listing.rule)


def told(problems: Sequence[str], skip: bool = False) -> str:
    """Return the first of the problems as a message."""
    shown = "".join(f"\n  {problem}" for problem in problems[:LISTED])
    rest = f"\n  and {len(problems) - LISTED} more" if len(problems) > LISTED else ""
    advice = "; pass unpaired='skip' to leave them out" if skip else ""
    return f"{len(problems)} {'names make' if len(problems) > 1 else 'name makes'} no pair{advice}:{shown}{rest}"


def _pictures(kind: str, folder: Path) -> list[Path]:
    """Return the picture files of a folder."""
    if not folder.is_dir():
        raise NotADirectoryError(f"{kind} must be a folder, got {folder}")
    files = [
        file
        for file in sorted(folder.iterdir())
        if file.suffix.lower() in READABLE_SUFFIXES and not file.name.startswith(".")
    ]
    if not files:
        raise ValueError(f"{kind} folder {folder} holds no picture ({', '.join(sorted(READABLE_SUFFIXES))})")
    return files
