"""What a call of an operator costs before its kernel runs: the checks, the choice of a backend, PyTorch's dispatcher.

    python -m benchmarks.dispatch            # rows are appended to benchmarks/results/dispatch.csv
    python -m benchmarks.dispatch --quick    # a few calls, nothing written

On tiny CPU tensors, each operator asked for its kernels, whose launch is replaced by the allocation of the results.
Beside it PyTorch's own attention on tensors of that size, in turn; the difference is what fusionblocks adds.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from time import perf_counter

os.environ["TRITON_INTERPRET"] = "1"  # or the kernels would refuse CPU tensors

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks import harness
from fusionblocks import ops
from fusionblocks.ops.channel_attention import binding as channel
from fusionblocks.ops.cross_attention import binding as cross
from fusionblocks.ops.dual_cross_attention import binding as dual
from fusionblocks.ops.folded_token_attention import binding as folded
from fusionblocks.ops.token_attention import binding as token

MODES = ("inference_mode", "no_grad", "grad")
CALLS, ROUNDS = 1000, 15


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.dispatch", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few calls; writes no table unless --output is given")
    parser.add_argument("--output", type=Path, help="folder of the table [benchmarks/results]")
    options = parser.parse_args(arguments)
    calls, rounds = (10, 3) if options.quick else (CALLS, ROUNDS)
    torch.set_num_threads(1)
    without_launches()
    rows = [row for mode in MODES for row in measure(mode, calls, rounds)]
    for row in rows:
        print(f"{row['operator']:<24} {row['mode']:<16} {row['us']} us, PyTorch's own {row['pytorch_us']} us,", end=" ")
        print(f"{row['added_us']} us more")
    output = options.output or (None if options.quick else harness.RESULTS)
    if output is not None:
        harness.append_rows(output / "dispatch.csv", rows)
    return 0


def without_launches() -> None:
    """Let every forward pass on a CPU allocate its results and do no more, in this process."""
    library = torch.library.Library("fusionblocks", "IMPL")
    for binding in (channel, cross, dual, folded, token):
        library.impl(binding.forward_op.name(), binding.empty_results, "CPU", allow_override=True)
    globals()["_KEPT"] = library  # its destruction would bring the launches back


def measure(mode: str, calls: int, rounds: int) -> list[dict[str, str]]:
    """Return a row for each operator, the median of rounds that are timed in turn."""
    with torch.inference_mode(mode == "inference_mode"):
        tensors = [torch.rand(1, 2, 5, 4, requires_grad=mode == "grad") for _ in range(5)]
        temperature = torch.ones(2, 1, 1)
        image, key = torch.rand(1, 4, 5, requires_grad=mode == "grad"), torch.rand(1, 2, 3, 4)
        own = partial(F.scaled_dot_product_attention, *tensors[:3])
        functions: dict[str, Callable[[], object]] = {
            "channel_attention": partial(ops.channel_attention, *tensors[:3], temperature, backend="triton"),
            "cross_attention": partial(ops.cross_attention, *tensors[:3], backend="triton"),
            "dual_cross_attention": partial(ops.dual_cross_attention, *tensors, backend="triton"),
            "folded_token_attention": partial(ops.folded_token_attention, image, key, key, backend="triton"),
            "token_attention": partial(ops.token_attention, *tensors[:3], backend="triton"),
        }
        with torch.set_grad_enabled(mode == "grad"):
            return [row(name, mode, function, own, calls, rounds) for name, function in functions.items()]


def row(
    name: str, mode: str, function: Callable[[], object], own: Callable[[], Tensor], calls: int, rounds: int
) -> dict[str, str]:
    """Time an operator and PyTorch's own in turn."""
    for warm_up in (function, own):
        microseconds(warm_up, calls)
    pairs = [(microseconds(function, calls), microseconds(own, calls)) for _ in range(rounds)]
    medians = [harness.percentiles(column)["p50"] for column in zip(*pairs, strict=True)]
    added = harness.percentiles([ours - theirs for ours, theirs in pairs])["p50"]
    numbers = {"us": medians[0], "pytorch_us": medians[1], "added_us": added}
    return {
        "operator": name,
        "mode": mode,
        **{column: f"{number:.1f}" for column, number in numbers.items()},
        "rounds": str(rounds),
        **harness.machine(torch.device("cpu"), ("torch", "triton")),
    }


def microseconds(function: Callable[[], object], calls: int) -> float:
    """Return the time of one call, of many."""
    start = perf_counter()
    for _ in range(calls):
        function()
    return (perf_counter() - start) / calls * 1e6


if __name__ == "__main__":
    sys.exit(main())
