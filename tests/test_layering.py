"""The layers of the package: who may import whom, read from the source and enforced."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from fusionblocks import list_models

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "fusionblocks"


@dataclass(frozen=True)
class Layer:
    """What a layer may import beside the standard library, itself, ``fusionblocks._lazy`` and ``_support``."""

    third_party: frozenset[str] = frozenset()
    ours: frozenset[str] = frozenset()
    first_use: frozenset[str] = frozenset()
    """Packages that are imported inside functions alone."""
    facade: bool = False
    """Whether ``from fusionblocks import name`` is open to it."""


def layer(third_party: str = "", ours: str = "", first_use: str = "", facade: bool = False) -> Layer:
    return Layer(frozenset(third_party.split()), frozenset(ours.split()), frozenset(first_use.split()), facade)


BELOW_INFERENCE = "_loading image ops blocks losses metrics data guidance models optimization alignment"
LAYERS = {
    "_lazy": layer(),
    "_support": layer("torch numpy"),
    "_loading": layer("torch safetensors"),
    "image": layer("torch numpy PIL tifffile imagecodecs"),
    "ops": layer("torch"),
    "blocks": layer("torch einops timm.layers", "ops image"),
    "losses": layer("torch numpy", "image"),
    "metrics": layer("torch numpy torchmetrics pandas matplotlib cv2", "image", "torchmetrics pandas matplotlib cv2"),
    "data": layer("torch numpy", "image"),
    "alignment": layer("torch numpy PIL cv2 vismatch", "image data", "cv2 vismatch"),
    "guidance": layer(
        "torch numpy einops huggingface_hub open_clip safetensors segment_anything timm",
        "_loading blocks image",
        "huggingface_hub open_clip segment_anything",
    ),
    "models": layer("torch numpy einops timm diffusers huggingface_hub safetensors", "_loading blocks guidance image"),
    "inference": layer("torch numpy PIL", BELOW_INFERENCE, facade=True),
    "experts": layer("torch matplotlib", "alignment blocks image models inference", "matplotlib"),
    "optimization": layer("torch timm einops", "blocks image models"),
    "deployment": layer(
        "torch onnx onnxscript onnxruntime", "image models", "onnx onnxscript onnxruntime", facade=True
    ),
    "video": layer("torch numpy PIL tifffile av", "alignment blocks data image inference models", "av"),
    "training": layer(
        "torch numpy accelerate safetensors tqdm tensorboard yaml", f"{BELOW_INFERENCE} inference", facade=True
    ),
    "cli": layer(
        "torch numpy typer rich", f"_loading {BELOW_INFERENCE} deployment inference experts training video", facade=True
    ),
    "__main__": layer(ours="cli"),
    "__init__": layer(ours=f"{BELOW_INFERENCE} inference experts training video"),
}


ON_FIRST_USE = {"metrics/modules.py": "torchmetrics"}
"""Files that are imported on first use themselves, with the package that their classes derive from."""


def imports(tree: ast.Module, package: str) -> Iterator[tuple[int, str, bool]]:
    """Yield ``(line, absolute dotted target, inside a function)`` of every import, ``a.b`` for ``from a import b``."""

    def walk(node: ast.AST, deferred: bool) -> Iterator[tuple[int, str, bool]]:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name, deferred
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")
                base = ".".join([*parents[: len(parents) - node.level + 1], *([base] if base else [])])
            for alias in node.names:
                yield node.lineno, base if alias.name == "*" else f"{base}.{alias.name}", deferred
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in ("import_module", "__import__") and isinstance(node.args[0].value, str):
                target = node.args[0].value
                if target.startswith("."):
                    parents = package.split(".")
                    dots = len(target) - len(target.lstrip("."))
                    target = ".".join([*parents[: len(parents) - dots + 1], target.lstrip(".")])
                yield node.lineno, target, deferred
        typing_only = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            yield from walk(child, deferred or function or typing_only)

    yield from walk(tree, False)


def is_under(target: str, names: frozenset[str] | set[str]) -> bool:
    return any(target == name or target.startswith(f"{name}.") for name in names)


def network_of(module: str) -> str | None:
    """Return the network whose folder a part of ``models`` is, None if it is shared."""
    return module if module in NETWORKS else None


def violations(path: str, source: str) -> list[str]:
    """Return what the file ``path`` (relative to the package, as ``blocks/sdfm.py``) imports against the rules."""
    parts = path.removesuffix(".py").split("/")
    unit = parts[0]
    if unit not in LAYERS:
        return [f"{path}: {unit!r} has no row in the table of layers"]
    rules = LAYERS[unit]
    is_kernels = unit == "ops" and parts[-1] == "kernels"
    package = ".".join(["fusionblocks", *parts[:-1]])
    found = []
    for line, target, deferred in imports(ast.parse(source), package):
        top, *rest = target.split(".")
        reason = None
        if top == "fusionblocks":
            reason = _ours(unit, parts, rest, rules, deferred)
        elif top == "triton":
            if not is_kernels:
                reason = "triton is imported by ops/*/kernels.py alone"
        elif top not in sys.stdlib_module_names:
            if not is_under(target, rules.third_party):
                reason = f"{unit} may import {', '.join(sorted(rules.third_party)) or 'the standard library alone'}"
            elif is_under(target, rules.first_use) and not deferred and top != ON_FIRST_USE.get(path):
                reason = f"{top} is imported on first use, inside a function"
        if reason:
            found.append(f"{path}:{line}: imports {target}: {reason}")
    return found


def _ours(unit: str, parts: list[str], rest: list[str], rules: Layer, deferred: bool) -> str | None:
    """Return why ``fusionblocks.<rest>`` is closed to a file, or None."""
    target = rest[0] if rest else ""
    if target in ("_lazy", "_support"):
        return None if unit != "_support" or target == unit else "_support imports nothing of the package"
    if target not in LAYERS:
        return None if rules.facade else "the package's front door leads everywhere; import the layer's module"
    if target == "ops" and rest[-1] == "kernels" or rest[2:3] == ["kernels"]:
        if unit != "ops":
            return "a kernel is reached through its operator"
        return None if deferred or parts[-1] == "kernels" else "kernels are imported on first use, inside a function"
    if target != unit:
        if target not in rules.ours:
            return f"{unit} may import {', '.join(sorted(rules.ours)) or 'no other layer'}"
        private = any(part.startswith("_") for part in rest[1:]) and unit != "__init__"
        return "what another layer needs is public in its owner or goes to _support" if private else None
    if unit == "models" and parts[1] not in ("__init__", "networks") and len(rest) > 1:
        if network_of(rest[1]) not in (None, network_of(parts[1])):
            return "a network does not import another"
        if rest[1][0].isupper():
            return "a network or a shared part is imported from its own module"
    return None


NETWORKS = list_models()
FILES = sorted(str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES)
def test_file_keeps_to_its_layer(path: str) -> None:
    found = violations(path, (PACKAGE / path).read_text())
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("_support/autocast.py", "from fusionblocks._lazy import module"),
        ("_support/autocast.py", "from fusionblocks.image import luma"),
        ("image/color.py", "from fusionblocks.blocks import SDFM"),
        ("image/color.py", "import einops"),
        ("blocks/sdfm.py", "from fusionblocks.image._local import filter_valid"),
        ("blocks/sdfm.py", "from fusionblocks.ops import _tiles"),
        ("image/color.py", "from ..ops import channel_attention"),
        ("ops/attention/reference.py", "import triton"),
        ("ops/attention/__init__.py", "def f():\n    import triton.language as tl"),
        ("ops/attention/__init__.py", "from fusionblocks.ops.attention.kernels import forward"),
        ("ops/attention/__init__.py", "from .kernels import forward"),
        ("ops/attention/__init__.py", "from fusionblocks.image import luma"),
        ("blocks/sdfm.py", "import triton"),
        ("blocks/sdfm.py", "def f():\n    from fusionblocks.models.base import FusionModel"),
        ("blocks/sdfm.py", "from ..models import base"),
        ("blocks/sdfm.py", "from .. import models"),
        ("blocks/sdfm.py", "from fusionblocks import create_model"),
        ("blocks/sdfm.py", "import fusionblocks"),
        ("blocks/sdfm.py", "import timm"),
        ("blocks/sdfm.py", "from timm.models import resnet34"),
        ("blocks/sdfm.py", "import diffusers"),
        ("blocks/sdfm.py", "import importlib\nimportlib.import_module('fusionblocks.models')"),
        ("blocks/sdfm.py", "import importlib\nimportlib.import_module('..models', __package__)"),
        ("blocks/sdfm.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import fusionblocks.models"),
        ("blocks/sdfm.py", "from fusionblocks.ops.attention import kernels"),
        ("losses/fusion.py", "from fusionblocks.metrics import evaluate"),
        ("metrics/entropy.py", "from fusionblocks.losses import ssim_loss"),
        ("metrics/plots.py", "import matplotlib"),
        ("data/pairs.py", "from fusionblocks.blocks import SDFM"),
        ("guidance/clip.py", "from fusionblocks.models import SGAFusion"),
        ("guidance/clip.py", "import open_clip"),
        ("models/psfusion/network.py", "from fusionblocks.ops import cross_attention"),
        ("models/psfusion/network.py", "from fusionblocks.models.smfnet.network import SMFNet"),
        ("models/psfusion/network.py", "from ..smfnet.network import SMFNet"),
        ("models/psfusion/network.py", "from fusionblocks.models.sgdfuse.sampling import sample"),
        ("models/base.py", "from fusionblocks.models.smfnet.network import SMFNet"),
        ("models/psfusion/network.py", "from fusionblocks.models import SMFNet"),
        ("models/psfusion/network.py", "from fusionblocks.inference import fuse"),
        ("models/psfusion/network.py", "import open_clip"),
        ("inference.py", "import triton"),
        ("training/engine.py", "import triton"),
        ("newfolder/part.py", "import torch"),
        ("_lazy.py", "import torch"),
    ],
)
def test_forbidden_import_is_found(path: str, source: str) -> None:
    assert violations(path, source), f"{source!r} passed in {path}"


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("image/io.py", "import os, sys\nimport numpy as np\nfrom PIL import Image\nfrom .color import luma"),
        ("ops/attention/kernels.py", "import torch\nimport triton\nimport triton.language as tl"),
        ("ops/attention/__init__.py", "def run():\n    from .kernels import forward"),
        ("ops/attention/__init__.py", "from fusionblocks.ops._backend import choose"),
        ("blocks/sdfm.py", "from timm.layers import ConvNormAct\nfrom einops import rearrange\nimport torch.nn as nn"),
        (
            "blocks/sdfm.py",
            "from fusionblocks.blocks.dense import DenseLayer\nfrom fusionblocks import ops",
        ),
        ("guidance/clip.py", "def load():\n    import open_clip"),
        (
            "models/psfusion/network.py",
            "from .base import FusionModel\nfrom fusionblocks.blocks import SDFM",
        ),
        ("models/sgdfuse/network.py", "from fusionblocks.models.sgdfuse.unet import NoiseConditionedUNet"),
        ("models/sgdfuse/network.py", "from fusionblocks.models.sgdfuse.sampling import sample"),
        ("models/psfusion/checkpoint.py", "from fusionblocks.models.published import convert_keys"),
        ("inference.py", "from fusionblocks.models import create_model\nfrom fusionblocks import image"),
    ],
)
def test_lawful_import_passes(path: str, source: str) -> None:
    assert violations(path, source) == []


def test_the_message_says_where_what_and_why() -> None:
    (message,) = violations("blocks/sdfm.py", "import torch\nimport triton\n")
    assert message == "blocks/sdfm.py:2: imports triton: triton is imported by ops/*/kernels.py alone"


# operators

PARTS = {"__init__.py", "reference.py", "kernels.py", "binding.py"}
OPERATORS = sorted(folder.name for folder in (PACKAGE / "ops").iterdir() if (folder / "__init__.py").exists())


@pytest.mark.parametrize("name", OPERATORS)
def test_operators_have_one_shape(name: str) -> None:
    """The same files with the same names in each; two streams have the kernels of one."""
    files = {path.name for path in (PACKAGE / "ops" / name).glob("*.py")}
    assert files == (PARTS - {"kernels.py"} if name == "dual_cross_attention" else PARTS)
    binding = ast.parse((PACKAGE / "ops" / name / "binding.py").read_text())
    named = {node.name for node in binding.body if isinstance(node, ast.FunctionDef)}
    named |= {ast.unparse(target) for node in binding.body if isinstance(node, ast.Assign) for target in node.targets}
    named |= {alias.name for node in binding.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    expected = {name, "refuse", "launch_forward", "launch_backward", "empty_results", "forward_op", "backward_op"}
    assert expected <= named


def test_operators_import_each_other_without_a_circle() -> None:
    """Imports inside functions count too."""
    files = {f"fusionblocks.ops.{path[4:-3].replace('/', '.')}": path for path in FILES if path.startswith("ops/")}
    modules = {name.removesuffix(".__init__"): path for name, path in files.items()}
    graph: dict[str, set[str]] = {}
    for module, path in modules.items():
        package = module if path.endswith("__init__.py") else module.rpartition(".")[0]
        targets = {target for _, target, _ in imports(ast.parse((PACKAGE / path).read_text()), package)}
        graph[module] = {
            found
            for target in targets
            if (found := target if target in modules else target.rpartition(".")[0]) in modules and found != module
        }

    def visit(module: str, way: tuple[str, ...]) -> None:
        assert module not in way, " imports ".join((*way[way.index(module) :], module))
        for target in graph[module]:
            visit(target, (*way, module))

    assert len(graph) > 20
    for module in graph:
        visit(module, ())
