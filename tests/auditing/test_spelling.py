"""Misspelled names: every count against the whole model, over a forest that has the misspelled name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from robustree.attacks import CharacterEdits
from robustree.auditing.audit import Status
from robustree.auditing.spelling import (
    Outcome,
    Spelling,
    Tally,
    _candidates,
    _judge,
    _Level,
    misspelled,
    tally,
    worst_spellings,
)
from robustree.auditing.statistics import wilson
from robustree.geometry import Poincare, Space, Sphere
from robustree.models.encoder import VisionLanguageModel
from robustree.objectives import Margin
from robustree.taxonomy import Forest, TreeSource, build_forest
from robustree.tree_model import TEMPLATE, TreeModel

SPACES = [Sphere(), Poincare(1.0)]
COUNT = 20


class Bench:
    """The tiny model with its images, and a search on them."""

    def __init__(self, model: TreeModel, encode: Callable[[Sequence[str]], Tensor], images: Tensor):
        self.model, self.encode, self.images = model.requires_grad_(False), encode, images
        self.forest = model.forest
        self.leaves = model(images).at(self.forest.leaf_cut).argmax(1)
        self.leaves[::5] = (self.leaves[::5] + 1) % self.forest.leaf_count  # the model is right on four of five

    def search(self, label: str, attack: CharacterEdits, seed: int = 0, batch_size: int = 64) -> list[Spelling]:
        return worst_spellings(
            self.model,
            self.encode,
            self.images,
            self.leaves,
            self.forest.find_cut(label),
            attack,
            template=TEMPLATE,
            batch_size=batch_size,
            generator=torch.Generator().manual_seed(seed),
        )

    def named(self, spellings: dict[int, str]) -> TreeModel:
        """The model over a forest in which these nodes have other names."""
        names = tuple(spellings.get(node, name) for node, name in enumerate(self.forest.names))
        return self.model.over(replace(self.forest, names=names), self.encode)

    def measured(self, label: str, spellings: dict[int, str]) -> tuple[Tensor, float]:
        """(B,) right decisions and the mean margin of the whole model, without anything of the search."""
        model = self.named(spellings)
        cut, scores = model.forest.find_cut(label), model(self.images)
        right = scores.at(cut).argmax(1) == torch.tensor(cut.of_leaf)[self.leaves]
        return right, float(Margin(cut, self.leaves)(scores).mean())


@pytest.fixture
def bench(
    make_tree_model: Callable[..., TreeModel],
    make_tiny_clip: Callable[[int], VisionLanguageModel],
    tiny_images: Callable[[int], Tensor],
) -> Callable[..., Bench]:
    encode = make_tiny_clip(0).text_features
    return lambda space, **options: Bench(make_tree_model(space, **options), encode, tiny_images(COUNT))


def edited(texts: set[str], alphabet: str) -> set[str]:
    """Everything one edit away, whether allowed or not."""
    return {
        text[:i] + new + text[i + gone :]
        for text in texts
        for i in range(len(text) + 1)
        for gone in (0, 1)
        for new in ("", *alphabet)
    } | texts


def ball(name: str, alphabet: str, edits: int, barred: set[str]) -> set[str]:
    texts = {name}
    for _ in range(edits):
        texts = edited(texts, alphabet)
    return {text for text in texts - barred - {name} if text and text == " ".join(text.split())}


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("label", ["home/2", "kind/2"])
def test_each_spelling_is_the_worst_of_the_whole_ball(bench: Callable[..., Bench], space: Space, label: str) -> None:
    victim, alphabet = bench(space), "ae "
    found = victim.search(label, CharacterEdits(alphabet=alphabet))
    clean, _ = victim.measured(label, {})
    truth = torch.tensor(victim.forest.find_cut(label).of_leaf)[victim.leaves]
    assert [spelling.node for spelling in found] == list(victim.forest.find_cut(label).nodes)
    for column, spelling in enumerate(found):
        assert spelling.name == victim.forest.names[spelling.node]
        texts = ball(spelling.name, alphabet, 1, set(victim.forest.names))
        assert spelling.worst in texts | {spelling.name}
        assert spelling.scored == spelling.candidates == len(texts) and spelling.share == 1
        measured = {text: victim.measured(label, {spelling.node: text}) for text in texts | {spelling.name}}
        keys = {text: (-int(right.sum()), margin) for text, (right, margin) in measured.items()}
        fewest, margin = max(keys.values())
        assert keys[spelling.worst][0] == fewest
        assert keys[spelling.worst][1] == pytest.approx(margin, rel=1e-4, abs=1e-5)
        right, own = measured[spelling.worst][0], truth == column
        sizes = int(own.sum()), COUNT
        assert spelling.after == Outcome(*map(Tally, (int(right[own].sum()), int(right.sum())), sizes))
        assert spelling.before == Outcome(*map(Tally, (int(clean[own].sum()), int(clean.sum())), sizes))
        assert spelling.loss == int(clean.sum()) - int(right.sum()) >= 0
    assert any(spelling.loss > 0 for spelling in found)


@pytest.mark.parametrize("space", SPACES)
def test_all_names_at_once_are_the_forest_with_all_names_misspelled(bench: Callable[..., Bench], space: Space) -> None:
    victim = bench(space)
    cut = victim.forest.find_cut("leaf")
    worst = {spelling.node: spelling.worst for spelling in victim.search("leaf", CharacterEdits(budget=40))}
    assert len(set(worst.values())) == len(worst)
    together = misspelled(victim.model, worst, victim.encode, template=TEMPLATE)
    torch.testing.assert_close(together(victim.images), victim.named(worst)(victim.images))
    right = int(victim.measured("leaf", worst)[0].sum())
    assert tally(together, victim.images, victim.leaves, cut, batch_size=7) == (right, COUNT)
    assert tally(victim.model, victim.images, victim.leaves, cut, batch_size=7) == (16, COUNT) and right < 16
    assert victim.model.forest.names == victim.named({}).forest.names  # the model itself keeps its names
    alike = misspelled(victim.model, {0: "dug", 1: "dug"}, victim.encode, template=TEMPLATE)(victim.images)
    assert torch.equal(alike.nodes[:, 0], alike.nodes[:, 1])


def test_a_search_is_a_function_of_its_seed_and_does_not_depend_on_batches(bench: Callable[..., Bench]) -> None:
    victim, attack = bench(Poincare(1.0)), CharacterEdits(edits=2, budget=60)
    found = victim.search("kind/2", attack)
    assert found == victim.search("kind/2", attack)
    assert found != victim.search("kind/2", attack, seed=1)
    in_threes = victim.search("kind/2", CharacterEdits(alphabet="ae"), batch_size=3)
    for one, other in zip(in_threes, victim.search("kind/2", CharacterEdits(alphabet="ae")), strict=True):
        assert (one.after, one.scored) == (other.after, other.scored)


def test_the_budget_bounds_what_is_tried(bench: Callable[..., Bench]) -> None:
    for edits, budget in ((1, 12), (2, 50), (3, 90)):
        for spelling in bench(Sphere()).search("home/3", CharacterEdits(edits=edits, budget=budget)):
            assert 0 < spelling.scored <= budget and 0 < spelling.share < 1


@pytest.mark.parametrize("name", ["a", "ab", "bab", "b a", "aabb", "x-y", "Ab c"])
@pytest.mark.parametrize("edits", [1, 2, 3])
def test_candidates_are_counted_exactly(name: str, edits: int) -> None:
    for alphabet, barred in (("ab ", set()), ("ab ", {"ba", "a", "aab", " a", "far away from it"}), ("z", {"zab"})):
        attack = CharacterEdits(edits=edits, alphabet=alphabet, forbidden=frozenset(barred))
        assert _candidates(name, attack) == len(ball(name, alphabet, edits, barred))


def test_no_name_of_the_forest_is_tried(bench: Callable[..., Bench]) -> None:
    forest = build_forest(
        ("cat", "bat", "Rat", "cart"), [TreeSource("kind", {"cats": ["cat", "cart"], "b": ["bat", "Rat"]})]
    )
    victim, asked = bench(Sphere(), forest=forest), []
    plain = victim.encode
    victim.encode = lambda prompts: (asked.append([p.rsplit(" ", 1)[1] for p in prompts]), plain(prompts))[1]
    victim.search("leaf", CharacterEdits(alphabet="abcdefghijklmnopqrstuvwxyzR", forbidden=frozenset({"oat"})))
    tried = [text for batch in asked[1:] for text in batch]  # the first batch compares the names' own prompts
    assert "hat" in tried and not {"cats", "rat", "oat"} & set(tried)
    assert all(tried.count(name) == 1 for name in forest.leaves)


def test_at_a_tie_the_first_column_is_chosen_as_argmax_does() -> None:
    level = _Level(
        torch.zeros(4, 1), torch.tensor([[1.0, 2, 2], [3, 1, 0], [0, 5, 1], [1, 1, 9]]), torch.tensor([1, 0, 1, 2])
    )
    for column in range(3):
        own = torch.tensor([[2.0, 0, 9, 5], [3, 1, 5, 0], [1, 5, 9, 0], [9, 9, 1, 2]])
        scores, outcomes = _judge(level, own, column)
        for candidate in range(4):
            logits = level.logits.clone()
            logits[:, column] = own[:, candidate]
            right, mine = logits.argmax(1) == level.truth, level.truth == column
            assert outcomes[candidate] == ((int(right[mine].sum()), int(mine.sum())), (int(right.sum()), 4))
            assert 4 - int(right.sum()) < float(scores[candidate]) < 5 - int(right.sum())


def test_progress_ends_at_its_total(bench: Callable[..., Bench]) -> None:
    victim, told = bench(Sphere()), []
    cut = victim.forest.find_cut("home/2")
    worst_spellings(
        victim.model, victim.encode, victim.images, victim.leaves, cut, CharacterEdits(budget=30),
        template=TEMPLATE, batch_size=8, generator=torch.Generator(), report=told.append,
    )  # fmt: skip
    done, names = [status.done for status in told], len(cut.nodes)
    assert done == sorted(done)
    assert told[-1] == Status(names * 31, names * 31, COUNT, victim.forest.names[cut.nodes[-1]])
    assert sum(status.images for status in told) == COUNT * names


def test_a_tally_has_no_accuracy_without_images() -> None:
    assert (Tally(3, 4).accuracy, Tally(3, 4).interval) == (0.75, wilson(3, 4))
    assert (Tally(0, 0).accuracy, Tally(0, 0).interval) == (None, None)


def test_refusals(bench: Callable[..., Bench], two_trees: Forest) -> None:
    victim, attack = bench(Sphere()), CharacterEdits()
    with pytest.raises(ValueError, match=r"^20 images in batches of 0 were given; both start at 1\.$"):
        victim.search("leaf", attack, batch_size=0)
    plain = victim.encode
    victim.encode = lambda prompts: plain([prompt + "!" for prompt in prompts])
    with pytest.raises(ValueError, match=r"^the model has other text features than .* gives: pass its own template\.$"):
        victim.search("leaf", attack)
    victim.encode = plain
    victim.images, victim.leaves = victim.images[:0], victim.leaves[:0]
    with pytest.raises(ValueError, match=r"^0 images in batches of 64"):
        victim.search("leaf", attack)
    single = bench(Sphere(), forest=Forest(("cat",), 1, ()))
    with pytest.raises(ValueError, match=r"^level leaf has one name, so no decision can be wrong: give two classes or"):
        single.search("leaf", attack)
    broken = bench(Sphere(), forest=Forest(("cat", "owl"), 2, ()))
    own = {f"This is a photo of a {name}" for name in ("cat", "owl")}
    broken.encode = lambda prompts: plain(prompts) * torch.tensor([[1.0 if p in own else torch.nan] for p in prompts])
    with pytest.raises(ValueError, match=r"^the model gave scores that are not finite: check its weights\.$"):
        broken.search("leaf", attack)
