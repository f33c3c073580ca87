"""The ``torch.library`` operators of attention between positions: registered right, chosen and refused with reasons."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode

from fusionblocks import ops
from fusionblocks.ops.cross_attention import binding as single
from fusionblocks.ops.cross_attention import reference
from fusionblocks.ops.dual_cross_attention import binding as dual
from tests.ops import test_cross_attention, test_dual_cross_attention
from tests.ops.operator_tester import ON_CPU, LargestTensor, backpropagate, random_tensors, relative_rms

ATTENTIONS = {
    "cross_attention": (single, test_cross_attention),
    "dual_cross_attention": (dual, test_dual_cross_attention),
}
NAMES = pytest.mark.parametrize("name", ATTENTIONS)
SHAPES = {"small": (1, 2, 3, 4, 3, 2), "ragged": (2, 2, 9, 7, 4, 4)}


def draw(name: str, case: str = "ragged", dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    tensors = random_tensors(**ATTENTIONS[name][1].shapes(*SHAPES[case]))
    return {argument: tensor.to(dtype) for argument, tensor in tensors.items()}


def laid_out(tensor: Tensor, layout: str) -> Tensor:
    if layout == "feature map":
        return tensor.mT.contiguous().mT
    if layout == "channels last":
        return tensor.transpose(1, 2).contiguous().transpose(1, 2)
    return tensor


def as_leaves(tensors: dict[str, Tensor]) -> list[Tensor]:
    return [tensor.detach().requires_grad_() for tensor in tensors.values()]


@NAMES
@pytest.mark.parametrize("layout", ["rows", "feature map", "channels last"])
class TestOperators:
    def test_opcheck(self, name: str, layout: str) -> None:
        tensors = {argument: laid_out(tensor, layout) for argument, tensor in draw(name).items()}
        module = ATTENTIONS[name][0]
        torch.library.opcheck(module.forward_op, (*as_leaves(tensors), 0.7))
        *outs, lse = module.forward_op(*tensors.values(), 0.7)
        grads = [torch.ones_like(out) for out in outs]
        torch.library.opcheck(module.backward_op, (*grads, *tensors.values(), *outs, lse, 0.7))

    def test_the_result_lies_as_the_query(self, name: str, layout: str) -> None:
        tensors = {argument: laid_out(tensor, layout) for argument, tensor in draw(name).items()}
        *outs, _ = ATTENTIONS[name][0].forward_op(*tensors.values(), 0.7)
        for out in outs:
            assert out.stride() == next(iter(tensors.values())).stride()  # as dv is d
            out.zero_()  # and belongs to the caller


@NAMES
class TestDerivative:
    def test_gradcheck(self, name: str) -> None:
        inputs = as_leaves(draw(name, "small", torch.float64))
        run = getattr(ATTENTIONS[name][0], name)
        assert torch.autograd.gradcheck(lambda *tensors: run(*tensors, 0.7), inputs)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
    def test_equals_the_formula(self, name: str, dtype: torch.dtype) -> None:
        module, reference = ATTENTIONS[name]
        tensors = draw(name, dtype=dtype)
        outs, gradients = backpropagate(getattr(module, name), tensors)
        wanted, wanted_gradients = backpropagate(reference.formula, {key: x.double() for key, x in tensors.items()})
        bound = {torch.float32: 1e-6, torch.float16: 2e-3, torch.bfloat16: 2e-2}[dtype]
        for x, wanted_x in zip([*outs, *gradients], [*wanted, *wanted_gradients], strict=True):
            assert x.dtype == dtype
            assert relative_rms(x, wanted_x) < bound

    def test_the_partition_in_parts_is_the_whole(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """What the kernels keep for their backward pass, against its formula, and without all logits at a time."""
        module, tensors = ATTENTIONS[name][0], draw(name, dtype=torch.float64)
        queries, key = [x for argument, x in tensors.items() if argument.startswith("query")], tensors["key"]
        expected = torch.stack([(0.7 * query @ key.mT).exp().sum(-1).log2() for query in queries])
        monkeypatch.setattr(reference, "ROWS", 2)
        torch.testing.assert_close(module.forward_op(*tensors.values(), 0.7)[-1], expected)
        with LargestTensor() as largest:
            reference.partition(queries[0], key, 0.7)
        logits_of_two_rows = queries[0].numel() // queries[0].shape[2] // queries[0].shape[3] * 2 * key.shape[2]
        assert largest.elements <= max(logits_of_two_rows, queries[0].numel(), key.numel())

    def test_only_once(self, name: str) -> None:
        inputs = as_leaves(draw(name, "small"))
        out = getattr(ATTENTIONS[name][0], name)(*inputs)
        total = out.sum() if isinstance(out, Tensor) else sum(x.sum() for x in out)
        (gradient,) = torch.autograd.grad(total, inputs[:1], create_graph=True)
        with pytest.raises(RuntimeError, match="can be differentiated once"):
            gradient.sum().backward()


@NAMES
class TestGraphs:
    def test_compiles_without_a_graph_break(self, name: str) -> None:
        run, tensors = getattr(ATTENTIONS[name][0], name), draw(name)
        torch.compiler.reset()
        actual = backpropagate(torch.compile(run, fullgraph=True, backend="aot_eager"), tensors)
        for xs, wanted in zip(actual, backpropagate(run, tensors), strict=True):
            for x, want in zip(xs, wanted, strict=True):
                torch.testing.assert_close(x, want)

    def test_exports_with_any_number_of_positions(self, name: str) -> None:
        run = getattr(ATTENTIONS[name][0], name)

        class Attend(torch.nn.Module):
            def forward(self, tensors: list[Tensor]) -> Any:
                return run(*tensors, 1.0)

        positions = torch.export.Dim("positions", min=2, max=4096)
        inputs = list(random_tensors(**ATTENTIONS[name][1].shapes(1, 1, 9, 9, 4, 4)).values())
        program = torch.export.export(Attend(), (inputs,), dynamic_shapes=([{2: positions} for _ in inputs],))
        assert f"fusionblocks.{name}_forward" in str(program.graph)
        for count in (9, 40):
            inputs = list(random_tensors(**ATTENTIONS[name][1].shapes(1, 1, count, count, 4, 4)).values())
            torch.testing.assert_close(program.module()(inputs), Attend()(inputs))


# the choice


@pytest.fixture
def hopper(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """A device of compute capability 9.0 on which nothing runs."""
    device = SimpleNamespace(major=9, minor=0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: device)
    monkeypatch.delenv("FUSIONBLOCKS_BACKEND", raising=False)
    with FakeTensorMode():
        yield device


def on_gpu(name: str, width: int = 8, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    shapes = ATTENTIONS[name][1].shapes(1, 2, 5, 7, width, width)
    return [torch.empty(shape, device="cuda", dtype=dtype) for shape in shapes.values()]


def test_two_streams_take_the_kernels_on_request(hopper: SimpleNamespace) -> None:
    tensors = on_gpu("dual_cross_attention")
    assert ops.explain("dual_cross_attention", *tensors).endswith(
        "(triton: serves when asked for, no such call was measured; sdpa: serves on a GPU)"
    )
    for out in ops.dual_cross_attention(*tensors, backend="triton"):
        assert (out.shape, out.device.type) == ((1, 2, 5, 8), "cuda")


def test_one_stream_takes_the_kernels_on_request(hopper: SimpleNamespace) -> None:
    tensors = on_gpu("cross_attention")
    assert ops.explain("cross_attention", *tensors).endswith(
        "(triton: serves when asked for, no such call was measured)"
    )
    assert ops.cross_attention(*tensors, backend="triton").shape == (1, 2, 5, 8)


@NAMES
def test_refusals(name: str, hopper: SimpleNamespace) -> None:
    def reason(*tensors: Tensor) -> str:
        with pytest.raises(RuntimeError, match=f"^{name} cannot run on the backend 'triton'") as error:
            getattr(ops, name)(*tensors, backend="triton")
        return str(error.value)

    assert single.refuse(on_gpu(name, 128)) is None
    assert "a head width of 129 is more than 128" in reason(*on_gpu(name, 129))
    assert "float64 is left to torch" in reason(*on_gpu(name, dtype=torch.float64))
    assert "a tensor is empty" in reason(*(tensor[:0] for tensor in on_gpu(name)))
    assert ON_CPU in reason(*(torch.empty(tensor.shape) for tensor in on_gpu(name)))
    hopper.major, hopper.minor = 7, 5
    assert "compute capability 8.0 is needed, the device has 7.5" in reason(*on_gpu(name))
