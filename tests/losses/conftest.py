from __future__ import annotations

import pytest
from torch import Tensor

from tests.losses.inputs import inputs


@pytest.fixture
def given() -> dict[str, Tensor]:
    return inputs(48, 53)
