"""Which files of several folders belong together, by one rule for all of them."""

from __future__ import annotations

import itertools
import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

#: What names of files and folders call either camera's pictures, in lower case.
TAGS = {
    "infrared": ("ir", "i", "inf", "infra", "infrared", "t", "th", "tir", "lwir", "therm", "thermal", "previewdata"),
    "visible": ("vi", "v", "vis", "visible", "visual", "rgb", "color", "colour", "eo", "optical"),
}
#: What names of other folders' files end or begin with.
FUSED_TAGS = ("f", "fuse", "fused", "fusion")
LIST_SUFFIXES = (".txt", ".lst", ".csv")
SHOWN = 3
"""Names of each folder that an error shows."""


@dataclass(frozen=True)
class Reading:
    """How the names of one folder's files become keys.

    Args:
        words: How it is told: ``"suffix _ir"``, or an empty string for names as they are.
        names: The name without what tells the cameras apart, for each key.
        files: The files of each key.
    """

    words: str
    names: dict[str, str] = field(default_factory=dict)
    files: dict[str, list[Path]] = field(default_factory=dict)

    def add(self, name: str, file: Path, *, fold: bool = True) -> None:
        """Note a file under what its name is."""
        key = unicodedata.normalize("NFC", name)
        key = key.casefold() if fold else key
        self.names.setdefault(key, unicodedata.normalize("NFC", name))
        self.files.setdefault(key, []).append(file)

    def single(self) -> set[str]:
        """Return the keys that one file has."""
        return {key for key, files in self.files.items() if len(files) == 1}


def plain(files: Iterable[Path], *, fold: bool) -> Reading:
    """Return files by their stems, whatever their case if so asked."""
    reading = Reading("")
    for file in files:
        reading.add(file.stem, file, fold=fold)
    return reading


def tagged(files: Iterable[Path], tags: Sequence[str]) -> list[Reading]:
    """Return files by what is left of their stems without a tag: a reading for each tag at either end."""
    words = "|".join(sorted(tags, key=len, reverse=True))
    long = "|".join(word for word in words.split("|") if len(word) > 1)
    # beside a digit a tag needs nothing between, if it is more than a letter: IR1
    ends = {
        "suffix": re.compile(rf"(?P<name>.+?)(?P<tag>[-_. ](?:{words})|(?<=\d)(?:{long}))", re.IGNORECASE),
        "prefix": re.compile(rf"(?P<tag>(?:{words})[-_. ]|(?:{long})(?=\d))(?P<name>.+)", re.IGNORECASE),
    }
    readings: dict[tuple[str, str], Reading] = {}
    for file in files:
        for end, pattern in ends.items():
            match = pattern.fullmatch(file.stem)
            if match:
                place = end, match["tag"].casefold()
                reading = readings.setdefault(place, Reading(f"{end} {match['tag']}"))
                reading.add(match["name"], file)
    return list(readings.values())


def by_pattern(files: Iterable[Path], pattern: str) -> Reading:
    """Return files by what ``*`` stands for in a pattern of their names, with the ending or without it."""
    if pattern.count("*") - pattern.endswith(".*") != 1 or not isinstance(pattern, str):
        raise ValueError(f"pattern must have one * for the common part of the names, as in '*_ir.png', got {pattern!r}")
    stem = pattern.removesuffix(".*")
    parts = (re.escape(part).replace(r"\?", ".") for part in unicodedata.normalize("NFC", stem).split("*"))
    regex = re.compile("(.+)".join(parts))
    reading = Reading(f"pattern {pattern}")
    for file in files:
        forms = (unicodedata.normalize("NFC", name) for name in (file.stem, file.name))
        match = next(filter(None, map(regex.fullmatch, forms)), None)
        if match:
            reading.add(match[1], file, fold=False)
    return reading


def choose(
    files: Mapping[str, Sequence[Path]], pattern: tuple[str, str] | None = None, *, together: bool = False
) -> tuple[str, dict[str, Reading]]:
    """Return the rule by which most names are in all folders, in words, and how it reads each folder.

    The first two folders decide; each further one is read as it fits them best.

    Args:
        files: The files of each folder.
        pattern: What the names of the first two are, instead of a rule that is found.
        together: Whether the first two are one folder, in which tags alone can tell the files apart.

    Raises:
        ValueError: If the pattern is no pattern, or two rules fit equally well and pair the files differently.
    """
    first, second, *others = files
    if pattern is not None:
        chosen = [by_pattern(files[kind], glob) for kind, glob in zip((first, second), pattern, strict=True)]
        rule = f"by pattern {pattern[0]} / {pattern[1]}"
    else:
        rule, chosen = _best_of_two(first, second, files, together)
    readings = dict(zip((first, second), chosen, strict=True))
    keys = chosen[0].single() & chosen[1].single()
    folded = {key.casefold() for key in keys}
    for kind in others:
        tags = (*TAGS["infrared"], *TAGS["visible"], *FUSED_TAGS, kind.casefold())
        candidates = [plain(files[kind], fold=False), plain(files[kind], fold=True)]
        candidates += tagged(files[kind], tuple(re.escape(tag) for tag in tags))
        fits = [len((keys if i == 0 else folded) & reading.single()) for i, reading in enumerate(candidates)]
        readings[kind] = candidates[fits.index(max(fits))]
    return rule, readings


def _best_of_two(
    first: str, second: str, files: Mapping[str, Sequence[Path]], together: bool
) -> tuple[str, list[Reading]]:
    """Return the rule of two folders, in words, and how it reads them."""
    sides = [tagged(files[kind], TAGS.get(kind, (re.escape(kind.casefold()),))) for kind in (first, second)]
    pairs = [] if together else [[plain(files[kind], fold=fold) for kind in (first, second)] for fold in (False, True)]
    # a tag on one side alone is a tag too: FLIR's 1.jpg and 1_RGB.jpg
    folded = [plain(files[kind], fold=True) for kind in (first, second)]
    if not together:
        sides = [[*readings, names] for readings, names in zip(sides, folded, strict=True)]
    pairs += [list(pair) for pair in itertools.product(*sides) if any(reading.words for reading in pair)]
    if not pairs:
        return "by name", [plain(files[kind], fold=False) for kind in (first, second)]
    scores = [len(a.single() & b.single()) for a, b in pairs]
    best = pairs[scores.index(max(scores))]
    if best[0].words or best[1].words:
        for rival, score in zip(pairs, scores, strict=True):
            if score == max(scores) and _made(rival) != _made(best):
                raise ValueError(
                    f"{first} and {second} pair {score} files {_in_words(*best)}, and as many others "
                    f"{_in_words(*rival)}: say which by a pattern, such as '*_ir' and '*_vi'"
                )
    told = "by name, whatever its case" if not together and best is pairs[1] else _in_words(*best)
    return told, best


def _made(pair: Sequence[Reading]) -> set[tuple[Path, Path]]:
    """Return the pairs of files that two readings make."""
    a, b = pair
    return {(a.files[key][0], b.files[key][0]) for key in a.single() & b.single()}


def _in_words(a: Reading, b: Reading) -> str:
    if not a.words and not b.words:
        return "by name"
    ends = [reading.words.partition(" ")[0] for reading in (a, b) if reading.words]
    tags = [reading.words.partition(" ")[2] or "(none)" for reading in (a, b)]
    if len(set(ends)) == 1:
        return f"by {ends[0]} {tags[0]} / {tags[1]}"
    return f"by {a.words} / {b.words}"


def advice(files: Mapping[str, Sequence[Path]]) -> str:
    """Return what an error says of two folders without a pair: names of each, and the pattern that would pair them."""
    shown, patterns, cores = [], [], []
    for kind, found in files.items():
        stems = sorted(file.stem for file in found)
        shown.append(f"{kind} has {', '.join(stems[:SHOWN])}{', ...' * (len(stems) > SHOWN)}")
        head = re.sub(r"\d+$", "", os.path.commonprefix(stems))
        tail = re.sub(r"^\d+", "", os.path.commonprefix([stem[::-1] for stem in stems])[::-1])
        patterns.append(f"{head}*{tail}")
        cores.append({stem[len(head) : len(stem) - len(tail)] for stem in stems})
    common = cores[0].intersection(*cores[1:])
    fits = common and "" not in common and all(len(stems) > 1 for stems in files.values())
    pattern = "--pattern " + " ".join(f"'{pattern}'" for pattern in patterns)
    return "; ".join(shown) + (
        f"; {pattern} would pair {len(common)}" if fits else "; name what is common by --pattern"
    )


def named_folders(root: Path) -> tuple[Path, Path] | None:
    """Return the folders of infrared and visible pictures within a folder, by their names, if it has one of each."""
    found = defaultdict(list)
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        for kind, tags in TAGS.items():
            if folder.name.casefold() in tags:
                found[kind].append(folder)
    if all(len(found[kind]) == 1 for kind in TAGS):
        return found["infrared"][0], found["visible"][0]
    return None


def read_list(kind: str, path: Path) -> list[Path]:
    """Return the files that a text file lists, a path a line, relative to its folder; a byte-order mark is no name.

    Raises:
        ValueError: If it is not text, lists nothing, or a file is not there; the message has the line.
    """
    content = path.read_bytes()
    wide = content.startswith((b"\xff\xfe", b"\xfe\xff"))
    try:
        lines = content.decode("utf-16" if wide else "utf-8-sig").splitlines()
    except UnicodeError as error:
        raise ValueError(f"{kind} list {path} is not text: {error}") from error
    files = []
    for number, line in enumerate(lines, 1):
        name = line.strip().strip('"')
        if not name or name.startswith("#"):
            continue
        file = path.parent / name
        if not file.is_file():
            raise ValueError(f"{kind} list {path}, line {number}: there is no file {file}")
        files.append(file)
    if not files:
        raise ValueError(f"{kind} list {path} names no file")
    return files


def short_names(files: Sequence[Path]) -> list[str]:
    """Return a name for each file: its stem, with as many folders before it as tell all apart."""
    paths = [file.resolve().with_suffix("") for file in files]
    for depth in range(1, max(len(path.parts) for path in paths) + 1):
        names = ["_".join(path.parts[-depth:]) for path in paths]
        if len(set(names)) == len(names):
            return names
    doubled = Counter(map(str, files)).most_common(1)[0][0]
    raise ValueError(f"{doubled} is listed twice")
