"""Attention between pixels and a few tokens, in both directions, and its collapse over a single token."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fusionblocks import ops
from fusionblocks.ops.token_attention import binding
from tests.ops.operator_tester import (
    LargestTensor,
    OperatorTester,
    random_tensors,
    relative_rms,
)


def formula(query: Tensor, key: Tensor, value: Tensor, scale: float | None = None) -> Tensor:
    weights = torch.exp((query.shape[-1] ** -0.5 if scale is None else scale) * query @ key.mT)
    return (weights / weights.sum(-1, keepdim=True)) @ value


def shapes(batch: int, heads: int, queries: int, keys: int, width: int, value_width: int) -> dict[str, tuple[int, ...]]:
    return {
        "query": (batch, heads, queries, width),
        "key": (batch, heads, keys, width),
        "value": (batch, heads, keys, value_width),
    }


class TestTokenAttention(OperatorTester):
    operator = ops.token_attention
    formula = formula
    shapes = {
        "pixels ask tokens": shapes(2, 2, 7, 3, 4, 4),
        "tokens ask pixels": shapes(2, 2, 3, 7, 4, 5),
        "single token": shapes(2, 2, 9, 1, 4, 3),
        "single token asks": shapes(1, 2, 1, 9, 4, 4),
        "many": shapes(1, 2, 1001, 7, 8, 8),
    }

    def test_few_queries_differentiate_twice(self) -> None:
        inputs = [x.float().requires_grad_() for x in self.tensors("tokens ask pixels").values()]
        doubles = [x.detach().double().requires_grad_() for x in inputs]

        def second(function, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            (first,) = torch.autograd.grad(function(query, key, value).square().sum(), query, create_graph=True)
            return torch.autograd.grad(first.square().sum(), key)[0]

        assert relative_rms(second(ops.token_attention, *inputs), second(formula, *doubles)) < 1e-5
        with torch.no_grad():
            assert relative_rms(ops.token_attention(*inputs), formula(*doubles)) < 1e-6

    def test_scale(self) -> None:
        tensors = self.tensors()
        assert relative_rms(ops.token_attention(**tensors, scale=2), formula(**tensors, scale=2)) < 1e-12


class TestSingleToken(OperatorTester):
    operator = ops.token_attention
    formula = formula
    shapes = {"pixels": shapes(2, 2, 9, 1, 4, 3), "tokens": shapes(1, 1, 1, 1, 4, 4)}

    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
    def test_is_the_value_exactly(self, dtype: torch.dtype) -> None:
        tensors = {name: tensor.to(dtype) for name, tensor in self.tensors().items()}
        out = ops.token_attention(**tensors)
        assert torch.equal(out, tensors["value"].expand(2, 2, 9, 3))

    def test_neither_query_nor_key_is_read(self) -> None:
        tensors = self.tensors()
        tensors["query"] = torch.full_like(tensors["query"], torch.nan)
        tensors["key"] = torch.full_like(tensors["key"], torch.inf)
        assert torch.equal(ops.token_attention(**tensors), tensors["value"].expand(2, 2, 9, 3))

    def test_gradients_of_query_and_key_are_exact_zeros(self) -> None:
        leaves = {name: tensor.requires_grad_() for name, tensor in self.tensors().items()}
        out = ops.token_attention(**leaves)
        cotangent = random_tensors(cotangent=tuple(out.shape))["cotangent"]
        out.backward(cotangent)
        assert torch.equal(leaves["query"].grad, torch.zeros(2, 2, 9, 4, dtype=torch.float64))
        assert torch.equal(leaves["key"].grad, torch.zeros(2, 2, 1, 4, dtype=torch.float64))
        torch.testing.assert_close(leaves["value"].grad, cotangent.sum(2, keepdim=True))

    def test_costs_only_the_result(self) -> None:
        tensors = random_tensors(**shapes(1, 2, 5000, 1, 32, 8))
        with LargestTensor() as largest:
            ops.token_attention(**tensors)
        assert largest.elements == 2 * 5000 * 8

    def test_inductor(self) -> None:
        torch.compiler.reset()
        leaves = {name: tensor.float().requires_grad_() for name, tensor in self.tensors().items()}
        out = torch.compile(ops.token_attention, fullgraph=True)(**leaves)
        out.sum().backward()
        assert torch.equal(out, leaves["value"].expand(2, 2, 9, 3))
        assert torch.equal(leaves["query"].grad, torch.zeros(2, 2, 9, 4))
        torch.testing.assert_close(leaves["value"].grad, torch.full((2, 2, 1, 3), 9.0))


class TestRegistered:
    """The operators of the Triton backend, by their CPU stand-ins."""

    @pytest.mark.parametrize("shared", [False, True])
    def test_opcheck_and_gradcheck(self, shared: bool) -> None:
        tensors = random_tensors(query=(2, 2, 3, 4), key=(2, 2, 4, 9), value=(2, 2, 5, 9))
        query, key, value = (tensor.requires_grad_() for tensor in tensors.values())
        value = key if shared else value
        torch.library.opcheck(binding.forward_op, (query, key, value, 0.7))
        assert torch.autograd.gradcheck(lambda *x: binding.forward_op(*x, 0.7)[0], (query, key, value))
        detached = (query.detach(), key.detach(), value.detach())
        answer, denominator = binding.forward_op(*detached, 0.7)
        arguments = (torch.randn_like(answer), *detached, answer, denominator, 0.7)
        torch.library.opcheck(binding.backward_op, arguments)

    @pytest.mark.parametrize("case", [shapes(2, 2, 7, 3, 4, 5), shapes(1, 2, 3, 150, 4, 4), shapes(1, 1, 150, 9, 4, 5)])
    def test_the_backend_equals_the_formula(self, case: dict[str, tuple[int, ...]]) -> None:
        tensors = random_tensors(**case)
        for scale in (None, 2):
            out = binding.token_attention(**tensors, scale=scale)
            assert relative_rms(out, formula(**tensors, scale=scale)) < 1e-12

    @pytest.mark.parametrize("case", [shapes(2, 2, 7, 3, 4, 5), shapes(1, 2, 3, 150, 4, 4)])
    def test_compiles_and_exports(self, case: dict[str, tuple[int, ...]]) -> None:
        tensors = {name: tensor.float() for name, tensor in random_tensors(**case).items()}
        torch.compiler.reset()
        run = binding.token_attention
        gradients = []
        for function in (run, torch.compile(run, fullgraph=True, backend="aot_eager")):
            leaves = [tensor.clone().requires_grad_() for tensor in tensors.values()]
            gradients.append(torch.autograd.grad(function(*leaves).square().sum(), leaves))
        torch.testing.assert_close(gradients[1], gradients[0])

        class Attend(torch.nn.Module):
            def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
                return run(query, key, value)

        program = torch.export.export(Attend(), tuple(tensors.values()))
        torch.testing.assert_close(program.module()(*tensors.values()), run(**tensors))


class TestFewQueries:
    def test_the_maps_are_taken_as_they_lie(self) -> None:
        pixels = torch.rand(1, 1, 16, 2000).mT
        with LargestTensor() as largest:
            ops.token_attention(torch.rand(1, 1, 4, 16), pixels, pixels)
        assert largest.elements == pixels.numel()  # a view; no second map

    def test_weights_stay_below_the_maps(self) -> None:
        pixels = torch.rand(1, 1, 700, 16)
        with LargestTensor() as largest:
            ops.token_attention(torch.rand(1, 1, 600, 16), pixels, pixels)
        assert largest.elements <= pixels.numel()
