"""The kernels between pixels and tokens, both directions: in the interpreter or on a GPU, and compiled for GPUs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from fusionblocks import ops
from fusionblocks.ops._tiles import MOST_SPILLED
from fusionblocks.ops.folded_token_attention import binding as folded
from fusionblocks.ops.token_attention import binding as pooled
from tests.helpers.compiled_kernels import SHARED_MEMORY, compiling
from tests.ops.operator_tester import random_tensors, relative_rms

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
BOUNDS = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1.5e-2}
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
# batch, groups, heads, tokens, channels, channels of the values, pixels
FOLDED = {
    "ragged": (2, 1, 2, 3, 8, 8, 37),
    "groups": (1, 2, 1, 5, 24, 40, 70),
    "fewer pixels than a tile": (1, 1, 3, 17, 5, 7, 2),
    "several tiles of channels": (1, 1, 2, 2, 130, 140, 65),
    "sixteen tokens": (1, 1, 1, 16, 16, 16, 128),
    "most tokens": (1, 1, 1, 128, 16, 16, 33),
}
# batch, heads, tokens, channels, channels of the values, pixels
POOLED = {
    "ragged": (2, 2, 3, 8, 8, 37),
    "wide value": (1, 2, 5, 24, 40, 170),
    "fewer pixels than a tile": (1, 1, 17, 5, 7, 2),
    "several tiles of channels": (1, 1, 2, 130, 140, 65),
    "one token": (1, 1, 1, 16, 16, 300),
    "most tokens": (1, 1, 128, 16, 16, 33),
}


def draw_folded(size: str, dtype: torch.dtype, device: str, bias: bool = True) -> dict[str, Tensor]:
    batch, groups, heads, tokens, width, value_width, pixels = FOLDED[size]
    shapes = {
        "gradient": (batch, groups, value_width, pixels),
        "image": (batch, groups, width, pixels),
        "key": (batch, groups, heads, tokens, width),
        "value": (batch, groups, heads, tokens, value_width),
    }
    if bias:
        shapes["bias"] = (batch, groups, heads, tokens)
    return {name: tensor.to(device, dtype) for name, tensor in random_tensors(**shapes).items()}


def draw_pooled(size: str, dtype: torch.dtype, device: str) -> dict[str, Tensor]:
    batch, heads, tokens, width, value_width, pixels = POOLED[size]
    shapes = {
        "gradient": (batch, heads, tokens, value_width),
        "query": (batch, heads, tokens, width),
        "key": (batch, heads, width, pixels),
        "value": (batch, heads, value_width, pixels),
    }
    return {name: tensor.to(device, dtype) for name, tensor in random_tensors(**shapes).items()}


def run_folded(tensors: dict[str, Tensor], scale: float = 0.3, residual: bool = False) -> list[Tensor]:
    """Return the result and all gradients that the kernels give."""
    gradient, image, key, value = (tensors[name] for name in ("gradient", "image", "key", "value"))
    arguments = (image, key, value, tensors.get("bias"), scale, residual)
    out, gradients = folded.launch_forward(*arguments), folded.launch_backward(gradient, *arguments)
    return [out, *gradients[: len(tensors) - 1]]


def run_pooled(tensors: dict[str, Tensor], scale: float = 0.3) -> list[Tensor]:
    gradient, query, key, value = tensors.values()
    out, logarithms = pooled.launch_forward(query, key, value, scale)
    return [out, *pooled.launch_backward(gradient, query, key, value, out, logarithms, scale)]


def folded_truth(tensors: dict[str, Tensor], scale: float = 0.3, residual: bool = False) -> list[Tensor]:
    """Return the result and all gradients of the formula in float64."""

    def formula(image: Tensor, key: Tensor, value: Tensor, bias: Tensor | None = None) -> Tensor:
        logits = scale * torch.einsum("bgcn,bghtc->bghtn", image, key)
        weights = (logits if bias is None else logits + bias[..., None]).softmax(3)
        answer = torch.einsum("bghtn,bghte->bgen", weights, value)
        return answer + image if residual else answer

    return differentiated(formula, tensors)


def pooled_truth(tensors: dict[str, Tensor], scale: float = 0.3) -> list[Tensor]:
    return differentiated(lambda query, key, value: (scale * query @ key).softmax(-1) @ value.mT, tensors)


def differentiated(formula: Callable[..., Tensor], tensors: dict[str, Tensor]) -> list[Tensor]:
    gradient, *leaves = (tensor.detach().double() for tensor in tensors.values())
    out = formula(*(leaf.requires_grad_() for leaf in leaves))
    return [out.detach(), *torch.autograd.grad(out, leaves, gradient)]


def compare(actual: list[Tensor], expected: list[Tensor], dtype: torch.dtype, bound: float | None = None) -> None:
    bound = BOUNDS[dtype] if bound is None else bound
    for i, (result, truth) in enumerate(zip(actual, expected, strict=True)):
        assert result.dtype == dtype
        if truth.abs().max() < 1e-9:  # of one token the logits do not matter
            assert result.abs().max() < bound, i
        else:
            assert relative_rms(result, truth) < bound, i


def in_nan(tensor: Tensor) -> Tensor:
    """The same numbers in the midst of NaN, so that a read beyond the edge shows."""
    around = torch.full([size + 2 for size in tensor.shape], torch.nan, dtype=tensor.dtype, device=tensor.device)
    inner = around[tuple(slice(1, -1) for _ in tensor.shape)]
    inner.copy_(tensor)
    return inner


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "transposed": lambda x: x.mT.contiguous().mT,
    "in_nan": in_nan,
    "strided": lambda x: torch.stack([x, torch.full_like(x, torch.nan)], -1)[..., 0],
    "batch_last": lambda x: x.movedim(0, -1).contiguous().movedim(-1, 0),
}


@pytest.fixture
def uninitialised_is_nan() -> Iterator[None]:
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)  # fills what torch.empty and its kin return
    assert torch.empty(3).isnan().all()
    assert torch.ones(3).new_empty(2).isnan().all()
    yield
    torch.use_deterministic_algorithms(before)


@pytest.fixture
def three_splits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folded, "PROGRAMS", 3)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.usefixtures("uninitialised_is_nan")
class TestPixelsAsk:
    @pytest.mark.parametrize("size", FOLDED)
    def test_equal_the_formula(self, size: str, device: str) -> None:
        for bias in (True, False):
            tensors = draw_folded(size, torch.float32, device, bias)
            compare(run_folded(tensors), folded_truth(tensors), torch.float32)

    @DTYPES
    @pytest.mark.parametrize("size", ["ragged", "groups"])
    def test_dtypes(self, size: str, dtype: torch.dtype, device: str) -> None:
        for bias in (True, False):
            tensors = draw_folded(size, dtype, device, bias)
            compare(run_folded(tensors), folded_truth(tensors), dtype)

    def test_residual(self, device: str) -> None:
        tensors = draw_folded("ragged", torch.float32, device)
        compare(run_folded(tensors, residual=True), folded_truth(tensors, residual=True), torch.float32)

    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_any_strides(self, layout: str, device: str) -> None:
        for size in ("ragged", "groups"):
            tensors = draw_folded(size, torch.float32, device)
            other = {name: LAYOUTS[layout](tensor) for name, tensor in tensors.items()}
            compare(run_folded(other), folded_truth(tensors), torch.float32)

    @pytest.mark.usefixtures("three_splits")
    def test_several_splits(self, device: str) -> None:
        batch, groups, heads, *sizes, _ = FOLDED["ragged"]
        FOLDED["long"] = (1, groups, 1, *sizes, 64 * 7 + 5)
        tensors = draw_folded("long", torch.float32, device)
        del FOLDED["long"]
        compare(run_folded(tensors), folded_truth(tensors), torch.float32)

    def test_large_and_equal_logits(self, device: str) -> None:
        tensors = draw_folded("ragged", torch.float32, device)
        for scale, results in ((5.0, 5), (300.0, 1)):  # logits beyond 1000 leave no gradients
            actual, expected = run_folded(tensors, scale), folded_truth(tensors, scale)
            assert all(torch.isfinite(tensor).all() for tensor in actual)
            compare(actual[:results], expected[:results], torch.float32, bound=1e-4)  # as large as their rounding
        tensors["image"][:] = 0  # a black image asks all alike
        compare(run_folded(tensors), folded_truth(tensors), torch.float32)
        tensors["bias"][:] = 1e4
        compare(run_folded(tensors), folded_truth(tensors), torch.float32)

    def test_reruns_are_bitwise_equal(self, device: str) -> None:
        tensors = draw_folded("groups", torch.float32, device)
        for first, second in zip(run_folded(tensors), run_folded(tensors), strict=True):
            assert torch.equal(first, second)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.usefixtures("uninitialised_is_nan")
class TestTokensAsk:
    @pytest.mark.parametrize("size", POOLED)
    def test_equal_the_formula(self, size: str, device: str) -> None:
        tensors = draw_pooled(size, torch.float32, device)
        compare(run_pooled(tensors), pooled_truth(tensors), torch.float32)

    @DTYPES
    @pytest.mark.parametrize("size", ["ragged", "wide value"])
    def test_dtypes(self, size: str, dtype: torch.dtype, device: str) -> None:
        tensors = draw_pooled(size, dtype, device)
        compare(run_pooled(tensors), pooled_truth(tensors), dtype)

    @pytest.mark.parametrize("size", ["ragged", "fewer pixels than a tile"])
    def test_one_map_as_key_and_value(self, size: str, device: str) -> None:
        tensors = draw_pooled(size, torch.float32, device)
        if size == "fewer pixels than a tile":
            tensors["gradient"] = tensors["gradient"][..., :5]
        tensors["value"] = tensors["key"]
        compare(run_pooled(tensors), pooled_truth(tensors), torch.float32)

    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_any_strides(self, layout: str, device: str) -> None:
        for size in ("ragged", "wide value"):
            tensors = draw_pooled(size, torch.float32, device)
            other = {name: LAYOUTS[layout](tensor) for name, tensor in tensors.items()}
            compare(run_pooled(other), pooled_truth(tensors), torch.float32)

    @pytest.mark.usefixtures("three_splits")
    def test_several_splits(self, device: str) -> None:
        _, _, tokens, width, value_width, _ = POOLED["ragged"]
        POOLED["long"] = (1, 1, tokens, width, value_width, 64 * 7 + 5)
        tensors = draw_pooled("long", torch.float32, device)
        del POOLED["long"]
        compare(run_pooled(tensors), pooled_truth(tensors), torch.float32)

    def test_more_splits_than_are_combined_at_a_time(self, device: str) -> None:
        POOLED["longest"] = (1, 1, 2, 2, 3, 64 * 40 - 5)
        tensors = draw_pooled("longest", torch.float32, device)
        del POOLED["longest"]
        compare(run_pooled(tensors), pooled_truth(tensors), torch.float32)

    def test_large_and_equal_logits(self, device: str) -> None:
        tensors = draw_pooled("ragged", torch.float32, device)
        for scale, results in ((5.0, 4), (300.0, 1)):  # logits beyond 1000 leave no gradients
            actual, expected = run_pooled(tensors, scale), pooled_truth(tensors, scale)
            assert all(torch.isfinite(tensor).all() for tensor in actual)
            compare(actual[:results], expected[:results], torch.float32, bound=1e-4)  # as large as their rounding
        tensors["key"][:] = 0
        compare(run_pooled(tensors), pooled_truth(tensors), torch.float32)

    def test_reruns_are_bitwise_equal(self, device: str) -> None:
        tensors = draw_pooled("wide value", torch.float32, device)
        for first, second in zip(run_pooled(tensors), run_pooled(tensors), strict=True):
            assert torch.equal(first, second)


@pytest.mark.skipif(INTERPRETED, reason="Triton interprets its kernels in this process")
@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize(
    ("dtype", "tokens", "width"),
    [(torch.float32, 16, 64), (torch.float32, 16, 128), (torch.bfloat16, 16, 64), (torch.bfloat16, 50, 128)],
    ids=["float32", "float32 wide", "bfloat16", "bfloat16 wide"],
)
def test_compiled_for_gpus(capability: int, dtype: torch.dtype, tokens: int, width: int) -> None:
    image, other = torch.empty(2, 1, 1, width, 512, dtype=dtype)
    key, query = torch.empty(1, 1, 2, tokens, width, dtype=dtype), torch.empty(1, 1, tokens, width, dtype=dtype)
    with compiling(capability) as kernels:
        run_folded({"gradient": image, "image": image, "key": key, "value": key, "bias": key[..., 0]})
        run_pooled({"gradient": query, "query": query, "key": image, "value": other})
        run_pooled({"gradient": query, "query": query, "key": image, "value": image})
    assert [kernel.name for kernel in kernels].count("combine_kernel") == 2
    for kernel in kernels:
        assert kernel.shared_memory <= SHARED_MEMORY[capability], kernel.name
        assert kernel.spilled <= MOST_SPILLED, kernel.name


@pytest.mark.gpu
@pytest.mark.skipif(INTERPRETED, reason="Triton interprets its kernels")
class TestOnTheDevice:
    @DTYPES
    @pytest.mark.parametrize("tokens", [2, 16, 50])
    def test_folded(self, tokens: int, dtype: torch.dtype) -> None:
        shapes = {
            "image": (2, 128, 4801),
            "key": (2, 2, tokens, 128),
            "value": (2, 2, tokens, 128),
            "bias": (2, 2, tokens),
        }
        tensors = {name: tensor.to("cuda", dtype) for name, tensor in random_tensors(**shapes).items()}
        tensors["key"] *= 128**-0.5
        self.compare_backends(ops.folded_token_attention, tensors, dtype, residual=True)

    @DTYPES
    @pytest.mark.parametrize("sides", [(4801, 16), (16, 4801)])
    def test_both_directions(self, sides: tuple[int, int], dtype: torch.dtype) -> None:
        queries, keys = sides
        shapes = {"query": (2, 2, queries, 64), "key": (2, 2, keys, 64), "value": (2, 2, keys, 64)}
        tensors = {name: tensor.to("cuda", dtype) for name, tensor in random_tensors(**shapes).items()}
        self.compare_backends(ops.token_attention, tensors, dtype)

    def compare_backends(
        self, operator: Callable[..., Tensor], tensors: dict[str, Tensor], dtype: torch.dtype, **options: bool
    ) -> None:
        assert "runs on triton" in ops.explain(operator, *tensors.values(), backend="triton")
        results = []
        for backend, inputs in (("triton", tensors), ("torch", {k: x.double() for k, x in tensors.items()})):
            leaves = [tensor.clone().requires_grad_() for tensor in inputs.values()]
            out = operator(*leaves, backend=backend, **options)
            gradient = random_tensors(gradient=tuple(out.shape))["gradient"].to(out)
            results.append([out.detach(), *torch.autograd.grad(out, leaves, gradient)])
        compare(*results, dtype)

    def test_one_read_and_one_write(self) -> None:
        image = torch.rand(1, 128, 300_000, device="cuda")
        key = torch.rand(1, 2, 16, 128, device="cuda")
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        ops.folded_token_attention(image, key, key, residual=True, backend="triton")
        assert torch.cuda.max_memory_allocated() - before < 1.01 * image.nbytes

    def test_opcheck(self) -> None:
        tensors = draw_folded("ragged", torch.float32, "cuda")
        del tensors["gradient"]
        torch.library.opcheck(folded.forward_op, (*(x.requires_grad_() for x in tensors.values()), 0.3, True))
        _, *inputs = draw_pooled("ragged", torch.float32, "cuda").values()
        torch.library.opcheck(pooled.forward_op, (*(x.requires_grad_() for x in inputs), 0.3))
