"""Every check sees the mistake that it is there for, and an audit without mistakes raises none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from robustree.attacks import PGD, Threat
from robustree.auditing.checks import Check
from robustree.data import AuditImages
from robustree.geometry import Sphere
from robustree.taxonomy import Forest, Tree, TreeSource, build_forest
from robustree.tree_model import TreeModel

from .faults import (
    Guess,
    Idle,
    LastIterate,
    Straying,
    Wrapped,
    after,
    backwards,
    before,
    counting,
    dropping,
    named,
    normalise,
    only,
    pixels_of,
    purify,
    quantise,
    rewrite,
    root,
    rough,
    waved,
)
from .toy import FOREST, LEAVES, PLAN, Setting, draw_images, make_model, sound

MIXED = build_forest(LEAVES, [TreeSource("kind", {"a": [*LEAVES[::2]], "b": [*LEAVES[1::2]]}, cut_sizes=(6,))])
SINGLE = Forest((*LEAVES, "thing"), 12, (Tree("kind", (12,) * 12 + (-1,), ((12,) * 12,)),))


def model(change: Callable[[TreeModel], TreeModel], **more: Any) -> Callable[[], Setting]:
    return lambda: sound(subjects=named(change(make_model(Sphere()))), **more)


def plan(**changes: Any) -> Callable[[], Setting]:
    return lambda: sound(plan=replace(PLAN, **changes))


def pixels(change: Callable[..., Any], **more: Any) -> Callable[[], Setting]:
    return lambda: sound(images=pixels_of(draw_images(120, seed=2), change), **more)


def rows(change: Callable[..., Any]) -> Callable[[], Setting]:
    return lambda: sound(meddle=rewrite(change))


def images(change: Callable[..., Any]) -> Callable[[], Setting]:
    return lambda: sound(images=change(draw_images(120, seed=2)), audited=False)


def scale(factor: float) -> Callable[[TreeModel], TreeModel]:
    return lambda given: given.with_head(replace(given.head, scale=factor * given.head.scale)).eval()


def same_text(given: TreeModel) -> TreeModel:
    given.text_features[1] = given.text_features[0]
    return given


def shifted_texts(given: TreeModel) -> TreeModel:
    """Superclass texts in another order than the forest's nodes."""
    given.text_features[FOREST.leaf_count :] = given.text_features[FOREST.leaf_count :].roll(1, 0)
    return given


def every_twelfth(given: AuditImages) -> AuditImages:
    return AuditImages(given.pixels[::12], given.leaves[::12], given.ids[::12])


def mislabelled(row: dict[str, Any]) -> dict[str, Any]:
    return row | {"direct": dict.fromkeys(row["direct"], 0)}


FAULTS: dict[str, tuple[Callable[[], Setting], dict[str, str]]] = {
    "pixels from 0 to 255": (pixels(lambda x: x * 255, audited=False), {"S1": "fail"}),
    "pixels divided by 255 twice": (pixels(lambda x: x / 255, audited=False), {"S1": "fail"}),
    "pixels as bytes": (pixels(lambda x: (x * 255).byte(), audited=False), {"S1": "fail"}),
    "pixels normalised outside": (pixels(normalise, audited=False), {"S1": "fail"}),
    "eps divided by 255 twice": (plan(threat=Threat(eps=4 / 255 / 255)), {"S2": "fail"}),
    "eps that changes what is seen": (plan(threat=Threat(eps=0.5)), {"S2": "flag"}),
    "normalised twice": (model(lambda m: before(m, normalise)), {"S2": "fail"}),
    "images from 0 to 255 inside": (model(lambda m: before(m, lambda x: 255 * x)), {"S2": "fail"}),
    "dropout left on": (model(lambda m: dropping(m).train()), {"S3": "fail"}),
    "scores that are not finite": (
        model(lambda m: after(m, lambda s: s / (s - s.amin(1, keepdim=True))), audited=False),
        {"S4": "fail"},
    ),
    "probabilities": (model(lambda m: after(m, lambda s: s.softmax(1))), {"S4": "fail", "S24": "flag"}),
    "probabilities of leaves": (
        model(lambda m: after(m, lambda s: torch.cat([s[:, :12].softmax(1), s[:, 12:]], 1))),
        {"S4": "fail"},
    ),
    "logits times 100": (model(lambda m: after(m, lambda s: 100 * s)), {"S4": "flag", "S24": "flag"}),
    "logit scale 100 times as large": (model(scale(100)), {"S4": "flag"}),
    "quantised pixels": (model(lambda m: before(m, quantise)), {"S2": "flag", "S5": "fail"}),
    "gradients that are not finite": (model(lambda m: before(m, root)), {"S5": "fail"}),
    "gradients of the wrong sign": (
        model(lambda m: before(m, backwards)),
        {"S6": "fail", "S11": "fail", "S12": "flag", "S16": "flag", "S21": "fail"},
    ),
    "a rough loss": (model(lambda m: before(m, rough)), {"S2": "flag", "S15": "flag", "S16": "flag"}),
    "a wavy loss": (model(lambda m: before(m, waved)), {"S7": "fail", "S10": "flag"}),
    "too few steps": (plan(**only(PGD(steps=4, step_size=0.1))), {"S8": "flag", "S14": "flag"}),
    "too short a step": (plan(**only(PGD(steps=1, step_size=0.01))), {"S10": "fail"}),
    "an attack that guesses": (plan(threat=Threat(eps=0.25), **only(Guess())), {"S9": "flag", "S12": "fail"}),
    "the last iterate": (plan(**only(LastIterate())), {"S13": "fail"}),
    "the last iterate inside a wrapper": (plan(**only(Wrapped(PGD(best=False)))), {"S13": "fail"}),
    "a detached image": (model(lambda m: before(m, lambda x: x.detach()), audited=False), {"S16": "fail"}),
    "a detour over NumPy": (
        model(lambda m: before(m, lambda x: torch.from_numpy(x.numpy().copy())), audited=False),
        {"S16": "fail"},
    ),
    "a counter in a buffer": (model(counting), {"S17": "fail"}),
    "a defence that optimises": (model(lambda m: before(m, purify)), {"S17": "flag"}),
    "an attack that leaves the threat": (plan(**only(Straying())), {"S18": "fail"}),
    "rows of another model": (
        lambda: sound(checked=named(make_model(Sphere(), seed=5))),
        {"S18": "fail"},
    ),
    "a row lost": (rows(lambda r: r[:-1]), {"S19": "fail"}),
    "a row double": (rows(lambda r: [*r, r[-1]]), {"S19": "fail"}),
    "clean rows changed": (
        rows(lambda r: [mislabelled(row) if row["attack"] == "clean" else row for row in r]),
        {"S18": "fail"},
    ),
    "an attack that does nothing": (plan(**only(Idle())), {"S10": "fail", "S21": "fail", "S23": "pass"}),
    "a level of one node": (
        lambda: sound(forest=SINGLE, subjects=named(make_model(Sphere(), forest=SINGLE)), audited=False),
        {"S20": "flag"},
    ),
    "logits that hardly differ": (model(scale(1e-3)), {"S22": "fail"}),
    "another tree": (lambda: sound(forest=MIXED, audited=False), {"S23": "fail"}),
    "superclass texts in another order": (model(shifted_texts), {"S23": "flag", "S24": "flag"}),
    "one text for two classes": (model(same_text), {"S24": "flag"}),
    "few images": (lambda: sound(images=draw_images(24, seed=2)), {"S25": "flag"}),
    "a model without some rows": (
        rows(lambda r: [row for row in r if row["image"] != "drawn/7"]),
        {"S19": "fail", "S25": "fail"},
    ),
    "a picture twice": (
        images(lambda i: replace(i, pixels=torch.cat([i.pixels[:-12], i.pixels[:12]]))),
        {"S26": "flag"},
    ),
    "a picture with two labels": (
        images(lambda i: replace(i, pixels=torch.cat([i.pixels[:-1], i.pixels[:1]]))),
        {"S26": "fail"},
    ),
    "labels that do not exist": (images(lambda i: replace(i, leaves=i.leaves + 1)), {"S26": "fail"}),
    "superclasses without images": (images(every_twelfth), {"S26": "flag"}),
    "half precision": (model(lambda m: after(m, lambda s: s.half().float())), {"S27": "fail"}),
    "half precision kept": (model(lambda m: after(m, lambda s: s.bfloat16()), audited=False), {"S27": "fail"}),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_seen(name: str, check: Callable[..., list[Check]]) -> None:
    setting, expected = FAULTS[name]
    found = {one.id: one for one in check(setting())}
    assert {i: found[i].status for i in expected} == expected, "\n".join(
        f"{one.id} {one.status} {one.detail}" for one in found.values()
    )
