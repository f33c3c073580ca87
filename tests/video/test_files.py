"""Sequences as files: what is read, which frames go together, and what is written."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile

import fusionblocks as fb
from fusionblocks.image import write_image
from fusionblocks.video import Frame, Pairing, VideoWriter, open_frames, open_writer
from tests.helpers.command import run

av = pytest.importorskip("av")
SEQUENCE = fb.data.synthetic_sequence(6, seed=1, height=48, width=64)


def write_video(path: Path, frames: list[np.ndarray], rate: int, *, codec: str = "ffv1", sound: bool = False) -> Path:
    """Write a video as a camera would: gray of 16 bits or RGB, perhaps with a tone."""
    with av.open(str(path), "w") as container:
        gray = frames[0].ndim == 2
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height = frames[0].shape[1], frames[0].shape[0]
        stream.pix_fmt = "gray16le" if gray else ("yuv420p" if codec != "ffv1" else "bgr0")
        audio = container.add_stream("aac", rate=16000, layout="mono") if sound else None
        for frame in frames:
            picture = av.VideoFrame.from_ndarray(frame, format="gray16le" if gray else "rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
        if audio is not None:
            samples = np.sin(np.arange(16000 * len(frames) // rate) / 5).astype(np.float32)[None]
            tone = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
            tone.sample_rate = 16000
            container.mux(audio.encode(tone))
            container.mux(audio.encode(None))
    return path


@pytest.fixture
def sources(tmp_path: Path) -> dict[str, Path]:
    thermal = [pair.infrared for pair in SEQUENCE.pairs]
    colour = [pair.visible for pair in SEQUENCE.pairs]
    for folder, suffix, pictures in (("ir", "tiff", thermal), ("vi", "png", colour)):
        (tmp_path / folder).mkdir()
        for i, picture in enumerate(pictures):
            write_image(tmp_path / folder / f"{i}.{suffix}", picture)
    tifffile.imwrite(tmp_path / "ir.tiff", np.stack(thermal))
    np.save(tmp_path / "vi.npy", np.stack(colour))
    (tmp_path / "ir.raw").write_bytes(np.stack(thermal).astype("<u2").tobytes())
    write_video(tmp_path / "ir.mkv", thermal, 25)
    write_video(tmp_path / "vi.mp4", colour, 25, codec="libx264", sound=True)
    return {name: tmp_path / name for name in ("ir", "vi", "ir.tiff", "vi.npy", "ir.raw", "ir.mkv", "vi.mp4")}


def test_every_kind_of_source_gives_the_same_counts(sources: dict[str, Path]) -> None:
    for name, options in {"ir": {}, "ir.tiff": {}, "ir.raw": {"raw_size": (48, 64)}, "ir.mkv": {}}.items():
        frames = open_frames(sources[name], **options)
        assert frames.rate == 25
        read = list(frames)
        assert len(read) == 6
        assert [round(frame.time * 25) for frame in read] == list(range(6))
        for frame, pair in zip(read, SEQUENCE.pairs, strict=True):
            picture = fb.image.read_image(frame.picture) if name == "ir" else frame.picture
            assert picture.dtype == np.uint16
            assert np.array_equal(picture, pair.infrared)


def test_what_is_no_sequence_is_refused(sources: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    (tmp_path / "bad.tiff").write_bytes(b"no stack")
    (tmp_path / "text.doc").write_bytes(b"")
    np.save(tmp_path / "flat.npy", np.zeros((3, 4)))
    for source, kind, message in (
        (tmp_path / "none.mp4", FileNotFoundError, "there is no video, stack or folder"),
        (tmp_path / "empty", ValueError, "holds no picture"),
        (tmp_path / "bad.mp4", ValueError, "cannot read .*bad.mp4"),
        (tmp_path / "bad.tiff", ValueError, "cannot read .*bad.tiff"),
        (tmp_path / "text.doc", ValueError, "is no sequence: expected a folder, a camera"),
        (tmp_path / "flat.npy", ValueError, r"must hold a stack \(T, H, W\)"),
        (sources["ir.raw"], ValueError, "give raw_size"),
        ("device:front", ValueError, "a camera is called device:0"),
        ("device:97", ValueError, "cannot open the camera /dev/video97"),
    ):
        with pytest.raises(kind, match=message):
            open_frames(source)
    with pytest.raises(ValueError, match="not a number of frames of 47x64"):
        open_frames(sources["ir.raw"], raw_size=(47, 64))
    with pytest.raises(ValueError, match="rate must be a positive number"):
        open_frames(sources["ir"], rate=0)


def test_times_in_names(tmp_path: Path) -> None:
    for name in ("t_1700000000500", "t_1700000000100", "t_1700000001000"):
        write_image(tmp_path / f"{name}.png", np.zeros((4, 4), np.uint8))
    times = [frame.time for frame in open_frames(tmp_path, stamped=True)]
    assert times == [1700000000.1, 1700000000.5, 1700000001.0]
    write_image(tmp_path / "7.png", np.zeros((4, 4), np.uint8))
    with pytest.raises(ValueError, match=r"7.png has no timestamp in its name"):
        open_frames(tmp_path, stamped=True)


# --- which frames go together -----------------------------------------------------------------------------------------


def pairs(infrared: list[float], visible: list[float], **options: object) -> tuple[list[tuple[int, int]], Pairing]:
    pairing = Pairing(
        [Frame(t, i, "") for i, t in enumerate(infrared)], [Frame(t, i, "") for i, t in enumerate(visible)], **options
    )
    return [(a.picture, b.picture) for a, b in pairing], pairing


def test_each_visible_frame_has_the_nearest_infrared_one() -> None:
    found, pairing = pairs([0, 0.11, 0.22, 0.33], [i / 25 for i in range(9)])
    assert found == [(0, 0), (0, 1), (1, 2), (1, 3), (1, 4), (2, 5), (2, 6), (3, 7), (3, 8)]
    assert (pairing.repeated, pairing.unused, pairing.without) == (5, 0, 0)
    found, pairing = pairs([i / 50 for i in range(9)], [0, 0.04, 0.08])
    assert found == [(0, 0), (2, 1), (4, 2)]
    assert pairing.unused == 2


def test_dropped_frames_do_not_shift_the_rest() -> None:
    found, _ = pairs([0, 0.04, 0.2, 0.24], [i / 25 for i in range(7)])
    assert found == [(0, 0), (1, 1), (1, 2), (1, 3), (2, 4), (2, 5), (3, 6)]


def test_an_offset_and_absolute_times() -> None:
    found, pairing = pairs([0, 0.1, 0.2, 0.3], [0, 0.1, 0.2, 0.3], offset=0.1)
    assert found[0] == (0, 0)
    assert found[1:] == [(0, 1), (1, 2), (2, 3)]
    found, pairing = pairs([100.0, 100.1, 100.2], [99.0, 99.1, 100.1, 100.2, 101.0, 101.1], absolute=True)
    assert found == [(1, 2), (2, 3)]
    assert pairing.without == 3
    assert pairs([], [0.0])[0] == []
    assert pairs([0.0], [0.0, 0.5])[0] == [(0, 0), (0, 1)]


# --- writing ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(48, 64), (47, 65)])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov"])
def test_a_video_holds_what_was_written(tmp_path: Path, size: tuple[int, int], suffix: str) -> None:
    ramp = np.linspace(0, 255, size[0] * size[1]).reshape(size).astype(np.uint8)
    frames = [np.repeat(np.roll(ramp, 5 * i, axis=0)[..., None], 3, axis=2) for i in range(5)]
    with VideoWriter(tmp_path / f"a{suffix}", 10) as writer:
        for i, frame in enumerate(frames):
            writer.write(frame, 3 + i / 10 + (i == 4) * 0.2, "")
    read = list(open_frames(tmp_path / f"a{suffix}"))
    assert [round(frame.time, 2) for frame in read] == [0, 0.1, 0.2, 0.3, 0.6]
    for frame, expected in zip(read, frames, strict=True):
        assert frame.picture.shape == expected.shape
        assert np.abs(frame.picture.astype(int) - expected).mean() < 2


def test_writers_that_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="path must end in one of .mkv, .mov, .mp4"):
        open_writer(tmp_path / "a.gif", 25)
    with pytest.raises(ValueError, match="there is no folder"):
        open_writer(tmp_path / "none/a.mp4", 25)
    with VideoWriter(tmp_path / "a.mp4", 25) as writer:
        writer.write(np.zeros((48, 64, 3), np.uint8), 0, "")
        with pytest.raises(ValueError, match="frames must have one size, got 20x30 after 48x64"):
            writer.write(np.zeros((20, 30, 3), np.uint8), 1, "")
    assert len(list(open_frames(tmp_path / "a.mp4"))) == 1  # what came before is there


# --- the command ------------------------------------------------------------------------------------------------------


def test_video_of_a_stack_and_a_video_keeps_the_sound(sources: dict[str, Path], tmp_path: Path) -> None:
    code, output = run(
        "video", "--infrared", sources["ir.mkv"], "--visible", sources["vi.mp4"], "--output", tmp_path / "out.mp4",
        "--thermal-range", "27900", "31500",
    )  # fmt: skip
    assert code == 0
    assert "6 frames in" in output
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert len(container.streams.audio) == 1
        assert sum(packet.size for packet in container.demux(container.streams.audio[0])) > 100
    frames = [frame.picture for frame in open_frames(tmp_path / "out.mp4")]
    stream = fb.FusionStream(thermal_range=(27900, 31500))
    for frame, pair, seen in zip(frames, SEQUENCE.pairs, open_frames(sources["vi.mp4"]), strict=True):
        expected = stream(pair.infrared, seen.picture)
        assert np.abs(frame.astype(int) - expected).mean() < 6  # halved colour resolution


def test_video_of_folders_goes_on_where_it_stopped(sources: dict[str, Path], tmp_path: Path) -> None:
    command = ("video", "--infrared", sources["ir"], "--visible", sources["vi"], "--output", tmp_path / "out")
    command += ("--thermal-range", "scene", "--model", "laplacian")
    assert run(*command)[0] == 0
    files = {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()}
    assert sorted(files) == [f"{i}.png" for i in range(6)]
    (tmp_path / "out/3.png").unlink()
    code, output = run(*command, "--skip-existing")
    assert code == 0
    assert "1 frames in" in output
    assert "5 were there" in output
    assert {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()} == files


def test_video_from_a_raw_file_and_a_stack(sources: dict[str, Path], tmp_path: Path) -> None:
    command = ("--infrared", sources["ir.raw"], "--raw-size", 48, 64, "--visible", sources["vi.npy"])
    assert run("video", *command, "--output", tmp_path / "out", "--rate", "9")[0] == 0
    assert len(list((tmp_path / "out").iterdir())) == 6


def test_bad_video_calls_are_one_red_line(sources: dict[str, Path], tmp_path: Path) -> None:
    both = ("--infrared", sources["ir"], "--visible", sources["vi"])
    for options, message in (
        ((*both, "--output", sources["vi"]), "is one of the inputs"),
        ((*both, "--output", tmp_path / "a.gif"), "must end in one of"),
        (
            ("--infrared", sources["ir.tiff"], *both[2:], "--output", tmp_path / "o", "--thermal-range", "scene"),
            "needs a folder",
        ),
        (("--infrared", tmp_path / "none", *both[2:], "--output", tmp_path / "o"), "there is no video"),
        ((*both, "--output", tmp_path / "o", "--sync", "timestamps"), "has no timestamp in its name"),
        ((*both, "--output", tmp_path / "o", "--show"), "--show needs a display"),
    ):
        if "--show" in options and os.environ.get("DISPLAY"):
            continue
        code, output = run("video", *options)
        assert code == 2, output
        assert message in " ".join(output.split())


def test_a_killed_run_leaves_a_file_that_plays(sources: dict[str, Path], tmp_path: Path) -> None:
    script = (
        "import sys, time, numpy as np\n"
        "from fusionblocks.video import VideoWriter\n"
        "writer = VideoWriter(sys.argv[1], 10)\n"
        "for i in range(100000):\n"
        "    writer.write(np.full((48, 64, 3), i % 256, np.uint8), i / 10, '')\n"
        "    time.sleep(0.002)\n"
    )
    for suffix in ("mp4", "mkv"):
        file = tmp_path / f"killed.{suffix}"
        process = subprocess.Popen([sys.executable, "-c", script, str(file)])
        deadline = time.monotonic() + 60
        while not (file.exists() and file.stat().st_size > 20000) and time.monotonic() < deadline:
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert len(list(open_frames(file))) >= 10
