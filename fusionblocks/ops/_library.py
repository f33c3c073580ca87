"""Operators of PyTorch that launch kernels: one way to define them, for every folder's ``binding``.

Each kernel pass is an operator of the library ``fusionblocks``: PyTorch traces its shapes, differentiates it by the
operator of its backward pass, and calls the launch on a CUDA device. On a CPU it launches too where Triton interprets
its kernels; elsewhere the reference serves, and autograd of the reference is the derivative.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import wraps
from typing import Any, NoReturn

import torch
from torch import Tensor

from fusionblocks._support.autocast import autocast_enabled, no_autocast
from fusionblocks.ops import _triton

LIBRARY = torch.library.Library("fusionblocks", "DEF")
# a graph that was traced keeps the strides that it was traced with: results lie in memory as an input does
TAGS = (torch.Tag.pt2_compliant_tag, torch.Tag.needs_exact_strides)

Function = Callable[..., Any]


def define(schema: str, *, launch: Function, plain: Function, shapes: Function) -> Any:
    """Define an operator and return it.

    Args:
        schema: Its name and signature, such as ``"scale(Tensor x, float factor) -> Tensor"``.
        launch: Runs the kernels.
        plain: Computes the same in plain PyTorch.
        shapes: Allocates the results of both.
    """
    name = schema.partition("(")[0]
    LIBRARY.define(schema, tags=TAGS)
    LIBRARY.impl(name, _alone(launch), "CUDA")
    LIBRARY.impl(name, _alone(_interpreted_or(plain, launch)), "CPU")
    torch.library.register_fake(f"{LIBRARY.ns}::{name}", shapes, lib=LIBRARY)
    return getattr(getattr(torch.ops, LIBRARY.ns), name).default


def differentiate(forward: Any, *, save: Function, gradients: Function) -> None:
    """Give an operator a derivative, of which there is no second: a graph through it raises when it is followed.

    Args:
        forward: The operator.
        save: ``(ctx, inputs, output)``, keeps what the backward pass needs.
        gradients: ``(ctx, *grads)``, calls the operator of the backward pass and returns the gradients of all inputs.
    """

    class Differentiated(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *inputs: Any) -> Any:
            with torch._C._AutoDispatchBelowAutograd():
                output = forward(*inputs)
            save(ctx, inputs, output)
            return output

        @staticmethod
        def backward(ctx: Any, *grads: Any) -> Any:
            with torch.no_grad():
                found = gradients(ctx, *grads)
            if not torch.is_grad_enabled():
                return found
            return tuple(None if x is None else _Refusal.apply(x, *ctx.saved_tensors) for x in found)

    # what ``torch.library.register_autograd`` does too, with more work of the host in each call
    def run(*inputs: Any) -> Any:
        if torch.is_grad_enabled() and any(isinstance(x, Tensor) and x.requires_grad for x in inputs):
            return Differentiated.apply(*inputs)
        with torch._C._AutoDispatchBelowAutograd():
            return forward(*inputs)

    LIBRARY.impl(forward.name().partition("::")[2], run, "Autograd")


class _Refusal(torch.autograd.Function):
    """A gradient that does not depend on its inputs as far as autograd knows: it says so instead of giving zeros."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, *inputs: Tensor) -> Tensor:
        return gradient.view_as(gradient)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> NoReturn:
        raise RuntimeError(
            "attention by kernels can be differentiated once, a second derivative was asked for; "
            "backend='torch' differentiates channel attention any number of times"
        )


def derivative(function: Function, inputs: Sequence[Any], grads: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Return the gradients of the reference by those of its inputs that are tensors.

    Args:
        function: The reference, of all inputs.
        inputs: Tensors and other arguments.
        grads: Gradients of its results.
    """

    def differentiated() -> tuple[Tensor, ...]:
        leaves = [x.detach().requires_grad_() if isinstance(x, Tensor) else x for x in inputs]
        results = function(*leaves)
        results = (results,) if isinstance(results, Tensor) else results
        tensors = [x for x in leaves if isinstance(x, Tensor)]
        return torch.autograd.grad(results, tensors, grads, materialize_grads=True)

    # An operator is called below autograd, which a dispatch mode around it shuts out for good. A thread starts afresh.
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(differentiated).result()


def fill(rooms: Sequence[Tensor], values: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Put values into the memory that was allocated for them, the last of which may stay empty."""
    for room, value in zip(rooms, values, strict=False):
        room.copy_(value)
    return tuple(rooms)


def _interpreted_or(plain: Function, launch: Function) -> Function:
    def run(*arguments: Any) -> Any:
        return (launch if _triton.interpreting() else plain)(*arguments)

    return run


def _alone(function: Function) -> Function:
    """Run a function on its tensors' device and without autocast, which would round small float32 matrices."""

    @wraps(function)
    def run(*arguments: Any) -> Any:
        device = arguments[0].device
        if device.type == "cuda" and device.index != torch.cuda.current_device():
            with torch.cuda.device(device):
                return run(*arguments)
        if autocast_enabled(device.type):
            with no_autocast(device.type):
                return function(*arguments)
        return function(*arguments)

    return run
