"""Kernels touch no memory but their tensors': inputs and results lie between guard rows, in Triton's interpreter.

Each operator is called by its public function with ``backend="triton"`` on CPU tensors, as a user would try it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from fusionblocks import ops
from tests.helpers.guarded_memory import Guards
from tests.ops.operator_tester import random_tensors, relative_rms
from tests.ops.test_channel_attention import formula as channel_formula
from tests.ops.test_channel_attention import projected_formula

triton = pytest.importorskip("triton")
tl = pytest.importorskip("triton.language")

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") != "1", reason="needs TRITON_INTERPRET=1"),
]

Shapes = dict[str, tuple[int, ...]]
BOUNDS = {torch.float32: 2e-5, torch.float16: 3e-3, torch.bfloat16: 2e-2}


def channel(batch: int, heads: int, channels: int, positions: int, out: int | None = None) -> Shapes:
    shapes = dict.fromkeys(("query", "key", "value"), (batch, heads, channels, positions))
    extra = {} if out is None else {"projection": (out, heads * channels)}
    return {**shapes, "temperature": (heads, 1, 1), **extra}


def cross(heads: int, queries: int, keys: int, width: int, value_width: int) -> Shapes:
    return {"query": (1, heads, queries, width), "key": (1, heads, keys, width), "value": (1, heads, keys, value_width)}


def dual(heads: int, queries: int, keys: int, width: int, value_width: int) -> Shapes:
    query, key, value = cross(heads, queries, keys, width, value_width).values()
    return {"query_a": query, "query_b": query, "key": key, "value_a": value, "value_b": value}


def folded(batch: int, heads: int, tokens: int, width: int, value_width: int, pixels: int) -> Shapes:
    return {
        "image": (batch, width, pixels),
        "key": (batch, heads, tokens, width),
        "value": (batch, heads, tokens, value_width),
        "bias": (batch, heads, tokens),
    }


def attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return (query @ key.mT * query.shape[-1] ** -0.5).softmax(-1) @ value


def dual_formula(query_a: Tensor, query_b: Tensor, key: Tensor, value_a: Tensor, value_b: Tensor) -> tuple[Tensor, ...]:
    return attention(query_a, key, value_a), attention(query_b, key, value_b)


def folded_formula(image: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
    weights = (key @ image[:, None] + bias[..., None]).softmax(2)
    return (value.mT @ weights).sum(1)


# sizes beside those of tiles: one less, one more, far from a multiple, and single ones
CASES: list[tuple[Callable[..., Any], Callable[..., Any], Shapes]] = [
    *(
        (ops.channel_attention, channel_formula, channel(*sizes))
        for sizes in [(1, 1, 1, 1), (2, 3, 5, 37), (1, 2, 16, 127), (1, 1, 17, 129), (1, 1, 63, 33), (1, 2, 9, 1025)]
    ),
    *(
        (ops.channel_attention, projected_formula, channel(*sizes))
        for sizes in [(2, 2, 3, 65, 5), (1, 3, 8, 31, 17), (1, 2, 33, 67, 65)]
    ),
    *(
        (ops.cross_attention, attention, cross(*sizes))
        for sizes in [(1, 1, 1, 1, 1), (2, 63, 65, 15, 17), (1, 65, 31, 31, 33), (1, 17, 129, 65, 100)]
    ),
    *(
        (ops.dual_cross_attention, dual_formula, dual(*sizes))
        for sizes in [(1, 1, 2, 3, 1), (2, 33, 63, 17, 15), (1, 65, 129, 33, 63)]
    ),
    *(
        (ops.folded_token_attention, folded_formula, folded(*sizes))
        for sizes in [(1, 1, 2, 1, 1, 1), (2, 2, 3, 7, 9, 63), (1, 1, 17, 31, 33, 65), (1, 3, 16, 65, 127, 33)]
    ),
    *(
        (ops.token_attention, attention, cross(*sizes))
        for sizes in [(1, 3, 65, 7, 9), (2, 129, 5, 17, 15), (1, 33, 1025, 15, 31), (1, 2, 130, 129, 65)]
    ),
]


def case_id(case: Any) -> str | None:
    return getattr(case, "__name__", None) or "x".join(str(size) for size in next(iter(case.values())))


def run(function: Callable[..., Any], tensors: dict[str, Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """Return results and gradients."""
    leaves = {name: tensor.requires_grad_() for name, tensor in tensors.items()}
    results = function(**leaves)
    results = [results] if isinstance(results, Tensor) else list(results)
    gradients = torch.autograd.grad(results, list(leaves.values()), [cotangent(out) for out in results])
    return results, list(gradients)


def cotangent(out: Tensor) -> Tensor:
    return random_tensors(3, grad=tuple(out.shape))["grad"].to(out)


@pytest.mark.parametrize("side", ["reads", "writes"])
def test_the_guards_see_an_access_beyond(side: str) -> None:
    guards = Guards()
    x, y = guards.holding(torch.ones(5)), guards.holding(torch.ones(5))
    with pytest.raises(Exception, match="a kernel (read|wrote) beyond its tensor"), guards.allocating():
        copy_kernel[(1,)](x, y, 8 if side == "reads" else 5, 8 if side == "writes" else 5, B=8)
    with guards.allocating():
        copy_kernel[(1,)](x, y, 5, 5, B=8)


@triton.jit
def copy_kernel(p_x, p_y, X, Y, B: tl.constexpr):
    """Copy X numbers to Y places."""
    o = tl.arange(0, B)
    tl.store(p_y + o, tl.load(p_x + o, o < X, 0.0), o < Y)


@pytest.mark.parametrize("layout", ["rows", "columns"])
@pytest.mark.parametrize(("operator", "formula", "shapes"), CASES, ids=case_id)
def test_nothing_beyond_the_tensors(
    operator: Callable[..., Any], formula: Callable[..., Any], shapes: Shapes, layout: str
) -> None:
    check(operator, formula, shapes, torch.float32, layout)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("operator", "formula", "shapes"), CASES[1::4], ids=case_id)
def test_nothing_beyond_the_tensors_in_halves(
    operator: Callable[..., Any], formula: Callable[..., Any], shapes: Shapes, dtype: torch.dtype
) -> None:
    check(operator, formula, shapes, dtype, "rows")


def check(
    operator: Callable[..., Any], formula: Callable[..., Any], shapes: Shapes, dtype: torch.dtype, layout: str
) -> None:
    guards = Guards()
    tensors = {name: tensor.to(dtype) for name, tensor in random_tensors(**shapes).items()}
    inside = {}
    for name, tensor in tensors.items():
        columns = layout == "columns" and tensor.ndim > 2 and name != "temperature"
        inside[name] = guards.holding(tensor, tensor.mT.contiguous().mT.stride() if columns else None)
    with guards.allocating():
        actual = run(lambda **tensors: operator(**tensors, backend="triton"), inside)
    wanted = run(formula, {name: tensor.double() for name, tensor in tensors.items()})
    for results, true_results in zip(actual, wanted, strict=True):
        for result, truth in zip(results, true_results, strict=True):
            assert torch.isfinite(result).all()
            if truth.abs().max() < 1e-9:  # over a single position nothing depends on the logits
                assert result.abs().max() < BOUNDS[dtype]
            else:
                assert relative_rms(result, truth) < BOUNDS[dtype]
