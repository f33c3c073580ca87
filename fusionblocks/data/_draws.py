"""Sources of chance that depend on numbers alone: a seed, an epoch, an item."""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from torch import Generator


class Draw(IntEnum):
    """What is drawn, so that one seed serves for all of it and nothing is drawn alike."""

    ITEM = 0
    ORDER = 1
    STREAM = 2
    MIXING = 3


def generator_of(seed: int, what: Draw, *numbers: int) -> Generator:
    """Return a generator on the CPU that these numbers decide, unlike that of any others."""
    state = np.random.SeedSequence(seed, spawn_key=(what, *numbers)).generate_state(1, np.uint64)[0]
    return Generator().manual_seed(int(state >> np.uint64(1)))
