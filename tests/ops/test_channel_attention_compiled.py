"""The kernels of attention between channels, compiled for devices that need not be here."""

from __future__ import annotations

import pytest
import torch

from fusionblocks.ops._tiles import MOST_SPILLED
from tests.helpers.compiled_kernels import SHARED_MEMORY, compiling
from tests.ops.test_channel_attention_kernels import LAYOUTS, SIZES, draw, run


@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
class TestCompiledForDevices:
    def compiled(self, size: tuple[int, int, int, int, int | None], dtype: torch.dtype, capability: int, layout: str):  # type: ignore[no-untyped-def]
        inputs = LAYOUTS[layout](draw(size, dtype, "cpu"))
        with compiling(capability) as found:
            run(inputs)
        for kernel in found:
            assert kernel.shared_memory <= SHARED_MEMORY[capability], kernel.name
            assert kernel.spilled <= MOST_SPILLED, kernel.name
        return found

    @pytest.mark.parametrize("size", [(1, 2, 8, 320, 64), (1, 1, 64, 320, None)])
    def test_fits(self, size: tuple[int, int, int, int, int | None], dtype: torch.dtype, capability: int) -> None:
        found = self.compiled(size, dtype, capability, "chunks")
        names = ["reduce", "attend", "apply", "reduce", "apply", "differentiate", "apply_pair"]
        assert [kernel.name for kernel in found] == [f"{name}_kernel" for name in names]

    def test_channels_last_moves_whole_vectors(self, dtype: torch.dtype, capability: int) -> None:
        reduction = self.compiled((1, 2, 8, 320, None), dtype, capability, "channels_last")[0]
        assert reduction.name == "reduce_kernel"
        assert "cp.async.cg.shared.global" in reduction.ptx  # 16 bytes a thread
        assert "ld.global.b16" not in reduction.ptx


@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("size", SIZES)
def test_float32_stays_float32(size: str, capability: int) -> None:
    """Of some sums of products Triton makes products of matrices, in TF32 whatever the switches say."""
    with compiling(capability) as found:
        run(draw(SIZES[size], torch.float32, "cpu"))
    assert not [kernel.name for kernel in found if kernel.tf32]
