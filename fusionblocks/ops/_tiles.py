"""Launches a kernel with the first tiles, of a few settings, that the compiler at hand fits into the device.

How many registers a kernel takes, and so how many bytes of them it spills into slow memory, is known once it has been
compiled, and differs from one release of Triton to the next, as the shared memory does. So a launcher names its
settings, the best first, and the choice between them is made here, when the first call of its kind arrives. Later calls
of the kind launch the compiled kernel itself, without Triton's own look-up. Nothing here imports triton.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple, TypeVar
from weakref import WeakKeyDictionary

from torch import Tensor

MOST_SPILLED = 64  # bytes a thread; what a larger tile saves in loads is worth a few registers in the cache
REMEMBERED = 4096  # choices, after which they are made anew
WARPS_OF_A_GROUP = 4  # that Hopper's matrix units serve together
# products of TF32 in Hopper's instructions for groups of warps
GROUP_PRODUCT_OF_TF32 = re.compile(r"wgmma\.mma_async\S*\.tf32")

Setting = TypeVar("Setting", bound=Hashable)

_CHOICES: dict[Hashable, Any] = {}
_SPILLED: WeakKeyDictionary[Any, int | None] = WeakKeyDictionary()


class Launch(NamedTuple):
    """One launch with one setting, and what the launcher wants back of it."""

    programs: int
    arguments: tuple[Any, ...]
    constants: dict[str, Any]
    results: Any = None


def launch(
    kernel: Any, settings: tuple[Setting, ...], call: tuple[Any, ...], prepare: Callable[[Setting], Launch]
) -> Any:
    """Launch a kernel with the first setting that fits, on the current device.

    Args:
        kernel: A function compiled by Triton.
        settings: The best first; at least one.
        call: What the compiled code depends on beside the setting: tensors, of which layout and alignment count, sizes
            and switches.
        prepare: Makes room for the results and returns the launch with a setting. It is called for every setting that
            is tried.

    Returns:
        ``results`` of the launch.

    Raises:
        RuntimeError: If the device has no room for any setting.
    """
    if type(kernel).__name__ == "InterpretedFunction":
        plan = prepare(settings[0])
        kernel[(plan.programs,)](*plan.arguments, **plan.constants)
        return plan.results
    key = (kernel.fn, settings, *map(_kind, call))
    choice = _CHOICES.get(key)
    if choice is None:
        choice = choose(kernel, settings, prepare)
        if len(_CHOICES) >= REMEMBERED:
            _CHOICES.clear()
        _CHOICES[key] = choice
    setting, compiled, constants = choice
    plan = prepare(setting)
    compiled[(plan.programs, 1, 1)](*plan.arguments, *constants)
    return plan.results


def choose(
    kernel: Any, settings: tuple[Setting, ...], prepare: Callable[[Setting], Launch]
) -> tuple[Setting, Any, tuple[Any, ...]]:
    """Compile one setting after the other and return the first that fits, or else the one that spills least.

    Returns:
        The setting, the kernel compiled for it, and the constants in the order of the kernel's arguments.
    """
    best: tuple[int, Any] | None = None
    for setting in settings:
        plan = prepare(setting)
        compiled = kernel.warmup(*plan.arguments, grid=(plan.programs,), **plan.constants)
        spilled = spilled_bytes(compiled)
        if spilled is None or divides_columns_of_tf32(compiled):
            continue
        if best is None or spilled < best[0]:
            names = kernel.arg_names[len(plan.arguments) :]
            best = spilled, (setting, compiled, tuple(plan.constants[name] for name in names))
        if spilled <= MOST_SPILLED:
            break
    if best is None:
        raise RuntimeError(f"{kernel.__name__} does not fit into this device with any of its tiles: {settings}")
    choice: tuple[Setting, Any, tuple[Any, ...]] = best[1]
    return choice


def spilled_bytes(compiled: Any) -> int | None:
    """Return the bytes that each thread of a compiled kernel spills, or None if the device has no room for it."""
    if compiled not in _SPILLED:
        try:
            compiled.run  # noqa: B018  (loads it; a second time it would not say that there is no room)
        except Exception as error:
            if type(error).__name__ != "OutOfResources":  # Triton's: shared memory, threads or tensor memory
                raise
            _SPILLED[compiled] = None
        else:
            _SPILLED[compiled] = 4 * int(compiled.n_spills)  # which counts registers
    return _SPILLED[compiled]


def divides_columns_of_tf32(compiled: Any) -> bool:
    """Return whether several groups of warps share the columns of TF32 products.

    One such kernel read beyond its memory on a GPU (Triton 3.6, compute capability 9.0) though its masks are right, and
    another gave wrong results: none is trusted.
    """
    several = compiled.metadata.num_warps > WARPS_OF_A_GROUP
    return several and GROUP_PRODUCT_OF_TF32.search(compiled.asm["ptx"]) is not None


def ceildiv(size: int, tile: int) -> int:
    """Return how many tiles cover a size."""
    return -(-size // tile)


def power_of_two(size: int) -> int:
    """Return the least power of two of at least this size."""
    return 1 << (size - 1).bit_length()


def _kind(part: Any) -> Hashable:
    if isinstance(part, Tensor):
        return part.device, part.dtype, part.shape, part.stride(), part.data_ptr() % 16
    return part
