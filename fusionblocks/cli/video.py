"""``fusionblocks video``: two sequences in, one out."""

from __future__ import annotations

import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from fusionblocks.cli._console import BAD_INPUT, INTERRUPTED, Warnings, open_device, out, progress_bar, refuse
from fusionblocks.cli._networks import open_network
from fusionblocks.cli._ranges import ThermalRangeOption, parse_range


class Sync(StrEnum):
    """How frames of both cameras find each other."""

    NEAREST = "nearest"
    TIMESTAMPS = "timestamps"


def video(
    infrared: Annotated[
        str, typer.Option(help="Video file, folder, stack (.tiff, .npy, .raw), or a camera: device:0.")
    ],
    visible: Annotated[str, typer.Option(help="The same of the visible camera.")],
    output: Annotated[Path, typer.Option(help="Video file to write (.mp4, .mov, .mkv), or a folder.")],
    model: Annotated[str | None, typer.Option(help="Network, as for [bold]fusionblocks fuse[/].")] = None,
    checkpoint: Annotated[Path | None, typer.Option(help="Weights.")] = None,
    set: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="An argument of the network; may come again.")
    ] = None,
    device: Annotated[str, typer.Option(help="Where to run: auto (a GPU if there is one), cpu, cuda:1, ...")] = "auto",
    alignment: Annotated[
        Path | None, typer.Option(help="How the cameras lie, a file of [bold]fusionblocks align[/].")
    ] = None,
    thermal_range: ThermalRangeOption = None,
    black_hot: Annotated[bool, typer.Option("--black-hot", help="Hot is black in the infrared pictures.")] = False,
    resize: Annotated[
        str | None, typer.Option(help="Resize 'infrared' or 'visible' to the other's size where they differ.")
    ] = None,
    sync: Annotated[
        Sync, typer.Option(help="nearest: both begin together; timestamps: by the times of the files or in the names.")
    ] = Sync.NEAREST,
    offset: Annotated[float, typer.Option(help="Seconds to add to the infrared times.")] = 0.0,
    rate: Annotated[
        float | None, typer.Option(help="Frames a second of folders and stacks. [25]", show_default=False)
    ] = None,
    raw_size: Annotated[
        tuple[int, int] | None, typer.Option(metavar="HEIGHT WIDTH", help="Of the frames of a .raw file.")
    ] = None,
    show: Annotated[bool, typer.Option("--show", help="Show the fused pictures in a window.")] = False,
    skip_existing: Annotated[
        bool, typer.Option("--skip-existing", help="Leave frames that are in the folder.")
    ] = False,
) -> None:
    """Fuse two sequences steadily; stop at any moment, and what is written can be played."""
    from fusionblocks.alignment import Alignment
    from fusionblocks.image.infrared import same_range
    from fusionblocks.optimization import optimize
    from fusionblocks.video import FusionStream, Pairing, Window, open_frames, open_writer

    try:
        place = open_device(device)
        network = optimize(open_network(model, checkpoint, set or []).to(place), outputs=("fused",))
        stamped = sync is Sync.TIMESTAMPS
        sources = [open_frames(source, rate=rate, raw_size=raw_size, stamped=stamped) for source in (infrared, visible)]
        _check_output(output, infrared, visible)
        limits = parse_range(thermal_range)
        if limits == "scene":
            if not sources[0].pictures:
                raise ValueError("--thermal-range scene needs a folder of infrared pictures, which can be read before")
            limits = same_range(limits, sources[0].pictures)
        stream = FusionStream(
            network,
            alignment=None if alignment is None else Alignment.load(alignment),
            thermal_range=limits,
            black_hot=black_hot,
            resize=resize,
        )
        sound = next((source for source in (visible, infrared) if Path(source).is_file()), None)
        writer = open_writer(output, sources[1].rate, sound_of=sound if _is_video(sound) else None)
        window = Window() if show else None
    except (*BAD_INPUT, ImportError) as error:
        refuse(error)

    pairing = Pairing(*sources, offset=offset, absolute=stamped)
    warned = Warnings()
    run = _Run(pairing, stream, writer, window, skip_existing)
    stopped, failed = False, ""
    try:
        with writer:
            run.all(sources[1].count, warned)
    except KeyboardInterrupt:
        stopped = True
    except BAD_INPUT as error:
        failed = str(error)
    warned.report()
    rest = f", {pairing.repeated} with the infrared frame before" if pairing.repeated else ""
    rest += f", {pairing.without} visible frames without a partner left out" if pairing.without else ""
    kept = f", {run.kept} were there" if run.kept else ""
    out.print(f"{run.done} frames in {output}, {run.speed:.1f} a second{kept}{rest}", highlight=False)
    if stopped:
        raise typer.Exit(INTERRUPTED)
    if failed or not (run.done or run.kept):
        refuse(f"after {run.done} frames: {failed or 'no visible frame has an infrared partner: look at --offset'}")


class _Run:
    """The loop over all pairs."""

    def __init__(self, pairing: Any, stream: Any, writer: Any, window: Any, skip_existing: bool) -> None:
        self.pairing, self.stream, self.writer, self.window = pairing, stream, writer, window
        self.skip_existing = skip_existing
        self.done = self.kept = 0
        self.seconds = 1e-9

    @property
    def speed(self) -> float:
        """Frames a second."""
        return self.done / self.seconds

    def all(self, count: int | None, warned: Warnings) -> None:
        """Fuse all pairs under a progress bar."""
        import numpy as np

        begin = time.perf_counter()
        with progress_bar("fusing") as progress:
            task = progress.add_task("fusing", total=count, name="")
            for thermal, colour in self.pairing:
                if self.skip_existing and self.writer.has(colour.name):
                    self.stream.watch(thermal.picture)
                    self.kept += 1
                else:
                    with warned.of(colour.name):
                        fused = np.asarray(self.stream(thermal.picture, colour.picture))
                    self.writer.write(fused, colour.time, colour.name)
                    self.done += 1
                    self.seconds = time.perf_counter() - begin
                    if self.window is not None:
                        self.window.show(fused)
                progress.update(task, advance=1, name=f"{self.speed:.1f} frames a second")


def _is_video(source: str | None) -> bool:
    from fusionblocks.video.frames import VIDEO_SUFFIXES

    return source is not None and Path(source).suffix.lower() in VIDEO_SUFFIXES


def _check_output(output: Path, *sources: str) -> None:
    for source in sources:
        if not source.startswith("device:") and output.resolve() == Path(source).resolve():
            raise ValueError(f"--output {output} is one of the inputs; it would be overwritten")
