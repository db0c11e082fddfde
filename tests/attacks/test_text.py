from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from robustree.attacks import PGD, CharacterEdits, Threat
from robustree.geometry import Poincare
from robustree.models.encoder import VisionLanguageModel
from robustree.objectives import CrossEntropy, Margin
from robustree.tree_model import TEMPLATE, TreeModel, fill


def fresh(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def levenshtein(a: str, b: str) -> int:
    row = list(range(len(b) + 1))
    for i, left in enumerate(a, 1):
        row, above = [i], row
        for j, right in enumerate(b, 1):
            row.append(min(above[j] + 1, row[-1] + 1, above[j - 1] + (left != right)))
    return row[-1]


class Hashed:
    """A score without any structure: a fixed random number a spelling; keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def of(self, text: str) -> float:
        return random.Random(text).random()

    def __call__(self, names: Sequence[str], which: int, candidates: Sequence[str]) -> Tensor:
        self.asked += candidates
        return torch.tensor([self.of(text) for text in candidates], dtype=torch.float64)


def whole_ball(name: str, alphabet: str, edits: int) -> set[str]:
    """All spellings within the distance, by measuring every string over the alphabet and the name's own letters."""
    letters = sorted(set(alphabet + name))
    strings = (
        "".join(letters_)
        for length in range(max(1, len(name) - edits), len(name) + edits + 1)
        for letters_ in product(letters, repeat=length)
    )
    new = lambda text: all(letter in alphabet or letter in name for letter in text)  # noqa: E731
    return {
        text
        for text in strings
        if new(text) and text == text.strip() and "  " not in text and levenshtein(name, text) <= edits
    }


@pytest.mark.parametrize("name", ["a", "ab", "bab", "b a", "aabb", "b ab"])
def test_one_edit_is_the_exact_worst_of_the_whole_ball(name: str) -> None:
    ball, score = whole_ball(name, "ab ", 1), Hashed()
    made = CharacterEdits(alphabet="ab ").worst([name], 0, score, generator=fresh())
    assert made == max(ball, key=score.of)
    assert set(score.asked) == ball and len(score.asked) == len(ball)  # each spelling was asked for once


@pytest.mark.parametrize("edits", [1, 2, 3])
@pytest.mark.parametrize("budget", [6, 40, 10_000])
def test_spellings_stay_in_the_ball_and_the_budget_and_never_get_better(edits: int, budget: int) -> None:
    attack = CharacterEdits(edits=edits, budget=budget)
    for name in ["dog", "hot dog", "sea lion pup", "ox"]:
        score = Hashed()
        made = attack.worst(["cat", name], 1, score, generator=fresh())
        assert made == max(score.asked, key=score.of) and score.of(made) >= score.of(name)
        assert len(score.asked) == len(set(score.asked)) <= budget + 1  # the name itself is asked for as well
        for text in score.asked:
            assert levenshtein(name, text) <= edits and text == " ".join(text.split(" ")) and text.strip()
            assert text == name or set(text) - set(name) <= set(attack.alphabet)


def test_edits_add_up_and_a_swap_is_two_of_them() -> None:
    many = lambda names, which, texts: torch.tensor([float(t.count("z")) for t in texts])  # noqa: E731
    made = [CharacterEdits(edits=n).worst(["hare"], 0, many, generator=fresh()).count("z") for n in (1, 2, 3)]
    assert made == [1, 2, 3]
    swapped = lambda names, which, texts: torch.tensor([float(t == "haer") for t in texts])  # noqa: E731
    assert CharacterEdits(edits=1).worst(["hare"], 0, swapped, generator=fresh()) == "hare"
    assert CharacterEdits(edits=2).worst(["hare"], 0, swapped, generator=fresh()) == "haer"
    # after a first edit that helps, two more make the swap
    both = lambda names, which, texts: torch.tensor([t.count("z") + 9.0 * ("er" in t) for t in texts])  # noqa: E731
    made = CharacterEdits(edits=3, budget=3000).worst(["hare"], 0, both, generator=fresh())
    assert "er" in made and "z" in made and levenshtein("hare", made) <= 3


def test_with_a_small_budget_positions_are_screened() -> None:
    # any change at one of the places helps a little, "q" there helps most: screening finds the place, then the letter
    name, place = "photographic equipment", 11

    def score(names: Sequence[str], which: int, texts: Sequence[str]) -> Tensor:
        here = [text[:place] == name[:place] and text[place + 1 :] == name[place + 1 :] for text in texts]
        return torch.tensor([h * (1.0 + (t[place : place + 1] == "q")) for h, t in zip(here, texts, strict=True)])

    full = (2 * len(name) + 1) * 27
    attack = CharacterEdits(budget=120)
    made = [attack.worst([name], 0, score, generator=fresh(seed)) for seed in range(5)]
    assert made == [name[:place] + "q" + name[place + 1 :]] * 5 and 10 * attack.budget < full


def test_names_are_edited_in_turn_and_each_search_sees_the_ones_before() -> None:
    seen: list[tuple[tuple[str, ...], int]] = []

    def score(names: Sequence[str], which: int, texts: Sequence[str]) -> Tensor:
        seen.append((tuple(names), which))
        return torch.tensor([float("z" in text) + 0.1 * (text[0] == "z") for text in texts])

    made = CharacterEdits()(["dog", "cat"], score, generator=fresh())
    assert all(name[0] == "z" for name in made)
    assert (("dog", "cat"), 0) in seen and ((made[0], "cat"), 1) in seen and (("dog", "cat"), 1) not in seen


def test_the_same_generator_gives_the_same_spellings_and_another_seed_others() -> None:
    names = ["photographic equipment", "grand piano", "sea lion"]
    made = [CharacterEdits(edits=2, budget=60)(names, Hashed(), generator=fresh(seed)) for seed in (0, 0, 1)]
    assert made[0] == made[1] != made[2]


def test_other_names_and_forbidden_words_are_never_proposed() -> None:
    score = Hashed()
    attack = CharacterEdits(alphabet="abcdefghijklmnopqrstuvwxyz", forbidden=frozenset({"bats", "rat"}))
    attack.worst(["bat", "cat", "cats"], 1, score, generator=fresh())
    assert "hat" in score.asked and not {"bat", "cats", "rat"} & set(score.asked)


def test_misspelt_class_names_lower_the_margins_of_a_model(
    make_tiny_clip: Callable[[int], VisionLanguageModel],
    make_tree_model: Callable[..., TreeModel],
    tiny_images: Callable[[int], Tensor],
) -> None:
    model, encode = make_tree_model(Poincare(1.0)).requires_grad_(False), make_tiny_clip(0).text_features
    forest, images = model.forest, tiny_images(5)
    leaf, others = 2, list(forest.names)
    with torch.no_grad():
        points = model.image_points(images)
        clean = model.prototypes()
        right = Margin(forest.leaf_cut, torch.full((5,), leaf))(model(images)).mean()

        def score(names: Sequence[str], which: int, texts: Sequence[str]) -> Tensor:
            features = encode(fill(TEMPLATE, texts))
            prototypes = model.text_projection(features) * (model.radii[which] / model.pretrained_norm[which])
            own = model.head.space.pairwise_distance(points, prototypes)
            rest = model.head.space.pairwise_distance(points, clean[: forest.leaf_count])
            rest[:, which] = math.inf
            return (own - rest.amin(1, keepdim=True)).mean(0) * model.head.scale

        made = CharacterEdits(budget=60).worst(others, leaf, score, generator=fresh())
        worse = score(others, leaf, [others[leaf], made])
    assert float(worse[0]) == pytest.approx(float(right), rel=1e-3) and worse[1] > worse[0]
    assert levenshtein(made, others[leaf]) == 1


def test_text_features_alone_are_attacked_by_the_joint_ascent_on_one_input(
    make_tree_model: Callable[..., TreeModel], tiny_images: Callable[[int], Tensor]
) -> None:
    # images fixed, one shift of all node texts for all images: PGD does it as it is
    model, images = make_tree_model(Poincare(1.0)).requires_grad_(False), tiny_images(6)
    goal = CrossEntropy(model.forest.leaf_cut, torch.arange(6))
    threat = Threat(eps=0.05, low=-math.inf, high=math.inf)
    (shift,) = PGD(steps=20, step_size=0.1, random_start=False).joint(
        lambda moved: model(images, moved), [model.text_shift()], goal, [threat], generator=fresh()
    )
    assert threat.contains(shift, torch.zeros_like(shift)).all() and shift.shape == model.text_features.shape
    first = model.text_shift().requires_grad_(True)
    before = goal(model(images, first)).sum()
    (slope,) = torch.autograd.grad(before, first)
    random_loss = goal(model(images, threat.eps * torch.randn(shift.shape, generator=fresh()).sign())).sum()
    after = goal(model(images, shift)).sum()
    assert after > before and after > random_loss
    assert float(after - before.detach()) > 0.5 * threat.eps * float(slope.abs().sum())


@pytest.mark.parametrize("options", [{"edits": 0}, {"budget": 1}, {"edits": 3, "budget": 5}])
def test_impossible_searches_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"^CharacterEdits has edits .* and the budget at 2 candidates an edit\.$"):
        CharacterEdits(**options)


def test_an_empty_alphabet_a_missing_name_and_broken_scores_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^CharacterEdits has an empty alphabet; "):
        CharacterEdits(alphabet="")
    attack = CharacterEdits()
    assert attack.name == "characters-1"
    with pytest.raises(ValueError, match=r"^which is 1; there are 1 names: give a number from 0\.$"):
        attack.worst(["dog"], 1, Hashed(), generator=fresh())
    for broken in (lambda n, w, texts: torch.zeros(3), lambda n, w, texts: torch.full((len(texts),), math.nan)):
        with pytest.raises(ValueError, match=r"^the score of 1 spellings of 'dog' .* one finite number a spelling\.$"):
            attack.worst(["dog"], 0, broken, generator=fresh())
