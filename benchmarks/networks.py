"""The networks as declared data: sizes, weights and inputs, and the implementations that are compared.

The weights are random, strong enough to carry a signal, and every constant among them (gains of zero, norms of one) is
moved away from it, so that all parts of a network act on the result and the check of agreement can see them.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

import fusionblocks as fb
from benchmarks.cases import COMPILED, DTYPES, HALVES, PUBLISHED, Agreement, Call, allow_tf32, compiled, forward_only
from benchmarks.published_networks import publish

BLOCKS = "fusionblocks"
OPTIMIZED = "optimized"
FUSED_ALONE = "optimized, fused alone"
GRAPH = "optimized, fused alone, graph"
"""Recorded as a CUDA graph, results copied, as ``optimize(cuda_graph=True)`` gives it."""
REPLAY = "optimized, fused alone, replay"
"""The graph by itself: no inputs and no results are copied."""
LIMIT = 1e-4
"""Largest difference of the fused picture and all other maps to those of the published formulation in float32."""
LIMITS = {"float32": LIMIT, "tf32": 3e-2}
LEAST_PSNR = 45.0
"""Least PSNR of the fused picture in dB where an implementation computes in 16 bits; that of the published formulation
is shown beside it and not held to it."""
ROWS = "optimized, fused alone, rows"
"""With weights and features laid out channel by channel, which depthwise convolutions on a GPU may be faster in."""
LEAST_GAIN = {"psfusion": 1.0, "sgafusion": 1.0}
"""How much of a signal's strength each layer keeps at least; PyTorch's initial weights keep 0.6."""


@dataclass(frozen=True)
class NetworkCase:
    """A network at one size; ``benchmarks.cases.Case`` says what the properties mean.

    In 16 bits the published formulation computes in 16 bits too on a GPU, and in float32 on a CPU. The library's own
    network has no other formulation than its blocks.
    """

    name: str
    height: int
    width: int
    precision: str = "float32"
    devices: tuple[str, ...] = ("cpu", "cuda")
    seconds: float = 20.0

    passes = "forward"
    floor_bytes = None

    @property
    def shapes(self) -> str:
        return f"{self.width}x{self.height}"

    def small(self) -> NetworkCase:
        return dataclasses.replace(self, height=64, width=96, seconds=0.0)

    def implementations(self, place: str) -> list[str]:
        names = [PUBLISHED]
        if self.precision not in HALVES:
            names.append(BLOCKS)
        return [*names, OPTIMIZED, FUSED_ALONE, *([ROWS, GRAPH, REPLAY] if place == "cuda" else [])]

    def prepare(self, names: Sequence[str], device: torch.device) -> dict[str, Call]:
        network, inputs = self.network(device), self.inputs(device)
        return {name: self._call(name, network, inputs, device) for name in names}

    def truth(self, device: torch.device) -> Sequence[Tensor] | None:
        if device.type == "cpu" or self.precision == "float32":
            return None
        allow_tf32("float32")
        try:
            return self._run(publish(self.network(device)), self.inputs(device))()
        finally:
            allow_tf32(self.precision)

    def agreement(self, implementation: str, got: Sequence[Tensor], truth: Sequence[Tensor]) -> Agreement:
        alone = implementation.removesuffix(COMPILED) in (FUSED_ALONE, ROWS, GRAPH, REPLAY)
        expected = truth[:1] if alone else truth
        if [x.shape for x in got] != [x.shape for x in expected]:
            return Agreement(float("nan"), LIMIT)
        largest = torch.stack([(a.float() - b).abs().max() for a, b in zip(got, expected)]).max().item()
        error = (got[0].float() - expected[0]).square().mean()
        psnr = -10 * torch.log10(error.clamp_min(1e-20)).item()  # of pictures in [0, 1]
        if self.precision in HALVES:
            own = implementation.removesuffix(COMPILED) == PUBLISHED
            return Agreement(largest, LIMIT, psnr, -math.inf if own else LEAST_PSNR)
        return Agreement(largest, LIMITS[self.precision], psnr)

    def network(self, device: torch.device) -> nn.Module:
        """Return the network with weights that leave no part of it without effect."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return enliven(fb.create_model(self.name)).eval().requires_grad_(False).to(device)

    def inputs(self, device: torch.device) -> dict[str, Tensor]:
        """Return a synthetic pair and, for the network that wants one, a semantic embedding."""
        scene = fb.data.synthetic_scene(3, height=self.height, width=self.width)
        inputs = {"infrared": scene.infrared[None].to(device), "visible": scene.visible[None].to(device)}
        if self.name == "sgafusion":
            generator = torch.Generator().manual_seed(0)
            inputs["semantic"] = torch.randn(1, 512, generator=generator).to(device)
        return inputs

    def _call(self, name: str, network: nn.Module, inputs: dict[str, Tensor], device: torch.device) -> Call:
        base = name.removesuffix(COMPILED)
        dtype = DTYPES[self.precision]
        if base == PUBLISHED:
            dtype = dtype if device.type == "cuda" else torch.float32
            network = publish(self.network(device).to(dtype))
            inputs = {key: x.to(dtype) for key, x in inputs.items()}
        elif base != BLOCKS:
            network = fb.optimize(
                network,
                dtype=dtype if self.precision in HALVES else None,
                outputs=None if base == OPTIMIZED else ("fused",),
                cuda_graph=base in (GRAPH, REPLAY),
            )
        if base == ROWS:
            network = network.to(memory_format=torch.contiguous_format)
        if base == REPLAY:
            return replay(network, inputs)
        return self._run(compiled(network) if name.endswith(COMPILED) else network, inputs)

    @staticmethod
    def _run(network: nn.Module, inputs: dict[str, Tensor]) -> Call:
        return forward_only(lambda: pictures(network(**inputs)), ())


def replay(network: nn.Module, inputs: dict[str, Tensor]) -> Call:
    """Return a call that replays a network's recording and nothing else."""
    graphs = network.cuda_graphs
    graphs.copies = False
    network(**inputs)
    (recording,) = graphs._recordings.values()

    def call() -> Sequence[Tensor]:
        recording.graph.replay()
        return [recording.outputs.fused.float()]

    return call


def pictures(output: fb.FusionOutput) -> list[Tensor]:
    """Return the fused picture, then all other maps that a network gives; not its features."""
    maps = ((field.name, getattr(output, field.name)) for field in dataclasses.fields(output))
    return [output.fused, *(x for name, x in maps if isinstance(x, Tensor) and name != "fused")]


def enliven(network: fb.FusionModel) -> fb.FusionModel:
    """Move what starts as a constant, in place, and raise weights so small that signals would die out on the way."""
    least_gain = LEAST_GAIN.get(network.name, 0.0)
    generator = torch.Generator().manual_seed(1)
    for name, tensor in network.state_dict().items():
        if not tensor.is_floating_point() or tensor.numel() == 0:
            continue
        if tensor.min() == tensor.max():
            noise = torch.rand(tensor.shape, generator=generator)
            tensor += 0.2 * noise if name.endswith("running_var") else 0.1 * (noise - 0.5)
        elif tensor.ndim > 1:
            gain = tensor.std() * math.sqrt(tensor[0].numel())  # of a signal's strength, through this layer
            tensor *= (least_gain / gain).clamp(min=1)
    return network


SIZES = ((240, 320), (480, 640))
SMALLER = ((120, 160), (480, 640))  # for the network whose pass takes a minute on a CPU
ON_GPUS = ((480, 640), (1080, 1920))
SECONDS_ON_A_GPU = 1.0

# what is asked most first: a run that is cut has that
CASES: list[NetworkCase] = [
    *(
        NetworkCase(name, height, width, precision, ("cpu",))
        for name, sizes in (("fusionblocks", SIZES), ("psfusion", SIZES), ("sgafusion", SIZES), ("smfnet", SMALLER))
        for height, width in sizes
        for precision in ("float32", "bfloat16")
    ),
    *(
        NetworkCase(name, height, width, precision, ("cuda",), SECONDS_ON_A_GPU)
        for height, width in ON_GPUS
        for precision in ("tf32", "bfloat16", "float16", "float32")
        for name in ("psfusion", "fusionblocks", "smfnet", "sgafusion")
    ),
]
