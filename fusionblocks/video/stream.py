"""One pair after another, fused steadily."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from fusionblocks.alignment.alignment import Alignment
from fusionblocks.blocks.channel_attention import ChannelAttention, CrossChannelAttention
from fusionblocks.blocks.gram import HeldMatrices
from fusionblocks.image import array_to_image, check_range, image_to_array, open_infrared, read_image, scale_range
from fusionblocks.image.infrared import ThermalRange
from fusionblocks.inference import Picture, fuse, network_of
from fusionblocks.models.base import copied
from fusionblocks.video.ranges import AdaptiveRange

CUT = 0.1
"""Median change of a picture from one frame to the next, of 1, from which another scene has begun."""
GLANCE = 16
"""Pixels between two that are compared to find a cut."""


class FusionStream:
    """Fuse a sequence pair by pair: ``stream(infrared, visible)`` is :func:`fusionblocks.fuse` with a memory.

    What a network gathers of the whole picture, and what becomes black and white in it, are taken of the last seconds
    and not of the frame: a hot object that enters leaves the background as it is. Neither holds a pixel of a frame
    before, so nothing leaves a trail. A network without channel attention carries no state; PSFusion and SGAFusion
    gather by other means, and each of their frames stands for itself.

    A stream belongs to one sequence and one thread. Its network shares the weights of the one that it was given.

    Args:
        model: A network, a name, or None for the default, as for :func:`~fusionblocks.fuse`.
        alignment: How the infrared camera lies over the visible one; None takes pairs that are aligned.
        thermal_range: What becomes black and white in the infrared pictures, in their own unit, for the whole
            sequence. None or ``"auto"`` follows the scene slowly (:class:`~fusionblocks.video.AdaptiveRange`); 8-bit
            pictures and tensors stay as they are then.
        black_hot: Whether hot is black.
        resize: Which picture to resize where sizes differ.
        tile: As for :func:`~fusionblocks.fuse`.

    Raises:
        TypeError: If ``model`` is not a network, or ``thermal_range`` of another kind.
        ValueError: If ``thermal_range`` is not a range, or ``"scene"``: what a live scene will hold is not known.

    Example:
        >>> import fusionblocks as fb
        >>> sequence = fb.data.synthetic_sequence(3, seed=1, height=48, width=64)
        >>> stream = fb.FusionStream()
        >>> [stream(pair.infrared, pair.visible).shape for pair in sequence.pairs]
        [(48, 64, 3), (48, 64, 3), (48, 64, 3)]
    """

    def __init__(
        self,
        model: nn.Module | str | None = None,
        *,
        alignment: Alignment | None = None,
        thermal_range: ThermalRange = None,
        black_hot: bool = False,
        resize: Literal["infrared", "visible"] | None = None,
        tile: int | Literal["auto"] | None = "auto",
    ) -> None:
        if isinstance(thermal_range, str) and thermal_range != "auto":
            raise ValueError(f"thermal_range must be two numbers, 'auto' or None for a stream, got {thermal_range!r}")
        fixed = None if thermal_range is None or isinstance(thermal_range, str) else thermal_range
        self._fixed = None if fixed is None else check_range("thermal_range", fixed)
        self._model = model
        self._options: dict[str, Any] = {"alignment": alignment, "black_hot": black_hot, "resize": resize, "tile": tile}
        self._network: nn.Module | None = None
        self._held: list[HeldMatrices] = []
        self._range = AdaptiveRange()
        self._before: list[np.ndarray] = []
        self.frames = 0

    def __call__(self, infrared: Picture, visible: Picture, **guidance: Any) -> Any:
        """Fuse the next pair.

        Args:
            infrared: The infrared picture, as :func:`~fusionblocks.fuse` takes it.
            visible: The visible picture, likewise.
            **guidance: The network's further inputs.

        Returns:
            An RGB picture in the kind of ``visible``.

        Raises:
            ValueError: As by :func:`~fusionblocks.fuse`; the stream is as it was before.
        """
        if self._network is None:
            self._network = self._own_network(visible)
        infrared, limits = self._limited(infrared)
        seen = read_image(visible) if isinstance(visible, str | Path) else visible
        if self._is_cut(infrared, limits, seen):
            self._forget()
        for held in self._held:
            held.next_frame()
        fused = fuse(infrared, seen, model=self._network, thermal_range=limits, **self._options, **guidance)
        self.frames += 1
        # paths give pictures, as fuse does
        return array_to_image(fused) if isinstance(visible, str | Path) else fused

    @property
    def thermal_range(self) -> tuple[float, float] | None:
        """What is black and white now; None before the first frame and for 8-bit pictures."""
        return self._fixed or self._range.limits

    def reset(self) -> None:
        """Forget the sequence: the next pair begins another."""
        self._forget()
        self._range.reset()
        self._before = []

    def watch(self, infrared: Picture) -> None:
        """Take note of an infrared picture that is not to be fused, for the range."""
        self._limited(infrared)

    def _own_network(self, visible: Picture) -> nn.Module:
        """Return a copy of the network that shares its weights and holds its attention's matrices."""
        device = visible.device if isinstance(visible, Tensor) else torch.device("cpu")
        network = copied(network_of(self._model, device), share_weights=True)
        for module in network.modules():
            if isinstance(module, ChannelAttention | CrossChannelAttention):
                module.held = HeldMatrices()
                self._held.append(module.held)
        return network

    def _limited(self, infrared: Picture) -> tuple[np.ndarray | Tensor, tuple[float, float] | None]:
        """Return an infrared picture in its own unit, and what becomes black and white."""
        if isinstance(infrared, Tensor):
            return infrared, self._fixed
        opened = open_infrared("infrared", infrared, self._fixed or "auto")
        return opened.values, self._fixed or self._range.update(opened.values)

    def _is_cut(self, infrared: np.ndarray | Tensor, limits: tuple[float, float] | None, visible: Any) -> bool:
        """Whether most of either picture has changed since the frame before."""
        glances = [_glance(infrared, limits), _glance(visible, None)]
        before, self._before = self._before, glances
        return any(
            a.shape != b.shape or float(np.median(np.abs(a - b))) > CUT for a, b in zip(before, glances, strict=False)
        )

    def _forget(self) -> None:
        for held in self._held:
            held.reset()


def _glance(picture: Any, limits: tuple[float, float] | None) -> np.ndarray:
    """Return some pixels of a picture, about in [0, 1]."""
    if isinstance(picture, Image.Image):
        picture = image_to_array(picture)
    if isinstance(picture, Tensor):
        picture = picture.detach()[..., ::GLANCE, ::GLANCE].float().cpu().numpy()
        return picture if limits is None else scale_range(picture, *limits)
    few = picture[::GLANCE, ::GLANCE]
    if limits is not None:
        return scale_range(few, *limits)
    full = 1 if np.issubdtype(few.dtype, np.floating) else np.iinfo(few.dtype).max
    return few.astype(np.float32) / full
