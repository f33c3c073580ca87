"""What a file holds of a network: named tensors in, named tensors out, float32 at both ends."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fusionblocks.image import with_luma
from fusionblocks.models.base import FusionModel, FusionOutput, copied, output_names


class Deployable(nn.Module):
    """A network whose forward pass takes and gives what a file does.

    Args:
        network: A network; it is not changed.
        outputs: Which of its outputs to give, by default ``fused`` and all extras. Names that are those of inputs, as
            PSFusion's reconstructions, get ``_out`` after them; maps that have names of their own, as SMFNet's
            features, stand as ``features_<name>``.
        dtype: What to compute in; None for what its weights are in.
        colour: Give ``fused`` as an RGB picture in [0, 1] with the visible picture's chroma, as
            :func:`fusionblocks.fuse` does.

    Raises:
        TypeError: If it is no network of this library.
        ValueError: If an output is not one of its own.

    Example:
        >>> import torch
        >>> import fusionblocks as fb
        >>> from fusionblocks.deployment import Deployable
        >>> graph = Deployable(fb.create_model("fusionblocks"), colour=True)
        >>> {name: tuple(x.shape) for name, x in graph(torch.rand(1, 1, 9, 7), torch.rand(1, 3, 9, 7)).items()}
        {'fused': (1, 3, 9, 7)}
    """

    def __init__(
        self,
        network: FusionModel,
        *,
        outputs: Sequence[str] | None = None,
        dtype: torch.dtype | None = None,
        colour: bool = False,
    ) -> None:
        super().__init__()
        if not isinstance(network, FusionModel):
            raise TypeError(f"model must be a FusionModel, got {type(network).__name__}; fb.wrap makes one of a module")
        if outputs is not None:
            known = output_names()
            unknown = [name for name in outputs if name not in known]
            if isinstance(outputs, str) or unknown or "fused" not in outputs:
                raise ValueError(f"outputs must be names out of {', '.join(known)}, fused among them, got {outputs!r}")
        self.network = copied(network).eval().requires_grad_(False).to(dtype=dtype)
        self.network.attach_guidance(None)
        if outputs is not None:
            self.network._wanted = frozenset(outputs)
        self.dtype = dtype or next((p.dtype for p in network.parameters() if p.is_floating_point()), torch.float32)
        self.colour = colour

    @property
    def inputs(self) -> tuple[str, ...]:
        """The names of what it takes."""
        return ("infrared", "visible", *self.network.guidance_names)

    @property
    def is_half(self) -> bool:
        """Whether it computes in less than float32."""
        return self.dtype.itemsize < 4

    def example(self, height: int, width: int, batch: int = 1) -> tuple[Tensor, ...]:
        """Return inputs of a size."""
        device = next((p.device for p in self.network.parameters()), torch.device("cpu"))
        pair = [torch.rand(batch, channels, height, width, device=device) for channels in (1, 3)]
        return (*pair, *self.network.guidance_example(pair[0]).values())

    def forward(self, infrared: Tensor, visible: Tensor, *guidance: Tensor) -> dict[str, Tensor]:
        """Return the outputs by name, float32.

        Args:
            infrared: ``(B, 1, H, W)`` in [0, 1].
            visible: ``(B, 3, H, W)`` RGB in [0, 1].
            *guidance: What else the network takes, in the order of ``inputs``.
        """
        inputs = (infrared, visible, *guidance)
        output: FusionOutput = self.network(**{name: x.to(self.dtype) for name, x in zip(self.inputs, inputs)})
        wanted = self.network._wanted
        named: dict[str, Tensor] = {}
        for field in dataclasses.fields(output):
            value = getattr(output, field.name)
            if wanted is not None and field.name not in wanted:
                continue
            name = f"{field.name}_out" if field.name in self.inputs else field.name
            if isinstance(value, dict):
                named |= {f"{name}_{part}": x.float() for part, x in value.items()}
            elif value is not None:
                named[name] = value.float()
        if self.colour:
            fused = named["fused"].clamp(0, 1)
            named["fused"] = fused if fused.shape[1] == 3 else with_luma(fused, visible)
        return named
