"""The ``fusionblocks`` command."""

from __future__ import annotations

import importlib.metadata
import json
import platform
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

app = typer.Typer(
    help="Fuse infrared and visible pictures.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
out = Console(soft_wrap=True)
err = Console(stderr=True, soft_wrap=True)

USAGE_ERROR = 2
SOME_FAILED = 1
BAD_INPUT = (ValueError, TypeError, OSError)


def _refuse(error: object) -> NoReturn:
    """Say in one red line what was wrong with the call, and leave with status 2."""
    line = " ".join(str(error).split())
    err.print(f"[bold red]error:[/] [red]{escape(line)}[/]", highlight=False)
    raise typer.Exit(USAGE_ERROR)


@app.command()
def fuse(
    infrared: Annotated[Path, typer.Option(help="Infrared picture, or a folder of them.")],
    visible: Annotated[Path, typer.Option(help="Visible picture, or a folder of them with the same names.")],
    output: Annotated[Path, typer.Option(help="Picture to write, or a folder.")],
    model: Annotated[str | None, typer.Option(help="Network; see [bold]fusionblocks models[/]. [laplacian]")] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="Weights: a folder written by save_pretrained, or the authors' file.")
    ] = None,
    device: Annotated[str, typer.Option(help="Where to run: cpu, cuda, cuda:1, ...")] = "cpu",
    resize: Annotated[
        str | None, typer.Option(help="Resize 'infrared' or 'visible' to the other's size where they differ.")
    ] = None,
    tile: Annotated[int | None, typer.Option(help="Fuse large pictures in pieces of this many pixels.")] = None,
    semantic: Annotated[
        Path | None, typer.Option(help="CLIP embedding for sgafusion: a .npy file of 512 numbers.")
    ] = None,
    infrared_mask: Annotated[
        Path | None, typer.Option(help="Mask of the infrared picture for sgdfuse: a gray picture, or a folder.")
    ] = None,
    visible_mask: Annotated[
        Path | None, typer.Option(help="Mask of the visible picture for sgdfuse: a gray picture, or a folder.")
    ] = None,
    skip_existing: Annotated[bool, typer.Option("--skip-existing", help="Leave pictures that exist.")] = False,
) -> None:
    """Fuse one pair of pictures, or two folders of pictures paired by name."""
    from fusionblocks.data.pairs import ImagePair, pair_folders
    from fusionblocks.image import WRITABLE_SUFFIXES

    problems: tuple[str, ...] = ()
    try:
        network = _open_network(model, checkpoint, device)
        folders = infrared.is_dir() or visible.is_dir()
        if folders:
            listing = pair_folders(infrared, visible)
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
        options = {"model": network, "resize": resize, "tile": tile}
        if not folders:
            _fuse_one(pairs[0], targets[0], skip_existing, guides, options)
            out.print(f"{targets[0]}", highlight=False)
            return
    except BAD_INPUT as error:
        _refuse(error)

    failures = [*problems, *_fuse_all(pairs, targets, skip_existing, guides, options)]
    for failure in failures:
        err.print(f"[bold red]skipped:[/] {escape(failure)}", highlight=False)
    done = len(pairs) + len(problems) - len(failures)
    out.print(f"{done} pictures in {output}, {len(failures)} skipped", highlight=False)
    if failures:
        raise typer.Exit(SOME_FAILED)


class _Guides:
    """Guidance files of the command line; a folder of masks holds one per pair, by name."""

    def __init__(self, semantic: Path | None, infrared_mask: Path | None, visible_mask: Path | None) -> None:
        self.semantic = None if semantic is None else self._embedding(semantic)
        self.masks = {
            name: path
            for name, path in {"infrared_mask": infrared_mask, "visible_mask": visible_mask}.items()
            if path is not None
        }

    @staticmethod
    def _embedding(file: Path) -> Any:
        import numpy as np

        if not file.is_file():
            raise FileNotFoundError(f"--semantic {file} does not exist")
        try:
            return np.load(file, allow_pickle=False).astype(np.float32)
        except (ValueError, EOFError) as error:
            raise ValueError(f"--semantic {file} is no .npy array of numbers: {error}") from error

    def of(self, name: str) -> dict[str, Any]:
        """Return the guidance of the pair called ``name``."""
        from fusionblocks.image import array_to_tensor, luma, read_image

        guidance: dict[str, Any] = {} if self.semantic is None else {"semantic": self.semantic}
        for mask, path in self.masks.items():
            files = sorted(path.glob(f"{name}.*")) if path.is_dir() else [path]
            if len(files) != 1:
                raise ValueError(f"--{mask.replace('_', '-')} {path} holds {len(files)} files named {name}, expected 1")
            picture = array_to_tensor(mask, read_image(files[0]))
            guidance[mask] = luma(picture) if picture.shape[0] == 3 else picture
        return guidance


def _fuse_one(pair: Any, target: Path, skip_existing: bool, guides: _Guides, options: dict[str, Any]) -> None:
    """Fuse one pair of files into a file; the file is whole or absent."""
    import numpy as np

    from fusionblocks.image import write_image
    from fusionblocks.inference import fuse as fuse_pictures

    if skip_existing and target.exists():
        return
    picture = fuse_pictures(pair.infrared, pair.visible, **options, **guides.of(pair.name))
    write_image(target, np.asarray(picture))


def _fuse_all(
    pairs: Any, targets: list[Path], skip_existing: bool, guides: _Guides, options: dict[str, Any]
) -> list[str]:
    """Fuse every pair under a progress bar and return a line for each that failed."""
    failures = []
    columns = (
        TextColumn("fusing"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[name]}"),
    )
    with Progress(*columns, console=err) as progress:
        task = progress.add_task("fusing", total=len(pairs), name="")
        for pair, target in zip(pairs, targets, strict=True):
            progress.update(task, name=pair.name)
            try:
                _fuse_one(pair, target, skip_existing, guides, options)
            except (*BAD_INPUT, RuntimeError, MemoryError) as error:
                failures.append(f"{pair.name}: {' '.join(str(error).split())}")
            progress.advance(task)
    return failures


def _open_network(model: str | None, checkpoint: Path | None, device: str) -> Any:
    """Return the network that ``--model`` and ``--checkpoint`` describe, on the device."""
    import torch

    from fusionblocks.models import create_model, load_official, model_class

    try:
        place = torch.device(device)
        torch.empty(0, device=place)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"--device {device} cannot be used here: {str(error).splitlines()[0]}") from error
    if checkpoint is None:
        network = create_model(model or "laplacian")
        if next(network.parameters(), None) is not None:
            err.print(
                f"[yellow]warning:[/] {network.name} runs with random weights: pass --checkpoint", highlight=False
            )
    elif checkpoint.is_dir():
        network = model_class(model or _saved_name(checkpoint)).from_pretrained(checkpoint)
    elif model is None:
        raise ValueError(
            f"--checkpoint {checkpoint} is a file of weights: say with --model which network it belongs to"
        )
    else:
        network = load_official(model, checkpoint)
    return network.to(place).eval()


def _saved_name(folder: Path) -> str:
    """Return which network a folder written by save_pretrained holds."""
    config = folder / "config.json"
    if not config.is_file():
        raise FileNotFoundError(f"--checkpoint {folder} has no config.json: not a folder written by save_pretrained")
    try:
        return json.loads(config.read_text())["model"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{config} does not name a network: not written by save_pretrained") from error


@app.command()
def models() -> None:
    """List the networks with their parameters, papers and licence notes."""
    import torch

    from fusionblocks.models import list_models, model_class

    table = Table("model", "parameters", "fused", "takes beside the pair", "paper", "licence note")
    for name in list_models():
        cls = model_class(name)
        with torch.device("meta"):
            parameters = sum(parameter.numel() for parameter in cls().parameters())
        table.add_row(
            name,
            f"{parameters / 1e6:.2f} M" if parameters else "none",
            "RGB" if cls.fused_channels == 3 else "luma",
            ", ".join(cls.guidance_names) or "nothing",
            cls.paper,
            cls.license_note,
        )
    out.print(table)


@app.command()
def env() -> None:
    """Print versions, devices and the backend of the attention operators, for a bug report."""
    import torch

    import fusionblocks
    from fusionblocks import ops

    packages = (
        "torch",
        "triton",
        "timm",
        "einops",
        "open_clip_torch",
        "segment-anything",
        "diffusers",
        "numpy",
        "pillow",
    )
    rows = {
        "fusionblocks": fusionblocks.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
    }
    for package in packages:
        try:
            rows[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            rows[package] = "not installed"
    rows["cpu threads"] = str(torch.get_num_threads())
    cuda = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    rows["cuda"] = f"{torch.version.cuda}: {', '.join(cuda)}" if cuda else "no device"
    for operator in ("channel_attention", "cross_attention", "dual_cross_attention", "token_attention"):
        rows[operator] = ops.explain(operator)
    table = Table(show_header=False, box=None)
    for name, value in rows.items():
        table.add_row(name, escape(value))
    out.print(table)


@app.command()
def demo(
    output: Annotated[Path, typer.Option(help="Folder to write the pictures to.")] = Path("outputs/demo"),
    seed: Annotated[int, typer.Option(help="Which scene to draw.")] = 10,
) -> None:
    """Draw the sample scene, fuse it and say where the pictures are."""
    import torch

    from fusionblocks.data import synthetic_scene
    from fusionblocks.image import tensor_to_array, write_image
    from fusionblocks.inference import fuse as fuse_pictures

    try:
        output.mkdir(parents=True, exist_ok=True)
        scene = synthetic_scene(seed)
        fused = fuse_pictures(scene.infrared, scene.visible)
        row = torch.cat([scene.infrared.expand(3, -1, -1), scene.visible, fused], dim=2)
        pictures = {"infrared": scene.infrared, "visible": scene.visible, "fused": fused, "side_by_side": row}
        for name, picture in pictures.items():
            write_image(output / f"{name}.png", tensor_to_array(picture))
    except BAD_INPUT as error:
        _refuse(error)
    out.print(f"infrared, visible and fused side by side: {output / 'side_by_side.png'}", highlight=False)
    out.print(f"fused alone: {output / 'fused.png'}", highlight=False)


def main() -> None:
    """Run the command line."""
    app()


if __name__ == "__main__":
    main()
