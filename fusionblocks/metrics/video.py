"""How steady a fused sequence is: flicker of what stands still, and motion that only the sources should have."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fusionblocks.metrics._inputs import gray_levels

Flow = Callable[[Tensor, Tensor], Tensor]
"""Optical flow: from gray levels ``(B, 1, H, W)`` of two pictures to where each pixel of the first has gone, in pixels
``(B, 2, H, W)``, x first."""
STILL = 4.0
"""Levels by which a source's pixel may change from one frame to the next and count as still."""
AROUND = 7
"""Side of the square in which all pixels must be still."""
APART = 1.0
"""Pixels between a point and where forward and backward flow lead it, from which it is taken to be hidden."""


def background_flicker(fused: Tensor, infrared: Tensor, visible: Tensor, *, still: float = STILL) -> Tensor:
    """Return how much a fused sequence changes where both sources stand still: 0 is best.

    It is the mean change of the fused picture from one frame to the next, in gray levels, over the pixels around which
    neither source changes by more than ``still`` levels. What the sources' own noise makes is part of it, so compare it
    with that of the sources.

    Args:
        fused: ``(T, 1, H, W)``, uint8 gray levels or float in [0, 1], at least two frames.
        infrared: As ``fused``.
        visible: As ``fused``.
        still: Levels by which a pixel that stands still may change.

    Returns:
        A float64 scalar in gray levels; NaN where nothing stands still.

    Raises:
        TypeError: An argument is not a tensor, or neither ``uint8`` nor of a floating-point dtype.
        ValueError: A shape or value is not as expected, or there are fewer than two frames.

    Reference:
        This library's own.

    Example:
        >>> import torch
        >>> from fusionblocks.metrics import background_flicker
        >>> still = torch.full((3, 1, 16, 16), 0.5)
        >>> background_flicker(still + torch.tensor([0.0, 0.02, 0.0]).view(3, 1, 1, 1), still, still).round(decimals=1)
        tensor(5.1000, dtype=torch.float64)
    """
    f, a, b = _clips(fused, infrared, visible, least=2)
    moved = torch.maximum(a.diff(dim=0).abs(), b.diff(dim=0).abs()) > still
    quiet = F.max_pool2d(moved.double(), AROUND, 1, AROUND // 2) == 0
    return f.diff(dim=0).abs()[quiet].mean()


def self_warping_error(fused: Tensor, infrared: Tensor, visible: Tensor, *, flow: Flow | None = None) -> Tensor:
    """Return BiSWE, the bidirectional self-warping error of a fused sequence: lower is better.

    Each frame is compared with its neighbours, moved to it by their optical flow: the mean absolute difference over the
    pixels that are hidden in neither source, of both neighbours added, averaged over all frames that have two.

    Values depend on the optical flow. The published ones are of SEA-RAFT, which can be given as ``flow``.

    Args:
        fused: ``(T, 1, H, W)``, uint8 gray levels or float in [0, 1], at least three frames.
        infrared: As ``fused``.
        visible: As ``fused``.
        flow: From two batches of gray levels 0..255 ``(B, 1, H, W)`` to the flow ``(B, 2, H, W)``; None takes OpenCV's
            dense inverse search (extra ``align``).

    Returns:
        A float64 scalar in gray levels.

    Raises:
        ImportError: ``flow`` is None and OpenCV is not installed.
        TypeError: An argument is not a tensor, or neither ``uint8`` nor of a floating-point dtype.
        ValueError: A shape or value is not as expected, or there are fewer than three frames.

    Reference:
        "A Unified Solution to Video Fusion: From Multi-Frame Learning to Benchmarking", 2025 (BiSWE of VF-Bench).

    Example:
        >>> import torch
        >>> from fusionblocks.metrics import self_warping_error
        >>> still = torch.rand(1, 1, 32, 32, generator=torch.Generator().manual_seed(0)).expand(3, -1, -1, -1)
        >>> self_warping_error(still, still, still, flow=lambda a, b: torch.zeros(len(a), 2, 32, 32))
        tensor(0., dtype=torch.float64)
    """
    f, a, b = _clips(fused, infrared, visible, least=3)
    flow = flow or dense_inverse_search
    total = torch.zeros((), dtype=torch.float64, device=f.device)
    now = slice(1, len(f) - 1)
    for other in (slice(0, len(f) - 2), slice(2, len(f))):
        seen = torch.ones_like(f[now])
        for source in (a, b):
            there, back = _flow(flow, source[now], source[other]), _flow(flow, source[other], source[now])
            apart = (there + warp(back, there)).norm(dim=1, keepdim=True)
            seen = seen * (apart < APART)
        difference = (f[now] - warp(f[other], _flow(flow, f[now], f[other]))).abs()
        total = total + ((seen * difference).sum((1, 2, 3)) / seen.sum((1, 2, 3)).clamp_min(1e-10)).mean()
    return total


def motion_smoothness(fused: Tensor, infrared: Tensor, visible: Tensor, *, flow: Flow | None = None) -> Tensor:
    """Return MS2R, the motion smoothness with two reference videos: lower is better.

    How the optical flow of the fused sequence changes from frame to frame is compared with how that of either source
    does: the mean absolute difference of both components, averaged over both sources and all frames that have two
    neighbours.

    Values depend on the optical flow. The published ones are of SEA-RAFT, which can be given as ``flow``.

    Args:
        fused: ``(T, 1, H, W)``, uint8 gray levels or float in [0, 1], at least three frames.
        infrared: As ``fused``.
        visible: As ``fused``.
        flow: As for :func:`self_warping_error`.

    Returns:
        A float64 scalar in pixels a frame squared.

    Raises:
        ImportError: ``flow`` is None and OpenCV is not installed.
        TypeError: An argument is not a tensor, or neither ``uint8`` nor of a floating-point dtype.
        ValueError: A shape or value is not as expected, or there are fewer than three frames.

    Reference:
        "A Unified Solution to Video Fusion: From Multi-Frame Learning to Benchmarking", 2025 (MS2R of VF-Bench).

    Example:
        >>> import torch
        >>> from fusionblocks.metrics import motion_smoothness
        >>> clip = torch.rand(3, 1, 32, 32, generator=torch.Generator().manual_seed(0))
        >>> motion_smoothness(clip, clip, clip, flow=lambda a, b: (b - a).expand(-1, 2, -1, -1))
        tensor(0., dtype=torch.float64)
    """
    clips = _clips(fused, infrared, visible, least=3)
    flow = flow or dense_inverse_search
    changes = [_flow(flow, clip[:-1], clip[1:]).diff(dim=0) for clip in clips]
    return sum((changes[0] - change).abs().mean() for change in changes[1:]) / 2  # type: ignore[return-value]


def dense_inverse_search(first: Tensor, second: Tensor) -> Tensor:
    """Return the optical flow from one batch of pictures to another by OpenCV's dense inverse search.

    Args:
        first: Gray levels 0..255, ``(B, 1, H, W)``, at least 16 pixels a side.
        second: The pictures after, likewise.

    Returns:
        Where each pixel has gone, ``(B, 2, H, W)`` float64, x first.

    Raises:
        ImportError: If OpenCV is not installed.

    Reference:
        "Fast Optical Flow using Dense Inverse Search", 2016.

    Example:
        >>> import torch
        >>> from fusionblocks.image import gaussian_blur
        >>> from fusionblocks.metrics import dense_inverse_search
        >>> noise = torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))
        >>> picture = 255 * gaussian_blur(noise, 2.0)
        >>> flow = dense_inverse_search(5 * picture - 500, 5 * picture.roll(2, dims=3) - 500)
        >>> [round(float(x), 1) for x in flow[0, :, 16:48, 16:48].flatten(1).median(1).values]
        [2.0, 0.0]
    """
    try:
        import cv2
    except ImportError as error:
        raise ImportError("optical flow needs OpenCV: pip install 'fusionblocks[align]', or give flow") from error
    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    pairs = [x.detach().clamp(0, 255).round().to(torch.uint8)[:, 0].cpu().numpy() for x in (first, second)]
    found = [search.calc(np.ascontiguousarray(a), np.ascontiguousarray(b), None) for a, b in zip(*pairs, strict=True)]
    return torch.from_numpy(np.stack(found)).permute(0, 3, 1, 2).to(first.device, torch.float64)


def warp(x: Tensor, flow: Tensor) -> Tensor:
    """Return maps whose pixel at ``p`` is that of ``x`` at ``p + flow(p)``, bilinear; beyond the border it is 0.

    Args:
        x: ``(B, C, H, W)``.
        flow: ``(B, 2, H, W)`` in pixels, x first.

    Example:
        >>> import torch
        >>> from fusionblocks.metrics import warp
        >>> warp(torch.arange(4.0).view(1, 1, 1, 4), torch.tensor([1.0, 0.0]).view(1, 2, 1, 1).expand(1, 2, 1, 4))
        tensor([[[[1., 2., 3., 0.]]]])
    """
    height, width = x.shape[-2:]
    rows, columns = torch.meshgrid(
        torch.arange(height, device=x.device), torch.arange(width, device=x.device), indexing="ij"
    )
    places = torch.stack([columns, rows]).to(flow) + flow
    sides = torch.tensor([width, height], device=x.device).to(flow)
    grid = 2 * (places.permute(0, 2, 3, 1) + 0.5) / sides - 1
    return F.grid_sample(x, grid.to(x.dtype), mode="bilinear", padding_mode="zeros", align_corners=False)


def _clips(fused: Tensor, infrared: Tensor, visible: Tensor, least: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the clips as gray levels, after all checks."""
    clips = gray_levels(fused, infrared, visible)
    if len(clips[0]) < least:
        raise ValueError(f"fused must have at least {least} frames (T, 1, H, W), got {len(clips[0])}")
    return clips


def _flow(flow: Flow, first: Tensor, second: Tensor) -> Tensor:
    """Return the optical flow, checked."""
    found = flow(first, second)
    expected = (len(first), 2, *first.shape[-2:])
    if not isinstance(found, Tensor) or tuple(found.shape) != expected:
        got = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise ValueError(f"flow must return a tensor of shape {expected}, got {got}")
    return found.double()
