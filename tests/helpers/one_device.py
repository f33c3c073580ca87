"""A device on which everything has to stay: what a network must keep to for a CUDA graph to capture it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

READS = {torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default}


@contextmanager
def staying_on(device: str) -> Iterator[None]:
    """Raise within the block where something comes from another device, or waits for a value of this one."""
    with NoData(), OneDevice(device):
        yield


class NoData(TorchFunctionMode):
    """Raises where numbers of Python become a tensor: they would be copied to the device."""

    def __torch_function__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        if function in (torch.tensor, torch.as_tensor, torch.from_numpy, torch.asarray):
            raise AssertionError(f"torch.{function.__name__} copies {args[0]} to the device")
        return function(*args, **(kwargs or {}))


class OneDevice(TorchDispatchMode):
    """Raises where an operation touches a tensor of another device, or reads a value."""

    def __init__(self, device: str) -> None:
        super().__init__()
        self.device = torch.device(device)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        if function in READS:
            raise AssertionError(f"{function} reads a value that the device has still to compute")
        result = function(*args, **(kwargs or {}))
        tensors = [x for x in tree_leaves((args, kwargs, result)) if isinstance(x, Tensor)]
        # a number of an expression goes to the device as an argument
        strangers = [x for x in tensors if x.device != self.device and x.ndim > 0]
        if strangers:
            shapes = [tuple(x.shape) for x in strangers]
            raise AssertionError(f"{function} meets tensors of {strangers[0].device} with shapes {shapes}")
        return result
