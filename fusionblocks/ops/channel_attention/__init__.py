"""Attention between channels: a C x C matrix of cosines over all positions."""

from __future__ import annotations

import torch
from torch import Tensor

from fusionblocks._support.autocast import cast_for_autocast
from fusionblocks._support.checks import check_rank, check_same_kind, check_same_sizes
from fusionblocks.ops._backend import Backend, Operator
from fusionblocks.ops.channel_attention import binding, reference

_OPERATOR = Operator(
    "channel_attention",
    Backend("triton", binding.channel_attention, binding.refuse),
    Backend("torch", reference.channel_attention),
)


def channel_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    temperature: Tensor,
    *,
    projection: Tensor | None = None,
    backend: str | None = None,
) -> Tensor:
    """Mix the channels of each head by the cosines between query and key channels.

    ``softmax(temperature * normalize(query) @ normalize(key).T) @ value``, where each channel is normalised by its L2
    norm over all positions (at least 1e-12). The normalised tensors never exist: the C x C products are divided by
    the norms. A channel of zeros has cosine 0 with every other.

    On CUDA devices kernels serve float32, float16 and bfloat16 and heads of up to 64 channels: they read query, key
    and value once and write the result once, from and to any strides, repeat bitwise, and can be differentiated once;
    ``backend="torch"`` differentiates any number of times. Products of float32 are exact unless PyTorch's switches
    (``torch.set_float32_matmul_precision``) allow TF32.

    Args:
        query: ``(B, heads, C, N)``, N positions of any number; float64, float32, float16 or bfloat16.
        key: ``(B, heads, C, N)``, dtype and device of ``query``. Under autocast all three are cast to its dtype.
        value: ``(B, heads, C, N)``.
        temperature: ``(heads, 1, 1)``, factor of the cosines; dtype of ``query``, or float32.
        projection: ``(out_channels, heads * C)``, weight of a 1x1 convolution over the concatenated heads that
            follows the attention. It is multiplied into the C x C matrices, which saves one pass over the feature
            map; the result equals ``conv2d`` of the plain result without bias.
        backend: ``"torch"``, ``"triton"``, ``"auto"``; None follows ``ops.backend`` and the environment.

    Returns:
        ``(B, heads, C, N)`` in ``value``'s dtype, or ``(B, out_channels, N)`` with a projection.

    Raises:
        TypeError: If an argument is not a floating-point tensor, or dtypes differ.
        ValueError: If shapes or devices do not fit together, or no backend has this name.
        RuntimeError: If the backend asked for cannot serve this call.

    Reference:
        "Restormer: Efficient Transformer for High-Resolution Image Restoration" (2022), class ``Attention``; in
        fusion SMFNet's ``Attention`` and ``Cross_Trans_Attention``.

    Example:
        >>> import torch
        >>> from fusionblocks.ops import channel_attention
        >>> query, key, value = torch.rand(3, 1, 2, 4, 35).unbind()
        >>> channel_attention(query, key, value, torch.ones(2, 1, 1)).shape
        torch.Size([1, 2, 4, 35])
        >>> channel_attention(query, key, value, torch.ones(2, 1, 1), projection=torch.rand(6, 8)).shape
        torch.Size([1, 6, 35])
    """
    layout = "(B, heads, C, N)"
    check_rank(layout, query=query, key=key, value=value)
    check_same_sizes({"B": 0, "heads": 1, "C": 2, "N": 3}, query=query, key=key, value=value)
    check_rank("(heads, 1, 1)", temperature=temperature)
    heads, channels = query.shape[1:3]
    if tuple(temperature.shape) != (heads, 1, 1):
        raise ValueError(f"temperature must have shape (heads, 1, 1)={(heads, 1, 1)}, got {tuple(temperature.shape)}")
    query, key, value = cast_for_autocast(query, key, value)
    check_same_kind(query=query, key=key, value=value)
    _check_temperature_kind(temperature, query)
    if projection is not None:
        check_rank("(out_channels, heads * C)", projection=projection)
        if projection.shape[1] != heads * channels:
            raise ValueError(
                f"projection must have shape (out_channels, heads * C)=(out_channels, {heads * channels}), "
                f"got {tuple(projection.shape)}"
            )
        (projection,) = cast_for_autocast(projection)
        check_same_kind(query=query, projection=projection)
    tensors = (query, key, value, temperature) if projection is None else (query, key, value, temperature, projection)
    run = _OPERATOR.choose(backend, *tensors)
    return run(query, key, value, temperature, projection)


def _check_temperature_kind(temperature: Tensor, query: Tensor) -> None:
    """Raise unless ``temperature`` is on the query's device and of its dtype or float32."""
    if temperature.device != query.device:
        raise ValueError(f"temperature must be on the device of query, {query.device}, got {temperature.device}")
    if temperature.dtype not in (query.dtype, torch.float32):
        raise TypeError(
            f"temperature must be float32 or have the dtype of query, {query.dtype}, got {temperature.dtype}"
        )
