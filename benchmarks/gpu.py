"""All that a GPU is needed for, in one command of less than nine minutes: is it right, and what is faster than what?

    python -m benchmarks.gpu        # or: make gpu

In processes of their own, each with a cap, the most valuable first: the tests of every operator, then the benchmark of
the operators, then that of the networks. Results are written as they come, under the folder that the environment's
``OUT`` names, else under ``benchmarks/results``:

- ``ops.csv`` and ``networks.csv``: rows as ``benchmarks.run`` writes them;
- ``refused.csv``: the cases that have no row, each with the reason;
- ``measured.csv``: where the kernels are right and faster than the best of PyTorch; it belongs into
  ``fusionblocks/ops``, where the choice of a backend reads it;
- ``gpu.txt``: the summary that is also printed, and ``gpu.log``: what the processes said.

Without a GPU it says so and runs the same steps on tiny sizes: the kernels in Triton's interpreter, the cases on the
CPU. It needs torch, triton, timm, einops and pytest.
"""

from __future__ import annotations

import argparse
import csv
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from unittest import mock

import torch

from benchmarks import harness, report
from benchmarks.cases import PUBLISHED
from benchmarks.networks import GRAPH, REPLAY
from benchmarks.ops import CASES, KERNELS, OPERATORS, OURS, OpCase
from fusionblocks._support.files import whole_file
from fusionblocks.ops import _rows
from fusionblocks.ops._backend import Operator

MINUTES = 9 * 60 - 25  # for all steps; the summary takes the rest
TESTS = "tests/ops/"
PROCESSES = "6"  # of pytest, where its plug-in for them is installed


@dataclass
class Step:
    """A process.

    Args:
        title: What it is for.
        command: Its arguments after ``python -m``.
        cap: Seconds that it may take.
        environment: Variables that it starts with.
    """

    title: str
    command: Sequence[str]
    cap: float
    environment: Mapping[str, str] = field(default_factory=dict)

    def run(self, log: Path, left: float) -> str:
        """Run it, append what it says to the log, and return how it ended in a few words."""
        start, cap = time.perf_counter(), min(self.cap, left)
        if cap < 5:
            return "skipped, no time is left"
        with log.open("a") as stream:
            print(f"\n==== {self.title}: python -m {' '.join(self.command)}", file=stream, flush=True)
            process = subprocess.Popen(
                [sys.executable, "-m", *self.command],
                cwd=harness.ROOT,
                env={**os.environ, "PYTHONPATH": str(harness.ROOT), "PYTHONUNBUFFERED": "1", **self.environment},
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                status = process.wait(cap)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, 9)  # its workers too
                process.wait()
                return f"CUT after {cap:.0f} s"
        seconds = time.perf_counter() - start
        return f"{'ok' if status == 0 else f'FAILED (status {status})'}, {seconds:.0f} s"


def tests(on_gpu: bool) -> list[Step]:
    """Return the tests of each operator, and of what is built on them, each in a process."""
    channel, tokens = f"{TESTS}test_channel_attention_kernels.py", f"{TESTS}test_token_attention_kernels.py"
    cross = f"{TESTS}test_cross_attention_kernels.py"
    selections = {
        "folded_token_attention": ([tokens], "TestPixelsAsk or test_folded or test_one_read or test_opcheck"),
        "channel_attention": ([channel], ""),
        "cross_attention and dual_cross_attention": ([cross], ""),
        "token_attention": ([tokens], "TestTokensAsk or test_both_directions"),
    }
    if on_gpu:
        selections["CUDA graphs"] = ["tests/test_cuda_graphs.py"], ""
    else:
        selections["guard rows"] = [f"{TESTS}test_guarded.py"], ""
    steps = []
    for name, (files, words) in selections.items():
        command = ["pytest", *files, "-m", "gpu" if on_gpu else "kernel", "-q", "-ra", "-p", "no:cacheprovider"]
        command += ["-k", words] if words else []
        if on_gpu and find_spec("xdist") is not None:  # most of the time is Triton's compiler's
            command += ["-n", PROCESSES]
        steps.append(Step(f"tests of {name}", command, 75, {} if on_gpu else {"TRITON_INTERPRET": "1"}))
    return steps


def benchmarks(on_gpu: bool, output: Path) -> list[Step]:
    """Return the benchmarks of operators and networks; one case that fails or hangs does not end them."""
    if not on_gpu:
        common = ["benchmarks.run", "--quick", "--repeats", "1", "--threads", "1", "--cap", "60", "--output"]
        common.append(str(output))
        return [
            Step("benchmark of the operators, tiny, on the CPU", [*common, "ops"], 300),
            Step("benchmark of the networks, tiny, on the CPU", [*common, "networks", "--shapes", "640x480"], 300),
        ]
    common = ["benchmarks.run", "--device", "cuda", "--output", str(output), "--cap", "40"]
    return [
        Step("benchmark of the operators", [*common, "ops"], 200),
        Step("benchmark of the networks", [*common, "networks"], 280),
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all; the status is 1 if a GPU is there and a step failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, help="folder of the results [$OUT, else benchmarks/results]")
    options = parser.parse_args(arguments)
    on_gpu = torch.cuda.is_available()
    output = options.output or Path(os.environ.get("OUT") or harness.RESULTS)
    if not on_gpu:
        output = output / "dry"  # tiny sizes say nothing about speed
    output.mkdir(parents=True, exist_ok=True)
    log, summary = output / "gpu.log", output / "gpu.txt"
    tables = ("refused",) if on_gpu else ("refused", "ops", "networks")
    for file in (log, summary, *(output / f"{name}.csv" for name in tables)):
        file.unlink(missing_ok=True)

    def say(line: str) -> None:
        print(line, flush=True)
        with summary.open("a") as stream:
            print(line, file=stream)

    say(machine(on_gpu))
    end, failed = time.perf_counter() + MINUTES, False
    for step in [*tests(on_gpu), *benchmarks(on_gpu, output)]:
        ended = step.run(log, end - time.perf_counter())
        failed |= not ended.startswith("ok")
        say(f"{step.title}: {ended}")
        if on_gpu:
            write_measured(output)
    for line in findings(output, "cuda" if on_gpu else "cpu"):
        say(line)
    say(f"results in {output}")
    return int(failed and on_gpu)


def machine(on_gpu: bool) -> str:
    """Return the device and the versions."""
    versions = f"torch {torch.__version__}, python {platform.python_version()}"
    if not on_gpu:
        return f"There is no CUDA device: a dry run of all steps, on tiny sizes ({versions})."
    import triton

    return f"{torch.cuda.get_device_name()}, {versions}, triton {triton.__version__}"


def write_measured(output: Path) -> None:
    """Write the rows by which backends are chosen from those of the operators, and from the cases that have none."""
    refused = [row for row in report.newest("refused", report.CASE, output) if row["suite"] == "ops"]
    found = [*measured(report.read("ops", "cuda", output)), *map(wrong, refused)]
    # a case that was measured before and is refused now is refused
    rows = list({tuple(row[key] for key in ("operator", "direction", "dtype", "size")): row for row in found}.values())
    if rows:
        rows.sort(key=lambda row: (row["operator"], row["direction"], row["dtype"], int(row["size"])))
        with whole_file(output / _rows.FILE) as temporary, temporary.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)


def measured(rows: report.Rows) -> Iterator[dict[str, str]]:
    """Yield how many times faster than the best of PyTorch the kernels are in each case; all were right."""
    for case in report.cases(rows):
        others = [row for name, row in case.items() if name not in (KERNELS, OURS, PUBLISHED)]
        faster = min(float(row["p50_ms"]) for row in others) / float(case[KERNELS]["p50_ms"])
        yield {**kind(case[KERNELS]), "right": "yes", "faster": f"{faster:.2f}", **place(case[KERNELS])}


def wrong(row: report.Row) -> dict[str, str]:
    """Return the row of a case that was refused: whatever the reason, the kernels do not serve it."""
    return {**kind(row), "right": "no", "faster": "0.00", **place(row)}


def kind(row: report.Row) -> dict[str, str]:
    """Return the call that a row is of, as the choice of a backend names it."""
    direction = _rows.BOTH if "backward" in row["passes"] else _rows.FORWARD
    return {"operator": row["name"], "direction": direction, "dtype": row["precision"], "size": str(numbers(row))}


def place(row: report.Row) -> dict[str, str]:
    """Return where a row was measured."""
    versions = dict(version.split(" ", 1) for version in row["versions"].split("; "))
    return {"device": row["device"], "torch": versions["torch"], "triton": versions["triton"]}


def numbers(row: report.Row) -> int:
    """Return the numbers of all tensors that the operator of a row gets."""
    case = next(case for case in CASES if (case.name, case.shapes) == (row["name"], row["shapes"]))
    sizes: list[int] = []
    choose = Operator.choose

    def counted(operator: Operator, argument: str | None, *tensors: torch.Tensor) -> object:
        sizes.append(sum(tensor.numel() for tensor in tensors))
        return choose(operator, "torch", *tensors)

    with mock.patch.object(Operator, "choose", counted):
        forward = OpCase(case.name, case.sizes)
        forward._variant(OURS)(*(x.to("meta") for x in OPERATORS[case.name].inputs(case.sizes)))
    return sizes[0]


def findings(output: Path, where: str) -> list[str]:
    """Return what beat what, a line a case."""
    lines = []
    for row in measured(report.read("ops", where, output)) if where == "cuda" else ():
        line = f"{row['operator']} {row['direction']} {row['dtype']}, {int(row['size']):.2g} numbers"
        lines.append(f"{line}: kernels {row['faster']}x PyTorch's best")
    for row in report.newest("refused", report.CASE, output):
        lines.append(f"NOT MEASURED {row['name']} {row['shapes']} {row['precision']} {row['passes']}: {row['reason']}")
    for case in report.cases(report.read("networks", where, output)):
        first = next(iter(case.values()))
        line = f"{first['name']} {first['shapes']} {first['precision']}: published {first['p50_ms']} ms"
        for name, row in case.items():
            if name != PUBLISHED:
                quality = f", {row['psnr_db']} dB" if row["psnr_db"] else ""
                line += f"; {name} {row['times_faster']}x, {float(row['peak_share']):.2f} of its memory{quality}"
        if GRAPH in case and REPLAY in case:
            ratio = float(case[GRAPH]["p50_ms"]) / float(case[REPLAY]["p50_ms"])
            line += f"; a call takes {ratio:.2f}x the graph's own time"
        lines.append(line)
    return lines


if __name__ == "__main__":
    sys.exit(main())
