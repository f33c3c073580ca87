"""Time and memory of operators and networks: published formulation, reference, PyTorch's own, and this library.

    python -m benchmarks.run                                    # all, on the CPU
    python -m benchmarks.run channel_attention psfusion         # by name
    python -m benchmarks.run --device cuda --compile            # on the GPU, torch.compile of all as well
    python -m benchmarks.run --quick                            # tiny sizes, nothing written: does it run?

A case is checked before it is measured, and has no row if one of its implementations is wrong. Rows are appended to
``benchmarks/results/ops.csv`` and ``networks.csv``; of a case without a row, ``refused.csv`` keeps the reason.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from benchmarks import harness, networks, ops
from benchmarks.cases import DTYPES, Case, DisagreementError
from benchmarks.measuring import GPU_PACKAGES, PACKAGES, Settings, measure, workers

SUITES: Mapping[str, Sequence[Case]] = {"ops": ops.CASES, "networks": networks.CASES}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the status is 1 if a case has no row, 2 for bad arguments."""
    names = sorted({case.name for cases in SUITES.values() for case in cases})
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="name", help=f"what to run [all]: {', '.join([*SUITES, *names])}")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="[cpu]")
    parser.add_argument("--shapes", help="run cases whose sizes contain this text alone, such as T=16 or 640x480")
    parser.add_argument("--precision", nargs="+", choices=tuple(DTYPES), help="[all of each case]")
    parser.add_argument("--quick", action="store_true", help="tiny sizes; writes no table unless --output is given")
    parser.add_argument("--compile", action="store_true", help="add torch.compile of everything; slow to start")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads [2]")
    parser.add_argument("--repeats", type=int, help="timed rounds of a case [as many as fit a few seconds]")
    parser.add_argument("--cap", type=float, help="seconds that a case may take; after that the next one begins")
    parser.add_argument("--output", type=Path, help="folder of the tables [benchmarks/results]")
    options = parser.parse_args(arguments)
    for name in options.names:
        if name not in (*SUITES, *names):
            parser.error(f"no benchmark is called {name!r}; there are {', '.join([*SUITES, *names])}")
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("there is no CUDA device")
    settings = Settings(options.device, options.threads, options.repeats, options.compile)
    output = options.output or (None if options.quick else harness.RESULTS)

    selected = [(suite, case) for suite, cases in SUITES.items() for case in cases if chosen(suite, case, options)]
    if options.quick:  # sizes of one case are the same when they are small
        selected = list({(suite, titled(case.small())): (suite, case.small()) for suite, case in selected}.values())
    if not selected:
        parser.error("no case fits what was asked for")
    refused = False
    with workers(options.device, options.cap) as processes:
        for suite, case in selected:
            try:
                rows = measure(case, settings, processes)
            except Exception as error:  # whatever one case does, the next one runs
                reason = str(error).strip() if isinstance(error, (DisagreementError, TimeoutError)) else repr(error)
                print(f"{titled(case)}: {reason}; nothing is reported", file=sys.stderr, flush=True)
                if output is not None:
                    harness.append_rows(output / "refused.csv", [refused_row(suite, case, options.device, reason)])
                refused = True
                continue
            if output is not None:
                harness.append_rows(output / f"{suite}.csv", rows)
            print("\n".join([titled(case), *(f"  {described(row)}" for row in rows)]), flush=True)
    return 1 if refused else 0


def titled(case: Case) -> str:
    return f"{case.name} {case.shapes} {case.precision} {case.passes}"


def refused_row(suite: str, case: Case, place: str, reason: str) -> dict[str, str]:
    """Return what is kept of a case that has no rows."""
    about = {"suite": suite, "name": case.name, "shapes": case.shapes, "precision": case.precision}
    about |= {"passes": case.passes, "place": place, "reason": reason.splitlines()[0]}
    return {**about, **harness.machine(torch.device(place), GPU_PACKAGES if place == "cuda" else PACKAGES)}


def chosen(suite: str, case: Case, options: argparse.Namespace) -> bool:
    """Return whether the command line asks for a case."""
    return (
        options.device in case.devices
        and (not options.names or case.name in options.names or suite in options.names)
        and (not options.shapes or options.shapes in case.shapes)
        and (not options.precision or case.precision in options.precision)
    )


def described(row: Mapping[str, str]) -> str:
    """Return a row for a reader."""
    name = row["implementation"] + (f" ({row['backend']})" if row["backend"] else "")
    line = f"{name:<28} p20 {row['p20_ms']} p50 {row['p50_ms']} p80 {row['p80_ms']} ms, {row['times_faster']} times "
    line += "the published speed" + (f" ({row['times_less_cpu']} times by cores)" if row["times_less_cpu"] else "")
    line += f", peak {row['peak_mib']} MiB"
    if row["floor_share"]:
        line += f", {100 * float(row['floor_share']):.0f} % of the memory's limit"
    return line + f", differs by {row['difference']}" + (f", PSNR {row['psnr_db']} dB" if row["psnr_db"] else "")


if __name__ == "__main__":
    sys.exit(main())
