"""``fusionblocks evaluate``: metrics of fused pictures, several methods side by side."""

from __future__ import annotations

import enum
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from fusionblocks.cli._console import (
    BAD_INPUT,
    SOME_FAILED,
    PatternOption,
    Warnings,
    err,
    one_line,
    open_device,
    out,
    print_whole,
    progress_bar,
    refuse,
    report_skipped,
    told_pairs,
)
from fusionblocks.cli._ranges import ThermalRangeOption, parse_range

if TYPE_CHECKING:
    from fusionblocks.data import FolderGroups, ImageGroup
    from fusionblocks.metrics import Comparison, FusionEvaluator, Remarks

DEFAULT_METRICS = "EN,SD,SF,MI,SCD,VIF,Qabf,SSIM"


class Format(enum.StrEnum):
    """How the table of means is printed."""

    TABLE = "table"
    MARKDOWN = "markdown"
    LATEX = "latex"


def evaluate(
    infrared: Annotated[Path, typer.Option(help="Infrared picture, a folder, or a text file that lists them.")],
    visible: Annotated[Path, typer.Option(help="Visible picture, a folder, or a text file that lists them.")],
    fused: Annotated[list[Path], typer.Option(help="Fused picture, or a folder of them; its name is the method's.")],
    more: Annotated[
        list[Path] | None, typer.Argument(metavar="[DIR]...", help="More fused pictures or folders, a method each.")
    ] = None,
    metrics: Annotated[str, typer.Option(help="Names with commas between, or [bold]all[/].")] = DEFAULT_METRICS,
    convention: Annotated[str, typer.Option(help="Whose numbers: cddfuse, smfnet, vifb or psfusion.")] = "cddfuse",
    csv: Annotated[Path | None, typer.Option(help="File for every value: a row a method and picture.")] = None,
    plot: Annotated[
        Path | None, typer.Option(help="File for cumulative curves and a radar chart: .png, .pdf or .svg.")
    ] = None,
    resize: Annotated[
        str | None, typer.Option(help="Resize 'infrared' or 'visible' to the other's size where they differ.")
    ] = None,
    thermal_range: ThermalRangeOption = None,
    black_hot: Annotated[bool, typer.Option("--black-hot", help="Hot is black in the infrared pictures.")] = False,
    alignment: Annotated[
        Path | None, typer.Option(help="How the cameras lie, a file of [bold]fusionblocks align[/].")
    ] = None,
    pattern: PatternOption = None,
    format: Annotated[Format, typer.Option(help="How the means are printed.")] = Format.TABLE,
    device: Annotated[
        str, typer.Option(help="Where to compute: auto (a GPU if there is one), cpu, cuda:1, ...")
    ] = "auto",
) -> None:
    """Score fused pictures, one method or several side by side, the best mean of each metric in bold.

    All methods are scored on the same pictures: those that every folder has and that can be read. Pairs are read as
    [bold]fusionblocks fuse[/] reads them, so give the options that they were fused with.
    """
    from fusionblocks.alignment import Alignment
    from fusionblocks.image.infrared import same_range
    from fusionblocks.metrics import FusionEvaluator, Remarks

    warned = Warnings()
    try:
        names = None if metrics.strip().lower() == "all" else [name.strip() for name in metrics.split(",")]
        place = open_device(device)
        methods = name_methods([*fused, *(more or [])])
        evaluators = {method: FusionEvaluator(metrics=names, convention=convention) for method in methods}
        remarks = {method: Remarks() for method in methods}
        _check_targets(csv, plot)
        listing = _listing({"infrared": infrared, "visible": visible, **methods}, pattern)
        err.print(told_pairs(len(listing.groups), listing.rule), highlight=False)
        options = {
            "resize": resize,
            "thermal_range": same_range(
                parse_range(thermal_range), [group.files["infrared"] for group in listing.groups]
            ),
            "black_hot": black_hot,
            "alignment": None if alignment is None else Alignment.load(alignment),
        }
    except (*BAD_INPUT, ModuleNotFoundError) as error:
        refuse(error)

    failures = [*listing.problems, *_score_all(listing.groups, evaluators, place, options, warned, remarks)]
    warned.report()
    report_skipped(failures)
    scored = len(next(iter(evaluators.values())))
    try:
        if scored:
            _report(evaluators, format, csv, plot)
            for method, found in remarks.items():
                for line in found.lines():
                    err.print(f"[yellow]note:[/] {escape(f'{method}: {line}')}", highlight=False)
    except BAD_INPUT as error:
        refuse(error)
    err.print(
        f"{scored} picture{'s' * (scored != 1)}, convention {convention}, {len(failures)} skipped", highlight=False
    )
    if failures:
        raise typer.Exit(SOME_FAILED)


def name_methods(folders: Sequence[Path]) -> dict[str, Path]:
    """Return the folders by name; where names would be mixed up, by as many of their last parts as tell them apart."""
    paths = [folder.resolve() for folder in folders]
    for depth in range(1, max(len(path.parts) for path in paths) + 1):
        methods = {"/".join(path.parts[-depth:]): folder for path, folder in zip(paths, folders, strict=True)}
        if len(methods) == len(folders) and not {"infrared", "visible"} & set(methods):
            return methods
    raise ValueError("--fused names a folder twice: " + ", ".join(map(str, folders)))


def _check_targets(csv: Path | None, plot: Path | None) -> None:
    """Refuse files that could not be written, before the work is done."""
    from fusionblocks.metrics.comparison import check_plot_suffix

    for option, file in {"--csv": csv, "--plot": plot}.items():
        if file is not None and (file.is_dir() or not file.absolute().parent.is_dir()):
            raise ValueError(f"{option} {file} cannot be written: it is a folder, or its folder does not exist")
    if plot is not None:
        check_plot_suffix(plot)


def _listing(paths: dict[str, Path], pattern: tuple[str, str] | None) -> FolderGroups:
    """Return the groups of folders, or the one of single files."""
    from fusionblocks.data import FolderGroups, ImageGroup, match_folders
    from fusionblocks.data.pairs import is_list

    if any(path.is_dir() or is_list(path) for path in paths.values()):
        return match_folders(paths, pattern=pattern)
    for kind, path in paths.items():
        if not path.is_file():
            raise FileNotFoundError(f"there is no {kind} picture or folder {path}")
    return FolderGroups((ImageGroup(paths["visible"].stem, paths),), (), "as given")


def _score_all(
    groups: Sequence[ImageGroup],
    evaluators: dict[str, FusionEvaluator],
    place: Any,
    options: dict[str, Any],
    warned: Warnings,
    remarks: dict[str, Remarks],
) -> list[str]:
    """Score every picture under a progress bar, for all methods or none; return a line for each that failed."""
    from fusionblocks.inference import pair_levels
    from fusionblocks.metrics import CONVENTIONS, FusionEvaluator, read_gray_levels

    colour = CONVENTIONS[next(iter(evaluators.values())).convention].colour
    failures = []
    with progress_bar("scoring") as progress:
        task = progress.add_task("scoring", total=len(groups), name="")
        for group in groups:
            progress.update(task, name=group.name)
            kind = ""
            try:
                with warned.of(group.name):
                    sources = pair_levels(group.files["infrared"], group.files["visible"], **options)
                pictures = dict(zip(("infrared", "visible"), sources, strict=True))
                pictures |= {method: read_gray_levels(group.files[method]) for method in evaluators}
                scored = _with_colours(pictures, group, options) if colour else {}
                pictures = {kind: picture.to(place) for kind, picture in pictures.items()}
                steps = {}
                for kind, evaluator in evaluators.items():
                    steps[kind] = FusionEvaluator(metrics=evaluator.metrics, convention=evaluator.convention)
                    fused, visible = (x.to(place) for x in scored.get(kind, (pictures[kind], pictures["visible"])))
                    steps[kind].update(fused, pictures["infrared"], visible, names=[group.name])
            except Exception as error:  # whatever one file does, the others are served
                failures.append(f"{group.name}: {kind + ': ' if kind else ''}{one_line(error)}")
            else:
                for method, evaluator in evaluators.items():
                    evaluator.merge(steps[method])
                    remarks[method].update(pictures[method], pictures["infrared"], pictures["visible"])
            progress.advance(task)
    return failures


def _with_colours(pictures: dict[str, Any], group: ImageGroup, options: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return the fused and the visible picture in colour of each method whose pictures have colours."""
    import torch

    from fusionblocks.image import read_image
    from fusionblocks.inference import pair_levels

    _, visible = pair_levels(group.files["infrared"], group.files["visible"], **options, colour=True)
    scored = {}
    for method in pictures.keys() - {"infrared", "visible"}:
        array = read_image(group.files[method])
        if array.ndim == 3 and (array != array[..., :1]).any():
            scored[method] = (torch.from_numpy(array).permute(2, 0, 1)[None].contiguous(), visible)
    return scored


def _report(evaluators: dict[str, FusionEvaluator], format: Format, csv: Path | None, plot: Path | None) -> None:
    """Print the means and write the files that were asked for."""
    from fusionblocks.metrics import Comparison

    tables = {}
    for method, evaluator in evaluators.items():
        with warnings.catch_warnings(record=True) as caught:  # of values that are not finite
            warnings.simplefilter("always")
            tables[method] = evaluator.compute()
        for warning in caught:
            err.print(f"[yellow]warning:[/] {escape(f'{method}: {warning.message}')}", highlight=False)
    comparison = Comparison(tables)
    if format is Format.TABLE:
        print_whole(_side_by_side(comparison))
    else:
        text = comparison.to_markdown() if format is Format.MARKDOWN else comparison.to_latex()
        out.print(text, markup=False, highlight=False)
    if csv is not None:
        comparison.to_csv(csv)
    if plot is not None:
        comparison.plot(plot)


def _side_by_side(comparison: Comparison) -> Table:
    """Return the means as a table of the terminal: a row a metric, a column a method."""
    table = Table("metric")
    for method in comparison.methods:
        table.add_column(escape(method), justify="right", no_wrap=True)
    columns = zip(*comparison.rows("[bold]{}[/]".format))
    for metric, cells in zip(comparison.header(), columns):
        table.add_row(metric, *cells)
    return table
