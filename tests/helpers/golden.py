"""Golden cases: inputs, outputs and gradients of the published implementations, weights filled by a fixed rule.

``manifest.json`` names, for each case, the published class and its state dict's keys with shapes; a case's arrays
lie in ``<case>.npz`` (``in_<input>``, ``<output>``, ``grad_<input>``). A gradient belongs to the sum over all outputs
of ``output * rule_input("cot:" + name, shape, -1, 1)``.
"""

from __future__ import annotations

import functools
import json
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

GOLDEN = Path(__file__).parents[1] / "golden"

FORWARD = {"rtol": 1e-4, "atol": 2e-5}
GRADIENT = {"rtol": 1e-3, "atol": 1e-4}


@dataclass(frozen=True)
class GoldenCase:
    """One case: ``inputs`` and ``outputs`` by name, ``gradients`` of some inputs, published weights in ``state``."""

    name: str
    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]
    gradients: dict[str, Tensor]
    state: dict[str, Tensor]


def rule_weight(key: str, shape: list[int]) -> Tensor:
    """Return the tensor that fills the published parameter or buffer ``key``, seeded by its name."""
    leaf = key.rpartition(".")[2]
    if leaf == "num_batches_tracked":
        return torch.zeros(shape, dtype=torch.int64)
    normal = np.random.RandomState(zlib.crc32(key.encode())).standard_normal(shape).astype(np.float32)
    if leaf == "running_var":
        filled = 1 + 0.2 * np.abs(normal)
    elif leaf in ("temperature", "scale"):
        filled = 1 + 0.2 * normal
    elif leaf.startswith("gamma"):
        filled = 0.5 + 0.1 * normal
    elif len(shape) > 1:
        filled = normal / np.sqrt(float(np.prod(shape[1:])))
    elif leaf == "weight":
        filled = 1 + 0.1 * normal
    else:
        filled = 0.1 * normal
    return torch.from_numpy(np.asarray(filled, np.float32))


def rule_input(name: str, shape: tuple[int, ...], low: float = 0.0, high: float = 1.0) -> Tensor:
    """Return the uniform input called ``name``."""
    uniform = np.random.RandomState(zlib.crc32(f"input:{name}".encode())).random_sample(tuple(shape))
    return torch.from_numpy((low + (high - low) * uniform).astype(np.float32))


@functools.cache
def _manifest() -> dict:
    return json.loads((GOLDEN / "manifest.json").read_text())["cases"]


def load_case(name: str) -> GoldenCase:
    """Return a golden case by name."""
    entry = _manifest()[name]
    with np.load(GOLDEN / f"{name}.npz") as file:
        arrays = {key: torch.from_numpy(file[key]) for key in file.files}
    return GoldenCase(
        name=name,
        inputs={key: arrays[f"in_{key}"] for key in entry["inputs"]},
        outputs={key: arrays[key] for key in entry["outputs"]},
        gradients={key[5:]: value for key, value in arrays.items() if key.startswith("grad_")},
        state={key: rule_weight(key, shape) for key, shape in entry.get("state", {}).items()},
    )


def cotangent_loss(outputs: dict[str, Tensor]) -> Tensor:
    """Return the scalar whose input gradients the golden cases hold."""
    return sum((out * rule_input(f"cot:{name}", tuple(out.shape), -1, 1)).sum() for name, out in outputs.items())


def assert_close(actual: Tensor, expected: Tensor, what: str, *, rtol: float, atol: float) -> None:
    """Compare with a message that says which tensor differs, where and by how much."""
    torch.testing.assert_close(actual, expected, rtol=rtol, atol=atol, msg=lambda text: f"{what}: {text}")
