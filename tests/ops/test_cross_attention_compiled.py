"""The kernels of attention between positions, compiled for real devices with tiles that fit; no device is needed."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fusionblocks.ops.cross_attention import binding
from tests.helpers.compiled_kernels import SHARED_MEMORY, Compiled, compiling

DTYPES = {"half": torch.bfloat16, "wgmma": torch.bfloat16, "tf32": torch.float32, "tf32x3": torch.float32}


def compile_all(
    capability: int, product: str, streams: int, width: int, positions: int, monkeypatch: pytest.MonkeyPatch
) -> dict[str, Compiled]:
    monkeypatch.setattr(binding, "product", lambda *_: product)

    def feature_map() -> Tensor:
        return torch.zeros(1, 1, width, positions, dtype=DTYPES[product]).mT

    queries, key, values = [feature_map()] * streams, feature_map(), [feature_map()] * streams
    # the smaller devices of compute capability 8 run what is compiled for 8.0, with less shared memory
    with compiling(capability, SHARED_MEMORY[90 if product == "wgmma" else 86]) as found:
        outs, lse = binding.launch_streams(queries, key, values, 1.0, splits=2)
        binding.launch_gradients(outs, queries, key, values, outs, lse, 1.0)
    return {kernel.name: kernel for kernel in found}


NAMES = {"forward_kernel", "join_kernel", "delta_kernel", "key_value_gradient_kernel", "query_gradient_kernel"}


@pytest.mark.parametrize(
    ("capability", "product", "width"),
    [
        (80, "half", 64),
        (80, "half", 128),
        (90, "wgmma", 64),
        (90, "wgmma", 128),
        (80, "tf32", 64),
        (90, "tf32", 64),
        (80, "tf32x3", 64),
        (90, "tf32x3", 64),
        (80, "tf32x3", 128),
    ],
)
def test_two_streams_fit(capability: int, product: str, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    kernels = compile_all(capability, product, 2, width, 4800, monkeypatch)
    assert set(kernels) == NAMES
    for kernel in kernels.values():
        if kernel.name not in ("delta_kernel", "join_kernel"):
            whole_warp_groups = product == "wgmma" and len(kernel.tried) == 1  # which smaller tiles do not fill
            assert ("wgmma.mma_async" if whole_warp_groups else "mma") in kernel.ptx


def test_float32_sums_over_tiles_outside_the_matrix_units(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their sums are cut, not rounded: over thousands of tiles that would cost float32 its accuracy."""
    kernel = compile_all(80, "tf32x3", 1, 64, 4800, monkeypatch)["forward_kernel"]
    lines = kernel.ttgir.splitlines()
    sums = [line for line in lines if "%b_o" in line.partition("=")[0]]
    assert any("tt.dot" in line for line in sums)
    assert any("arith.addf" in line for line in sums), "the running sum is an operand of the matrix unit"


@pytest.mark.parametrize("positions", [1, 77])
def test_sizes_that_triton_takes_for_constants(positions: int, monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(compile_all(80, "half", 1, 20, positions, monkeypatch)) >= NAMES - {"join_kernel"}
