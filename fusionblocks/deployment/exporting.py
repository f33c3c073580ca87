"""A network written to a file that needs none of this library: ONNX, or a program of PyTorch."""

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.fx.experimental import _config as shapes

from fusionblocks._support.checks import check_choice, check_whole
from fusionblocks._support.files import whole_file
from fusionblocks.deployment.graph import Deployable
from fusionblocks.deployment.verification import verify
from fusionblocks.models.wrapping import as_network

KINDS = (".onnx", ".pt2")
LEAST, LEAST_HALF = 80, 45
"""How close a checked file is to its network, in decibels."""
OPSET = 18
"""The oldest version of ONNX's operators that is written, and the one that is unless another is asked for."""
OTHERS = (1, 33, 50), (3, 7, 5)
"""Batches, heights and widths on which a file for all sizes is tried."""
EXAMPLE = 70, 90
"""Height and width of the pictures by which a graph for all sizes is recorded."""


def export(
    model: nn.Module,
    path: str | os.PathLike[str],
    *,
    dtype: torch.dtype | None = None,
    colour: bool = False,
    dynamic: bool = True,
    opset: int | None = None,
    outputs: Sequence[str] | None = None,
    size: tuple[int, int] = (480, 640),
    compiled: bool = False,
    check: Sequence[Tensor] | None = None,
) -> Path:
    """Write a network to a file that other programs run without this library.

    ``net.onnx`` is an ONNX model, ``net.pt2`` a program for ``torch.export.load``. Inputs are named ``infrared``
    ``(B, 1, H, W)`` and ``visible`` ``(B, 3, H, W)``, both float32 in [0, 1], and what else the network takes, by its
    name; the output is ``fused``, further ones by theirs. The file serves all sizes, from a pixel on, and all batches.

    Args:
        model: A network, or a module that :func:`fusionblocks.wrap` takes. It is not changed, and a guide that is
            attached to it is not a part of the file.
        path: The file; its ending, ``.onnx`` or ``.pt2``, says what it is. It is whole or not there.
        dtype: ``torch.float16`` or ``torch.bfloat16`` keeps weights in, and computes in, that; inputs and outputs
            stay float32.
        colour: Give ``fused`` as an RGB picture with the visible picture's chroma instead of what the network's head
            emits, as :func:`fusionblocks.fuse` does.
        dynamic: Whether the file serves all sizes, or single pairs of ``size`` alone, which some runtimes ask for.
        opset: Version of ONNX's operators, by default 18.
        outputs: Which outputs the file gives, ``("fused",)`` say; by default all.
        size: Height and width of a file that is not dynamic.
        compiled: Write a ``.pt2`` package of compiled code for this machine's processor, or for the GPU that the
            network lies on, for ``torch._inductor.aoti_load_package``. It asks for a C++ compiler.
        check: A pair, and what else the network takes, that the file has to fuse as the network does: to 80 dB, to
            45 dB in half precision. ONNX files are run by onnxruntime on the CPU.

    Returns:
        The path of the file.

    Raises:
        ImportError: If ``.onnx`` is asked for, and the extra ``export`` is not installed.
        TypeError: If ``model`` is not a network or a module.
        ValueError: If ``path`` has another ending, an option does not fit, no single graph of the network serves all
            sizes, or the file does not pass the check; there is no file then.

    Example:
        >>> import fusionblocks as fb
        >>> path = fb.export(fb.create_model("fusionblocks"), "net.onnx", colour=True)  # doctest: +SKIP
    """
    path = Path(path)
    check_choice("the ending of path", path.suffix, KINDS)
    check_choice("dtype", dtype, (None, torch.float32, torch.float16, torch.bfloat16))
    if dtype is torch.bfloat16 and path.suffix == ".onnx":
        raise ValueError("dtype must be torch.float16 or torch.float32 for ONNX, got torch.bfloat16")
    if compiled and path.suffix != ".pt2":
        raise ValueError(f"compiled asks for a path that ends in .pt2, got {path}")
    for name, side in zip(("height", "width"), size, strict=True):
        check_whole(name, side, 1)
    if opset is not None:
        check_whole("opset", opset, OPSET)
    if path.suffix == ".onnx":
        for name in ("onnx", "onnxscript", "onnxruntime"):
            _needed(name)
    graph = Deployable(as_network(model), outputs=outputs, dtype=dtype, colour=colour)
    program = record(graph, dynamic=dynamic, size=size)
    with whole_file(path) as place, tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / path.name  # what writes and reads these files goes by the ending of their names
        if path.suffix == ".onnx":
            write_onnx(graph, program, file, opset or OPSET)
        elif compiled:
            torch._inductor.aoti_compile_and_package(program, package_path=str(file))
        else:
            torch.export.save(program, file, extra_files={"fusionblocks.json": json.dumps(metadata(graph))})
        exact = Deployable(as_network(model), outputs=("fused",), colour=colour)
        least = LEAST_HALF if graph.is_half else LEAST
        if dynamic:
            _check_sizes(file, exact, least)
        if check is not None:
            found = verify(file, exact, check)
            if found < least:
                raise ValueError(f"the file's picture is {found:.1f} dB from the network's own, {least} are asked for")
        shutil.copyfile(file, place)
    return path


def record(graph: Deployable, *, dynamic: bool, size: tuple[int, int]) -> ExportedProgram:
    """Return the graph of a network's operations, for all sizes or for one."""
    if dynamic:
        inputs = graph.example(*EXAMPLE, batch=2)
        pair = {0: Dim.AUTO, 2: Dim.AUTO, 3: Dim.AUTO}
        guidance = [{0: Dim.AUTO, **({2: Dim.AUTO, 3: Dim.AUTO} if x.ndim == 4 else {})} for x in inputs[2:]]
        dimensions: Any = {"infrared": pair, "visible": pair, **({"guidance": tuple(guidance)} if guidance else {})}
    else:
        inputs, dimensions = graph.example(*size), None
    open_sizes = shapes.patch(backed_size_oblivious=dynamic)  # type: ignore[attr-defined]
    try:
        with torch.no_grad(), open_sizes, _quiet():
            return torch.export.export(graph, inputs, dynamic_shapes=dimensions, strict=False)
    except Exception as error:  # of what kind is PyTorch's own affair
        if not dynamic:
            raise
        raise ValueError(
            f"dynamic must be False for {graph.network.name} with PyTorch {torch.__version__}, which cannot record it "
            f"for all sizes: {str(error).splitlines()[0]}"
        ) from error


def write_onnx(graph: Deployable, program: ExportedProgram, file: Path, opset: int) -> None:
    """Write a program as an ONNX model that its checker accepts."""
    onnx = _needed("onnx")
    names = list(_outputs(program))
    with torch.no_grad(), _quiet():
        translated = torch.onnx.export(
            program,
            dynamo=True,
            input_names=list(graph.inputs),
            output_names=names,
            opset_version=opset,
            optimize=False,
            verbose=False,
        )
        model = translated.model_proto  # type: ignore[union-attr]
    if model.functions:  # which older exporters leave as such
        model = import_module("onnx.inliner").inline_local_functions(model)
    del model.graph.value_info[:]  # shapes and types in between, which a runtime infers, and exporters get wrong
    for part in (*model.graph.node, *model.graph.initializer, model.graph, model):
        del part.metadata_props[:]  # the lines of code that each came from, with the folders they lie in
        part.doc_string = ""
    for key, value in metadata(graph).items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    onnx.checker.check_model(model, full_check=True)
    foreign = sorted({node.domain for node in model.graph.node} - {"", "ai.onnx"})
    if foreign or model.functions:
        raise RuntimeError(f"the graph asks for operators that are not ONNX's own, of {', '.join(foreign)}")
    file.write_bytes(model.SerializeToString())


def _check_sizes(file: Path, exact: Deployable, least: float) -> None:
    """Raise unless a file serves batches and sizes that are unlike those by which it was recorded."""
    for batch, height, width in OTHERS:
        inputs = exact.example(height, width, batch)
        try:
            served = verify(file, exact, inputs) >= least
        except ImportError:
            raise
        except Exception:  # what a runtime raises is its own
            served = False
        if not served:
            name, size = exact.network.name, f"{batch} of {height}x{width}"
            raise ValueError(f"dynamic must be False for {name}: a graph for all sizes fails a batch of {size}")


def metadata(graph: Deployable) -> dict[str, str]:
    """Return what a file says of itself."""
    from fusionblocks import __version__

    network = graph.network
    return {
        "fusionblocks": __version__,
        "model": network.name,
        "paper": network.paper,
        "license": network.license_note,
        "inputs": "infrared (B, 1, H, W) and visible (B, 3, H, W) RGB, float32 in [0, 1]",
        "output": "fused, RGB in [0, 1]" if graph.colour else "fused, what the network's head emits, about [0, 1]",
    }


def _outputs(program: ExportedProgram) -> list[str]:
    """Return the names of a program's outputs in their order."""
    spec = program.call_spec.out_spec
    if spec is None:
        raise RuntimeError("the program names no outputs")
    return list(spec.context)


def _needed(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise ImportError(f'{name} is not installed: pip install "fusionblocks[export]"') from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what the exporters tell about their own workings to themselves."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir", "torch.export")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels):
            logger.setLevel(level)
