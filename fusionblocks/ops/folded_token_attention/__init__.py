"""Attention of all pixels over a few tokens, with the projections of the block folded into the tokens."""

from __future__ import annotations

from torch import Tensor

from fusionblocks._support.autocast import cast_for_autocast
from fusionblocks._support.checks import check_rank, check_same_kind, check_same_sizes
from fusionblocks.ops._backend import Backend, Operator
from fusionblocks.ops.folded_token_attention import binding, reference

_OPERATOR = Operator(
    "folded_token_attention",
    Backend("triton", binding.folded_token_attention, binding.refuse),
    Backend("torch", reference.folded_token_attention),
)


def folded_token_attention(
    image: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor | None = None,
    *,
    residual: bool = False,
    backend: str | None = None,
) -> Tensor:
    """Let every pixel ask a few tokens: ``sum over heads of softmax(key @ image + bias).T @ value``, per pixel.

    An attention block projects each pixel to a query, ``Wq x + bq``, and its answer by ``Wo``. Both are linear and
    there are few tokens, so they fold into the tokens' side: the logits ``scale * k . (Wq x + bq)`` are
    ``key = scale * Wq^T k`` against the pixel itself plus ``bias = scale * bq . k``, and ``value`` is ``Wo v``, the
    columns of ``Wo`` being the head's own. What is left reads the feature map once and writes it once, and no query or
    answer of a head is ever stored. A block gains by it where ``(heads - 1) * T`` is below the channels.

    A single token has all the weight whatever is asked: the sum of its values is handed to every pixel exactly, and
    the gradients of ``image`` (but for the residual), ``key`` and ``bias`` are exact zeros. With a triton backend it
    can be differentiated once.

    Args:
        image: ``(B, C, N)``, N pixels; float64, float32, float16 or bfloat16.
        key: ``(B, heads, T, C)``, dtype and device of ``image``. Under autocast all are cast to its dtype.
        value: ``(B, heads, T, C_out)``.
        bias: ``(B, heads, T)``, added to the logits; None adds nothing.
        residual: Add ``image`` to the result; ``C_out`` must be ``C``.
        backend: ``"torch"``, ``"triton"``, ``"auto"``; None follows ``ops.backend`` and the environment.

    Returns:
        ``(B, C_out, N)``.

    Raises:
        TypeError: If an argument is not a floating-point tensor, dtypes differ, or ``residual`` is not a bool.
        ValueError: If shapes or devices do not fit together, there is no token, or no backend has this name.
        RuntimeError: If the backend asked for cannot serve this call.

    Example:
        >>> import torch
        >>> from fusionblocks.ops import folded_token_attention
        >>> image, key, value = torch.rand(1, 8, 35), torch.rand(1, 2, 3, 8), torch.rand(1, 2, 3, 4)
        >>> folded_token_attention(image, key, value).shape
        torch.Size([1, 4, 35])
    """
    check_rank("(B, C, N)", image=image)
    check_rank("(B, heads, T, C)", key=key)
    check_rank("(B, heads, T, C_out)", value=value)
    _check_sizes(image, key, value, bias, residual)
    tensors = cast_for_autocast(image, key, value, *(() if bias is None else (bias,)))
    image, key, value = tensors[:3]
    bias = None if bias is None else tensors[3]
    check_same_kind(image=image, key=key, value=value, **({} if bias is None else {"bias": bias}))
    call = _OPERATOR.choose(backend, *tensors)
    return (reference.one_token if key.shape[2] == 1 else call)(image, key, value, bias, residual)


def _check_sizes(image: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, residual: bool) -> None:
    for name, of_key, of_image in (("B", 0, 0), ("C", 3, 1)):
        if key.shape[of_key] != image.shape[of_image]:
            raise ValueError(
                f"key must have {name}={image.shape[of_image]} like image of shape {tuple(image.shape)}, "
                f"got key of shape {tuple(key.shape)}"
            )
    if key.shape[2] < 1:
        raise ValueError(f"key must have at least one token, got key of shape {tuple(key.shape)}")
    check_same_sizes({"B": 0, "heads": 1, "T": 2}, key=key, value=value)
    if bias is not None:
        check_rank("(B, heads, T)", bias=bias)
        check_same_sizes({"B": 0, "heads": 1, "T": 2}, key=key, bias=bias)
    if not isinstance(residual, bool):
        raise TypeError(f"residual must be a bool, got {type(residual).__name__}")
    if residual and value.shape[3] != image.shape[1]:
        raise ValueError(
            f"value must have C_out={image.shape[1]} like the C of image where residual is asked for, "
            f"got value of shape {tuple(value.shape)}"
        )
