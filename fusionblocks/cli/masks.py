"""``fusionblocks masks``: SAM's masks of a folder of pairs, made once, ahead of fusion."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fusionblocks.cli._console import (
    BAD_INPUT,
    INTERRUPTED,
    SOME_FAILED,
    PatternOption,
    err,
    one_line,
    open_device,
    out,
    progress_bar,
    refuse,
    report_skipped,
    told_pairs,
)

if TYPE_CHECKING:
    from torch import Tensor

    from fusionblocks.data.pairs import ImagePair
    from fusionblocks.guidance import SAMMasks

KINDS = ("infrared", "visible")
SETTINGS = "masks.json"


def masks(
    infrared: Annotated[Path, typer.Option(help="Folder of infrared pictures.")],
    visible: Annotated[Path, typer.Option(help="Folder of visible pictures with the same names.")],
    output: Annotated[Path, typer.Option(help="Folder to write to: infrared/NAME.png and visible/NAME.png.")],
    model: Annotated[str, typer.Option(help="SAM's size: vit_b, vit_l or vit_h.")] = "vit_b",
    checkpoint: Annotated[Path | None, typer.Option(help="SAM's published weights, a local file.")] = None,
    encoding: Annotated[str, typer.Option(help="From masks to a map: index, binary, score or edges.")] = "index",
    encoder: Annotated[str, typer.Option(help="segment_anything, or timm: the faster one.")] = "segment_anything",
    image_size: Annotated[
        int | None, typer.Option(help="Side of the square that the encoder sees; others than 1024 want timm.")
    ] = None,
    points_per_side: Annotated[int, typer.Option(help="Points along a side of the grid of prompts.")] = 32,
    points_per_batch: Annotated[int, typer.Option(help="Points at once; fewer need less memory.")] = 64,
    pred_iou_thresh: Annotated[float, typer.Option(help="The least IoU that SAM predicts for a mask.")] = 0.88,
    stability_score_thresh: Annotated[float, typer.Option(help="The least stability of a mask.")] = 0.95,
    pattern: PatternOption = None,
    device: Annotated[str, typer.Option(help="Where to run: auto (a GPU if there is one), cpu, cuda:1, ...")] = "auto",
) -> None:
    """Make the masks of a folder of pairs for [bold]fuse --infrared-mask --visible-mask[/].

    The same call again goes on where a run stopped: masks that are there are kept.
    """
    from fusionblocks.data.pairs import pair_folders
    from fusionblocks.guidance import SAMMasks

    try:
        listing = pair_folders(infrared, visible, pattern=pattern)
        place = open_device(device)
        guide = SAMMasks(
            model,
            checkpoint,
            encoding=encoding,
            encoder=encoder,
            image_size=image_size,
            points_per_side=points_per_side,
            points_per_batch=points_per_batch,
            pred_iou_thresh=pred_iou_thresh,
            stability_score_thresh=stability_score_thresh,
        )
        _open_output(output, {"model": model, "weights": guide.fingerprint(), "encoding": encoding, **guide.settings()})
        guide.to(place)
        err.print(told_pairs(len(listing.pairs), listing.rule), highlight=False)
    except BAD_INPUT as error:
        refuse(error)

    left = [pair for pair in listing.pairs if _missing(pair, output)]
    _say_cost(left, len(listing.pairs), output, guide, place)
    try:
        failures = [*listing.problems, *_make_all(left, output, guide, place)]
    except KeyboardInterrupt:
        done = sum(not _missing(pair, output) for pair in listing.pairs)
        err.print(f"interrupted: {done} pairs are done; the same call goes on from there", highlight=False)
        raise typer.Exit(INTERRUPTED) from None
    report_skipped(failures)
    done = sum(not _missing(pair, output) for pair in listing.pairs)
    out.print(f"masks of {done} pairs in {output}, {len(failures)} skipped", highlight=False)
    if failures:
        raise typer.Exit(SOME_FAILED)


def _open_output(output: Path, settings: dict[str, Any]) -> None:
    """Make the folder, and note what its masks are made with; masks of other making are not mixed in.

    Raises:
        ValueError: If the folder holds masks of other settings, or of unknown ones.
    """
    from fusionblocks._support.files import whole_file

    file = output / SETTINGS
    if output.exists() and not output.is_dir():
        raise ValueError(f"--output must be a folder, got the file {output}")
    for kind in KINDS:
        (output / kind).mkdir(parents=True, exist_ok=True)
    if not file.exists():
        if any(file for kind in KINDS for file in (output / kind).glob("*.png")):
            raise ValueError(f"--output {output} holds masks but no {SETTINGS} that says how they were made")
        with whole_file(file) as temporary:
            temporary.write_text(json.dumps(settings, indent=1) + "\n")
        return
    try:
        found = dict(json.loads(file.read_text()))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{file} is damaged: {error}") from error
    other = [f"{name}={found.get(name)}, not {value}" for name, value in settings.items() if found.get(name) != value]
    if other:
        raise ValueError(f"--output {output} holds masks made with {'; '.join(other)}: choose another folder")


def _missing(pair: ImagePair, output: Path) -> list[str]:
    """Return which of a pair's masks are not there yet."""
    return [kind for kind in KINDS if not (output / kind / f"{pair.name}.png").exists()]


def _say_cost(left: Sequence[ImagePair], total: int, output: Path, guide: SAMMasks, place: Any) -> None:
    """Say how long the run will take, measured on the first pair that can be read."""
    if len(left) < total:
        out.print(f"{total - len(left)} of {total} pairs are done already", highlight=False)
    pictures = sum(len(_missing(pair, output)) for pair in left)
    for pair in left:
        try:
            seconds = guide.estimate_seconds(_read(pair)["visible"].to(place))
        except Exception:
            continue
        out.print(
            f"{pictures} masks to make, about {seconds:.1f} s each on {place} (an encoder pass and a batch of points, "
            f"measured on {pair.name}): {_duration(pictures * seconds)} in all",
            highlight=False,
        )
        return


def _duration(seconds: float) -> str:
    minutes, hours = seconds / 60, seconds / 3600
    return f"{seconds:.0f} s" if minutes < 2 else f"{minutes:.0f} min" if hours < 2 else f"{hours:.1f} h"


def _make_all(pairs: Sequence[ImagePair], output: Path, guide: SAMMasks, place: Any) -> Iterator[str]:
    """Make the masks that are missing under a progress bar; yield a line for each pair that failed."""
    from fusionblocks.guidance.mask_maps import map_to_levels
    from fusionblocks.image import write_image

    with progress_bar("masks") as progress:
        task = progress.add_task("masks", total=sum(len(_missing(pair, output)) for pair in pairs), name="")
        for pair in pairs:
            missing = _missing(pair, output)
            try:
                pictures = _read(pair)
                for kind in missing:
                    progress.update(task, name=f"{pair.name} {kind}")
                    levels = map_to_levels(guide.map(pictures[kind].to(place))[0])
                    write_image(output / kind / f"{pair.name}.png", levels)
                    progress.advance(task)
                    missing = missing[1:]
            except Exception as error:  # whatever one file does, the others are served
                progress.advance(task, len(missing))
                yield f"{pair.name}: {one_line(error)}"


def _read(pair: ImagePair) -> dict[str, Tensor]:
    """Return the pictures of a pair ``(1, C, H, W)`` in [0, 1], as fusion reads them."""
    from fusionblocks.image import array_to_tensor, luma, open_infrared, read_image

    opened = open_infrared("infrared", pair.infrared)
    thermal = array_to_tensor("infrared", opened.values, thermal=True, limits=opened.limits)[None]
    thermal = luma(thermal) if thermal.shape[1] == 3 else thermal
    colour = array_to_tensor("visible", read_image(pair.visible))[None]
    sizes = [f"{picture.shape[2]}x{picture.shape[3]}" for picture in (thermal, colour)]
    if sizes[0] != sizes[1]:
        raise ValueError(f"infrared and visible have different sizes, {sizes[0]} and {sizes[1]} (height x width)")
    return {"infrared": thermal, "visible": colour}
