from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from robustree.attacks import APGD, CW, FAB, PGD, ImageNoise, Patch, Search, Square, Threat
from robustree.attacks.search import HOST_LOOKS, State, _Loop
from robustree.objectives import CrossEntropy, DifferenceOfLogitsRatio, EmbeddingShift, Margin

CPU = torch.device("cpu")
THREAT = Threat(eps=0.04)


def fresh(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@dataclass(frozen=True, kw_only=True)
class Ladder(Search):
    """Looks at the clean image plus 0, 1, 2, ... hundredths, from the run's number of hundredths on; an image may end
    its run early."""

    length: int = 4
    ends: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        return "ladder"

    @property
    def evaluations(self) -> int:
        return self.length

    def begin(self, images: Tensor, threat: Threat, noise: ImageNoise, run: Tensor) -> State:
        first = images + run.view(-1, 1) / 100
        state = {"x": first, "centre": images, "step": torch.zeros_like(run)}
        if not self.ends:
            return state
        end = torch.tensor(self.ends)[(images[:, 0] * 10).round().long()]
        return state | {"end": end, "done": torch.zeros_like(run, dtype=torch.bool)}

    def advance(self, state: State, values: Tensor, gradient: Tensor, achieved: Tensor, threat: Threat) -> State:
        step = state["step"] + 1
        moved = state | {"x": state["x"] + 0.01, "step": step}
        return moved | {"done": step >= state["end"]} if self.ends else moved


@dataclass(frozen=True, eq=False)
class Table:
    """An objective that looks values and decisions up by (image, hundredths added), for one number an image."""

    values: Tensor
    achieves: Tensor
    index: Tensor | None = None

    def _at(self, output: Tensor) -> tuple[Tensor, Tensor]:
        image = (output * 10).floor().long()
        return image, ((output * 100).round().long() - 10 * image).clamp(max=self.values.shape[1] - 1)

    def __call__(self, output: Tensor) -> Tensor:
        return self.values[self._at(output)] + 0 * output

    def lead(self, output: Tensor) -> Tensor:
        return self.achieves[self._at(output)].double()

    def take(self, index: Tensor) -> Table:
        return self


def one_number(x: Tensor) -> Tensor:
    return x[:, 0]


ATTACKS = [
    PGD(steps=4, restarts=3),
    PGD(steps=4, restarts=2, stop=True, momentum=0.9),
    PGD(steps=4, best=False, restarts=2),
    APGD(steps=12, restarts=2),
    APGD(steps=12, targets=3, restarts=2),
    APGD(steps=12, targets=9, stop=True),
    FAB(steps=6, targets=2, restarts=2),
    Square(queries=12, targets=2),
    Square(queries=25, stop=True, restarts=2),
]


@pytest.mark.parametrize("threat", [THREAT, Threat(eps=0.2, norm="l2")], ids=lambda threat: threat.norm)
@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_results_are_the_same_for_every_batch_size_and_order(
    attack: Search, threat: Threat, make_network: Callable[..., Any]
) -> None:
    network = make_network(10, classes=5, gain=4.0)
    noise = ImageNoise.drawn(fresh(), 10, CPU)
    objective = Margin(network.cut, network.leaves)
    made = {}
    for size in (None, 1, 3, 7, 50):
        mine = network.fresh()
        made[size] = attack(mine, network.images, objective, threat, generator=noise, batch_size=size)
        assert max(map(len, mine.seen)) <= (size or 10)
        assert torch.equal(made[size], made[None])
    order = torch.randperm(10, generator=fresh(4))
    mixed = attack(network, network.images[order], objective.take(order), threat, generator=noise.take(order))
    assert torch.equal(mixed, made[None][order])
    again = attack(network, network.images, objective, threat, generator=fresh())
    assert torch.equal(again, made[None])
    assert threat.contains(made[None], network.images, tolerance=1e-12).all()
    assert (made[None] != network.images).flatten(1).any(1).sum() > 5


def test_batches_are_refilled_from_the_queue() -> None:
    # image i is broken at its point i + 1, and there are three places
    images = torch.arange(6, dtype=torch.float64)[:, None] / 10
    achieves = torch.zeros(6, 9, dtype=torch.bool)
    achieves[torch.arange(6), torch.arange(6) + 1] = True
    sizes: list[int] = []

    def f(x: Tensor) -> Tensor:
        sizes.append(len(x))
        return one_number(x)

    attack = Ladder(length=8, stop=True)
    made = attack(f, images, Table(torch.zeros(6, 9), achieves), THREAT, generator=fresh(), batch_size=3)
    assert ((made - images)[:, 0] * 100).round().tolist() == [1, 2, 3, 4, 5, 6]
    # Two looks at the clean images; images 0, 1, 2 stay for 2, 3, 4 points, and 3, 4, 5 take their places for 5, 6, 7.
    assert sizes == [3, 3, *[3] * 7, 2, 2, 1, 1]
    assert sum(sizes) == 6 + (2 + 3 + 4 + 5 + 6 + 7)


def test_images_end_their_runs_early_and_all_restarts_are_made() -> None:
    images = torch.arange(4, dtype=torch.float64)[:, None] / 10
    values = torch.arange(10).expand(4, 10).double()
    for size in (None, 1, 2, 3):
        seen: list[Tensor] = []

        def f(x: Tensor, seen: list[Tensor] = seen) -> Tensor:
            seen.append(x.detach())
            return one_number(x)

        attack = Ladder(length=5, ends=(1, 2, 9, 3), restarts=2)
        none = torch.zeros(4, 10, dtype=torch.bool)
        made = attack(f, images, Table(values, none), THREAT, generator=fresh(), batch_size=size)
        assert sum(map(len, seen)) == 2 * (1 + 2 + 5 + 3)
        # the second run starts one hundredth further, so it reaches one further
        assert ((made - images)[:, 0] * 100).round().tolist() == [1, 2, 5, 3]


def test_an_achieved_point_is_preferred_to_a_higher_objective() -> None:
    images = torch.arange(4, dtype=torch.float64)[:, None] / 10
    values = torch.tensor([[1, 9, 3, 4], [9, 1, 2, 1], [1, 4, 2, 3], [5, math.nan, 6, 1]], dtype=torch.float64)
    achieves = torch.tensor([[0, 0, 1, 0], [0, 1, 1, 1], [0, 0, 0, 0], [0, 1, 0, 0]]).bool()
    for size in (None, 1, 3):
        made = Ladder()(one_number, images, Table(values, achieves), THREAT, generator=fresh(), batch_size=size)
        # the only one achieved, the higher of those achieved, the highest of all, one achieved whose loss is no number
        assert ((made - images)[:, 0] * 100).round().tolist() == [2, 2, 1, 1]
        first = Ladder(stop=True)(
            one_number, images, Table(values, achieves), THREAT, generator=fresh(), batch_size=size
        )
        assert ((first - images)[:, 0] * 100).round().tolist() == [2, 1, 1, 1]


def test_values_that_are_no_numbers_are_never_kept() -> None:
    images = torch.arange(2, dtype=torch.float64)[:, None] / 10
    values = torch.tensor([[math.nan, 2, math.nan, 1], [math.nan] * 4], dtype=torch.float64)
    none = torch.zeros(2, 4, dtype=torch.bool)
    made = Ladder()(one_number, images, Table(values, none), THREAT, generator=fresh())
    assert ((made - images)[:, 0] * 100).round().tolist() == [1, 0]


@pytest.mark.parametrize("attack", ATTACKS[:2] + ATTACKS[3:], ids=lambda attack: attack.name)
def test_a_network_that_breaks_down_in_places_gives_no_image_that_is_no_number(
    attack: Search, make_network: Callable[..., Any]
) -> None:
    network = make_network(8, classes=4, gain=4.0)

    def classify(x: Tensor) -> Tensor:
        logits = network.classify(x)
        broken = (x.flatten(1)[:, :24].mean(1) > network.images.flatten(1)[:, :24].mean(1).median())[:, None]
        return torch.where(broken, math.nan, logits)

    fragile = replace(network, classify=classify)
    made = attack(fragile, network.images, Margin(network.cut, network.leaves), THREAT, generator=fresh())
    assert THREAT.contains(made, network.images).all() and made.isfinite().all()


def test_stopping_leaves_images_that_are_already_wrong_as_they_are(make_network: Callable[..., Any]) -> None:
    network = make_network(9)
    leaves = network.leaves.clone()
    leaves[::3] = (leaves[::3] + 1) % 10
    objective, wrong = Margin(network.cut, leaves), torch.arange(9) % 3 == 0
    for attack in (PGD(stop=True), APGD(steps=9, stop=True), Square(queries=9, stop=True), FAB(steps=5, stop=True)):
        mine = network.fresh()
        made = attack(mine, network.images, objective, THREAT, generator=fresh())
        assert torch.equal(made[wrong], network.images[wrong])
        assert len(mine.seen[0]) == 9 and max(map(len, mine.seen[1:])) == 6
    mine = network.fresh()
    every = Margin(network.cut, (network.leaves + 1) % 10)
    made = APGD(stop=True, targets=9, restarts=5)(mine, network.images, every, THREAT, generator=fresh())
    assert torch.equal(made, network.images) and len(mine.seen) == 1


def test_forwards_are_counted_by_restarts_and_targets(make_network: Callable[..., Any]) -> None:
    network = make_network(5, classes=4)
    objective = Margin(network.cut, network.leaves)
    for attack, forwards in (
        (APGD(steps=10), 11),
        (APGD(steps=10, restarts=3), 33),
        (APGD(steps=10, targets=2), 1 + 22),
        (APGD(steps=10, targets=9, restarts=2), 1 + 2 * 3 * 11),  # three wrong classes
        (PGD(steps=10, best=False), 10),
        (PGD(steps=10), 11),
        (Square(queries=10), 11),
    ):
        mine = network.fresh()
        attack(mine, network.images, objective, THREAT, generator=fresh(), batch_size=2)
        assert mine.forwards == 5 * forwards


def test_starts_replace_the_first_beginning_only(make_network: Callable[..., Any]) -> None:
    network = make_network(6)
    objective = CrossEntropy(network.cut, network.leaves)
    starts = (network.images + 0.01).clamp(0, 1)
    for attack in (PGD(steps=3, restarts=2), APGD(steps=3, restarts=2), Square(queries=3, restarts=2)):
        mine, plain = network.fresh(), network.fresh()
        attack(mine, network.images, objective, THREAT, generator=fresh(), starts=starts)
        attack(plain, network.images, objective, THREAT, generator=fresh())
        run = attack.evaluations
        assert torch.equal(mine.seen[0], starts) and not torch.equal(plain.seen[0], starts)
        assert torch.equal(mine.seen[run], plain.seen[run]) and not torch.equal(mine.seen[run], starts)


def test_starts_outside_the_threat_and_for_attacks_that_choose_their_own_are_refused(
    make_network: Callable[..., Any],
) -> None:
    network = make_network(3)
    objective, inside = Margin(network.cut, network.leaves), network.images.clone()
    for starts in (network.images + 0.05, network.images[:2], torch.full_like(inside, math.nan)):
        with pytest.raises(
            ValueError, match=r"^the starts \(shape .*\) are no points of the threat .*: project them fi"
        ):
            PGD()(network, network.images, objective, THREAT, generator=fresh(), starts=starts)
    for attack in (CW(), Patch()):
        with pytest.raises(ValueError, match=r"was given starts; it chooses its own points: leave them out\.$"):
            attack(network, network.images, objective, THREAT, generator=fresh(), starts=inside)


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_looking_rarely_at_who_is_decided_changes_nothing(
    attack: Search, make_network: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on an accelerator: images stay in the batch for some steps after they were decided or have ended."""
    network = make_network(10, classes=5, gain=4.0)
    objective = Margin(network.cut, network.leaves)
    made = [attack(network, network.images, objective, THREAT, generator=fresh(), batch_size=4)]

    def rarely(loop: _Loop) -> Any:
        left = loop.rule.evaluations - max(looked for _, _, looked in loop.places)
        return iter(range(min(left, HOST_LOOKS)))

    monkeypatch.setattr(_Loop, "_undisturbed", rarely)
    made.append(attack(network, network.images, objective, THREAT, generator=fresh(), batch_size=4))
    assert torch.equal(*made)


@pytest.mark.parametrize("classes", [2, 3, 4, 5])
@pytest.mark.parametrize("kind", [CrossEntropy, Margin, DifferenceOfLogitsRatio])
def test_levels_of_few_classes_have_fewer_targets(kind: Any, classes: int, make_network: Callable[..., Any]) -> None:
    network = make_network(8, classes=classes, gain=4.0)
    if kind is DifferenceOfLogitsRatio and classes < 3:
        return
    objective = kind(network.cut, network.leaves)
    mine = network.fresh()
    made = APGD(steps=10, targets=9)(mine, network.images, objective, THREAT, generator=fresh())
    assert mine.forwards == 8 * (1 + 11 * (classes - 1))
    untargeted = PGD(steps=10)(network, network.images, objective, THREAT, generator=fresh())
    assert (network.wrong(made) | ~network.wrong(untargeted)).all()


def test_targets_are_taken_in_the_order_of_their_logits(make_network: Callable[..., Any]) -> None:
    network = make_network(5, classes=6)
    aimed: list[Tensor] = []

    @dataclass(frozen=True, eq=False)
    class Noted(Margin):
        def aimed(self, rivals: Tensor) -> Any:
            aimed.append(rivals)
            return super().aimed(rivals)

    attack = APGD(steps=1, targets=3, restarts=2)
    attack(network, network.images, Noted(network.cut, network.leaves), THREAT, generator=fresh())
    order = network.classify(network.images).argsort(1, descending=True)
    assert [rivals.tolist() for rivals in aimed] == [order[:, rank].tolist() for rank in (1, 2, 3, 1, 2, 3)]


def test_a_level_of_one_class_cannot_be_aimed_at(make_network: Callable[..., Any]) -> None:
    network = make_network(3, classes=1)
    objective = Margin(network.cut, network.leaves)
    with pytest.raises(ValueError, match=r"^apgd-t9-100 aims at wrong classes, and the level under attack has none"):
        APGD(targets=9)(network, network.images, objective, THREAT, generator=fresh())
    made = APGD(steps=3)(network, network.images, objective, THREAT, generator=fresh())
    assert THREAT.contains(made, network.images).all()


def test_no_images_are_no_work(make_network: Callable[..., Any]) -> None:
    network = make_network(3)
    none = torch.arange(0)
    for attack in ATTACKS:
        mine = network.fresh()
        objective = Margin(network.cut, network.leaves).take(none)
        made = attack(mine, network.images[none], objective, THREAT, generator=fresh())
        assert made.shape == (0, 3, 4, 4) and mine.forwards == 0


def test_impossible_settings_are_refused(make_network: Callable[..., Any]) -> None:
    for options in ({"restarts": 0}, {"targets": -1}):
        with pytest.raises(ValueError, match=r"^Ladder has restarts .* and targets .*: restarts start at 1 and"):
            Ladder(**options)
    with pytest.raises(ValueError, match=r"^Ladder has stop without best; .*: set best=True\.$"):
        Ladder(stop=True, best=False)
    network = make_network(2)
    with pytest.raises(ValueError, match=r"^batch_size is 0; it starts at 1\.$"):
        PGD()(network, network.images, Margin(network.cut, network.leaves), THREAT, generator=fresh(), batch_size=0)


def test_an_objective_about_no_class_cannot_be_aimed(make_network: Callable[..., Any]) -> None:
    images = torch.rand(2, 3, 4, 4, dtype=torch.float64)
    with pytest.raises(
        ValueError, match=r"^pgd-t3-20 aims at wrong classes, and EmbeddingShift is about none: set targ"
    ):
        PGD(targets=3)(lambda x: x, images, EmbeddingShift(images.flatten(1)), Threat(eps=0.1), generator=fresh())
