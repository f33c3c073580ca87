"""Norms folded into the convolutions before them, and activations that overwrite a convolution's fresh result."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

from timm.layers import BatchNormAct2d, ConvNormAct
from timm.models.resnet import BasicBlock, Bottleneck
from torch import Tensor, nn

from fusionblocks._support.modules import is_a
from fusionblocks.blocks.funnel_stem import FunnelStem
from fusionblocks.models.psfusion.network import FunnelResNet
from fusionblocks.optimization.rewriting import Rewrite, like, rewrites


def affine(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Return scale and shift, each ``(C,)`` in float64, of a batch norm in evaluation with statistics of its own."""
    mean: Any = norm.running_mean
    variance: Any = norm.running_var
    scale = (variance.double() + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight.double()
    shift = -mean.double() * scale
    return scale, shift if norm.bias is None else shift + norm.bias.double()


def is_affine(norm: Any) -> bool:
    """Whether a module is a batch norm that acts as an affine map, an activation behind it perhaps."""
    return (
        (is_a(norm, nn.BatchNorm2d) or is_a(norm, BatchNormAct2d))
        and not norm.training
        and norm.running_mean is not None
        and norm.running_var is not None
    )


def can_fold(conv: Any, norm: Any) -> bool:
    """Whether a batch norm can be folded into a convolution."""
    return is_a(conv, nn.Conv2d) and is_affine(norm) and norm.num_features == conv.out_channels


def folded(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> nn.Conv2d:
    """Return a convolution that computes ``norm(conv(x))``, but for the activation of the norm."""
    scale, shift = affine(norm)
    if conv.bias is not None:
        shift = shift + scale * conv.bias.double()
    weight = (conv.weight.double() * scale[:, None, None, None]).to(conv.weight.dtype)
    return like(conv, weight, shift.to(conv.weight.dtype))


def in_order(module: Any) -> list[nn.Module]:
    """Return the modules that act one after the other in a sequence, or in timm's convolution, norm, activation."""
    if is_a(module, nn.Sequential):
        return [part for member in module for part in in_order(member)]
    if is_a(module, ConvNormAct):
        parts = (module.conv, module.bn, module.aa)
        return [part for member in parts if member is not None for part in in_order(member)]
    return [module]


ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.SiLU, nn.ELU)


def simplified(parts: Iterable[Any]) -> list[nn.Module]:
    """Return parts that do the same one after the other: norms folded, activations of fresh results in place."""
    result: list[Any] = []
    for part in parts:
        before = result[-1] if result else None
        if can_fold(before, part):
            result[-1] = folded(before, part)
            if is_a(part, BatchNormAct2d):
                result += simplified([result.pop(), part.drop, part.act])
        elif any(is_a(part, cls) for cls in ACTIVATIONS) and is_a(before, nn.Conv2d) and not part.inplace:
            part = copy.copy(part)
            part.inplace = True
            result.append(part)
        elif not is_a(part, nn.Identity):
            result.append(part)
    return result


class InOrder(Rewrite):
    """A sequence whose parts were simplified; the parts themselves stay what they were."""

    prepared: nn.Sequential

    @classmethod
    def fits(cls, module: nn.Module) -> bool:
        """Something becomes simpler, beyond members that do nothing."""
        before = [part for part in in_order(module) if not is_a(part, nn.Identity)]
        after = simplified(before)
        return len(before) != len(after) or any(a is not b for a, b in zip(before, after, strict=True))

    def prepare(self) -> None:
        """Simplify the parts."""
        self.prepared = nn.Sequential(*simplified(in_order(self)))

    def acting(self) -> Iterable[nn.Module]:
        """Return the simplified parts."""
        return self.prepared

    def forward(self, x: Tensor) -> Tensor:
        """Apply the simplified parts."""
        return self.prepared(x)


@rewrites(ConvNormAct)
class FoldedConvNormAct(InOrder, ConvNormAct):
    """timm's convolution, norm and activation."""


@rewrites(nn.Sequential)
class FoldedSequential(InOrder, nn.Sequential):
    """A sequence: it has the members that it had, whatever else is registered with it."""

    def named_children(self) -> Any:
        """Yield the members."""
        return ((name, child) for name, child in super().named_children() if name != "prepared")

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        # PyTorch moves and converts a module's children
        self.prepared._apply(fn, recurse)
        return super()._apply(fn, recurse)

    def __iter__(self) -> Any:
        return (child for name, child in self._modules.items() if name != "prepared")

    def __len__(self) -> int:
        return len(self._modules) - ("prepared" in self._modules)

    def __getitem__(self, index: Any) -> Any:
        members = list(self)
        return nn.Sequential(*members[index]) if isinstance(index, slice) else members[index]


class Twin(Rewrite):
    """A module that lets a twin compute: the same class and the same parts, but for those that were folded."""

    prepared: nn.Module

    def acting(self) -> Iterable[nn.Module]:
        """Return the twin, whose other parts are this module's."""
        return [self.prepared]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Let the twin compute."""
        return self.prepared(*args, **kwargs)


def twin_of(module: nn.Module, **parts: nn.Module) -> nn.Module:
    """Return a module of the class that this one computes the same as, which shares its parts but for some."""
    cls: Any = vars(type(module)).get("equals", type(module))
    twin = cls.__new__(cls)
    twin.__dict__.update(module.__dict__)
    twin._modules = {name: part for name, part in module._modules.items() if name != "prepared"} | parts
    return twin


class FoldedResidualBlock(Twin):
    """The norms of timm's residual block of two convolutions, or three in a bottleneck."""

    @staticmethod
    def _folded(block: nn.Module) -> dict[str, nn.Module]:
        parts: dict[str, nn.Module] = {}
        for number in "123":
            conv, norm = getattr(block, f"conv{number}", None), getattr(block, f"bn{number}", None)
            if can_fold(conv, norm) and is_a(norm, nn.BatchNorm2d):
                parts |= {f"conv{number}": folded(conv, norm), f"bn{number}": nn.Identity()}
        return parts

    @classmethod
    def fits(cls, module: nn.Module) -> bool:
        """There is a norm to fold."""
        return bool(cls._folded(module))

    def prepare(self) -> None:
        """Fold the norms in a twin."""
        self.prepared = twin_of(self, **self._folded(self))


@rewrites(BasicBlock)
class FoldedBasicBlock(FoldedResidualBlock, BasicBlock):
    """Two 3x3 convolutions."""


@rewrites(Bottleneck)
class FoldedBottleneck(FoldedResidualBlock, Bottleneck):
    """A 3x3 convolution between 1x1 ones."""


@rewrites(FunnelResNet)
class FoldedFunnelResNet(Twin, FunnelResNet):
    """The last convolution of the funnel stem takes in the ResNet's first norm."""

    @classmethod
    def fits(cls, module: Any) -> bool:
        """The stem ends in a convolution, and nobody else needs its half-resolution map."""
        return (
            is_a(module.stem, FunnelStem)
            and is_a(module.stem.half_resolution, nn.Sequential)
            and len(module.stem.half_resolution) > 0
            and can_fold(module.stem.half_resolution[-1], module.norm)
            and is_a(module.norm, nn.BatchNorm2d)
        )

    def prepare(self) -> None:
        """Fold the norm in a twin of the stem."""
        *others, last = self.stem.half_resolution
        half = nn.Sequential(*others, folded(last, self.norm))
        stem = twin_of(self.stem, half_resolution=half)
        self.prepared = twin_of(self, stem=stem, norm=nn.Identity())
