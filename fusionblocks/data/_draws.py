"""Sources of chance that depend on numbers alone: a seed, an epoch, an item."""

from __future__ import annotations

import numpy as np
from torch import Generator


def generator_of(*numbers: int) -> Generator:
    """Return a generator on the CPU that these numbers decide, unlike that of any others."""
    state = np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0]
    return Generator().manual_seed(int(state >> np.uint64(1)))
