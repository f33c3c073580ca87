"""evaluate, the table of metrics, and where the conventions part."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

import fusionblocks as fb
from fusionblocks.metrics import CONVENTIONS, METRICS, evaluate
from tests.helpers.gray import gray, triple

NAMES = [
    "EN",
    "SD",
    "SF",
    "AG",
    "MI",
    "NMI",
    "MSE",
    "RMSE",
    "PSNR",
    "CC",
    "SCD",
    "VIF",
    "Qabf",
    "Nabf",
    "SSIM",
    "MS_SSIM",
    "Qcb",
    "Qcv",
    "FMI",
    "FMI_dct",
    "CE",
    "EI",
]
SIZE = (176, 180)  # the smallest that all metrics take

# what never depends on which source is which; SMFNet's Nabf and MS_SSIM see the infrared picture alone, and PSFusion's
# Nabf takes it for the result
_ONE_SIDED = {"cddfuse": ("Nabf", "MS_SSIM"), "smfnet": ("Nabf", "MS_SSIM"), "vifb": (), "psfusion": ("Nabf",)}
SYMMETRIC = {name: [metric for metric in NAMES if metric not in its] for name, its in _ONE_SIDED.items()}


def test_the_names_are_the_contracts() -> None:
    assert list(METRICS) == NAMES
    assert all(metric.name == name for name, metric in METRICS.items())


@pytest.mark.parametrize("name", NAMES)
def test_each_metric_is_public_and_described(name: str) -> None:
    metric = METRICS[name]
    assert getattr(fb.metrics, metric.function.__name__) is metric.function
    assert metric.direction in (1, -1)
    assert metric.range[0] < metric.range[1]
    assert metric.description.endswith(".")
    assert "\n" not in metric.description
    assert list(inspect.signature(metric.function).parameters)[:3] == ["fused", "infrared", "visible"]


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_conventions_name_real_options(convention: str) -> None:
    entry = CONVENTIONS[convention]
    assert entry.name == convention
    assert set(entry.published) <= set(NAMES)
    assert set(entry.options) <= set(NAMES)
    for name, options in entry.options.items():
        parameters = inspect.signature(METRICS[name].function).parameters
        assert set(options) <= {p.name for p in parameters.values() if p.kind is p.KEYWORD_ONLY}


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_all_metrics_of_a_batch(convention: str) -> None:
    pictures = triple(2, *SIZE)
    scores = evaluate(*pictures, convention=convention)
    assert list(scores) == NAMES
    for name, score in scores.items():
        low, high = METRICS[name].range
        assert score.shape == (2,)
        assert score.dtype == torch.float64
        assert all(math.isfinite(value) and low <= value <= high for value in score.tolist()), name
        options = CONVENTIONS[convention].options.get(name, {})
        # picture by picture, as on a CPU: the order of a sum differs between batches
        singles = [METRICS[name](*single, **options) for single in zip(*(x.split(1) for x in pictures))]
        assert torch.equal(score, torch.cat(singles)), name


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_a_batch_scores_as_its_pictures_and_uint8_as_float(convention: str) -> None:
    batch = triple(2, *SIZE, seed=1)
    together = evaluate(*(picture.float() / 255 for picture in batch), convention=convention)
    for index, one in enumerate(zip(*(pictures.split(1) for pictures in batch))):
        for name, score in evaluate(*one, convention=convention).items():
            assert together[name][index].item() == pytest.approx(score.item(), rel=1e-10, abs=1e-13), name


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_the_sources_may_change_places(convention: str) -> None:
    fused, infrared, visible = triple(1, *SIZE, seed=2)
    names = SYMMETRIC[convention]
    scores = evaluate(fused, infrared, visible, names, convention)
    for name, swapped in evaluate(fused, visible, infrared, names, convention).items():
        assert swapped.item() == pytest.approx(scores[name].item(), rel=1e-10, abs=1e-13), name


def test_no_metric_prefers_a_wrong_result() -> None:
    """The mean of both sources beats noise, by the direction that the table gives, wherever sources count."""
    fused, infrared, visible = triple(1, *SIZE)
    noise = torch.randint(0, 256, fused.shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    names = [name for name in NAMES if name not in ("EN", "SD", "SF", "AG", "EI")]
    good, bad = (evaluate(result, infrared, visible, names) for result in (fused, noise))
    for name in names:
        assert METRICS[name].direction * (good[name] - bad[name]).item() > 0, name


def test_where_the_conventions_part() -> None:
    pictures = triple(1, *SIZE)
    for picture in pictures[:2]:  # equal and faint edges, which VIFB's Qabf takes for strong ones
        picture[..., 50:60, 50:60] = 90
        picture[..., 55, 55] = 91
    cddfuse, smfnet, vifb = (evaluate(*pictures, convention=name) for name in ("cddfuse", "smfnet", "vifb"))

    def differing(other: dict[str, Tensor]) -> set[str]:
        return {name for name in NAMES if not torch.equal(cddfuse[name], other[name])}

    assert differing(smfnet) == {"AG", "SSIM"}
    assert differing(vifb) == {"SF", "AG", "MI", "RMSE", "PSNR", "Qabf", "Nabf", "SSIM", "MS_SSIM"}


def matlab_mse(a: np.ndarray, b: np.ndarray) -> float:
    return math.sqrt(((a - b) ** 2).sum()) / a.size


def test_vifb_values_by_its_formulas() -> None:
    fused, infrared, visible = triple(1, 40, 50)
    f, a, b = (picture[0, 0].numpy().astype(float) for picture in (fused, infrared, visible))
    height, width = f.shape
    down, across = np.gradient(f)
    rows, columns = np.diff(f, axis=1), np.diff(f, axis=0)
    expected = {
        "SD": f.std(),
        "SF": math.sqrt(((rows**2).sum() + (columns**2).sum()) / f.size),
        "AG": np.sqrt((across**2 + down**2) / 2).sum() / ((height - 1) * (width - 1)),
        "PSNR": 20 * math.log10(255 / math.sqrt((matlab_mse(a, f) + matlab_mse(b, f)) / 2)),
    }
    scores = evaluate(fused, infrared, visible, tuple(expected), "vifb")
    for name, value in expected.items():
        assert scores[name].item() == pytest.approx(value, rel=1e-12), name


def test_metrics_come_in_the_order_asked_for_and_once() -> None:
    pictures = triple(1, 16, 16)
    assert list(evaluate(*pictures, metrics=["SD", "EN", "SD"])) == ["SD", "EN"]
    assert list(evaluate(*pictures, metrics="CC")) == ["CC"]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (("EN", "vif"), "unknown metric 'vif', did you mean 'VIF'"),
        (("MSSSIM",), "unknown metric 'MSSSIM', did you mean 'MS_SSIM'"),
        (("Q^AB/F",), "unknown metric 'Q.AB/F', did you mean 'Qabf'"),
        (("zzzz",), "unknown metric 'zzzz'; there are EN, SD, "),
        ((), "metrics must name at least one metric, got none"),
    ],
)
def test_unknown_metrics_are_refused(asked: tuple[str, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate(*triple(1, 16, 16), metrics=asked)


def test_unknown_conventions_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown convention 'CDDfuse', did you mean 'cddfuse'.; there are cddfuse, "):
        evaluate(*triple(1, 16, 16), metrics=("EN",), convention="CDDfuse")


def test_pictures_are_checked() -> None:
    fused, infrared, visible = triple(1, 16, 16)
    with pytest.raises(ValueError, match="fused and visible must have the same size"):
        evaluate(fused, infrared, gray(1, 16, 17), metrics=("EN",))
    with pytest.raises(TypeError, match="infrared must be a tensor"):
        evaluate(fused, None, visible, metrics=("EN",))  # type: ignore[arg-type]


CONSTANT = {  # result, infrared and visible picture constant, of levels 70, 70 and 200
    **dict.fromkeys(("EN", "SD", "SF", "AG", "MI", "NMI", "CC", "SCD"), 0.0),
    "MSE": 130**2 / 2,
    "PSNR": 10 * math.log10(70**2 / (130**2 / 2)),
    "VIF": 2.0,
    "FMI": 0.5,
}


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_constant_pictures_have_a_value(convention: str) -> None:
    fused, infrared, visible = (torch.full((1, 1, *SIZE), level, dtype=torch.uint8) for level in (70, 70, 200))
    scores = evaluate(fused, infrared, visible, convention=convention)
    for name, score in scores.items():
        low, high = METRICS[name].range
        assert math.isfinite(score.item()), name
        assert low <= score.item() <= high, name
    if convention == "cddfuse":
        for name, value in CONSTANT.items():
            assert scores[name].item() == pytest.approx(value, abs=1e-9), name


@pytest.mark.parametrize("level", [0, 255])
@pytest.mark.parametrize("convention", CONVENTIONS)
def test_black_and_white_pictures_are_never_nan(level: int, convention: str) -> None:
    flat, picture = torch.full((1, 1, *SIZE), level, dtype=torch.uint8), gray(1, *SIZE)
    for pictures in ((flat, flat, flat), (flat, picture, picture), (picture, flat, flat), (picture, picture, flat)):
        scores = evaluate(*pictures, convention=convention)
        assert not [name for name, score in scores.items() if math.isnan(score.item())]


@pytest.mark.parametrize("name", NAMES)
def test_tiny_pictures_score_or_name_the_smallest_size(name: str) -> None:
    pictures = triple(1, 16, 16)
    if name in ("VIF", "MS_SSIM"):
        with pytest.raises(ValueError, match=rf"^{name}.* at least .* pixels, got 16x16"):
            evaluate(*pictures, metrics=(name,), convention="vifb")
    else:
        assert math.isfinite(evaluate(*pictures, metrics=(name,), convention="vifb")[name].item())


def test_checks_run_once(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    from fusionblocks.metrics import _inputs

    check: Callable[[str, Tensor], None] = _inputs._check_values
    monkeypatch.setattr(_inputs, "_check_values", lambda name, x: (seen.append(name), check(name, x))[1])
    evaluate(*(picture / 255 for picture in triple(1, *SIZE)))
    assert seen == ["fused", "infrared", "visible"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("convention", CONVENTIONS)
def test_a_gpu_gives_the_same_numbers(convention: str) -> None:
    batch = triple(2, *SIZE, seed=3)
    here = evaluate(*batch, convention=convention)
    there = evaluate(*(picture.cuda() for picture in batch), convention=convention)
    for name, score in there.items():
        assert score.is_cuda
        torch.testing.assert_close(score.cpu(), here[name], rtol=1e-8, atol=1e-11)
