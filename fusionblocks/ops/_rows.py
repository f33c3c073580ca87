"""Where the kernels serve by themselves: rows that a benchmark wrote on a GPU, one for each call that it measured.

The file ``measured.csv`` beside this module has, for an operator, a direction (forward, or forward and backward) and a
dtype, the numbers of all inputs together, whether the results were right, and how many times faster the kernels were
than the best of PyTorch. A call is judged by the row of its operator, direction and dtype that is nearest in size, if
it is near enough.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from importlib import resources
from typing import NamedTuple

import torch
from torch import Tensor

from fusionblocks.ops import _triton

FILE = "measured.csv"
FORWARD, BOTH = "forward", "forward and backward"
NEAR = 8  # how many times larger or smaller than a measured call another may be to be judged by it


class Row(NamedTuple):
    """One measured call, and the sizes for which it speaks."""

    operator: str
    direction: str
    dtype: str
    size: int
    right: bool
    faster: float
    device: str
    torch: str
    triton: str
    least: float
    most: float

    @property
    def serves(self) -> bool:
        return self.right and self.faster > 1

    def __str__(self) -> str:
        found = f"measured at {self.faster:.2f}x the speed of PyTorch's best" if self.right else "measured to be wrong"
        where = f"{self.device}, torch {self.torch}, triton {self.triton}"
        return f"{found} with {self.size:.2g} numbers of {self.dtype}, {self.direction}, on {where}"


def read(text: str) -> dict[tuple[str, str, str], tuple[Row, ...]]:
    """Return the rows of a file by operator, direction and dtype, the smallest first."""
    rows: dict[tuple[str, str, str], list[Row]] = {}
    for line in sorted(csv.DictReader(text.splitlines()), key=lambda line: int(line["size"])):
        size = int(line["size"])
        row = Row(
            line["operator"],
            line["direction"],
            line["dtype"],
            size,
            line["right"] == "yes",
            float(line["faster"]),
            line["device"],
            line["torch"],
            line["triton"],
            least=size / NEAR,
            most=size * NEAR,
        )
        smaller = rows.setdefault((row.operator, row.direction, row.dtype), [])
        if smaller:
            between = math.sqrt(smaller[-1].size * row.size)  # half way, on a scale of ratios
            smaller[-1] = smaller[-1]._replace(most=min(smaller[-1].most, between))
            row = row._replace(least=max(row.least, between))
        smaller.append(row)
    return {kind: tuple(found) for kind, found in rows.items()}


ROWS = read(resources.files("fusionblocks.ops").joinpath(FILE).read_text())


def nearest(operator: str, tensors: Sequence[Tensor]) -> Row | None:
    """Return the row that a call is judged by, or None where nothing like it was measured."""
    learns = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
    size = sum(tensor.numel() for tensor in tensors)
    for row in ROWS.get((operator, BOTH if learns else FORWARD, dtype_of(tensors[0])), ()):
        if row.least <= size <= row.most:
            return row
    return None


def dtype_of(tensor: Tensor) -> str:
    """Return the dtype of a row: that of a tensor, or TF32 where float32 is multiplied so."""
    if tensor.dtype == torch.float32 and _triton.input_precision() == "tf32":
        return "tf32"
    return str(tensor.dtype).removeprefix("torch.")
