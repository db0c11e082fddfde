"""The workflows call what exists, and the release needs no secret."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def jobs(path: Path) -> dict[str, dict[str, Any]]:
    return yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"]


def steps(path: Path) -> list[dict[str, Any]]:
    return [step for job in jobs(path).values() for step in job["steps"]]


def test_the_three_are_there() -> None:
    assert [path.stem for path in WORKFLOWS] == ["ci", "nightly", "release"]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_what_is_called_exists_and_actions_are_pinned(path: Path) -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    for step in steps(path):
        if "uses" in step:
            assert re.search(r"@(v\d+|release/v\d+)$", step["uses"])
        for target in re.findall(r"\bmake ([\w-]+)", step.get("run", "")):
            assert target in targets
        for script in re.findall(r"^\.[\w/]+$", step.get("run", ""), flags=re.MULTILINE):
            assert (ROOT / script).is_file()


def test_the_release_is_published_without_a_secret() -> None:
    (path,) = [path for path in WORKFLOWS if path.stem == "release"]
    assert "secrets." not in path.read_text(encoding="utf-8")
    publish = jobs(path)["publish"]
    assert publish["permissions"] == {"id-token": "write"} and publish["needs"] == "build"
    runs = [step.get("run") for step in jobs(path)["build"]["steps"]]
    assert [run for run in runs if run and run.startswith((".ci", "make"))] == [
        ".ci/run", "make package", "make sbom", "make audit-dependencies",
    ]  # fmt: skip


def test_the_oldest_python_of_the_matrix_is_the_package_s() -> None:
    (path,) = [path for path in WORKFLOWS if path.stem == "ci"]
    oldest = jobs(path)["run"]["strategy"]["matrix"]["python"][0]
    assert f'requires-python = ">={oldest}"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
