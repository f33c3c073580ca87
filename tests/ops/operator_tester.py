"""What every operator must do; an operator's test file inherits it and says its formula and its inputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from fusionblocks import ops

Shape = tuple[int, ...]

# what ``ops.explain`` says of the kernels where Triton compiles them
ON_CPU = "tensors are on cpu, which the kernels serve where TRITON_INTERPRET=1"

# relative RMS error against the formula in float64, forward and gradients
BOUNDS = {torch.float64: 1e-12, torch.float32: 3e-6, torch.float16: 2e-3, torch.bfloat16: 2e-2}
DTYPES = pytest.mark.parametrize("dtype", BOUNDS, ids=lambda dtype: str(dtype).removeprefix("torch."))


def random_tensors(seed: int = 0, **shapes: Shape) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator, dtype=torch.float64) for name, shape in shapes.items()}


def relative_rms(actual: Tensor, expected: Tensor) -> float:
    assert actual.shape == expected.shape
    error = (actual.double() - expected.double()).square().mean().sqrt()
    return (error / expected.double().square().mean().sqrt().clamp_min(1e-30)).item()


def as_tuple(result: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (result,) if isinstance(result, Tensor) else result


def backpropagate(function: Callable[..., Any], tensors: dict[str, Tensor]) -> tuple[tuple[Tensor, ...], list[Tensor]]:
    """Return the results and the gradient of each input for fixed random cotangents."""
    leaves = {name: tensor.detach().clone().requires_grad_() for name, tensor in tensors.items()}
    results = as_tuple(function(**leaves))
    cotangents = random_tensors(7, **{str(i): tuple(out.shape) for i, out in enumerate(results)})
    sum((out.double() * cotangents[str(i)]).sum() for i, out in enumerate(results)).backward()
    assert all(leaf.grad is not None for leaf in leaves.values())
    return tuple(out.detach() for out in results), [leaf.grad for leaf in leaves.values()]


class LargestTensor(TorchDispatchMode):
    """Records the number of elements of the largest tensor that any operation returns."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = function(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(tensor, Tensor):
                self.elements = max(self.elements, tensor.numel())
        return result


class OperatorTester:
    operator: ClassVar[Callable[..., Any]]
    formula: ClassVar[Callable[..., Any]]  # the definition, on float64 tensors
    shapes: ClassVar[dict[str, dict[str, Shape]]]  # case to the shapes of the arguments
    uncast: ClassVar[set[str]] = set()  # arguments that autocast leaves alone

    def tensors(self, case: str | None = None) -> dict[str, Tensor]:
        return random_tensors(**self.shapes[case or next(iter(self.shapes))])

    def run(self, **tensors: Tensor) -> Any:
        return type(self).operator(**tensors)

    def expected(self, **tensors: Tensor) -> Any:
        return type(self).formula(**{name: tensor.double() for name, tensor in tensors.items()})

    def compare(self, tensors: dict[str, Tensor], bound: float) -> None:
        results, gradients = backpropagate(self.run, tensors)
        true_results, true_gradients = backpropagate(
            self.expected, {name: tensor.double() for name, tensor in tensors.items()}
        )
        for result, true_result in zip(results, true_results, strict=True):
            assert relative_rms(result, true_result) < bound
        for name, gradient, true_gradient in zip(tensors, gradients, true_gradients, strict=True):
            if true_gradient.abs().max() < 1e-9:  # constant in this input, as over a single position
                assert gradient.abs().max() < bound, f"gradient of {name}"
            else:
                assert relative_rms(gradient, true_gradient) < 2 * bound, f"gradient of {name}"

    @DTYPES
    def test_equals_the_formula(self, dtype: torch.dtype) -> None:
        for case in self.shapes:
            tensors = {name: tensor.to(dtype) for name, tensor in self.tensors(case).items()}
            for out in as_tuple(self.run(**tensors)):
                assert out.dtype == dtype, case
            self.compare(tensors, BOUNDS[dtype])

    def test_gradcheck(self) -> None:
        for case, shapes in self.shapes.items():
            if max(torch.Size(shape).numel() for shape in shapes.values()) > 300:
                continue
            tensors = {name: tensor.requires_grad_() for name, tensor in self.tensors(case).items()}
            assert torch.autograd.gradcheck(
                lambda *values, names=tuple(tensors): self.run(**dict(zip(names, values, strict=True))),
                tuple(tensors.values()),
            ), case

    @pytest.mark.parametrize("layout", ["transposed", "strided", "head_last"])
    def test_any_strides(self, layout: str) -> None:
        def laid_out(tensor: Tensor) -> Tensor:
            if layout == "transposed":
                other = tensor.transpose(-1, -2).contiguous().transpose(-1, -2)
            elif layout == "strided":
                other = torch.stack([tensor, torch.full_like(tensor, torch.nan)], dim=-1)[..., 0]
            else:
                other = tensor.movedim(0, -1).contiguous().movedim(-1, 0)
            assert torch.equal(other, tensor)
            return other

        tensors = self.tensors()
        wanted = as_tuple(self.run(**tensors))
        for out, expected in zip(
            as_tuple(self.run(**{name: laid_out(tensor) for name, tensor in tensors.items()})), wanted, strict=True
        ):
            assert relative_rms(out, expected) < 1e-12

    def test_inputs_stay_unchanged(self) -> None:
        tensors = self.tensors()
        before = {name: tensor.clone() for name, tensor in tensors.items()}
        backpropagate(self.run, tensors)
        for out in as_tuple(self.run(**tensors)):
            out.zero_()  # the result is the caller's own memory
        for name, tensor in tensors.items():
            assert torch.equal(tensor, before[name]), name

    def test_only_the_gradients_asked_for(self) -> None:
        tensors = {name: tensor.float() for name, tensor in self.tensors().items()}
        for wanted in tensors:
            leaves = {name: tensor.clone().requires_grad_(name == wanted) for name, tensor in tensors.items()}
            sum(out.sum() for out in as_tuple(self.run(**leaves))).backward()
            for name, leaf in leaves.items():
                assert (leaf.grad is not None) == (name == wanted)

    # compiling and exporting

    def test_compiles_without_a_graph_break(self) -> None:
        tensors = {name: tensor.float() for name, tensor in self.tensors().items()}
        torch.compiler.reset()
        compiled = torch.compile(self.run, fullgraph=True, backend="aot_eager")
        eager_results, eager_gradients = backpropagate(self.run, tensors)
        results, gradients = backpropagate(compiled, tensors)
        for actual, wanted in zip([*results, *gradients], [*eager_results, *eager_gradients], strict=True):
            torch.testing.assert_close(actual, wanted)

    def test_compiles_under_autocast(self) -> None:
        tensors = {name: tensor.float() for name, tensor in self.tensors().items()}
        torch.compiler.reset()
        compiled = torch.compile(self.run, fullgraph=True, backend="aot_eager")
        with torch.autocast("cpu", torch.bfloat16):
            results, wanted = as_tuple(compiled(**tensors)), as_tuple(self.run(**tensors))
        for out, eager in zip(results, wanted, strict=True):
            assert out.dtype == torch.bfloat16
            torch.testing.assert_close(out, eager)

    def test_exports(self) -> None:
        tensors = {name: tensor.float() for name, tensor in self.tensors().items()}
        run = self.run

        class Wrapped(nn.Module):
            def forward(self, **tensors: Tensor) -> Any:
                return run(**tensors)

        program = torch.export.export(Wrapped().eval(), (), tensors)
        for out, wanted in zip(as_tuple(program.module()(**tensors)), as_tuple(run(**tensors)), strict=True):
            torch.testing.assert_close(out, wanted)

    # dtypes

    def test_autocast_casts_mixed_dtypes(self) -> None:
        tensors = {name: tensor.float() for name, tensor in self.tensors().items()}
        first, *_ = tensors
        with torch.autocast("cpu", torch.bfloat16):
            results = as_tuple(self.run(**{**tensors, first: tensors[first].bfloat16()}))
        rounded = {
            name: tensor if name in self.uncast else tensor.bfloat16().float() for name, tensor in tensors.items()
        }
        for out, wanted in zip(results, as_tuple(self.expected(**rounded)), strict=True):
            assert out.dtype == torch.bfloat16
            assert relative_rms(out, wanted) < BOUNDS[torch.bfloat16]

    def test_autocast_leaves_float64_alone(self) -> None:
        tensors = self.tensors()
        with torch.autocast("cpu", torch.bfloat16):
            results = as_tuple(self.run(**tensors))
        for out, wanted in zip(results, as_tuple(self.expected(**tensors)), strict=True):
            assert out.dtype == torch.float64
            assert relative_rms(out, wanted) < 1e-12

    def test_mixed_dtypes_raise(self) -> None:
        tensors = {name: tensor.float() for name, tensor in self.tensors().items()}
        for name in list(tensors)[1:]:
            with pytest.raises(TypeError, match=rf"^{name} .*torch\.float32.* got torch\.float64"):
                self.run(**{**tensors, name: tensors[name].double()})

    def test_mixed_devices_raise(self) -> None:
        tensors = self.tensors()
        for name in list(tensors)[1:]:
            with pytest.raises(ValueError, match=rf"^{name} .*cpu, got meta"):
                self.run(**{**tensors, name: tensors[name].to("meta")})

    def test_integers_and_non_tensors_raise(self) -> None:
        tensors = self.tensors()
        for name in tensors:
            with pytest.raises(TypeError, match=rf"^{name} must be .*got torch\.int64"):
                self.run(**{**tensors, name: tensors[name].long()})
            with pytest.raises(TypeError, match=rf"^{name} must be a tensor of shape .*got list"):
                self.run(**{**tensors, name: tensors[name].tolist()})

    def test_wrong_rank_raises(self) -> None:
        tensors = self.tensors()
        for name in tensors:
            with pytest.raises(ValueError, match=rf"^{name} must have shape .* got \("):
                self.run(**{**tensors, name: tensors[name][None]})

    def test_runs_on_meta_tensors(self) -> None:
        tensors = self.tensors()
        for out, meta in zip(
            as_tuple(self.run(**tensors)),
            as_tuple(self.run(**{name: tensor.to("meta") for name, tensor in tensors.items()})),
            strict=True,
        ):
            assert (meta.shape, meta.dtype) == (out.shape, out.dtype)

    # backends

    def test_torch_is_the_backend_of_today(self) -> None:
        tensors = self.tensors()
        plain = as_tuple(self.run(**tensors))
        for name in ("torch", "auto"):
            for out, wanted in zip(as_tuple(type(self).operator(**tensors, backend=name)), plain, strict=True):
                assert torch.equal(out, wanted)

    def test_unknown_backend_raises(self) -> None:
        with pytest.raises(ValueError, match=r"^backend must be one of torch, sdpa, triton, auto, got 'cuda'"):
            type(self).operator(**self.tensors(), backend="cuda")

    def test_backend_settings_reach_the_operator(self, monkeypatch: pytest.MonkeyPatch) -> None:
        tensors = self.tensors()
        monkeypatch.setenv("FUSIONBLOCKS_BACKEND", "nonsense")
        with pytest.raises(ValueError, match="environment variable FUSIONBLOCKS_BACKEND .*got 'nonsense'"):
            self.run(**tensors)
        with ops.backend("torch"):
            self.run(**tensors)
