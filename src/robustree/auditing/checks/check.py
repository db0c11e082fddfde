"""One check's outcome, as it stands in `checks.json` beside an audit's rows."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from robustree.auditing.checks.catalogue import RULES

FORMAT, FILE = "robustree-checks/1", "checks.json"
Status = Literal["pass", "flag", "fail", "not applicable"]


@dataclass(frozen=True, kw_only=True)
class Check:
    """What one check found.

    `id`: "S1" to "S27". `subject`: "name/head", or "" for a check of the whole audit. `figure`: the measured value.
    `status`: "fail" where the audit's robust accuracies cannot be trusted, "flag" where somebody must look, "not
    applicable" with the reason in `detail`. `detail`: one sentence with values, images and levels, and the fix.

    Raises:
        ValueError: an unknown id or status.
    """

    id: str
    title: str
    rule: str
    subject: str
    figure: float | int | str | None
    status: Status
    detail: str

    def __post_init__(self) -> None:
        if self.id not in RULES:
            raise ValueError(f"the check is called {self.id!r}; checks are {', '.join(RULES)}: choose one of these.")
        if self.status not in get_args(Status):
            raise ValueError(
                f"{self.id} has the status {self.status!r}; {', '.join(get_args(Status))} are possible: choose one."
            )


def found(id: str, subject: str, status: Status, figure: float | int | str | None, detail: str) -> Check:
    """A check with the title and the rule of its id."""
    title, rule = RULES[id]
    if isinstance(figure, float) and not math.isfinite(figure):
        figure = str(figure)  # JSON has no such number
    return Check(id=id, title=title, rule=rule, subject=subject, figure=figure, status=status, detail=detail)


def worst(checks: Iterable[Check]) -> Status:
    """The gravest status: fail, flag, pass; "not applicable" if nothing could be checked."""
    order: tuple[Status, ...] = ("not applicable", "pass", "flag", "fail")
    return order[max((order.index(check.status) for check in checks), default=0)]


def read_checks(directory: Path) -> list[Check]:
    """The checks of an audit, in the order of their ids.

    Raises:
        ValueError: the directory holds none, they are damaged, or they were written by another version.
    """
    path = Path(directory) / FILE
    if not path.is_file():
        raise ValueError(f"{str(directory)!r} holds no {FILE}: run the audit's checks first.")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise ValueError(f"the format is {content['format']!r}, and this version reads {FORMAT!r}")
        return [Check(**record) for record in content["checks"]]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{str(path)!r} cannot be read ({error}): run the audit's checks again.") from error
