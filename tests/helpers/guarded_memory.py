"""Tensors between guard rows of NaN: what a kernel that Triton interprets reads or writes beyond a tensor is seen."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from torch import Tensor

GUARD = 4096  # numbers on either side: more than a tile reaches over the end of a row


class Guards:
    """Allocates tensors in the middle of larger ones and checks that what is around them stays NaN."""

    def __init__(self) -> None:
        self.around: list[tuple[Tensor, Tensor]] = []  # a tensor with its guards, and which numbers are guards

    def empty(self, shape: Sequence[int], strides: Sequence[int] | None, dtype: torch.dtype) -> Tensor:
        """Allocate a tensor of NaN between NaN; the strides are those of rows unless they are given."""
        strides = contiguous_strides(shape) if strides is None else strides
        reach = 1 + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
        size = 0 if 0 in shape else reach
        whole = torch.full((size + 2 * GUARD,), math.nan, dtype=dtype)
        inside = whole.as_strided(shape, strides, GUARD)
        owned = torch.full(whole.shape, False, dtype=torch.bool)
        owned.as_strided(shape, strides, GUARD).fill_(True)
        self.around.append((whole, ~owned))
        return inside

    def holding(self, tensor: Tensor, strides: Sequence[int] | None = None) -> Tensor:
        """Return the same numbers between guards, as a tensor that owns no more than itself."""
        return self.empty(tensor.shape, strides, tensor.dtype).copy_(tensor)

    def check(self) -> None:
        """Fail if anything was written beside a tensor."""
        assert self.around
        for whole, outside in self.around:
            assert whole[outside].isnan().all(), "a kernel wrote beyond its tensor"

    def check_addresses(self, addresses: np.ndarray, access: str) -> None:
        """Fail if one of these addresses is that of a guard."""
        for whole, outside in self.around:
            offsets = (addresses.astype(np.int64) - whole.data_ptr()) // whole.element_size()
            inside = offsets[(offsets >= 0) & (offsets < whole.numel())]
            assert not outside.numpy()[inside].any(), f"a kernel {access} beyond its tensor"

    @contextmanager
    def allocating(self) -> Iterator[None]:
        """Let what is allocated within the block lie between guards too, and check all of them at its end."""

        def empty(*shape: Any, dtype: torch.dtype | None = None, device: Any = None, **_: Any) -> Tensor:
            return self.empty(sizes(shape), None, dtype or torch.float32)

        def empty_like(like: Tensor, **_: Any) -> Tensor:
            return self.empty(like.shape, dense_strides(like), like.dtype)

        def new_empty(like: Tensor, *shape: Any, dtype: torch.dtype | None = None, **_: Any) -> Tensor:
            return self.empty(sizes(shape), None, dtype or like.dtype)

        def new_empty_strided(like: Tensor, shape: Sequence[int], strides: Sequence[int], **_: Any) -> Tensor:
            return self.empty(shape, strides, like.dtype)

        interpreter = pytest.importorskip("triton.runtime.interpreter").InterpreterBuilder
        load, store = interpreter.create_masked_load, interpreter.create_masked_store

        def checked_load(builder: Any, pointers: Any, mask: Any, *rest: Any) -> Any:
            self.check_addresses(pointers.data[mask.data], "read")
            return load(builder, pointers, mask, *rest)

        def checked_store(builder: Any, pointers: Any, value: Any, mask: Any, *rest: Any) -> Any:
            self.check_addresses(pointers.data[mask.data], "wrote")
            return store(builder, pointers, value, mask, *rest)

        with (
            mock.patch.object(interpreter, "create_masked_load", checked_load),
            mock.patch.object(interpreter, "create_masked_store", checked_store),
            mock.patch.object(torch, "empty", empty),
            mock.patch.object(torch, "empty_like", empty_like),
            mock.patch.object(Tensor, "new_empty", new_empty),
            mock.patch.object(Tensor, "new_empty_strided", new_empty_strided),
        ):
            yield
        self.check()


EMPTY_LIKE: Callable[..., Tensor] = torch.empty_like


def sizes(shape: tuple[Any, ...]) -> tuple[int, ...]:
    return tuple(shape[0]) if len(shape) == 1 and not isinstance(shape[0], int) else shape


def contiguous_strides(shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(math.prod(shape[i + 1 :]) for i in range(len(shape)))


def dense_strides(like: Tensor) -> tuple[int, ...]:
    """Return the strides that ``empty_like`` gives: dimensions in the order of memory, without gaps."""
    return EMPTY_LIKE(like, device="meta").stride()
