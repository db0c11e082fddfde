from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from robustree.attacks import PGD, Threat
from robustree.demo.attacking import noise_of
from robustree.demo.bench import Bench, Sample
from robustree.demo.decisions import decide
from robustree.demo.eps_chart import draw_falls, reading
from robustree.demo.eps_sweep import GRID, Fall, sweep
from robustree.objectives import Margin
from tests.auditing.page import parsed


def test_levels_fall_where_an_attack_of_their_own_breaks_them(bench: Bench) -> None:
    sample = bench.samples[1]
    falls = list(sweep(bench, sample, "kind"))
    assert [(fall.level, fall.subject) for fall in falls] == [
        (level, number) for level in ("kind/2", "kind/1", "leaf") for number in range(2)
    ]
    assert {fall.eps for fall in falls} <= {0.0, None, *GRID}
    for fall in falls:
        cut, model = bench.forest.find_cut(fall.level), bench.subjects[fall.subject].model
        objective = Margin(cut, torch.tensor([sample.leaf]))
        image = sample.pixels[None]
        wrong = bool(objective.lead(model(image)) > 0)
        assert (fall.eps == 0) == wrong
        if not wrong and fall.eps is not None:
            longer = PGD(steps=60, restarts=3, stop=True)
            noise = noise_of("another start", torch.device("cpu"))
            made = longer(model, image, objective, Threat(eps=fall.eps), generator=noise)
            assert bool(objective.lead(model(made)) > 0)


def test_an_image_without_a_label_is_right_before_every_attack(bench: Bench, unlabelled: Sample) -> None:
    assert all(fall.eps != 0 for fall in sweep(bench, unlabelled, "home"))
    said = decide(bench.subjects[0], bench.forest, unlabelled.pixels)["leaf"].node
    named = list(sweep(replace(bench, subjects=bench.subjects[:1]), replace(unlabelled, leaf=said), "kind"))
    free = list(sweep(replace(bench, subjects=bench.subjects[:1]), unlabelled, "kind"))
    assert named[-1] == free[-1]  # at the leaf both mean the same


FALLS = [
    Fall(subject=0, level="kind/1", eps=1 / 255),
    Fall(subject=1, level="kind/1", eps=None),
    Fall(subject=0, level="leaf", eps=0.0),
    Fall(subject=1, level="leaf", eps=4 / 255),
]


@pytest.mark.parametrize(
    ("eps", "plain", "deep"), [(0.0, 1, 2), (0.5 / 255, 1, 2), (1 / 255, 0, 2), (4 / 255, 0, 1), (16 / 255, 0, 1)]
)
def test_a_level_stands_below_the_eps_at_which_it_falls(bench: Bench, eps: float, plain: int, deep: int) -> None:
    said = reading(FALLS, bench.subjects, eps)
    assert said.endswith(f"plain (cosine) {plain} of 2, deep (hyperbolic) {deep} of 2.")
    assert draw_falls(FALLS, bench.subjects, eps).count(" fallen") == 4 - plain - deep


def test_the_chart_draws_each_level_of_each_model(bench: Bench) -> None:
    page = parsed(draw_falls(FALLS, bench.subjects, 4 / 255))
    said = [found["aria-label"] for tag, found in page.seen if tag == "svg"]
    assert said == [
        "plain (cosine) at kind/1: falls at 1/255",
        "deep (hyperbolic) at kind/1: stands at 16/255",
        "plain (cosine) at leaf: wrong before",
        "deep (hyperbolic) at leaf: falls at 4/255",
    ]
    bars = [found["width"] for tag, found in page.seen if tag == "rect"]
    assert bars == ["25.00%", "100.00%", "50.00%"]  # the square root of eps; nothing where it was wrong before
    here = [found["x1"] for tag, found in page.seen if tag == "line" and found["class"] == "here"]
    assert here == ["50.00%"] * 4
