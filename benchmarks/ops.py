"""The operators as declared data: sizes, inputs, floor, and the implementations that are compared."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from benchmarks import published_ops
from benchmarks.cases import (
    COMPILED,
    DTYPES,
    PUBLISHED,
    Agreement,
    Call,
    compiled,
    forward_and_backward,
    forward_only,
    relative_rms,
)
from fusionblocks import ops
from fusionblocks.ops.channel_attention import reference as channel_reference
from fusionblocks.ops.cross_attention import reference as cross_reference
from fusionblocks.ops.dual_cross_attention import reference as dual_reference
from fusionblocks.ops.folded_token_attention import reference as folded_reference
from fusionblocks.ops.token_attention import reference as token_reference

Sizes = Mapping[str, int]
Implementation = Callable[..., Sequence[Tensor]]

OURS = "fusionblocks"
"""As a user calls it: the backend is chosen automatically."""
KERNELS = "kernels"
"""The same with ``backend="triton"``: whether it is right and faster than the best of PyTorch decides the choice."""
REFERENCE = "reference"
SDPA = "sdpa"
TOGETHER = "sdpa, both at once"
SECONDS_ON_A_GPU = 0.3
LIMITS = {"float32": 3e-5, "tf32": 3e-3, "bfloat16": 3e-2, "float16": 5e-3}
"""Largest relative RMS difference to the reference in float64."""


@dataclass(frozen=True)
class OpBenchmark:
    """What is measured of an operator.

    Args:
        inputs: Makes the inputs from the sizes.
        elements: Counts the numbers that the forward pass, and the backward pass, must read or write.
        variants: The implementations, the baseline first; each returns its results in a sequence.
    """

    inputs: Callable[[Sizes], list[Tensor]]
    elements: Callable[[Sizes], tuple[int, int]]
    variants: Mapping[str, Implementation]


@dataclass(frozen=True)
class OpCase:
    """An operator at one size; ``benchmarks.cases.Case`` says what the properties mean."""

    name: str
    sizes: Sizes
    precision: str = "float32"
    backward: bool = False
    devices: tuple[str, ...] = ("cpu", "cuda")
    seconds: float = 3.0

    @property
    def shapes(self) -> str:
        return " ".join(f"{name}={size}" for name, size in self.sizes.items())

    @property
    def passes(self) -> str:
        return "forward+backward" if self.backward else "forward"

    @property
    def floor_bytes(self) -> int:
        forward, backward = OPERATORS[self.name].elements(self.sizes)
        return (forward + backward * self.backward) * DTYPES[self.precision].itemsize

    def small(self) -> OpCase:
        sizes = {name: min(size, 257) if name == "N" else size for name, size in self.sizes.items()}
        return dataclasses.replace(self, sizes=sizes, seconds=0.0)

    def implementations(self, place: str) -> list[str]:
        return [*OPERATORS[self.name].variants, *([KERNELS] if place == "cuda" else [])]

    def prepare(self, names: Sequence[str], device: torch.device) -> dict[str, Call]:
        inputs = [x.to(device, DTYPES[self.precision]) for x in OPERATORS[self.name].inputs(self.sizes)]
        return {name: self._call(self._variant(name), inputs) for name in names}

    def truth(self, device: torch.device) -> Sequence[Tensor]:
        """Return the reference's results in float64, from inputs as the precision rounds them."""
        rounded = (x.to(device, DTYPES[self.precision]) for x in OPERATORS[self.name].inputs(self.sizes))
        return self._call(self._variant(REFERENCE), [x.double() for x in rounded])()

    def agreement(self, implementation: str, got: Sequence[Tensor], truth: Sequence[Tensor]) -> Agreement:
        return Agreement(relative_rms(got, truth), LIMITS[self.precision])

    def _variant(self, name: str) -> Implementation:
        base = name.removesuffix(COMPILED)
        variant = OPERATORS[self.name].variants[OURS if base == KERNELS else base]
        if base == KERNELS:
            variant = by_kernels(variant)
        return compiled(variant) if name.endswith(COMPILED) else variant

    def _call(self, variant: Implementation, inputs: Sequence[Tensor]) -> Call:
        return (forward_and_backward if self.backward else forward_only)(variant, inputs)


def by_kernels(variant: Implementation) -> Implementation:
    def run(*inputs: Tensor) -> Sequence[Tensor]:
        with ops.backend("triton"):
            return variant(*inputs)

    return run


def single(function: Callable[..., Tensor], **keywords: float) -> Implementation:
    """Return a function of one result as one of a tuple."""
    return lambda *inputs: (function(*inputs, **keywords),)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# --- channel attention: query, key and value lie in one tensor, as a convolution makes them -------------------------


def channel_inputs(sizes: Sizes) -> list[Tensor]:
    batch, heads, channels, positions = (sizes[name] for name in ("B", "heads", "C", "N"))
    query, key, value = normal(batch, 3, heads, channels, positions).unbind(1)
    inputs = [query, key, value, 1 + 0.1 * normal(heads, 1, 1, seed=1)]
    if "out" in sizes:
        inputs.append(normal(sizes["out"], heads * channels, seed=2) / math.sqrt(heads * channels))
    return inputs


def channel_elements(sizes: Sizes) -> tuple[int, int]:
    """Read query, key, value and write the result; read all but the result's place again and write three gradients."""
    batch, width, positions = sizes["B"], sizes["heads"] * sizes["C"], sizes["N"]
    out = sizes.get("out", width)
    return batch * positions * (3 * width + out), batch * positions * (6 * width + out)


def our_channel_attention(query: Tensor, key: Tensor, value: Tensor, temperature: Tensor, *projection: Tensor):
    return (ops.channel_attention(query, key, value, temperature, projection=projection[0] if projection else None),)


CHANNEL = {
    PUBLISHED: single(published_ops.channel_attention),
    REFERENCE: single(channel_reference.channel_attention),
    OURS: our_channel_attention,
}


# --- attention between positions ------------------------------------------------------------------------------------


def cross_inputs(sizes: Sizes) -> list[Tensor]:
    shape = (sizes["B"], sizes["heads"], sizes["N"], sizes["d"])
    return [normal(*shape, seed=seed) * factor for seed, factor in enumerate((1, 1 / 8, 1))]


def dual_inputs(sizes: Sizes) -> list[Tensor]:
    shape = (sizes["B"], sizes["heads"], sizes["N"], sizes["d"])
    return [normal(*shape, seed=seed) * factor for seed, factor in enumerate((1, 1, 1 / 8, 1, 1))]


def cross_elements(sizes: Sizes) -> tuple[int, int]:
    """Read query, key, value and write the result; backward reads all with the cotangent and writes gradients."""
    one = sizes["B"] * sizes["heads"] * sizes["N"] * sizes["d"]
    return 4 * one, 8 * one


def dual_elements(sizes: Sizes) -> tuple[int, int]:
    """Read five tensors and write two; backward reads those and two cotangents, and writes five gradients."""
    one = sizes["B"] * sizes["heads"] * sizes["N"] * sizes["d"]
    return 7 * one, 14 * one


def two_sdpa(query_a: Tensor, query_b: Tensor, key: Tensor, value_a: Tensor, value_b: Tensor) -> Sequence[Tensor]:
    return (
        F.scaled_dot_product_attention(query_a, key, value_a, scale=1.0),
        F.scaled_dot_product_attention(query_b, key, value_b, scale=1.0),
    )


CROSS = {
    PUBLISHED: single(published_ops.cross_attention, scale=1.0),
    REFERENCE: single(cross_reference.cross_attention, scale=1.0),
    SDPA: single(F.scaled_dot_product_attention, scale=1.0),
    OURS: single(ops.cross_attention, scale=1.0),
}
DUAL: Mapping[str, Implementation] = {
    PUBLISHED: published_ops.dual_cross_attention,
    REFERENCE: lambda *inputs: dual_reference.dual_cross_attention(*inputs, 1.0),
    SDPA: two_sdpa,
    TOGETHER: lambda *inputs: ops.dual_cross_attention(*inputs, scale=1.0, backend="sdpa"),
    OURS: lambda *inputs: ops.dual_cross_attention(*inputs, scale=1.0),
}


# --- pixels and tokens ----------------------------------------------------------------------------------------------


def folded_inputs(sizes: Sizes) -> list[Tensor]:
    """Return the image, the tokens, and weights and biases of multi-head attention."""
    batch, width = sizes["B"], sizes["C"]
    scale = 1 / math.sqrt(width)
    return [
        normal(batch, width, sizes["N"]),
        normal(batch, sizes["T"], width, seed=1),
        normal(3 * width, width, seed=2) * scale,
        normal(3 * width, seed=3) * scale,
        normal(width, width, seed=4) * scale,
        normal(width, seed=5) * scale,
    ]


def folded_elements(sizes: Sizes) -> tuple[int, int]:
    """Read and write the feature map once; backward reads it and the cotangent, and writes a gradient."""
    image = sizes["B"] * sizes["C"] * sizes["N"]
    return 2 * image, 3 * image


HEADS = 2


def multihead_attention(image: Tensor, tokens: Tensor, *weights: Tensor) -> Sequence[Tensor]:
    state = dict(zip(("in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias"), weights, strict=True))
    attention = partial(functional_call, bare_attention(image.shape[1]), state)
    return (published_ops.clip_query_attention(image, tokens, attention),)


@cache
def bare_attention(width: int) -> nn.MultiheadAttention:
    """Return PyTorch's multi-head attention without weights."""
    with torch.device("meta"):
        return nn.MultiheadAttention(width, HEADS)


def folded_with(operator: Callable[..., Tensor]) -> Implementation:
    """Fold the projections of the pixels into the tokens, then run an operator on the image."""

    def run(
        image: Tensor, tokens: Tensor, into: Tensor, into_bias: Tensor, out: Tensor, out_bias: Tensor
    ) -> Sequence[Tensor]:
        width = image.shape[1] // HEADS
        query_weight, key_weight, value_weight = into.chunk(3)
        query_bias, key_bias, value_bias = into_bias.chunk(3)

        def heads(x: Tensor) -> Tensor:  # (B, T, heads d) -> (B, heads, T, d)
            return x.unflatten(2, (HEADS, width)).transpose(1, 2)

        key = heads(F.linear(tokens, key_weight, key_bias)) * width**-0.5
        value = heads(F.linear(tokens, value_weight, value_bias))
        bias = key @ query_bias.view(HEADS, width, 1)
        key = key @ query_weight.unflatten(0, (HEADS, width))
        value = value @ out.unflatten(1, (HEADS, width)).permute(1, 2, 0) + out_bias / HEADS
        return (operator(image, key, value, bias.squeeze(-1), residual=True),)

    return run


def folded_by_reference(image: Tensor, key: Tensor, value: Tensor, bias: Tensor, residual: bool) -> Tensor:
    one = key.shape[2] == 1
    function = folded_reference.one_token if one else folded_reference.folded_token_attention
    return function(image, key, value, bias, residual)


FOLDED = {
    PUBLISHED: multihead_attention,
    REFERENCE: folded_with(folded_by_reference),
    OURS: folded_with(ops.folded_token_attention),
}


def token_inputs(sizes: Sizes) -> list[Tensor]:
    batch, heads, width = sizes["B"], sizes["heads"], sizes["d"]
    pixels = (batch, heads, sizes["N"], width)
    return [normal(batch, heads, sizes["T"], width), normal(*pixels, seed=1) / 8, normal(*pixels, seed=2)]


def token_elements(sizes: Sizes) -> tuple[int, int]:
    """Read keys and values of all pixels once; backward reads them and writes their gradients."""
    pixels = sizes["B"] * sizes["heads"] * sizes["N"] * sizes["d"]
    return 2 * pixels, 4 * pixels


TOKEN = {
    PUBLISHED: single(published_ops.cross_attention, scale=1.0),
    REFERENCE: single(token_reference.token_attention, scale=1.0),
    SDPA: single(F.scaled_dot_product_attention, scale=1.0),
    OURS: single(ops.token_attention, scale=1.0),
}


OPERATORS: dict[str, OpBenchmark] = {
    "channel_attention": OpBenchmark(channel_inputs, channel_elements, CHANNEL),
    "cross_attention": OpBenchmark(cross_inputs, cross_elements, CROSS),
    "dual_cross_attention": OpBenchmark(dual_inputs, dual_elements, DUAL),
    "folded_token_attention": OpBenchmark(folded_inputs, folded_elements, FOLDED),
    "token_attention": OpBenchmark(token_inputs, token_elements, TOKEN),
}

PIXELS = 480 * 640
BOTH, GPU = ("cpu", "cuda"), ("cuda",)
FORWARD, BACKWARD, TRAINING = (False,), (True,), (False, True)

# operator, passes, devices (matrices of 32400 x 32400 are left to GPUs), sizes
DECLARED: list[tuple[str, tuple[bool, ...], tuple[str, ...], Sizes]] = [
    ("channel_attention", TRAINING, BOTH, {"B": 1, "heads": 8, "C": 8, "N": PIXELS}),
    ("channel_attention", TRAINING, BOTH, {"B": 4, "heads": 8, "C": 8, "N": 65536}),
    ("channel_attention", FORWARD, BOTH, {"B": 1, "heads": 8, "C": 8, "N": PIXELS, "out": 64}),
    ("dual_cross_attention", TRAINING, BOTH, {"B": 1, "heads": 1, "N": 4800, "d": 64}),
    ("dual_cross_attention", TRAINING, GPU, {"B": 1, "heads": 1, "N": 32400, "d": 64}),
    ("cross_attention", FORWARD, BOTH, {"B": 1, "heads": 1, "N": 4800, "d": 64}),
    ("folded_token_attention", FORWARD, BOTH, {"B": 1, "C": 128, "N": PIXELS, "T": 1}),
    ("folded_token_attention", FORWARD, BOTH, {"B": 1, "C": 128, "N": PIXELS, "T": 16}),
    ("folded_token_attention", FORWARD, BOTH, {"B": 1, "C": 128, "N": PIXELS, "T": 50}),
    ("token_attention", FORWARD, BOTH, {"B": 1, "heads": 2, "N": PIXELS, "d": 64, "T": 16}),
    ("folded_token_attention", BACKWARD, GPU, {"B": 1, "C": 128, "N": PIXELS, "T": 16}),
    ("token_attention", BACKWARD, GPU, {"B": 1, "heads": 2, "N": PIXELS, "d": 64, "T": 16}),
    ("channel_attention", TRAINING, GPU, {"B": 1, "heads": 8, "C": 8, "N": 65536}),
    ("cross_attention", BACKWARD, GPU, {"B": 1, "heads": 1, "N": 4800, "d": 64}),
]
CASES: list[OpCase] = [
    # TF32 is a GPU's own way to multiply float32, and float16 is slow on a CPU
    OpCase(name, sizes, precision, backward, (place,), SECONDS_ON_A_GPU if place == "cuda" else 3.0)
    for name, passes, devices, sizes in DECLARED
    for backward in passes
    for place in devices
    for precision in (("float32", "bfloat16") if place == "cpu" else ("float32", "tf32", "bfloat16", "float16"))
]
