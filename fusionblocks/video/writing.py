"""Where fused frames go: a folder of pictures, or a video file that plays wherever its writing stopped."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from fusionblocks.image import write_image
from fusionblocks.video.frames import import_av

WRITABLE_VIDEOS = (".mkv", ".mov", ".mp4")
CLOCK = 90_000
"""Ticks a second in which times are written."""
CODECS = ("libx264", "mpeg4")
"""What encodes, the first that PyAV has."""


class FolderWriter:
    """Frames as PNG files, each whole or absent.

    Args:
        folder: Where to; made if it is not there.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> from fusionblocks.video import FolderWriter
        >>> with FolderWriter(f"{tempfile.mkdtemp()}/fused") as writer:
        ...     writer.write(np.zeros((6, 8, 3), np.uint8), 0.0, "000001")
        ...     writer.has("000001"), writer.has("000002")
        (True, False)
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)

    def has(self, name: str) -> bool:
        """Whether a frame is there already."""
        return (self.folder / f"{name}.png").exists()

    def write(self, picture: np.ndarray, time: float, name: str) -> None:
        """Write a picture ``(H, W, 3)`` uint8."""
        write_image(self.folder / f"{name}.png", picture)

    def close(self) -> None:
        """Do nothing: every file is finished."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class VideoWriter:
    """Frames as a video file, in fragments of a second: what was written plays, whatever stops the program.

    Pictures are encoded in H.264 at high quality; odd sizes keep every pixel, with full colour
    resolution. The sound of another file is copied unchanged.

    Args:
        path: The file, ``.mp4``, ``.mov`` or ``.mkv``.
        rate: Frames a second, about; each frame has its own time.
        sound_of: A video file whose sound is copied, or None.

    Raises:
        ImportError: If PyAV is not installed.
        ValueError: If the suffix is another, or the folder is not there.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> from fusionblocks.video import VideoWriter, open_frames
        >>> file = f"{tempfile.mkdtemp()}/fused.mp4"
        >>> with VideoWriter(file, rate=10) as writer:
        ...     for i in range(3):
        ...         writer.write(np.full((48, 64, 3), 80 * i, np.uint8), i / 10, "")
        >>> [int(frame.picture.mean().round(-1)) for frame in open_frames(file)]
        [0, 80, 160]
    """

    def __init__(self, path: str | Path, rate: float, *, sound_of: str | Path | None = None) -> None:
        self._av = import_av()
        self.path = Path(path)
        if self.path.suffix.lower() not in WRITABLE_VIDEOS:
            raise ValueError(f"path must end in one of {', '.join(WRITABLE_VIDEOS)}, got {path}")
        if not self.path.parent.is_dir():
            raise ValueError(f"cannot write {path}: there is no folder {self.path.parent}")
        if not rate > 0:
            raise ValueError(f"rate must be a positive number of frames a second, got {rate!r}")
        self.rate = rate
        self._container: Any = None
        self._stream: Any = None
        self._sound = None if sound_of is None else _Sound(self._av, Path(sound_of))
        self._begin: float | None = None
        self._last = -1

    def has(self, name: str) -> bool:
        """Whether a frame is there already: a file is written anew."""
        return False

    def write(self, picture: np.ndarray, time: float, name: str) -> None:
        """Write a picture ``(H, W, 3)`` uint8 that is shown from a time on, in seconds."""
        if self._begin is None:
            self._begin = time
            self._open(picture.shape[1], picture.shape[0])
        if picture.shape[:2] != (self._stream.height, self._stream.width):
            raise ValueError(
                f"frames must have one size, got {picture.shape[0]}x{picture.shape[1]} after "
                f"{self._stream.height}x{self._stream.width} (height x width)"
            )
        if self._sound is not None:
            self._sound.write(self._container, self._begin, until=time)
        frame = self._av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
        frame.time_base = Fraction(1, CLOCK)
        frame.pts = self._last = max(round((time - self._begin) * CLOCK), self._last + 1)
        self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        """Write what is left and end the file."""
        if self._container is None:
            return
        container, self._container = self._container, None
        try:
            container.mux(self._stream.encode(None))
            if self._sound is not None and self._begin is not None:
                self._sound.write(container, self._begin, until=self._begin + self._last / CLOCK + 1 / self.rate)
        finally:
            container.close()
            if self._sound is not None:
                self._sound.close()

    def _open(self, width: int, height: int) -> None:
        fragments = (
            {} if self.path.suffix.lower() == ".mkv" else {"movflags": "frag_keyframe+empty_moov+default_base_moof"}
        )
        self._container = self._av.open(str(self.path), "w", options=fragments)
        codec = next(name for name in CODECS if name in self._av.codecs_available)
        stream = self._container.add_stream(codec, rate=Fraction(self.rate).limit_denominator(1001))
        stream.width, stream.height = width, height
        # halved colour resolution, which every player shows, needs even sizes
        stream.pix_fmt = "yuv420p" if width % 2 == height % 2 == 0 or codec != "libx264" else "yuv444p"
        stream.options = {"crf": "17", "preset": "veryfast"} if codec == "libx264" else {"qscale": "2"}
        stream.codec_context.time_base = Fraction(1, CLOCK)
        stream.codec_context.max_b_frames = 0  # so that the first picture is shown at 0 without an edit list
        stream.codec_context.gop_size = max(1, round(self.rate))
        self._stream = stream
        if self._sound is not None:
            self._sound.join(self._container)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Sound:
    """The sound of a video file, copied packet by packet as the pictures get there."""

    def __init__(self, av: Any, path: Path) -> None:
        self._source = av.open(str(path))
        streams = self._source.streams.audio
        self._stream = streams[0] if streams else None
        self._packets: Iterator[Any] = self._source.demux(self._stream) if self._stream is not None else iter(())
        self._waiting: Any = None
        self._target: Any = None

    def join(self, container: Any) -> None:
        """Add the sound to a file that begins."""
        if self._stream is not None:
            self._target = container.add_stream_from_template(self._stream)

    def write(self, container: Any, begin: float, until: float) -> None:
        """Copy what sounds up to a time; the file begins at ``begin``."""
        while self._target is not None:
            packet = self._waiting or next(self._packets, None)
            self._waiting = None
            if packet is None or packet.pts is None:  # the end
                return
            if packet.pts * packet.time_base > until:
                self._waiting = packet
                return
            if packet.pts * packet.time_base < begin:
                continue
            shift = round(begin / packet.time_base)
            packet.pts -= shift
            packet.dts = None if packet.dts is None else packet.dts - shift
            packet.stream = self._target
            container.mux(packet)

    def close(self) -> None:
        """Close the file."""
        self._source.close()


def open_writer(output: str | Path, rate: float, *, sound_of: str | Path | None = None) -> FolderWriter | VideoWriter:
    """Return what writes frames to a video file or, without a suffix, to a folder.

    Args:
        output: A file ending in ``.mp4``, ``.mov`` or ``.mkv``, or a folder.
        rate: Frames a second of a file.
        sound_of: A video file whose sound is copied into a file.

    Raises:
        ImportError: If a file needs PyAV and it is not installed.
        ValueError: If the suffix is another one, or the folder of a file is not there.

    Example:
        >>> import tempfile
        >>> from fusionblocks.video import open_writer
        >>> type(open_writer(f"{tempfile.mkdtemp()}/fused", rate=25)).__name__
        'FolderWriter'
    """
    path = Path(output)
    if path.is_dir() or not path.suffix:
        return FolderWriter(path)
    return VideoWriter(path, rate, sound_of=sound_of)
