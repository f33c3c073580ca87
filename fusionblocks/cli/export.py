"""``fusionblocks export``: a network as a file that needs none of this library."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fusionblocks.cli._console import BAD_INPUT, out, refuse
from fusionblocks.cli._networks import CheckpointOption, ModelOption, SettingsOption, open_network


def export(
    output: Annotated[Path, typer.Option(help="File to write, net.onnx or net.pt2.")],
    model: ModelOption = None,
    checkpoint: CheckpointOption = None,
    set: SettingsOption = None,
    colour: Annotated[
        bool, typer.Option("--colour", help="RGB in, RGB out: the visible picture's chroma kept.")
    ] = False,
    half: Annotated[bool, typer.Option("--half", help="Weights and arithmetic of 16 bits.")] = False,
    only_fused: Annotated[bool, typer.Option("--only-fused", help="Leave the network's other outputs out.")] = False,
    size: Annotated[
        tuple[int, int] | None,
        typer.Option(metavar="HEIGHT WIDTH", help="Serve single pairs of this size alone. [all sizes and batches]"),
    ] = None,
    compiled: Annotated[
        bool, typer.Option("--compiled", help="A .pt2 package of compiled code for this machine (AOTInductor).")
    ] = False,
    opset: Annotated[int | None, typer.Option(help="Version of ONNX's operators. [18]")] = None,
    verify: Annotated[
        tuple[Path, Path] | None,
        typer.Option(metavar="IR VIS", help="A pair that the file must fuse as the network does. [a synthetic one]"),
    ] = None,
) -> None:
    """Write a network to an ONNX file or a PyTorch program, and compare what it gives with the network itself."""
    try:
        import torch

        import fusionblocks as fb
        from fusionblocks.inference import open_pair

        network = open_network(model, checkpoint, set or []).eval()
        if verify is None:
            height, width = size or (120, 160)
            scene = fb.data.synthetic_scene(0, height=max(height, 32), width=max(width, 32))
            pair = tuple(x[None, :, :height, :width] for x in (scene.infrared, scene.visible))
        else:
            opened = open_pair(*verify, None, torch.device("cpu"), None, None)
            pair = opened.infrared.whole(), opened.visible.whole()
        inputs = (*pair, *network.guidance_example(pair[0]).values())
        fb.export(
            network,
            output,
            dtype=torch.float16 if half else None,
            colour=colour,
            dynamic=size is None,
            opset=opset,
            outputs=("fused",) if only_fused else None,
            size=size or (480, 640),
            compiled=compiled,
            check=inputs,
        )
        exact = fb.deployment.Deployable(network, outputs=("fused",), colour=colour)
        found = fb.deployment.verify(output, exact, inputs)
    except (*BAD_INPUT, ImportError, NotImplementedError) as error:
        refuse(error)
    sizes = "all sizes and batches" if size is None else f"single pairs of {size[0]}x{size[1]}"
    mebibytes = output.stat().st_size / 2**20
    out.print(f"{output}: {network.name}, {sizes}, {mebibytes:.1f} MiB, {found:.0f} dB to the network", highlight=False)
