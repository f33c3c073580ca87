"""Pixels that ask tokens through folded projections, the single token, and the registered operators."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from fusionblocks import ops
from fusionblocks.ops.folded_token_attention import binding
from tests.ops.operator_tester import (
    LargestTensor,
    OperatorTester,
    random_tensors,
    relative_rms,
)

Shape = tuple[int, ...]


def formula(image: Tensor, key: Tensor, value: Tensor, bias: Tensor | None = None, residual: bool = False) -> Tensor:
    logits = torch.einsum("bcn,bhtc->bhtn", image, key)
    weights = torch.exp(logits if bias is None else logits + bias[..., None])
    answer = torch.einsum("bhtn,bhte->ben", weights / weights.sum(2, keepdim=True), value)
    return answer + image if residual else answer


def shapes(batch: int, heads: int, tokens: int, width: int, value_width: int, pixels: int) -> dict[str, Shape]:
    return {
        "image": (batch, width, pixels),
        "key": (batch, heads, tokens, width),
        "value": (batch, heads, tokens, value_width),
    }


class TestFoldedTokenAttention(OperatorTester):
    operator = ops.folded_token_attention
    formula = formula
    shapes = {
        "two heads": shapes(2, 2, 3, 4, 5, 7),
        "one head": shapes(1, 1, 4, 3, 3, 9),
        "single token": shapes(2, 2, 1, 4, 3, 5),
        "many": shapes(1, 3, 7, 8, 8, 1001),
    }

    @pytest.mark.parametrize("tokens", [1, 3])
    def test_bias_and_residual(self, tokens: int) -> None:
        tensors = random_tensors(**shapes(2, 2, tokens, 4, 4, 7), bias=(2, 2, tokens))
        for residual in (False, True):
            out = ops.folded_token_attention(**tensors, residual=residual)
            assert relative_rms(out, formula(**tensors, residual=residual)) < 1e-12
            assert torch.autograd.gradcheck(
                lambda *values, residual=residual: ops.folded_token_attention(*values, residual=residual),
                tuple(tensor.clone().requires_grad_() for tensor in tensors.values()),
            )

    def test_single_token_is_the_sum_of_its_values_and_asks_nothing(self) -> None:
        tensors = random_tensors(**shapes(2, 2, 1, 4, 3, 9), bias=(2, 2, 1))
        broken = {name: torch.full_like(tensor, torch.nan) for name, tensor in tensors.items() if name != "value"}
        out = ops.folded_token_attention(**{**tensors, **broken})
        assert torch.equal(out, tensors["value"].sum(1).mT.expand(2, 3, 9))
        leaves = {name: tensor.requires_grad_() for name, tensor in tensors.items()}
        ops.folded_token_attention(**leaves).sum().backward()
        for name in ("image", "key", "bias"):
            assert torch.count_nonzero(leaves[name].grad) == 0
        torch.testing.assert_close(leaves["value"].grad, torch.full((2, 2, 1, 3), 9.0, dtype=torch.float64))

    def test_no_query_and_no_answer_of_a_head(self) -> None:
        tensors = random_tensors(**shapes(1, 4, 2, 32, 32, 500))
        with LargestTensor() as largest:
            ops.folded_token_attention(**tensors, residual=True)
        assert largest.elements == 32 * 500

    def test_wrong_arguments(self) -> None:
        tensors = random_tensors(**shapes(2, 2, 3, 4, 5, 7), bias=(2, 2, 3))
        for name, shape, message in (
            ("key", (1, 2, 3, 4), r"key must have B=2 like image of shape \(2, 4, 7\), got key of shape \(1,"),
            ("key", (2, 2, 3, 6), "key must have C=4 like image"),
            ("key", (2, 2, 0, 4), "key must have at least one token"),
            ("value", (2, 3, 3, 5), "value must have heads=2 like key"),
            ("value", (2, 2, 4, 5), "value must have T=3 like key"),
            ("bias", (2, 2, 4), "bias must have T=3 like key"),
            ("bias", (2, 2), r"bias must have shape \(B, heads, T\), got"),
        ):
            with pytest.raises(ValueError, match=message):
                ops.folded_token_attention(**{**tensors, name: torch.zeros(shape, dtype=torch.float64)})
        with pytest.raises(ValueError, match="value must have C_out=4 like the C of image"):
            ops.folded_token_attention(**tensors, residual=True)
        with pytest.raises(TypeError, match="residual must be a bool, got int"):
            ops.folded_token_attention(**tensors, residual=1)
        with pytest.raises(TypeError, match="bias must have the dtype of image"):
            ops.folded_token_attention(**{**tensors, "bias": tensors["bias"].float()})
        with pytest.raises(TypeError, match="bias must be a tensor of shape"):
            ops.folded_token_attention(**{**tensors, "bias": 1.0})

    def test_triton_on_the_cpu_is_refused(self) -> None:
        tensors = self.tensors()
        with pytest.raises(RuntimeError, match="folded_token_attention cannot run on the backend 'triton'"):
            ops.folded_token_attention(**tensors, backend="triton")


class TestRegistered:
    """The operators of the Triton backend, by their CPU stand-ins."""

    @pytest.fixture(params=["contiguous", "channels_last"])
    def arguments(self, request: pytest.FixtureRequest) -> tuple[Any, ...]:
        tensors = random_tensors(image=(2, 2, 4, 5), key=(2, 2, 3, 2, 4), value=(2, 2, 3, 2, 4), bias=(2, 2, 3, 2))
        if request.param == "channels_last":
            tensors["image"] = tensors["image"].mT.contiguous().mT
        return (*(tensor.requires_grad_() for tensor in tensors.values()), 0.7, True)

    def test_opcheck_and_gradcheck(self, arguments: tuple[Any, ...]) -> None:
        torch.library.opcheck(binding.forward_op, arguments)
        torch.library.opcheck(binding.forward_op, (*arguments[:3], None, 0.7, False))
        assert torch.autograd.gradcheck(binding.forward_op, arguments)
        detached = tuple(x.detach() if isinstance(x, Tensor) else x for x in arguments)
        gradient = torch.randn_like(binding.forward_op(*detached))
        torch.library.opcheck(binding.backward_op, (gradient, *detached))

    def test_result_is_laid_out_as_the_map(self, arguments: tuple[Any, ...]) -> None:
        assert binding.forward_op(*arguments).stride() == arguments[0].stride()

    def test_the_backend_equals_the_reference(self) -> None:
        tensors = random_tensors(**shapes(2, 2, 3, 4, 4, 7), bias=(2, 2, 3))
        for residual in (False, True):
            out = binding.folded_token_attention(**tensors, residual=residual)
            assert relative_rms(out, formula(**tensors, residual=residual)) < 1e-12

    def test_compiles_and_exports(self) -> None:
        tensors = {name: x.float() for name, x in random_tensors(**shapes(2, 2, 3, 4, 4, 7), bias=(2, 2, 3)).items()}
        torch.compiler.reset()
        run = binding.folded_token_attention
        compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
        gradients = []
        for function in (run, compiled):
            leaves = [tensor.clone().requires_grad_() for tensor in tensors.values()]
            gradients.append(torch.autograd.grad(function(*leaves, residual=True).square().sum(), leaves))
        torch.testing.assert_close(gradients[1], gradients[0])

        class Attend(torch.nn.Module):
            def forward(self, image: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
                return run(image, key, value, bias)

        program = torch.export.export(Attend(), tuple(tensors.values()))
        targets = [node.target for node in program.graph.nodes]
        assert torch.ops.fusionblocks.folded_token_attention_forward.default in targets
        torch.testing.assert_close(program.module()(*tensors.values()), run(**tensors))

    def test_reasons_of_refusal(self) -> None:
        assert binding.refuse_sizes(128, 512, 512) is None
        assert binding.refuse_sizes(129, 8, 8) == "129 tokens are more than 128"
        assert binding.refuse_sizes(2, 8, 513) == "a width of 513 is more than 512"
