"""Diffusion: the noise that a network finds in a noisy picture."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from fusionblocks._support.checks import check_choice
from fusionblocks.losses._inputs import check_maps, full_precision


@full_precision
def noise_loss(
    noise_prediction: Tensor,
    noise: Tensor,
    *,
    norm: Literal["l1", "l2"] = "l2",
    reduction: Literal["mean", "sum"] = "mean",
) -> Tensor:
    r"""Return how far the predicted noise is from the noise that was added.

    .. math:: \operatorname{mean}\,(\hat\epsilon - \epsilon)^2

    The published module sums over the batch and all pixels and leaves the division to a file that was never released;
    ``reduction="sum"`` is that sum. The mean does not depend on the batch and the picture's size.

    Args:
        noise_prediction: What the network predicts, ``(B, C, H, W)``.
        noise: What was added, ``(B, C, H, W)``.
        norm: ``"l2"``, squared differences (its configuration), or ``"l1"``, absolute ones (the module's default).
        reduction: ``"mean"`` or ``"sum"``.

    Returns:
        A scalar, at least 0.

    Raises:
        TypeError: An argument is not a tensor, or not of a floating-point dtype.
        ValueError: The shapes differ, or an option is unknown.

    Reference:
        *SGDFuse* (2025), ``GaussianDiffusion.p_losses``.

    Example:
        >>> import torch
        >>> from fusionblocks.losses import noise_loss
        >>> noise_loss(torch.zeros(1, 3, 4, 4), torch.full((1, 3, 4, 4), 2.0))
        tensor(4.)
    """
    check_maps(noise_prediction=noise_prediction, noise=noise)
    check_choice("norm", norm, ("l1", "l2"))
    check_choice("reduction", reduction, ("mean", "sum"))
    error = noise_prediction - noise
    error = error.abs() if norm == "l1" else error.square()
    return error.mean() if reduction == "mean" else error.sum()


class NoiseLoss(nn.Module):
    """Module of :func:`noise_loss`.

    Args:
        norm: ``"l2"`` or ``"l1"``.
        reduction: ``"mean"`` or ``"sum"``.

    Example:
        >>> import torch
        >>> from fusionblocks.losses import NoiseLoss
        >>> NoiseLoss(norm="l1")(torch.zeros(1, 3, 4, 4), torch.full((1, 3, 4, 4), 2.0))
        tensor(2.)
    """

    def __init__(self, *, norm: Literal["l1", "l2"] = "l2", reduction: Literal["mean", "sum"] = "mean") -> None:
        super().__init__()
        self.norm: Literal["l1", "l2"] = norm
        self.reduction: Literal["mean", "sum"] = reduction

    def forward(self, noise_prediction: Tensor, noise: Tensor) -> Tensor:
        """Return the loss, see :func:`noise_loss`."""
        return noise_loss(noise_prediction, noise, norm=self.norm, reduction=self.reduction)
