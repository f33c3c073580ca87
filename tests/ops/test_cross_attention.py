"""Attention between positions: its formula, and that no Nq x Nk matrix comes into being."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fusionblocks import ops
from tests.ops.operator_tester import LargestTensor, OperatorTester, random_tensors, relative_rms


def formula(query: Tensor, key: Tensor, value: Tensor, scale: float | None = None) -> Tensor:
    products = torch.einsum("bhnd,bhmd->bhnm", query, key)
    weights = torch.exp(products * (query.shape[-1] ** -0.5 if scale is None else scale))
    return torch.einsum("bhnm,bhme->bhne", weights / weights.sum(-1, keepdim=True), value)


def shapes(batch: int, heads: int, queries: int, keys: int, width: int, value_width: int) -> dict[str, tuple[int, ...]]:
    return {
        "query": (batch, heads, queries, width),
        "key": (batch, heads, keys, width),
        "value": (batch, heads, keys, value_width),
    }


class TestCrossAttention(OperatorTester):
    operator = ops.cross_attention
    formula = formula
    shapes = {
        "ragged": shapes(2, 3, 5, 7, 4, 4),
        "narrow value": shapes(1, 2, 7, 5, 6, 3),
        "wide value": shapes(3, 1, 7, 5, 2, 5),
        "one query": shapes(1, 2, 1, 9, 4, 4),
        "one key": shapes(2, 2, 9, 1, 4, 4),
        "width one": shapes(1, 2, 9, 6, 1, 1),
        "many": shapes(1, 1, 131, 257, 32, 32),
    }

    @pytest.mark.parametrize("scale", [1.0, 0, -0.5, 2])
    def test_scale(self, scale: float) -> None:
        tensors = self.tensors()
        assert relative_rms(ops.cross_attention(**tensors, scale=scale), formula(**tensors, scale=scale)) < 1e-12

    def test_large_logits_pick_the_largest(self) -> None:
        tensors = self.tensors("many")
        out = ops.cross_attention(**{name: tensor.float() for name, tensor in tensors.items()}, scale=1e4)
        winners = (tensors["query"] @ tensors["key"].mT).argmax(-1)
        expected = torch.take_along_dim(tensors["value"], winners[..., None], dim=2)
        assert torch.isfinite(out).all()
        assert relative_rms(out, expected) < 1e-2

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    @pytest.mark.parametrize(("width", "value_width"), [(8, 8), (8, 5), (5, 8), (1, 1), (1, 4)])
    @pytest.mark.parametrize("transposed", [False, True])
    def test_no_matrix_of_positions(self, dtype: torch.dtype, width: int, value_width: int, transposed: bool) -> None:
        positions = 600
        leaves = [
            x.to(dtype) for x in random_tensors(**shapes(1, 2, positions, positions, width, value_width)).values()
        ]
        if transposed:  # the rows of a feature map (B, heads * d, H, W)
            leaves = [x.mT.clone(memory_format=torch.contiguous_format).mT for x in leaves]
        leaves = [x.requires_grad_() for x in leaves]
        with LargestTensor() as largest:
            ops.cross_attention(*leaves).sum().backward()
        assert largest.elements <= 2 * positions * 16

    def test_twenty_thousand_positions(self) -> None:
        query, key, value = torch.randn(3, 1, 1, 20000, 4, generator=torch.Generator().manual_seed(0)).unbind()
        with LargestTensor() as largest:
            out = ops.cross_attention(query, key, value)
        assert largest.elements <= query.numel()
        rows = torch.tensor([0, 7777, 19999])
        assert relative_rms(out[:, :, rows], formula(query[:, :, rows].double(), key.double(), value.double())) < 1e-5

    def test_export_with_any_number_of_positions(self) -> None:
        class Attend(torch.nn.Module):
            def forward(self, infrared: Tensor, visible: Tensor) -> Tensor:
                query, key = infrared.flatten(2)[:, None].mT, visible.flatten(2)[:, None].mT
                return ops.cross_attention(query, key, key)

        height, width = torch.export.Dim("height", min=2, max=64), torch.export.Dim("width", min=2, max=64)
        sizes = {2: height, 3: width}
        program = torch.export.export(
            Attend(), (torch.rand(1, 4, 6, 5), torch.rand(1, 4, 6, 5)), dynamic_shapes=(sizes, sizes)
        )
        for size in [(6, 5), (9, 11), (16, 3)]:
            maps = torch.rand(2, 1, 4, *size).unbind()
            torch.testing.assert_close(program.module()(*maps), Attend()(*maps))

    @pytest.mark.parametrize(
        ("name", "shape", "message"),
        [
            ("key", (1, 3, 7, 4), r"key must have B=2 like query of shape \(2, 3, 5, 4\), got key of shape \(1,"),
            ("key", (2, 1, 7, 4), r"key must have heads=3 like query"),
            ("key", (2, 3, 7, 5), r"key must have d=4 like query"),
            ("value", (2, 3, 6, 4), r"value must have Nk=7 like key"),
            ("value", (1, 3, 7, 4), r"value must have B=2 like key"),
            ("value", (2, 1, 7, 4), r"value must have heads=3 like key"),
        ],
    )
    def test_shapes_that_do_not_fit(self, name: str, shape: tuple[int, ...], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            ops.cross_attention(**{**self.tensors(), name: torch.zeros(shape, dtype=torch.float64)})

    def test_wrong_scale(self) -> None:
        for scale in ("1", True, torch.ones(())):
            with pytest.raises(TypeError, match="scale must be a number, got"):
                ops.cross_attention(**self.tensors(), scale=scale)
        for scale in (float("nan"), float("inf")):
            with pytest.raises(ValueError, match="scale must be finite, got"):
                ops.cross_attention(**self.tensors(), scale=scale)
