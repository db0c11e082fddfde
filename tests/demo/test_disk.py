from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from xml.etree import ElementTree

import pytest
import torch

from robustree.demo.bench import Bench
from robustree.demo.decisions import decide
from robustree.demo.disk import distances, find_plane
from robustree.demo.disk_chart import build_disk, draw_disk
from robustree.geometry import Euclidean, Poincare, exp0
from robustree.taxonomy import TreeSource, build_forest
from robustree.tree_model import TreeModel


def test_the_plane_keeps_depths_and_directions_inside_it(bench: Bench) -> None:
    model = bench.subjects[1].model
    plane, marks = find_plane(model, bench.forest, "home")
    assert torch.allclose(plane.axes @ plane.axes.T, torch.eye(2), atol=1e-5)
    prototypes = model.prototypes()
    for mark in marks:
        ball = exp0(prototypes[mark.node][None], curvature=1.3) * math.sqrt(1.3)
        assert math.hypot(mark.x, mark.y) == pytest.approx(float(ball.norm()), rel=1e-5)
        origin = torch.zeros(1, prototypes.shape[1])
        true = Poincare(curvature=1.3).pairwise_distance(origin, prototypes[mark.node][None])
        assert mark.depth == pytest.approx(float(true), rel=1e-5)
    for angle in (0.3, 2.0, 4.5):
        flat = torch.tensor([[math.cos(angle), math.sin(angle)]])
        inside = flat @ plane.axes
        seen = plane.project(0.7 * inside, torch.zeros_like(inside))
        assert torch.allclose(seen, flat * math.tanh(0.7 * math.sqrt(1.3)), atol=1e-5)
    nowhere = plane.project(torch.zeros(1, len(plane.centre)), torch.zeros(1, len(plane.centre)))
    assert nowhere.tolist() == [[0.0, 0.0]]


def test_two_axes_hold_all_that_tells_three_texts_apart(make_tree_model: Callable[..., TreeModel]) -> None:
    groups = {f"group {g}": [f"leaf {g}{k}" for k in range(3)] for g in range(3)}
    leaves = [leaf for group in groups.values() for leaf in group]
    forest = build_forest(leaves, [TreeSource("three", groups)])
    plane, marks = find_plane(make_tree_model(Poincare(), forest=forest), forest, "three")
    assert plane.top_share == pytest.approx(1, abs=1e-5)
    assert 0 < plane.share < 1
    assert sorted(mark.node for mark in marks) == list(range(12))


def test_distances_are_those_that_decide(bench: Bench) -> None:
    model, image = bench.subjects[1].model, bench.samples[0].pixels[None]
    scores = model(image)
    found = torch.tensor(distances(model, scores.points[0], range(len(bench.forest.names))))
    assert torch.allclose(-model.head.scale * found, scores.nodes[0], rtol=1e-5)


def test_only_the_ball_has_a_disk(bench: Bench, make_tree_model: Callable[..., TreeModel]) -> None:
    for model, name in ((bench.subjects[0].model, "sphere"), (make_tree_model(Euclidean()), "euclidean")):
        with pytest.raises(ValueError, match=f"the head is {name}; only points of the Poincare ball have a disk"):
            find_plane(model, bench.forest, "kind")


def test_the_drawing_shows_every_text_and_the_way_of_the_image(bench: Bench) -> None:
    subject, sample = bench.subjects[1], bench.samples[0]
    disk = build_disk(subject, bench.forest, "kind")
    clean = decide(subject, bench.forest, sample.pixels)
    before = subject.model.image_points(sample.pixels[None])[0]
    still = ElementTree.fromstring(draw_disk(disk, [before], clean, None))
    kinds = [circle.get("class") for circle in still.iter("circle")]
    assert (kinds.count("leaf"), kinds.count("inner"), kinds.count("top")) == (9, 4, 2)
    assert [text.text for text in still.iter("text") if text.get("class") == "name"] == ["animal", "food"]
    assert kinds.count("image") == 0
    other = clean["leaf"].node + 1 if clean["leaf"].node < 8 else 0
    now = {**clean, "leaf": replace(clean["leaf"], node=other)}
    moved = ElementTree.fromstring(draw_disk(disk, [before, 1.2 * before, 1.4 * before], clean, now))
    assert [circle.get("class") for circle in moved.iter("circle")].count("chosen now") == 1
    (line,) = moved.iter("polyline")
    places = [tuple(map(float, place.split(","))) for place in (line.get("points") or "").split()]
    depths = [math.hypot(x - 280, y - 280) for x, y in places]
    scale = (280 - 6) / disk.reach
    wanted = [math.tanh(math.sqrt(1.3) * float(before.norm()) * by) * scale for by in (1, 1.2, 1.4)]
    assert depths == pytest.approx(wanted, abs=0.1)
    rows = [[cell.text for cell in row] for row in moved.iter("tr")]
    assert rows[0] == ["Level", "Chosen", "Clean", "Attacked"]
    assert [row[1] for row in rows if row[0] == "leaf"] == [
        bench.forest.names[clean["leaf"].node],
        bench.forest.names[other],
    ]
