from __future__ import annotations

import math
from itertools import product

import pytest
import torch
from torch import Tensor

from robustree.objectives import (
    READOUTS,
    CrossEntropy,
    DifferenceOfLogitsRatio,
    EmbeddingShift,
    EveryLevel,
    Margin,
    Objective,
    Readout,
    SoftCrossEntropy,
    WeightedSum,
    every_level,
    level_scores,
    targets,
)
from robustree.taxonomy import Cut
from tests.scored import ALONE, GROUPS, LEAF, LEAVES, PAIR, decision, log_softmax, logits, partition, scored


@pytest.mark.parametrize("cut", [LEAF, GROUPS, PAIR], ids=lambda cut: cut.label)
@pytest.mark.parametrize("towards", [None, 0, 1])
def test_cross_entropy_by_plain_arithmetic(cut: Cut, towards: int | None) -> None:
    nodes = logits()
    made = CrossEntropy(cut, LEAVES, towards=towards)(scored(nodes))
    for value, row, leaf in zip(made.tolist(), nodes.tolist(), LEAVES.tolist(), strict=True):
        surprise = log_softmax([row[node] for node in cut.nodes])
        expected = -surprise[cut.of_leaf[leaf]] if towards is None else surprise[towards]
        assert value == pytest.approx(expected, rel=1e-10)


def test_level_scores_by_hand() -> None:
    nodes = torch.tensor([[1.0, 2.0, 3.0, 0.0, -1.0, 9.0, 7.0, 9.0, 8.0]], dtype=torch.float64)
    assert level_scores(scored(nodes), GROUPS, "direct").tolist() == [[2.0, 7.0, 8.0]]
    assert level_scores(scored(nodes), GROUPS, "via_leaf").tolist() == [[2.0, 3.0, 0.0]]
    summed = [2.0, math.log(math.exp(1) + math.exp(3)), math.log(math.exp(0) + math.exp(-1))]
    assert level_scores(scored(nodes), GROUPS, "summed")[0].tolist() == pytest.approx(summed)


@pytest.mark.parametrize("groups", [2, 3, 7, 20, 50])
def test_summed_is_the_logarithm_of_the_summed_probabilities_up_to_a_constant(groups: int) -> None:
    leaf_cut, cut = partition(groups, seed=groups)
    nodes = logits(6, 3 * groups + 1, seed=groups)
    probability = nodes[:, : len(leaf_cut.nodes)].softmax(1)
    sums = torch.stack([probability[:, torch.tensor(cut.of_leaf) == group].sum(1) for group in range(groups)], dim=1)
    made = level_scores(scored(nodes), cut, "summed")
    assert torch.allclose(made.log_softmax(1), sums.log(), rtol=1e-12)


@pytest.mark.parametrize("readout", READOUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_extreme_logits_stay_finite_with_their_gradient(readout: Readout, dtype: torch.dtype) -> None:
    nodes = torch.tensor([[1e4, -1e4, -1e4, 1e4, -1e4, 0, 1e4, -1e4, 1e4], [-1e4] * 9], dtype=dtype, requires_grad=True)
    made = level_scores(scored(nodes), GROUPS, readout)
    (gradient,) = torch.autograd.grad(made.sum(), nodes)
    assert made.isfinite().all() and gradient.isfinite().all()
    if readout == "summed":
        close = [[-1e4, 1e4, 1e4], [-1e4, -1e4 + math.log(2), -1e4 + math.log(2)]]
        assert torch.allclose(made, torch.tensor(close, dtype=dtype))


@pytest.mark.parametrize("readout", READOUTS)
@pytest.mark.parametrize("groups", [2, 3, 4, 5, 10, 50])
def test_the_margin_is_positive_exactly_when_the_decision_is_wrong(groups: int, readout: Readout) -> None:
    leaf_cut, cut = partition(groups, seed=groups)
    nodes = logits(400, 3 * groups + 1, seed=groups)
    leaves = torch.arange(400) % len(leaf_cut.nodes)
    nodes[torch.arange(400), leaves] += 3  # about as many right as wrong
    nodes[torch.arange(400), targets(cut, leaves) + len(leaf_cut.nodes)] += 3
    decided = torch.tensor(decision(nodes, cut, leaf_cut, readout))
    wrong = decided != targets(cut, leaves)
    assert torch.equal(Margin(cut, leaves, readout=readout)(scored(nodes)) > 0, wrong)
    assert 0 < wrong.sum() < 400
    goal = groups // 2
    assert torch.equal(Margin(cut, leaves, readout=readout, towards=goal)(scored(nodes)) > 0, decided == goal)


@pytest.mark.parametrize("readout", READOUTS)
def test_a_tie_is_no_win_for_the_attack(readout: Readout) -> None:
    # group {0, 2} ties with group {3, 4} at every readout
    nodes = torch.tensor([[2.0, -5.0, 1.0, 2.0, 1.0, 0.0, 4.0, 0.0, 4.0]], dtype=torch.float64)
    assert Margin(GROUPS, torch.tensor([3]), readout=readout)(scored(nodes)).tolist() == [0.0]
    assert Margin(GROUPS, torch.tensor([3]), readout=readout, towards=1)(scored(nodes)).tolist() == [0.0]


def test_the_margin_and_the_ratio_by_hand() -> None:
    nodes = torch.tensor([[1.0, 5.0, 4.0, -3.0, 2.0]], dtype=torch.float64)
    for leaf, margin in enumerate([4.0, -1.0, 1.0, 8.0, 3.0]):
        truth = torch.tensor([leaf])
        assert Margin(LEAF, truth)(scored(nodes)).tolist() == [margin]
        assert DifferenceOfLogitsRatio(LEAF, truth)(scored(nodes)).tolist() == pytest.approx(
            [margin / (5 - 2)], rel=1e-10
        )
    assert Margin(LEAF, torch.tensor([0]), towards=2)(scored(nodes)).tolist() == [-1.0]


@pytest.mark.parametrize("groups", [3, 4, 10, 50])
def test_the_ratio_is_the_sorted_formula_and_free_of_shift_and_scale(groups: int) -> None:
    leaf_cut, _ = partition(groups, seed=1)
    nodes = logits(20, len(leaf_cut.nodes))
    leaves = torch.arange(20) % len(leaf_cut.nodes)
    ratio = DifferenceOfLogitsRatio(leaf_cut, leaves)
    for value, row, leaf in zip(ratio(scored(nodes)).tolist(), nodes.tolist(), leaves.tolist(), strict=True):
        ordered = sorted(row, reverse=True)
        other = ordered[1] if row[leaf] == ordered[0] else ordered[0]
        assert value == pytest.approx(-(row[leaf] - other) / (ordered[0] - ordered[2]), rel=1e-12)
    assert torch.allclose(ratio(scored(100 * nodes - 7)), ratio(scored(nodes)))
    assert torch.allclose(ratio(scored(1e-6 * nodes + 3)), ratio(scored(nodes)), rtol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_ratio_is_finite_when_the_three_largest_tie(dtype: torch.dtype) -> None:
    nodes = torch.tensor([[50.0, 50.0, 50.0, -50.0, 0.0], [1.0] * 5], dtype=dtype, requires_grad=True)
    made = DifferenceOfLogitsRatio(LEAF, torch.tensor([3, 0]))(scored(nodes))
    (gradient,) = torch.autograd.grad(made.sum(), nodes)
    assert made.isfinite().all() and gradient.isfinite().all()
    assert made[0] > 0 and made[1] == 0


def test_every_level_is_aimed_at_the_rivals_of_each() -> None:
    nodes = logits()
    parts = (Margin(LEAF, LEAVES), Margin(GROUPS, LEAVES))
    whole = EveryLevel(parts, (0.25, 0.75))
    rivals = whole.rivals(scored(nodes), 3)
    fewest = len(GROUPS.nodes) - 1
    assert rivals.shape == (len(LEAVES), 3, 2) and fewest == 2
    assert torch.equal(rivals[:, :, 0], parts[0].rivals(scored(nodes), 3))
    assert torch.equal(rivals[:, :2, 1], parts[1].rivals(scored(nodes), 3))
    assert torch.equal(rivals[:, 2, 1], rivals[:, 1, 1])
    aimed = whole.aimed(rivals[:, 1]).under("ratio")
    by_hand = [part.aimed(rivals[:, 1, i]).under("ratio")(scored(nodes)) for i, part in enumerate(parts)]
    assert torch.allclose(aimed(scored(nodes)), 0.25 * by_hand[0] + 0.75 * by_hand[1])
    index = torch.tensor([2, 0])
    assert torch.equal(aimed.take(index)(scored(nodes[index])), aimed(scored(nodes))[index])
    assert EveryLevel((*parts, Margin(ALONE, LEAVES)), (1.0, 1.0, 1.0)).rivals(scored(nodes), 3).shape[1] == 0


def test_the_ratio_refuses_fewer_than_three_nodes() -> None:
    with pytest.raises(ValueError, match=r"^level t/2 has 2 nodes; the difference of logits ratio needs 3: use the"):
        DifferenceOfLogitsRatio(PAIR, LEAVES)


def test_shift_soft_and_weighted_by_plain_arithmetic() -> None:
    nodes, points, reference = logits(), logits(4, 3, seed=1), logits(4, 3, seed=2)
    soft = logits(4, 3, seed=3).softmax(1)
    scores = scored(nodes, points)
    shift = EmbeddingShift(reference)(scores)
    crossed = SoftCrossEntropy(GROUPS, soft, 1.8)(scores)
    for i in range(4):
        squares = [(p - q) ** 2 for p, q in zip(points[i].tolist(), reference[i].tolist(), strict=True)]
        surprise = log_softmax([1.8 * nodes[i, node].item() for node in GROUPS.nodes])
        assert shift[i].item() == pytest.approx(math.fsum(squares))
        terms = [-q * s for q, s in zip(soft[i].tolist(), surprise, strict=True)]
        assert crossed[i].item() == pytest.approx(math.fsum(terms))
    both = WeightedSum((EmbeddingShift(reference), SoftCrossEntropy(GROUPS, soft, 1.8)), (0.25, 2.0))
    assert torch.allclose(both(scores), 0.25 * shift + 2.0 * crossed)
    certain = torch.nn.functional.one_hot(targets(GROUPS, LEAVES), 3).double()
    assert torch.allclose(SoftCrossEntropy(GROUPS, certain)(scores), CrossEntropy(GROUPS, LEAVES)(scores))


def test_every_level_is_the_mean_cross_entropy_of_the_cuts() -> None:
    cuts = (LEAF, GROUPS, PAIR)
    whole = every_level(cuts, LEAVES)
    assert whole.weights == (1 / 3, 1 / 3, 1 / 3)
    mean = torch.stack([CrossEntropy(cut, LEAVES)(scored(logits())) for cut in cuts]).mean(0)
    assert torch.allclose(whole(scored(logits())), mean)


def everything() -> dict[str, Objective]:
    reference, soft = logits(4, 3, seed=2), logits(4, 3, seed=3).softmax(1)
    made: dict[str, Objective] = {
        "shift": EmbeddingShift(reference),
        "soft": SoftCrossEntropy(GROUPS, soft, 0.7),
        "every": every_level((LEAF, GROUPS, PAIR), LEAVES),
        "mixed": WeightedSum((EmbeddingShift(reference), CrossEntropy(PAIR, LEAVES)), (2.0, 0.5)),
    }
    for cut, towards in product((LEAF, GROUPS, PAIR), (None, 1)):
        made[f"cross entropy {cut.label} {towards}"] = CrossEntropy(cut, LEAVES, towards=towards)
        for readout in READOUTS:
            made[f"margin {cut.label} {readout} {towards}"] = Margin(cut, LEAVES, readout=readout, towards=towards)
    for cut in (LEAF, GROUPS):
        made[f"ratio {cut.label}"] = DifferenceOfLogitsRatio(cut, LEAVES)
    return made


@pytest.mark.parametrize("name", everything())
def test_taking_images_is_slicing_and_images_do_not_mix(name: str) -> None:
    objective = everything()[name]
    nodes, points = logits(), logits(4, 3, seed=1)
    whole = objective(scored(nodes, points))
    assert whole.shape == (4,)
    for index in (
        torch.tensor([2]),
        torch.tensor([3, 0]),
        torch.tensor([0, 1, 2, 3]),
        torch.tensor([], dtype=torch.long),
    ):
        part = objective.take(index)(scored(nodes[index], points[index]))
        assert torch.allclose(part, whole[index], rtol=1e-12)
    again = objective.take(torch.tensor([3, 1, 0])).take(torch.tensor([2, 0]))
    index = torch.tensor([0, 3])
    assert torch.allclose(again(scored(nodes[index], points[index])), whole[index], rtol=1e-12)


@pytest.mark.parametrize("name", everything())
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    objective = everything()[name]

    def value(nodes: Tensor, points: Tensor) -> Tensor:
        return objective(scored(nodes, points))

    assert torch.autograd.gradcheck(value, (logits().requires_grad_(True), logits(4, 3, seed=1).requires_grad_(True)))


def test_a_level_of_one_node_can_never_be_wrong() -> None:
    for readout in READOUTS:
        assert (Margin(ALONE, LEAVES, readout=readout)(scored(logits())) == -math.inf).all()


def test_an_unknown_loss_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"^loss is 'hinge'; cross_entropy, margin, ratio are supported: choose one\.$"
    ):
        Margin(GROUPS, LEAVES).under("hinge")  # type: ignore[arg-type]


def test_an_unknown_readout_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^readout is 'mean'; direct, via_leaf and summed are supported: choose one"):
        level_scores(scored(logits()), GROUPS, "mean")  # type: ignore[arg-type]
