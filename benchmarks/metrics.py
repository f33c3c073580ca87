"""Time and memory of the usual eight metrics against their published formulation.

    python -m benchmarks.metrics                  # 768x576 and 640x480, batches of 1 and 16, on two CPU threads
    python -m benchmarks.metrics --device cuda    # the library on the GPU, the published formulation on the CPU

Both score the same pictures; unless every value agrees to 1e-6, nothing is measured and nothing written. Times are
taken in turn, and the ratio is the median over the pairs, so that other work on the machine meets both alike; the
processor time of the process is noted beside the clock's, because such work lengthens it little.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks import harness
from benchmarks.published_metrics import METRICS

Triple = tuple[Tensor, Tensor, Tensor]
NAMES = tuple(METRICS)
AGREEMENT = 1e-6
PACKAGES = ("torch", "numpy", "scipy", "scikit-image")
SMALL = 96  # side of the pictures that load the libraries before the memory is measured


class DisagreementError(Exception):
    """The library and the published formulation give different values."""


@dataclass(frozen=True)
class Case:
    """One row pair of the table: a size, a batch and where the library runs."""

    height: int
    width: int
    batch: int
    device: str = "cpu"
    threads: int = 2
    repeats: int = 5


def pictures(height: int, width: int, batch: int) -> Triple:
    """Return fused, infrared and visible gray levels, uint8 ``(batch, 1, height, width)``: scenes and their fusion.

    Four scenes are drawn; a larger batch mirrors them.
    """
    from fusionblocks import fuse
    from fusionblocks.data import synthetic_scene
    from fusionblocks.image import luma

    scenes = [synthetic_scene(seed, height=height, width=width) for seed in range(min(batch, 4))]
    stacks = (
        [luma(fuse(scene.infrared, scene.visible, model="laplacian")) for scene in scenes],
        [scene.infrared for scene in scenes],
        [luma(scene.visible) for scene in scenes],
    )
    mirrors = ((), (1,), (2,), (1, 2))
    fused, infrared, visible = (
        torch.stack([stack[i % 4].flip(mirrors[i // 4 % 4]) for i in range(batch)]).mul(255).round().to(torch.uint8)
        for stack in stacks
    )
    return fused, infrared, visible


def published(triple: Triple) -> dict[str, list[float]]:
    """Score picture after picture as the published evaluators do."""
    arrays = [tuple(picture[index, 0].double().numpy() for picture in triple) for index in range(len(triple[0]))]
    return {name: [metric(*array) for array in arrays] for name, metric in METRICS.items()}


def ours(triple: Triple) -> dict[str, Tensor]:
    """Score the whole batch with the library."""
    from fusionblocks.metrics import evaluate

    return evaluate(*triple, metrics=NAMES, convention="cddfuse")


def check_agreement(expected: dict[str, list[float]], got: dict[str, Tensor]) -> float:
    """Return the largest relative difference; too large a one is an error that names the metric."""
    largest = {
        name: float(np.max(np.abs(got[name].cpu().numpy() - values) / np.abs(values)))
        for name, values in ((name, np.array(values)) for name, values in expected.items())
    }
    worst = max(largest, key=lambda name: (np.isnan(largest[name]), largest[name]))
    if not largest[worst] <= AGREEMENT:
        raise DisagreementError(f"{worst} differs by {largest[worst]:.1e} of its value, more than {AGREEMENT:.0e}")
    return largest[worst]


def measure_times(case: Case, triple: Triple) -> tuple[float, list[tuple[harness.Seconds, ...]], dict[str, str]]:
    """Check agreement, then time both in turn: the largest difference, the pairs of seconds, the machine."""
    torch.set_num_threads(case.threads)
    device = torch.device(case.device)
    fused, infrared, visible = (picture.to(device) for picture in triple)
    difference = check_agreement(published(triple), ours((fused, infrared, visible)))  # and warms both up
    calls = (partial(published, triple), partial(ours, (fused, infrared, visible)))
    return difference, harness.paired_seconds(calls, device, case.repeats), harness.machine(device, PACKAGES)


def measure_memory(case: Case, triple: Triple, implementation: str) -> int:
    """Return the peak bytes of one implementation, in a process that has done nothing else."""
    torch.set_num_threads(case.threads)
    score, place = {"fusionblocks": (ours, case.device), "published": (published, "cpu")}[implementation]
    fused, infrared, visible = (picture.to(place) for picture in triple)
    corner = (fused[:1, :, :SMALL, :SMALL], infrared[:1, :, :SMALL, :SMALL], visible[:1, :, :SMALL, :SMALL])
    score(corner)
    return harness.peak_bytes(lambda: score((fused, infrared, visible)), torch.device(place))


def measure(case: Case) -> list[dict[str, str]]:
    """Return the two rows of a case, each part measured in a fresh process."""
    context = multiprocessing.get_context("spawn")

    def apart(function, *arguments):
        with context.Pool(1) as pool:
            return pool.apply(function, arguments)

    triple = pictures(case.height, case.width, case.batch)
    difference, pairs, machine = apart(measure_times, case, triple)
    faster, cheaper = (
        harness.median_ratio((getattr(theirs, clock), getattr(own, clock)) for theirs, own in pairs)
        for clock in ("wall", "cpu")
    )
    rows = []
    for index, implementation in enumerate(("published", "fusionblocks")):
        times = harness.percentiles([pair[index].wall for pair in pairs])
        cores = harness.percentiles([pair[index].cpu for pair in pairs])
        rows.append(
            {
                "implementation": implementation,
                "place": case.device if implementation == "fusionblocks" else "cpu",
                "height": str(case.height),
                "width": str(case.width),
                "batch": str(case.batch),
                **{f"{name}_s": f"{value:.5f}" for name, value in times.items()},
                "p50_s_per_image": f"{times['p50'] / case.batch:.5f}",
                "times_faster": f"{faster:.1f}" if implementation == "fusionblocks" else "1.0",
                "cpu_p50_s": f"{cores['p50']:.5f}",
                "times_less_cpu": f"{cheaper:.1f}" if implementation == "fusionblocks" else "1.0",
                "peak_mib": f"{apart(measure_memory, case, triple, implementation) / harness.MEBIBYTE:.0f}",
                "largest_difference": f"{difference:.1e}",
                "repeats": str(case.repeats),
                **machine,
            }
        )
    return rows


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.metrics", description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", help="where the library runs: cpu, cuda [cpu]")
    parser.add_argument("--sizes", nargs="+", default=["768x576", "640x480"], help="width x height")
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 16])
    parser.add_argument("--threads", type=int, default=2, help="CPU threads [2]")
    parser.add_argument("--repeats", type=int, default=5, help="timed pairs of a case [5]")
    parser.add_argument("--output", type=Path, default=harness.RESULTS / "metrics.csv", help="table to append to")
    options = parser.parse_args(arguments)
    for size in options.sizes:
        for batch in options.batches:
            width, height = map(int, size.split("x"))
            case = Case(height, width, batch, options.device, options.threads, options.repeats)
            try:
                rows = measure(case)
            except DisagreementError as error:
                print(f"{size}, batch {batch}: {error}; nothing is reported", file=sys.stderr)
                return 1
            harness.append_rows(options.output, rows)
            for row in rows:
                print(
                    f"{size} batch {batch:>2}  {row['implementation']:<12} on {row['place']:<5} "
                    f"p20 {row['p20_s']} p50 {row['p50_s']} p80 {row['p80_s']} s, peak {row['peak_mib']} MiB, "
                    f"{row['times_faster']} times as fast, {row['times_less_cpu']} times less processor time",
                    flush=True,
                )
    return 0


if __name__ == "__main__":
    sys.exit(main())
