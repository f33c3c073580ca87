"""What launches ask of a device, for tables of shapes: grids and tiles, and some of them compiled for three devices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from fusionblocks.ops import _tiles
from fusionblocks.ops.channel_attention import binding as channel
from fusionblocks.ops.cross_attention import binding as cross
from fusionblocks.ops.folded_token_attention import binding as folded
from fusionblocks.ops.token_attention import binding as token
from tests.helpers.compiled_kernels import compiling

MOST_PROGRAMS = 2**31 - 1  # of the first dimension of a grid
MOST_THREADS = 1024
MOST_NUMBERS = 2**20  # of a tile of Triton's
# a small picture, those of cameras, and the largest that anyone fuses
PIXELS = [1, 63, 160 * 120, 640 * 480, 1920 * 1080, 10_000 * 10_000]
DTYPES = [torch.float32, torch.bfloat16]


def run_channel(pixels: int, dtype: torch.dtype, device: str, heads: int, channels: int, out: int | None) -> None:
    maps = [torch.empty(1, heads, channels, pixels, dtype=dtype, device=device) for _ in range(3)]
    projection = None if out is None else torch.empty(out, heads * channels, dtype=dtype, device=device)
    arguments = (*maps, torch.ones(heads, 1, 1, device=device), projection)
    result, *saved = channel.launch_forward(*arguments)
    channel.launch_backward(result, *arguments, *saved)


def run_cross(pixels: int, dtype: torch.dtype, device: str, streams: int, width: int) -> None:
    maps = [torch.empty(1, 1, width, pixels, dtype=dtype, device=device).mT for _ in range(2 * streams + 1)]
    queries, key, values = maps[:streams], maps[streams], maps[streams + 1 :]
    outs, lse = cross.launch_streams(queries, key, values, 1.0)
    cross.launch_gradients(outs, queries, key, values, outs, lse, 1.0)


def run_tokens(pixels: int, dtype: torch.dtype, device: str, tokens: int, width: int) -> None:
    image = torch.empty(1, 1, width, pixels, dtype=dtype, device=device)
    key = torch.empty(1, 1, 2, tokens, width, dtype=dtype, device=device)
    arguments = (image, key, key, None, 1.0, True)
    folded.launch_backward(folded.launch_forward(*arguments), *arguments)
    query = key[:, 0]
    maps = [torch.empty(1, 2, width, pixels, dtype=dtype, device=device) for _ in range(2)]
    answer, logarithms = token.launch_forward(query, *maps, 1.0)
    token.launch_backward(answer, query, *maps, answer, logarithms, 1.0)


RUNS: list[tuple[Callable[..., None], tuple[Any, ...]]] = [
    (run_channel, (8, 8, None)),
    (run_channel, (8, 8, 64)),
    (run_channel, (1, 16, None)),
    (run_channel, (2, 64, 128)),
    (run_cross, (1, 64)),
    (run_cross, (2, 64)),
    (run_cross, (2, 128)),
    (run_tokens, (1, 512)),
    (run_tokens, (16, 128)),
    (run_tokens, (50, 64)),
    (run_tokens, (128, 512)),
]


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, _tiles.Launch]]:
    """Every launch with every one of its settings; none runs."""
    pytest.importorskip("triton")
    seen: list[tuple[str, _tiles.Launch]] = []

    def record(kernel: Any, settings: tuple[Any, ...], call: tuple[Any, ...], prepare: Callable[..., Any]) -> Any:
        plans = [prepare(setting) for setting in settings]
        seen.extend((kernel.fn.__name__, plan) for plan in plans)
        assert len(set(settings)) == len(settings) > 0
        return plans[0].results

    monkeypatch.setattr(_tiles, "launch", record)
    return seen


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("pixels", PIXELS)
@pytest.mark.parametrize(("run", "sizes"), RUNS)
def test_grids_and_tiles(
    run: Callable[..., None],
    sizes: tuple[Any, ...],
    pixels: int,
    dtype: torch.dtype,
    launches: list[tuple[str, _tiles.Launch]],
) -> None:
    run(pixels, dtype, "meta", *sizes)
    assert launches
    for name, plan in launches:
        assert 1 <= plan.programs <= MOST_PROGRAMS, name
        assert plan.constants.get("num_warps", 4) * 32 <= MOST_THREADS, name
        tiles = {key: size for key, size in plan.constants.items() if key.startswith("B")}
        for key, size in tiles.items():
            assert size >= 1, (name, key)
            assert size & (size - 1) == 0, f"{name}: {key}={size} is no power of two"
        products = [first * second for first in tiles.values() for second in tiles.values()]
        assert max(products, default=0) <= MOST_NUMBERS, name


@pytest.mark.parametrize("capability", [80, 90, 120])
@pytest.mark.parametrize(("run", "sizes"), [RUNS[1], RUNS[5], RUNS[8]], ids=["channel", "cross", "tokens"])
def test_compiled_for_three_generations(run: Callable[..., None], sizes: tuple[Any, ...], capability: int) -> None:
    """Shared memory, registers and instructions of the sizes that networks use, with the compiler at hand."""
    for dtype in DTYPES:
        with compiling(capability) as kernels:  # and checks its choice of tiles
            run(4800, dtype, "cpu", *sizes)
        for kernel in kernels:
            assert kernel.options.get("num_warps", 4) * 32 <= MOST_THREADS
            assert 1 <= kernel.grid[0] <= MOST_PROGRAMS
            assert kernel.grid[1:] == (1, 1)
