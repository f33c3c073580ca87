"""``fusionblocks models``, ``env`` and ``demo``: what there is, on this machine."""

from __future__ import annotations

import importlib.metadata
import platform
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from fusionblocks.cli._console import BAD_INPUT, out, refuse


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
    operators = "channel_attention cross_attention dual_cross_attention folded_token_attention token_attention"
    for operator in operators.split():
        rows[operator] = ops.explain(operator)
    table = Table(show_header=False, box=None)
    for name, value in rows.items():
        table.add_row(name, escape(value))
    out.print(table)


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
        refuse(error)
    out.print(f"infrared, visible and fused side by side: {output / 'side_by_side.png'}", highlight=False)
    out.print(f"fused alone: {output / 'fused.png'}", highlight=False)
