"""Pixels that ask tokens through folded projections, in plain PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor


def folded_token_attention(
    image: Tensor, key: Tensor, value: Tensor, bias: Tensor | None = None, residual: bool = False
) -> Tensor:
    """Compute ``sum_h softmax_t(key @ image + bias)^T @ value``, the sum over heads inside one matrix product."""
    heads = key.shape[1]
    rows = key.flatten(1, 2)  # (B, heads T, C)
    if bias is None:
        logits = rows @ image
    else:
        logits = torch.baddbmm(bias.flatten(1)[..., None], rows, image)
    weights = logits.unflatten(1, (heads, -1)).softmax(2).flatten(1, 2)  # (B, heads T, N)
    columns = value.flatten(1, 2).mT  # (B, C_out, heads T)
    return torch.baddbmm(image, columns, weights) if residual else columns @ weights


def one_token(image: Tensor, key: Tensor, value: Tensor, bias: Tensor | None = None, residual: bool = False) -> Tensor:
    """Compute the same over a single token, whose weight is 1 whatever is asked: no product over the pixels."""
    # Sums over no columns: exact zeros of the right shape that tie image, key and bias to the result for autograd.
    answer = value.sum(1).mT + key[..., :0].sum((1, 3))[..., None]
    if bias is not None:
        answer = answer + bias[:, :, :0].sum((1, 2))[:, None, None]
    return answer + (image if residual else image[:, :0].sum(1, keepdim=True))
