"""An audit without mistakes passes every check, whatever its plan; checking changes nothing and is written down."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from robustree.attacks import APGD, PGD, AutoAttack, Expectation, LowPrecision, Patch, Threat
from robustree.auditing.checks import FILE, Budget, Check, read_checks, worst
from robustree.auditing.checks.battery import AUDIT, Progress
from robustree.auditing.checks.catalogue import RULES
from robustree.auditing.plan import LevelAttack
from robustree.geometry import Euclidean, Poincare, Sphere
from robustree.taxonomy import build_forest
from robustree.tree_model import TreeModel

from .faults import counting, dropping, named
from .test_faults import FAULTS
from .toy import BUDGET, FOREST, LEAVES, PLAN, both_heads, draw_images, make_model, sound

Run = Callable[..., list[Check]]
PLANS: dict[str, dict[str, Any]] = {
    "auto-pgd on the ratio": {"attacks": (LevelAttack(APGD(steps=20), "ratio"),)},
    "aimed auto-pgd": {"attacks": (LevelAttack(APGD(steps=20, targets=9), "ratio"),)},
    "two attacks": {"attacks": (LevelAttack(PGD(steps=20), "cross_entropy"), LevelAttack(PGD(steps=15)))},
    "a cascade": {"attacks": (LevelAttack(AutoAttack(version="fast", steps=15, targets=2), None),), "stop": True},
    "a whole cascade": {"attacks": (LevelAttack(AutoAttack(steps=10, targets=1, queries=20), None),)},
    "stopping": {"stop": True},
    "summed leaves": {"readouts": ("summed",)},
    "a short ball": {"threat": Threat(eps=0.3, norm="l2")},
    "low precision": {"attacks": (LevelAttack(LowPrecision(PGD(steps=20))),)},
    "a patch": {"attacks": (LevelAttack(Patch(area=0.2, steps=10, step_size=0.2)),), "threat": Threat(eps=1.0)},
    "small batches": {"batch_size": 13},
}


def told(checks: list[Check]) -> str:
    return "\n".join(f"{c.id} {c.subject} {c.status}: {c.detail}" for c in checks if c.status in ("flag", "fail"))


def test_a_sound_audit_passes_every_check_for_every_head(check: Run) -> None:
    checks = check(both_heads())
    assert {c.status for c in checks} == {"pass"}, told(checks)
    assert worst(checks) == "pass"
    assert Counter(c.id for c in checks) == {i: 1 if i in AUDIT else 2 for i in RULES}
    assert len(RULES) == 27
    assert [c.id for c in checks] == sorted((c.id for c in checks), key=lambda i: int(i[1:]))
    assert {c.subject for c in checks} == {"", "toy/cosine", "toy/hyperbolic"}


@pytest.mark.parametrize("name", PLANS)
def test_a_sound_audit_passes_under_other_plans(name: str, check: Run) -> None:
    checks = check(sound(plan=replace(PLAN, **PLANS[name]), audited=name != "low precision"))
    assert worst(checks) == "pass", told(checks)
    assert len(checks) == 27


def test_a_euclidean_head_passes(check: Run) -> None:
    checks = check(sound(Euclidean()))
    assert worst(checks) == "pass", told(checks)


def test_every_level_and_whole_cascades_can_be_checked(check: Run) -> None:
    plan = replace(PLAN, attacks=(LevelAttack(AutoAttack(version="fast", steps=10, targets=2), None),))
    budget = replace(BUDGET, images=24, steps=10, aims=10_000, every_level=True, cascades=True)
    checks = {c.id: c for c in check(sound(plan=plan), budget)}
    assert worst(checks.values()) == "pass", told([*checks.values()])
    assert "3 of 3" not in checks["S6"].detail
    assert checks["S18"].detail.startswith("72 adversarial images")  # 24 images at 3 levels


def test_every_id_is_seen_to_flag_or_fail() -> None:
    seen = {i for _, expected in FAULTS.values() for i in expected}
    assert seen == set(RULES)


def test_random_models_are_flagged_less_where_the_plan_averages(check: Run) -> None:
    attack = LevelAttack(Expectation(PGD(steps=4), samples=3))
    model = dropping(make_model(Sphere())).train()
    plan = replace(PLAN, attacks=(attack,), all_levels=None)
    checks = {c.id: c for c in check(sound(subjects=named(model), plan=plan))}
    assert checks["S3"].status == "flag"
    assert checks["S13"].status == checks["S14"].status == "not applicable"


def test_what_cannot_be_checked_says_why(check: Run) -> None:
    for setting, reason in (
        (sound(images=replace(draw_images(120, seed=2), pixels=draw_images(120, seed=2).pixels * 255)), "S1"),
        (sound(forest=build_forest(LEAVES, [])), "S23"),
    ):
        checks = check(replace(setting, audited=False))
        left = [c for c in checks if c.status == "not applicable"]
        assert Counter(c.id for c in checks) == dict.fromkeys(RULES, 1)
        assert len(left) > 18
        assert all(reason in c.detail or "audit first" in c.detail for c in left), [c.detail for c in left]


def test_without_attacks_or_trees_the_rest_is_checked(check: Run) -> None:
    forest = build_forest(LEAVES, [])
    subjects = named(make_model(Sphere(), forest=forest))
    clean = replace(PLAN, attacks=(), all_levels=None)
    checks = {c.id: c for c in check(sound(subjects=subjects, forest=forest, plan=clean))}
    assert worst(checks.values()) == "pass", told([*checks.values()])
    assert {i for i, c in checks.items() if c.status == "not applicable"} == {"S8", "S9", "S13", "S14", "S18", "S21"}


def test_without_one_right_image_nothing_is_attacked(check: Run) -> None:
    images = draw_images(120, seed=2)
    with torch.no_grad():
        scores = make_model(Sphere())(images.pixels)
    coarse = torch.tensor(FOREST.cut("kind", 2).of_leaf)
    chosen = zip(scores.at(FOREST.leaf_cut).argmax(1), scores.at(FOREST.cut("kind", 2)).argmax(1), strict=True)
    places = torch.arange(len(LEAVES))
    wrong = torch.stack([places[(coarse != node) & (places != leaf)][0] for leaf, node in chosen])
    checks = {c.id: c for c in check(sound(images=replace(images, leaves=wrong)))}
    assert checks["S24"].status == "flag"
    assert checks["S6"].status == checks["S11"].status == "not applicable"


@pytest.mark.parametrize("change", [dropping, counting])
def test_checks_change_nothing(change: Callable[[TreeModel], TreeModel], check: Run) -> None:
    """Not even a model that changes itself, and not the random numbers of whoever calls."""
    model = change(make_model(Poincare()))
    model.train()
    model.text_projection.eval()
    flags = [module.training for module in model.modules()]
    tensors = {name: tensor.clone() for name, tensor in [*model.named_parameters(), *model.named_buffers()]}
    setting = sound(subjects=named(model), audited=False)
    torch.manual_seed(17)
    state = torch.get_rng_state()
    first = check(setting)
    assert torch.equal(torch.get_rng_state(), state)
    assert [module.training for module in model.modules()] == flags
    after = dict([*model.named_parameters(), *model.named_buffers()])
    assert after.keys() == tensors.keys()
    assert all(torch.equal(tensor, after[name]) for name, tensor in tensors.items())
    assert all(not p.requires_grad and p.grad is None for p in model.parameters())
    torch.manual_seed(18)
    assert check(setting) == first


def test_checks_are_written_and_read(check: Run, tmp_path: Path) -> None:
    seen: list[Progress] = []
    checks = check(sound(), report=seen.append)
    assert read_checks(tmp_path) == checks
    content = json.loads((tmp_path / FILE).read_text())
    assert content["format"] == "robustree-checks/1"
    assert content["budget"]["queries"] == BUDGET.queries
    assert content["seconds"] > 0
    assert [p.done for p in seen] == list(range(1, 28))
    assert {p.total for p in seen} == {27}
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("text", ["{", "[]", '{"format": "robustree-checks/9", "checks": []}', '{"checks": []}'])
def test_damaged_checks_are_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / FILE).write_text(text)
    with pytest.raises(ValueError, match=r"cannot be read \(.*run the audit's checks again"):
        read_checks(tmp_path)


def test_missing_checks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds no checks\.json"):
        read_checks(tmp_path)


def test_a_check_knows_its_ids_and_states() -> None:
    fields: dict[str, Any] = {"title": "", "rule": "", "subject": "", "figure": None, "detail": ""}
    with pytest.raises(ValueError, match="the check is called 'S28'"):
        Check(id="S28", status="pass", **fields)
    with pytest.raises(ValueError, match="S1 has the status 'good'"):
        Check(id="S1", status="good", **fields)  # type: ignore[arg-type]
    assert worst([]) == "not applicable"


def test_a_budget_counts_from_one() -> None:
    with pytest.raises(ValueError, match="the budget has draws 0"):
        Budget(draws=0)
    assert Budget.full().queries == 5000


def test_every_rule_is_one_plain_sentence() -> None:
    for title, rule in RULES.values():
        assert title and rule.endswith(".") and rule.count(". ") == 0
