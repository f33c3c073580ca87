"""Two attentions that share one key."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fusionblocks import ops
from tests.ops.operator_tester import LargestTensor, OperatorTester, random_tensors, relative_rms


def formula(
    query_a: Tensor, query_b: Tensor, key: Tensor, value_a: Tensor, value_b: Tensor, scale: float | None = None
) -> tuple[Tensor, Tensor]:
    factor = query_a.shape[-1] ** -0.5 if scale is None else scale
    results = []
    for query, value in ((query_a, value_a), (query_b, value_b)):
        weights = torch.exp(factor * torch.einsum("bhnd,bhmd->bhnm", query, key))
        results.append(torch.einsum("bhnm,bhme->bhne", weights / weights.sum(-1, keepdim=True), value))
    return results[0], results[1]


def shapes(batch: int, heads: int, queries: int, keys: int, width: int, value_width: int) -> dict[str, tuple[int, ...]]:
    query, value = (batch, heads, queries, width), (batch, heads, keys, value_width)
    return {"query_a": query, "query_b": query, "key": (batch, heads, keys, width), "value_a": value, "value_b": value}


class TestDualCrossAttention(OperatorTester):
    operator = ops.dual_cross_attention
    formula = formula
    shapes = {
        "ragged": shapes(2, 2, 5, 7, 3, 3),
        "wide value": shapes(1, 1, 7, 5, 2, 5),
        "one query": shapes(3, 1, 1, 9, 4, 4),
        "one key": shapes(1, 2, 9, 1, 4, 4),
        "many": shapes(1, 1, 131, 257, 16, 16),
    }

    def test_scale(self) -> None:
        tensors = self.tensors()
        for out, expected in zip(
            ops.dual_cross_attention(**tensors, scale=1.0), formula(**tensors, scale=1.0), strict=True
        ):
            assert relative_rms(out, expected) < 1e-12

    def test_streams_stay_apart(self) -> None:
        tensors = self.tensors()
        out_a, out_b = ops.dual_cross_attention(**tensors)
        tensors["query_b"] = tensors["query_b"] + 1
        tensors["value_b"] = tensors["value_b"] * 2
        other_a, other_b = ops.dual_cross_attention(**tensors)
        assert torch.equal(out_a, other_a)
        assert not torch.allclose(out_b, other_b)

    def test_no_matrix_of_positions(self) -> None:
        positions = 600
        tensors = random_tensors(**shapes(1, 1, positions, positions, 16, 32))
        leaves = [tensor.float().mT.contiguous().mT.requires_grad_() for tensor in tensors.values()]
        with LargestTensor() as largest:
            sum(out.sum() for out in ops.dual_cross_attention(*leaves)).backward()
        assert largest.elements <= positions * 32

    @pytest.mark.parametrize(
        ("name", "shape", "message"),
        [
            ("query_b", (2, 2, 6, 3), "query_b must have Nq=5 like query_a"),
            ("query_b", (2, 2, 5, 4), "query_b must have d=3 like query_a"),
            ("key", (2, 1, 7, 3), "key must have heads=2 like query_a"),
            ("value_a", (2, 2, 6, 3), "value_a must have Nk=7 like key"),
            ("value_b", (2, 2, 7, 4), "value_b must have dv=3 like value_a"),
        ],
    )
    def test_shapes_that_do_not_fit(self, name: str, shape: tuple[int, ...], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            ops.dual_cross_attention(**{**self.tensors(), name: torch.zeros(shape, dtype=torch.float64)})

    def test_wrong_scale(self) -> None:
        with pytest.raises(TypeError, match="scale must be a number, got .* of type str"):
            ops.dual_cross_attention(**self.tensors(), scale="1")
