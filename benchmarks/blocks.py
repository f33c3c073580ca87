"""Each block at 64 channels on a map of 120x160: parameters, arithmetic, time, peak memory and reach.

    python -m benchmarks.blocks                   # rows are appended to benchmarks/results/blocks.csv
    python -m benchmarks.blocks SDFM PSFM         # some of them
    python -m benchmarks.blocks --quick           # on a small map, nothing written

Inference in float32. Time is the median of calls after a warm-up; memory is what a call needs beside the block and its
inputs, in a process of its own. FLOPs are PyTorch's count, two for a multiplication with an addition.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

import fusionblocks as fb
from benchmarks import harness
from benchmarks.measuring import PACKAGES, workers
from fusionblocks.blocks.kinds import inputs_of

CHANNELS, HEIGHT, WIDTH = 64, 120, 160
REPEATS, SMALL = 9, 8
ON_CPU = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
Inputs = tuple[torch.Tensor | list[torch.Tensor], ...]


def maps(*channels: int) -> Callable[[int, int], Inputs]:
    """Return what draws maps of these widths."""
    return lambda height, width: tuple(torch.randn(1, count, height, width) for count in channels)


def levels(height: int, width: int) -> Inputs:
    """Return maps of 64, 128, 256 and 512 channels, each half the size of the one before."""
    return ([torch.randn(1, 64 << i, max(height >> i, 1), max(width >> i, 1)) for i in range(4)],)


def attention_flop(query: torch.Size, key: torch.Size, value: torch.Size, *_: object, **__: object) -> int:
    """Return what attention on a CPU computes, of which the counter does not know."""
    return sdpa_flop_count(query, key, value)


STANDING_ALONE: dict[str, tuple[Callable[[], nn.Module], Callable[[int, int], Inputs]]] = {
    "CrossChannelAttention": (lambda: fb.CrossChannelAttention(CHANNELS), maps(CHANNELS, CHANNELS)),
    "FunnelStem": (lambda: fb.FunnelStem(3, CHANNELS), maps(3)),
    "GlobalRefinement": (lambda: fb.GlobalRefinement(CHANNELS), maps(CHANNELS, CHANNELS, CHANNELS)),
    "GraphReasoning": (lambda: fb.GraphReasoning(CHANNELS), maps(CHANNELS, CHANNELS)),
    "HFAH": (fb.HFAH, levels),
    "LoRALinear": (lambda: fb.LoRALinear(CHANNELS, CHANNELS), lambda h, w: (torch.randn(1, h * w, CHANNELS),)),
    "S2P2": (lambda: fb.S2P2(CHANNELS), maps(CHANNELS)),
}
"""Blocks of no kind: how they are built and fed."""


def prepared(name: str, height: int, width: int) -> tuple[nn.Module, Inputs]:
    """Return a block and its inputs."""
    torch.manual_seed(0)
    if name in STANDING_ALONE:
        build, feed = STANDING_ALONE[name]
        return build().eval(), feed(height, width)
    options = {"semantic_channels": CHANNELS} if name in fb.list_blocks("modulate") else {}
    block = fb.create_block(name, CHANNELS, **options).eval()
    return block, inputs_of(block, height=height, width=width)


def cost(name: str, height: int, width: int) -> dict[str, str]:
    """Return a block's row, but for its memory."""
    block, inputs = prepared(name, height, width)
    with torch.inference_mode():
        with FlopCounterMode(display=False, custom_mapping={ON_CPU: attention_flop}) as counter:
            block(*inputs)
        call = partial(block, *inputs)
        seconds = [harness.seconds(call, torch.device("cpu")).wall for _ in range(REPEATS)]
    reach = fb.blocks.reach(block)
    return {
        "name": name,
        "map": f"{CHANNELS} channels, {width}x{height}",
        "parameters": str(sum(parameter.numel() for parameter in block.parameters())),
        "gflop": f"{counter.get_total_flops() / 1e9:.4g}",
        "ms": f"{1e3 * harness.percentiles(seconds)['p50']:.4g}",
        "reach": "" if reach is None else str(reach),
    }


def peak(name: str, height: int, width: int) -> int:
    """Return the bytes that a call needs beside the block and its inputs."""
    with torch.inference_mode():
        block, small = prepared(name, SMALL, SMALL)
        block(*small)
        block, inputs = prepared(name, height, width)
        return harness.peak_bytes(lambda: block(*inputs), torch.device("cpu"))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.blocks", description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="blocks [all]")
    parser.add_argument("--quick", action="store_true", help="a small map; writes no table unless --output is given")
    parser.add_argument("--output", type=Path, help="folder of the table [benchmarks/results]")
    options = parser.parse_args(arguments)
    known = fb.list_blocks()
    if unknown := [name for name in options.names if name not in known]:
        parser.error(f"unknown blocks: {', '.join(unknown)}; known: {', '.join(known)}")
    size = (SMALL, SMALL) if options.quick else (HEIGHT, WIDTH)
    rows = []
    with workers() as processes:
        for name in options.names or known:
            row = processes.times.apply(cost, (name, *size))
            row["peak_mib"] = f"{processes.memory.apply(peak, (name, *size)) / harness.MEBIBYTE:.1f}"
            rows.append({**row, **harness.machine(torch.device("cpu"), PACKAGES)})
            print(", ".join(f"{key} {row[key]}" for key in row))
    output = options.output or (None if options.quick else harness.RESULTS)
    if output is not None:
        harness.append_rows(output / "blocks.csv", rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
