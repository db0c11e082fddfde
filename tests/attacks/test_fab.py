from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from pyautoattack.fab_projections import projection_l2, projection_linf
from pyautoattack.fab_pt import FABAttack_PT
from torch import Tensor

from robustree.attacks import FAB, Threat
from robustree.attacks.fab import shortest_way
from robustree.objectives import Margin

SHAPES = [(3, 4, 4), (3, 2, 7), (1, 1, 1), (12,)]
THREATS = [Threat(eps=0.03), Threat(eps=0.2, norm="l2")]
OFFICIAL = {"linf": "Linf", "l2": "L2"}


def fresh(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def planes(norm: str, rows: int = 200, columns: int = 9) -> tuple[Tensor, Tensor, Tensor, Threat]:
    """Points of the box, some on its faces, and planes that cut it, with some zeros in their normals."""
    x = torch.rand(rows, columns, generator=fresh(1), dtype=torch.float64)
    x[::3, :4] = x[::3, :4].round()
    normal = torch.randn(rows, columns, generator=fresh(2), dtype=torch.float64)
    normal[::5, 2:5] = 0
    inside = torch.rand(rows, columns, generator=fresh(3), dtype=torch.float64)
    return x, normal, (normal * (inside - x)).sum(1), Threat(eps=0.1, norm=norm)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_way_to_a_plane_ends_on_the_plane_and_in_the_box(norm: str) -> None:
    x, normal, gap, threat = planes(norm)
    way = shortest_way(x, normal, gap, threat)
    assert torch.allclose((normal * way).sum(1), gap, atol=1e-12)
    assert (x + way >= -1e-15).all() and (x + way <= 1 + 1e-15).all()


def test_no_smaller_cube_reaches_the_plane() -> None:
    x, normal, gap, threat = planes("linf")
    size = shortest_way(x, normal, gap, threat).abs().amax(1, keepdim=True) * (1 - 1e-9)
    # each coordinate alone does what it can for normal . d inside the smaller cube and the box
    low, high = torch.maximum(-x, -size), torch.minimum(1 - x, size)
    ends = torch.stack([normal * low, normal * high])
    assert torch.where(gap > 0, ends.amax(0).sum(1) < gap, ends.amin(0).sum(1) > gap).all()


def test_no_shorter_way_reaches_the_plane() -> None:
    # d is the shortest of a convex set exactly when d . (z - d) >= 0 for all its z
    x, normal, gap, threat = planes("l2")
    way = shortest_way(x, normal, gap, threat)
    for seed in range(60):
        a, b = torch.rand(2, *x.shape, generator=fresh(seed), dtype=torch.float64) - x
        below, above = (normal * a).sum(1) - gap, (normal * b).sum(1) - gap
        crossing = (below * above < 0)[:, None]
        z = a + (b - a) * (below / (below - above))[:, None]
        assert ((way * (z - way)).sum(1)[crossing[:, 0]] >= -1e-12).all()


@pytest.mark.parametrize("columns", [1, 9, 300])
@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.usefixtures("official")
def test_ways_are_those_of_the_authors(norm: str, columns: int) -> None:
    x, normal, gap, threat = planes(norm, columns=columns)
    theirs = (projection_linf if norm == "linf" else projection_l2)(x, normal, gap + (normal * x).sum(1))
    assert torch.allclose(shortest_way(x, normal, gap, threat), theirs, atol=1e-9)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_planes_that_miss_the_box_are_approached_and_boxes_without_end_have_a_closed_form(norm: str) -> None:
    x, normal, _, threat = planes(norm)
    corner = torch.where(normal > 0, 1 - x, torch.where(normal < 0, -x, 0))
    assert torch.allclose(shortest_way(x, normal, torch.full((len(x),), 99.0).double(), threat), corner)
    free = Threat(eps=0.1, norm=norm, low=-math.inf, high=math.inf)
    gap = torch.linspace(-5, 5, len(x), dtype=torch.float64)[:, None]
    if norm == "linf":
        closed = normal.sign() * gap / normal.abs().sum(1, keepdim=True)
    else:
        closed = normal * gap / normal.square().sum(1, keepdim=True)
    assert torch.allclose(shortest_way(x, normal, gap[:, 0], free), closed, atol=1e-14)


@pytest.mark.parametrize("size", [1.0, 1e-12, 1e-30, 1e30])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_ways_do_not_depend_on_the_size_of_the_gradient(norm: str, size: float) -> None:
    x, normal, gap, threat = (value.float() if isinstance(value, Tensor) else value for value in planes(norm))
    ways = shortest_way(x, normal * size, gap * size, threat)
    assert ways.dtype == torch.float32
    assert torch.allclose(ways, shortest_way(x, normal, gap, threat), rtol=1e-3, atol=1e-5)
    assert not shortest_way(x, normal * 0, gap, threat).any()
    assert not shortest_way(x, normal, gap * 0, threat).any()


def targeted(network: Any, threat: Threat, rank: int, steps: int) -> Any:
    """The authors' FAB towards the class of that rank (2: the most likely wrong one), before its run."""
    options = {"norm": OFFICIAL[threat.norm], "eps": threat.eps, "n_iter": steps, "device": "cpu", "targeted": True}
    attack = FABAttack_PT(network.logits, **options)
    attack.target_class = rank
    return attack


def walk(attack: FAB, network: Any, objective: Any, image: int, threat: Threat) -> tuple[Tensor, Tensor, Tensor]:
    """All points that the attack looks at for one image, whether the network is wrong there, and the distances."""
    one, mine = torch.tensor([image]), network.fresh()
    attack(mine, network.images[one], objective.take(one), threat, generator=fresh())
    seen = torch.cat(mine.seen)
    wrong = network.classify(seen).argmax(1) != network.leaves[image]
    return seen, wrong, threat.distance(seen, network.images[one].expand_as(seen))


@pytest.mark.parametrize("threat", THREATS, ids=lambda threat: threat.norm)
@pytest.mark.parametrize(("rank", "gain"), [(2, 2.0), (5, 6.0)])
@pytest.mark.usefixtures("official")
def test_looking_back_every_move_is_that_of_the_authors(
    threat: Threat, rank: int, gain: float, make_network: Callable[..., Any]
) -> None:
    network, steps = make_network(8, gain=gain), 40
    theirs = network.fresh()
    found = targeted(theirs, threat, rank, steps).attack_single_run(network.images, network.leaves, is_targeted=True)
    reached = threat.distance(found, network.images)
    moved_by_theirs = torch.stack(theirs.seen[3::2])  # after two looks at the start, a gradient and a label each move
    margin = Margin(network.cut, network.leaves)
    objective = margin.aimed(margin.rivals(network(network.images), 9)[:, rank - 2])
    forwards = 0
    for image in range(8):
        seen, wrong, distance = walk(FAB(steps=steps, look_back=True), network, objective, image, threat)
        at = [1]
        while len(at) < steps:
            at.append(at[-1] + (2 if wrong[at[-1]] else 1))
        assert (seen[at] - moved_by_theirs[:, image]).abs().max() < 1e-10
        assert float(distance[at][wrong[at]].min()) == pytest.approx(float(reached[image]), rel=1e-9)
        forwards += len(seen)
    assert forwards <= sum(map(len, theirs.seen))


@pytest.mark.parametrize("threat", THREATS, ids=lambda threat: threat.norm)
@pytest.mark.parametrize("gain", [2.0, 8.0])
@pytest.mark.usefixtures("official")
def test_without_looking_back_distances_are_those_of_the_authors_for_half_the_forwards(
    threat: Threat, gain: float, make_network: Callable[..., Any]
) -> None:
    network, steps = make_network(9, gain=gain, seed=3), 30
    margin = Margin(network.cut, network.leaves)
    for rank in (2, 4):
        theirs, forwards, shares = network.fresh(), 0, []
        attack = targeted(theirs, threat, rank, steps)
        reached = threat.distance(
            attack.attack_single_run(network.images, network.leaves, is_targeted=True), network.images
        )
        objective = margin.aimed(margin.rivals(network(network.images), 9)[:, rank - 2])
        for image in range(9):
            seen, wrong, distance = walk(FAB(steps=steps), network, objective, image, threat)
            shares.append(distance[wrong].min() / reached[image])
            forwards += len(seen)
        ratio = torch.stack(shares)
        assert abs(float(ratio.median()) - 1) < 0.02 and ratio.max() < 1.05
        assert forwards < 0.53 * sum(map(len, theirs.seen))


@pytest.mark.parametrize("look_back", [False, True])
@pytest.mark.parametrize("threat", [Threat(eps=0.02), Threat(eps=0.15, norm="l2")], ids=lambda threat: threat.norm)
@pytest.mark.usefixtures("official")
def test_the_targeted_attack_breaks_the_images_that_the_one_of_the_authors_breaks(
    threat: Threat, look_back: bool, make_network: Callable[..., Any]
) -> None:
    network = make_network(40, gain=4.0)
    theirs, ours = network.fresh(), network.fresh()
    options = {"norm": OFFICIAL[threat.norm], "eps": threat.eps, "n_iter": 20, "device": "cpu", "n_target_classes": 9}
    broken = network.wrong(
        FABAttack_PT(theirs.logits, targeted=True, **options).perturb(network.images, network.leaves)
    )
    attack = FAB(steps=20, targets=9, stop=True, look_back=look_back)
    made = attack(ours, network.images, Margin(network.cut, network.leaves), threat, generator=fresh())
    assert torch.equal(network.wrong(made), broken) and 5 < broken.sum() < 35
    assert threat.contains(made, network.images).all()
    assert ours.forwards < (0.99 if look_back else 0.5) * theirs.forwards


@pytest.mark.usefixtures("official")
def test_between_two_classes_the_untargeted_attack_is_that_of_the_authors(make_network: Callable[..., Any]) -> None:
    network, threat = make_network(10, classes=2, gain=4.0), THREATS[0]
    attack = FABAttack_PT(network.fresh().logits, norm="Linf", eps=threat.eps, n_iter=30, device="cpu")
    found = attack.attack_single_run(network.images, network.leaves)
    for image in range(10):
        objective = Margin(network.cut, network.leaves)
        _, wrong, distance = walk(FAB(steps=30, look_back=True), network, objective, image, threat)
        reached = float(threat.distance(found, network.images)[image])
        assert distance[wrong].min() <= reached * (1 + 1e-9)


@pytest.mark.parametrize("look_back", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_linear_decision_changes_just_beyond_its_known_distance(
    norm: str, shape: tuple[int, ...], look_back: bool, make_linear: Callable[..., Any]
) -> None:
    for radius, succeeds in [(0.0999, False), (0.1001, True)]:  # the last search closes the gap that eta leaves
        victim = make_linear((3, *shape), norm, 0.1)
        threat = Threat(eps=radius, norm=norm)
        attack = FAB(steps=10, look_back=look_back)
        made = attack(victim, victim.images, victim.objective, threat, generator=fresh())
        assert threat.contains(made, victim.images).all()
        assert (victim.objective(victim(made)) > 0).tolist() == [succeeds] * 3


def test_one_move_is_enough_for_a_linear_decision_with_room(make_linear: Callable[..., Any]) -> None:
    victim = make_linear((4, 3, 4, 4), "l2", 0.1)
    attack = FAB(steps=50, stop=True)
    attack(victim, victim.images, victim.objective, Threat(eps=0.106, norm="l2"), generator=fresh())
    assert victim.seen == [4, 4, 4]  # the look at the clean images, the start, and 1.05 times the way


@pytest.mark.parametrize("look_back", [False, True])
def test_patience_ends_runs_that_have_settled_outside_the_threat_and_no_others(
    look_back: bool, make_linear: Callable[..., Any]
) -> None:
    threat, options = Threat(eps=0.1, norm="l2"), {"steps": 60, "look_back": look_back}
    far = make_linear((3, 3, 4, 4), "l2", 0.2)
    FAB(**options, patience=5)(far, far.images, far.objective, threat, generator=fresh())
    assert len(far.seen) <= (2 if look_back else 1) * 12  # settled after the first moves
    near, patient = (make_linear((3, 3, 4, 4), "l2", 0.05) for _ in range(2))
    whole = FAB(**options)(near, near.images, near.objective, threat, generator=fresh())
    early = FAB(**options, patience=5)(patient, patient.images, patient.objective, threat, generator=fresh())
    assert torch.equal(whole, early) and near.seen == patient.seen


@pytest.mark.parametrize("threat", [Threat(eps=0.1), Threat(eps=0.7, norm="l2")], ids=lambda threat: threat.norm)
@pytest.mark.parametrize("look_back", [False, True])
def test_planted_errors_are_found(threat: Threat, look_back: bool, make_planted: Callable[..., Any]) -> None:
    victim = make_planted(threat)
    attack = FAB(steps=100, targets=4, stop=True, look_back=look_back)
    made = attack(victim, victim.images, Margin(victim.cut, victim.leaves), threat, generator=fresh())
    assert victim.wrong(made).all() and threat.contains(made, victim.images).all()


@pytest.mark.parametrize("look_back", [False, True])
@pytest.mark.parametrize("threat", THREATS, ids=lambda threat: threat.norm)
def test_iterates_stray_but_no_image_outside_the_threat_is_kept(
    threat: Threat, look_back: bool, make_network: Callable[..., Any]
) -> None:
    network = make_network(20)
    attack = FAB(steps=15, restarts=2, look_back=look_back)
    objective = Margin(network.cut, network.leaves)
    made = attack(network, network.images, objective, threat, generator=fresh())
    assert threat.contains(made, network.images).all()
    clean = network.images.expand(len(network.seen), -1, -1, -1, -1)
    strayed = [not threat.contains(x, c[: len(x)]).all() for x, c in zip(network.seen, clean, strict=True)]
    assert sum(strayed) > 5
    assert len(network.seen) <= 2 * attack.evaluations


def test_results_do_not_depend_on_the_batch(make_network: Callable[..., Any]) -> None:
    network, threat = make_network(7, gain=4.0), THREATS[0]
    objective = Margin(network.cut, network.leaves)
    for options in ({"targets": 3, "restarts": 2}, {"targets": 9, "stop": True}, {"look_back": True, "restarts": 3}):
        attack = FAB(steps=8, **options)
        made = [
            attack(network, network.images, objective, threat, generator=fresh(), batch_size=size)
            for size in (None, 1, 3)
        ]
        assert torch.equal(made[0], made[1]) and torch.equal(made[0], made[2])


def test_the_first_restart_begins_at_the_image_and_others_elsewhere_also_on_levels_of_few_classes(
    make_network: Callable[..., Any],
) -> None:
    network = make_network(4, classes=3)
    attack = FAB(steps=3, targets=9, restarts=2)  # two targets, so runs 0 and 1 begin at the image, 2 and 3 do not
    attack(network, network.images, Margin(network.cut, network.leaves), THREATS[0], generator=fresh(), batch_size=1)
    starts = sum(bool((x == network.images).flatten(1).all(1).any()) for x in network.seen)
    assert starts == 4 + 4 * 2  # one look for the targets, and two starts


def test_names_say_what_ran_and_impossible_settings_are_refused() -> None:
    names = [FAB().name, FAB(steps=20, restarts=5).name, FAB(targets=9).name, FAB(look_back=True).name]
    assert names == ["fab-100", "fab-20x5", "fab-t9-100", "fab-100-look-back"]
    for options in ({"steps": 0}, {"alpha_max": 1.5}, {"alpha_max": math.nan}, {"eta": 0.9}, {"beta": 1.0}):
        with pytest.raises(ValueError, match=r"^FAB has steps .*: steps start at 1, 0 <= alpha_max <= 1, eta >= 1 and"):
            FAB(**options)
    with pytest.raises(ValueError, match=r"^FAB has patience 0: it starts at 1 move"):
        FAB(patience=0)
    with pytest.raises(ValueError, match=r"^FAB has best=False; its last iterate may lie outside .*: set best=True\.$"):
        FAB(best=False)
