"""What benchmarks share: paired timing, peak memory, a description of the machine, rows of a tracked table."""

from __future__ import annotations

import csv
import gc
import importlib.metadata
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
MEBIBYTE = 2**20


class Seconds(NamedTuple):
    """How long a call took, on the clock and on the cores of this process (which other work does not lengthen)."""

    wall: float
    cpu: float


def seconds(call: Callable[[], object], device: torch.device) -> Seconds:
    """Time one call, the device's queue emptied before and after."""
    synchronize(device)
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    synchronize(device)
    return Seconds(time.perf_counter() - wall, time.process_time() - cpu)


def paired_seconds(
    calls: Sequence[Callable[[], object]], device: torch.device, repeats: int
) -> list[tuple[Seconds, ...]]:
    """Time several calls in turn, ``repeats`` times: what else the machine does meets all of them alike."""
    return [tuple(seconds(call, device) for call in calls) for _ in range(repeats)]


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """Return the 20th, 50th and 80th percentile."""
    quantile = torch.quantile(torch.tensor(values, dtype=torch.float64), torch.tensor([0.2, 0.5, 0.8]).double())
    return dict(zip(("p20", "p50", "p80"), quantile.tolist(), strict=True))


def median_ratio(pairs: Iterable[tuple[float, float]]) -> float:
    """Return the median of the first value over the second, pair by pair."""
    return statistics.median(first / second for first, second in pairs)


def peak_bytes(call: Callable[[], object], device: torch.device) -> int:
    """Return what a call needs at its peak beyond what was in memory before it.

    On the CPU this is the growth of the process' resident memory, so it wants a process of its own: memory that was
    freed before and kept by the allocator would be used again unseen.
    """
    gc.collect()
    if device.type == "cuda":
        synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak so far is forgotten
    before = resident("VmRSS")
    call()
    return max(resident("VmHWM") - before, 0)


def resident(field: str) -> int:
    """Return a size of this process from Linux: ``VmRSS``, what is in memory now, or ``VmHWM``, its peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (kibibytes,) = (line.split()[1] for line in lines if line.startswith(f"{field}:"))
    return int(kibibytes) * 1024


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def machine(device: torch.device, packages: Sequence[str]) -> dict[str, str]:
    """Return what a row says about where it was measured: device, threads, versions, commit."""
    versions = (f"{package} {importlib.metadata.version(package)}" for package in packages)
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else processor(),
        "threads": str(torch.get_num_threads()),
        "versions": "; ".join([f"python {platform.python_version()}", *versions]),
        "commit": commit(),
    }


def processor() -> str:
    """Return the name of the CPU."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def commit() -> str:
    """Return the short commit of the checkout, with a plus sign if the package or the benchmarks differ from it."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(ROOT), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--", "fusionblocks", "benchmarks/*.py")
        return git("rev-parse", "--short", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def append_rows(file: Path, rows: Sequence[dict[str, str]]) -> None:
    """Append rows to a table; a table of other columns is refused rather than mixed."""
    columns = list(rows[0])
    file.parent.mkdir(parents=True, exist_ok=True)
    old = ""
    if file.exists():
        old = file.read_text()
        header = next(csv.reader(old.splitlines()), [])
        if header != columns:
            raise ValueError(f"{file} has the columns {header}, the new rows {columns}; move it away first")
    temporary = file.with_name(f".{file.name}.tmp")
    with temporary.open("w", newline="") as stream:
        stream.write(old)
        writer = csv.DictWriter(stream, columns, lineterminator="\n")
        if not old:
            writer.writeheader()
        writer.writerows(rows)
    os.replace(temporary, file)
