from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from robustree.attacks import PGD, Threat
from robustree.auditing.audit import Subject
from robustree.demo.attacking import ALL, Wish, aims, noise_of, watch
from robustree.demo.bench import Bench, Sample
from robustree.demo.decisions import decide, levels_of, path_of, truth_of
from robustree.objectives import CrossEntropy, Margin
from robustree.taxonomy import Forest

CPU = torch.device("cpu")


@pytest.mark.parametrize("level", ["leaf", "kind/1", "home/3", ALL])
@pytest.mark.parametrize("number", [0, 1])
def test_a_watched_attack_ends_where_the_attack_itself_ends(bench: Bench, level: str, number: int) -> None:
    subject, sample = bench.subjects[number], bench.samples[1]
    wish = Wish(forest=bench.forest, level=level, eps=8 / 255, steps=7)
    clean = decide(subject, bench.forest, sample.pixels)
    looks = list(watch(subject, sample, clean, wish))
    goal = wish.goal(sample, clean, CPU)
    objective = goal.objective(None if level == ALL else "margin")
    image, threat = sample.pixels[None], Threat(eps=8 / 255)
    for steps in (1, 4, 7):
        whole = PGD(steps=steps)(subject.model, image, objective, threat, generator=noise_of(sample.name, CPU))
        assert torch.equal(whole[0], looks[steps].image)
    assert [look.step for look in looks] == list(range(8))
    assert all(bool(threat.contains(look.image[None], image)) for look in looks)
    heights = [(look.achieved, look.value) for look in looks]
    assert heights == sorted(heights)
    assert all(look.found <= look.step for look in looks)


def test_the_first_success_is_remembered_while_stronger_images_follow(bench: Bench) -> None:
    sample, subject = bench.samples[0], bench.subjects[0]
    clean = decide(subject, bench.forest, sample.pixels)
    own = replace(sample, leaf=clean["leaf"].node)
    looks = list(watch(subject, own, clean, Wish(forest=bench.forest, level="leaf", eps=1.0, steps=12)))
    first = next(look.step for look in looks if look.achieved)
    assert looks[-1].found > first
    assert {look.first for look in looks[first:]} == {first}
    assert all(look.first is None for look in looks[:first])


def test_an_aim_above_the_leaves_is_reached_by_any_leaf_below_it(bench: Bench) -> None:
    forest, sample = bench.forest, bench.samples[0]
    food = forest.names.index("food")
    wish = Wish(forest=forest, level="leaf", towards=food, eps=1.0, steps=30)
    assert wish.target == tuple(forest.tree("kind").leaves_below(food))
    subject = bench.subjects[0]
    clean = decide(subject, forest, sample.pixels)
    *_, last = watch(subject, sample, clean, wish)
    assert last.achieved
    after = int(last.scores.at(forest.leaf_cut)[0].argmax())
    assert after in forest.tree("kind").leaves_below(food)


def test_goals_leave_the_truth_or_what_the_model_said(bench: Bench, unlabelled: Sample) -> None:
    subject, forest = bench.subjects[1], bench.forest
    clean = decide(subject, forest, unlabelled.pixels)
    wish = Wish(forest=forest, level="kind/1", eps=0.1, steps=1)
    cut = forest.find_cut("kind/1")
    assert wish.goal(unlabelled, clean, CPU).truth["kind/1"].tolist() == [cut.nodes.index(clean["kind/1"].node)]
    labelled = wish.goal(bench.samples[2], clean, CPU)
    assert labelled.truth["kind/1"].tolist() == [cut.of_leaf[2]]
    objective = labelled.objective("margin")
    scores = subject.model(unlabelled.pixels[None])
    assert torch.equal(objective(scores), Margin(cut, torch.tensor([2]))(scores))
    everything = replace(wish, level=ALL).goal(bench.samples[2], clean, CPU).objective(None)
    each = torch.stack([CrossEntropy(cut, torch.tensor([2]))(scores) for cut in forest.cuts()])
    assert torch.allclose(everything(scores), each.mean(0))


def test_aims_hold_every_node_but_the_right_one(two_trees: Forest) -> None:
    truth = truth_of(two_trees, 0)  # a dog
    at_level = aims(two_trees, "kind", "kind/2", truth)
    assert at_level == [("food", two_trees.names.index("food"))]
    at_leaf = dict(aims(two_trees, "kind", "leaf", truth))
    assert list(at_leaf)[:4] == ["any food", "any bird", "any baked", "any fruit"]
    assert "any animal" not in at_leaf
    assert "any mammal" not in at_leaf
    assert {name for name in at_leaf if not name.startswith("any ")} == set(two_trees.leaves) - {"dog"}
    assert len(aims(two_trees, "kind", "leaf", None)) == 9 + 6
    assert aims(two_trees, "kind", ALL, truth) == []
    for _, node in aims(two_trees, "home", "leaf", truth):
        Wish(forest=two_trees, level="leaf", towards=node, eps=0.1, steps=1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"eps": 4.0}, "write 4/255, not 4"),
        ({"steps": 0}, "the attack has 0 steps; it may have 1 to 100"),
        ({"steps": 101}, "the attack has 101 steps"),
        ({"level": "kind/9"}, "there is no cut 'kind/9'"),
        ({"level": "all", "towards": 3}, "choose one level to aim"),
        ({"level": "kind/2", "towards": 3}, "level kind/2 has no node 3"),
        ({"level": "leaf", "towards": 999}, "level leaf has no node 999"),
    ],
)
def test_wishes_that_cannot_be_granted(two_trees: Forest, changes: dict[str, object], message: str) -> None:
    values: dict[str, object] = {"forest": two_trees, "level": "leaf", "eps": 4 / 255, "steps": 5}
    with pytest.raises(ValueError, match=message):
        Wish(**(values | changes))  # type: ignore[arg-type]


def test_decisions_are_the_largest_scores_of_each_level(bench: Bench) -> None:
    subject, forest, pixels = bench.subjects[1], bench.forest, bench.samples[0].pixels
    found = decide(subject, forest, pixels)
    nodes = subject.model(pixels[None]).nodes[0]
    for cut in forest.cuts():
        best = max(cut.nodes, key=lambda node: float(nodes[node]))
        share = 1 / sum(float((nodes[node] - nodes[best]).exp()) for node in cut.nodes)
        assert found[cut.label].node == best
        assert found[cut.label].score == pytest.approx(share, rel=1e-5)
    path = path_of(found, forest, "home")
    assert path == tuple(found[cut.label].node for cut in levels_of(forest, "home"))
    assert len(path) == 4


def test_scores_that_are_not_finite_are_refused(bench: Bench) -> None:
    class Broken(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))

        def forward(self, images: torch.Tensor) -> object:
            scores = bench.subjects[0].model(images)
            return scores._replace(nodes=scores.nodes * torch.nan)

    with pytest.raises(ValueError, match="the model 'broken' gave scores that are not finite"):
        decide(Subject("broken", Broken()), bench.forest, bench.samples[0].pixels)  # type: ignore[arg-type]
