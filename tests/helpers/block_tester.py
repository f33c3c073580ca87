"""What every block must do; a block's test file inherits it and says how the block is built and fed.

A subclass sets ``build`` (keyword arguments to block), ``variants`` (the keyword sets to try, the paper's first) and
``inputs`` (the tensors of ``forward`` by name for one variant). For a golden case it names ``golden``, the
``layout`` module that converts published keys, and, where names differ, ``golden_names`` (published input to ours)
and ``split`` (the block's result to the case's named outputs).
"""

from __future__ import annotations

from types import ModuleType
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from tests.helpers.golden import FORWARD, GRADIENT, assert_close, cotangent_loss, load_case

SIZES = [(1, 11, 13), (3, 8, 17)]


def flat(result: Any) -> list[Tensor]:
    """Return the tensors of a block's result in order."""
    if isinstance(result, Tensor):
        return [result]
    values = result.values() if isinstance(result, dict) else result
    return [tensor for value in values for tensor in flat(value)]


class BlockTester:
    golden: ClassVar[str | None] = None
    layout: ClassVar[ModuleType | None] = None
    golden_names: ClassVar[dict[str, str]] = {}
    golden_options: ClassVar[dict[str, Any]] = {}
    variants: ClassVar[list[dict[str, Any]]] = [{}]
    sizes: ClassVar[list[tuple[int, int, int]]] = SIZES
    autocast_tolerance: ClassVar[float] = 0.1

    def build(self, **options: Any) -> nn.Module:
        raise NotImplementedError

    def inputs(self, options: dict[str, Any], batch: int, height: int, width: int) -> dict[str, Tensor]:
        raise NotImplementedError

    def split(self, result: Any) -> dict[str, Tensor]:
        return {"out": result}

    def make(self, variant: int = 0, size: tuple[int, int, int] | None = None) -> tuple[nn.Module, dict[str, Tensor]]:
        torch.manual_seed(0)
        options = self.variants[variant]
        block = self.build(**options).eval()
        with torch.no_grad():  # let parameters that start at zero (residual gains, ...) act
            for parameter in block.parameters():
                parameter.add_(0.02 * torch.randn_like(parameter))
        return block, self.inputs(options, *(size or self.sizes[0]))

    def test_equals_the_published_block(self) -> None:
        if self.golden is None:
            pytest.skip("no golden case is published for this block")
        case = load_case(self.golden)
        block = self.build(**self.golden_options).eval()
        block.load_state_dict(self.layout.convert(case.state), strict=True)
        inputs = {
            self.golden_names.get(name, name): tensor.clone().requires_grad_(name in case.gradients)
            for name, tensor in case.inputs.items()
        }
        outputs = self.split(block(**inputs))
        assert outputs.keys() == case.outputs.keys()
        for name, expected in case.outputs.items():
            assert_close(outputs[name], expected, f"{self.golden} output {name}", **FORWARD)
        if case.gradients:
            cotangent_loss(outputs).backward()
        for name, expected in case.gradients.items():
            actual = inputs[self.golden_names.get(name, name)].grad
            assert_close(actual, expected, f"{self.golden} gradient of {name}", **GRADIENT)

    def test_any_width_size_and_batch(self) -> None:
        for variant in range(len(self.variants)):
            for size in self.sizes:
                block, inputs = self.make(variant, size)
                for out in flat(block(**inputs)):
                    assert out.shape[0] == size[0]
                    assert torch.isfinite(out).all()

    def test_batch_equals_single(self) -> None:
        block, inputs = self.make(size=self.sizes[-1])
        whole = flat(block(**inputs))
        last = flat(block(**{name: tensor[-1:] for name, tensor in inputs.items()}))
        for out, single in zip(whole, last, strict=True):
            assert_close(out[-1:], single, "last of the batch", rtol=1e-4, atol=1e-5)

    def test_gradients_reach_every_parameter(self) -> None:
        block, inputs = self.make(size=(2, *self.sizes[-1][1:]))
        block.train()
        inputs = {name: tensor.requires_grad_() for name, tensor in inputs.items()}
        sum((out * torch.randn_like(out)).sum() for out in flat(block(**inputs))).backward()
        for name, tensor in [*block.named_parameters(), *inputs.items()]:
            assert tensor.grad is not None, f"no gradient reaches {name}"
            assert torch.isfinite(tensor.grad).all(), f"gradient of {name} is not finite"

    def test_inputs_stay_unchanged(self) -> None:
        block, inputs = self.make()
        before = {name: tensor.clone() for name, tensor in inputs.items()}
        block.train()(**{name: tensor.repeat(2, *[1] * (tensor.ndim - 1)) for name, tensor in inputs.items()})
        block.eval()(**inputs)
        for name, tensor in inputs.items():
            assert torch.equal(tensor, before[name]), f"{name} was modified"

    def test_autocast_bfloat16(self) -> None:
        block, inputs = self.make()
        exact = flat(block(**inputs))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rough = flat(block(**inputs))
        for out, reference in zip(rough, exact, strict=True):
            error = (out.float() - reference).square().mean().sqrt() / reference.square().mean().sqrt()
            assert error < self.autocast_tolerance, f"relative error under bfloat16 autocast is {error:.3f}"

    def test_channels_last(self) -> None:
        block, inputs = self.make()
        expected = flat(block(**inputs))
        block = block.to(memory_format=torch.channels_last)
        inputs = {
            name: tensor.to(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor
            for name, tensor in inputs.items()
        }
        for out, reference in zip(flat(block(**inputs)), expected, strict=True):
            assert_close(out, reference, "channels-last output", rtol=1e-4, atol=1e-5)

    def test_compiles_without_graph_break(self) -> None:
        torch.compiler.reset()
        block, inputs = self.make()
        compiled = torch.compile(block, fullgraph=True, backend="aot_eager")
        for out, reference in zip(flat(compiled(**inputs)), flat(block(**inputs)), strict=True):
            assert_close(out, reference, "compiled output", rtol=1e-4, atol=1e-5)

    def test_exports(self) -> None:
        block, inputs = self.make()
        program = torch.export.export(block, (), kwargs=inputs)
        for out, reference in zip(flat(program.module()(**inputs)), flat(block(**inputs)), strict=True):
            assert_close(out, reference, "exported output", rtol=1e-4, atol=1e-5)

    def test_refuses_wrong_inputs_by_name(self) -> None:
        block, inputs = self.make()
        for name, tensor in inputs.items():
            with pytest.raises((ValueError, TypeError), match=name):
                block(**{**inputs, name: tensor[..., 0]})
            if tensor.ndim == 4:
                with pytest.raises((ValueError, TypeError), match=name):
                    block(**{**inputs, name: torch.cat([tensor, tensor], dim=1)})
