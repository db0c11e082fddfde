"""`robustree doctor`."""

from __future__ import annotations

import json
from importlib import metadata

import pytest

from robustree.cli import doctor
from tests.cli.conftest import Run

LINES = [
    "torch>=2.6",
    "numpy<1.0",
    "never-heard-of>=3",
    'packaging>=20; python_version < "3"',
    'gradio-of-old>=4; extra == "page"',
    'rich>=1; extra == "page"',
    'rich>=1; extra == "print" and python_version > "3"',
]


def test_packages_are_held_against_what_is_installed() -> None:
    parts = doctor.requirements(LINES)
    assert list(parts) == ["", "page", "print"]
    torch, numpy, never = parts[""]  # the marker of packaging is false on this Python
    assert torch.fits and torch.found == metadata.version("torch")
    assert not numpy.fits and str(numpy) == f"numpy {metadata.version('numpy')} (needs <1.0)"
    assert never.found is None and str(never) == "never-heard-of is missing"
    assert [package.fits for package in parts["page"]] == [False, True]
    assert [package.name for package in parts["print"]] == ["rich"]


def test_the_real_requirements_are_met_here_and_name_the_extras() -> None:
    parts = doctor.requirements(metadata.requires("robustree") or [])
    assert {"torch", "transformers"} <= {package.name for package in parts[""]}
    assert all(package.fits for package in [*parts[""], *parts["test"]])


def test_the_machine_and_its_speed_are_printed(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "SECONDS", 0.05)
    ran = run("doctor", "--json")
    content = json.loads(ran.out)
    assert ran.code == 0 and content["machine"]["cores"] >= 1
    assert content["machine"]["nano_gradients_per_second"] > 0 and content["machine"]["disk_free"] > 0
    shown = run("doctor").out
    assert "input gradients a second" in shown and "[test]" in shown and "ready" in shown


def test_what_is_missing_is_named_with_its_command(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.metadata, "requires", lambda name: LINES)
    ran = run("doctor")
    assert ran.code == 1
    assert "to mend: pip install 'numpy<1.0' 'never-heard-of>=3'" in ran.out
    assert "gradio-of-old is missing: pip install 'robustree[page]'" in ran.out
    assert "input gradients" not in ran.out  # nothing is imported where the core is not whole
