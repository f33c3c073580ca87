"""SAM's masks of infrared and visible pictures, as the maps that guide SGDFuse."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from einops import rearrange
from torch import Tensor, nn

from fusionblocks.guidance._cache import DiskCache, Fingerprint, content_key
from fusionblocks.guidance.mask_maps import check_encoding, masks_to_map
from fusionblocks.guidance.sam.loading import load_sam, with_timm_encoder
from fusionblocks.guidance.sam.prompts import LocatedPrompts, SAMPrompts, locate, predict
from fusionblocks.image.checks import check_pair, check_picture, check_values

ENCODERS = ("segment_anything", "timm")

# B batch, H and W the pictures' size; N masks of one picture, K clicks on one object


class SegmentedMasks(NamedTuple):
    """The masks of one picture.

    Args:
        masks: Booleans ``(N, H, W)``; they may overlap.
        scores: The IoU that SAM predicts for each ``(N,)``, about [0, 1].
    """

    masks: Tensor
    scores: Tensor


class SAMMasks(nn.Module):
    """Segment-anything as a guide: pictures in, one map in [0, 1] for each out.

    A network that takes masks calls it with the infrared and the visible picture and gets the maps of both. SAM sees
    the pictures with 8 bits and three equal channels where they have one. It is slow (see :meth:`estimate_seconds`):
    for a data set make the masks once, ahead, with ``fusionblocks masks``, or pass ``cache``.

    Args:
        model: ``"vit_b"``, ``"vit_l"`` or ``"vit_h"``; or a built ``segment_anything.modeling.Sam``.
        checkpoint: The named network's published weights, a local file.
        encoding: How the masks become a map, see :func:`masks_to_map`: ``"index"``, ``"binary"``, ``"score"`` or
            ``"edges"``.
        prompts: ``"automatic"``, a grid of points over the whole picture; or the :class:`SAMPrompts` of a camera that
            does not move.
        encoder: ``"segment_anything"``, or ``"timm"``: a faster implementation with the same weights, for other sizes
            too.
        image_size: Side in pixels of the square that the encoder sees, None for the network's own (1024). Another one
            wants ``encoder="timm"`` and costs quality: the published weights have seen 1024 alone.
        points_per_side: Points along a side of the automatic grid.
        points_per_batch: Points decoded at once; fewer need less memory.
        pred_iou_thresh: The least IoU that SAM predicts for an automatic mask that is kept.
        stability_score_thresh: The least stability of an automatic mask that is kept, see segment-anything.
        cache: A folder that keeps masks by the content of picture, weights and settings. Encodings share them.

    Raises:
        FileNotFoundError: If the weights are not there; the message says where their publisher offers them.
        TypeError: If ``model`` or ``prompts`` is of another type.
        ValueError: If a file holds other weights or code, or an option is unknown or out of its range.

    Reference:
        *Segment Anything* (2023), published as ``Sam`` and ``SamAutomaticMaskGenerator``;
        *SGDFuse: SAM-Guided Diffusion for High-Fidelity Infrared and Visible Image Fusion* (2025).

    No example: it needs a checkpoint; with one, ``SAMMasks("vit_b", "sam_vit_b_01ec64.pth")(infrared, visible)``.
    """

    def __init__(
        self,
        model: str | nn.Module = "vit_b",
        checkpoint: str | os.PathLike[str] | None = None,
        *,
        encoding: str = "index",
        prompts: str | SAMPrompts = "automatic",
        encoder: str = "segment_anything",
        image_size: int | None = None,
        points_per_side: int = 32,
        points_per_batch: int = 64,
        pred_iou_thresh: float = 0.88,
        stability_score_thresh: float = 0.95,
        cache: str | os.PathLike[str] | None = None,
    ) -> None:
        super().__init__()
        check_encoding(encoding)
        if encoder not in ENCODERS:
            raise ValueError(f"encoder must be one of {', '.join(ENCODERS)}, got {encoder!r}")
        for name, value in {"points_per_side": points_per_side, "points_per_batch": points_per_batch}.items():
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be a positive integer, got {value!r}")
        _check_prompts(prompts)
        self.encoding, self.prompts, self.encoder = encoding, prompts, encoder
        self.points_per_side, self.points_per_batch = points_per_side, points_per_batch
        self.pred_iou_thresh, self.stability_score_thresh = float(pred_iou_thresh), float(stability_score_thresh)
        self.cache = None if cache is None else DiskCache(cache)

        sam = _built(model, checkpoint)
        own_size = sam.image_encoder.img_size
        if encoder == "timm":
            sam = with_timm_encoder(sam, image_size)
        elif image_size not in (None, own_size):
            raise ValueError(
                f"image_size must be {own_size} for encoder='segment_anything', got {image_size}; "
                "encoder='timm' takes other sizes"
            )
        self.sam = sam
        self._fingerprint = Fingerprint()

    def forward(self, infrared: Tensor, visible: Tensor) -> tuple[Tensor, Tensor]:
        """Return the maps of a pair; this is what a network calls.

        Args:
            infrared: Infrared picture ``(B, 1, H, W)`` in [0, 1].
            visible: Visible picture ``(B, 3, H, W)`` or ``(B, 1, H, W)`` in [0, 1].

        Returns:
            The infrared and the visible map, each ``(B, 1, H, W)`` in [0, 1].

        Raises:
            TypeError: If a picture is not a float tensor.
            ValueError: If a shape is wrong, or values are not in [0, 1].
        """
        check_pair(infrared, visible, visible_channels=(1, 3))
        return self.map(infrared), self.map(visible)

    def map(self, picture: Tensor, *, prompts: str | SAMPrompts | Sequence[SAMPrompts] | None = None) -> Tensor:
        """Return the maps of pictures of one modality.

        Args:
            picture: ``(B, 1, H, W)`` or ``(B, 3, H, W)`` in [0, 1].
            prompts: ``"automatic"``, :class:`SAMPrompts` for all, or a sequence with one for each picture; None: the
                guide's own.

        Returns:
            ``(B, 1, H, W)`` in [0, 1], of the dtype and on the device of ``picture``.

        Raises:
            TypeError: If ``picture`` is not a float tensor, or ``prompts`` none of these.
            ValueError: If a shape is wrong, values are not in [0, 1], or a prompt lies outside the picture.
        """
        found = self.segment(picture, prompts=prompts)
        maps = [masks_to_map(masks, self.encoding, scores=scores) for masks, scores in found]
        return torch.stack(maps).to(picture)

    def segment(
        self, picture: Tensor, *, prompts: str | SAMPrompts | Sequence[SAMPrompts] | None = None
    ) -> list[SegmentedMasks]:
        """Return the masks themselves, of each picture, on the CPU; the arguments are those of :meth:`map`."""
        check_picture("picture", picture, (1, 3))
        check_values("picture", picture)
        own = self.prompts if prompts is None else prompts
        each = list(own) if isinstance(own, Sequence) and not isinstance(own, str) else [own] * len(picture)
        for prompt in each:
            _check_prompts(prompt)
        if len(each) != len(picture):
            raise ValueError(f"prompts must be one for each of the {len(picture)} pictures, got {len(each)}")
        return [self._segment(image, prompt) for image, prompt in zip(_levels(picture), each)]

    def fingerprint(self) -> str:
        """Return a name for the weights, by which results of one network are told from those of another."""
        return self._fingerprint(dict([*self.sam.named_parameters(), *self.sam.named_buffers()]))

    def settings(self) -> dict[str, Any]:
        """Return what decides the automatic masks beside the picture and the weights, as JSON can write it."""
        return {
            "encoder": self.encoder,
            "image_size": self.sam.image_encoder.img_size,
            "mask_threshold": self.sam.mask_threshold,
            "points_per_side": self.points_per_side,
            "pred_iou_thresh": self.pred_iou_thresh,
            "stability_score_thresh": self.stability_score_thresh,
        }

    @torch.no_grad()
    def estimate_seconds(self, picture: Tensor) -> float:
        """Return about how long one picture of this size takes here, from an encoder pass and one batch of points.

        Args:
            picture: ``(1, 1, H, W)`` or ``(1, 3, H, W)`` in [0, 1].
        """
        check_picture("picture", picture, (1, 3))
        points = self.points_per_side**2
        few = min(self.points_per_batch, points)
        grid = np.random.default_rng(0).random((few, 2))  # in units of the picture's width and height
        encoder, started = _Stopwatch(self.sam.image_encoder), time.perf_counter()
        with encoder:
            self._generator(points_per_side=None, point_grids=[grid]).generate(_levels(picture)[0])
        decoding = time.perf_counter() - started - encoder.seconds
        return encoder.seconds + decoding * points / few

    def _segment(self, image: np.ndarray, prompts: str | SAMPrompts) -> SegmentedMasks:
        """Return the masks of an ``(H, W, 3)`` picture of 8 bits, from the cache if they are there."""
        located = None if isinstance(prompts, str) else locate(prompts, image.shape[:2])
        if self.cache is None:
            return self._compute(image, located)
        settings = self.settings()
        if located is not None:
            settings = {name: settings[name] for name in ("encoder", "image_size", "mask_threshold")}
        key = content_key(image, *(located or ()), weights=self.fingerprint(), **settings)
        entry = self.cache.get(key)
        if entry is not None:
            return _unpack(entry)
        found = self._compute(image, located)
        self.cache.put(key, _pack(found))
        return found

    def _compute(self, image: np.ndarray, prompts: LocatedPrompts | None) -> SegmentedMasks:
        if prompts is not None:
            return SegmentedMasks(*predict(self.sam, image, prompts, self.points_per_batch))
        records = self._generator(points_per_side=self.points_per_side).generate(image)
        masks = np.zeros((len(records), *image.shape[:2]), bool)
        for mask, record in zip(masks, records):
            mask[:] = record["segmentation"]
        scores = torch.tensor([record["predicted_iou"] for record in records], dtype=torch.float32)
        return SegmentedMasks(torch.from_numpy(masks), scores)

    def _generator(self, **options: Any) -> Any:
        from segment_anything import SamAutomaticMaskGenerator

        return SamAutomaticMaskGenerator(
            self.sam,
            points_per_batch=self.points_per_batch,
            pred_iou_thresh=self.pred_iou_thresh,
            stability_score_thresh=self.stability_score_thresh,
            **options,
        )


class _Stopwatch:
    """Measures the seconds that a module computes, within ``with``."""

    def __init__(self, module: nn.Module) -> None:
        self.module, self.seconds = module, 0.0

    def __enter__(self) -> _Stopwatch:
        self._hooks = [
            self.module.register_forward_pre_hook(lambda *_: self._add(-_now())),
            self.module.register_forward_hook(lambda *_: self._add(_now())),
        ]
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def _add(self, seconds: float) -> None:
        self.seconds += seconds


def _now() -> float:
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter()


def _check_prompts(prompts: Any) -> None:
    if prompts != "automatic" and not isinstance(prompts, SAMPrompts):
        raise TypeError(f"prompts must be 'automatic' or SAMPrompts, got {prompts!r}")


def _built(model: Any, checkpoint: str | os.PathLike[str] | None) -> Any:
    """Return the network that ``model`` names or is."""
    if isinstance(model, str):
        return load_sam(model, None if checkpoint is None else Path(checkpoint))
    from segment_anything.modeling import Sam

    if not isinstance(model, Sam):
        raise TypeError(f"model must be a name or a segment_anything Sam, got {type(model).__name__}")
    if checkpoint is not None:
        raise ValueError("checkpoint must be None for a built Sam, which has its weights")
    return model


def _levels(picture: Tensor) -> np.ndarray:
    """Return pictures ``(B, 1 or 3, H, W)`` in [0, 1] as ``(B, H, W, 3)`` of 8 bits."""
    levels = (picture.detach().float().clamp(0, 1) * 255).round().to(torch.uint8).expand(-1, 3, -1, -1)
    return np.ascontiguousarray(rearrange(levels.cpu().numpy(), "b c h w -> b h w c"))


def _pack(found: SegmentedMasks) -> dict[str, np.ndarray]:
    masks = found.masks.numpy()
    return {"bits": np.packbits(masks), "shape": np.array(masks.shape), "scores": found.scores.numpy()}


def _unpack(entry: dict[str, np.ndarray]) -> SegmentedMasks:
    shape = tuple(entry["shape"].tolist())
    masks = np.unpackbits(entry["bits"], count=int(np.prod(shape))).reshape(shape).astype(bool)
    return SegmentedMasks(torch.from_numpy(masks), torch.from_numpy(entry["scores"]))
