"""The cascade: who is attacked by what, at any number of classes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from robustree.attacks import AutoAttack, ImageNoise, Threat
from robustree.objectives import EmbeddingShift, Margin
from robustree.taxonomy import Cut
from robustree.tree_model import Scores

THREAT = Threat(eps=0.06)


def level(nodes: int) -> Cut:
    return Cut("", 0, tuple(range(nodes)), tuple(range(nodes)))


def network(nodes: int, *, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Flatten(), nn.Linear(48, 32), nn.Tanh(), nn.Linear(32, nodes)).double()
    return net.requires_grad_(False)


def victim(net: nn.Module) -> Callable[[Tensor], Scores]:
    def f(x: Tensor) -> Scores:
        logits = net(x)
        return Scores(logits, logits, logits)

    return f


@pytest.fixture
def images() -> Tensor:
    return torch.rand(24, 3, 4, 4, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


def fresh(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


SMALL: dict[str, Any] = {"steps": 10, "queries": 30, "samples": 3}


@pytest.mark.parametrize("nodes", [2, 3, 4, 5, 9, 12])
@pytest.mark.parametrize("version", ["fast", "standard", "rand"])
def test_every_cascade_works_at_every_number_of_classes(nodes: int, version: Any, images: Tensor) -> None:
    net = network(nodes)
    truth = net(images).argmax(1)
    truth[:3] = (truth[:3] + 1) % nodes
    found = AutoAttack(version=version, **SMALL).run(
        victim(net), images, Margin(level(nodes), truth), THREAT, generator=fresh()
    )
    wrong = net(found.images).argmax(1) != truth
    assert THREAT.contains(found.images, images, tolerance=1e-12).all()
    assert ((found.stage >= 0) == wrong).all()
    assert found.stage[:3].tolist() == [0, 0, 0] and torch.equal(found.images[:3], images[:3])
    assert (found.stage[3:] != 0).all() and (found.stage > 0).any() and (found.stage == -1).any()


def test_the_cascade_for_random_models_judges_by_most_of_its_samples() -> None:
    """A model that is right in two answers of three, whatever the image: one answer would often say otherwise."""
    calls = []

    def f(x: Tensor) -> Scores:
        calls.append(len(x))
        right = float(len(calls) % 3 > 0)
        logits = torch.tensor([right, 1 - right]) + 0 * x.flatten(1)[:, :1]
        return Scores(logits, logits, logits)

    images = torch.rand(5, 3, 2, 2)
    found = AutoAttack(version="rand", steps=3, samples=3).run(
        f, images, Margin(level(2), torch.zeros(5).long()), THREAT, generator=fresh()
    )
    assert (found.stage == -1).all() and len(calls) % 3 == 0


def test_one_class_is_refused(images: Tensor) -> None:
    with pytest.raises(ValueError, match="the level under attack has none: leave out levels of one node"):
        AutoAttack(version="fast", **SMALL)(
            victim(network(1)), images, Margin(level(1), torch.zeros(24).long()), THREAT, generator=fresh()
        )


def test_an_objective_about_no_decision_is_refused(images: Tensor) -> None:
    with pytest.raises(ValueError, match=r"^autoattack-fast attacks a decision, and EmbeddingShift is about none: cho"):
        AutoAttack(version="fast")(
            victim(network(3)),
            images,
            EmbeddingShift(torch.zeros(24, 3)),  # type: ignore[arg-type]
            THREAT,
            generator=fresh(),
        )


def test_a_longer_cascade_never_breaks_fewer_and_leaves_the_broken_as_they_were(images: Tensor) -> None:
    net = network(12, seed=3)
    decision = Margin(level(12), net(images).argmax(1))
    fast, standard = (
        AutoAttack(version=version, **SMALL).run(victim(net), images, decision, Threat(eps=0.03), generator=fresh())
        for version in ("fast", "standard")
    )
    broken = fast.stage > 0
    assert torch.equal(fast.stage[broken], standard.stage[broken])
    assert torch.equal(fast.images[broken], standard.images[broken])
    assert (standard.stage[~broken] != 1).all() and (standard.stage[~broken] != 2).all()


def test_no_result_depends_on_the_batch_size_or_on_the_other_images(images: Tensor) -> None:
    net = network(6)
    decision = Margin(level(6), net(images).argmax(1))
    noise = ImageNoise(torch.arange(24) * 7 + 1)
    attack = AutoAttack(version="standard", **SMALL)
    whole = attack.run(victim(net), images, decision, THREAT, generator=noise)
    for batch_size in (1, 5, 24):
        again = attack.run(victim(net), images, decision, THREAT, generator=noise, batch_size=batch_size)
        assert torch.equal(again.stage, whole.stage)
        assert torch.allclose(again.images, whole.images, atol=1e-12)
    some = torch.tensor([20, 3, 11])
    part = attack.run(victim(net), images[some], decision.take(some), THREAT, generator=noise.take(some))
    assert torch.equal(part.stage, whole.stage[some])


def test_each_stage_meets_only_what_the_ones_before_left(images: Tensor) -> None:
    net, seen = network(4), []

    def f(x: Tensor) -> Scores:
        seen.append(len(x))
        return victim(net)(x)

    truth = net(images).argmax(1)
    attack = AutoAttack(version="fast", **SMALL)
    assert [stage.name for stage in attack.stages] == ["apgd-ce", "apgd-t"]
    found = attack.run(f, images, Margin(level(4), truth), THREAT, generator=fresh(), batch_size=6)
    assert max(seen) == 6 and seen[:4] == [6, 6, 6, 6]
    assert sum(seen) < 24 * (1 + 11 + 1 + 3 * 11)
    assert (found.stage == -1).sum() > 0


def test_an_attack_into_a_subtree_counts_only_when_it_gets_there(images: Tensor) -> None:
    net = network(6)
    truth = net(images).argmax(1)
    rare = tuple(truth.bincount(minlength=6).argsort()[2:4].tolist())
    wide = Threat(eps=0.1)
    decision = Margin(level(6), truth, towards=rare)
    found = AutoAttack(version="standard", **SMALL).run(victim(net), images, decision, wide, generator=fresh())
    inside = torch.isin(net(found.images).argmax(1), torch.tensor(rare))
    assert ((found.stage >= 0) == inside).all()
    assert (found.stage == 0).equal(torch.isin(truth, torch.tensor(rare)))
    assert (found.stage > 0).any() and (found.stage == -1).any()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"version": "quick"}, "version is 'quick'; fast, standard, rand are the cascades: choose one"),
        ({"steps": 0}, "AutoAttack has steps 0, .* all of them start at 1"),
        ({"targets": 0}, "targets 0"),
    ],
)
def test_impossible_cascades(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        AutoAttack(**options)
