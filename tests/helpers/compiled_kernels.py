"""Compiles what an operator would launch on a CUDA device, on a machine that has none."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

# shared memory that one program may use, by compute capability, in bytes
SHARED_MEMORY = {80: 163 * 1024, 86: 99 * 1024, 90: 227 * 1024}


@dataclass(frozen=True)
class Compiled:
    """One compiled launch: its name, what it was specialised for, and what it takes."""

    name: str
    options: dict[str, Any]
    shared_memory: int
    registers: int
    spilled: int
    ptx: str
    ttgir: str


@contextmanager
def compiling(capability: int) -> Iterator[list[Compiled]]:
    """Within the block every launch of a Triton kernel is compiled for ``sm_<capability>`` and recorded, and not run.

    Tensors may be on the CPU; results stay as they were allocated.
    """
    triton = pytest.importorskip("triton")
    from triton.backends.compiler import GPUTarget

    if triton.knobs.runtime.interpret:
        pytest.skip("Triton interprets its kernels in this process")
    found: list[Compiled] = []
    run = triton.runtime.JITFunction.run

    def compile_only(self: Any, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> Any:
        kernel = run(self, *args, grid=grid, warmup=True, **kwargs)
        found.append(_describe(kernel, self.__name__, kwargs, capability))
        return kernel

    driver = mock.Mock()
    driver.get_current_target.return_value = GPUTarget("cuda", capability, 32)
    driver.get_current_device.return_value = f"sm_{capability}"  # a key of Triton's own cache
    with (
        mock.patch.object(triton.runtime.driver, "_active", driver),
        mock.patch.object(triton.runtime.JITFunction, "run", compile_only),
    ):
        yield found


def _describe(kernel: Any, name: str, options: dict[str, Any], capability: int) -> Compiled:
    from triton.backends.nvidia.compiler import get_ptxas

    target = f"sm_{capability}a" if capability >= 90 else f"sm_{capability}"
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "kernel.ptx")
        source.write_text(kernel.asm["ptx"])
        command = [get_ptxas(capability).path, "-v", f"--gpu-name={target}", source, "-o", Path(folder, "kernel.cubin")]
        usage = subprocess.run(command, check=True, capture_output=True, text=True).stderr
    registers, spilled = (
        int(re.search(pattern, usage)[1]) for pattern in (r"Used (\d+) registers", r"(\d+) bytes spill stores")
    )
    return Compiled(name, options, kernel.metadata.shared, registers, spilled, kernel.asm["ptx"], kernel.asm["ttgir"])
