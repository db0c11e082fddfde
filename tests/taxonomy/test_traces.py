from __future__ import annotations

import itertools
import math
import re
from xml.etree import ElementTree

import pytest

from robustree.taxonomy import Forest, Trace, TreeSource, build_forest, draw_tree
from robustree.taxonomy.drawing import layout
from robustree.taxonomy.traces import draw_trace

SVG = "{http://www.w3.org/2000/svg}"


def ragged() -> Forest:
    nested = {"animal": [{"mammal": ["dog", "cat"]}, "hen"], "food": ["pear", "tea"], "ball": ["ball"]}
    return build_forest(
        ("pear", "dog", "hen", "tea", "cat", "ball"),
        [TreeSource("kind", nested, levels=(("mammal",), tuple(nested)))],
    )


def dots(drawing: str, centre: float) -> list[list[tuple[float, float]]]:
    """The dots of every trace as (radius, angle clockwise from the top)."""
    found = []
    for group in ElementTree.fromstring(drawing).iter(f"{SVG}g"):
        places = [
            (float(dot.get("cx", "")) - centre, centre - float(dot.get("cy", ""))) for dot in group.iter(f"{SVG}circle")
        ]
        found.append([(math.hypot(x, y), math.atan2(x, y) % math.tau) for x, y in places])
    return found


def test_a_trace_has_a_dot_in_the_wedge_of_every_node() -> None:
    forest = ragged()
    wedges = {wedge.node: wedge for wedge in layout(forest, "kind")}
    path = forest.path("kind", 1)
    strange = (forest.path("kind", 3)[0], *forest.path("kind", 2)[1:])  # tea, then hen, then animal
    traces = [
        Trace(name="a < b", nodes=path, colour="var(--right)", dashed=True),
        Trace(name="strange", nodes=strange, colour="#a3163f"),
    ]
    drawing = draw_tree(forest, "kind", width=400, traces=traces)
    for nodes, places in zip((path, strange), dots(drawing, 200.0), strict=True):
        radii = [radius for radius, _ in places]
        assert radii == sorted(radii, reverse=True)
        assert len(places) == len(nodes) == 3
        for node, (_, angle) in zip(nodes, places, strict=True):
            assert wedges[node].start < angle < wedges[node].end
    titles = [group.findtext(f"{SVG}title") for group in ElementTree.fromstring(drawing).iter(f"{SVG}g")]
    assert titles == ["a < b", "strange"]
    assert drawing.count("stroke-dasharray") == 1
    assert drawing.count('stroke="var(--right)"') == 1 + 3  # the line and its three hollow dots


def test_only_wedges_that_a_trace_passes_keep_their_colour() -> None:
    forest = ragged()
    path = forest.path("kind", 4)
    faded = {}
    for wedge in ElementTree.fromstring(
        draw_tree(forest, "kind", traces=[Trace(name="cat", nodes=path, colour="red")])
    ).iter(f"{SVG}path"):
        faded[int(wedge.get("data-node", ""))] = wedge.get("fill-opacity") is not None
    assert {node for node, pale in faded.items() if not pale} == set(path)
    assert "fill-opacity" not in draw_tree(forest, "kind")


@pytest.mark.parametrize(("start", "end", "length"), [(0.2, 1.2, 1.0), (0.2, 6.0, 0.4832), (6.0, 0.2, 0.4832)])
def test_a_line_winds_the_shorter_way_around(start: float, end: float, length: float) -> None:
    trace = Trace(name="turn", nodes=(0, 1), colour="red")
    drawn = draw_trace(trace, [(50.0, start), (50.0, end)], 100.0, 3.0)
    (line,) = re.findall(r'points="([^"]+)"', drawn)
    points = [tuple(map(float, place.split(","))) for place in line.split()]
    assert all(math.hypot(x - 100, y - 100) == pytest.approx(50, abs=0.15) for x, y in points)
    walked = sum(math.dist(a, b) for a, b in itertools.pairwise(points))
    assert walked == pytest.approx(50 * length, rel=0.02)


@pytest.mark.parametrize("nodes", [(), (0,), (0, 0, 0), (99, 6, 7)])
def test_a_trace_that_does_not_name_a_node_of_every_level_is_refused(nodes: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"the trace 'odd' names the nodes .*; tree 'kind' has 3 levels"):
        draw_tree(ragged(), "kind", traces=[Trace(name="odd", nodes=nodes, colour="red")])
