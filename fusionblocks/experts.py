"""Which expert acted where: the gates of a network's mixtures on a pair of pictures."""

from __future__ import annotations

import csv
import io
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from fusionblocks._support.names import closest
from fusionblocks.alignment.alignment import Alignment
from fusionblocks.blocks.mixture_of_experts import MixtureOfExperts
from fusionblocks.image import luma
from fusionblocks.image.infrared import ThermalRange
from fusionblocks.inference import Picture, colour_picture, in_kind, network_inputs
from fusionblocks.models.base import FusionModel, evaluating

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# B batch, E experts, H and W the picture's size

# colours that colour-blind readers tell apart (Okabe and Ito), the best separated ones first
COLOURS = ("#e69f00", "#0072b2", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442")
_STRENGTH = 0.9


@dataclass(frozen=True)
class ExpertWeights:
    """What the gate of one mixture of experts said in one pass.

    Args:
        name: Where the mixture stands in the network, ``"encoder.degradation"``.
        sees: What it saw, ``"visible"`` or ``"infrared"``; empty for features of both.
        experts: What its experts are called.
        weights: Weight of each expert at each pixel ``(B, E, H, W)``, which sum to 1 over the experts.
    """

    name: str
    sees: str
    experts: tuple[str, ...]
    weights: Tensor

    @property
    def shares(self) -> Tensor:
        """Mean weight of each expert in each picture, ``(B, E)``."""
        return self.weights.mean((2, 3))

    @property
    def title(self) -> str:
        """The mixture and what it saw, in a few words."""
        return f"{self.name} ({self.sees})" if self.sees else self.name

    def overlay(self, picture: Tensor, *, relative: bool = False) -> Tensor:
        """Return gray pictures, coloured where an expert outweighs the others.

        A pixel has the colour of the expert with the largest weight, the fuller, the further this weight is above an
        even split. The gray picture below is brightened, so that colours show on a night scene.

        Args:
            picture: The pictures that the mixture saw, ``(B, 1, H, W)`` or ``(B, 3, H, W)`` in [0, 1].
            relative: Colour by the experts' weights beyond their means over the picture instead, in full in the
                percent of pixels where this excess is largest: it shows where a gate that hardly moves does move.

        Returns:
            RGB pictures ``(B, 3, H, W)`` in [0, 1].
        """
        gray = _brightened(luma(picture) if picture.shape[1] == 3 else picture)
        weights = self.weights.to(gray)
        if weights.shape[2:] != gray.shape[2:]:
            weights = F.interpolate(weights, gray.shape[2:], mode="bilinear")
        even = weights.mean((2, 3), keepdim=True) if relative else 1 / weights.shape[1]
        excess, winner = (weights - even).max(dim=1, keepdim=True)
        most = _percentile(excess, 99).clamp(min=1e-6) if relative else 1 - 1 / len(self.experts)
        # the root, since a difference of a few hundredths is to be seen
        opacity = _STRENGTH * (excess / most if len(self.experts) > 1 else torch.ones_like(excess)).clamp(0, 1).sqrt()
        colour = colours(len(self.experts)).to(gray)[winner[:, 0]].movedim(-1, 1)
        return torch.lerp(gray.expand_as(colour), colour * gray, opacity)


@dataclass(frozen=True)
class ExpertReport:
    """What every mixture of a network did with a pair, returned by :func:`~fusionblocks.expert_report`.

    Args:
        fused: The fused picture, as :func:`~fusionblocks.fuse` returns it.
        infrared: The infrared pictures ``(B, 1, H, W)`` in [0, 1].
        visible: The visible pictures ``(B, 3, H, W)`` in [0, 1].
        mixtures: The weights of each mixture in each pass, in the order in which they ran.
    """

    fused: Any
    infrared: Tensor
    visible: Tensor
    mixtures: tuple[ExpertWeights, ...]

    def __getitem__(self, title: str) -> ExpertWeights:
        """Return the mixture called ``title`` (``"encoder.degradation (visible)"``), or its name if it ran once."""
        titles = [mixture.title for mixture in self.mixtures]
        names = [mixture.name for mixture in self.mixtures]
        for known in (titles, names):
            if known.count(title) == 1:
                return self.mixtures[known.index(title)]
        raise KeyError(f"no mixture {title!r}{closest(str(title), titles)}; known: {', '.join(titles)}")

    def rows(self) -> list[dict[str, Any]]:
        """Return the mean weights: ``picture`` (from 0), ``mixture``, ``sees``, ``expert`` and ``share`` of each."""
        return [
            {"picture": i, "mixture": mixture.name, "sees": mixture.sees, "expert": expert, "share": share}
            for i in range(self.visible.shape[0])
            for mixture in self.mixtures
            for expert, share in zip(mixture.experts, mixture.shares[i].tolist(), strict=True)
        ]

    def to_csv(self) -> str:
        """Return the mean weights as a table of comma-separated values."""
        stream = io.StringIO()
        rows = self.rows()
        writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({**row, "share": f"{row['share']:.6f}"} for row in rows)
        return stream.getvalue()

    def overlay(self, title: str, *, relative: bool = False) -> Tensor:
        """Return the pictures that a mixture saw, coloured by its experts (the visible ones, if it saw both).

        Args:
            title: The mixture with what it saw (``"encoder.degradation (visible)"``), or its name if it ran once.
            relative: Colour by the weights beyond their means, see :meth:`ExpertWeights.overlay`.

        Returns:
            RGB pictures ``(B, 3, H, W)`` in [0, 1].
        """
        mixture = self[title]
        return mixture.overlay(self.infrared if mixture.sees == "infrared" else self.visible, relative=relative)

    def plot(self, mixtures: Sequence[str] | None = None, *, picture: int = 0, relative: bool = False) -> Figure:
        """Draw the overlays of some mixtures, each with its experts and their mean weights.

        Args:
            mixtures: Which mixtures to draw, called as for :meth:`overlay`; by default all.
            picture: Which picture of the batch.
            relative: Colour by the weights beyond their means, see :meth:`ExpertWeights.overlay`.

        Returns:
            The figure; ``savefig`` writes it.

        Raises:
            ModuleNotFoundError: If matplotlib is not installed.
        """
        chosen = self.mixtures if mixtures is None else tuple(map(self.__getitem__, mixtures))
        height, width = self.visible.shape[2:]
        columns = math.ceil(math.sqrt(len(chosen)))
        rows = math.ceil(len(chosen) / columns)
        side = 6.4 if columns == 1 else 4.0
        figure = new_figure(columns * side, rows * (side * height / width + 0.75))
        panels = figure.subplots(rows, columns, squeeze=False).flat
        for panel, mixture in zip(panels, chosen):
            overlay = self.overlay(mixture.title, relative=relative)[picture]
            panel.imshow(overlay.movedim(0, -1).cpu().numpy())
            panel.set_title(mixture.title, fontsize=9, loc="left", pad=4)
            panel.set_axis_off()
            _draw_legend(panel, mixture, picture)
        for panel in [*figure.axes][len(chosen) :]:
            panel.remove()
        most = "exceeds its mean most" if relative else "has the largest weight"
        figure.supxlabel(f"colour: the expert that {most}, the fuller the more; number: its mean weight", fontsize=8)
        return figure


def expert_report(
    model: FusionModel,
    infrared: Picture,
    visible: Picture,
    *,
    resize: Literal["infrared", "visible"] | None = None,
    thermal_range: ThermalRange = None,
    black_hot: bool = False,
    alignment: Alignment | None = None,
    **guidance: Any,
) -> ExpertReport:
    """Fuse a pair and return which expert of each mixture acted where.

    Args:
        model: A network with mixtures of experts (:class:`~fusionblocks.MixtureOfExperts`), such as SGAFusion.
        infrared: The infrared picture, as :func:`~fusionblocks.fuse` takes it.
        visible: The visible picture, likewise.
        resize: Which of the two to resize when their sizes differ; ``None`` refuses such a pair.
        thermal_range: What becomes black and white in the infrared picture, in its own units, or ``"auto"``.
        black_hot: Whether hot is black in the infrared picture.
        alignment: How the infrared camera lies over the visible one, for pictures as both took them.
        **guidance: The network's further inputs by name, see :func:`~fusionblocks.fuse`.

    Returns:
        The fused picture, and per mixture the weights of its experts at each pixel and on average.

    Raises:
        TypeError: If ``model`` is not a network, or one without mixtures of experts.
        ValueError: See :func:`~fusionblocks.fuse`.

    Example:
        >>> import torch
        >>> import fusionblocks as fb
        >>> scene = fb.data.synthetic_scene(seed=10, height=48, width=64)
        >>> model = fb.create_model("sgafusion", channels=4, semantic_channels=8)
        >>> report = fb.expert_report(model, scene.infrared, scene.visible, semantic=torch.zeros(8))
        >>> degradation = report["encoder.degradation"]
        >>> degradation.experts, degradation.weights.shape, degradation.shares.shape
        (('dehaze', 'low light', 'base'), torch.Size([1, 3, 48, 64]), torch.Size([1, 3]))
        >>> report.overlay("encoder.degradation").shape
        torch.Size([1, 3, 48, 64])
    """
    if not isinstance(model, FusionModel):
        raise TypeError(f"model must be a FusionModel, got {type(model).__name__}")
    inputs, colour = network_inputs(model, infrared, visible, resize, guidance, thermal_range, alignment, black_hot)
    with torch.no_grad(), evaluating(model), _recorded(model) as mixtures:
        fused = colour_picture(model, model(**inputs).fused, colour)
    return ExpertReport(
        fused=in_kind(fused, visible),
        infrared=inputs["infrared"].float(),
        visible=colour,
        mixtures=tuple(mixtures),
    )


def mixtures_of(model: FusionModel) -> dict[str, MixtureOfExperts]:
    """Return a network's mixtures of experts by name.

    Raises:
        TypeError: If it has none.
    """
    mixtures = {name: module for name, module in model.named_modules() if isinstance(module, MixtureOfExperts)}
    if not mixtures:
        raise TypeError(f"{model.name!r} has no mixtures of experts, so there is nothing to report")
    return mixtures


@contextmanager
def _recorded(model: FusionModel) -> Iterator[list[ExpertWeights]]:
    """Collect the gates of all mixtures that run inside the block."""
    seen: list[ExpertWeights] = []
    passes: Counter[str] = Counter()

    def record(name: str, mixture: MixtureOfExperts, inputs: tuple[Tensor, ...]) -> None:
        sees = _seen_by(model, name)[passes[name] :]
        seen.append(ExpertWeights(name, sees[0] if sees else "", mixture.names, mixture.gate(*inputs).float()))
        passes[name] += 1

    with ExitStack() as stack:
        for name, mixture in mixtures_of(model).items():
            stack.callback(mixture.register_forward_pre_hook(partial(record, name)).remove)
        yield seen


def _seen_by(model: FusionModel, name: str) -> tuple[str, ...]:
    """Return what a mixture sees in each pass, by the part of the network that it belongs to."""
    return next((sees for part, sees in model.expert_passes.items() if f"{name}.".startswith(f"{part}.")), ())


def _brightened(gray: Tensor) -> Tensor:
    """Return a gray picture between mid-dark and white, dark parts raised."""
    low, high = _percentile(gray, 1), _percentile(gray, 99)
    return 0.3 + 0.7 * ((gray - low) / (high - low).clamp(min=1e-3)).clamp(0, 1).pow(0.6)


def _percentile(picture: Tensor, percent: float) -> Tensor:
    """Return a percentile of each picture ``(B, 1, H, W)`` as ``(B, 1, 1, 1)``, from every seventh pixel."""
    return torch.quantile(picture.flatten(1)[:, ::7], percent / 100, dim=1)[:, None, None, None]


def colours(count: int) -> Tensor:
    """Return ``count`` RGB colours ``(count, 3)`` in [0, 1]; from the eighth on they come again."""
    codes = [COLOURS[i % len(COLOURS)] for i in range(count)]
    return torch.tensor([[int(code[i : i + 2], 16) / 255 for i in (1, 3, 5)] for code in codes])


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of a size in inches."""
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("plots need matplotlib: pip install 'fusionblocks[plot]'", name=error.name) from error
    return Figure(figsize=(width, height), dpi=150, layout="constrained")


def _draw_legend(panel: Any, mixture: ExpertWeights, picture: int) -> None:
    from matplotlib.patches import Patch

    handles = [
        Patch(color=tuple(colour), label=f"{expert} {share:.0%}".replace("%", " %"))
        for expert, share, colour in zip(
            mixture.experts, mixture.shares[picture].tolist(), colours(len(mixture.experts)).tolist()
        )
    ]
    panel.legend(
        handles=handles,
        loc="upper center",
        bbox_to_anchor=(0.5, -0.01),
        ncols=min(len(handles), 4),
        frameon=False,
        fontsize=8,
        handlelength=1.0,
        handleheight=1.0,
        columnspacing=1.2,
    )
