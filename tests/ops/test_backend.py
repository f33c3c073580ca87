"""The choice of a backend: precedence, nesting, threads, compiled code, and what an impossible request gets."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence

import pytest
import torch
from torch import Tensor

from fusionblocks import ops
from fusionblocks.ops import _backend
from fusionblocks.ops._backend import Backend, Operator, Verdict

NAMES = ["channel_attention", "cross_attention", "dual_cross_attention", "folded_token_attention", "token_attention"]


def refuse(tensors: Sequence[Tensor]) -> str | None:
    return "it needs more than one row" if any(x.shape[0] < 2 for x in tensors) else None


def always(operator: str, tensors: Sequence[Tensor]) -> Verdict:
    return Verdict(True, "always")


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FUSIONBLOCKS_BACKEND", raising=False)


@pytest.fixture
def double() -> Iterator[Operator]:
    """An operator with two backends that can be told apart: torch doubles, triton triples and serves several rows."""
    yield Operator("double", Backend("triton", lambda x: 3 * x, refuse, always), Backend("torch", lambda x: 2 * x))
    del _backend.OPERATORS["double"]


@pytest.fixture
def x() -> Tensor:
    return torch.ones(2)


def served(operator: Operator, x: Tensor, backend: str | None = None) -> str:
    return {2: "torch", 3: "triton"}[int(operator.choose(backend, x)(x)[0])]


def test_automatic_is_the_fastest_that_serves(double: Operator, x: Tensor) -> None:
    assert served(double, x) == "triton"
    assert served(double, x[:1]) == "torch"


def test_precedence(double: Operator, x: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUSIONBLOCKS_BACKEND", "torch")
    assert served(double, x) == "torch"
    with ops.backend("triton"):
        assert served(double, x) == "triton"
        assert served(double, x, "torch") == "torch"
    assert served(double, x, "triton") == "triton"
    assert served(double, x, "auto") == "triton"
    with ops.backend("auto"):
        assert served(double, x) == "triton"
    monkeypatch.setenv("FUSIONBLOCKS_BACKEND", "")
    assert served(double, x) == "triton"


def test_nesting(double: Operator, x: Tensor) -> None:
    setting = ops.backend("torch")
    with setting:
        with ops.backend("triton"):
            with setting:  # one object may be used again
                assert served(double, x) == "torch"
            assert served(double, x) == "triton"
        assert served(double, x) == "torch"
    assert served(double, x) == "triton"


def test_an_error_inside_restores(double: Operator, x: Tensor) -> None:
    with pytest.raises(KeyError), ops.backend("torch"):
        raise KeyError
    assert served(double, x) == "triton"


def test_threads_are_independent(double: Operator, x: Tensor) -> None:
    inside, checked = threading.Event(), threading.Event()
    seen: dict[str, str] = {}

    def other() -> None:
        with ops.backend("torch"):
            inside.set()
            checked.wait(10)
            seen["other"] = served(double, x)
        seen["other after"] = served(double, x)

    thread = threading.Thread(target=other)
    thread.start()
    assert inside.wait(10)
    seen["main"] = served(double, x)
    with ops.backend("triton"):
        checked.set()
        thread.join(10)
    assert seen == {"main": "triton", "other": "torch", "other after": "triton"}


def test_an_explicit_backend_that_cannot_serve_raises(
    double: Operator, x: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    reason = "it needs more than one row; backends of double: triton, torch"
    with pytest.raises(RuntimeError, match=f"double cannot run .*'triton' asked for by backend='triton': {reason}"):
        double.choose("triton", x[:1])
    with pytest.raises(RuntimeError, match=rf"asked for by with backend\('triton'\): {reason}"), ops.backend("triton"):
        double.choose(None, x[:1])
    monkeypatch.setenv("FUSIONBLOCKS_BACKEND", "triton")
    with pytest.raises(RuntimeError, match=f"asked for by FUSIONBLOCKS_BACKEND=triton: {reason}"):
        double.choose(None, x[:1])


def test_unknown_names(double: Operator, x: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    names = "must be one of torch, sdpa, triton, auto, got 'cuda'"
    with pytest.raises(ValueError, match=f"^backend {names}"):
        ops.backend("cuda")
    with pytest.raises(ValueError, match=f"^backend {names}"):
        double.choose("cuda", x)
    monkeypatch.setenv("FUSIONBLOCKS_BACKEND", "cuda")
    with pytest.raises(ValueError, match=f"^environment variable FUSIONBLOCKS_BACKEND {names}"):
        double.choose(None, x)
    for wrong in (1, torch):
        with pytest.raises(TypeError, match="^backend must be a string, got"):
            ops.backend(wrong)
        with pytest.raises(TypeError, match="^backend must be a string, got"):
            double.choose(wrong, x)


@pytest.mark.parametrize("name", NAMES)
def test_every_operator_says_what_it_has(name: str) -> None:
    operator = getattr(ops, name)
    assert callable(operator)
    assert list(_backend.OPERATORS[name].backends)[-1] == "torch"  # the reference serves every call
    assert ops.explain(operator) == ops.explain(name)
    assert ops.explain(name).startswith(f"{name} runs on torch: chosen automatically")
    assert ops.explain(name, backend="torch") == f"{name} runs on torch: asked for by backend='torch'"


def test_the_function_wins_over_its_folder() -> None:
    script = (
        "from fusionblocks.ops.channel_attention import reference\n"
        "import fusionblocks, fusionblocks.ops, sys\n"
        "assert fusionblocks.ops.channel_attention.__qualname__ == 'channel_attention'\n"
        "assert reference.channel_attention is not fusionblocks.ops.channel_attention\n"
        "assert not {'triton', 'timm', 'einops'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_explain(double: Operator, x: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ops.explain("double", x) == "double runs on triton: chosen automatically (triton: always)"
    assert (
        ops.explain("double", x[:1])
        == "double runs on torch: chosen automatically (triton: it needs more than one row)"
    )
    assert (
        ops.explain("double", x[:1], backend="triton")
        == "double cannot run on triton, asked for by backend='triton': it needs more than one row"
    )
    with ops.backend("torch"):
        assert ops.explain("double", x) == "double runs on torch: asked for by with backend('torch')"
    monkeypatch.setenv("FUSIONBLOCKS_BACKEND", "torch")
    assert ops.explain("double", x) == "double runs on torch: asked for by FUSIONBLOCKS_BACKEND=torch"


def test_a_backend_on_request_alone(x: Tensor) -> None:
    never = Backend("triton", lambda x: 3 * x, refuse, lambda *_: Verdict(False, "serves when asked for"))
    operator = Operator("requested", never, Backend("torch", lambda x: 2 * x))
    try:
        assert served(operator, x) == "torch"
        assert served(operator, x, "triton") == "triton"
        assert ops.explain("requested", x) == (
            "requested runs on torch: chosen automatically (triton: serves when asked for)"
        )
        assert ops.explain("requested", x[:1]).endswith("(triton: it needs more than one row)")
    finally:
        del _backend.OPERATORS["requested"]


def test_explain_without_tensors_asks_in_general(double: Operator) -> None:
    assert ops.explain("double") == "double runs on triton: chosen automatically (triton: always)"


def test_explain_of_something_else() -> None:
    for wrong in ("attention", torch.relu):
        with pytest.raises(ValueError, match="operator must be one of channel_attention, .* got"):
            ops.explain(wrong)
    with pytest.raises(TypeError, match="tensors must be tensors, got str"):
        ops.explain("cross_attention", "triton")


class TestCompiled:
    @pytest.fixture(autouse=True)
    def fresh(self) -> Iterator[None]:
        torch.compiler.reset()
        yield
        torch.compiler.reset()

    def test_setting_around(self, double: Operator, x: Tensor) -> None:
        compiled = torch.compile(lambda x: double.choose(None, x)(x), fullgraph=True, backend="aot_eager")
        results = [compiled(x)[0].item()]
        with ops.backend("torch"):
            results.append(compiled(x)[0].item())
        results.append(compiled(x)[0].item())
        assert results == [3, 2, 3]

    def test_setting_inside(self, double: Operator, x: Tensor) -> None:
        def function(x: Tensor) -> Tensor:
            with ops.backend("torch"):
                doubled = double.choose(None, x)(x)
            return doubled + 10 * double.choose(None, x)(x)

        compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
        assert compiled(x)[0] == function(x)[0] == 32
        assert served(double, x) == "triton"

    def test_argument_and_environment(self, double: Operator, x: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("FUSIONBLOCKS_BACKEND", "torch")
        compiled = torch.compile(
            lambda x: torch.stack([double.choose(name, x)(x) for name in ("triton", None)]),
            fullgraph=True,
            backend="aot_eager",
        )
        assert compiled(x)[:, 0].tolist() == [3, 2]

    def test_operators(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("FUSIONBLOCKS_BACKEND", "auto")
        q = torch.rand(1, 2, 5, 4)

        def function(q: Tensor) -> Tensor:
            with ops.backend("torch"):
                mixed = ops.channel_attention(q, q, q, torch.ones(2, 1, 1))
            return ops.cross_attention(mixed, q, q, backend="torch")

        compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
        with ops.backend("torch"):
            torch.testing.assert_close(compiled(q), function(q))
        torch.testing.assert_close(compiled(q), function(q))
