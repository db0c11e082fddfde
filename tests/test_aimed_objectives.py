"""Objectives that are aimed at some nodes of a level."""

from __future__ import annotations

import pytest
import torch
from pyautoattack.autopgd_base import APGDAttack_targeted

from robustree.objectives import (
    READOUTS,
    CrossEntropy,
    DifferenceOfLogitsRatio,
    LevelObjective,
    Margin,
    Readout,
    level_scores,
    targets,
)
from tests.scored import GROUPS, LEAF, LEAVES, decision, log_softmax, logits, partition, scored


@pytest.mark.parametrize("readout", READOUTS)
def test_several_wanted_nodes_are_one_group_of_classes(readout: Readout) -> None:
    leaf_cut, cut = partition(6, seed=2)
    nodes = logits(300, 19, seed=4)
    leaves, wanted = torch.arange(300) % 13, (1, 4)
    scores = level_scores(scored(nodes), cut, readout)
    decided = torch.tensor(decision(nodes, cut, leaf_cut, readout))
    inside = (decided == 1) | (decided == 4)
    margin = Margin(cut, leaves, readout=readout, towards=wanted)
    rest = torch.stack([scores[:, c] for c in (0, 2, 3, 5)]).amax(0)
    assert torch.allclose(margin(scored(nodes)), torch.maximum(scores[:, 1], scores[:, 4]) - rest)
    assert torch.equal(margin.lead(scored(nodes)) > 0, inside) and 0 < inside.sum() < 300
    crossed = CrossEntropy(cut, leaves, readout=readout, towards=wanted)
    probability = scores.softmax(1)[:, list(wanted)].sum(1)
    assert torch.allclose(crossed(scored(nodes)), probability.log())
    assert torch.equal(crossed.lead(scored(nodes)) > 0, inside)
    alone = [
        kind(cut, leaves, readout=readout, towards=towards) for kind in (Margin, CrossEntropy) for towards in (3, (3,))
    ]
    assert torch.equal(alone[0](scored(nodes)), alone[1](scored(nodes)))
    assert torch.equal(alone[2](scored(nodes)), alone[3](scored(nodes)))


@pytest.mark.parametrize("readout", READOUTS)
def test_rivals_are_the_wanted_nodes_with_the_highest_logits_first(readout: Readout) -> None:
    _, cut = partition(6, seed=2)
    nodes, leaves = logits(50, 19, seed=5), torch.arange(50) % 13
    ranked = level_scores(scored(nodes), cut, readout).argsort(1, descending=True).tolist()
    for towards, excluded in ((None, [{t} for t in targets(cut, leaves).tolist()]), ((5, 0, 2), [{1, 3, 4}] * 50)):
        objective = Margin(cut, leaves, readout=readout, towards=towards)
        expected = [[c for c in row if c not in out] for row, out in zip(ranked, excluded, strict=True)]
        for count in (1, 2, 3, 9):
            assert objective.rivals(scored(nodes), count).tolist() == [row[:count] for row in expected]


@pytest.mark.parametrize("groups", [4, 5, 10, 50])
def test_the_aimed_ratio_is_the_formula_of_the_authors(groups: int) -> None:
    leaf_cut, _ = partition(groups, seed=1)
    nodes = logits(40, len(leaf_cut.nodes), seed=6)
    leaves = nodes.argsort(1)[:, -1 - torch.arange(40) % 3].diagonal()  # right, second and third
    attack = APGDAttack_targeted(None, eps=0.1, n_target_classes=9, device="cpu")
    plain = DifferenceOfLogitsRatio(leaf_cut, leaves)
    # the authors add 1e-12 to denominators, of which the smallest here is above 0.01
    assert torch.allclose(plain(scored(nodes)), attack.dlr_loss(nodes, leaves), rtol=1e-10)
    for rivals in plain.rivals(scored(nodes), 9).T:
        attack.y_target = rivals
        aimed = plain.aimed(rivals)
        assert torch.allclose(aimed(scored(nodes)), attack.dlr_loss_targeted(nodes, leaves), rtol=1e-10)
        assert torch.equal(aimed.lead(scored(nodes)) > 0, nodes.argmax(1) != leaves)


@pytest.mark.parametrize("kind", [CrossEntropy, Margin, DifferenceOfLogitsRatio])
def test_aimed_losses_push_towards_their_rival_and_keep_the_decision(kind: type[LevelObjective]) -> None:
    nodes = torch.tensor([[1.0, 5.0, 4.0, -3.0, 2.0]], dtype=torch.float64, requires_grad=True)
    objective = kind(LEAF, torch.tensor([2])).aimed(torch.tensor([4]))
    # log softmax of the rival; z_4 - z_2; and that over 5 - (2 + 1) / 2, the sorted logits being 5, 4, 2, 1
    by_hand = {
        CrossEntropy: log_softmax([1.0, 5.0, 4.0, -3.0, 2.0])[4],
        Margin: 2.0 - 4.0,
        DifferenceOfLogitsRatio: (2.0 - 4.0) / (5.0 - (2.0 + 1.0) / 2),
    }
    made = objective(scored(nodes))
    assert made.item() == pytest.approx(by_hand[kind], rel=1e-10)
    assert torch.autograd.grad(made.sum(), nodes)[0][0, 4] > 0
    assert (objective.lead(scored(nodes)) > 0).tolist() == [True]  # leaf 1 wins, which is wrong as well
    both = kind(LEAF, torch.tensor([2, 0])).aimed(torch.tensor([4, 3])).take(torch.tensor([1]))
    assert both.rival is not None and both.rival.tolist() == [3] and both.leaves.tolist() == [0]


def test_below_four_nodes_the_aimed_ratio_is_the_margin() -> None:
    rivals = torch.tensor([2, 0, 1, 0])
    ratio = DifferenceOfLogitsRatio(GROUPS, LEAVES).aimed(rivals)
    assert torch.equal(ratio(scored(logits())), Margin(GROUPS, LEAVES).aimed(rivals)(scored(logits())))
    assert ratio.rivals(scored(logits()), 9).shape == (4, 2)


@pytest.mark.parametrize("towards", [(), (0, 1, 2), (0, 3), (-1,), 3, -1])
@pytest.mark.parametrize("kind", [CrossEntropy, Margin, DifferenceOfLogitsRatio])
def test_wanted_nodes_must_be_some_of_the_level(kind: type[LevelObjective], towards: int | tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"^towards is .*; level t/1 has the nodes 0 to 2: name some of them, not all"):
        kind(GROUPS, LEAVES, towards=towards)
