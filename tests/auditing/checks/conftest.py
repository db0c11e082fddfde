"""Audit a setting and check it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from robustree.auditing.audit import audit
from robustree.auditing.checks import Budget, Check
from robustree.auditing.checks.battery import run_checks

from .toy import BUDGET, Setting


@pytest.fixture
def check(tmp_path: Path) -> Callable[..., list[Check]]:
    """Audit a setting and check it; the folder is tmp_path."""

    def run(setting: Setting, budget: Budget = BUDGET, **more: Any) -> list[Check]:
        if setting.audited:
            audit(setting.subjects, setting.images, setting.forest, setting.plan, tmp_path, command="test")
        setting.meddle(tmp_path)
        subjects = setting.checked or setting.subjects
        return run_checks(subjects, setting.images, setting.forest, setting.plan, tmp_path, budget=budget, **more)

    return run
