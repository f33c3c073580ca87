"""How far a module sees, worked out from the module that is there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from timm.layers import BatchNormAct2d, ConvMlp, ConvNormAct, LayerNorm2d
from torch import nn

from fusionblocks._support.modules import is_a, is_watched, keeps, plain_class

Rule = Callable[[Any], int | None]


def reach(module: nn.Module) -> int | None:
    """Return how many rows above and below a row a module sees, or None where that cannot be known.

    A module with a reach keeps the height and the width of its maps ``(B, C, H, W)``, and a row of what it returns
    depends on the rows of its inputs within the reach alone. So it may run on a strip of rows that has as many rows
    more at either side. A convolution's reach comes from its kernel, dilation and padding; a sequence's is the sum
    over its members; a block of this library tells its own in a method ``reach()`` beside its ``forward``.

    Anything else is unknown: norms and attention over the picture, other sizes, modules without a rule, subclasses
    that change what they inherit, modules with hooks.

    Args:
        module: Any module, in the mode in which it will run: a norm that is being trained sees the whole picture.

    Returns:
        Rows, 0 for a module that sees a pixel alone; None if they are unknown.

    Example:
        >>> from torch import nn
        >>> from fusionblocks.blocks import GradientResidualDense, TransformerBlock, reach
        >>> reach(nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 5, padding=4, dilation=2)))
        5
        >>> reach(GradientResidualDense(8))
        3
        >>> print(reach(TransformerBlock(8)), reach(nn.Conv2d(8, 8, 3, stride=2, padding=1)))
        None None
    """
    if is_watched(module):
        return None
    cls = plain_class(module)
    for base in cls.__mro__:
        if base in RULES or "reach" in vars(base):
            if not keeps(cls, base):
                return None
            return RULES[base](module) if base in RULES else module.reach()  # type: ignore[operator]
    return None


def in_a_row(*modules: nn.Module | int | None) -> int | None:
    """Return the reach of modules (or of what has a reach) that act one after the other."""
    return _known(sum, modules)


def side_by_side(*modules: nn.Module | int | None) -> int | None:
    """Return the reach of modules (or of what has a reach) that act on the same maps."""
    return _known(max, modules)


def _known(combine: Callable[[list[int]], int], modules: tuple[nn.Module | int | None, ...]) -> int | None:
    rows = [reach(module) if isinstance(module, nn.Module) else module for module in modules]
    return None if None in rows else combine([0, *rows])  # type: ignore[list-item]


def of_convolution(conv: nn.Conv2d, padded: int = 0) -> int | None:
    """Return the reach of a convolution, whose input was padded by ``padded`` rows and columns before it came."""
    if conv.stride != (1, 1) or conv.padding_mode == "circular":
        return None
    spans = [dilation * (size - 1) for dilation, size in zip(conv.dilation, conv.kernel_size, strict=True)]
    if conv.padding == "same":
        return spans[0] - spans[0] // 2 if padded == 0 else None
    padding: Any = (0, 0) if conv.padding == "valid" else conv.padding
    keeps_size = all(2 * (pad + padded) == span for pad, span in zip(padding, spans, strict=True))
    return spans[0] // 2 if keeps_size else None


def _of_pooling(pool: nn.MaxPool2d | nn.AvgPool2d) -> int | None:
    """A pooling that keeps the size, like a convolution."""

    def both(value: int | tuple[int, int]) -> tuple[int, int]:
        return value if isinstance(value, tuple) else (value, value)

    stride = pool.kernel_size if pool.stride is None else pool.stride
    if both(stride) != (1, 1) or getattr(pool, "return_indices", False):
        return None
    dilation, size, padding = both(getattr(pool, "dilation", 1)), both(pool.kernel_size), both(pool.padding)
    spans = [step * (length - 1) for step, length in zip(dilation, size, strict=True)]
    return spans[0] // 2 if all(2 * pad == span for pad, span in zip(padding, spans, strict=True)) else None


def _of_batch_norm(norm: nn.BatchNorm2d) -> int | None:
    """In evaluation a batch norm is an affine map, unless it has no statistics of its own."""
    if norm.training or norm.running_mean is None or norm.running_var is None:
        return None
    return in_a_row(*map(_behind, norm.children()))


def _of_softmax(softmax: nn.Softmax) -> int | None:
    return 0 if softmax.dim == 1 else None


def _of_sequence(members: nn.Sequential) -> int | None:
    """Members that act one after the other; one that stands there twice acts twice."""
    acting = [member for member in members if not is_a(member, nn.Identity)]
    return in_a_row(*acting[:1], *map(_behind, acting[1:]))


def _behind(member: nn.Module) -> int | None:
    """Return the reach of a module whose input is another one's fresh result, so that it may overwrite it."""
    in_place = getattr(member, "inplace", False) and any(is_a(member, cls) for cls in _OF_PIXEL)
    return 0 if in_place and not is_watched(member) else reach(member)


def _of_conv_mlp(module: ConvMlp) -> int | None:
    return in_a_row(module.fc1, module.norm, *map(_behind, (module.act, module.drop)), module.fc2)


def _of_conv_norm_act(module: ConvNormAct) -> int | None:
    return in_a_row(module.conv, _behind(module.bn), 0 if module.aa is None else module.aa)


def _of_pixel(module: nn.Module) -> int | None:
    """Act on every value, or every pixel's channels, by themselves (a dropout does nothing in evaluation).

    In place they would change their input, of which neighbouring strips share rows.
    """
    trained = isinstance(module, _DROPOUTS) and module.training
    return None if trained or getattr(module, "inplace", False) else 0


_DROPOUTS = (nn.Dropout, nn.Dropout2d, nn.AlphaDropout)
_OF_PIXEL = (
    *_DROPOUTS, nn.Identity, nn.CELU, nn.ELU, nn.GELU, nn.Hardshrink, nn.Hardsigmoid, nn.Hardswish, nn.Hardtanh,
    nn.LeakyReLU, nn.LogSigmoid, nn.Mish, nn.PReLU, nn.ReLU, nn.ReLU6, nn.SELU, nn.SiLU, nn.Sigmoid, nn.Softplus,
    nn.Softshrink, nn.Softsign, nn.Softmax2d, nn.Tanh, nn.Tanhshrink, nn.Threshold, nn.LocalResponseNorm, LayerNorm2d,
)  # fmt: skip

RULES: dict[type, Rule] = {
    **dict.fromkeys(_OF_PIXEL, _of_pixel),
    nn.Conv2d: of_convolution,
    nn.MaxPool2d: _of_pooling,
    nn.AvgPool2d: _of_pooling,
    nn.BatchNorm2d: _of_batch_norm,
    BatchNormAct2d: _of_batch_norm,
    nn.Softmax: _of_softmax,
    nn.Sequential: _of_sequence,
    ConvNormAct: _of_conv_norm_act,
    ConvMlp: _of_conv_mlp,
}
"""The reach of modules that are not this library's, by exact class or a subclass that changes nothing."""
