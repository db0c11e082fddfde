"""All 27 checks of an audit, in the order in which one check's outcome makes sense of the next."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from robustree.auditing.audit import Subject
from robustree.auditing.checks import blackbox, convergence, data, gradients, hierarchy, inputs, rows, strength, texts
from robustree.auditing.checks.attacked import Attacked, attacked
from robustree.auditing.checks.budget import Budget
from robustree.auditing.checks.case import Case, checked_levels, confined
from robustree.auditing.checks.catalogue import RULES
from robustree.auditing.checks.check import FILE, FORMAT, Check, found, read_checks
from robustree.auditing.checks.planted import planted
from robustree.auditing.checks.validity import validity
from robustree.auditing.checks.watch import Snapshot, computes_gradients, untouched
from robustree.auditing.plan import Plan
from robustree.auditing.rows import ROWS
from robustree.data import AuditImages
from robustree.taxonomy import Forest
from robustree.writing import write_whole

AUDIT = ("S1", "S19", "S20", "S25", "S26")
"""Checks of the whole audit; all others are made for every subject."""


@dataclass(frozen=True)
class Progress:
    """How far the checks are: `done` of `total`."""

    done: int
    total: int
    doing: str


def run_checks(
    subjects: Sequence[Subject],
    images: AuditImages,
    forest: Forest,
    plan: Plan,
    directory: Path,
    *,
    budget: Budget = Budget(),  # noqa: B008 - a frozen record
    report: Callable[[Progress], None] = lambda progress: None,
) -> list[Check]:
    """Check an audit, its models and its attacks; write `checks.json` beside the rows in `directory`.

    Every id occurs once for the audit ("S1", "S19", "S20", "S25", "S26") or once for every subject. Models are as they
    were afterwards: parameters, buffers, training flags, and torch's random numbers.

    Raises:
        ValueError: there are no images, or not as many labels and ids, or the rows in `directory` are damaged.
    """
    counts = len(images.pixels), len(images.leaves), len(images.ids)
    if len(set(counts)) > 1 or counts[0] == 0:
        raise ValueError(f"there are {counts[0]} images, {counts[1]} labels and {counts[2]} ids: give one of each.")
    begun = time.monotonic()
    devices = list({p.device.index for s in subjects for p in s.model.parameters() if p.device.type == "cuda"})
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices=devices))
        # A random model is checked in the same way every time; torch.manual_seed would seed other devices too.
        torch.default_generator.manual_seed(plan.seed)
        for device in devices:
            torch.cuda.default_generators[device].manual_seed(plan.seed)
        checks = _Battery(subjects, images, forest, plan, directory, budget, report).run(stack)
    made = {(check.id, check.subject) for check in checks}
    if (Path(directory) / FILE).is_file():  # of models that joined this audit in another run
        checks += [old for old in read_checks(directory) if (old.id, old.subject) not in made]
    checks.sort(key=lambda check: list(RULES).index(check.id))  # within an id, subjects keep their order
    content = {
        "format": FORMAT,
        "checks": [asdict(check) for check in checks],
        "budget": asdict(budget),
        "seconds": round(time.monotonic() - begun, 1),
    }
    write_whole(Path(directory) / FILE, json.dumps(content, indent=1, allow_nan=False) + "\n")
    return checks


class _Battery:
    """The checks of one audit, with what they share."""

    def __init__(
        self,
        subjects: Sequence[Subject],
        images: AuditImages,
        forest: Forest,
        plan: Plan,
        directory: Path,
        budget: Budget,
        report: Callable[[Progress], None],
    ) -> None:
        self.images, self.forest, self.plan, self.report = images, forest, plan, report
        self.directory = Path(directory)
        self.rows: rows.Rows | None = None
        some = images.subset(min(budget.images, len(images.ids)))
        levels = checked_levels(forest, plan, budget)
        self.cases = tuple(Case(subject, some, forest, plan, budget, levels) for subject in subjects)
        self.total = len(AUDIT) + (len(RULES) - len(AUDIT)) * len(subjects)
        self.checks: list[Check] = []
        self.attacked: dict[str, list[Attacked]] = {}

    def run(self, stack: ExitStack) -> list[Check]:
        snapshots = [stack.enter_context(untouched(case.subject.model)) for case in self.cases]
        pixels = data.pixels(self.images)
        self._add(pixels)
        self._whole()
        blocked = "the images are not what S1 asks for" if pixels.status == "fail" else None
        standing = [case for case in self.cases if self._sound(case, blocked)]
        self.attacked = {case.name: [attacked(case, level) for level in case.levels] for case in standing}
        for case in standing:
            self._strength(case)
        for case, snapshot in zip(self.cases, snapshots, strict=True):
            self._add(self._unchanged(case, snapshot, bool(blocked)))
        return self.checks

    def _add(self, check: Check) -> None:
        self.checks.append(check)
        self.report(Progress(len(self.checks), self.total, f"{check.id} {check.subject}".rstrip()))

    def _skip(self, case: Case, ids: Sequence[str], reason: str) -> None:
        for name in ids:
            self._add(case.found(name, "not applicable", None, f"not checked: {reason}."))

    def _whole(self) -> None:
        keys = [(case.subject.name, case.subject.head) for case in self.cases]
        if not (self.directory / ROWS).is_file():
            for name in ("S19", "S25"):
                self._add(found(name, "", "not applicable", None, f"there is no {ROWS} yet: run the audit first."))
        else:
            self._rows(keys)
        self._add(texts.classes(self.forest, self.plan))
        self._add(data.pictures(self.images, self.forest, self.cases))

    def _rows(self, keys: Sequence[tuple[str, str]]) -> None:
        try:
            self.rows = rows.rows_of(self.directory, self.forest)
        except ValueError as error:
            self._add(found("S19", "", "fail", None, f"no figures can be made of the rows ({error}): repair them."))
            self._add(found("S25", "", "not applicable", None, "not checked: the rows cannot be read (S19)."))
            return
        self._add(rows.counting(self.rows, self.images, self.plan, keys))
        self._add(rows.statistics(self.rows, self.images))

    def _rows_with(self, case: Case) -> rows.Rows | None:
        """The rows, if they can be read and hold this model."""
        own = (case.subject.name, case.subject.head)
        there = self.rows is not None and own in [(s.model, s.head) for s in self.rows.table.subjects]
        return self.rows if there else None

    def _sound(self, case: Case, blocked: str | None) -> bool:
        """Make the checks that need no attack; whether attacks make sense."""
        ids = [name for name in RULES if name not in (*AUDIT, "S17")]
        if blocked is None and not case.levels:
            blocked = "no level has two nodes"
        if blocked is None and int(self.images.leaves.max()) >= self.forest.leaf_count:
            blocked = "labels are not leaves of the forest (S26)"
        other = hierarchy.other_forest(case)
        if other is not None:
            self._add(other)
            ids.remove("S23")
            blocked = blocked or "the model was built over another forest (S23)"
        if blocked:
            self._add(inputs.normalisation(case) if case.pixels.is_floating_point() else _bytes(case))
            ids.remove("S2")
            self._skip(case, ids, blocked)
            return False
        self._add(inputs.normalisation(case))
        self._add(inputs.determinism(case))
        self._add(inputs.logits(case))
        if not bool(case.clean.nodes.isfinite().all()):
            self._skip(case, [name for name in ids if name not in ("S2", "S3", "S4")], "scores are not finite (S4)")
            return False
        heads = [c.subject.head for c in self.cases if c.subject.name == case.subject.name]
        self._add(texts.texts(case, heads))
        self._add(hierarchy.hierarchy(case, self._rows_with(case)))
        truth = gradients.truth(case)
        self._add(truth)
        made = ("S2", "S3", "S4", "S16", "S23", "S24")
        if truth.status == "fail":
            self._skip(case, [name for name in ids if name not in made], "no gradient reaches the image (S16)")
            return False
        self._add(gradients.presence(case))
        self._add(gradients.controls(case))
        return True

    def _strength(self, case: Case) -> None:
        levels = self.attacked[case.name]
        if not any(bool(at.right.any()) for at in levels):
            ids = ("S6", "S7", "S8", "S9", "S10", "S11", "S12", "S13", "S14", "S15", "S18", "S21", "S27")
            self._skip(case, ids, "no clean image is right, so there is nothing to attack (S24)")
            return
        self._add(strength.unbounded(case, levels))
        self._add(blackbox.black_box(case, levels, self.attacked))
        self._add(blackbox.precision(case, levels))
        if confined(self.plan):
            self._skip(
                case, ("S7", "S10", "S12", "S15", "S21"), "a patch has less than the threat that these compare with"
            )
        else:
            self._add(strength.larger_eps(case, levels))
            self._add(strength.order(case, levels))
            self._add(blackbox.noise(case, levels))
            self._add(gradients.smoothness(case))
            if self.plan.attacks:
                self._add(planted(case))
        if not self.plan.attacks:
            self._skip(case, ("S8", "S9", "S13", "S14", "S18", "S21"), "the plan has no attack on a level")
            return
        self._add(convergence.twice_the_steps(case, levels))
        self._add(convergence.another_start(case, levels))
        self._add(validity(case, levels, self._rows_with(case)))
        if self._status(case, "S3") == "fail" or any(inputs.averages(part.attack) for part in self.plan.attacks):
            self._skip(case, ("S13", "S14"), "the model is random, so what an attack saw once may not be so again")
            return
        self._add(convergence.best_returned(case, levels))
        self._add(convergence.still_moving(case, levels))

    def _status(self, case: Case, name: str) -> str:
        return next(check.status for check in self.checks if (check.id, check.subject) == (name, case.name))

    def _unchanged(self, case: Case, snapshot: Snapshot, blocked: bool) -> Check:
        """S17: is the model what it was before the checks?"""
        changed = snapshot.changed()
        if changed:
            names = ", ".join(changed[:3])
            return case.found(
                "S17",
                "fail",
                len(changed),
                f"{len(changed)} tensors changed while the model was used ({names}): answers depend on what was asked "
                "before; freeze them (eval(), no counters in buffers).",
            )
        if not blocked and computes_gradients(case.subject.model, case.pixels[:1]):
            return case.found(
                "S17",
                "flag",
                "autograd",
                "a forward computes gradients: a defence that optimises at test time needs an attack through it.",
            )
        return case.found(
            "S17", "pass", 0, f"{len(snapshot.tensors)} parameters and buffers are bit for bit as before."
        )


def _bytes(case: Case) -> Check:
    return case.found("S2", "not applicable", None, "not checked: the images are no floats (S1).")
