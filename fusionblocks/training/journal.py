"""What a run tells while it goes: a line of JSON a step, TensorBoard, a progress bar, pictures."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fusionblocks._support.files import whole_file
from fusionblocks.image import tensor_to_array, write_image

LOG = "log.jsonl"


class Journal:
    """The log of a run, written by its first process alone.

    Args:
        folder: The run's folder.
        step: Steps that the run has behind it; what the log holds beyond them is cut off.
        tensorboard: Whether to write TensorBoard's files too.
        progress: Whether to show a progress bar.
        active: Whether this process writes.

    Raises:
        ModuleNotFoundError: If TensorBoard is asked for and not installed.
    """

    def __init__(self, folder: Path, *, step: int = 0, tensorboard: bool, progress: bool, active: bool = True) -> None:
        self.folder, self.progress, self.active = folder, progress and active, active
        self.bar: Any = None
        self.writer: Any = None
        if not active:
            return
        folder.mkdir(parents=True, exist_ok=True)
        cut_log(folder / LOG, step)
        self.log = open(folder / LOG, "a")  # noqa: SIM115 -- closed by close()
        if tensorboard:
            self.writer = _open_tensorboard(folder / "tensorboard", step)

    def begin(self, title: str, steps: int, done: int) -> None:
        """Start the bar of a phase."""
        if self.progress:
            from tqdm.auto import tqdm

            self.bar = tqdm(desc=title, total=steps, initial=done, unit="step")

    def end(self) -> None:
        """Close the bar of a phase."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None

    def step(self, line: Mapping[str, Any]) -> None:
        """Log a step: its loss, the terms of it, the learning rate."""
        if not self.active:
            return
        self._write(line)
        if self.writer is not None:
            scalars = {"loss": line["loss"], "lr": line["lr"], "gradient": line["gradient"], **line["terms"]}
            for name, value in scalars.items():
                self.writer.add_scalar(f"{line['phase']}/{name}", value, line["step"])
        if self.bar is not None:
            shown = {"loss": line["loss"], **line["terms"]}
            self.bar.set_postfix({name: f"{value:.3g}" for name, value in shown.items()}, refresh=False)
            self.bar.update()

    def validated(self, phase: str, step: int, scores: Mapping[str, float]) -> None:
        """Log the means of a validation."""
        if not self.active:
            return
        self._write({"phase": phase, "step": step, "validation": dict(scores)})
        if self.writer is not None:
            for name, value in scores.items():
                self.writer.add_scalar(f"validation/{name}", value, step)

    def pictures(self, step: int, grid: Tensor) -> None:
        """Write a grid of pictures ``(3, H, W)`` in [0, 1]."""
        if not self.active:
            return
        folder = self.folder / "pictures"
        folder.mkdir(exist_ok=True)
        write_image(folder / f"step_{step:09d}.png", tensor_to_array(grid))
        if self.writer is not None:
            self.writer.add_image("infrared, visible, fused", grid, step)

    def close(self) -> None:
        """Flush and close everything."""
        self.end()
        if self.active:
            self.log.close()
        if self.writer is not None:
            self.writer.close()

    def _write(self, line: Mapping[str, Any]) -> None:
        self.log.write(json.dumps(line) + "\n")
        self.log.flush()


def cut_log(file: Path, step: int) -> None:
    """Remove the lines of a log that lie beyond a step, and a line that a kill cut short."""
    if not file.is_file():
        return
    kept = []
    for text in file.read_text().splitlines():
        try:
            if json.loads(text)["step"] <= step:
                kept.append(text + "\n")
        except (ValueError, KeyError, TypeError):
            continue
    with whole_file(file) as partial:
        partial.write_text("".join(kept))


def read_log(folder: str | Path) -> list[dict[str, Any]]:
    """Return the lines of a run's log, one for each step and each validation.

    Args:
        folder: The folder that ``train`` wrote to.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from fusionblocks.training import read_log
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = (folder / "log.jsonl").write_text('{"phase": "fusion", "step": 1, "loss": 0.5}')
        >>> read_log(folder)[0]["loss"]
        0.5
    """
    return [json.loads(line) for line in (Path(folder) / LOG).read_text().splitlines()]


def picture_grid(rows: list[tuple[Tensor, Tensor, Tensor]], height: int = 160) -> Tensor:
    """Return rows of infrared, visible and fused picture, each ``(C, H, W)`` in [0, 1], as one ``(3, H, W)``."""
    strips = []
    for row in rows:
        scaled = [_scaled(picture.float().cpu(), height) for picture in row]
        strips.append(torch.cat(scaled, dim=2))
    width = min(strip.shape[2] for strip in strips)
    return torch.cat([strip[:, :, :width] for strip in strips], dim=1).clamp(0, 1)


def _scaled(picture: Tensor, height: int) -> Tensor:
    rows, columns = picture.shape[-2:]
    size = (height, max(1, round(columns * height / rows)))
    small = torch.nn.functional.interpolate(picture[None], size, mode="bilinear", antialias=True)
    return small[0].expand(3, -1, -1)


def _open_tensorboard(folder: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("tensorboard is not installed: pip install 'fusionblocks[train]'") from error
    return SummaryWriter(str(folder), purge_step=step + 1)
