"""Where frames come from: folders, stacks, video files and cameras."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import tifffile

from fusionblocks.data.pairs import natural_key
from fusionblocks.image import READABLE_SUFFIXES

VIDEO_SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpg", ".ts", ".webm", ".wmv")
STACK_SUFFIXES = (".npy", ".tif", ".tiff")
RAW_SUFFIXES = (".bin", ".raw")
RATE = 25.0
"""Frames a second of a folder or a stack that does not say."""
TICKS = {10: 1.0, 13: 1e3, 16: 1e6, 19: 1e9}
"""Of how many digits a name's timestamp is, and how many of its units make a second."""


class Frame(NamedTuple):
    """One picture of a sequence.

    Args:
        time: Seconds from the source's own beginning, or its timestamp.
        picture: A path or an array, as :func:`fusionblocks.fuse` takes it.
        name: What a file of it is called.
    """

    time: float
    picture: Any
    name: str


class Frames:
    """A sequence of pictures, decoded as they are asked for.

    Args:
        read: Begins the sequence anew.
        rate: Frames a second.
        count: How many there are, or None for a camera and a file that does not tell.
        pictures: The files of a folder, which may all be read before.

    No example: made by :func:`open_frames`.
    """

    def __init__(
        self,
        read: Callable[[], Iterator[Frame]],
        rate: float,
        count: int | None,
        pictures: tuple[Path, ...] = (),
    ) -> None:
        self._read = read
        self.rate = rate
        self.count = count
        self.pictures = pictures

    def __iter__(self) -> Iterator[Frame]:
        return self._read()


def open_frames(
    source: str | Path, *, rate: float | None = None, raw_size: tuple[int, int] | None = None, stamped: bool = False
) -> Frames:
    """Open a sequence of pictures.

    Args:
        source: A folder of pictures, in natural order; a stack, which is a TIFF of several pages, a ``.npy`` of
            ``(T, H, W)`` or ``(T, H, W, 3)``, or 16-bit counts one after another (``.raw``, ``.bin``); a video file;
            or ``"device:0"``, a camera.
        rate: Frames a second of a folder or a stack; 25 if not told.
        raw_size: Height and width of the frames of a ``.raw`` file.
        stamped: Take the times of a folder's pictures from the digits in their names: seconds, or milli-, micro- or
            nanoseconds since 1970.

    Raises:
        FileNotFoundError: If there is no such file or folder.
        ImportError: If a video or a camera needs PyAV and it is not installed.
        ValueError: If it is no sequence, or holds no picture.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> from fusionblocks.video import open_frames
        >>> stack = f"{tempfile.mkdtemp()}/thermal.npy"
        >>> np.save(stack, np.zeros((3, 6, 8), np.uint16))
        >>> frames = open_frames(stack, rate=9)
        >>> frames.count, [round(frame.time, 2) for frame in frames]
        (3, [0.0, 0.11, 0.22])
    """
    if rate is not None and not rate > 0:
        raise ValueError(f"rate must be a positive number of frames a second, got {rate!r}")
    text = str(source)
    if text.startswith("device:"):
        return _camera(text.removeprefix("device:"))
    path = Path(source)
    if path.is_dir():
        return _folder(path, rate or RATE, stamped)
    if not path.is_file():
        raise FileNotFoundError(f"there is no video, stack or folder {path}")
    suffix = path.suffix.lower()
    if suffix in RAW_SUFFIXES:
        return _raw(path, rate or RATE, raw_size)
    if suffix == ".npy":
        return _array_stack(path, rate or RATE)
    if suffix in STACK_SUFFIXES:
        return _tiff_stack(path, rate or RATE)
    if suffix in VIDEO_SUFFIXES:
        return _video(path)
    known = ", ".join((*VIDEO_SUFFIXES, *STACK_SUFFIXES, *RAW_SUFFIXES))
    raise ValueError(f"{path} is no sequence: expected a folder, a camera (device:0), or a file ending in {known}")


def import_av() -> ModuleType:
    """Return PyAV, or say how to get it."""
    try:
        import av
    except ImportError as error:
        raise ImportError("video files and cameras need PyAV: pip install 'fusionblocks[video]'") from error
    return av


def _folder(path: Path, rate: float, stamped: bool) -> Frames:
    files = [
        file for file in path.iterdir() if file.suffix.lower() in READABLE_SUFFIXES and not file.name.startswith(".")
    ]
    if not files:
        raise ValueError(f"folder {path} holds no picture ({', '.join(sorted(READABLE_SUFFIXES))})")
    files.sort(key=lambda file: natural_key(file.name))
    times = [_stamp(file) for file in files] if stamped else [i / rate for i in range(len(files))]
    if sorted(times) != times:
        files = [file for _, file in sorted(zip(times, files, strict=True))]
        times.sort()

    def read() -> Iterator[Frame]:
        for time, file in zip(times, files, strict=True):
            yield Frame(time, file, file.stem)

    return Frames(read, _rate_of(times, rate), len(files), tuple(files))


def _rate_of(times: list[float], rate: float) -> float:
    gaps = np.diff(times)
    return rate if len(gaps) == 0 or np.median(gaps) <= 0 else float(1 / np.median(gaps))


def _stamp(file: Path) -> float:
    """Return the time in a file's name, in seconds."""
    digits = max(re.findall(r"\d+", file.stem) or [""], key=len)
    if len(digits) in TICKS:
        return int(digits) / TICKS[len(digits)]
    decimal = re.search(r"\d+\.\d+", file.stem)
    if decimal:
        return float(decimal[0])
    raise ValueError(
        f"{file} has no timestamp in its name: expected seconds with a fraction, or 10, 13, 16 or 19 digits "
        "since 1970 (seconds, milli-, micro-, nanoseconds)"
    )


def _counted(pictures: Any, count: int, rate: float) -> Frames:
    """Return the frames of a stack whose pictures are had by their number."""
    if not count:
        raise ValueError("a stack must hold at least one picture")

    def read() -> Iterator[Frame]:
        for i in range(count):
            yield Frame(i / rate, pictures(i), f"{i + 1:06d}")

    return Frames(read, rate, count)


def _array_stack(path: Path, rate: float) -> Frames:
    try:
        stack = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"cannot read {path}: {error}") from error
    if stack.ndim not in (3, 4) or stack.shape[3:] not in ((), (1,), (3,)) or 0 in stack.shape:
        raise ValueError(f"{path} must hold a stack (T, H, W) or (T, H, W, 3), got {stack.shape}")
    return _counted(lambda i: np.array(stack[i]), len(stack), rate)


def _tiff_stack(path: Path, rate: float) -> Frames:
    try:
        with tifffile.TiffFile(path) as file:
            count = len(file.pages)
            shapes = {(page.shape, str(page.dtype)) for page in file.pages}
    except (tifffile.TiffFileError, OSError, ValueError, KeyError) as error:
        raise ValueError(f"cannot read {path}: {error}") from error
    if len(shapes) > 1:
        raise ValueError(f"the pages of {path} must have one shape and dtype, got {sorted(map(str, shapes))}")

    def read() -> Iterator[Frame]:
        with tifffile.TiffFile(path) as file:
            for i, page in enumerate(file.pages):
                yield Frame(i / rate, page.asarray(), f"{i + 1:06d}")

    return Frames(read, rate, count)


def _raw(path: Path, rate: float, size: tuple[int, int] | None) -> Frames:
    if size is None:
        raise ValueError(f"{path} holds counts without a size: give raw_size, height and width (--raw-size)")
    height, width = size
    bytes_each = 2 * height * width
    whole, rest = divmod(path.stat().st_size, bytes_each) if height > 0 and width > 0 else (0, 1)
    if rest or not whole:
        raise ValueError(
            f"{path} has {path.stat().st_size} bytes, which is not a number of frames of {height}x{width} in 16 bits"
        )
    stack = np.memmap(path, "<u2", "r", shape=(whole, height, width))
    return _counted(lambda i: np.array(stack[i]), whole, rate)


def _video(path: Path) -> Frames:
    av = import_av()
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise ValueError(f"{path} holds no pictures")
            stream = container.streams.video[0]
            rate = float(stream.average_rate or stream.guessed_rate or RATE)
            count = stream.frames or None
    except av.error.FFmpegError as error:
        raise ValueError(f"cannot read {path}: {error}") from error

    def read() -> Iterator[Frame]:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            try:
                for i, frame in enumerate(container.decode(stream)):
                    yield Frame(i / rate if frame.time is None else frame.time, _pixels(frame), f"{i + 1:06d}")
            except av.error.InvalidDataError as error:
                raise ValueError(f"{path} is damaged after its frame {i + 1}: {error}") from error

    return Frames(read, rate, count)


def _camera(number: str) -> Frames:
    av = import_av()
    if not number.isdecimal():
        raise ValueError(f"a camera is called device:0, device:1, ..., got 'device:{number}'")
    device = f"/dev/video{number}"
    try:
        container = av.open(device, format="v4l2")
    except (av.error.FFmpegError, ValueError) as error:
        raise ValueError(f"cannot open the camera {device}: {error}") from error
    rate = float(container.streams.video[0].average_rate or RATE)

    def read() -> Iterator[Frame]:
        with container:
            for i, frame in enumerate(container.decode(video=0)):
                yield Frame(i / rate if frame.time is None else frame.time, _pixels(frame), f"{i + 1:06d}")

    return Frames(read, rate, None)


def _pixels(frame: Any) -> np.ndarray:
    """Return a decoded frame as an array: gray of 8 or 16 bits as it is, anything else as RGB."""
    name = frame.format.name
    if name.startswith("gray") and name != "gray":
        return np.asarray(frame.to_ndarray(format="gray16le"))
    return np.asarray(frame.to_ndarray(format="gray" if name == "gray" else "rgb24"))
