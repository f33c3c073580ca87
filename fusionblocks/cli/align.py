"""``fusionblocks align``: how the infrared camera of a rig lies over its visible one, once for all its pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fusionblocks.cli._console import BAD_INPUT, PatternOption, Warnings, out, refuse


def align(
    infrared: Annotated[Path, typer.Option(help="Infrared picture, or a folder of them.")],
    visible: Annotated[Path, typer.Option(help="Visible picture, or a folder of them with the same names.")],
    output: Annotated[Path, typer.Option(help="JSON file to write.")],
    points: Annotated[
        Path | None,
        typer.Option(help="CSV of points that both cameras see, at least four: infrared x, y, visible x, y."),
    ] = None,
    matcher: Annotated[
        str | None,
        typer.Option(help="Find points by a learned matcher of the package vismatch: xoftr, minima-roma, ..."),
    ] = None,
    pattern: PatternOption = None,
    board: Annotated[
        tuple[int, int] | None,
        typer.Option(metavar="COLUMNS ROWS", help="Points of a heated chessboard along a row and a column."),
    ] = None,
    circles: Annotated[bool, typer.Option("--circles", help="The board is a grid of circles.")] = False,
    model: Annotated[
        str | None, typer.Option(help="shift, similarity, affine or homography. [the simplest that explains]")
    ] = None,
    scale: Annotated[
        tuple[float, float] | None,
        typer.Option(metavar="LOW HIGH", help="Visible pixels for an infrared one, if known."),
    ] = None,
    preview: Annotated[
        Path | None, typer.Option(help="Picture to write: edges of one over the other, before and after.")
    ] = None,
) -> None:
    """Find how the infrared camera lies over the visible one, for [bold]fuse --alignment[/]."""
    from fusionblocks.alignment import align as align_cameras
    from fusionblocks.alignment import preview as preview_of
    from fusionblocks.alignment.estimation import pairs_of
    from fusionblocks.image import WRITABLE_SUFFIXES, write_image

    warned = Warnings()
    try:
        if preview is not None and preview.suffix.lower() not in WRITABLE_SUFFIXES:
            raise ValueError(f"--preview {preview} must end in one of {', '.join(sorted(WRITABLE_SUFFIXES))}")
        with warned.of(""):
            rig = align_cameras(
                infrared,
                visible,
                pattern=pattern,
                matcher=matcher,
                points=points,
                board=board,
                circles=circles,
                model=model,
                scale=scale,
            )
        if preview is not None:
            pairs = pairs_of(infrared, visible, pattern)
            write_image(preview, preview_of(rig, *pairs[len(pairs) // 2]))
        rig.save(output)
    except (*BAD_INPUT, ImportError) as error:
        refuse(error)
    warned.report()
    judged = "reliable" if rig.reliable else "not reliable: look at the preview, or give more pairs, or points"
    out.print(f"{output}: {rig.model}, error about {rig.error:.1f} visible pixels, {judged}", highlight=False)
