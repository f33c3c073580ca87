"""What several processes share: their accelerator, objects gathered from all of them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from accelerate import Accelerator


def open_accelerator(
    device: str | torch.device | None = None, precision: str = "no", timeout: float = 600.0
) -> Accelerator:
    """Return an accelerator, by default on a GPU if there is one.

    Args:
        device: Where to compute; None lets accelerate choose, which takes the process's own GPU.
        precision: ``"no"``, ``"fp16"`` or ``"bf16"``.
        timeout: Seconds after which a process that waits for another one gives up.
    """
    try:
        from accelerate import Accelerator
        from accelerate.state import AcceleratorState
        from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("training needs accelerate: pip install 'fusionblocks[train]'") from error
    place = None if device is None else torch.device(device)
    if place is not None and place.type == "cuda":
        torch.cuda.set_device(place)  # accelerate takes the current one
    AcceleratorState._reset_state()  # a run before this one, in this process, may have had another precision
    # a phase may leave parts of the network alone
    handlers = [
        DistributedDataParallelKwargs(find_unused_parameters=True),
        InitProcessGroupKwargs(timeout=timedelta(seconds=timeout)),
    ]
    return Accelerator(
        cpu=place is not None and place.type == "cpu", mixed_precision=precision, kwargs_handlers=handlers
    )


def gather_objects(value: Any) -> list[Any]:
    """Return the values of all processes, in their order."""
    from accelerate.utils import gather_object

    return gather_object([value])


def move(batch: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """Return a batch with its tensors on a device."""
    return {
        name: value.to(device, non_blocking=True) if isinstance(value, Tensor) else value
        for name, value in batch.items()
    }
