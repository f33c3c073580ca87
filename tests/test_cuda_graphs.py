"""Recorded forward passes: which calls share a recording, what is copied, what is dropped, and what is told.

Without a GPU a stand-in records: its replay runs the function again on the recorded inputs.
"""

from __future__ import annotations

import contextlib
import copy
import threading
import warnings
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

import fusionblocks as fb
from fusionblocks.optimization import cuda_graphs, fusing
from fusionblocks.optimization.cuda_graphs import CudaGraphs
from tests.helpers.networks import NARROW, pair, trained_like


class Recorder:
    """Stands in for CUDA: counts recordings and replays."""

    def __init__(self) -> None:
        self.recorded = self.replayed = 0

    def record(self, function: Callable[[], Any], pool: Any) -> tuple[Any, Any]:
        self.recorded += 1
        outputs = function()

        def replay() -> None:
            self.replayed += 1
            for old, new in zip(tree_leaves(outputs), tree_leaves(function()), strict=True):
                if isinstance(old, Tensor):
                    old.copy_(new)

        return SimpleNamespace(replay=replay), outputs


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    recorder = Recorder()
    stream = SimpleNamespace(record_event=object, wait_event=lambda event: None)
    monkeypatch.setattr(cuda_graphs, "record", recorder.record)
    monkeypatch.setattr(cuda_graphs, "refusal", lambda module, tensors: None)
    monkeypatch.setattr(torch.cuda, "device", lambda device: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: stream)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 1))
    return recorder


@torch.no_grad()
@pytest.mark.parametrize("name", NARROW)
def test_the_same_results(name: str, recorder: Recorder) -> None:
    model = trained_like(name, **NARROW[name])
    fast = fb.optimize(model, cuda_graph=True)
    for seed in (3, 5):
        inputs = pair(name, 48, 40, seed=seed)
        expected, got = model(**inputs), fast(**inputs)
        torch.testing.assert_close(got.fused, expected.fused, rtol=0, atol=1e-4)
        assert type(got) is type(expected)
    assert (recorder.recorded, recorder.replayed) == (1, 2)
    assert isinstance(fast, type(model))


@torch.no_grad()
def test_fuse_replays(recorder: Recorder) -> None:
    fast = fb.optimize(fb.create_model("fusionblocks"), cuda_graph=True)
    scene = fb.data.synthetic_scene(3, height=64, width=80)
    fused = fb.fuse(scene.infrared, scene.visible, model=fast)
    torch.testing.assert_close(fused, fb.fuse(scene.infrared, scene.visible), rtol=0, atol=1e-4)
    assert recorder.replayed == 1


class Doubling(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(2.0))

    def forward(self, x: Tensor, more: float = 0.0) -> dict[str, Any]:
        return {"twice": self.weight * x + more, "name": "doubled"}


@pytest.fixture
def doubling(recorder: Recorder) -> Any:
    return fb.optimize(Doubling(), cuda_graph=True)


@torch.no_grad()
def test_a_recording_for_each_kind_of_input(doubling: Any, recorder: Recorder) -> None:
    x = torch.ones(2, 3)
    calls = [(x,), (2 * x,), (x, 1.0), (x.double(),), (x[:1],), (torch.ones(3, 2).T,)]
    for arguments in calls:
        result = doubling(*arguments)
        assert result["name"] == "doubled"
        torch.testing.assert_close(result["twice"], 2 * arguments[0] + (arguments[1] if len(arguments) > 1 else 0))
    assert recorder.recorded == 5  # the second call's are those of the first
    doubling(more=1.0, x=x)
    assert recorder.recorded == 6
    switch = torch.backends.cuda.matmul
    before = switch.fp32_precision
    switch.fp32_precision = "tf32" if before != "tf32" else "ieee"
    try:
        doubling(x)
    finally:
        switch.fp32_precision = before
    assert recorder.recorded == 7


@torch.no_grad()
def test_results_are_copies_unless_asked_otherwise(doubling: Any) -> None:
    first = doubling(torch.ones(2))["twice"]
    doubling(torch.zeros(2))
    assert first.tolist() == [2, 2]
    doubling.cuda_graphs.copies = False
    first = doubling(torch.ones(2))["twice"]
    doubling(torch.zeros(2))
    assert first.tolist() == [0, 0]


@torch.no_grad()
def test_the_oldest_is_dropped(doubling: Any, recorder: Recorder) -> None:
    doubling.cuda_graphs.most = 2
    for size in (1, 2, 1, 3):  # 2 was not used for longest
        doubling(torch.ones(size))
    assert recorder.recorded == 3
    doubling(torch.ones(1))
    assert recorder.recorded == 3
    doubling(torch.ones(2))
    assert recorder.recorded == 4
    assert repr(doubling.cuda_graphs) == "CudaGraphs(most=2, copies=True), 2 recorded"


@torch.no_grad()
def test_weights_that_move_are_recorded_anew(doubling: Any, recorder: Recorder) -> None:
    x = torch.ones(2)
    doubling(x)
    doubling.load_state_dict({"weight": torch.tensor(3.0)})
    assert doubling(x)["twice"].tolist() == [3, 3]
    assert recorder.recorded == 1
    doubling.double()
    doubling(x)
    assert recorder.recorded == 2
    doubling.cuda_graphs.clear()
    doubling(x)
    assert recorder.recorded == 3


def test_inference_mode_and_none_share_a_recording(doubling: Any, recorder: Recorder) -> None:
    with torch.inference_mode():
        assert doubling(torch.ones(2))["twice"].tolist() == [2, 2]
    assert doubling(torch.zeros(2))["twice"].tolist() == [0, 0]
    assert recorder.recorded == 1


@torch.no_grad()
def test_copies_have_recordings_of_their_own(doubling: Any, recorder: Recorder) -> None:
    doubling(torch.ones(2))
    doubling.cuda_graphs.most = 3
    for other in (copy.deepcopy(doubling), fb.optimize(doubling), fb.optimize(doubling, cuda_graph=True)):
        assert repr(other.cuda_graphs) == "CudaGraphs(most=3, copies=True), 0 recorded"
        assert other(torch.ones(2))["twice"].tolist() == [2, 2]
    assert recorder.recorded == 4


def test_threads_take_turns(doubling: Any) -> None:
    wrong = []

    def work(number: int) -> None:
        with torch.no_grad():
            for _ in range(50):
                result = doubling(torch.full((100,), float(number)))["twice"]
                if not (result == 2 * number).all():
                    wrong.append(number)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@torch.no_grad()
def test_what_cannot_be_recorded_runs_and_is_told_once(
    doubling: Any, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(function: Callable[[], Any], pool: Any) -> Any:
        recorder.recorded += 1
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    monkeypatch.setattr(cuda_graphs, "record", fail)
    with pytest.warns(UserWarning, match=r"Doubling runs without CUDA graphs: an operation .*stream is capturing\)"):
        assert doubling(torch.ones(2))["twice"].tolist() == [2, 2]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert doubling(torch.ones(2))["twice"].tolist() == [2, 2]
    assert recorder.recorded == 2  # with compiled tails and without; it is not tried again


@torch.no_grad()
def test_an_error_without_words_is_told_by_its_name(
    doubling: Any, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(function: Callable[[], Any], pool: Any) -> Any:
        raise NotImplementedError

    monkeypatch.setattr(cuda_graphs, "record", fail)
    with pytest.warns(UserWarning, match=r"cannot be recorded \(NotImplementedError\)"):
        assert doubling(torch.ones(2))["twice"].tolist() == [2, 2]


@torch.no_grad()
def test_tails_are_compiled_while_recording_alone(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    names: list[str] = []
    monkeypatch.setattr(fusing, "compiled", lambda function: names.append(function.__name__) or function)
    model = trained_like("psfusion", **NARROW["psfusion"])
    fast, inputs = fb.optimize(model, cuda_graph=True), pair("psfusion", 64, 64)
    torch.testing.assert_close(fast(**inputs).fused, model(**inputs).fused, rtol=0, atol=1e-4)
    assert set(names) == {"gated_merge", "recalibrated", "modulated", "gated"}
    names.clear()
    fb.optimize(model)(**inputs)
    assert not names


@torch.no_grad()
def test_without_a_compiler_the_tails_run_as_they_are(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(function: Callable[..., Any]) -> Any:
        raise OSError("no compiler")

    monkeypatch.setattr(fusing, "compiled", fail)
    model = trained_like("psfusion", **NARROW["psfusion"])
    fast, inputs = fb.optimize(model, cuda_graph=True), pair("psfusion", 64, 64)
    torch.testing.assert_close(fast(**inputs).fused, model(**inputs).fused, rtol=0, atol=1e-4)
    assert recorder.replayed == 1


@torch.no_grad()
def test_bad_input_raises_as_it_does_without(recorder: Recorder) -> None:
    fast = fb.optimize(trained_like("fusionblocks", channels=8), cuda_graph=True)
    with pytest.raises(ValueError, match="visible"):
        fast(torch.rand(1, 1, 8, 8), torch.rand(1, 3, 8, 9))


@torch.no_grad()
def test_compiled_tails_are_the_same_functions() -> None:
    maps = [torch.randn(2, 8, 9, 7) for _ in range(3)]
    numbers = [torch.randn(2, 8, 1, 1) for _ in range(3)]
    calls = {
        fusing.gated_merge: (*maps[:2], torch.randn(2, 16, 1, 1), maps[2], numbers[0]),
        fusing.recalibrated: (*maps[:2], torch.randn(2, 16, 1, 1)),
        fusing.modulated: (maps[0].bfloat16(), *numbers[:2], maps[1].bfloat16(), maps[2].bfloat16()),
        fusing.gated: (*maps[:2], numbers[0]),
    }
    for function, tensors in calls.items():
        expected = function(*tensors)
        with fusing.fusing():  # in between a compiled one does not round to bfloat16
            tolerance = (
                {"rtol": 2e-2, "atol": 2e-2} if expected.dtype == torch.bfloat16 else {"rtol": 1e-5, "atol": 1e-5}
            )
            torch.testing.assert_close(function(*tensors), expected, **tolerance)


@torch.no_grad()
def test_on_a_cpu_it_runs_as_usual() -> None:
    model = trained_like("fusionblocks", channels=8)
    fast = fb.optimize(model, cuda_graph=True)
    inputs = pair("fusionblocks", 40, 36)
    with pytest.warns(UserWarning, match="FusionBlocksNet runs without CUDA graphs: inputs are on cpu"):
        output = fast(**inputs)
    torch.testing.assert_close(output.fused, model(**inputs).fused, rtol=0, atol=1e-4)


def test_a_guide_is_a_reason() -> None:
    model = fb.create_model("sgafusion", **NARROW["sgafusion"])
    tensors = [SimpleNamespace(is_cuda=True, device=torch.device("cuda", 0), requires_grad=False)]
    model.attach_guidance(lambda visible: visible)
    assert "a guide is attached" in cuda_graphs.refusal(model, tensors)  # type: ignore[arg-type]
    tensors[0].requires_grad = True
    assert cuda_graphs.refusal(model, tensors) == "inputs require gradients"  # type: ignore[arg-type]


def test_autocast_is_a_reason() -> None:
    tensors = [SimpleNamespace(is_cuda=True, device=torch.device("cuda", 0), requires_grad=False)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a machine without a GPU
        torch.set_autocast_enabled("cuda", True)
    try:
        assert cuda_graphs.refusal(Doubling(), tensors).startswith("autocast is on")  # type: ignore[arg-type]
    finally:
        torch.set_autocast_enabled("cuda", False)


def test_wrong_arguments() -> None:
    with pytest.raises(TypeError, match="cuda_graph must be a bool, got int"):
        fb.optimize(Doubling(), cuda_graph=1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="most must be a positive integer, got 0"):
        CudaGraphs(0)


@pytest.mark.gpu
@torch.no_grad()
@pytest.mark.parametrize("dtype", [None, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", NARROW)
def test_networks_on_a_gpu(name: str, dtype: torch.dtype | None) -> None:
    model = trained_like(name, **NARROW[name]).cuda()
    plain = fb.optimize(model, dtype)
    fast = fb.optimize(model, dtype, cuda_graph=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for seed in (3, 5):
            inputs = {key: x.cuda() for key, x in pair(name, 96, 80, seed=seed).items()}
            torch.testing.assert_close(fast(**inputs).fused, plain(**inputs).fused, rtol=0, atol=1e-5)
    assert repr(fast.cuda_graphs).endswith("1 recorded")
