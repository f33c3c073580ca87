"""Measure one case: agreement first, then times in turn, then peak memory, in two processes."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol
from unittest import mock

import torch

from benchmarks import harness
from benchmarks.cases import COMPILED, PUBLISHED, Agreement, Call, Case, DisagreementError, allow_tf32
from fusionblocks.ops._backend import Operator

PACKAGES = ("torch", "timm")
GPU_PACKAGES = (*PACKAGES, "triton")
COPY_BYTES = {"cpu": 2**27, "cuda": 2**30}
FLUSH_BYTES = 2**28  # more than any GPU's level-two cache
LEAST_REPEATS, MOST_REPEATS = 3, 100
RETURNING = {"MALLOC_MMAP_THRESHOLD_": "65536"}  # freed memory goes back at once, so that using it again is seen


class Process(Protocol):
    """What runs functions."""

    def apply(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        """Run a function there and return its result."""


class OwnProcess:
    """A process that runs functions one by one, and is replaced after one that failed or took too long.

    A fault on a GPU spoils all that follows in its process, and what hangs would never end.

    Args:
        environment: Variables that it starts with.
        cap: Seconds that a function may take, None for any.
    """

    def __init__(self, environment: Mapping[str, str], cap: float | None) -> None:
        self._environment, self._cap = environment, cap
        self._pool: Any = None

    def apply(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        """Run a function there and return its result.

        Raises:
            TimeoutError: If it takes longer than the cap.
            Exception: What the function raises.
        """
        if self._pool is None:
            with mock.patch.dict(os.environ, self._environment):
                self._pool = multiprocessing.get_context("spawn").Pool(1)
        try:
            return self._pool.apply_async(function, arguments).get(self._cap)
        except multiprocessing.TimeoutError:
            self.end()
            raise TimeoutError(f"it took more than {self._cap:.0f} s") from None
        except Exception:
            self.end()
            raise

    def end(self) -> None:
        """End the process; the next function starts another."""
        if self._pool is not None:
            self._pool.terminate()
            self._pool = None


@dataclass(frozen=True)
class Workers:
    """Two processes: memory is counted where freed memory is given back, which would cost time."""

    times: Process
    memory: Process


@contextmanager
def workers(place: str = "cpu", cap: float | None = None) -> Iterator[Workers]:
    """Make both processes, and end them; a GPU counts its memory itself, so there one does both."""
    times = OwnProcess({}, cap)
    memory = OwnProcess(RETURNING, cap) if place == "cpu" else times
    try:
        yield Workers(times, memory)
    finally:
        times.end()
        memory.end()


Clock = Callable[[Call], harness.Seconds]


@dataclass(frozen=True)
class Settings:
    """What the command line asks for."""

    place: str = "cpu"
    threads: int = 2
    repeats: int | None = None
    compile: bool = False


@dataclass(frozen=True)
class Times:
    """What the first process finds out."""

    samples: dict[str, tuple[harness.Seconds, ...]]
    agreements: dict[str, Agreement]
    backends: dict[str, str]
    bytes_per_second: float
    machine: dict[str, str]


def measure(case: Case, settings: Settings, processes: Workers) -> list[dict[str, str]]:
    """Return the case's rows; a disagreement is an error, and then there is no row at all."""
    times: Times = processes.times.apply(measure_times, (case, settings))
    peaks: dict[str, int] = processes.memory.apply(measure_memory, (case, settings))
    floor = None if case.floor_bytes is None else case.floor_bytes / times.bytes_per_second
    baseline = times.samples[PUBLISHED]
    rows = []
    for name, samples in times.samples.items():
        quantiles = harness.percentiles([sample.wall for sample in samples])
        cores = harness.percentiles([sample.cpu for sample in samples])
        faster, cheaper = (
            harness.median_ratio((getattr(first, clock), getattr(own, clock)) for first, own in zip(baseline, samples))
            for clock in ("wall", "cpu")
        )
        agreement = times.agreements[name]
        rows.append(
            {
                "name": case.name,
                "shapes": case.shapes,
                "precision": case.precision,
                "passes": case.passes,
                "implementation": name,
                "backend": times.backends.get(name, ""),
                "place": settings.place,
                **{f"{key}_ms": f"{1e3 * value:.5g}" for key, value in quantiles.items()},
                "times_faster": f"{faster:.2f}",
                "cpu_p50_ms": f"{1e3 * cores['p50']:.5g}" if settings.place == "cpu" else "",
                "times_less_cpu": f"{cheaper:.2f}" if settings.place == "cpu" else "",
                "peak_mib": f"{peaks[name] / harness.MEBIBYTE:.1f}",
                "peak_share": f"{peaks[name] / max(peaks[PUBLISHED], 1):.3f}",
                "floor_ms": "" if floor is None else f"{1e3 * floor:.5g}",
                "floor_share": "" if floor is None else f"{floor / quantiles['p50']:.3f}",
                "copy_gb_per_s": f"{times.bytes_per_second / 1e9:.1f}",
                "difference": f"{agreement.difference:.1e}",
                "psnr_db": "" if agreement.psnr is None else f"{agreement.psnr:.1f}",
                "repeats": str(len(samples)),
                **times.machine,
            }
        )
    return rows


def names_of(case: Case, settings: Settings) -> list[str]:
    names = list(case.implementations(settings.place))
    return [*names, *(f"{name}{COMPILED}" for name in names)] if settings.compile else names


def measure_times(case: Case, settings: Settings) -> Times:
    """Check every implementation, then time all in turn."""
    device = prepared_device(case, settings)
    names = names_of(case, settings)
    calls = case.prepare(names, device)
    truth = case.truth(device)
    agreements, backends = {}, {}
    start = time.perf_counter()
    for name, call in calls.items():
        with backends_seen() as seen:
            got = call()  # and warms up
        truth = got if truth is None else truth
        backends[name] = ", ".join(sorted(seen))
        agreements[name] = case.agreement(name, got, truth)
        if not agreements[name].holds:
            raise DisagreementError(f"{name} {agreements[name]}")
    del truth, got
    first_round = time.perf_counter() - start
    clock = gpu_clock(device) if device.type == "cuda" else partial(harness.seconds, device=device)
    repeats = settings.repeats or repeats_for(case.seconds * len(names), first_round)
    samples: dict[str, list[harness.Seconds]] = {name: [] for name in names}
    for _ in range(repeats):
        for name, call in calls.items():  # in turn: what else the machine does meets all of them alike
            samples[name].append(clock(call))
    return Times(
        {name: tuple(values) for name, values in samples.items()},
        agreements,
        backends,
        2 * COPY_BYTES[device.type] / copy_seconds(device, clock),
        harness.machine(device, GPU_PACKAGES if device.type == "cuda" else PACKAGES),
    )


def measure_memory(case: Case, settings: Settings) -> dict[str, int]:
    """Return the peak bytes of each implementation beyond its weights and inputs."""
    device = prepared_device(case, settings)
    names = names_of(case, settings)
    peaks = {}
    for name in names:
        # no warm-up of what is compiled for one size: it would be compiled twice
        (warm_up,) = (case if name.endswith(COMPILED) else case.small()).prepare([name], device).values()
        warm_up()
        (call,) = case.prepare([name], device).values() if not name.endswith(COMPILED) else (warm_up,)
        peaks[name] = harness.peak_bytes(call, device)
        del call, warm_up
    return peaks


def prepared_device(case: Case, settings: Settings) -> torch.device:
    torch.set_num_threads(settings.threads)
    allow_tf32(case.precision)
    torch.compiler.reset()
    return torch.device(settings.place)


def repeats_for(seconds: float, one_round: float) -> int:
    """Return how many rounds fill the time, within bounds."""
    return max(LEAST_REPEATS, min(MOST_REPEATS, int(seconds / max(one_round, 1e-9))))


@contextmanager
def backends_seen() -> Iterator[set[str]]:
    """Collect the names of the backends that operators choose inside the block."""
    seen: set[str] = set()
    choose = Operator.choose

    def observed(operator: Operator, argument: str | None, *tensors: torch.Tensor) -> Callable[..., Any]:
        seen.add(operator.explain(argument, *tensors).partition(" runs on ")[2].partition(":")[0])
        return choose(operator, argument, *tensors)

    with mock.patch.object(Operator, "choose", observed):
        yield seen


def gpu_clock(device: torch.device) -> Clock:
    """Return a clock that times a call by events on the GPU, its level-two cache emptied before."""
    flush = torch.empty(FLUSH_BYTES, dtype=torch.int8, device=device)

    def seconds(call: Call) -> harness.Seconds:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        flush.zero_()  # also gives the CPU time to queue the call
        start.record()
        call()
        end.record()
        torch.cuda.synchronize(device)
        return harness.Seconds(start.elapsed_time(end) / 1e3, float("nan"))

    return seconds


def copy_seconds(device: torch.device, clock: Clock) -> float:
    """Return the median time of a large copy: the memory's speed limit in practice."""
    source = torch.ones(COPY_BYTES[device.type], dtype=torch.int8, device=device)
    target = torch.zeros_like(source)

    def copy() -> Sequence[torch.Tensor]:
        return (target.copy_(source),)

    copy()
    return harness.percentiles([clock(copy).wall for _ in range(11)])["p50"]
