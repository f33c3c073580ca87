"""Attention between channels: its formula with both tensors normalised, and the folded projection."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fusionblocks import ops
from tests.ops.operator_tester import (
    BOUNDS,
    DTYPES,
    LargestTensor,
    OperatorTester,
    backpropagate,
    random_tensors,
    relative_rms,
)


def normalize(x: Tensor) -> Tensor:
    return x / x.square().sum(-1, keepdim=True).clamp_min(1e-24).sqrt()


def formula(query: Tensor, key: Tensor, value: Tensor, temperature: Tensor) -> Tensor:
    logits = normalize(query) @ normalize(key).transpose(-1, -2) * temperature
    weights = torch.exp(logits - logits.amax(-1, keepdim=True))
    return (weights / weights.sum(-1, keepdim=True)) @ value


def projected_formula(query: Tensor, key: Tensor, value: Tensor, temperature: Tensor, projection: Tensor) -> Tensor:
    plain = formula(query, key, value, temperature)  # the 1x1 convolution after it, heads concatenated
    return F.conv1d(plain.reshape(plain.shape[0], -1, plain.shape[-1]), projection[..., None])


def shapes(batch: int, heads: int, channels: int, positions: int) -> dict[str, tuple[int, ...]]:
    features = (batch, heads, channels, positions)
    return {"query": features, "key": features, "value": features, "temperature": (heads, 1, 1)}


class TestChannelAttention(OperatorTester):
    operator = ops.channel_attention
    formula = formula
    shapes = {
        "ragged": shapes(2, 3, 4, 7),
        "one position": shapes(2, 2, 3, 1),
        "one channel": shapes(1, 4, 1, 9),
        "one head": shapes(3, 1, 5, 6),
        "many": shapes(1, 2, 16, 2049),
    }
    uncast = {"temperature"}

    def test_mixed_dtypes_raise(self) -> None:
        tensors = {name: tensor.float() for name, tensor in self.tensors().items()}
        for name in ("key", "value"):
            with pytest.raises(TypeError, match=rf"^{name} must have the dtype of query, torch\.float32, got torch\."):
                ops.channel_attention(**{**tensors, name: tensors[name].double()})
        with pytest.raises(TypeError, match=r"^temperature must be float32 .* torch\.float32, got torch\.float16"):
            ops.channel_attention(**{**tensors, "temperature": tensors["temperature"].half()})

    @DTYPES
    def test_temperature_may_stay_float32(self, dtype: torch.dtype) -> None:
        tensors = {name: tensor.to(dtype) for name, tensor in self.tensors().items()}
        tensors["temperature"] = tensors["temperature"].float()
        assert self.run(**tensors).dtype == dtype
        self.compare(tensors, max(BOUNDS[dtype], BOUNDS[torch.float32]))  # the gradient of temperature is float32

    def test_zero_channels(self) -> None:
        tensors = self.tensors()
        tensors["query"][0, 0, 1] = 0
        tensors["key"][1, 2, 3] = 0
        self.compare(tensors, 1e-12)
        results, gradients = backpropagate(self.run, tensors)
        # the norm of a zero channel is held at 1e-12, so its gradient is large; the others' must be right all the same
        _, true_gradients = backpropagate(self.expected, tensors)
        for gradient, true_gradient in zip(gradients, true_gradients, strict=True):
            torch.testing.assert_close(gradient, true_gradient, rtol=1e-8, atol=1e-10)
        assert torch.isfinite(results[0]).all()

    @DTYPES
    def test_a_black_image_has_finite_gradients(self, dtype: torch.dtype) -> None:
        tensors = {name: tensor.to(dtype) for name, tensor in self.tensors().items()}
        for dark in (("query",), ("key",), ("query", "key", "value")):
            black = {name: torch.zeros_like(x) if name in dark else x for name, x in tensors.items()}
            results, gradients = backpropagate(self.run, black)
            expected = tensors["value"].double().mean(2, keepdim=True).expand(2, 3, 4, 7)
            assert (results[0].double() - (0 if "value" in dark else expected)).abs().max() < BOUNDS[dtype]
            for gradient in gradients:
                assert torch.isfinite(gradient).all(), dark

    def test_tiny_and_huge_channels(self) -> None:
        tensors = self.tensors()
        sizes = torch.logspace(-10, 10, 4, dtype=torch.float64)[:, None]
        tensors["query"], tensors["key"] = tensors["query"] * sizes, tensors["key"] * sizes.flip(0)
        out = self.run(**{name: tensor.float() for name, tensor in tensors.items()})
        assert relative_rms(out, formula(**tensors)) < BOUNDS[torch.float32]

    def test_float16_sums_beyond_its_range(self) -> None:
        tensors = {name: tensor.half() for name, tensor in random_tensors(**shapes(1, 1, 3, 5000)).items()}
        tensors["query"], tensors["key"] = tensors["query"] + 8, tensors["key"] + 8  # products sum to 320000
        assert relative_rms(self.run(**tensors), self.expected(**tensors)) < BOUNDS[torch.float16]
        with torch.autocast("cpu", torch.float16):
            out = self.run(**{name: tensor.float() for name, tensor in tensors.items()})
        assert relative_rms(out, self.expected(**tensors)) < BOUNDS[torch.float16]

    @DTYPES
    def test_large_logits(self, dtype: torch.dtype) -> None:
        tensors = {name: tensor.to(dtype) for name, tensor in self.tensors().items()}
        tensors["temperature"] = torch.full((3, 1, 1), 3e4, dtype=torch.float32)
        out = self.run(**tensors)
        winners = (normalize(tensors["query"].double()) @ normalize(tensors["key"].double()).mT).argmax(-1)
        assert relative_rms(out, torch.take_along_dim(tensors["value"], winners[..., None], dim=2)) < BOUNDS[dtype]

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_long_rows_keep_their_accuracy(self, dtype: torch.dtype) -> None:
        tensors = {name: tensor.to(dtype) for name, tensor in random_tensors(**shapes(1, 2, 4, 100001)).items()}
        assert relative_rms(self.run(**tensors), self.expected(**tensors)) < BOUNDS[dtype]

    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
    def test_no_normalised_copy(self, dtype: torch.dtype) -> None:
        made: list[int] = []

        class Features(LargestTensor):
            def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
                result = super().__torch_dispatch__(function, types, args, kwargs)
                if isinstance(result, Tensor) and result.numel() >= 2 * 4 * 500 and not result._is_view():
                    made.append(result.data_ptr())
                return result

        tensors = {name: tensor.to(dtype) for name, tensor in random_tensors(**shapes(1, 2, 4, 500)).items()}
        given = {tensor.data_ptr() for tensor in tensors.values()}
        with Features(), torch.no_grad():
            out = self.run(**tensors)
        assert set(made) - given == {out.data_ptr()}

    def test_inductor(self) -> None:
        torch.compiler.reset()
        tensors = {name: tensor.float() for name, tensor in self.tensors().items()}
        results, gradients = backpropagate(torch.compile(self.run, fullgraph=True), tensors)
        true_results, true_gradients = backpropagate(self.expected, {n: t.double() for n, t in tensors.items()})
        for actual, expected in zip([*results, *gradients], [*true_results, *true_gradients], strict=True):
            assert relative_rms(actual, expected) < BOUNDS[torch.float32]

    @pytest.mark.parametrize(
        ("name", "shape", "message"),
        [
            ("key", (1, 3, 4, 7), "key must have B=2 like query"),
            ("key", (2, 2, 4, 7), "key must have heads=3 like query"),
            ("key", (2, 3, 5, 7), "key must have C=4 like query"),
            ("value", (2, 3, 4, 8), "value must have N=7 like query"),
            ("temperature", (1, 1, 1), r"temperature must have shape \(heads, 1, 1\)=\(3, 1, 1\), got \(1, 1, 1\)"),
            ("temperature", (3, 4, 1), r"temperature must have shape .* got \(3, 4, 1\)"),
        ],
    )
    def test_shapes_that_do_not_fit(self, name: str, shape: tuple[int, ...], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            ops.channel_attention(**{**self.tensors(), name: torch.zeros(shape, dtype=torch.float64)})


class TestProjection(OperatorTester):
    operator = ops.channel_attention
    formula = projected_formula
    shapes = {
        "ragged": {**shapes(2, 3, 2, 7), "projection": (5, 6)},
        "one output": {**shapes(1, 2, 3, 4), "projection": (1, 6)},
        "one channel": {**shapes(3, 1, 1, 4), "projection": (2, 1)},
        "many": {**shapes(1, 2, 16, 1001), "projection": (32, 32)},
    }
    uncast = {"temperature"}

    def test_mixed_dtypes_raise(self) -> None:
        tensors = {name: tensor.float() for name, tensor in self.tensors().items()}
        with pytest.raises(TypeError, match=r"^projection must have the dtype of query, torch\.float32, got torch\."):
            ops.channel_attention(**{**tensors, "projection": tensors["projection"].double()})

    def test_shape_that_does_not_fit(self) -> None:
        tensors = self.tensors()
        with pytest.raises(ValueError, match=r"projection must have shape .*=\(out_channels, 6\), got \(6, 5\)"):
            ops.channel_attention(**{**tensors, "projection": tensors["projection"].mT})
