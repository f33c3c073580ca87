"""Autocast's state, eager and under torch.compile."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fusionblocks._support.autocast import WITHOUT_AUTOCAST, autocast_enabled, no_autocast


@pytest.mark.parametrize("device", ["cpu", "cuda", "mps", "xpu"])
def test_follows_autocast_of_its_own_kind_of_device(device: str) -> None:
    assert torch.amp.is_autocast_available(device)
    assert not autocast_enabled(device)
    torch.set_autocast_enabled(device, True)
    try:
        assert autocast_enabled(device)
        assert not autocast_enabled("cpu" if device != "cpu" else "cuda")
    finally:
        torch.set_autocast_enabled(device, False)


@pytest.mark.parametrize("device", sorted(WITHOUT_AUTOCAST))
def test_is_off_where_there_is_none(device: str) -> None:
    assert not torch.amp.is_autocast_available(device)
    assert not autocast_enabled(device)
    with no_autocast(device):
        pass


def test_compiles_without_a_break_and_anew_when_it_changes() -> None:
    @torch.compile(fullgraph=True, backend="eager")
    def product(x: Tensor) -> tuple[Tensor, Tensor, bool]:
        with no_autocast(x.device.type):
            exact = x @ x
        return exact, x @ x, autocast_enabled(x.device.type)

    x = torch.rand(4, 4)
    for on in (False, True, False):
        with torch.autocast("cpu", enabled=on, dtype=torch.bfloat16):
            exact, cast, enabled = product(x)
        assert exact.dtype == torch.float32
        assert cast.dtype == (torch.bfloat16 if on else torch.float32)
        assert enabled == on
