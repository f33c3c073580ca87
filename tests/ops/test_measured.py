"""The table of what was measured on GPUs, and how it decides which backend serves."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import resources
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode

from fusionblocks import ops
from fusionblocks.ops import _backend, _rows

HEAD = "operator,direction,dtype,size,right,faster,device,torch,triton\n"
TABLE = (
    HEAD
    + "dual_cross_attention,forward,float32,1000,yes,2.0,H200,2.11,3.6\n"
    + "dual_cross_attention,forward,float32,4000,yes,0.5,H200,2.11,3.6\n"
    + "dual_cross_attention,forward,float32,1000000,no,3.0,H200,2.11,3.6\n"
    + "dual_cross_attention,forward,tf32,1000,yes,0.9,H200,2.11,3.6\n"
    + "dual_cross_attention,forward and backward,float32,1000,yes,1.5,H200,2.11,3.6\n"
)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A GPU on which nothing runs, and a small table."""
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(major=9, minor=0))
    monkeypatch.delenv("FUSIONBLOCKS_BACKEND", raising=False)
    monkeypatch.setattr(_rows, "ROWS", _rows.read(TABLE))
    with FakeTensorMode():
        yield


def five(size: int, dtype: torch.dtype = torch.float32, learns: bool = False) -> list[Tensor]:
    """Return the inputs of a call, of this many numbers together."""
    return [torch.empty(1, 1, size // 5, 1, device="cuda", dtype=dtype, requires_grad=learns) for _ in range(5)]


def chosen(tensors: list[Tensor]) -> str:
    return ops.explain("dual_cross_attention", *tensors).split()[3].rstrip(":")


@pytest.mark.usefixtures("gpu")
class TestChoice:
    @pytest.mark.parametrize(
        ("size", "wanted"),
        [
            (100, "sdpa"),  # ten times smaller than anything that was measured
            (125, "triton"),
            (1000, "triton"),
            (1995, "triton"),
            (2005, "sdpa"),  # nearer to the row that loses
            (32000, "sdpa"),
            (1_000_000, "sdpa"),  # fast and wrong
            (100_000_000, "sdpa"),
        ],
    )
    def test_the_nearest_row_decides(self, size: int, wanted: str) -> None:
        assert chosen(five(size)) == wanted

    def test_directions_have_rows_of_their_own(self) -> None:
        assert chosen(five(3000, learns=True)) == "triton"
        with torch.no_grad():
            assert chosen(five(3000, learns=True)) == "sdpa"

    def test_other_dtypes_are_not_judged_by_it(self) -> None:
        assert chosen(five(1000, torch.bfloat16)) == "sdpa"

    def test_tf32_is_a_dtype_of_its_own(self) -> None:
        switch = torch.backends.cuda.matmul
        before = switch.fp32_precision
        switch.fp32_precision = "tf32"
        try:
            assert chosen(five(1000)) == "sdpa"
        finally:
            switch.fp32_precision = before

    def test_explain_names_the_row(self) -> None:
        assert ops.explain("dual_cross_attention", *five(1000)) == (
            "dual_cross_attention runs on triton: chosen automatically (triton: measured at 2.00x the speed of "
            "PyTorch's best with 1e+03 numbers of float32, forward, on H200, torch 2.11, triton 3.6)"
        )
        assert "triton: measured to be wrong with 1e+06 numbers" in ops.explain(
            "dual_cross_attention", *five(1_000_000)
        )
        assert "no such call was measured" in ops.explain("cross_attention", *five(1000)[:3])

    def test_what_is_asked_for_serves_whatever_was_measured(self) -> None:
        for name in ("triton", "sdpa", "torch"):
            asked = ops.explain("dual_cross_attention", *five(4000), backend=name)
            assert asked == f"dual_cross_attention runs on {name}: asked for by backend='{name}'"
        with pytest.raises(RuntimeError, match="channel_attention has no sdpa implementation"):
            ops.channel_attention(*five(5)[:3], torch.empty(1, 1, 1, device="cuda"), backend="sdpa")


def test_the_table_of_the_package_is_sound() -> None:
    rows = [
        row for found in _rows.read(resources.files(ops).joinpath(_rows.FILE).read_text()).values() for row in found
    ]
    assert rows
    for row in rows:
        assert row.operator in _backend.OPERATORS
        assert row.direction in (_rows.FORWARD, _rows.BOTH)
        assert row.dtype in ("float32", "tf32", "bfloat16", "float16")
        assert row.faster > 0
        assert row.size / _rows.NEAR <= row.least <= row.size <= row.most <= row.size * _rows.NEAR


def test_on_a_cpu_the_reference_serves() -> None:
    x = torch.rand(1, 1, 4, 3)
    assert ops.explain("dual_cross_attention", x, x, x, x, x).startswith("dual_cross_attention runs on torch")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_sdpa_is_both_streams_as_heads_of_one(dtype: torch.dtype) -> None:
    query_a, query_b, key, value_a, value_b = torch.rand(5, 2, 3, 7, 4, dtype=dtype).requires_grad_().unbind()
    arguments = query_a, query_b, key, value_a[..., :3], value_b[..., :3]
    results = {name: ops.dual_cross_attention(*arguments, scale=0.3, backend=name) for name in ("sdpa", "torch")}
    for out, wanted in zip(results["sdpa"], results["torch"], strict=True):
        torch.testing.assert_close(out, wanted)
    gradients = [torch.autograd.grad(sum(x.square().sum() for x in outs), arguments) for outs in results.values()]
    for gradient, wanted in zip(*gradients, strict=True):
        torch.testing.assert_close(gradient, wanted)


@pytest.mark.parametrize("size", [1000, 50_000])
def test_the_choice_is_traced_by_torch_compile(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is judged on a GPU; the tensors may be anywhere."""
    monkeypatch.setattr(_rows, "ROWS", _rows.read(TABLE))
    torch.compiler.reset()

    def doubled_or_tripled(x: Tensor) -> Tensor:
        row = _rows.nearest("dual_cross_attention", [x])
        return 2 * x if row is not None and row.serves else 3 * x

    compiled = torch.compile(doubled_or_tripled, fullgraph=True, backend="aot_eager")
    assert compiled(torch.ones(size)).sum() == doubled_or_tripled(torch.ones(size)).sum() == (2 + (size > 2000)) * size
