"""The lowest versions that are tested are the lowest that the package allows."""

from __future__ import annotations

import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[1]


def lowest_allowed() -> dict[str, Version]:
    """Return the lower bound of every requirement of pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"], *(line for extra in project["optional-dependencies"].values() for line in extra)]
    bounds = {}
    for requirement in map(Requirement, lines):
        if requirement.name != project["name"]:
            (specifier,) = requirement.specifier
            assert specifier.operator == ">=", f"{requirement} has no lower bound"
            bounds[requirement.name] = Version(specifier.version)
    return bounds


def test_the_lowest_versions_are_stated_once() -> None:
    pinned = {}
    for line in (ROOT / "tests" / "constraints-oldest.txt").read_text().splitlines():
        requirement = Requirement(line)
        (specifier,) = requirement.specifier
        assert specifier.operator == "==", line
        pinned[requirement.name] = Version(specifier.version)
    assert pinned == lowest_allowed()
