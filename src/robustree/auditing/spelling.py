"""The text side of an audit: for each name of a level, the misspelling that costs most of the level's decisions.

Image points are computed once. A candidate moves one node's prompt, so only that column of the logits changes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import NamedTuple

import torch
from torch import Tensor

from robustree.attacks import CharacterEdits
from robustree.auditing.audit import Status
from robustree.auditing.statistics import wilson
from robustree.checkpoint import device_of
from robustree.data import Pixels, batches
from robustree.objectives import targets
from robustree.taxonomy import Cut
from robustree.tree_model import TreeModel, columns, fill

Encode = Callable[[Sequence[str]], Tensor]
"""Prompts -> text features (N, H) before the projection, as `VisionLanguageModel.text_features`."""


class Tally(NamedTuple):
    """`right` of `images` decisions are right."""

    right: int
    images: int

    @property
    def accuracy(self) -> float | None:
        """The rate in [0, 1]; None without images."""
        return self.right / self.images if self.images else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % Wilson interval of the rate; None without images."""
        return wilson(self.right, self.images) if self.images else None


class Outcome(NamedTuple):
    """The decisions on the `own` images of a node, and on all images of the `level`."""

    own: Tally
    level: Tally


@dataclass(frozen=True)
class Spelling:
    """What the worst spelling of one name does while every other name is spelled as it should be.

    `scored` of the `candidates` that the attack may choose from were tried, the name itself not counted; with one edit
    and scored = candidates, `worst` is the exact maximum."""

    node: int
    name: str
    worst: str
    before: Outcome
    after: Outcome
    scored: int
    candidates: int

    @property
    def loss(self) -> int:
        """How many decisions of the level it costs."""
        return self.before.level.right - self.after.level.right

    @property
    def share(self) -> float:
        """The share of the candidates that were scored."""
        return self.scored / self.candidates if self.candidates else 1.0


@torch.no_grad()
def worst_spellings(
    model: TreeModel,
    text_features: Encode,
    images: Pixels,
    leaves: Tensor,
    cut: Cut,
    attack: CharacterEdits,
    *,
    template: str,
    batch_size: int,
    generator: torch.Generator,
    report: Callable[[Status], None] = lambda status: None,
) -> list[Spelling]:
    """The worst spelling of each name of a level, in the order of `cut.nodes`.

    A candidate's score is w + (1 + m / (1 + |m|)) / 2: w images of the level decided wrongly, plus a number in (0, 1)
    that grows with the mean m over all images of (best wrong logit - true logit). So w decides, and m among equals.
    No name of the forest is proposed, nor its lower-case form. `images` (B, 3, H, W) in [0, 1] of `leaves` (B,);
    `batch_size` images or prompts are encoded at a time. `report` counts spellings, `budget` + 1 a name at most.

    Raises:
        ValueError: no images, a level of one name, a batch size below 1, other prompts than the model's, or scores
            that are not finite.
    """
    if len(cut.nodes) < 2:
        raise ValueError(f"level {cut.label} has one name, so no decision can be wrong: give two classes or more.")
    names, each = model.forest.names, attack.budget + 1
    attack = replace(attack, forbidden=attack.forbidden | set(names) | {name.lower() for name in names})
    level = _read_level(model, images, leaves, cut, batch_size)
    _check_prompts(model, text_features, cut, template)
    total, found = each * len(cut.nodes), []
    for column, node in enumerate(cut.nodes):
        seen: dict[str, Outcome] = {}

        def score(_: Sequence[str], node: int, texts: Sequence[str], column: int = column, seen: dict = seen) -> Tensor:
            scores = []
            for start in range(0, len(texts), batch_size):
                batch = texts[start : start + batch_size]
                own = _column(model, level.points, text_features(fill(template, batch)), node)
                values, outcomes = _judge(level, own, column)
                scores.append(values)
                seen.update(zip(batch, outcomes, strict=True))
                report(Status(column * each + len(seen), total, 0, names[node]))
            return torch.cat(scores)

        worst = attack.worst(names, node, score, generator=generator)
        before = _judge(level, level.logits[:, [column]], column)[1][0]
        after = before if worst == names[node] else seen[worst]
        scored, candidates = len(seen) - 1, _candidates(names[node], attack)
        found.append(Spelling(node, names[node], worst, before, after, scored=scored, candidates=candidates))
        report(Status((column + 1) * each, total, len(images), names[node]))
    return found


def misspelled(model: TreeModel, spellings: Mapping[int, str], text_features: Encode, *, template: str) -> TreeModel:
    """The same weights (shared) and trees, the nodes {forest node id: spelling} having other prompts."""
    features = model.text_features.clone()
    features[list(spellings)] = text_features(fill(template, list(spellings.values()))).to(features)
    return TreeModel(
        model.image_encoder,
        model.text_projection,
        features,
        model.forest,
        model.head,
        image_norm=float(model.image_norm),
        pretrained_projection=model.pretrained_projection,
    )


@torch.no_grad()
def tally(model: TreeModel, images: Pixels, leaves: Tensor, cut: Cut, *, batch_size: int) -> Tally:
    """How many decisions of a level are right.

    Raises:
        ValueError: no images, a batch size below 1, or scores that are not finite.
    """
    level = _read_level(model, images, leaves, cut, batch_size)
    return Tally(int((level.logits.argmax(1) == level.truth).sum()), len(images))


def _candidates(name: str, attack: CharacterEdits) -> int:
    """How many allowed spellings but the name itself lie within `edits` insertions, replacements and deletions.

    Counted without listing them: beginnings with the same row of Levenshtein's table (their distances to all
    beginnings of the name) have the same endings.
    """
    first = tuple(min(j, attack.edits + 1) for j in range(len(name) + 1))
    letters = {letter for letter in (*attack.alphabet, *name) if letter == " " or not letter.isspace()}
    other = letters - {*name, " "}
    kinds = [(letter, 1) for letter in letters - other] + ([(min(other), len(other))] if other else [])
    beginnings, total = Counter({(first, True): 1}), 0
    for _ in range(len(name) + attack.edits):
        longer: Counter[tuple[tuple[int, ...], bool]] = Counter()
        for (row, after_space), count in beginnings.items():
            for letter, many in kinds:
                grown = _grown(row, name, letter, attack)
                if min(grown) <= attack.edits and not (after_space and letter == " "):
                    longer[grown, letter == " "] += count * many
        total += sum(n for (row, after_space), n in longer.items() if row[-1] <= attack.edits and not after_space)
        beginnings = longer
    for text in {name, *attack.forbidden}:
        if abs(len(text) - len(name)) <= attack.edits and text and text == " ".join(text.split()):
            total -= reduce(lambda row, letter: _grown(row, name, letter, attack), text, first)[-1] <= attack.edits
    return total


def _grown(row: tuple[int, ...], name: str, letter: str, attack: CharacterEdits) -> tuple[int, ...]:
    """The row of Levenshtein's table of a text with one more letter; edits + 1 stands for everything above."""
    far = attack.edits + 1
    new = 1 if letter in attack.alphabet else far
    grown = [min(row[0] + new, far)]
    for j, mine in enumerate(name):
        grown.append(min(grown[j] + 1, row[j + 1] + new, row[j] + (0 if mine == letter else new), far))
    return tuple(grown)


class _Level(NamedTuple):
    """Images at a level: points (B, D), logits (B, K) and true columns (B,)."""

    points: Tensor
    logits: Tensor
    truth: Tensor


def _read_level(model: TreeModel, images: Pixels, leaves: Tensor, cut: Cut, batch_size: int) -> _Level:
    if not len(images) or batch_size < 1:
        raise ValueError(f"{len(images)} images in batches of {batch_size} were given; both start at 1.")
    device = device_of(model)
    points = torch.cat([model.image_points(batch.to(device)) for batch in batches(images, batch_size)])
    prototypes = model.prototypes()[columns(cut.nodes, device)]
    return _Level(points, _logits(model, points, prototypes), targets(cut, leaves.to(device)))


def _logits(model: TreeModel, points: Tensor, prototypes: Tensor) -> Tensor:
    logits = -model.head.scale * model.head.space.pairwise_distance(points, prototypes)
    if not bool(logits.isfinite().all()):
        raise ValueError("the model gave scores that are not finite: check its weights.")
    return logits


def _check_prompts(model: TreeModel, text_features: Encode, cut: Cut, template: str) -> None:
    """Refuse prompts that are not the model's: a misspelt name would be compared with names in other prompts."""
    cached = model.text_features[columns(cut.nodes, model.text_features.device)]
    gap = text_features(fill(template, [model.forest.names[node] for node in cut.nodes])).to(cached) - cached
    if bool((gap.norm(dim=1) > 0.01 * cached.norm(dim=1)).any()):
        raise ValueError(f"the model has other text features than {template!r} gives: pass its own template.")


def _column(model: TreeModel, points: Tensor, features: Tensor, node: int) -> Tensor:
    """The logits (B, C) of C text features in the place of a node, as `TreeModel.forward` computes them."""
    features = features.to(model.text_features)
    norms = model.pretrained_projection(features).norm(dim=1)
    prototypes = model.text_projection(features).float() * (model.radii[node] / norms)[:, None]
    return _logits(model, points, prototypes)


def _judge(level: _Level, own: Tensor, column: int) -> tuple[Tensor, list[Outcome]]:
    """Scores (C,) of candidate logits (B, C) in a column of the level, and their outcomes."""
    truth, mine = level.truth[:, None], (level.truth == column)[:, None]
    others = level.logits.clone()
    others[:, column] = -torch.inf
    rest, place = others.max(dim=1, keepdim=True)
    chosen = (own > rest) | ((own == rest) & (column < place))  # at a tie the first column, as argmax decides
    right = torch.where(chosen, mine, place == truth)
    wrong = others.scatter(1, truth, -torch.inf).amax(dim=1, keepdim=True)
    margin = torch.where(mine, rest - own, torch.maximum(own, wrong) - level.logits.gather(1, truth))
    mean = margin.double().mean(dim=0)
    kept, own_kept = right.sum(dim=0), (right & mine).sum(dim=0)
    scores = len(own) - kept + (1 + mean / (1 + mean.abs())) / 2
    images, own_images = len(own), int(mine.sum())
    pairs = zip(own_kept.tolist(), kept.tolist(), strict=True)
    return scores, [Outcome(Tally(a, own_images), Tally(b, images)) for a, b in pairs]
