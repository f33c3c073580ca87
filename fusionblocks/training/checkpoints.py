"""Checkpoints: everything that a run needs to go on, in folders that are there whole or not at all."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fusionblocks._loading import read_checkpoint
from fusionblocks.training.recipe import Recipe, difference

STATE, ABOUT = "state.pt", "about.json"
FORMAT = 1


class Checkpoints:
    """The checkpoints of a run, one folder each.

    A checkpoint is written beside its place, flushed to the disk and renamed, so that a kill or a full disk in the
    middle leaves the last good one. The newest ``keep`` stay, and the best.

    Args:
        folder: Where they lie.
        recipe: The run's recipe; the checkpoints of another one are refused.
        processes: Number of processes of the run.
        keep: How many of the newest stay.
    """

    def __init__(self, folder: Path, recipe: Recipe, *, processes: int = 1, keep: int = 2) -> None:
        self.folder, self.recipe, self.processes, self.keep = folder, recipe, processes, keep

    def list(self) -> list[Path]:
        """Return the checkpoints, the oldest first."""
        return sorted(path for path in self.folder.glob("step_*") if re.fullmatch(r"step_\d{9}", path.name))

    def write(self, step: int, state: Mapping[str, Any], best: str | None = None) -> Path:
        """Write a checkpoint and remove those that are no longer kept.

        Args:
            step: Steps of the run so far, which name the checkpoint.
            state: What it holds: tensors, numbers, texts, and containers of these.
            best: Name of the best checkpoint so far, which stays.

        Raises:
            OSError: If it cannot be written, for a full disk as a rule; those before it are as they were.
        """
        place, partial = self.folder / name_of(step), self.folder / f".partial_{os.getpid()}"
        about = {
            "format": FORMAT,
            "step": step,
            "processes": self.processes,
            "fingerprint": self.recipe.fingerprint,
            "recipe": self.recipe.plain(),
        }
        if place.exists():
            return place
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            with open(partial / STATE, "wb") as file:
                torch.save(dict(state), file)
                _flush(file)
            with open(partial / ABOUT, "w") as file:
                json.dump(about, file, indent=1)
                _flush(file)
            _flush_folder(partial)
            partial.rename(place)
            _flush_folder(self.folder)
        except (OSError, RuntimeError) as error:  # PyTorch's writer makes the one of the other
            shutil.rmtree(partial, ignore_errors=True)
            kept = self.list()
            last = f"the last good one is {kept[-1]}" if kept else "there is none before it"
            cause = _cause(error)
            raise OSError(f"checkpoint {place} could not be written ({cause}); {last}") from error
        self._prune(best)
        return place

    def read(self, place: Path) -> dict[str, Any]:
        """Return what a checkpoint holds, after making sure that it belongs to this run.

        Raises:
            ValueError: If it was made by another recipe (what differs is named), by another number of processes, or is
                damaged.
        """
        try:
            about = json.loads((place / ABOUT).read_text())
            recipe, processes = about["recipe"], about["processes"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(f"checkpoint {place} is damaged: {ABOUT} cannot be read ({error})") from error
        if about.get("format") != FORMAT:
            raise ValueError(f"checkpoint {place} has format {about.get('format')}, this version reads {FORMAT}")
        if lines := difference(self.recipe.plain(), recipe):
            more = f" and {len(lines) - 5} more" if len(lines) > 5 else ""
            raise ValueError(f"checkpoint {place} was made by another recipe: {'; '.join(lines[:5])}{more}")
        if processes != self.processes:
            raise ValueError(f"checkpoint {place} was written by {processes} processes, not {self.processes}")
        return read_checkpoint(place / STATE)

    def clear_partial(self) -> None:
        """Remove what a kill left of a checkpoint."""
        for path in self.folder.glob(".partial_*"):
            shutil.rmtree(path, ignore_errors=True)

    def _prune(self, best: str | None) -> None:
        for path in self.list()[: -self.keep]:
            if path.name != best:
                # no longer a checkpoint from here on, even if removing it is interrupted
                with contextlib.suppress(OSError):
                    shutil.rmtree(path.rename(path.with_name(f".partial_{path.name}")), ignore_errors=True)


def name_of(step: int) -> str:
    """Return the name of a step's checkpoint."""
    return f"step_{step:09d}"


def random_states() -> dict[str, Any]:
    """Return the states of all random numbers of this process, as tensors, numbers and texts."""
    kind, keys, *rest = np.random.get_state()
    version, numbers, gauss = random.getstate()
    states: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "numpy": [kind, torch.from_numpy(np.asarray(keys).astype(np.int64)), *rest],
        "python": [version, list(numbers), gauss],
    }
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def set_random_states(states: Mapping[str, Any]) -> None:
    """Put back what :func:`random_states` returned."""
    torch.set_rng_state(states["torch"])
    kind, keys, *rest = states["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))
    version, numbers, gauss = states["python"]
    random.setstate((version, tuple(numbers), gauss))
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])


def to_cpu(value: Any) -> Any:
    """Return nested containers with every tensor on the CPU."""
    if isinstance(value, Tensor):
        return value.detach().cpu()
    if isinstance(value, Mapping):
        return {key: to_cpu(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(to_cpu(item) for item in value)
    return value


def _flush(file: Any) -> None:
    file.flush()
    os.fsync(file.fileno())


def _flush_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _cause(error: BaseException) -> str:
    """Return the system's own words for why a file could not be written."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.strerror:
            return seen.strerror
        seen = seen.__cause__ or seen.__context__
    return str(error).splitlines()[0]
