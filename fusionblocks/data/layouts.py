"""Where the field's datasets keep their files, declared once, and a call that opens any of them."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from fusionblocks.data._reading import PACKED
from fusionblocks.data.label_masks import MASKS
from fusionblocks.data.labelled import check_known
from fusionblocks.data.paired import PairedImages
from fusionblocks.data.pairs import ImageGroup, match_folders, natural_key
from fusionblocks.image import READABLE_SUFFIXES
from fusionblocks.image.infrared import ThermalRange

#: The environment variable that names the folder of all datasets.
DATA_VARIABLE = "FUSIONBLOCKS_DATA"
SPLITS = ("train", "val", "test", "all")
#: The classes of MFNet's labels, which MSRS shares.
ROAD_CLASSES = (
    "unlabelled", "car", "person", "bike", "curve", "car_stop", "guardrail", "color_cone", "bump",
)  # fmt: skip
_WARM = (1, 2, 3)  # car, person, bike: what stands out in the infrared of a road
_PLAIN = (("ir", "vi"), ("ir", "vis"), ("infrared", "visible"), ("thermal", "visible"))


@dataclass(frozen=True)
class Layout:
    """Where a dataset keeps its files; ``{split}`` in a folder stands for the split's name.

    Args:
        name: Its name here.
        folders: Folders of infrared and visible pictures; the first that are there count. Case does not matter.
        splits: The splits that have folders of their own.
        labels: Folders of labels.
        masks: Folders of each mask.
        packed: A folder of pictures with red, green, blue and infrared in four channels, instead of two folders.
        lists: Splits that a text file ``NAME.txt`` gives, a name a line.
        scenes: Whether it may be a tree with a folder for each scene, told apart by file names (TNO's release).
        classes: The classes of its labels, in their order.
        salient: The classes that make up its salient mask.
    """

    name: str
    folders: tuple[tuple[str, str], ...] = ()
    splits: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    masks: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    packed: str | None = None
    lists: tuple[str, ...] = ()
    scenes: bool = False
    classes: tuple[str, ...] = ()
    salient: tuple[int, ...] | None = None


#: The known layouts, in the order in which a folder is compared with them.
LAYOUTS = {
    layout.name: layout
    for layout in (
        Layout(
            "mfnet",
            packed="images",
            labels=("labels",),
            lists=("train", "val", "test", "test_day", "test_night"),
            classes=ROAD_CLASSES,
            salient=_WARM,
        ),
        Layout(
            "msrs",
            folders=(("{split}/ir", "{split}/vi"),),
            splits=("train", "val", "test"),  # released without "val"; splits of one's own may look alike and have it
            labels=("{split}/Segmentation_labels", "{split}/label"),
            # PSFusion's edition of the dataset
            masks={"binary": ("{split}/bi",), "boundary": ("{split}/bd",), "salient": ("{split}/mask",)},
            classes=ROAD_CLASSES,
            salient=_WARM,
        ),
        Layout("llvip", folders=(("infrared/{split}", "visible/{split}"),), splits=("train", "test")),
        Layout("roadscene", folders=(("cropinfrared", "crop_LR_visible"),)),
        Layout("m3fd", folders=(("Ir", "Vis"),)),
        Layout(
            "folder",
            folders=(*_PLAIN, *((f"{{split}}/{a}", f"{{split}}/{b}") for a, b in _PLAIN)),
            splits=("train", "val", "test"),
            labels=("labels", "{split}/labels"),
            masks={mask: (mask, f"{{split}}/{mask}") for mask in MASKS},
        ),
        Layout("tno", scenes=True),
    )
}


def open_dataset(
    name_or_folder: str | Path,
    split: str = "train",
    *,
    layout: str | None = None,
    transform: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
    labels: bool | None = None,
    masks: Sequence[str] | None = None,
    thermal_range: ThermalRange = None,
    unpaired: Literal["error", "skip"] = "error",
    cache: bool | int = False,
    seed: int = 0,
) -> PairedImages:
    """Open MSRS, RoadScene, M3FD, LLVIP, TNO, MFNet or a folder of your own as they are on disk.

    A folder of your own has pictures in ``ir`` and ``vi`` (or ``vis``), or in ``infrared`` and ``visible``, by
    themselves or within ``train``, ``val`` and ``test``; class numbers in ``labels``, if there are any. The label 255
    stands for no class in every layout.

    Any dataset may have text files ``train.txt``, ``val.txt`` and ``test.txt`` with a name a line; without a file of
    its own, ``"train"`` is what the others leave. A dataset without splits gives all its pairs for each, and ``"val"``
    is ``"test"`` where a dataset has a test split alone.

    Args:
        name_or_folder: The dataset's folder, or its name: a folder of that name where the environment variable
            ``FUSIONBLOCKS_DATA`` says, or here.
        split: ``"train"``, ``"val"``, ``"test"`` or ``"all"``; MFNet also has ``"test_day"`` and ``"test_night"``.
        layout: Which layout of ``LAYOUTS`` it has; None finds out.
        transform: What is done to an item.
        labels: Whether items have labels; None: if there are any. Without them reading is faster.
        masks: Which of ``"binary"``, ``"boundary"`` and ``"salient"`` to add: files where the dataset has them, else
            derived from the labels. None: all three if there are labels, unless ``labels`` is False.
        thermal_range: What becomes 0 and 1 in all infrared pictures, in their own units; see :class:`PairedImages`.
        unpaired: What to do about names without a partner: ``"error"``, or ``"skip"`` them.
        cache: Whether to decode once, up to 4 GiB or this many bytes; see :class:`PairedImages`.
        seed: Of all draws.

    Returns:
        The dataset; its ``groups`` say which files it has taken.

    Raises:
        NotADirectoryError: If there is no such folder.
        UnpairedError: If names have no partner.
        ValueError: If the folder has no layout that is known, the split or the layout is unknown (with the closest
            match), or there are no pairs or labels.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from fusionblocks.data import open_dataset
        >>> root = Path(tempfile.mkdtemp())
        >>> for file in ("cropinfrared/FLIR_2.jpg", "crop_LR_visible/FLIR_2.jpg"):
        ...     (root / file).parent.mkdir(exist_ok=True)
        ...     (root / file).touch()
        >>> open_dataset(root).names
        ['FLIR_2']
    """
    root = _root(name_or_folder)
    if layout is not None:
        check_known("layout", (layout,), tuple(LAYOUTS))
    known = _detect(root) if layout is None else LAYOUTS[layout]
    parts = [_folders(root, known, part) for part in _parts(root, known, split)]
    labelled = all("labels" in folders for folders in parts)
    if labels and not labelled:
        raise ValueError(f"{root} has no labels: expected {' or '.join(known.labels) or 'none in this layout'}")
    labelled = labelled and labels is not False
    masks = (MASKS if labelled else ()) if masks is None else tuple(masks)
    check_known("mask", masks, MASKS)
    derived = any(mask not in folders for folders in parts for mask in masks)
    wanted = {"infrared", "visible", PACKED, *masks, *(("labels",) if labelled or derived else ())}
    groups, problems = _matched(root, known, [{k: v for k, v in part.items() if k in wanted} for part in parts])
    groups, problems = _listed(root, known, split, groups, problems)
    if not groups and not problems:
        raise ValueError(f"{root} has no pairs in its split {split!r}: expected {_looks(known)}")
    return PairedImages.from_groups(
        groups,
        transform=transform,
        masks=masks,
        num_classes=len(known.classes) or None,
        salient_classes=known.salient,
        thermal_range=thermal_range,
        unpaired=unpaired,
        problems=problems,
        cache=cache,
        seed=seed,
    )


def _root(name_or_folder: str | Path) -> Path:
    """Return the folder of a dataset given by path or by name."""
    if Path(name_or_folder).is_dir():
        return Path(name_or_folder)
    home = os.environ.get(DATA_VARIABLE)
    if home and Path(home).is_dir():
        alike = [folder for folder in sorted(Path(home).iterdir()) if folder.is_dir()]
        for folder in alike:
            if folder.name.casefold() == str(name_or_folder).casefold():
                return folder
    known = ", ".join(repr(name) for name in LAYOUTS if name != "folder")
    where = f" nor in {home}" if home else f"; to open {known} by name, set {DATA_VARIABLE} to the folder they are in"
    raise NotADirectoryError(f"there is no folder {name_or_folder}{where}")


def _detect(root: Path) -> Layout:
    """Return the layout that explains most of the folders, the first of equals."""
    best, most = None, 0
    for layout in LAYOUTS.values():
        if layout.lists and not (root / f"{layout.lists[0]}.txt").is_file():
            continue
        there = sum(len(_folders(root, layout, part)) for part in (*layout.splits, ""))
        if there > most:
            best, most = layout, there
        elif best is None and any(_scenes(root, layout)):
            best = layout
    if best is None:
        expected = "".join(f"\n  {name}: {_looks(layout)}" for name, layout in LAYOUTS.items())
        raise ValueError(f"{root} has no layout that is known, expected folders of one of these:{expected}")
    return best


def _looks(layout: Layout) -> str:
    if layout.packed:
        return f"{layout.packed}, {layout.labels[0]} and {layout.lists[0]}.txt"
    if layout.scenes:
        return "a folder a scene, with IR... and VIS... pictures"
    return " or ".join(f"{infrared} and {visible}" for infrared, visible in layout.folders)


def _parts(root: Path, layout: Layout, split: str) -> list[str]:
    """Return the names of the folders that make up a split, "" where folders are not split."""
    check_known("split", (split,), tuple(dict.fromkeys((*SPLITS, *layout.lists))))
    there = [name for name in layout.splits if _folders(root, layout, name)]
    if not there or _folders(root, layout, ""):
        return [""]
    if split == "all":
        return there
    if split == "val" and "test" in there and "val" not in there:
        return ["test"]
    if split not in there:
        raise ValueError(f"{root} has no split {split!r}, only {', '.join(map(repr, there))}")
    return [split]


def _folders(root: Path, layout: Layout, part: str) -> dict[str, Path]:
    """Return the folders of a part: pictures, labels and masks; none without pictures."""

    def found(pattern: str) -> Path | None:
        folder = root / pattern.format(split=part)
        return folder if bool(part) == ("{split}" in pattern) and folder.is_dir() else None

    folders = {}
    if layout.packed and (packed := found(layout.packed)):
        folders[PACKED] = packed
    for pair in layout.folders:
        infrared, visible = map(found, pair)
        if infrared and visible and not folders:
            folders |= {"infrared": infrared, "visible": visible}
    for kind, patterns in {"labels": layout.labels, **layout.masks}.items():
        there = [folder for pattern in patterns if (folder := found(pattern))]
        if folders and there:
            folders[kind] = there[0]
    return folders


def _matched(root: Path, layout: Layout, parts: Sequence[Mapping[str, Path]]) -> tuple[list[ImageGroup], list[str]]:
    """Return the files of all parts, matched by name, and what has no partner."""
    if layout.scenes:
        return list(_scenes(root, layout)), []
    groups: list[ImageGroup] = []
    problems: list[str] = []
    for folders in parts:
        if not folders:
            raise ValueError(f"{root} has not the layout {layout.name}: expected {_looks(layout)}")
        listing = match_folders(folders)
        groups += listing.groups
        problems += listing.problems
    return groups, problems


def _listed(
    root: Path, layout: Layout, split: str, groups: list[ImageGroup], problems: list[str]
) -> tuple[list[ImageGroup], list[str]]:
    """Return what the text file of a split keeps."""
    file = root / f"{split}.txt"
    if not file.is_file():
        if split in layout.lists:
            raise ValueError(f"{root} has no list {file.name} of its split {split!r}")
        others = {name for other in SPLITS for name in _names(root / f"{other}.txt")} if split == "train" else set()
        return [group for group in groups if group.name not in others], problems
    names = dict.fromkeys(_names(file))
    by_name = {group.name: group for group in groups}
    problems = [problem for problem in problems if problem.split(":")[0] in names]
    told = {problem.split(":")[0] for problem in problems}
    # MFNet's lists may name mirrored copies that a script is to make; flips are drawn here
    absent = [name for name in names if name not in by_name and name.removesuffix("_flip") not in by_name]
    problems += [f"{name}: listed in {file.name}, but not there" for name in absent if name not in told]
    return [by_name[name] for name in names if name in by_name], problems


def _names(file: Path) -> list[str]:
    """Return the names that a text file lists, without the suffixes of pictures."""
    if not file.is_file():
        return []
    lines = (Path(line.strip()) for line in file.read_text(encoding="utf-8-sig").splitlines() if line.strip())
    return [line.stem if line.suffix.lower() in READABLE_SUFFIXES else line.name for line in lines]


# --- TNO: a folder a scene, named by hand ----------------------------------------------------------------------------

_SENSORS = {"lwir": "infrared", "ir": "infrared", "vis": "visible"}
_SENSOR = re.compile(rf"(?<![a-z])(?:{'|'.join(_SENSORS)})(?![a-z])", re.IGNORECASE)


def _sensor(stem: str) -> str | None:
    """Return which camera a file of TNO is of, by the first of its words that says so."""
    if word := _SENSOR.search(stem):
        return _SENSORS[word[0].lower()]
    if stem.startswith(("1_", "2_")):  # Athena's APC_2
        return "visible" if stem[0] == "1" else "infrared"
    return "visible" if stem.endswith("_r") else None  # Athena's bunker: red holds the visible picture


def _scenes(root: Path, layout: Layout) -> Iterator[ImageGroup]:
    """Yield the scenes that have exactly one thermal and one visible picture; sequences and near-infrared have none."""
    if not layout.scenes:
        return
    folders = sorted({file.parent for file in root.rglob("*") if file.suffix.lower() in READABLE_SUFFIXES})
    for folder in sorted(folders, key=lambda folder: natural_key(str(folder.relative_to(root)))):
        files: dict[str, list[Path]] = {"infrared": [], "visible": []}
        for file in folder.iterdir():
            sensor = _sensor(file.stem) if file.suffix.lower() in READABLE_SUFFIXES else None
            if sensor is not None:
                files[sensor].append(file)
        if folder != root and all(len(found) == 1 for found in files.values()):
            name = "_".join(folder.relative_to(root).parts)
            yield ImageGroup(name, {sensor: found[0] for sensor, found in files.items()})
