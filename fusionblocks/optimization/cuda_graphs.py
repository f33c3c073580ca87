"""Forward passes as CUDA graphs: recorded once per input shape, replayed without the host's work between kernels."""

from __future__ import annotations

import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from fusionblocks._support.autocast import autocast_enabled
from fusionblocks._support.modules import plain_class
from fusionblocks.models.base import FusionModel
from fusionblocks.optimization.fusing import fusing

WARM_UPS = 3  # runs before a recording: kernels are compiled and chosen, and the allocator finds its sizes


class Recording(NamedTuple):
    """A graph, the tensors that it reads, and the structure that it leaves its results in."""

    graph: Any
    inputs: list[Tensor]
    outputs: Any


class CudaGraphs:
    """The recordings of one network; an optimized copy has them as its attribute ``cuda_graphs``.

    A recording belongs to the shapes, dtypes and layouts of the inputs and to PyTorch's switches at the time. Calls
    from several threads wait for each other. What cannot be recorded runs as it would without, and a warning says the
    reason once: inputs on another device or that require gradients, autocast, a network with a guide, an operation that
    no graph can hold.

    Args:
        most: Recordings that are kept; the one that was not used for longest is dropped for a new one. Each holds the
            memory of its inputs, and all share that of their intermediate results.
        copies: Whether results are the caller's own. Without copies they are overwritten by the next call.

    Example:
        >>> from fusionblocks.optimization.cuda_graphs import CudaGraphs
        >>> CudaGraphs(most=2)
        CudaGraphs(most=2, copies=True), 0 recorded
    """

    def __init__(self, most: int = 8, copies: bool = True) -> None:
        if not isinstance(most, int) or most < 1:
            raise ValueError(f"most must be a positive integer, got {most!r}")
        self.most = most
        self.copies = copies
        self._lock = threading.Lock()
        self.clear()

    def clear(self) -> None:
        """Forget all recordings and free their memory."""
        with self._lock:
            self._recordings: OrderedDict[Any, Recording | str] = OrderedDict()
            self._told: set[str] = set()
            self._pool: Any = None
            self._used: Any = None  # an event: when the last results had been read

    def call(self, module: nn.Module, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        """Return ``function(*args, **kwargs)`` of a module's ``(args, kwargs)``, from a recording where one can be."""
        if torch.compiler.is_compiling():
            args, kwargs = arguments
            return function(*args, **kwargs)
        leaves, structure = tree_flatten(arguments)
        tensors = [x for x in leaves if isinstance(x, Tensor)]
        reason = refusal(module, tensors)
        if reason is None:
            with self._lock, torch.cuda.device(tensors[0].device):
                recording = self._recording(function, leaves, structure)
                if isinstance(recording, Recording):
                    return self._replay(recording, tensors)
            reason = recording
        if reason not in self._told:
            self._told.add(reason)
            warnings.warn(f"{type(module).__name__} runs without CUDA graphs: {reason}", stacklevel=4)
        args, kwargs = arguments
        return function(*args, **kwargs)

    def _recording(self, function: Callable[..., Any], leaves: list[Any], structure: TreeSpec) -> Recording | str:
        """Return the recording for these inputs, made now if need be, or the reason why it cannot be made."""
        key = (str(structure), switches(), *(kind(x) for x in leaves))
        found = self._recordings.get(key)
        if found is None:
            if len(self._recordings) >= self.most:
                self._recordings.popitem(last=False)
            found = self._record(function, leaves, structure)
            self._recordings[key] = found
        self._recordings.move_to_end(key)
        return found

    def _record(self, function: Callable[..., Any], leaves: list[Any], structure: TreeSpec) -> Recording | str:
        with torch.inference_mode(False), torch.no_grad():  # else what is recorded could not be written to outside
            own = [torch.empty_like(x).copy_(x) if isinstance(x, Tensor) else x for x in leaves]
            inputs = [x for x in own if isinstance(x, Tensor)]
            args, kwargs = tree_unflatten(own, structure)
            for fuse in (True, False):  # without a compiler for the tails, they run as they are
                try:
                    with fusing(fuse):
                        graph, outputs = record(lambda: function(*args, **kwargs), self._shared_pool)
                    return Recording(graph, inputs, outputs)
                except (TypeError, ValueError):  # of bad input
                    raise
                except Exception as error:
                    reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        return f"an operation cannot be recorded ({reason})"

    def _replay(self, recording: Recording, tensors: list[Tensor]) -> Any:
        stream = torch.cuda.current_stream()
        if self._used is not None:  # another thread's stream may still be reading
            stream.wait_event(self._used)
        with torch.no_grad():
            for own, tensor in zip(recording.inputs, tensors, strict=True):
                own.copy_(tensor)
            recording.graph.replay()
            results = recording.outputs
            if self.copies:
                leaves, structure = tree_flatten(results)
                results = tree_unflatten([x.clone() if isinstance(x, Tensor) else x for x in leaves], structure)
        self._used = stream.record_event()
        return results

    @property
    def _shared_pool(self) -> Any:
        """Memory of all recordings: results are copied before the next one runs."""
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        return self._pool

    def __repr__(self) -> str:
        recorded = sum(isinstance(found, Recording) for found in self._recordings.values())
        return f"CudaGraphs(most={self.most}, copies={self.copies}), {recorded} recorded"

    def __deepcopy__(self, memo: dict[int, Any]) -> CudaGraphs:
        return CudaGraphs(self.most, self.copies)

    def __reduce__(self) -> tuple[Any, ...]:
        return CudaGraphs, (self.most, self.copies)


def record(function: Callable[[], Any], pool: Any) -> tuple[Any, Any]:
    """Run a function a few times, then record it on the current device; return the graph and its results."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(WARM_UPS):
            function()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    # what other threads do on the device meanwhile is not our concern
    with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
        outputs = function()
    return graph, outputs


def refusal(module: nn.Module, tensors: list[Tensor]) -> str | None:
    """Return why a call cannot be recorded, or None."""
    if not tensors:
        return "there is no tensor among the inputs"
    for tensor in tensors:
        if not tensor.is_cuda:
            return f"inputs are on {tensor.device.type}"
        if tensor.device != tensors[0].device:
            return "inputs are on several devices"
        if tensor.requires_grad and torch.is_grad_enabled():
            return "inputs require gradients"
    if any(part._guide for part in module.modules() if isinstance(part, FusionModel)):
        return "a guide is attached, which reads its pictures on the CPU"
    if autocast_enabled("cuda"):
        return "autocast is on, which keeps its casts of the weights where a recording does not see them"
    if torch.cuda.is_current_stream_capturing():
        return "a graph is being recorded around it"
    return None


def switches() -> tuple[Any, ...]:
    """Return those of PyTorch's settings that decide which kernels run."""
    return (
        torch.backends.cuda.matmul.fp32_precision,
        torch.backends.cudnn.conv.fp32_precision,  # type: ignore[attr-defined]
        torch.are_deterministic_algorithms_enabled(),
    )


def kind(leaf: Any) -> Any:
    """Return what of an argument a recording depends on."""
    if isinstance(leaf, Tensor):
        return leaf.device, leaf.dtype, leaf.shape, leaf.stride()
    return type(leaf), repr(leaf)


_CLASSES: dict[type, type] = {}


def with_graphs(model: Any) -> None:
    """Let a network's forward pass replay recordings, in place; its class stays one of the same."""
    cls: Any = type(model)
    if cls not in _CLASSES:

        def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
            return self.cuda_graphs.call(self, partial(cls.forward, self), (args, kwargs))

        def _apply(self: Any, *args: Any, **kwargs: Any) -> Any:
            self.cuda_graphs.clear()  # weights that move leave their addresses
            return cls._apply(self, *args, **kwargs)

        body = {"equals": plain_class(model), "forward": forward, "_apply": _apply, "__module__": cls.__module__}
        _CLASSES[cls] = type(cls.__name__, (cls,), body)
    model.cuda_graphs = CudaGraphs()
    model.__class__ = _CLASSES[cls]
