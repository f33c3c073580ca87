"""Attention between all pixels of a feature map and a few semantic tokens, in either direction."""

from __future__ import annotations

from torch import Tensor

from fusionblocks.ops._backend import Backend, Operator
from fusionblocks.ops.cross_attention import check_attention
from fusionblocks.ops.token_attention import binding, reference

_OPERATOR = Operator(
    "token_attention",
    Backend("triton", binding.token_attention, binding.refuse),
    Backend("torch", reference.token_attention),
)


def token_attention(
    query: Tensor, key: Tensor, value: Tensor, *, scale: float | None = None, backend: str | None = None
) -> Tensor:
    """Attend between a feature map and a few semantic tokens: ``softmax(scale * query @ key.T) @ value``.

    The formula and the layout are those of ``cross_attention``; this operator is for the case that one of the two
    sides is short, in either direction. Pixels that ask tokens are ``token_attention(pixels, tokens, tokens)``,
    tokens that ask pixels ``token_attention(tokens, pixels, pixels)``. Projections stay with the caller, or go to the
    tokens: ``folded_token_attention``.

    A single token as key has all the weight whatever the query is, so its value is handed to every position exactly,
    and neither query nor key is read; their gradients are exact zeros. With a triton backend, which wants at most 128
    positions on one of the two sides, the attention can be differentiated once.

    Args:
        query: ``(B, heads, Nq, d)``, the asking side; float64, float32, float16 or bfloat16.
        key: ``(B, heads, Nk, d)``, the side that is asked, dtype and device of ``query``. Under autocast all are cast
            to its dtype.
        value: ``(B, heads, Nk, dv)``.
        scale: Factor of the products; None is ``1 / sqrt(d)``.
        backend: ``"torch"``, ``"triton"``, ``"auto"``; None follows ``ops.backend`` and the environment.

    Returns:
        ``(B, heads, Nq, dv)``.

    Raises:
        TypeError: If an argument is not a floating-point tensor, dtypes differ, or ``scale`` is not a number.
        ValueError: If shapes or devices do not fit together, ``scale`` is not finite, or no backend has this name.
        RuntimeError: If the backend asked for cannot serve this call.

    Example:
        >>> import torch
        >>> from fusionblocks.ops import token_attention
        >>> pixels, tokens = torch.rand(1, 2, 35, 8), torch.rand(1, 2, 3, 8)
        >>> token_attention(pixels, tokens, tokens).shape
        torch.Size([1, 2, 35, 8])
        >>> token_attention(tokens, pixels, pixels).shape
        torch.Size([1, 2, 3, 8])
    """
    query, key, value = check_attention(query, key, value, scale)
    call = _OPERATOR.choose(backend, query, key, value)
    if key.shape[-2] == 1:
        return reference.one_token(query, key, value)
    return call(query, key, value, scale)
