"""What all tests share: no network, no GPU where there is none."""

from __future__ import annotations

import os

import pytest

# Before huggingface_hub is imported anywhere: no test reaches for the network.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip ``gpu`` tests on a machine without a CUDA device, ``kernel`` tests where the interpreter cannot run."""
    kernel = [item for item in items if item.get_closest_marker("kernel")]
    if kernel and os.environ.get("TRITON_INTERPRET") == "1" and not interpreter_takes_this_numpy():
        for item in kernel:
            item.add_marker(pytest.mark.skip(reason="Triton 3.6's interpreter does not take NumPy 2.4 or later"))
    gpu = [item for item in items if item.get_closest_marker("gpu")]
    if not gpu:
        return
    import torch

    if not torch.cuda.is_available():
        for item in gpu:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


def interpreter_takes_this_numpy() -> bool:
    """Return whether Triton's interpreter can make numbers of arrays of one element, as that of 3.6 does."""
    triton = pytest.importorskip("triton")
    import numpy as np

    numpy = tuple(int(part) for part in np.__version__.split(".")[:2])
    return numpy < (2, 4) or tuple(int(part) for part in triton.__version__.split(".")[:2]) >= (3, 7)
