"""``fusionblocks fuse``: pictures in, picture out, for files and folders."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from fusionblocks.cli._console import (
    BAD_INPUT,
    SOME_FAILED,
    PatternOption,
    Warnings,
    err,
    one_line,
    open_device,
    out,
    progress_bar,
    refuse,
    report_skipped,
    told_pairs,
)
from fusionblocks.cli._guides import attach_guide, open_report, report_files, write_report
from fusionblocks.cli._networks import CheckpointOption, ModelOption, SettingsOption, open_network
from fusionblocks.cli._ranges import ThermalRangeOption, parse_range


def fuse(
    infrared: Annotated[Path, typer.Option(help="Infrared picture, a folder, or a text file that lists them.")],
    visible: Annotated[Path, typer.Option(help="Visible picture, a folder, or a text file that lists them.")],
    output: Annotated[Path, typer.Option(help="Picture to write, or a folder.")],
    model: ModelOption = None,
    checkpoint: CheckpointOption = None,
    set: SettingsOption = None,
    device: Annotated[str, typer.Option(help="Where to run: auto (a GPU if there is one), cpu, cuda:1, ...")] = "auto",
    resize: Annotated[
        str | None, typer.Option(help="Resize 'infrared' or 'visible' to the other's size where they differ.")
    ] = None,
    thermal_range: ThermalRangeOption = None,
    black_hot: Annotated[bool, typer.Option("--black-hot", help="Hot is black in the infrared pictures.")] = False,
    pattern: PatternOption = None,
    alignment: Annotated[
        Path | None,
        typer.Option(
            help="How the cameras lie, a file of [bold]fusionblocks align[/], for pictures as they took them."
        ),
    ] = None,
    tile: Annotated[
        str,
        typer.Option(
            help="Work large pictures out in strips: 'auto', 'none', or as many pixels as a square this wide."
        ),
    ] = "auto",
    semantic: Annotated[
        Path | None, typer.Option(help="CLIP embedding for sgafusion: a .npy file of 512 numbers.")
    ] = None,
    infrared_mask: Annotated[
        Path | None, typer.Option(help="Mask of the infrared picture for sgdfuse: a gray picture, or a folder.")
    ] = None,
    visible_mask: Annotated[
        Path | None, typer.Option(help="Mask of the visible picture for sgdfuse: a gray picture, or a folder.")
    ] = None,
    guidance: Annotated[
        str | None, typer.Option(help="What computes the network's guidance: clip (sgafusion) or sam (sgdfuse).")
    ] = None,
    guidance_checkpoint: Annotated[
        str | None, typer.Option(help="Its weights: a file, or for clip a tag of open_clip.")
    ] = None,
    guidance_adapters: Annotated[
        Path | None, typer.Option(help="Adapters and heads for clip, written by [bold]fusionblocks train-guidance[/].")
    ] = None,
    cache: Annotated[
        Path | None, typer.Option(help="Folder that keeps what the guide computes, for the next run.")
    ] = None,
    experts: Annotated[
        Path | None, typer.Option(help="Folder to write which expert acted where to: a picture and a table a pair.")
    ] = None,
    skip_existing: Annotated[bool, typer.Option("--skip-existing", help="Leave pictures that exist.")] = False,
) -> None:
    """Fuse one pair of pictures, or two folders or lists of them; by which rule they are paired is told."""
    from fusionblocks.alignment import Alignment
    from fusionblocks.data.pairs import ImagePair, is_list, pair_folders
    from fusionblocks.image import WRITABLE_SUFFIXES
    from fusionblocks.image.infrared import same_range
    from fusionblocks.optimization import optimize

    problems: tuple[str, ...] = ()
    warned = Warnings()
    try:
        place = open_device(device)
        network = optimize(open_network(model, checkpoint, set or []).to(place), outputs=("fused",))
        attach_guide(network, guidance, guidance_checkpoint, guidance_adapters, cache)
        if experts is not None:
            open_report(network, experts, tile not in ("auto", "none"))
        folders = any(path.is_dir() or is_list(path) for path in (infrared, visible))
        if folders:
            listing = pair_folders(infrared, visible, pattern=pattern)
            pairs, problems = listing.pairs, listing.problems
        else:
            pairs = (ImagePair(visible.stem, infrared, visible),)
        if folders or output.is_dir():
            if output.exists() and not output.is_dir():
                raise ValueError(f"--output must be a folder for folders of pictures, got the file {output}")
            if output.resolve() in (infrared.resolve(), visible.resolve()):
                raise ValueError(f"--output {output} is one of the input folders; its pictures would be overwritten")
            targets = [output / f"{pair.name}.png" for pair in pairs]
            output.mkdir(parents=True, exist_ok=True)
        else:
            if output.suffix.lower() not in WRITABLE_SUFFIXES:
                raise ValueError(f"--output {output} must end in one of {', '.join(sorted(WRITABLE_SUFFIXES))}")
            if output.resolve() in (infrared.resolve(), visible.resolve()):
                raise ValueError(f"--output {output} is one of the inputs; it would be overwritten")
            targets = [output]
        guides = _Guides(semantic, infrared_mask, visible_mask)
        options = {
            "model": network,
            "resize": resize,
            "tile": _tile(tile),
            "thermal_range": same_range(parse_range(thermal_range), [pair.infrared for pair in pairs]),
            "black_hot": black_hot,
            "alignment": None if alignment is None else Alignment.load(alignment),
        }
        if folders:
            err.print(told_pairs(len(pairs), listing.rule), highlight=False)
        else:
            with warned.of(""):
                _fuse_one(pairs[0], targets[0], skip_existing, guides, options, experts)
            warned.report()
            out.print(f"{targets[0]}", highlight=False)
            return
    except (*BAD_INPUT, ModuleNotFoundError) as error:
        refuse(error)

    failures = [*problems, *_fuse_all(pairs, targets, skip_existing, guides, options, experts, warned)]
    warned.report()
    report_skipped(failures)
    done = len(pairs) + len(problems) - len(failures)
    out.print(f"{done} pictures in {output}, {len(failures)} skipped", highlight=False)
    if failures:
        raise typer.Exit(SOME_FAILED)


def _tile(value: str) -> int | str | None:
    """Return what ``--tile`` says, as :func:`fusionblocks.fuse` takes it."""
    if value in ("auto", "none"):
        return None if value == "none" else value
    if not value.isdecimal():
        raise ValueError(f"--tile must be 'auto', 'none' or a number of pixels, got {value!r}")
    return int(value)


class _Guides:
    """Guidance files of the command line; a folder of masks holds one per pair, by name."""

    def __init__(self, semantic: Path | None, infrared_mask: Path | None, visible_mask: Path | None) -> None:
        self.semantic = None if semantic is None else self._embedding(semantic)
        self.masks = {
            name: path
            for name, path in {"infrared_mask": infrared_mask, "visible_mask": visible_mask}.items()
            if path is not None
        }
        for name, path in self.masks.items():
            if not path.exists():
                raise FileNotFoundError(f"--{name.replace('_', '-')} {path} does not exist")

    @staticmethod
    def _embedding(file: Path) -> Any:
        import numpy as np

        if not file.is_file():
            raise FileNotFoundError(f"--semantic {file} does not exist")
        try:
            return np.load(file, allow_pickle=False).astype(np.float32)
        except (ValueError, EOFError) as error:
            raise ValueError(f"--semantic {file} is not a .npy array of numbers: {error}") from error

    def of(self, name: str) -> dict[str, Any]:
        """Return the guidance of the pair called ``name``."""
        guidance: dict[str, Any] = {} if self.semantic is None else {"semantic": self.semantic}
        for mask, path in self.masks.items():
            files = [file for file in path.iterdir() if file.stem == name] if path.is_dir() else [path]
            if len(files) != 1:
                raise ValueError(f"--{mask.replace('_', '-')} {path} holds {len(files)} files named {name}, expected 1")
            guidance[mask] = files[0]
        return guidance


def _fuse_one(
    pair: Any, target: Path, skip_existing: bool, guides: _Guides, options: dict[str, Any], experts: Path | None
) -> None:
    """Fuse one pair of files into a file; the file is whole or absent, and the last one that is written."""
    import numpy as np

    from fusionblocks.image import write_image

    files = [target] if experts is None else [target, *report_files(experts, target.stem)]
    if skip_existing and all(file.exists() for file in files):
        return
    picture = _fused(pair, target.stem, guides, options, experts)
    write_image(target, np.asarray(picture))


def _fused(pair: Any, name: str, guides: _Guides, options: dict[str, Any], experts: Path | None) -> Any:
    """Return the fused picture of a pair, once the report of the experts is written where one is wanted."""
    from fusionblocks.experts import expert_report
    from fusionblocks.inference import fuse as fuse_pictures

    guidance = guides.of(pair.name)
    if experts is None:
        return fuse_pictures(pair.infrared, pair.visible, **options, **guidance)
    shared = {name: options[name] for name in ("resize", "thermal_range", "black_hot", "alignment")}
    report = expert_report(options["model"], pair.infrared, pair.visible, **shared, **guidance)
    write_report(report, experts, name)
    return report.fused


def _fuse_all(
    pairs: Any,
    targets: list[Path],
    skip_existing: bool,
    guides: _Guides,
    options: dict[str, Any],
    experts: Path | None,
    warned: Warnings,
) -> list[str]:
    """Fuse every pair under a progress bar and return a line for each that failed."""
    failures = []
    with progress_bar("fusing") as progress:
        task = progress.add_task("fusing", total=len(pairs), name="")
        for pair, target in zip(pairs, targets, strict=True):
            progress.update(task, name=pair.name)
            try:
                with warned.of(pair.name):
                    _fuse_one(pair, target, skip_existing, guides, options, experts)
            except Exception as error:  # whatever one file does, the others are fused
                failures.append(f"{pair.name}: {one_line(error) or type(error).__name__}")
            progress.advance(task)
    return failures
