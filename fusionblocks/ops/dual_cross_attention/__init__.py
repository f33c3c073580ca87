"""Two attentions over positions that share one key: the exchange between two modalities."""

from __future__ import annotations

from torch import Tensor

from fusionblocks._support.autocast import cast_for_autocast
from fusionblocks._support.checks import check_number, check_rank, check_same_kind, check_same_sizes
from fusionblocks.ops._backend import Backend, Operator, on_gpus
from fusionblocks.ops.dual_cross_attention import binding, reference

_OPERATOR = Operator(
    "dual_cross_attention",
    Backend("triton", binding.dual_cross_attention, binding.refuse),
    Backend("sdpa", reference.both_at_once, judge=on_gpus),
    Backend("torch", reference.dual_cross_attention),
)


def dual_cross_attention(
    query_a: Tensor,
    query_b: Tensor,
    key: Tensor,
    value_a: Tensor,
    value_b: Tensor,
    *,
    scale: float | None = None,
    backend: str | None = None,
) -> tuple[Tensor, Tensor]:
    """Attend from two streams to the positions of one shared key, each stream with values of its own.

    ``softmax(scale * query_s @ key.T) @ value_s`` for both streams s; no ``Nq x Nk`` matrix is kept.

    Args:
        query_a: ``(B, heads, Nq, d)``, query of the first stream; float64, float32, float16 or bfloat16.
        query_b: Query of the second stream, of the same shape.
        key: ``(B, heads, Nk, d)``, shared by both streams.
        value_a: ``(B, heads, Nk, dv)``, value of the first stream.
        value_b: Value of the second stream, of the same shape.
        scale: Factor of the products; None is ``1 / sqrt(d)``. PSFusion has no scale: pass 1.
        backend: ``"torch"``, one attention after the other; ``"sdpa"``, both as heads of one; ``"triton"`` (CUDA,
            widths up to 128, not float64, differentiable once); ``"auto"``; None follows ``ops.backend`` and the
            environment.

    Returns:
        The results of both streams, each ``(B, heads, Nq, dv)``.

    Raises:
        TypeError: If an argument is not a floating-point tensor, dtypes differ, or ``scale`` is not a number.
        ValueError: If shapes or devices do not fit together, ``scale`` is not finite, or no backend has this name.
        RuntimeError: If the backend asked for cannot serve this call.

    Reference:
        "Rethinking the necessity of image fusion in high-level vision tasks" (2023), class ``GEFM`` of PSFusion, in
        whose words a modality's K is the query here, and the shared Q the key.

    Example:
        >>> import torch
        >>> from fusionblocks.ops import dual_cross_attention
        >>> query_a, query_b, key, value_a, value_b = torch.rand(5, 1, 1, 35, 8).unbind()
        >>> out_a, out_b = dual_cross_attention(query_a, query_b, key, value_a, value_b, scale=1.0)
        >>> out_a.shape
        torch.Size([1, 1, 35, 8])
    """
    check_rank("(B, heads, Nq, d)", query_a=query_a, query_b=query_b)
    check_rank("(B, heads, Nk, d)", key=key)
    check_rank("(B, heads, Nk, dv)", value_a=value_a, value_b=value_b)
    check_same_sizes({"B": 0, "heads": 1, "Nq": 2, "d": 3}, query_a=query_a, query_b=query_b)
    check_same_sizes({"B": 0, "heads": 1, "d": 3}, query_a=query_a, key=key)
    check_same_sizes({"B": 0, "heads": 1, "Nk": 2}, key=key, value_a=value_a)
    check_same_sizes({"B": 0, "heads": 1, "Nk": 2, "dv": 3}, value_a=value_a, value_b=value_b)
    if scale is not None:
        check_number("scale", scale)
    query_a, query_b, key, value_a, value_b = cast_for_autocast(query_a, query_b, key, value_a, value_b)
    check_same_kind(query_a=query_a, query_b=query_b, key=key, value_a=value_a, value_b=value_b)
    run = _OPERATOR.choose(backend, query_a, query_b, key, value_a, value_b)
    return run(query_a, query_b, key, value_a, value_b, scale)
