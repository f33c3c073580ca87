"""Attention between positions of two feature maps, without a matrix of positions by positions in memory."""

from __future__ import annotations

from torch import Tensor

from fusionblocks._support.autocast import cast_for_autocast
from fusionblocks._support.checks import check_number, check_rank, check_same_kind, check_same_sizes
from fusionblocks.ops._backend import Backend, Operator
from fusionblocks.ops.cross_attention import binding, reference

_OPERATOR = Operator(
    "cross_attention",
    Backend("triton", binding.cross_attention, binding.refuse),
    Backend("torch", reference.cross_attention),
)


def cross_attention(
    query: Tensor, key: Tensor, value: Tensor, *, scale: float | None = None, backend: str | None = None
) -> Tensor:
    """Let every query position gather values from all key positions: ``softmax(scale * query @ key.T) @ value``.

    Neither the forward nor the backward pass keeps the ``Nq x Nk`` matrix, whatever the tensors' strides and widths.

    Args:
        query: ``(B, heads, Nq, d)``; float64, float32, float16 or bfloat16.
        key: ``(B, heads, Nk, d)``, dtype and device of ``query``. Under autocast all are cast to its dtype.
        value: ``(B, heads, Nk, dv)``.
        scale: Factor of the products; None is ``1 / sqrt(d)``.
        backend: ``"torch"``, ``"triton"`` (CUDA, widths up to 128, not float64, differentiable once), ``"auto"``;
            None follows ``ops.backend`` and the environment.

    Returns:
        ``(B, heads, Nq, dv)``.

    Raises:
        TypeError: If an argument is not a floating-point tensor, dtypes differ, or ``scale`` is not a number.
        ValueError: If shapes or devices do not fit together, ``scale`` is not finite, or no backend has this name.
        RuntimeError: If the backend asked for cannot serve this call.

    Example:
        >>> import torch
        >>> from fusionblocks.ops import cross_attention
        >>> infrared, visible = torch.rand(1, 2, 20, 8), torch.rand(1, 2, 35, 8)
        >>> cross_attention(infrared, visible, visible).shape
        torch.Size([1, 2, 20, 8])
    """
    query, key, value = check_attention(query, key, value, scale)
    return _OPERATOR.choose(backend, query, key, value)(query, key, value, scale)


def check_attention(query: Tensor, key: Tensor, value: Tensor, scale: float | None) -> tuple[Tensor, ...]:
    """Check the arguments of an attention over positions and return the tensors, cast under autocast."""
    check_rank("(B, heads, Nq, d)", query=query)
    check_rank("(B, heads, Nk, d)", key=key)
    check_rank("(B, heads, Nk, dv)", value=value)
    check_same_sizes({"B": 0, "heads": 1, "d": 3}, query=query, key=key)
    check_same_sizes({"B": 0, "heads": 1, "Nk": 2}, key=key, value=value)
    if scale is not None:
        check_number("scale", scale)
    query, key, value = cast_for_autocast(query, key, value)
    check_same_kind(query=query, key=key, value=value)
    return query, key, value
