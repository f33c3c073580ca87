"""Norms of a trained network, folded into the convolutions before them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from timm.layers import BatchNormAct2d, ConvNormAct
from timm.models.resnet import BasicBlock, Bottleneck
from torch import Tensor, nn

from fusionblocks.blocks._double_norm import DoubleNormConv
from fusionblocks.models.psfusion import FunnelResNet


def affine(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Return scale and shift, each ``(C,)`` in float64, of a batch norm in evaluation."""
    if norm.running_mean is None or norm.running_var is None:
        raise ValueError("a batch norm without running statistics cannot be folded")
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    if norm.affine:
        scale = scale * norm.weight.double()
    shift = -norm.running_mean.double() * scale
    return scale, shift + norm.bias.double() if norm.affine else shift


def fold_norm(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    """Make ``conv`` compute ``norm(conv(x))`` in evaluation."""
    scale, shift = affine(norm)
    if conv.bias is not None:
        shift = shift + scale * conv.bias.double()
    conv.weight = frozen((conv.weight.double() * scale[:, None, None, None]).to(conv.weight.dtype))
    conv.bias = frozen(shift.to(conv.weight.dtype))


def frozen(value: Tensor) -> nn.Parameter:
    """Return a parameter that is not trained."""
    return nn.Parameter(value.detach(), requires_grad=False)


def _fold_conv_norm_act(module: nn.Module) -> None:
    """Fold the norm of timm's convolution, norm and activation; an anti-aliasing layer behind them stays."""
    if _can_fold(module.conv, module.bn):
        fold_norm(module.conv, module.bn)
        module.bn = _activation(module.bn)


def _fold_residual_block(block: nn.Module) -> None:
    """Fold the norms of timm's residual block of two convolutions (three in a bottleneck) and of its shortcut."""
    for conv_name, norm_name in (("conv1", "bn1"), ("conv2", "bn2"), ("conv3", "bn3")):
        conv, norm = getattr(block, conv_name, None), getattr(block, norm_name, None)
        if _can_fold(conv, norm):
            fold_norm(conv, norm)
            setattr(block, norm_name, nn.Identity())
    if isinstance(block.downsample, nn.Sequential):
        _fold_in_sequence(block.downsample)


def _fold_double_norm(block: nn.Module) -> None:
    """The two norms in a row of PSFusion's decoders: the first is folded by now."""
    first, norm = block[0], block[1]
    if isinstance(first.bn, nn.Identity):
        fold_norm(first.conv, norm)
        block[1] = _activation(norm)


def _fold_funnel(encoder: nn.Module) -> None:
    """The last convolution of the funnel stem and the ResNet's first norm."""
    conv = encoder.stem.half_resolution[-1]
    if _can_fold(conv, encoder.norm):
        fold_norm(conv, encoder.norm)
        encoder.norm = nn.Identity()


def _fold_in_sequence(layers: nn.Module) -> None:
    """A convolution followed by a norm in an ``nn.Sequential``."""
    names = [*layers._modules]
    for name, after in zip(names, names[1:], strict=False):
        if type(layers) is nn.Sequential and _can_fold(layers._modules[name], layers._modules[after]):
            fold_norm(layers._modules[name], layers._modules[after])
            layers._modules[after] = _activation(layers._modules[after])


def _can_fold(conv: nn.Module | None, norm: nn.Module | None) -> bool:
    return (
        type(conv) is nn.Conv2d
        and type(norm) in (nn.BatchNorm2d, BatchNormAct2d)
        and norm.num_features == conv.out_channels
        and norm.running_var is not None
        and not _hooked(conv)
        and not _hooked(norm)
    )


def _hooked(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)


def _activation(norm: nn.Module) -> nn.Module:
    """Return what is left of a norm once its affine map is folded."""
    return norm.act if isinstance(norm, BatchNormAct2d) else nn.Identity()


FOLDS: dict[type[nn.Module], Callable[[nn.Module], None]] = {
    ConvNormAct: _fold_conv_norm_act,
    BasicBlock: _fold_residual_block,
    Bottleneck: _fold_residual_block,
    DoubleNormConv: _fold_double_norm,
    FunnelResNet: _fold_funnel,
    nn.Sequential: _fold_in_sequence,
}
"""What to fold in a module of exactly this type, its children being folded already."""


@torch.no_grad()
def fold_norms(module: nn.Module) -> None:
    """Fold every norm below ``module`` that follows a convolution, in place; the result is equal in evaluation."""
    for child in module.children():
        fold_norms(child)
    fold = FOLDS.get(type(module))
    if fold is not None:
        fold(module)
