"""Rebuild the Tiny-ImageNet trees from the hand-made ImageNet trees.

    python tools/restrict_trees.py

A tree keeps the 200 classes of Tiny-ImageNet and drops the nodes left without a class. Then the siblings that
`MERGES` lists become one node, in the order of the list, so that no group holds a single class and no node has
a single child.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TypeAlias

Node: TypeAlias = "dict[str, Node] | list[str]"

PACKAGE = Path(__file__).resolve().parents[1] / "src" / "robustree"
LIBRARY = PACKAGE / "taxonomy" / "library"
ABOUT = (
    "The ImageNet tree of the same name over the 200 classes of Tiny-ImageNet; groups that were left with one "
    "class are merged with their neighbours (tools/restrict_trees.py)."
)
WIDTH = 110

MERGES: dict[str, dict[str, tuple[str, ...]]] = {
    "kind": {
        "animal": ("animal or person",),
        "ape or small mammal": ("ape, monkey or person", "small or pouched mammal"),
        "fruit, vegetable or mushroom": ("fruit or vegetable", "flower or fungus"),
        "boat or heavy machine": ("boat or ship", "aircraft or heavy machine"),
        "thing for home or play": ("household thing", "thing for play or music"),
        "container or kitchen thing": ("thing for the kitchen", "container, paper or cosmetic"),
        "thing for sports or music": ("sports equipment", "musical instrument", "toy or amusement"),
        "companion dog": ("lap dog", "terrier or schnauzer", "poodle or other companion dog"),
        "gun or herding dog": ("gun dog", "herding dog"),
        "pig or elephant": ("horse, pig or hippopotamus", "elephant"),
        "ape or monkey": ("ape", "monkey"),
        "small furry mammal": ("rodent", "pouched or egg-laying mammal"),
        "bird of lake or marsh": ("duck, goose or swan", "wading bird"),
        "frog or salamander": ("frog", "salamander"),
        "alligator or snake": ("crocodile or dinosaur", "snake without venom"),
        "fly, bee or beetle": ("beetle", "fly, bee or ant"),
        "butterfly or dragonfly": ("butterfly", "long-winged flying insect"),
        "fish or sea mammal": ("bony fish", "sea mammal"),
        "baked snack": ("baked bread or dough", "fast food"),
        "dessert, sauce or drink": ("dessert or sauce", "drink"),
        "mushroom or nut": ("grain, nut or seed", "mushroom or other fungus"),
        "skirt or apron": ("skirt, trousers or wrap", "apron or bib"),
        "hat or tie": ("hat, cap or wig", "tie, scarf or jewelry"),
        "glasses, umbrella or bag": ("glasses, watch or umbrella", "bag, purse or wallet"),
        "measuring or optical instrument": ("measuring or counting instrument", "camera or optical device"),
        "computer or player": ("computer or office machine", "phone or music player", "television or home theater"),
        "large appliance": ("kitchen appliance", "heater, fan or washer", "coin or ticket machine"),
        "chair or bathtub": ("chair or sofa", "bathroom thing"),
        "barrel, bucket or book": ("barrel, bucket or vase", "page, cover or puzzle"),
        "toy or fishing gear": ("ski, paddle or racket", "toy or game"),
        "instrument for music": ("wind instrument", "keyboard instrument", "drum, bell or rattle"),
    },
    "place": {
        "thing found on a farm": ("thing found on a farm", "thing found on a hunt"),
        "thing found before an audience": ("thing found among visitors", "thing found at sports"),
        "thing found in cold country": ("thing found in the mountains", "thing found in the snow"),
        "dog found on a hunt": ("gundog found on a hunt", "terrier found on a hunt"),
        "thing found in a cafe": ("thing found in a bar", "thing found in a cafe"),
        "thing found in a bedroom": ("thing found in a nursery", "thing found in a wardrobe"),
        "thing found near a sofa": ("thing found near a sofa", "thing found in sewing baskets"),
        "thing found in a square": ("thing found in a square", "thing found at a fair"),
        "thing found in a shop": ("shop found on a street", "thing found in a shop"),
        "thing found at a show": ("thing found on a stage", "thing found in a museum"),
        "thing found at heavy work": ("thing found in a factory", "thing found in an army"),
    },
    "size": {
        "head-sized animal": ("head-sized frog, lizard or snake", "head-sized mammal or sea animal"),
        "arm-length object": ("arm-length instrument or weapon", "arm-length household object"),
        "person-sized furniture or machine": ("person-sized furniture", "person-sized machine or instrument"),
    },
    "motion": {
        "thing that flies or swims": ("thing that flies", "thing that swims or floats"),
        "thing people push or throw": ("thing that people roll", "thing people throw or swing"),
        "land or growth in place": ("thing that grows in place", "land that stays in place"),
        "flying animal or missile": ("flying bird", "flying insect", "aircraft or missile"),
        "swimming fish, bird or mammal": ("swimming fish", "swimming mammal or bird"),
        "working dog": ("tracking or pointing dog", "herding or pulling dog"),
        "walking companion dog": ("digging dog", "trotting companion dog"),
        "small walking animal": ("small scurrying animal", "walking bird"),
        "crawling salamander or snake": ("crawling reptile or salamander", "sliding snake"),
        "driving truck, bus or tractor": ("driving truck or bus", "driving work machine"),
        "thing people ride or push": ("thing people ride", "thing people push or pull"),
        "thing worn around the body": ("thing worn around the neck", "armor, bag or belt"),
        "instrument people hold": ("wind instrument people hold", "drum or rattle people strike"),
        "cup, bottle or dish": ("cup, bottle or jug", "bowl, plate or pot"),
        "nut, coral or web": ("flower, seed or hay", "coral, web or hive"),
        "monument, tower or altar": ("church, temple or castle", "monument or tower"),
        "chair, bathtub or organ": ("bed or couch", "bathtub, sink or toilet", "large keyboard instrument"),
        "refrigerator or workshop machine": ("kitchen or laundry machine", "heater, fan or workshop machine"),
        "computer, player or hourglass": ("screen, computer or player", "clock or measuring instrument"),
    },
}
"""By tree: the siblings that become one node, under its new name. Upper levels come first."""


def restricted(node: Node, kept: frozenset[str]) -> Node:
    """The node with its kept leaves only, and without children that have none."""
    if isinstance(node, list):
        return [leaf for leaf in node if leaf in kept]
    children = {name: restricted(child, kept) for name, child in node.items()}
    return {name: child for name, child in children.items() if child}


def merged(node: Node, name: str, old: tuple[str, ...]) -> Node:
    """The node with the children named `old`, where they lie, as one child at the place of the first."""
    if isinstance(node, list):
        return node
    if not set(old) <= set(node):
        return {child: merged(below, name, old) for child, below in node.items()}
    parts = [node[each] for each in old]
    leaves = [leaf for part in parts if isinstance(part, list) for leaf in part]
    inner = {child: below for part in parts if isinstance(part, dict) for child, below in part.items()}
    whole = {old[0]: name}
    return {
        whole.get(child, child): (leaves or inner) if child == old[0] else below
        for child, below in node.items()
        if child not in old[1:]
    }


def written(node: Node, depth: int) -> str:
    """JSON text of a node: one child a line, lists of leaves broken at WIDTH."""
    pad = " " * depth
    if isinstance(node, list):
        names = [json.dumps(leaf, ensure_ascii=False) for leaf in node]
        rows = [names[0]]
        for name in names[1:]:
            if len(pad) + 1 + len(rows[-1]) + 2 + len(name) > WIDTH - 2:
                rows[-1] += ","
                rows.append(name)
            else:
                rows[-1] += f", {name}"
        return f"[{rows[0]}]" if len(rows) == 1 else "[\n" + "".join(f"{pad} {row}\n" for row in rows) + f"{pad}]"
    lines = [f"{pad} {json.dumps(name)}: {written(child, depth + 1)}" for name, child in node.items()]
    return "{\n" + ",\n".join(lines) + f"\n{pad}}}"


def main() -> None:
    classes = (PACKAGE / "data" / "classes" / "tiny_imagenet.txt").read_text(encoding="utf-8").splitlines()
    target = LIBRARY / "tiny_imagenet"
    target.mkdir(parents=True, exist_ok=True)
    for tree, merges in MERGES.items():
        source = json.loads((LIBRARY / "imagenet" / f"{tree}.json").read_text(encoding="utf-8"))
        node = restricted(source["tree"], frozenset(classes))
        for name, old in merges.items():
            node = merged(node, name, old)
        head = {"name": tree, "about": ABOUT, "licence": source["licence"]}
        lines = [f" {json.dumps(key)}: {json.dumps(value)}," for key, value in head.items()]
        text = "\n".join(["{", *lines, f' "tree": {written(node, 1)}', "}", ""])
        (target / f"{tree}.json").write_text(text, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
