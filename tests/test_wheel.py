"""The wheel that people install: small, with everything that is read at run time, its types and its licences."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LARGEST = 30 * 2**20


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


def test_it_is_small_enough(wheel: Path) -> None:
    assert wheel.stat().st_size <= LARGEST


def test_it_holds_the_whole_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    package = ROOT / "src" / "robustree"
    files = {path for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert held == {path.relative_to(package.parent).as_posix() for path in files}
    assert "robustree/py.typed" in held
    assert {name.rsplit(".", 1)[-1] for name in held} >= {
        "jinja",
        "css",
        "js",
        "safetensors",
        "zip",
        "json",
        "txt",
        "xz",
    }


def test_licences_are_where_tools_look_for_them(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        inside = [name for name in archive.namelist() if ".dist-info/licenses/" in name]
        held = {name.split(".dist-info/licenses/")[1] for name in inside}
        (metadata,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        about = archive.read(metadata).decode()
    wanted = {path for path in ROOT.glob("src/**/*") if "LICENSE" in path.name or path.name == "ATTRIBUTION.md"}
    assert held == {"LICENSE", "NOTICE", *(path.relative_to(ROOT).as_posix() for path in wanted)}
    assert "License-Expression: Apache-2.0" in about and "Requires-Python: >=3.11" in about
