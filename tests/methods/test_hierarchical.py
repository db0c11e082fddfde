"""The hierarchical objective against slow loops over explicit paths, with independent distances and midpoints."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from robustree.attacks import PGD, Threat
from robustree.geometry import Euclidean, Poincare, Space, Sphere, lorentz
from robustree.methods import Adversarial, Context, Hierarchical
from robustree.methods.hierarchical import Alignment, Parents
from robustree.methods.lineage import Negatives
from robustree.objectives import CrossEntropy
from robustree.taxonomy import Forest, build_forest
from robustree.tree_model import Depths, Head, Scores, TreeModel

LEAVES = [0, 3, 7, 0, 8, 2, 4]
SCALE = 3.0
SPACES = [Poincare(curvature=1.5), Euclidean(), Sphere()]
MakeScores = Callable[[Space, float], Scores]
MakeContext = Callable[..., Context]
MakeAdversarial = Callable[[Context, int], Adversarial]


def far(space: Space, x: Tensor, y: Tensor) -> float:
    if isinstance(space, Poincare):
        r = space.curvature
        return lorentz.distance(lorentz.lift(x, curvature=r), lorentz.lift(y, curvature=r), curvature=r).item()
    if isinstance(space, Euclidean):
        return math.dist(x.tolist(), y.tolist())
    return 1 - (x @ y / (x.norm() * y.norm())).item()


def middle(space: Space, points: list[Tensor]) -> Tensor:
    stack = torch.stack(points)
    if isinstance(space, Poincare):
        ones = torch.ones(1, len(points))
        centre = lorentz.centroid(lorentz.lift(stack, curvature=space.curvature), ones, curvature=space.curvature)
        return lorentz.drop(centre, curvature=space.curvature)[0]
    return (stack if isinstance(space, Euclidean) else stack / stack.norm(dim=1, keepdim=True)).mean(0)


def deep(space: Space, x: Tensor) -> float:
    return x.norm().item() * (2 if isinstance(space, Poincare) else 1)


@dataclass
class Slow:
    """One tree of a batch, by loops: `generations[l]` maps a node to its point and its images; 0 holds the images."""

    forest: Forest
    tree: str
    space: Space
    scores: Scores

    def __post_init__(self) -> None:
        self.paths = [self.forest.path(self.tree, leaf) for leaf in range(self.forest.leaf_count)]
        self.top = len(self.paths[0]) - 1
        self.generations = [{-1 - i: (self.scores.points[i], [i]) for i in range(len(LEAVES))}]
        self.families: list[tuple[Tensor, Tensor]] = []
        for level in range(1, self.top + 1):
            below, above = self.generations[-1], {}
            for node in sorted({self.paths[leaf][level] for leaf in LEAVES}):
                children = [m for m in below.values() if self.paths[LEAVES[m[1][0]]][level] == node]
                point = middle(self.space, [child for child, _ in children])
                above[node] = (point, [i for _, images in children for i in images])
                self.families += [(point, child) for child, _ in children]
            self.generations.append(above)

    def surprise(self, point: Tensor, level: int, node: int, negatives: Negatives) -> float:
        """-log softmax(-scale * distance) of the node among its level's nodes and its hierarchical negatives."""
        rivals = {path[level] for path in self.paths}
        for side, names in ((level - 1, ("lower", "both")), (level + 1, ("upper", "both"))):
            if negatives in names and 0 <= side <= self.top:
                own = {path[side] for path in self.paths if path[level] == node}
                rivals |= {path[side] for path in self.paths} - own
        logits = {n: -SCALE * far(self.space, point, self.scores.prototypes[n]) for n in rivals | {node}}
        return math.log(math.fsum(math.exp(z - logits[node]) for z in logits.values()))

    def alignment(self, parents: Parents, negatives: Negatives, linear: bool, only: int | None = None) -> Tensor:
        values = torch.zeros(len(LEAVES), dtype=torch.float64)
        for level in range(self.top + 1) if only is None else [only] if only <= self.top else []:
            weight = 1 - level / (self.top + 1) if linear else 1.0
            share = {"direct": (1, 0), "recursive": (0, 1), "both": (0.5, 0.5), "off": (0, 0)}[parents]
            share = (1, 0) if level == 0 else share
            for i, leaf in enumerate(LEAVES):
                node = self.paths[leaf][level]
                values[i] += weight * share[0] * self.surprise(self.scores.points[i], level, node, negatives)
                if share[1]:
                    point = self.generations[level][node][0]
                    values[i] += weight * share[1] * self.surprise(point, level, node, negatives)
        return values

    def label_gap(self, margin: float) -> float:
        pairs = {(up, low) for path in self.paths for low, up in pairwise(path) if up != low}
        text = self.scores.prototypes
        gaps = [max(0, deep(self.space, text[up]) - deep(self.space, text[low]) + margin) for up, low in pairs]
        return math.fsum(gaps) / len(gaps)

    def image_gap(self, margin: float) -> float:
        gaps = [max(0, deep(self.space, up) - deep(self.space, low) + margin) for up, low in self.families]
        return math.fsum(gaps) / len(gaps)


def slow_trees(forest: Forest, space: Space, scores: Scores) -> list[Slow]:
    return [Slow(forest, tree.name, space, scores) for tree in forest.trees]


def aligned(forest: Forest, space: Space, parents: Parents, negatives: Negatives, linear: bool) -> Alignment:
    return Alignment(forest, Head(space=space, scale=SCALE), torch.tensor(LEAVES), parents, negatives, linear)


def given(forest: Forest, space: Space, scores: Scores) -> tuple[Context, Adversarial]:
    """A context that holds nothing but the given scores."""

    def never(images: Tensor) -> Scores:
        raise AssertionError("the hierarchical loss forwards nothing")

    images = torch.zeros(len(LEAVES), 3, 1, 1)
    context = Context(images, torch.tensor(LEAVES), forest, Head(space=space, scale=SCALE), never, never)
    return context, Adversarial(images, scores)


@pytest.mark.parametrize("space", SPACES, ids=lambda space: space.name)
@pytest.mark.parametrize("parents", get_args(Parents))
@pytest.mark.parametrize("negatives", get_args(Negatives))
def test_alignment_is_the_slow_loop(
    space: Space, parents: Parents, negatives: Negatives, two_trees: Forest, make_scores: MakeScores
) -> None:
    scores = make_scores(space, SCALE)
    slow = slow_trees(two_trees, space, scores)
    for linear in (True, False):
        made = aligned(two_trees, space, parents, negatives, linear)(scores)
        expected = torch.stack([tree.alignment(parents, negatives, linear) for tree in slow]).mean(0)
        assert torch.allclose(made, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("parents", get_args(Parents))
def test_one_attack_a_level_splits_the_universal_objective(
    parents: Parents, two_trees: Forest, make_scores: MakeScores
) -> None:
    space = Poincare(curvature=1.5)
    scores = make_scores(space, SCALE)
    context, made = given(two_trees, space, scores)
    split = Hierarchical(parents=parents, perturbation="per_level")
    (whole,) = Hierarchical(parents=parents, perturbation="universal").inner(context)
    parts = split.inner(context)
    assert len(parts) == (1 if parents == "off" else 4)  # levels 0..3; kind has no level 3
    assert torch.allclose(torch.stack([part(scores) for part in parts]).sum(0), whole(scores))
    for level, part in enumerate(parts):
        slow = [tree.alignment(parents, "both", True, only=level) for tree in slow_trees(two_trees, space, scores)]
        assert torch.allclose(part(scores), torch.stack(slow).mean(0), rtol=1e-6, atol=1e-9)
    loss, _ = split.loss(context, [made] * len(parts))
    assert torch.allclose(loss, Hierarchical(parents=parents).loss(context, [made])[0])


@pytest.mark.parametrize("parents", get_args(Parents))
def test_several_trees_are_the_mean_of_single_trees(
    parents: Parents, two_trees: Forest, make_scores: MakeScores
) -> None:
    space = Poincare(curvature=1.5)
    scores = make_scores(space, SCALE)
    method = Hierarchical(parents=parents, vic=0.7, gap_label=0.5, gap_image=0.3)
    context, made = given(two_trees, space, scores)
    whole, terms = method.loss(context, [made])
    singles = []
    for tree in two_trees.trees:
        alone = two_trees.select([tree.name])
        nodes = [two_trees.names.index(name) for name in alone.names]
        part = Scores(scores.points, scores.prototypes[nodes], scores.nodes[:, nodes])
        singles.append(method.loss(*[x if i == 0 else [x] for i, x in enumerate(given(alone, space, part))]))
    assert torch.allclose(whole, torch.stack([loss for loss, _ in singles]).mean())
    for name, value in terms.items():
        assert torch.allclose(value, torch.stack([other[name] for _, other in singles]).mean())


@pytest.mark.parametrize("space", SPACES, ids=lambda space: space.name)
@pytest.mark.parametrize("margin", [0.1, 0.8])
def test_vic_and_the_gaps_are_their_slow_loops(
    space: Space, margin: float, two_trees: Forest, make_scores: MakeScores
) -> None:
    scores = make_scores(space, SCALE)
    context, made = given(two_trees, space, scores)
    method = Hierarchical(vic=0.7, vic_bound=0.9, gap_label=0.5, gap_image=0.3, gap_margin=margin)
    loss, terms = method.loss(context, [made])
    slow = slow_trees(two_trees, space, scores)
    own = [far(space, scores.points[i], scores.prototypes[leaf]) for i, leaf in enumerate(LEAVES)]
    expected = {
        "alignment": torch.stack([tree.alignment("direct", "both", True) for tree in slow]).mean().item(),
        "vic": math.fsum(max(0.0, d - 0.9) for d in own) / len(own),
        "gap_label": math.fsum(tree.label_gap(margin) for tree in slow) / 2,
        "gap_image": math.fsum(tree.image_gap(margin) for tree in slow) / 2,
    }
    assert {name: value.item() for name, value in terms.items()} == pytest.approx(expected, rel=1e-6)
    total = expected["alignment"] + 0.7 * expected["vic"] + 0.5 * expected["gap_label"] + 0.3 * expected["gap_image"]
    assert loss.item() == pytest.approx(total, rel=1e-6)


@pytest.mark.parametrize("off", ["vic", "gap_label", "gap_image"])
def test_a_weight_of_0_switches_its_part_off(off: str, two_trees: Forest, make_scores: MakeScores) -> None:
    context, made = given(two_trees, Poincare(), make_scores(Poincare(), SCALE))
    weights = {"vic": 0.7, "gap_label": 0.5, "gap_image": 0.3}
    full, terms = Hierarchical(**weights).loss(context, [made])
    loss, kept = Hierarchical(**(weights | {off: 0.0})).loss(context, [made])
    assert set(terms) - set(kept) == {off} and terms[off] > 0
    assert torch.allclose(loss, full - weights[off] * terms[off])
    bare, alone = Hierarchical(vic=0, gap_label=0, gap_image=0).loss(context, [made])
    assert set(alone) == {"alignment"} and torch.equal(bare, alone["alignment"])


@pytest.mark.parametrize("parents", ["direct", "off"])
def test_direct_alignment_treats_each_image_alone(parents: Parents, two_trees: Forest, make_scores: MakeScores) -> None:
    scores = make_scores(Poincare(), SCALE)
    objective = aligned(two_trees, Poincare(), parents, "both", True)
    index = torch.tensor([5, 0, 2])
    assert torch.allclose(objective.take(index)(scores.take(index)), objective(scores)[index])


def test_it_is_achieved_where_every_level_that_it_reads_is_wrong(two_trees: Forest, make_scores: MakeScores) -> None:
    scores = make_scores(Poincare(), SCALE)
    whole = aligned(two_trees, Poincare(), "direct", "both", True)
    wrong = {cut.label: scores.at(cut).argmax(1) != torch.tensor(cut.of_leaf)[whole.leaves] for cut in two_trees.cuts()}
    assert torch.equal(whole.lead(scores) > 0, torch.stack(list(wrong.values())).all(0))
    second = torch.stack([values for label, values in wrong.items() if label.endswith("/2")]).all(0)
    assert torch.equal(replace(whole, only=2).lead(scores) > 0, second)


def test_recursive_parents_share_their_loss_among_their_images(two_trees: Forest, make_scores: MakeScores) -> None:
    scores = make_scores(Poincare(), SCALE)
    alone = two_trees.select(["kind"])
    part = scores._replace(prototypes=scores.prototypes[: len(alone.names)], nodes=scores.nodes[:, : len(alone.names)])
    whole = aligned(alone, Poincare(), "recursive", "both", True)
    values = Alignment(alone, whole.head, whole.leaves, "recursive", "both", True, only=2)(part)
    animal = torch.tensor([alone.path("kind", leaf)[2] == alone.names.index("animal") for leaf in LEAVES])
    assert values[animal].unique().numel() == values[~animal].unique().numel() == 1


def test_what_each_attack_makes_is_scored_by_its_own_objective(
    make_context: MakeContext, make_adversarial: MakeAdversarial
) -> None:
    context = make_context(Poincare())
    made = [make_adversarial(context, seed) for seed in range(4)]
    method = Hierarchical(perturbation="per_level", vic=0.5)
    loss, terms = method.loss(context, made)
    parts = [part(m.scores).mean() for part, m in zip(method.inner(context), made, strict=True)]
    assert torch.allclose(terms["alignment"], torch.stack(parts).sum())
    own = context.head.space.pairwise_distance(made[0].scores.points, made[0].scores.prototypes)
    assert torch.allclose(terms["vic"], (own[range(7), LEAVES] - 1).relu().mean(), rtol=1e-4)
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        method.loss(context, made[:1])
    leaf = Hierarchical(perturbation="leaf")
    (objective,) = leaf.inner(context)
    expected = CrossEntropy(context.forest.leaf_cut, context.leaves)(made[1].scores)
    assert torch.equal(objective(made[1].scores), expected)
    trained, _ = leaf.loss(context, [made[1]])
    assert torch.equal(trained, Hierarchical().loss(context, [made[1]])[0])  # only the attack differs
    assert loss > terms["alignment"]


@pytest.mark.parametrize("space", SPACES, ids=lambda space: space.name)
@pytest.mark.parametrize("parents", get_args(Parents))
@pytest.mark.parametrize("perturbation", ["universal", "leaf", "per_level"])
def test_a_step_gives_finite_gradients_everywhere(
    space: Space, parents: Parents, perturbation: Any, make_context: MakeContext
) -> None:
    context = make_context(space)
    tuned, method = context.tuned, Hierarchical(parents=parents, perturbation=perturbation)
    assert isinstance(tuned, TreeModel) and method.text_threat is not None
    inputs, threats = (context.images, tuned.text_shift()), (Threat(eps=1 / 255), method.text_threat)
    generator = torch.Generator().manual_seed(0)
    attack = PGD(steps=2, step_size=1.0)
    moved = [attack.joint(tuned, inputs, goal, threats, generator=generator) for goal in method.inner(context)]
    loss, terms = method.loss(context, [Adversarial(m[0], tuned(*m)) for m in moved])
    loss.backward()
    assert loss.isfinite() and set(terms) == {"alignment", "vic", "gap_label", "gap_image"}
    for name, parameter in tuned.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None and parameter.grad.isfinite().all(), name
            assert parameter.grad.abs().sum() > 0, name


def test_flags_say_what_is_trained_and_what_moves() -> None:
    assert Hierarchical().trains_text is True and Hierarchical(train_text=False).trains_text is False
    assert Hierarchical(text_eps=0).text_threat is None
    assert Hierarchical(text_eps=3e-4).text_threat == Threat(eps=3e-4, norm="linf", low=-math.inf, high=math.inf)


@pytest.mark.parametrize("name", ["vic", "gap_label", "gap_image", "text_eps"])
@pytest.mark.parametrize("bad", [-0.1, math.nan, math.inf])
def test_weights_that_are_no_weights_are_refused(name: str, bad: float) -> None:
    with pytest.raises(
        ValueError, match=rf"^{name} is {bad}; weights and radii are at least 0: 0 switches the part off"
    ):
        Hierarchical(**{name: bad})


@pytest.mark.parametrize("name", ["parents", "negatives", "perturbation"])
def test_unknown_options_are_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(ValueError, match=rf"^{name} is 'most'; \w+, \w+, .* are supported: choose one\.$"):
        Hierarchical(**{name: "most"})


def test_a_flat_label_set_is_refused() -> None:
    flat = build_forest(["dog", "cat"], [])
    scores = Scores(torch.zeros(7, 2), torch.zeros(2, 2), torch.zeros(7, 2))
    context, made = given(flat, Poincare(), scores)
    for use in (lambda: Hierarchical().inner(context), lambda: Hierarchical().loss(context, [made])):
        with pytest.raises(ValueError, match=r"^the forest has no tree; .*: give a label tree\.$"):
            use()


def test_the_gap_is_0_on_a_ladder_steeper_than_its_margin(make_context: MakeContext) -> None:
    # step 0 puts texts on a ladder whose rungs are 2 * 0.6 / (L + 1) deep, L = 3 and 2
    context = make_context(Poincare(), moved=0.0)
    made = Adversarial(context.images, context.tuned(context.images))
    for margin, is_zero in [(0.29, True), (0.31, False)]:
        _, terms = Hierarchical(gap_margin=margin).loss(context, [made])
        assert bool(terms["gap_label"] == 0) is is_zero
    assert context.head.depths == Depths(image=1.0, leaf=1.2, root=0.6, limit=3.0)
