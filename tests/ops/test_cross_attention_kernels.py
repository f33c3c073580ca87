"""The kernels of attention between positions: against the formula, in the interpreter or on a GPU, and compiled."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from fusionblocks import ops
from fusionblocks.ops.cross_attention import binding
from fusionblocks.ops.dual_cross_attention import binding as dual
from tests.ops.operator_tester import relative_rms

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
BOUNDS = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 2e-2}
DTYPES = pytest.mark.parametrize("dtype", BOUNDS, ids=lambda dtype: str(dtype).removeprefix("torch."))
STREAMS = pytest.mark.parametrize("streams", [1, 2])

runs = pytest.mark.skipif(not INTERPRETED and not torch.cuda.is_available(), reason="needs TRITON_INTERPRET=1 or a GPU")

Inputs = tuple[list[Tensor], Tensor, list[Tensor], list[Tensor]]


def rows(tensor: Tensor) -> Tensor:
    return tensor.contiguous()


def feature_map(tensor: Tensor) -> Tensor:
    """``b (heads d) (h w)`` in memory."""
    return tensor.mT.contiguous().mT


def channels_last(tensor: Tensor) -> Tensor:
    """``b (h w) (heads d)`` in memory."""
    return tensor.transpose(1, 2).contiguous().transpose(1, 2)


def strided(tensor: Tensor) -> Tensor:
    """Every second number, between NaN."""
    return torch.stack([tensor, torch.full_like(tensor, torch.nan)], dim=-1)[..., 0]


LAYOUTS = (rows, feature_map, channels_last, strided)


def draw(
    streams: int,
    batch: int = 1,
    heads: int = 1,
    queries: int = 40,
    keys: int = 50,
    width: int = 16,
    value_width: int | None = None,
    dtype: torch.dtype = torch.float32,
    layout: Callable[[Tensor], Tensor] = rows,
    device: str = DEVICE,
) -> Inputs:
    """Return queries, key, values and the results' gradients."""
    generator = torch.Generator().manual_seed(queries * 1000 + keys)
    value_width = value_width or width

    def tensor(positions: int, columns: int) -> Tensor:
        numbers = torch.randn(batch, heads, positions, columns, generator=generator, dtype=torch.float64)
        return layout(numbers.to(dtype).to(device))

    return (
        [tensor(queries, width) for _ in range(streams)],
        tensor(keys, width),
        [tensor(keys, value_width) for _ in range(streams)],
        [tensor(queries, value_width) for _ in range(streams)],
    )


def formula(queries: Sequence[Tensor], key: Tensor, values: Sequence[Tensor], scale: float) -> list[Tensor]:
    return [torch.softmax(scale * query @ key.mT, -1) @ value for query, value in zip(queries, values, strict=True)]


def true_results(inputs: Inputs, scale: float, dtype: torch.dtype = torch.float64) -> tuple[list[Tensor], list[Tensor]]:
    """Return results and gradients of the formula in a precise dtype."""
    queries, key, values, grads = inputs
    leaves = [x.detach().to(dtype).requires_grad_() for x in (*queries, key, *values)]
    split = len(queries)
    outs = formula(leaves[:split], leaves[split], leaves[split + 1 :], scale)
    return outs, list(torch.autograd.grad(outs, leaves, [grad.to(dtype) for grad in grads]))


def kernel_results(inputs: Inputs, scale: float, splits: int | None = None) -> tuple[list[Tensor], list[Tensor]]:
    queries, key, values, grads = inputs
    outs, lse = binding.launch_streams(queries, key, values, scale, splits=splits)
    d_queries, d_key, d_values = binding.launch_gradients(grads, queries, key, values, outs, lse, scale)
    return outs, [*d_queries, d_key, *d_values]


def compare(inputs: Inputs, scale: float | None = None, splits: int | None = None, bound: float | None = None) -> None:
    queries, key, *_ = inputs
    scale = key.shape[-1] ** -0.5 if scale is None else scale
    bound = BOUNDS[key.dtype] if bound is None else bound
    outs, gradients = kernel_results(inputs, scale, splits)
    true_outs, true_gradients = true_results(inputs, scale)
    for out, true_out in zip(outs, true_outs, strict=True):
        assert out.dtype == key.dtype
        assert relative_rms(out, true_out) < bound
    for gradient, true_gradient in zip(gradients, true_gradients, strict=True):
        assert gradient.dtype == key.dtype
        if true_gradient.abs().max() < 1e-9:  # over a single key, or without a scale, nothing depends on the logits
            assert gradient.abs().max() < bound
        else:
            assert relative_rms(gradient, true_gradient) < bound


@contextmanager
def matmul_precision(precision: str) -> Iterator[None]:
    switch = torch.backends.cuda.matmul
    before = switch.fp32_precision
    switch.fp32_precision = precision
    try:
        yield
    finally:
        switch.fp32_precision = before


@pytest.fixture
def poisoned(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Fill what is allocated with NaN, and count the numbers of every allocation."""
    sizes: list[int] = []

    def poison(allocate: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def allocate_nan(*args: Any, **kwargs: Any) -> Tensor:
            tensor = allocate(*args, **kwargs)
            sizes.append(tensor.numel())
            return tensor.fill_(torch.nan)

        return allocate_nan

    monkeypatch.setattr(torch, "empty", poison(torch.empty))
    monkeypatch.setattr(torch, "empty_like", poison(torch.empty_like))
    for name in ("new_empty", "new_empty_strided"):
        monkeypatch.setattr(Tensor, name, poison(getattr(Tensor, name)))
    return sizes


@pytest.mark.kernel
@runs
@pytest.mark.usefixtures("poisoned")
class TestAgainstTheFormula:
    @STREAMS
    @DTYPES
    def test_dtypes(self, streams: int, dtype: torch.dtype) -> None:
        compare(draw(streams, queries=70, keys=77, dtype=dtype))

    @STREAMS
    @pytest.mark.parametrize(
        ("queries", "keys", "width", "value_width"),
        [
            (1, 1, 16, 16),
            (1, 70, 16, 16),
            (71, 1, 16, 16),
            (64, 64, 32, 32),  # whole tiles
            (65, 67, 24, 24),
            (17, 33, 5, 3),
            (20, 20, 100, 40),
            (33, 34, 128, 128),
        ],
    )
    def test_sizes(self, streams: int, queries: int, keys: int, width: int, value_width: int) -> None:
        compare(draw(streams, 1, 1, queries, keys, width, value_width))

    @STREAMS
    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_layouts(self, streams: int, layout: Callable[[Tensor], Tensor]) -> None:
        compare(draw(streams, 2, 2, 19, 21, 12, 7, layout=layout))

    def test_streams_of_different_layouts(self) -> None:
        queries, key, values, grads = draw(2, 2, 2, 19, 21, 12)
        compare(([queries[0], feature_map(queries[1])], key, [strided(values[0]), values[1]], [grads[0], grads[1]]))
        compare((queries, key, values, [feature_map(grads[0]), channels_last(grads[1])]))

    def test_one_gradient_for_all(self) -> None:
        queries, key, values, grads = draw(2, 1, 2, 19, 21, 12)
        compare((queries, key, values, [torch.ones(1, 1, 1, 1, device=DEVICE).expand_as(grad) for grad in grads]))

    @STREAMS
    @pytest.mark.parametrize("splits", [2, 3, 100])
    def test_splits_of_the_keys(self, streams: int, splits: int) -> None:
        compare(draw(streams, 1, 2, 20, 170, 16, 12, layout=feature_map), splits=splits)

    @STREAMS
    @pytest.mark.parametrize("scale", [1.0, 0.0, -0.5])
    def test_scales(self, streams: int, scale: float) -> None:
        compare(draw(streams, queries=33, keys=65), scale=scale, bound=2e-5)

    @STREAMS
    @pytest.mark.parametrize("size", [10.0, -10.0, 100.0])
    def test_large_logits(self, streams: int, size: float) -> None:
        """Nothing is infinite, and no more is lost than PyTorch's float32 loses or the rounding of the logits costs.

        The backward pass computes the logits anew: an error of one rounding in them is one in every weight.
        """
        queries, key, values, grads = draw(streams, queries=40, keys=70, width=32)
        inputs = ([size * query for query in queries], key, values, grads)
        logits = inputs[0][0] @ key.mT
        assert logits.abs().max() > 15 * abs(size)
        rounding = torch.finfo(torch.float32).eps * logits.abs().max().item()
        wanted = true_results(inputs, 1.0)
        plain = true_results(inputs, 1.0, torch.float32)
        actual = kernel_results(inputs, 1.0, splits=2)
        for xs, plain_xs, wanted_xs in zip(actual, plain, wanted, strict=True):
            for x, plain_x, wanted_x in zip(xs, plain_xs, wanted_xs, strict=True):
                assert torch.isfinite(x).all()
                assert relative_rms(x, wanted_x) < 4 * relative_rms(plain_x, wanted_x) + rounding

    @STREAMS
    @pytest.mark.filterwarnings("ignore:(overflow|invalid value) encountered")  # in rows beyond the last key
    def test_all_logits_far_below_zero(self, streams: int) -> None:
        """Past the last key nothing may count, though a zero there would outweigh every true logit."""
        queries, key, values, grads = draw(streams, queries=20, keys=37)
        inputs = ([query.abs() + 1 for query in queries], -(key.abs() + 5), values, grads)
        assert (inputs[0][0] @ inputs[1].mT).max() < -100
        for splits in (1, 2):
            compare(inputs, scale=2.0, splits=splits, bound=1e-4)

    @STREAMS
    def test_zero_queries_take_the_mean(self, streams: int) -> None:
        queries, key, values, grads = draw(streams, queries=20, keys=37)
        for query in queries:
            query[:, :, 3:9] = 0
        compare((queries, key, values, grads))
        outs, _ = binding.launch_streams(queries, key, values, 1.0)
        for out, value in zip(outs, values, strict=True):
            torch.testing.assert_close(out[:, :, 3:9], value.mean(2, keepdim=True).expand(-1, -1, 6, -1))

    def test_both_streams_equal_two_calls(self) -> None:
        queries, key, values, grads = draw(2, 2, 1, 50, 70, 20)
        outs, (d_query_a, d_query_b, d_key, d_value_a, d_value_b) = kernel_results((queries, key, values, grads), 0.3)
        parts = [
            kernel_results(([query], key, [value], [grad]), 0.3)
            for query, value, grad in zip(queries, values, grads, strict=True)
        ]
        for stream, (d_query, d_value) in enumerate(((d_query_a, d_value_a), (d_query_b, d_value_b))):
            (out,), (wanted_query, _, wanted_value) = parts[stream]
            torch.testing.assert_close(outs[stream], out)
            torch.testing.assert_close(d_query, wanted_query)
            torch.testing.assert_close(d_value, wanted_value)
        torch.testing.assert_close(d_key, parts[0][1][1] + parts[1][1][1], rtol=1e-5, atol=1e-5)

    @STREAMS
    def test_twice_the_same_bits(self, streams: int) -> None:
        inputs = draw(streams, 1, 1, 70, 130, 16)
        (outs, gradients), (other_outs, other_gradients) = (kernel_results(inputs, 1.0, splits=3) for _ in range(2))
        for x, other in zip([*outs, *gradients], [*other_outs, *other_gradients], strict=True):
            assert torch.equal(x, other)

    @STREAMS
    def test_inputs_stay_unchanged(self, streams: int) -> None:
        queries, key, values, grads = draw(streams)
        before = [x.clone() for x in (*queries, key, *values, *grads)]
        kernel_results((queries, key, values, grads), 1.0)
        for x, old in zip((*queries, key, *values, *grads), before, strict=True):
            assert torch.equal(x, old)


@pytest.mark.kernel
@runs
@STREAMS
def test_allocates_nothing_of_positions_by_positions(streams: int, poisoned: list[int]) -> None:
    kernel_results(draw(streams, queries=100, keys=130, width=16), 1.0, splits=2)
    assert max(poisoned) <= streams * 2 * 100 * 16  # both splits' partial results


# what is decided before a kernel runs


@pytest.mark.parametrize("layout", LAYOUTS)
def test_results_lie_in_memory_as_the_query_does(layout: Callable[[Tensor], Tensor]) -> None:
    like = layout(torch.zeros(2, 3, 5, 4))
    out = binding.empty_like_rows(like, 6)
    assert out.shape == (2, 3, 5, 6)
    assert not out._is_view()
    dense = layout(torch.zeros(2, 3, 5, 6)) if layout is not strided else torch.zeros(2, 3, 5, 6)
    assert out.stride() == dense.stride()


def test_strides_are_made_alike_only_where_they_differ() -> None:
    first, second = torch.zeros(2, 2, 3, 4, 5).unbind()
    assert binding.alike([first, second])[1] is second
    one, other = torch.zeros(1, 1, 3, 4).mT, torch.zeros(1, 2, 3, 4)[:, :1].mT
    assert one.stride() != other.stride()  # of dimensions with one element
    assert binding.alike([one, other])[1] is other
    copies = binding.alike([first, feature_map(second)])
    assert copies[0].stride() == copies[1].stride() == first.stride()


@pytest.mark.parametrize(("width", "wanted"), [(1, 16), (16, 16), (17, 32), (64, 64), (100, 128), (128, 128)])
def test_padded_width(width: int, wanted: int) -> None:
    assert binding.padded(width) == wanted


@pytest.mark.parametrize(
    ("programs", "key_tiles", "wanted"),
    [
        (75, 75, 3),  # 132 processors take 264 programs at a time
        (264, 75, 1),
        (265, 1000, 1),
        (10, 9, 2),  # no split of fewer than four tiles
        (1, 3, 1),
        (1, 1000, binding.MOST_SPLITS),
    ],
)
def test_keys_are_split_where_queries_leave_processors_idle(
    programs: int, key_tiles: int, wanted: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = SimpleNamespace(multi_processor_count=132)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: device)
    assert binding._splits(programs, key_tiles, torch.device("cuda")) == wanted
    assert binding._splits(programs, key_tiles, torch.device("cpu")) == 1


@pytest.mark.parametrize(
    ("dtype", "major", "switch", "wanted"),
    [
        (torch.float32, 9, "ieee", "tf32x3"),
        (torch.float32, 9, "none", "tf32x3"),
        (torch.float32, 9, "tf32", "tf32"),
        (torch.bfloat16, 9, "tf32", "wgmma"),
        (torch.float16, 9, "ieee", "wgmma"),
        (torch.bfloat16, 8, "ieee", "half"),
        (torch.bfloat16, 12, "ieee", "half"),
    ],
)
def test_products(dtype: torch.dtype, major: int, switch: str, wanted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (major, 0))
    with matmul_precision(switch):
        assert binding.product(dtype, torch.device("cuda")) == wanted
    for table in (binding.FORWARD, binding.KEY_VALUE_GRADIENT, binding.QUERY_GRADIENT):
        assert set(table[wanted]) == {16, 32, 64, 128}


def error_of_tf32(inputs: Inputs) -> float:
    """Return the relative error of the worst result where every operand of a product has ten bits after its first.

    A matrix unit cuts what it gets of a float32; only some instructions are preceded by a rounding.
    """

    def cut(x: Tensor) -> Tensor:
        return (x.float().contiguous().view(torch.int32) & ~0x1FFF).view(torch.float32).double()

    queries, key, values, grads = inputs
    scale = key.shape[-1] ** -0.5
    outs, truth = true_results(inputs, scale)
    worst, key_grads = 0.0, []
    for query, value, grad, out, d_query, d_value in zip(
        queries, values, grads, outs, truth[: len(queries)], truth[len(queries) + 1 :], strict=True
    ):
        weights = (scale * cut(query) @ cut(key).mT).softmax(-1)
        got_out = cut(weights) @ cut(value)
        d_weights = cut(grad) @ cut(value).mT - (grad.double() * got_out).sum(-1, keepdim=True)
        d_logits = cut(scale * weights * d_weights)
        key_grads.append(d_logits.mT @ cut(query))
        pairs = ((got_out, out), (d_logits @ cut(key), d_query), (cut(weights).mT @ cut(grad), d_value))
        worst = max(worst, *(relative_rms(got, true) for got, true in pairs))
    return max(worst, relative_rms(torch.stack(key_grads).sum(0), truth[len(queries)]))


def test_the_error_of_tf32_is_more_than_that_of_rounding() -> None:
    """What a GPU showed, 2e-3 and more of gradients, is the format's own error and no kernel's."""
    inputs = draw(2, 1, 1, 1000, 1500, 64, device="cpu")
    assert 2e-3 < error_of_tf32(inputs) < 3e-3


# on a GPU alone


@pytest.mark.gpu
class TestOnAGPU:
    @STREAMS
    @DTYPES
    @pytest.mark.parametrize("layout", [rows, feature_map, channels_last])
    def test_many_positions(self, streams: int, dtype: torch.dtype, layout: Callable[[Tensor], Tensor]) -> None:
        compare(draw(streams, 1, 2, 2000, 4801, 64, dtype=dtype, layout=layout))

    @STREAMS
    def test_unscaled_feature_maps(self, streams: int) -> None:
        compare(draw(streams, 1, 1, 4800, 4800, 64, layout=feature_map), scale=1.0, bound=1e-4)

    @STREAMS
    def test_tf32_where_pytorch_allows_it(self, streams: int) -> None:
        inputs = draw(streams, 1, 1, 1000, 1500, 64)
        with matmul_precision("tf32"):
            compare(inputs, bound=1.5 * error_of_tf32(inputs))

    @STREAMS
    @DTYPES
    def test_twice_the_same_bits(self, streams: int, dtype: torch.dtype) -> None:
        inputs = draw(streams, 1, 1, 4800, 4800, 64, dtype=dtype, layout=feature_map)
        first, second = (kernel_results(inputs, 1.0) for _ in range(2))
        for xs, others in zip(first, second, strict=True):
            assert all(torch.equal(x, other) for x, other in zip(xs, others, strict=True))

    @STREAMS
    def test_peak_memory_is_linear(self, streams: int) -> None:
        inputs = draw(streams, 1, 1, 16384, 16384, 64, dtype=torch.bfloat16, layout=feature_map)
        kernel_results(inputs, 1.0)
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        results = kernel_results(inputs, 1.0)
        torch.cuda.synchronize()
        peak = torch.cuda.max_memory_allocated() - before
        allowed = 16384 * 64 * 2 * (5 + binding.MOST_SPLITS * 4) * streams  # results, gradients, partial results
        assert peak < allowed < 16384 * 16384 * 2
        assert all(torch.isfinite(x).all() for xs in results for x in xs)

    @STREAMS
    def test_registration(self, streams: int) -> None:
        module = binding if streams == 1 else dual
        queries, key, values, grads = draw(streams, 2, 2, 33, 45, 16)
        inputs = [x.requires_grad_() for x in (*queries, key, *values)]
        torch.library.opcheck(module.forward_op, (*inputs, 0.7))
        *outs, lse = module.forward_op(*inputs, 0.7)
        tensors = (*grads, *inputs, *outs, lse)
        torch.library.opcheck(module.backward_op, (*(x.detach() for x in tensors), 0.7))

    def test_both_devices_lay_results_out_alike(self) -> None:
        queries, key, values, _ = draw(2, 2, 2, 33, 45, 16, layout=feature_map)
        on_gpu = dual.forward_op(*queries, key, *values, 0.7)
        on_cpu = dual.forward_op(*(x.cpu() for x in (*queries, key, *values)), 0.7)
        for x, other in zip(on_gpu, on_cpu, strict=True):
            assert x.stride() == other.stride()
            torch.testing.assert_close(x.cpu(), other, rtol=1e-5, atol=1e-5)

    @pytest.mark.parametrize("compiled", [False, True])
    def test_by_the_public_function(self, compiled: bool) -> None:
        queries, key, values, _ = draw(2, 1, 1, 300, 310, 64, layout=feature_map)
        run = torch.compile(ops.dual_cross_attention, fullgraph=True) if compiled else ops.dual_cross_attention
        for out, true_out in zip(
            run(*queries, key, *values, scale=0.1, backend="triton"),
            formula([x.double() for x in queries], key.double(), [x.double() for x in values], 0.1),
            strict=True,
        ):
            assert relative_rms(out, true_out) < BOUNDS[torch.float32]

    @pytest.mark.parametrize("positions", [300, 4800])
    def test_the_automatic_choice(self, positions: int) -> None:
        """Whatever it is; compiled, it has to be traced."""
        queries, key, values, _ = draw(2, 1, 1, positions, positions, 64, layout=feature_map)
        compiled = torch.compile(ops.dual_cross_attention, fullgraph=True)
        expected = formula([x.double() for x in queries], key.double(), [x.double() for x in values], 0.1)
        for run in (ops.dual_cross_attention, compiled):
            for out, true_out in zip(run(*queries, key, *values, scale=0.1), expected, strict=True):
                assert relative_rms(out, true_out) < BOUNDS[torch.float32]
