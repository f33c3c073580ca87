"""The kernels of attention between channels: in the interpreter or on a GPU, and registered."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from fusionblocks import ops
from fusionblocks.ops.channel_attention import binding, reference
from tests.ops.operator_tester import ON_CPU, random_tensors, relative_rms
from tests.ops.test_channel_attention import formula, projected_formula

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
BOUNDS = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1e-2}
DTYPES = pytest.mark.parametrize("dtype", BOUNDS, ids=lambda dtype: str(dtype).removeprefix("torch."))
DEVICES = [
    pytest.param(
        "cpu",
        marks=[pytest.mark.kernel, pytest.mark.skipif(not INTERPRETED, reason="needs TRITON_INTERPRET=1")],
    ),
    pytest.param(
        "cuda", marks=[pytest.mark.gpu, pytest.mark.skipif(INTERPRETED, reason="Triton interprets its kernels")]
    ),
]
# batch, heads, channels, positions, outputs of the projection
SIZES = {
    "ragged": (2, 3, 4, 37, None),
    "one position": (1, 2, 3, 1, None),
    "one channel": (1, 2, 1, 9, None),
    "several splits": (1, 2, 8, 1100, None),
    "sixteen": (1, 1, 16, 161, None),
    "tiles": (1, 2, 24, 301, None),
    "widest": (1, 1, 64, 65, None),
    "small projection": (2, 2, 5, 131, 7),
    "projection": (1, 3, 8, 131, 20),
    "projection of several tiles": (2, 3, 24, 67, 70),
}

Inputs = dict[str, Tensor]


def draw(size: tuple[int, int, int, int, int | None], dtype: torch.dtype, device: str) -> Inputs:
    batch, heads, channels, positions, outputs = size
    shapes = dict.fromkeys(("query", "key", "value"), (batch, heads, channels, positions))
    shapes["temperature"] = (heads, 1, 1)
    if outputs is not None:
        shapes["projection"] = (outputs, heads * channels)
    tensors = {name: tensor.to(device, dtype) for name, tensor in random_tensors(**shapes).items()}
    return {**tensors, "temperature": tensors["temperature"].float()}


def cotangent(inputs: Inputs) -> Tensor:
    value, projection = inputs["value"], inputs.get("projection")
    shape = value.shape if projection is None else (value.shape[0], projection.shape[0], value.shape[-1])
    return random_tensors(9, grad=tuple(shape))["grad"].to(value)


def run(inputs: Inputs, grad: Tensor | None = None) -> dict[str, Tensor]:
    """Return the output and the gradients that the kernels give."""
    arguments = (*(inputs[name] for name in ("query", "key", "value", "temperature")), inputs.get("projection"))
    out, *saved = binding.launch_forward(*arguments)
    gradients = binding.launch_backward(cotangent(inputs) if grad is None else grad, *arguments, *saved)
    return {"out": out, **dict(zip(("query", "key", "value", "temperature", "projection"), gradients, strict=True))}


def truth(inputs: Inputs, grad: Tensor | None = None) -> dict[str, Tensor]:
    """Return the output and the gradients of the formula in float64."""
    leaves = {name: tensor.detach().double().requires_grad_() for name, tensor in inputs.items()}
    out = (projected_formula if "projection" in leaves else formula)(**leaves)
    grad = cotangent(inputs) if grad is None else grad
    gradients = torch.autograd.grad(out, list(leaves.values()), grad.double())
    return {"out": out.detach(), **dict(zip(leaves, gradients, strict=True))}


def compare(inputs: Inputs, grad: Tensor | None = None, bound: float | None = None) -> None:
    bound = BOUNDS[inputs["query"].dtype] if bound is None else bound
    results = run(inputs, grad)
    for name, expected in truth(inputs, grad).items():
        dtype = inputs.get(name, inputs["query"]).dtype
        assert results[name].dtype == dtype, name
        if expected.abs().max() < 1e-9:  # of one channel or one position the logits do not matter
            assert results[name].abs().max() < bound, name
        else:
            assert relative_rms(results[name], expected) < bound, name


def qkv_chunks(inputs: Inputs) -> Inputs:
    """Query, key and value as chunks of one map."""
    names = ("query", "key", "value")
    chunks = torch.cat([inputs[name] for name in names], dim=1).chunk(3, dim=1)
    return {**inputs, **dict(zip(names, chunks, strict=True))}


def laid_out(inputs: Inputs, layout: Callable[[Tensor], Tensor]) -> Inputs:
    return {name: layout(tensor) if tensor.ndim == 4 else tensor for name, tensor in inputs.items()}


def in_nan(tensor: Tensor) -> Tensor:
    """The same numbers in the midst of NaN, so that a read beyond the edge shows."""
    around = torch.full([size + 2 for size in tensor.shape], torch.nan, dtype=tensor.dtype, device=tensor.device)
    inner = around[tuple(slice(1, -1) for _ in tensor.shape)]
    inner.copy_(tensor)
    return inner


LAYOUTS: dict[str, Callable[[Inputs], Inputs]] = {
    "chunks": qkv_chunks,
    "channels_last": lambda inputs: laid_out(inputs, lambda x: x.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)),
    "head_last": lambda inputs: laid_out(inputs, lambda x: x.movedim(1, -1).contiguous().movedim(-1, 1)),
    "in_nan": lambda inputs: (
        {name: in_nan(tensor) for name, tensor in inputs.items() if name != "temperature"}
        | {"temperature": inputs["temperature"]}
    ),
    "strided": lambda inputs: laid_out(inputs, lambda x: torch.stack([x, torch.full_like(x, torch.nan)], -1)[..., 0]),
}


@pytest.fixture
def uninitialised_is_nan() -> Iterator[None]:
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)  # fills what torch.empty and its kin return
    assert torch.empty(3).isnan().all()
    assert torch.empty_like(torch.ones(3)).isnan().all()
    assert torch.ones(3).new_empty(2).isnan().all()
    yield
    torch.use_deterministic_algorithms(before)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.usefixtures("uninitialised_is_nan")
class TestKernels:
    @DTYPES
    @pytest.mark.parametrize("size", SIZES)
    def test_equal_the_formula(self, size: str, dtype: torch.dtype, device: str) -> None:
        compare(draw(SIZES[size], dtype, device))

    @pytest.mark.parametrize("size", ["ragged", "tiles", "small projection", "projection of several tiles"])
    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_any_strides(self, layout: str, size: str, device: str) -> None:
        inputs = draw(SIZES[size], torch.float32, device)
        grad = cotangent(inputs)
        other = LAYOUTS[layout](inputs)
        for name, tensor in inputs.items():
            assert torch.equal(other[name], tensor), name
        if layout == "in_nan":
            grad = in_nan(grad)
        if layout == "channels_last":
            grad = grad.mT.contiguous().mT
        compare(other, grad)

    @pytest.mark.parametrize("size", ["ragged", "tiles", "projection"])
    def test_gradient_of_a_sum(self, size: str, device: str) -> None:
        inputs = draw(SIZES[size], torch.float32, device)
        compare(inputs, torch.ones((), device=device).expand_as(cotangent(inputs)))  # of strides 0

    def test_partial_sums(self, device: str) -> None:
        for dtype, size, splits in (
            (torch.float32, (1, 2, 8, 1100, None), 3),
            (torch.float32, (2, 1, 24, 301, None), 1),  # of tiles the launch returns the total
            (torch.float16, (1, 1, 64, 1100, None), 1),
        ):
            inputs = draw(size, dtype, device)
            query, key = inputs["query"], inputs["key"]
            products, squares = binding._reduce(query, key, merged=False, norms=True)
            assert products.shape[1] == splits
            wanted = (query.double() @ key.double().mT).flatten(0, 1)
            assert relative_rms(products.double().sum(1), wanted) < 1e-6
            wanted = torch.stack([query.double().square().sum(-1), key.double().square().sum(-1)], 2).flatten(0, 1)
            assert relative_rms(squares.double().sum(1), wanted) < 1e-6

    def test_reruns_are_bitwise_equal(self, device: str) -> None:
        for size in ("tiles", "small projection"):
            inputs = draw(SIZES[size], torch.float32, device)
            first, second = run(inputs), run(inputs)
            for name in first:
                assert torch.equal(first[name], second[name]), (size, name)

    @pytest.mark.parametrize("size", ["ragged", "tiles", "small projection"])
    def test_inputs_stay_unchanged(self, size: str, device: str) -> None:
        inputs = draw(SIZES[size], torch.float32, device)
        before = {name: tensor.clone() for name, tensor in inputs.items()}
        run(inputs)
        for name, tensor in inputs.items():
            assert torch.equal(tensor, before[name]), name

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
    @pytest.mark.parametrize("size", ["ragged", "tiles"])
    def test_channels_of_zeros(self, size: str, dtype: torch.dtype, device: str) -> None:
        inputs = draw(SIZES[size], dtype, device)
        inputs["query"][0, 0, 1] = 0
        inputs["key"][-1, 1, 3] = 0
        results, expected = run(inputs), truth(inputs)
        for name, (batch, head, channel) in {"query": (0, 0, 1), "key": (-1, 1, 3)}.items():
            # the norm is held at 1e-12: a huge gradient, or, since that is beyond float16, none
            dark, true_dark = results[name][batch, head, channel].clone(), expected[name][batch, head, channel].clone()
            if dtype == torch.float16:
                assert not dark.any()
            else:
                assert true_dark.abs().max() > 1e6
                assert relative_rms(dark, true_dark) < BOUNDS[dtype]
            results[name][batch, head, channel] = expected[name][batch, head, channel] = 0
        for name, tensor in expected.items():
            assert relative_rms(results[name], tensor) < BOUNDS[dtype], name

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
    def test_a_black_image(self, dtype: torch.dtype, device: str) -> None:
        inputs = draw(SIZES["ragged"], dtype, device)
        for dark in (("query",), ("key",), ("query", "key", "value")):
            black = {name: torch.zeros_like(x) if name in dark else x for name, x in inputs.items()}
            for name, tensor in run(black).items():
                assert torch.isfinite(tensor).all(), (dark, name)

    @DTYPES
    @pytest.mark.parametrize("size", ["ragged", "tiles"])
    def test_large_logits(self, size: str, dtype: torch.dtype, device: str) -> None:
        inputs = draw(SIZES[size], dtype, device)
        inputs["temperature"].fill_(300.0)  # multiplies the rounding of the cosines
        results, expected = run(inputs), truth(inputs)
        leaves = {name: tensor.clone().requires_grad_() for name, tensor in inputs.items()}
        out = reference.channel_attention(**leaves)
        gradients = torch.autograd.grad(out, list(leaves.values()), cotangent(inputs))
        for name, plain in {"out": out.detach(), **dict(zip(leaves, gradients, strict=True))}.items():
            bound = max(BOUNDS[dtype], 2 * relative_rms(plain, expected[name]))  # plain PyTorch's in the same dtype
            assert relative_rms(results[name], expected[name]) < bound, name
        inputs["temperature"].fill_(3e4)
        assert relative_rms(run(inputs)["out"], truth(inputs)["out"]) < BOUNDS[dtype]

    def test_float16_beyond_its_range(self, device: str) -> None:
        inputs = draw((1, 2, 24, 1100, None), torch.float16, device)
        inputs["query"] += 30  # squares sum to a million
        inputs["key"] += 30
        results, expected = run(inputs), truth(inputs)
        assert relative_rms(results["out"], expected["out"]) < BOUNDS[torch.float16]
        assert relative_rms(results["value"], expected["value"]) < BOUNDS[torch.float16]

    def test_float16_matrix_beyond_its_range(self, device: str) -> None:
        inputs = draw((1, 1, 24, 130, 20), torch.float16, device)
        inputs["query"][:] = inputs["key"][:, :, :1]  # every channel asks for channel 0 alone: its column is a sum
        inputs["temperature"].fill_(50.0)
        inputs["projection"][:] = 2e4 + 1e3 * inputs["projection"]
        inputs["value"] *= 1e-3
        expected = truth(inputs)["out"]
        assert expected.abs().max() < 1e4
        names = ("query", "key", "value", "temperature", "projection")
        out = binding.launch_forward(*(inputs[name] for name in names))[0]
        assert relative_rms(out, expected) < BOUNDS[torch.float16]

    def test_sizes_of_channels_may_differ_widely(self, device: str) -> None:
        inputs = draw(SIZES["ragged"], torch.float32, device)
        sizes = torch.logspace(-8, 8, 4, device=device)[:, None]
        inputs["query"], inputs["key"] = inputs["query"] * sizes, inputs["key"] * sizes.flip(0)
        results, expected = run(inputs), truth(inputs)
        for name in ("out", "value", "temperature"):
            assert relative_rms(results[name], expected[name]) < BOUNDS[torch.float32]
        for name in ("query", "key"):  # channel by channel: the largest gradients would hide the others
            for channel in range(4):
                actual, wanted = results[name][:, :, channel], expected[name][:, :, channel]
                assert relative_rms(actual, wanted) < BOUNDS[torch.float32], (name, channel)

    def test_outputs_are_laid_out_as_inputs(self, device: str) -> None:
        for size in ("ragged", "small projection"):
            inputs = LAYOUTS["channels_last"](draw(SIZES[size], torch.float32, device))
            results = run(inputs)
            assert results["out"].stride(-2) == 1
            for name in ("query", "key", "value"):
                assert results[name].stride() == inputs[name].stride(), name

    @pytest.mark.parametrize("size", [(1, 2, 4, 2000, None), (1, 2, 4, 2000, 9)])
    def test_nothing_large_but_the_results(self, size: tuple[int, int, int, int, int | None], device: str) -> None:
        inputs = LAYOUTS["chunks"](draw(size, torch.float32, device))
        arguments = (*(inputs[name] for name in ("query", "key", "value", "temperature")), inputs.get("projection"))
        grad = cotangent(inputs)
        made: set[int] = set()

        class Allocations(TorchDispatchMode):
            def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
                result = function(*args, **(kwargs or {}))
                for x in result if isinstance(result, tuple) else (result,):
                    if isinstance(x, Tensor) and x.untyped_storage().nbytes() > 4000 * x.element_size():
                        made.add(x.untyped_storage().data_ptr())
                return result

        given = {x.untyped_storage().data_ptr() for x in (*arguments, grad) if x is not None}
        with Allocations():
            out, *saved = binding.launch_forward(*arguments)
            gradients = binding.launch_backward(grad, *arguments, *saved)
        assert made - given == {x.untyped_storage().data_ptr() for x in (out, *gradients[:3])}


def attend(**tensors: Tensor) -> Tensor:
    return ops.channel_attention(**tensors, backend="triton")


@pytest.mark.gpu
@pytest.mark.skipif(INTERPRETED, reason="Triton interprets its kernels")
class TestOnTheDevice:
    @DTYPES
    @pytest.mark.parametrize("outputs", [None, 64])
    def test_backend(self, outputs: int | None, dtype: torch.dtype) -> None:
        inputs = draw((2, 8, 8, 4801, outputs), dtype, "cuda")
        leaves = {name: tensor.clone().requires_grad_() for name, tensor in inputs.items()}
        out = attend(**leaves)
        gradients = torch.autograd.grad(out, list(leaves.values()), cotangent(inputs))
        expected = truth(inputs)
        for name, tensor in {"out": out, **dict(zip(leaves, gradients, strict=True))}.items():
            assert relative_rms(tensor, expected[name]) < BOUNDS[dtype], name

    def test_tf32_only_when_allowed(self) -> None:
        inputs = draw((1, 1, 64, 5000, None), torch.float32, "cuda")
        before = torch.get_float32_matmul_precision()
        try:
            errors = {}
            for precision in ("highest", "high"):
                torch.set_float32_matmul_precision(precision)
                errors[precision] = relative_rms(run(inputs)["out"], truth(inputs)["out"])
        finally:
            torch.set_float32_matmul_precision(before)
        assert errors["highest"] < 1e-6
        assert 1e-6 < errors["high"] < 2e-3

    def test_opcheck(self) -> None:
        for size in ("ragged", "tiles", "small projection"):
            inputs = draw(SIZES[size], torch.float32, "cuda")
            leaves = [inputs[name].requires_grad_() for name in ("query", "key", "value", "temperature")]
            torch.library.opcheck(binding.forward_op, (*leaves, inputs.get("projection")))

    def test_compiles_and_autocasts(self) -> None:
        inputs = draw((1, 8, 8, 4801, 64), torch.float32, "cuda")
        torch.compiler.reset()
        compiled = torch.compile(attend, fullgraph=True)
        torch.testing.assert_close(compiled(**inputs), attend(**inputs))
        with torch.autocast("cuda", torch.bfloat16):
            out = attend(**inputs)
        assert out.dtype == torch.bfloat16
        assert relative_rms(out, truth(inputs)["out"]) < 2e-2

    def test_peak_memory(self) -> None:
        inputs = draw((1, 8, 8, 307200, 64), torch.bfloat16, "cuda")
        leaves = {name: tensor.requires_grad_() for name, tensor in inputs.items()}
        attend(**leaves).sum().backward()
        for leaf in leaves.values():
            leaf.grad = None
        size = inputs["value"].numel() * inputs["value"].element_size()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        out = attend(**leaves)
        assert torch.cuda.max_memory_allocated() - before < 1.1 * size
        torch.autograd.backward(out, torch.ones((), dtype=out.dtype, device="cuda").expand_as(out))
        assert torch.cuda.max_memory_allocated() - before < 4.2 * size  # the output and three gradients


def double_inputs(outputs: int | None) -> tuple[Tensor | None, ...]:
    inputs = draw((2, 3, 4, 7, outputs), torch.float64, "cpu")
    inputs["temperature"] = inputs["temperature"].double()
    leaves = {name: tensor.requires_grad_() for name, tensor in inputs.items()}
    return (*(leaves[name] for name in ("query", "key", "value", "temperature")), leaves.get("projection"))


class TestRegistration:
    """The operators of PyTorch, on the CPU, where plain PyTorch stands in for the kernels."""

    @pytest.mark.parametrize("outputs", [None, 5])
    def test_opcheck(self, outputs: int | None) -> None:
        arguments = double_inputs(outputs)
        torch.library.opcheck(binding.forward_op, arguments)
        out, *saved = binding.forward_op(*arguments)
        detached = [x if x is None else x.detach() for x in (torch.ones_like(out), *arguments, *saved)]
        torch.library.opcheck(binding.backward_op, tuple(detached))

    @pytest.mark.parametrize("outputs", [None, 5])
    def test_gradcheck(self, outputs: int | None) -> None:
        assert torch.autograd.gradcheck(binding.channel_attention, double_inputs(outputs))

    @pytest.mark.parametrize("layout", LAYOUTS)
    @pytest.mark.parametrize("outputs", [None, 5])
    def test_layouts_that_tracing_foresees(self, outputs: int | None, layout: str) -> None:
        inputs = LAYOUTS[layout](draw((2, 3, 4, 7, outputs), torch.float32, "cpu"))
        arguments = [inputs.get(name) for name in ("query", "key", "value", "temperature", "projection")]
        out, *saved = binding.forward_op(*arguments)
        assert relative_rms(out, truth(inputs)["out"]) < 1e-6
        grad = torch.ones_like(out)
        real = (out, *saved, *binding.backward_op(grad, *arguments, *saved))
        with FakeTensorMode() as mode:
            fakes = [x if x is None else mode.from_tensor(x) for x in arguments]
            fake_out, *fake_saved = binding.forward_op(*fakes)
            gradients = binding.backward_op(mode.from_tensor(grad), *fakes, *fake_saved)
        for x, fake in zip(real, (fake_out, *fake_saved, *gradients), strict=True):
            assert (x.shape, x.stride(), x.dtype) == (fake.shape, fake.stride(), fake.dtype)

    @pytest.mark.parametrize("outputs", [None, 5])
    def test_equals_the_reference(self, outputs: int | None) -> None:
        arguments = double_inputs(outputs)
        torch.testing.assert_close(binding.channel_attention(*arguments), reference.channel_attention(*arguments))

    @pytest.mark.parametrize("outputs", [None, 5])
    def test_compiles_without_a_graph_break(self, outputs: int | None) -> None:
        torch.compiler.reset()
        arguments = double_inputs(outputs)
        leaves = [x for x in arguments if x is not None]
        compiled = torch.compile(binding.channel_attention, fullgraph=True, backend="aot_eager")
        for function in (compiled, torch.compile(binding.channel_attention, fullgraph=True)):
            out, wanted = function(*arguments), reference.channel_attention(*arguments)
            torch.testing.assert_close(out, wanted)
            gradients = torch.autograd.grad(out.square().sum(), leaves)
            torch.testing.assert_close(gradients, torch.autograd.grad(wanted.square().sum(), leaves))

    def test_exports(self) -> None:
        class Attention(torch.nn.Module):
            def forward(self, query: Tensor, key: Tensor, value: Tensor, temperature: Tensor) -> Tensor:
                return binding.channel_attention(query, key, value, temperature)

        arguments = tuple(x.detach() for x in double_inputs(None)[:4])
        program = torch.export.export(Attention(), arguments)
        assert "channel_attention_forward" in str(program.graph)
        torch.testing.assert_close(program.module()(*arguments), reference.channel_attention(*arguments))

    def test_autocast_does_not_round_inside(self) -> None:
        arguments = double_inputs(5)
        singles = [x.detach().float() for x in arguments]
        with torch.autocast("cpu", torch.bfloat16):
            out = binding.channel_attention(*singles)
        assert out.dtype == torch.float32
        assert relative_rms(out, reference.channel_attention(*arguments)) < 1e-6

    def test_a_second_derivative_raises(self) -> None:
        arguments = double_inputs(None)
        (gradient,) = torch.autograd.grad(binding.channel_attention(*arguments).sum(), arguments[2:3])
        assert not gradient.requires_grad
        (gradient,) = torch.autograd.grad(
            binding.channel_attention(*arguments).square().sum(), arguments[:1], create_graph=True
        )
        with pytest.raises(RuntimeError, match="can be differentiated once"):
            gradient.sum().backward()

    @pytest.mark.parametrize("wanted", ["query", "value", "projection"])
    def test_only_the_gradients_asked_for(self, wanted: str) -> None:
        names = ("query", "key", "value", "temperature", "projection")
        arguments = {n: x.detach().requires_grad_(n == wanted) for n, x in zip(names, double_inputs(5), strict=True)}
        binding.channel_attention(**arguments).sum().backward()
        assert [name for name, x in arguments.items() if x.grad is not None] == [wanted]


class TestChoice:
    """What the operator answers for tensors on a CUDA device, asked without one."""

    @pytest.fixture
    def new(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., list[Tensor]]]:
        hopper = SimpleNamespace(major=9, minor=0)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: hopper)
        with FakeTensorMode():
            yield lambda channels=8, dtype=torch.float32, positions=5: [
                *(torch.empty(1, 2, channels, positions, dtype=dtype, device="cuda") for _ in range(3)),
                torch.empty(2, 1, 1, dtype=dtype, device="cuda"),
            ]

    def test_kernels_serve_when_asked_for(self, new: Callable[..., list[Tensor]]) -> None:
        tensors = new()
        assert ops.explain("channel_attention", *tensors).endswith(
            "(triton: serves when asked for, no such call was measured)"
        )
        out = ops.channel_attention(*tensors, backend="triton")
        assert (out.shape, out.device.type) == ((1, 2, 8, 5), "cuda")
        out = ops.channel_attention(*tensors, projection=torch.empty(7, 16, device="cuda"), backend="triton")
        assert out.shape == (1, 7, 5)

    def test_refusals(self, new: Callable[..., list[Tensor]]) -> None:
        for tensors, reason in (
            (new(channels=65), "triton: heads have more than 64 channels"),
            (new(dtype=torch.float64), "triton: float64 is left to torch"),
            (new(positions=0), "triton: a tensor is empty"),
            ([tensor.to("cpu") for tensor in new()], f"triton: {ON_CPU}"),
        ):
            explanation = ops.explain("channel_attention", *tensors)
            assert explanation == f"channel_attention runs on torch: chosen automatically ({reason})"
            with pytest.raises(RuntimeError, match="cannot run on the backend 'triton'"):
                ops.channel_attention(*tensors, backend="triton")
