"""What ``python -m benchmarks.run`` measures is declared data: cases, each with its implementations and their check."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

Call = Callable[[], Sequence[Tensor]]
"""One run of an implementation on inputs that are ready; returns what is compared (results, then gradients)."""

PUBLISHED = "published"
COMPILED = ", compiled"

HALVES = ("bfloat16", "float16")
DTYPES = {"float32": torch.float32, "tf32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class DisagreementError(Exception):
    """An implementation's results differ too much from the truth."""


@dataclass(frozen=True)
class Agreement:
    """How far an implementation is from the truth: relative RMS (operators) or largest difference and PSNR (networks).

    Args:
        difference: The difference that is held against ``limit``.
        limit: Its largest allowed value.
        psnr: Peak signal-to-noise ratio in dB where pictures are compared, else None.
        least_psnr: Its least allowed value.
    """

    difference: float
    limit: float
    psnr: float | None = None
    least_psnr: float | None = None

    @property
    def holds(self) -> bool:
        """Whether it is close enough; never where a NaN came."""
        if self.psnr is not None and self.least_psnr is not None:
            return self.psnr >= self.least_psnr
        return self.difference <= self.limit

    def __str__(self) -> str:
        if self.psnr is not None and self.least_psnr is not None:
            return f"PSNR {self.psnr:.1f} dB, less than {self.least_psnr:.0f}"
        return f"differs by {self.difference:.1e}, more than {self.limit:.0e}"


class Case(Protocol):
    """A row group of a table: one problem, several implementations of it."""

    @property
    def name(self) -> str:
        """The operator or network, by which the command line chooses."""

    @property
    def shapes(self) -> str:
        """The sizes, in words."""

    @property
    def precision(self) -> str:
        """A key of ``DTYPES``."""

    @property
    def passes(self) -> str:
        """``forward`` or ``forward+backward``."""

    @property
    def devices(self) -> tuple[str, ...]:
        """Types of the devices it is meant for."""

    @property
    def floor_bytes(self) -> int | None:
        """What has to be read and written at least, where that is known."""

    @property
    def seconds(self) -> float:
        """Time to spend on each implementation."""

    def small(self) -> Case:
        """Return the same at a size that takes no time."""

    def implementations(self, place: str) -> Sequence[str]:
        """Return the names of what is compared on a type of device, the baseline first."""

    def prepare(self, names: Sequence[str], device: torch.device) -> dict[str, Call]:
        """Make inputs, the same for all, and return an implementation each, ready to run."""

    def truth(self, device: torch.device) -> Sequence[Tensor] | None:
        """Return what all implementations should give; None if the baseline's results say it."""

    def agreement(self, implementation: str, got: Sequence[Tensor], truth: Sequence[Tensor]) -> Agreement:
        """Compare results with the truth."""


def allow_tf32(precision: str) -> None:
    """Set PyTorch's switch for float32 matrix products as a case wants it."""
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = precision == "tf32"


def compiled(function: Callable[..., object]) -> Callable[..., object]:
    """Compile for the shapes at hand."""
    return torch.compile(function, dynamic=False)


def relative_rms(got: Sequence[Tensor], truth: Sequence[Tensor]) -> float:
    """Return the largest relative RMS difference over several tensors, NaN if one holds a NaN or is missing."""
    if len(got) != len(truth) or any(a.shape != b.shape for a, b in zip(got, truth)):
        return float("nan")
    shares = [
        ((a.double() - b.double()).square().mean() / b.double().square().mean()).sqrt() for a, b in zip(got, truth)
    ]
    return torch.stack(shares).max().item()  # max of a NaN is NaN


def forward_and_backward(function: Callable[..., Sequence[Tensor]], inputs: Sequence[Tensor]) -> Call:
    """Return a call that runs a function and pulls fixed cotangents back to the floating-point inputs."""
    inputs = [x.detach().requires_grad_() for x in inputs]
    cotangents: list[Tensor] = []

    def run() -> Sequence[Tensor]:
        outputs = function(*inputs)
        if not cotangents:
            generator = torch.Generator().manual_seed(1)
            cotangents.extend(torch.randn(x.shape, generator=generator).to(x) for x in outputs)
        gradients = torch.autograd.grad(outputs, inputs, cotangents, allow_unused=True)
        zeros = (torch.zeros_like(x) if gradient is None else gradient for x, gradient in zip(inputs, gradients))
        return [*(x.detach() for x in outputs), *zeros]

    return run


def forward_only(function: Callable[..., Sequence[Tensor]], inputs: Sequence[Tensor]) -> Call:
    """Return a call that runs a function without a graph."""
    return torch.no_grad()(partial(function, *inputs))
