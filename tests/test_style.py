"""House rules that no linter knows."""

from __future__ import annotations

import ast
import builtins
import dataclasses
import doctest
import importlib
import inspect
import re
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

import fusionblocks as fb

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "fusionblocks"
FILES = sorted(str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py"))
LONGEST_FILE = 500
MOST_ARGUMENTS = 12
PACKAGES = ("", ".blocks", ".data", ".guidance", ".image", ".losses", ".metrics", ".models", ".ops", ".training")


def documented() -> list[object]:
    """Return every public class and function once."""
    found: dict[int, object] = {}
    for package in PACKAGES:
        module = importlib.import_module(f"fusionblocks{package}")
        for name in module.__all__:
            value = getattr(module, name)
            if callable(value) and not isinstance(value, ModuleType):
                found[id(value)] = value
    return list(found.values())


@pytest.fixture(scope="module")
def public() -> list[object]:
    return documented()


def label(value: object) -> str:
    return f"{value.__module__}.{value.__qualname__}"


def is_record(value: object) -> bool:
    """Whether a name is a tuple or dataclass of fields (a config, an output), shown by what takes or returns it."""
    return inspect.isclass(value) and (dataclasses.is_dataclass(value) or hasattr(value, "_fields"))


def lacks_example(doc: str) -> bool:
    """Whether a docstring has neither a doctest under ``Example:`` nor a line ``No example: <reason>``."""
    example = re.search(r"^Examples?:\n(?:.*\n?)*?\s+>>> ", doc, re.MULTILINE)
    return not example and not re.search(r"^No example: \w+", doc, re.MULTILINE)


@pytest.mark.parametrize("path", FILES)
def test_file_is_short(path: str) -> None:
    lines = len((PACKAGE / path).read_text().splitlines())
    assert lines < LONGEST_FILE, f"{path} has {lines} lines, more than {LONGEST_FILE - 1}"


def test_every_public_name_has_an_example_or_says_why_not(public: list[object]) -> None:
    lacking = [label(value) for value in public if not is_record(value) and lacks_example(inspect.getdoc(value) or "")]
    assert not lacking, f"no Example: in the docstring of {', '.join(lacking)}"


def unbound(example: str) -> set[str]:
    """Return the names that a piece of code uses and neither imports nor makes."""
    nodes = list(ast.walk(ast.parse(example)))
    bound = set(dir(builtins))
    bound |= {(alias.asname or alias.name).partition(".")[0] for node in nodes for alias in getattr(node, "names", [])}
    bound |= {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    bound |= {node.name for node in nodes if isinstance(node, ast.ClassDef | ast.FunctionDef)}
    bound |= {node.arg for node in nodes if isinstance(node, ast.arg)}
    return {node.id for node in nodes if isinstance(node, ast.Name)} - bound


def test_every_example_stands_alone(public: list[object]) -> None:
    lacking = {}
    for value in public:
        example = "".join(part.source for part in doctest.DocTestParser().get_examples(inspect.getdoc(value) or ""))
        if names := unbound(example):
            lacking[label(value)] = sorted(names)
    assert not lacking, f"examples use names that they do not import: {lacking}"


def test_every_block_names_its_source() -> None:
    from fusionblocks import blocks

    classes = {name: cls for name in blocks.__all__ if isinstance(cls := getattr(blocks, name), type)}
    docs = {name: inspect.getdoc(cls) or "" for name, cls in classes.items()}
    lacking = [name for name, doc in docs.items() if not re.search(r"^Reference:\n\s+\S", doc, re.MULTILINE)]
    assert not lacking, f"no Reference: in the docstring of {', '.join(lacking)}"


def test_every_argument_is_documented(public: list[object]) -> None:
    lacking = []
    for value in public:
        doc = value.__doc__ or ""
        for name, parameter in inspect.signature(value).parameters.items():
            stars = {parameter.VAR_POSITIONAL: r"\*", parameter.VAR_KEYWORD: r"\*\*"}.get(parameter.kind, "")
            if not re.search(rf"^\s+{stars}{name}(, \w+)*( \(.*\))?:|, {name}(, \w+)*:", doc, re.MULTILINE):
                lacking.append(f"{label(value)}({name})")
    assert not lacking, f"not documented under Args: {', '.join(lacking)}"


def test_constructors_are_small(public: list[object]) -> None:
    large = {
        label(value): len(inspect.signature(value).parameters)
        for value in public
        if inspect.isclass(value) and not is_record(value)
    }
    large = {name: count for name, count in large.items() if count > MOST_ARGUMENTS}
    assert not large, f"more than {MOST_ARGUMENTS} arguments: {large}"


@pytest.mark.parametrize("path", FILES)
def test_names_of_the_field_are_used(path: str) -> None:
    # public code says infrared and visible, in this order
    short = re.findall(r"\b(?:ir|vi|vis|img1|img2)\s*[:=,)]", (PACKAGE / path).read_text())
    assert not short, f"{path} abbreviates the modalities: {sorted(set(short))}"


def test_every_dependency_is_in_the_licence_index() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [requirement for extra in project["optional-dependencies"].values() for requirement in extra]
    names = {re.match(r"[\w.-]+", requirement).group() for requirement in [*project["dependencies"], *extras]}
    index = set(re.findall(r"[\w.-]+", (ROOT / "licenses" / "README.md").read_text()))
    assert not names - index - {"fusionblocks"}


def test_the_version_is_the_same_everywhere() -> None:
    assert f"\nversion: {fb.__version__}\n" in (ROOT / "CITATION.cff").read_text()
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == fb.__version__


@pytest.mark.parametrize(
    ("doc", "lacks"),
    [
        ("Do.\n\nExample:\n    >>> 1 + 1\n    2", False),
        ("Do.\n\nNo example: it needs a checkpoint.", False),
        ("Do.\n\nExample:\n    Call it.", True),
        ("Do.", True),
    ],
)
def test_the_example_rule(doc: str, lacks: bool) -> None:
    assert lacks_example(doc) is lacks
