"""Networks made fast for inference: the same outputs from folded, merged and re-ordered arithmetic."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from fusionblocks._support.names import closest
from fusionblocks.models.base import FusionModel, FusionOutput, copied, output_names
from fusionblocks.optimization import (  # noqa: F401  (each declares fast classes)
    channel_attention,
    detail,
    experts,
    folding,
    graph_reasoning,
    psfusion,
    sgafusion,
)
from fusionblocks.optimization.cuda_graphs import with_graphs
from fusionblocks.optimization.rewriting import convert, rewrite

__all__ = ["optimize"]

Module = TypeVar("Module", bound=nn.Module)
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@dataclasses.dataclass(frozen=True)
class Settings:
    """How a network was optimized; kept in its ``optimization``."""

    dtype: torch.dtype | None
    outputs: frozenset[str] | None
    """The extras of :class:`FusionOutput` to keep, None for all."""


def optimize(
    model: Module,
    dtype: torch.dtype | None = None,
    *,
    outputs: Sequence[str] | None = None,
    cuda_graph: bool = False,
) -> Module:
    """Return a copy of a network that computes the same, faster and in less memory, for inference alone.

    Norms are folded into the convolutions before them, convolutions with nothing between them composed, branches
    that see the same input merged, and weights laid out channels-last. On a CPU, chains of operations that see a
    few rows only are run strip by strip, in the processor's cache. Without a ``dtype`` the outputs stay equal up to
    the order of summation, and errors stay as they were.

    Any module will do: a network of this library, edited or not, one of your own, a single block. Each part that
    is what a rewrite relies on is made faster; anything else is left alone, and so is what somebody watches or
    changes: modules with hooks, parametrized or pruned weights, quantized or compiled parts.

    The copy has other weights than the network, so it can be neither trained nor saved: save the original.

    Args:
        model: A network or any other module; it is not changed. A guide that is attached to it is shared, not copied.
        dtype: ``torch.bfloat16`` or ``torch.float16`` computes in that, which costs accuracy, and returns float32;
            None keeps the network's precision, ``torch.float32`` converts to it. On a CPU float16 is slow.
        outputs: The extras of :class:`~fusionblocks.FusionOutput` to compute beside ``fused``, for example
            ``("fused",)`` for none or ``("fused", "segmentation")``; the others are None. By default all. It is for
            a :class:`~fusionblocks.FusionModel` alone.
        cuda_graph: Record the forward pass as a CUDA graph for each shape of the inputs, and replay it: a GPU need not
            wait for the host between kernels. The copy's ``cuda_graphs`` says how many recordings are kept, whether
            results are copies, and frees them; what cannot be recorded runs as usual, with a warning. Change weights in
            place or by ``load_state_dict`` alone.

    Returns:
        The copy, of the same class or one that is derived from it, in evaluation mode; nothing in it requires
        gradients.

    Raises:
        TypeError: If ``model`` is not a module, ``outputs`` is a string, or ``cuda_graph`` is not a bool.
        ValueError: If ``dtype`` is another one, or ``outputs`` names something that is not an output, or ``model`` has
            none of these.

    Example:
        >>> import torch
        >>> import fusionblocks as fb
        >>> model = fb.SGAFusion(channels=4, semantic_channels=8).eval()
        >>> fast = fb.optimize(model, outputs=("fused",))
        >>> inputs = torch.rand(1, 1, 9, 7), torch.rand(1, 3, 9, 7), torch.rand(1, 8)
        >>> torch.allclose(fast(*inputs).fused, model(*inputs).fused, atol=1e-4)
        True
        >>> fast(*inputs).segmentation is None
        True
        >>> block = fb.optimize(fb.SDFM(8, 8))
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    if dtype is not None and dtype not in DTYPES:
        raise ValueError(f"dtype must be None, torch.float32, torch.bfloat16 or torch.float16, got {dtype}")
    if outputs is not None and not isinstance(model, FusionModel):
        raise ValueError(f"outputs are those of a FusionModel, got outputs={outputs!r} for a {type(model).__name__}")
    if not isinstance(cuda_graph, bool):
        raise TypeError(f"cuda_graph must be a bool, got {type(cuda_graph).__name__}")
    before: Settings | None = getattr(model, "optimization", None)

    fast: Any = copied(model).eval().requires_grad_(False)
    for parameter in fast.parameters():
        parameter.grad = None
    fast.optimization = Settings(
        dtype=dtype if dtype is not None or before is None else before.dtype,
        outputs=_wanted(outputs) if outputs is not None or before is None else before.outputs,
    )
    if isinstance(fast, FusionModel):
        fast._wanted = fast.optimization.outputs
    if before is None:
        rewrite(fast)
        fast.save_pretrained = _refuse_to_save
        fast.register_forward_pre_hook(_cast_inputs, with_kwargs=True)
        fast.register_forward_hook(_finish)
    if cuda_graph and not hasattr(fast, "cuda_graphs"):
        with_graphs(fast)
    return convert(fast, dtype).to(memory_format=torch.channels_last)


def _wanted(outputs: Sequence[str] | None) -> frozenset[str] | None:
    if outputs is None:
        return None
    if isinstance(outputs, str):
        raise TypeError(f"outputs must be a sequence of names such as ({outputs!r},), got a string")
    known = output_names()
    for name in outputs:
        if name not in known:
            raise ValueError(
                f"outputs must name fields of FusionOutput, got {name!r}{closest(str(name), known)}; "
                f"known: {', '.join(known)}"
            )
    return frozenset(outputs)


def _cast_inputs(model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    dtype = model.optimization.dtype
    dtype = dtype and getattr(model, "input_dtype", dtype)
    return (args, kwargs) if dtype is None else _cast((args, kwargs), dtype)


def _finish(model: Any, args: tuple[Any, ...], output: Any) -> Any:
    """Keep the outputs that are wanted, in float32 where the network computes in less."""
    settings: Settings = model.optimization
    if settings.outputs is not None and isinstance(output, FusionOutput):
        extras = {field.name for field in dataclasses.fields(output)} - {"fused"}
        unwanted: dict[str, Any] = dict.fromkeys(extras - settings.outputs)
        output = dataclasses.replace(output, **unwanted)
    return output if settings.dtype is None else _cast(output, torch.float32)


_cast_inputs.is_neutral = _finish.is_neutral = True  # type: ignore[attr-defined]


def _cast(values: Any, dtype: torch.dtype) -> Any:
    """Return a structure of values with every floating-point tensor in a dtype."""

    def cast(value: Any) -> Any:
        return value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value

    return tree_map(cast, values)


def _refuse_to_save(*args: Any, **kwargs: Any) -> None:
    raise RuntimeError("an optimized network cannot be saved, its weights are folded: save the original")
