"""Compiles what an operator would launch on a CUDA device, on a machine that has none."""

from __future__ import annotations

import inspect
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from fusionblocks.ops import _tiles

# shared memory that one program may use, by compute capability, in bytes
SHARED_MEMORY = {80: 163 * 1024, 86: 99 * 1024, 90: 227 * 1024, 120: 99 * 1024}
LAUNCH_OPTIONS = {"num_warps", "num_stages", "enable_fp_fusion"}


@dataclass(frozen=True)
class Compiled:
    """One compiled kernel: its name, what it was specialised for, and what it takes."""

    name: str
    options: dict[str, Any]
    shared_memory: int
    spilled: int
    ptx: str = field(repr=False)
    ttgir: str = field(repr=False)
    signature: inspect.Signature = field(repr=False)
    grid: tuple[int, int, int] = (0, 0, 0)
    tried: list[Compiled] = field(default_factory=list, repr=False)
    """What was compiled in order to choose this one, in order; itself included."""

    def check_arguments(self, arguments: tuple[Any, ...]) -> None:
        """Fail unless a launch hands over every argument, the constants being those that were compiled in."""
        given = self.signature.bind(*arguments).arguments
        assert len(given) == len(self.signature.parameters), self.name
        constants = {name: value for name, value in self.options.items() if name in given}
        assert {name: given[name] for name in constants} == constants, self.name
        assert set(self.options) - set(constants) <= LAUNCH_OPTIONS, self.name

    @property
    def tf32(self) -> bool:
        """Whether a product of its own rounds float32 to TF32; in three parts it does not."""
        return re.search(r"inputPrecision = tf32\b", self.ttgir) is not None

    @property
    def columns_divided(self) -> bool:
        """Whether two groups of warps share the columns of TF32 products, which a GPU was seen to get wrong."""
        return self.options.get("num_warps", 4) > 4 and re.search(r"wgmma\.mma_async\S*tf32", self.ptx) is not None


@contextmanager
def compiling(capability: int, shared_memory: int | None = None) -> Iterator[list[Compiled]]:
    """Within the block every launch of a Triton kernel is compiled for ``sm_<capability>`` and recorded, and not run.

    Tensors may be on the CPU; results stay as they were allocated. Each launch is checked to have the tiles that are to
    be chosen: the first setting that fits into ``shared_memory`` (that of the device, unless it is given) and does not
    spill beyond the bound, or else the one that spills least.
    """
    triton = pytest.importorskip("triton")
    from triton.backends.compiler import GPUTarget
    from triton.compiler import compiler

    if triton.knobs.runtime.interpret:
        pytest.skip("Triton interprets its kernels in this process")
    limit = SHARED_MEMORY[capability] if shared_memory is None else shared_memory
    launched: list[Compiled] = []
    tried: list[Compiled] = []
    described: dict[int, Compiled] = {}
    run = triton.runtime.JITFunction.run

    def compile_only(self: Any, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> Any:
        assert warmup, "kernels are launched by what was compiled"
        kernel = run(self, *args, grid=grid, warmup=True, **kwargs)
        described[id(kernel)] = _describe(kernel, self.__name__, kwargs, inspect.signature(self.fn))
        tried.append(described[id(kernel)])
        return kernel

    def launch_only(self: Any, grid: tuple[int, int, int]) -> Callable[..., None]:
        def record(*args: Any) -> None:
            found = described[id(self)]
            found.check_arguments(args)
            launched.append(replace(found, grid=grid, tried=list(tried)))
            tried.clear()

        return record

    driver = mock.Mock()
    driver.get_current_target.return_value = GPUTarget("cuda", capability, 32)
    driver.get_current_device.return_value = f"sm_{capability} with {limit} bytes"  # a key of Triton's cache
    driver.utils.load_binary = lambda name, binary, shared, device: (None, None, *_usage(binary), 1024)
    with (
        mock.patch.object(triton.runtime.driver, "_active", driver),
        mock.patch.object(compiler, "max_shared_mem", return_value=limit),
        mock.patch.object(triton.runtime.JITFunction, "run", compile_only),
        mock.patch.object(compiler.CompiledKernel, "__getitem__", launch_only),
        mock.patch.dict(_tiles._CHOICES, clear=True),
    ):
        yield launched
    for kernel in launched:
        assert kernel.shared_memory <= limit, kernel.name
        assert not kernel.columns_divided, kernel.name
        if kernel.tried:  # not chosen before
            check_choice(kernel, limit)


def check_choice(kernel: Compiled, limit: int) -> None:
    """Fail unless the launched kernel is the one to choose among those that were tried."""
    fit = [each for each in kernel.tried if each.shared_memory <= limit and not each.columns_divided]
    little = [candidate for candidate in fit if candidate.spilled <= _tiles.MOST_SPILLED]
    wanted = little[0] if little else min(fit, key=lambda candidate: candidate.spilled)
    assert kernel.options == wanted.options, kernel.name
    assert not little or kernel.tried[-1] is wanted, f"{kernel.name}: more was tried than was needed"


def _describe(kernel: Any, name: str, options: dict[str, Any], signature: inspect.Signature) -> Compiled:
    _, registers = _usage(kernel.kernel)
    texts = kernel.asm["ptx"], kernel.asm["ttgir"]
    return Compiled(name, options, kernel.metadata.shared, 4 * registers, *texts, signature)


def _usage(binary: bytes) -> tuple[int, int]:
    """Return the registers of a thread, and how many more lie in memory, as a device would."""
    from triton import knobs

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "kernel.cubin")
        file.write_bytes(binary)
        command = [knobs.nvidia.cuobjdump.path, "--dump-resource-usage", file]
        usage = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    registers, stack = (int(re.search(pattern, usage)[1]) for pattern in (r"REG:(\d+)", r"STACK:(\d+)"))
    return registers, stack // 4
