"""What SGDFuse's pipeline returns, as tensors, arrays or PIL pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from diffusers import DiffusionPipeline
from diffusers.utils import BaseOutput
from torch import Tensor

OUTPUT_TYPES = ("pt", "np", "pil")


@dataclass
class SGDFusePipelineOutput(BaseOutput):
    """What :class:`SGDFusePipeline` returns, every picture in the kind that ``output_type`` names.

    Args:
        fused: The fused RGB pictures.
        preliminary: The first fusion of stage I, before refinement; None where sampling began at a given noisy picture.
        denoised: The pictures that the diffusion itself arrives at, without the aggregation head.
    """

    fused: Any
    preliminary: Any = None
    denoised: Any = None

    @property
    def images(self) -> Any:
        """The fused pictures, by diffusers' name for a pipeline's result."""
        return self.fused


def check_output_type(output_type: str) -> None:
    """Raise unless pictures can be returned in this kind."""
    if output_type not in OUTPUT_TYPES:
        raise ValueError(f"output_type must be one of {', '.join(map(repr, OUTPUT_TYPES))}, got {output_type!r}")


def converted(pictures: Tensor, output_type: str) -> Tensor | np.ndarray | list[Any]:
    """Return RGB pictures ``(B, 3, H, W)`` in the kind that was asked for."""
    if output_type == "pt":
        return pictures
    arrays = pictures.float().clamp(0, 1).permute(0, 2, 3, 1).cpu().numpy()
    return arrays if output_type == "np" else DiffusionPipeline.numpy_to_pil(arrays)
