from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import count, pairwise
from typing import Any

import pytest
import torch
from pyautoattack.square import SquareAttack
from torch import Tensor

from robustree.attacks import ImageNoise, Square, Threat
from robustree.attacks.square import _bump, _plan
from robustree.objectives import CrossEntropy, Margin

SHAPES = [(3, 6, 6), (3, 4, 9), (1, 7, 3), (2, 1, 8), (3, 5, 1), (1, 1, 1)]
CPU = torch.device("cpu")


def fresh(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Draws:
    """The authors' draws, [start, first proposal, second proposal, ...][image], in the place of `ImageNoise`."""

    table: list[dict[int, Tensor]]

    def __init__(self, seeds: Tensor) -> None:
        self.seeds = seeds

    def take(self, index: Tensor) -> Draws:
        return Draws(self.seeds[index])

    def uniform(self, counter: Tensor, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        # For an image that was just decided the authors draw nothing; its next proposal is never looked at.
        left = torch.zeros(torch.Size(shape).numel())
        draws = [self.table[int(at)] if at < len(self.table) else {} for at in counter]
        drawn = [draw.get(int(image), left) for draw, image in zip(draws, self.seeds, strict=True)]
        return torch.stack(drawn).view(-1, *shape).to(dtype)


def play(network: Any, threat: Threat, queries: int, monkeypatch: pytest.MonkeyPatch) -> tuple[Tensor, Tensor]:
    """Run the authors' attack and fill `Draws` with what it drew; its queries (B,) and last images."""
    images, raw, highs = network.images, [], []
    images_left = [torch.arange(len(images))]

    def classify(x: Tensor) -> Tensor:
        logits = network.logits(x)
        leaves = network.leaves[images_left[-1]]
        best = logits.scatter(1, leaves[:, None], -math.inf).amax(1)
        images_left.append(images_left[-1][logits.gather(1, leaves[:, None])[:, 0] > best])
        return logits

    attack = SquareAttack(
        classify, norm={"linf": "Linf", "l2": "L2"}[threat.norm], n_queries=queries, eps=threat.eps, resc_schedule=False
    )
    attack.init_hyperparam(images)
    rand, draw = torch.rand, attack.random_int
    with monkeypatch.context() as patch:
        patch.setattr(torch, "rand", lambda shape: raw.append(rand(shape)) or raw[-1])
        patch.setattr(attack, "random_int", lambda low, high: highs.append(high) or draw(low, high))
        queried, made = attack.attack_single_run(images, network.leaves)

    # Place k of `high` in the authors' code, which leaves out the last one, is place k of `high + 1` in ours.
    tape, high = iter(raw), iter(highs)
    place = lambda: (math.floor(next(tape) * (limit := next(high))) + 0.5) / (limit + 1)  # noqa: E731
    if threat.norm == "linf":
        start = next(tape)
        table = [{image: start[image].flatten() for image in range(len(images))}]
    else:
        tiles = (images.shape[2] // (images.shape[2] // 5)) ** 2
        start = [torch.cat([next(tape).expand(len(images), 1), next(tape).flatten(1)], 1) for _ in range(tiles)]
        table = [dict(enumerate(torch.stack(start, 1).flatten(1)))]
    for number in range(len(highs) // (2 if threat.norm == "linf" else 4)):
        left = images_left[number + 1].tolist()
        if threat.norm == "linf":
            shared = torch.tensor([place(), place()])
            signs = next(tape).flatten().expand(len(left), -1)
        else:
            shared = torch.tensor([place(), place(), place(), place(), float(next(tape))])
            signs = next(tape).flatten(1)
        table.append({image: torch.cat([shared, mine]) for image, mine in zip(left, signs, strict=True)})
    assert next(tape, None) is None and next(high, None) is None
    monkeypatch.setattr(Draws, "table", table, raising=False)
    return queried, made


@pytest.mark.parametrize(
    ("threat", "shape"),
    [
        (Threat(eps=0.04), (3, 10, 10)),
        (Threat(eps=0.04), (1, 7, 7)),
        (Threat(eps=1.0, norm="l2"), (3, 10, 10)),
        (Threat(eps=1.0, norm="l2"), (3, 16, 16)),
        (Threat(eps=0.8, norm="l2"), (1, 5, 5)),
    ],
)
@pytest.mark.usefixtures("official")
def test_with_the_draws_of_the_authors_every_query_is_theirs(
    threat: Threat, shape: tuple[int, ...], make_network: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = make_network(20, shape=shape)
    if threat.norm == "l2":
        # In the middle of the box the length that is left to spend is 0, or the square root of a rounding error.
        images = theirs.images.round()
        theirs = replace(theirs, images=images, leaves=theirs.classify(images).argmax(1))
    ours = theirs.fresh()
    queried, made_by_theirs = play(theirs, threat, 600, monkeypatch)
    monkeypatch.setattr("robustree.attacks.square.ImageNoise", Draws)
    attack = Square(queries=600, stop=True)
    noise: Any = Draws(torch.arange(20))
    made = attack(ours, ours.images, Margin(ours.cut, ours.leaves), threat, generator=noise)

    assert len(ours.seen) == 1 + len(theirs.seen)  # we look at the clean images too; they do so elsewhere
    differences = [(a - b).abs().max() for a, b in zip(ours.seen[1:], theirs.seen, strict=True)]
    assert max(differences) < 1e-10
    assert ours.forwards - 20 == int(queried.sum())
    assert (made - made_by_theirs).abs().max() < 1e-10
    assert 0 < ours.wrong(made).sum() < 20 and (queried == 601).any()


@pytest.mark.parametrize("side", [1, 2, 3, 4, 5, 8, 11])
@pytest.mark.usefixtures("official")
def test_bumps_are_those_of_the_authors(side: int, monkeypatch: pytest.MonkeyPatch) -> None:
    attack = SquareAttack(None, norm="L2", eps=1.0, device="cpu")
    monkeypatch.setattr(torch, "rand", torch.zeros)
    assert torch.allclose(_bump(side), attack.eta(side), atol=1e-14)
    assert float(_bump(side).norm()) == pytest.approx(1)
    if side % 2 == 0:
        assert float(_bump(side).sum()) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("rescale", [False, True])
@pytest.mark.parametrize(("queries", "side", "p_init"), [(5000, 32, 0.8), (12000, 224, 0.8), (100, 9, 0.3)])
def test_windows_shrink_as_those_of_the_authors(queries: int, side: int, p_init: float, rescale: bool) -> None:
    attack = SquareAttack(None, n_queries=queries, p_init=p_init, resc_schedule=rescale)
    rule = Square(queries=queries, p_init=p_init, rescale_schedule=rescale)
    for l2 in (False, True):
        plan = _plan(rule, l2, side, side, torch.float64, CPU)
        expected = [max(round(math.sqrt(attack.p_selection(i) * side**2)), 3 if l2 else 1) for i in range(queries)]
        if l2:
            expected = [min(edge + (edge % 2 == 0), side) for edge in expected]
        assert plan.sides[plan.size][:queries].tolist() == expected


def proposals(rule: Square, images: Tensor, threat: Threat, steps: int, seed: int = 0) -> list[Tensor]:
    """The start, and proposals of which none is taken."""
    state = rule.begin(images, threat, ImageNoise.drawn(fresh(seed), len(images), CPU), torch.zeros(len(images)).long())
    seen, none = [state["x"]], torch.zeros(len(images), dtype=torch.bool)
    for value in count():
        values = torch.full((len(images),), -float(value), dtype=images.dtype)
        state = rule.advance(state, values, torch.zeros(()), none, threat)
        seen.append(state["x"])
        if value + 1 == steps:
            return seen
    raise AssertionError


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_proposals_fill_the_threat_and_change_a_window_at_most(
    norm: str, shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    images = torch.full((6, *shape), 0.5, dtype=dtype)
    threat = Threat(eps=0.2, norm=norm)
    rule = Square(queries=40, rescale_schedule=True)
    start, *proposed = proposals(rule, images, threat, 40)
    plan = _plan(rule, norm == "l2", *shape[1:], dtype, CPU)
    for number, x in enumerate(proposed):
        if shape != (1, 1, 1):  # a bump of one pixel may cancel what was there
            assert torch.allclose(threat.distance(x, images), torch.tensor(0.2, dtype=dtype), rtol=1e-5)
        side = int(plan.sides[plan.size[number]])
        if norm == "linf":
            assert torch.allclose((x - images).abs(), torch.tensor(0.2, dtype=dtype))
            changed = (x != start).any(1)
            for axis in (1, 2):
                extent = [at.nonzero()[:, 0] for at in changed.any(axis)]
                assert all(len(at) == 0 or at[-1] - at[0] < side for at in extent)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_start_is_vertical_stripes(shape: tuple[int, ...]) -> None:
    images = torch.full((50, *shape), 0.5, dtype=torch.float64)
    (start, *_) = proposals(Square(queries=1), images, Threat(eps=0.2), 1)
    assert (start == start[:, :, :1]).all()
    share = (start > 0.5).double().mean()
    assert abs(float(share) - 0.5) < 5 * 0.5 / (50 * shape[0] * shape[2]) ** 0.5


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("shape", [(1, 4, 6), (1, 5, 3)])
def test_every_place_of_a_window_is_as_likely_also_at_the_last_row_and_column(
    norm: str, shape: tuple[int, ...]
) -> None:
    images = torch.full((4000, *shape), 0.5, dtype=torch.float64)
    rule = Square(queries=1, p_init=0.2)
    plan = _plan(rule, norm == "l2", *shape[1:], torch.float64, CPU)
    side = int(plan.sides[plan.size[0]])
    start, proposed = proposals(rule, images, Threat(eps=0.2, norm=norm), 1)
    if norm == "linf":
        changed = (proposed != start)[:, 0]
        places = (shape[1] - side + 1) * (shape[2] - side + 1)
        corner = torch.tensor([[0, 0], [0, -1], [-1, 0], [-1, -1]])
        share = changed[:, corner[:, 0], corner[:, 1]].double().mean(0)
        # half of the repainted pixels keep their sign
        assert (share - 0.5 / places).abs().max() < 5 * (0.5 / places / 4000) ** 0.5
    else:
        ratio = ((proposed - images) / (start - images)).flatten(1)  # the same everywhere outside the two windows
        touched = ~torch.isclose(ratio, ratio.median(1, keepdim=True).values, rtol=1e-9)
        assert touched.view(-1, *shape[1:]).any(0).all()


def test_only_a_rise_of_the_objective_is_taken() -> None:
    images, threat = torch.full((4, 3, 5, 5), 0.5, dtype=torch.float64), Threat(eps=0.1)
    rule, no = Square(queries=50), torch.zeros(4, dtype=torch.bool)
    state = rule.begin(images, threat, ImageNoise.drawn(fresh(), 4, CPU), torch.zeros(4).long())
    heights = torch.tensor([[1, 1, 1, 1], [2, 0, 1, 1], [1.5, math.nan, 3, 0]], dtype=torch.float64)
    seen = []
    for values in heights:
        seen.append(state["x"])
        state = rule.advance(state, values, torch.zeros(()), no, threat)
    for image, taken in enumerate([1, 0, 2, 0]):
        assert torch.equal(state["best"][image], seen[taken][image])
    assert state["best_value"].tolist() == [2.0, 1.0, 3.0, 1.0]


@pytest.mark.parametrize("shape", [(3, 3, 4, 4), (2, 3, 2, 7), (2, 1, 1, 9)])
def test_the_corner_that_a_linear_function_prefers_is_found(
    shape: tuple[int, ...], make_linear: Callable[..., Any]
) -> None:
    for distance, succeeds in [(0.101, False), (0.0999, True)]:
        victim = make_linear(shape, "linf", distance)
        attack = Square(queries=900, rescale_schedule=True)
        made = attack(victim, victim.images, victim.objective, Threat(eps=0.1), generator=fresh())
        optimum = victim.images + 0.1 * victim.weight.sign()
        assert torch.allclose(made, optimum, atol=1e-12)
        assert (victim.objective(victim(made)) > 0).tolist() == [succeeds] * len(made)


@pytest.mark.parametrize("threat", [Threat(eps=0.1), Threat(eps=0.7, norm="l2")], ids=lambda threat: threat.norm)
def test_planted_errors_are_found(threat: Threat, make_planted: Callable[..., Any]) -> None:
    victim = make_planted(threat)
    attack = Square(queries=2000, rescale_schedule=True, stop=True)
    made = attack(victim, victim.images, Margin(victim.cut, victim.leaves), threat, generator=fresh())
    assert victim.wrong(made).all() and threat.contains(made, victim.images).all()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_results_do_not_depend_on_the_batch_and_every_forward_is_a_query(
    norm: str, shape: tuple[int, ...], make_network: Callable[..., Any]
) -> None:
    network, threat = make_network(5, shape=shape), Threat(eps=0.3, norm=norm)
    made = []
    for size in (None, 1, 3):
        mine = network.fresh()

        def queried(x: Tensor, mine: Any = mine) -> Any:
            assert not x.requires_grad and not torch.is_grad_enabled()
            return mine(x)

        objective = CrossEntropy(mine.cut, mine.leaves)
        attack = Square(queries=30, restarts=2)
        made.append(attack(queried, mine.images, objective, threat, generator=fresh(), batch_size=size))
        assert mine.forwards == 5 * 2 * (1 + 30)
        assert threat.contains(made[-1], mine.images, tolerance=1e-12).all()
    assert torch.equal(made[0], made[1]) and torch.equal(made[0], made[2])


def test_more_queries_never_lose(make_network: Callable[..., Any]) -> None:
    network = make_network(20)
    objective = Margin(network.cut, network.leaves)
    reached = [
        objective(network(Square(queries=n)(network, network.images, objective, Threat(eps=0.05), generator=fresh())))
        for n in (1, 10, 100, 400)
    ]
    assert all((later >= earlier).all() for earlier, later in pairwise(reached))
    assert (reached[-1] > reached[0]).all()


def test_names_say_what_ran_and_impossible_settings_are_refused(make_network: Callable[..., Any]) -> None:
    assert [Square().name, Square(queries=100, restarts=2).name, Square(targets=3).name] == [
        "square-5000",
        "square-100x2",
        "square-t3-5000",
    ]
    for options in ({"queries": 0}, {"p_init": 0.0}, {"p_init": 1.5}, {"p_init": math.nan}):
        with pytest.raises(ValueError, match=r"^Square has queries .*: queries start at 1 and 0 < p_init <= 1\.$"):
            Square(**options)
    with pytest.raises(ValueError, match=r"^Square has best=False; .*: set best=True\.$"):
        Square(best=False)
    network = make_network(2, shape=(12,))
    objective = Margin(network.cut, network.leaves)
    with pytest.raises(ValueError, match=r"^Square paints windows of images \(B, C, H, W\); these have the shape"):
        Square()(network, network.images, objective, Threat(eps=0.1), generator=fresh())
