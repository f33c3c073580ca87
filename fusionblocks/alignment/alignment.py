"""Where one camera's pixels lie in the other's picture: kept, saved, and used to warp."""

from __future__ import annotations

import functools
import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fusionblocks._support.files import whole_file
from fusionblocks.image.lens import Lens
from fusionblocks.image.planar import MODELS, mapped, scaling, unit

FORMAT = "fusionblocks alignment"
MOST_STRETCH = 0.02
"""How much the aspect of a picture may differ from that of the rig's."""


@dataclass(frozen=True, eq=False)
class Alignment:
    """How the infrared camera of a rig lies over its visible one.

    Args:
        matrix: ``(3, 3)`` float64: an infrared pixel ``(x, y, 1)`` to a visible one, pixel centres at integers. With
            lenses, between the pixels of ideal pinhole cameras.
        infrared_size: Height and width of the infrared pictures.
        visible_size: Height and width of the visible pictures.
        error: The estimated mean displacement in visible pixels over the inner 80 % of what both see.
        reliable: Whether the evidence agrees with itself; a map that is not should be looked at before use.
        model: What was fitted, ``"shift"``, ``"similarity"``, ``"affine"`` or ``"homography"``.
        infrared_lens: Distortion of the infrared camera, or None.
        visible_lens: Distortion of the visible camera, or None.

    Raises:
        TypeError: If a field has another type.
        ValueError: If the matrix is not ``(3, 3)``, finite and invertible, or a size is not two positive integers.

    Example:
        >>> import numpy as np
        >>> from fusionblocks import Alignment
        >>> rig = Alignment(np.array([[2, 0, 10], [0, 2, 4], [0, 0, 1]]), (24, 32), (64, 96), error=0.5)
        >>> rig.map([[3, 5]]).tolist()
        [[16.0, 14.0]]
        >>> rig.warp(np.full((24, 32), 200, np.uint8)).shape
        (64, 96)
        >>> float(rig.coverage.mean().round(2))
        0.48
    """

    matrix: np.ndarray
    infrared_size: tuple[int, int]
    visible_size: tuple[int, int]
    error: float = math.nan
    reliable: bool = True
    model: str = "homography"
    infrared_lens: Lens | None = None
    visible_lens: Lens | None = None

    def __post_init__(self) -> None:
        matrix = np.asarray(self.matrix, np.float64)
        if matrix.shape != (3, 3) or not np.isfinite(matrix).all() or abs(np.linalg.det(matrix)) < 1e-12:
            raise ValueError(f"matrix must be (3, 3), finite and invertible, got {np.asarray(self.matrix).tolist()}")
        if self.model not in MODELS:
            raise ValueError(f"model must be one of {', '.join(MODELS)}, got {self.model!r}")
        object.__setattr__(self, "matrix", unit(matrix))
        for name in ("infrared_size", "visible_size"):
            object.__setattr__(self, name, _size(name, getattr(self, name)))

    # --- use -------------------------------------------------------------------------------------------------------

    def map(self, points: Any) -> np.ndarray:
        """Return where infrared pixels lie in the visible picture, lenses included.

        Args:
            points: ``(N, 2)`` of ``(x, y)``.

        Returns:
            ``(N, 2)`` float64.
        """
        points = np.asarray(points, np.float64).reshape(-1, 2)
        ideal = points if self.infrared_lens is None else self.infrared_lens.straighten(points)
        there = mapped(self.matrix, ideal)
        return there if self.visible_lens is None else self.visible_lens.bend(there)

    def unmap(self, points: Any) -> np.ndarray:
        """Return where visible pixels lie in the infrared picture, lenses included.

        Args:
            points: ``(N, 2)`` of ``(x, y)``.

        Returns:
            ``(N, 2)`` float64.
        """
        points = np.asarray(points, np.float64).reshape(-1, 2)
        ideal = points if self.visible_lens is None else self.visible_lens.straighten(points)
        there = mapped(np.linalg.inv(self.matrix), ideal)
        return there if self.infrared_lens is None else self.infrared_lens.bend(there)

    def warp(self, infrared: Any, size: tuple[int, int] | None = None) -> Any:
        """Return an infrared picture as the visible camera would see it.

        Args:
            infrared: An array ``(H, W)`` or ``(H, W, C)`` of any real dtype, or a tensor ``(C, H, W)`` or
                ``(B, C, H, W)``, of the rig's infrared size or a scaled copy of it.
            size: Height and width of the result, the rig's visible size or a scaled copy of it (the default).

        Returns:
            The picture in the kind and dtype of ``infrared``; zero where the infrared camera does not see, or where
            a float picture has no data (NaN) around.

        Raises:
            TypeError: If ``infrared`` is neither an array nor a tensor.
            ValueError: If a shape or the aspect of a size is another one.
        """
        if isinstance(infrared, np.ndarray):
            if infrared.ndim not in (2, 3) or 0 in infrared.shape:
                raise ValueError(f"infrared must have shape (H, W) or (H, W, C), got {infrared.shape}")
            layers = infrared[..., None] if infrared.ndim == 2 else infrared
            batch = torch.from_numpy(np.ascontiguousarray(layers.transpose(2, 0, 1), np.float64))[None]
            pixels = _cast(self._sampled(batch, size)[0].numpy().transpose(1, 2, 0), infrared.dtype)
            return pixels[..., 0] if infrared.ndim == 2 else np.ascontiguousarray(pixels)
        if not isinstance(infrared, Tensor):
            raise TypeError(f"infrared must be an array or a tensor, got {type(infrared).__name__}")
        if infrared.ndim not in (3, 4) or 0 in infrared.shape:
            raise ValueError(f"infrared must have shape (C, H, W) or (B, C, H, W), got {tuple(infrared.shape)}")
        wide = infrared if infrared.is_floating_point() else infrared.double()
        warped = self._sampled(wide.reshape(-1, *infrared.shape[-3:]), size)
        warped = warped.reshape(*infrared.shape[:-2], *warped.shape[-2:])
        return warped if infrared.is_floating_point() else warped.round().to(infrared.dtype)

    @functools.cached_property
    def coverage(self) -> np.ndarray:
        """Which visible pixels the infrared camera sees, ``(H, W)`` of booleans."""
        places = self._places(self.visible_size, self.infrared_size)
        height, width = self.infrared_size
        inside = (places >= -1e-6).all(-1) & (places[..., 0] <= width - 1 + 1e-6)
        return inside & (places[..., 1] <= height - 1 + 1e-6)

    def soft_coverage(self, size: tuple[int, int] | None = None, border: float = 0.02) -> np.ndarray:
        """Return how much the infrared camera counts at each visible pixel: 1 inside, falling to 0 at its edge.

        Args:
            size: Height and width, as for :meth:`warp`.
            border: Width of the falling border as a share of the longer side.

        Returns:
            ``(H, W)`` float32 in [0, 1].
        """
        size = self._visible_size(size)
        places = self._places(size, self.infrared_size)
        height, width = self.infrared_size
        x, y = places[..., 0], places[..., 1]
        # infrared pixels to the nearest edge of the view, of those edges beyond which the visible picture goes on
        depths = [depth for depth in (x, width - 1 - x, y, height - 1 - y) if depth.min() < 0]
        depth = np.min(depths, axis=0) if depths else np.full(size, np.inf)
        ramp = np.clip(depth / max(border * max(height, width), 1e-9), 0, 1)
        return (ramp * ramp * (3 - 2 * ramp)).astype(np.float32)

    # --- files -----------------------------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the alignment to a JSON file, whole or not at all.

        Args:
            path: The file.
        """
        lenses = {"infrared_lens": self.infrared_lens, "visible_lens": self.visible_lens}
        content = {
            "format": FORMAT,
            "version": 1,
            "matrix": self.matrix.tolist(),
            "infrared_size": list(self.infrared_size),
            "visible_size": list(self.visible_size),
            "error": None if math.isnan(self.error) else self.error,
            "reliable": self.reliable,
            "model": self.model,
            **{name: None if lens is None else lens.to_json() for name, lens in lenses.items()},
        }
        with whole_file(path) as temporary:
            temporary.write_text(json.dumps(content, indent=2) + "\n")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Return the alignment that a file holds.

        Args:
            path: A file that :meth:`save` wrote.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If it does not hold an alignment; the message names the file.
        """
        if not Path(path).exists():
            raise FileNotFoundError(f"there is no file {path}")
        try:
            content = json.loads(Path(path).read_text())
            if content.get("format") != FORMAT:
                raise ValueError(f"its format is {content.get('format')!r}, not {FORMAT!r}")
            lenses = {
                name: None if content.get(name) is None else Lens.from_json(content[name])
                for name in ("infrared_lens", "visible_lens")
            }
            return cls(
                np.array(content["matrix"], np.float64),
                tuple(content["infrared_size"]),
                tuple(content["visible_size"]),
                error=math.nan if content["error"] is None else float(content["error"]),
                reliable=bool(content["reliable"]),
                model=content["model"],
                **lenses,
            )
        except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
            reason = f"it has no {error}" if isinstance(error, KeyError) else str(error)
            raise ValueError(f"{path} does not hold an alignment: {reason}") from error

    # --- within ----------------------------------------------------------------------------------------------------

    def _visible_size(self, size: tuple[int, int] | None) -> tuple[int, int]:
        size = self.visible_size if size is None else _size("size", size)
        _check_aspect("size", size, self.visible_size, "visible")
        return size

    def _places(self, size: tuple[int, int], source: tuple[int, int]) -> np.ndarray:
        """Return where the pixels of a visible picture lie in an infrared one, ``(H, W, 2)`` float64."""
        height, width = size
        grid = np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1).reshape(-1, 2).astype(np.float64)
        grid = mapped(scaling(self.visible_size[1] / width, self.visible_size[0] / height), grid)
        places = self.unmap(grid)
        # beyond the horizon of a tilted plane nothing is seen
        ideal = grid if self.visible_lens is None else self.visible_lens.straighten(grid)
        depth = np.linalg.inv(self.matrix)[2] @ np.concatenate([ideal, np.ones((len(ideal), 1))], 1).T
        places[depth * np.linalg.inv(self.matrix)[2, 2] <= 0] = -1e6
        places = mapped(scaling(source[1] / self.infrared_size[1], source[0] / self.infrared_size[0]), places)
        return places.reshape(height, width, 2)

    def _sampled(self, picture: Tensor, size: tuple[int, int] | None) -> Tensor:
        source = (picture.shape[-2], picture.shape[-1])
        _check_aspect("infrared", source, self.infrared_size, "infrared")
        size = self._visible_size(size)
        places = torch.from_numpy(self._places(size, source)).to(picture.device)
        sides = torch.tensor([max(source[1] - 1, 1), max(source[0] - 1, 1)], device=picture.device)
        grid = (2 * places / sides - 1).to(picture.dtype)
        # half an ulp beyond the edge is on it
        grid = torch.where((grid.abs() > 1) & (grid.abs() < 1 + 1e-5), grid.sign(), grid)
        there = ((grid >= -1) & (grid <= 1)).all(-1, keepdim=True).movedim(-1, 0)[None, 0]
        grid = grid.expand(picture.shape[0], *size, 2)
        known = torch.isfinite(picture)
        if bool(known.all()):
            warped = _grid_sample(picture, grid)
        else:  # what has no data does not bleed into what has
            share = _grid_sample(known.to(picture.dtype), grid)
            warped = _grid_sample(torch.where(known, picture, 0), grid)
            warped = torch.where(share > 0.5, warped / share.clamp(min=0.5), 0)
        return torch.where(there, warped, 0)


def _grid_sample(picture: Tensor, grid: Tensor) -> Tensor:
    return F.grid_sample(picture, grid, mode="bilinear", padding_mode="border", align_corners=True)


def _size(name: str, size: Any) -> tuple[int, int]:
    try:
        height, width = (int(side) for side in size)
        sound = height > 0 and width > 0 and (height, width) == tuple(size)
    except (TypeError, ValueError):
        sound = False
    if not sound:
        raise ValueError(f"{name} must be two positive integers (height, width), got {size!r}")
    return height, width


def _check_aspect(name: str, size: tuple[int, ...], own: tuple[int, int], kind: str) -> None:
    aspects = size[1] / size[0], own[1] / own[0]
    rounding = sum(1 / side for side in size)
    if abs(aspects[0] / aspects[1] - 1) > max(MOST_STRETCH, rounding):
        raise ValueError(
            f"{name} must have the aspect of the rig's {kind} pictures, {own[0]}x{own[1]}, "
            f"got {size[0]}x{size[1]} (height x width)"
        )


def _cast(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    if np.issubdtype(dtype, np.floating):
        return values.astype(dtype, copy=False)
    if dtype == np.bool_:
        return values >= 0.5
    limits = np.iinfo(dtype)
    return np.clip(np.rint(values), limits.min, limits.max).astype(dtype)
