from __future__ import annotations

import math
import re
from itertools import pairwise
from xml.etree import ElementTree

import pytest

from robustree.taxonomy import Forest, TreeSource, build_forest, draw_tree, outline
from robustree.taxonomy.colours import NEUTRAL, group, scale, text_on
from robustree.taxonomy.drawing import layout
from robustree.taxonomy.svg import broken

SVG = "{http://www.w3.org/2000/svg}"


def small() -> Forest:
    nested = {
        "animal": [{"mammal": ["dog", "cat"]}, "hen"],
        "food & <drink>": ["pear", "tea"],
        "ball": ["ball"],
    }
    return build_forest(
        ("pear", "dog", "hen", "tea", "cat", "ball"),
        [TreeSource("kind", nested, levels=(("mammal",), tuple(nested)))],
    )


def large(count: int = 262) -> Forest:
    nested = {
        f"group {g}": {
            f"part {g}.{p}": [f"leaf {k}" for k in range(count) if k % 6 == g and k % 4 == p] for p in range(4)
        }
        for g in range(6)
    }
    kept = {g: {p: leaves for p, leaves in parts.items() if leaves} for g, parts in nested.items()}
    return build_forest([f"leaf {k}" for k in range(count)], [TreeSource("large", kept)])


def level_nodes(forest: Forest, name: str) -> set[int]:
    return {node for leaf in range(forest.leaf_count) for node in forest.path(name, leaf)}


@pytest.mark.parametrize(("forest", "name"), [(small(), "kind"), (large(), "large"), (large(3000), "large")])
@pytest.mark.parametrize("width", [200, 900])
def test_a_drawing_is_xml_with_a_wedge_and_a_tooltip_for_every_node(forest: Forest, name: str, width: int) -> None:
    nodes = level_nodes(forest, name)
    values = {node: (node % 11) / 10 for node in nodes if node % 7}
    text = draw_tree(forest, name, colour=values, width=width, highlight=[min(nodes)])
    assert text == draw_tree(forest, name, colour=values, width=width, highlight=[min(nodes)])
    root = ElementTree.fromstring(text)
    wedges = [path for path in root.iter(f"{SVG}path") if path.get("class") == "wedge"]
    assert {int(path.get("data-node", "")) for path in wedges} == nodes
    assert len(wedges) == len(nodes)
    assert sum(path.get("stroke-width") == "3" for path in wedges) == 1
    for path in wedges:
        node = int(path.get("data-node", ""))
        title = path.findtext(f"{SVG}title") or ""
        assert title.startswith(forest.names[node])
        assert re.findall(r": (\d\.\d{3}) \[", title) == ([f"{values[node]:.3f}"] if node in values else [])
    numbers = [float(number) for path in wedges for number in re.findall(r"-?\d+\.\d+", path.get("d", ""))]
    assert all(0 <= number <= width for number in numbers)


def test_wedges_of_every_ring_fill_the_circle_and_lie_under_their_parents() -> None:
    forest = small()
    wedges = {wedge.node: wedge for wedge in layout(forest, "kind")}
    for ring in range(3):
        spans = sorted((w.start, w.end) for w in wedges.values() if w.outer_ring <= ring <= w.inner_ring)
        assert spans[0][0] == 0
        assert spans[-1][1] == pytest.approx(math.tau)
        assert all(a[1] == b[0] for a, b in pairwise(spans))
    for leaf in range(forest.leaf_count):
        for node in forest.path("kind", leaf):
            assert wedges[node].start <= wedges[leaf].start < wedges[leaf].end <= wedges[node].end
    hen = wedges[forest.names.index("hen")]
    assert (hen.outer_ring, hen.inner_ring) == (0, 1)


def test_leaf_labels_are_written_where_there_is_room_and_names_are_escaped() -> None:
    texts = [text.text for text in ElementTree.fromstring(draw_tree(large(), "large")).iter(f"{SVG}text")]
    assert {f"leaf {k}" for k in range(262)} <= set(texts)
    crowded = [text.text for text in ElementTree.fromstring(draw_tree(large(3000), "large")).iter(f"{SVG}text")]
    assert "leaf 7" not in crowded
    assert "group 1" in crowded
    drawing = draw_tree(small(), "kind", labels={1: 'a "b" \x01 & c'})
    assert "food &amp; &lt;drink&gt;" in drawing
    assert 'a "b" \ufffd & c' in [text.text for text in ElementTree.fromstring(drawing).iter(f"{SVG}text")]


def test_long_labels_are_broken_evenly() -> None:
    assert broken("thing for a sport", 1) == ("thing for a sport",)
    assert broken("thing for a sport", 2) == ("thing for", "a sport")
    assert broken("thing for a sport", 3) == ("thing", "for a", "sport")
    assert broken("thing", 3) == ("thing",)


def test_bad_arguments_of_a_drawing() -> None:
    forest = small()
    with pytest.raises(ValueError, match="the width is 100 pixels, but a tree needs at least 200"):
        draw_tree(forest, "kind", width=100)
    with pytest.raises(ValueError, match=r"the colour value of node 1 is 1\.5, but must be in"):
        draw_tree(forest, "kind", colour={1: 1.5})
    with pytest.raises(ValueError, match="the colour value of node 1 is nan"):
        draw_tree(forest, "kind", colour={1: math.nan})
    with pytest.raises(ValueError, match="node 99 is on no level of tree 'kind'"):
        draw_tree(forest, "kind", highlight=[99])


def luminance(colour: tuple[int, int, int]) -> float:
    parts = [c / 255 / 12.92 if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in colour]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]


def contrast(a: float, b: float) -> float:
    return (max(a, b) + 0.05) / (min(a, b) + 0.05)


def test_colours_can_be_told_apart_and_text_can_be_read() -> None:
    lights = [luminance(scale(n / 100)) for n in range(101)]
    assert lights == sorted(lights)
    assert contrast(luminance(NEUTRAL), 0) > 4.4 < contrast(luminance(NEUTRAL), 1)
    for n in range(101):
        ink = 1.0 if text_on(scale(n / 100)) == "#ffffff" else luminance((17, 17, 17))
        assert contrast(lights[n], ink) > 3.9
    for groups in range(2, 30):
        ring = [group(n, groups) for n in range(groups)]
        assert all(a != b for a, b in zip(ring, [*ring[1:], ring[0]], strict=True))


def test_the_outline_holds_every_node_and_its_size() -> None:
    assert outline(small(), "kind") == (
        "kind (6 - 5 - 3 nodes at levels 0..2)\n"
        "├─ animal (3)\n"
        "│  ├─ hen\n"
        "│  └─ mammal (2)\n"
        "│     └─ dog, cat\n"
        "├─ food & <drink> (2)\n"
        "│  └─ pear, tea\n"
        "└─ ball (1)\n"
        "   └─ ball\n"
    )
    text = outline(large(), "large")
    assert max(map(len, text.splitlines())) <= 100
    assert all(re.search(rf"\bleaf {k}(,|$)", text, re.MULTILINE) for k in range(262))
