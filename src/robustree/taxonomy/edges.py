"""The edge-list form of a tree, {child: parent}, turned into the nested form."""

from __future__ import annotations

import reprlib

from robustree.taxonomy.nested import MAX_DEPTH, Nested, problem


def nest(tree: str, parents: object) -> list[str | dict[str, Nested]]:
    """Nest a mapping from child to parent; a parent of null, or a parent that is no child, is a top node.

    Children keep the order of the mapping. A name that is nobody's parent is a leaf. Raises ValueError for a
    cycle, for two parents, for a wrong type, and for more than `MAX_DEPTH` nodes above one another.
    """
    if not isinstance(parents, dict):
        raise problem(tree, None, f"parents is {reprlib.repr(parents)}, but must be an object {{child: parent}}.")
    children: dict[str, list[str]] = {}
    for child, parent in parents.items():
        if isinstance(parent, list):
            raise problem(tree, child, f"{child!r} has {len(parent)} parents {parent}: keep one of them.")
        if parent is not None and not isinstance(parent, str):
            raise problem(tree, child, f"the parent of {child!r} is {parent!r}: write the name of a node, or null.")
        if parent is not None:
            children.setdefault(parent, []).append(child)
    _check_depths(tree, parents)
    above = [parent for parent in children if parent not in parents]
    tops = [child for child, parent in parents.items() if parent is None]

    def below(name: str) -> str | dict[str, Nested]:
        return {name: [below(child) for child in children[name]]} if name in children else name

    return [below(name) for name in [*above, *tops]]


def _check_depths(tree: str, parents: dict[str, str | None]) -> None:
    depths: dict[str | None, int] = {None: -1}
    for start in parents:
        chain: dict[str, None] = {}
        node: str | None = start
        while node is not None and node not in depths:
            if node in chain:
                circle = list(chain)[list(chain).index(node) :]
                shown = [*circle[:4], *(["..."] if len(circle) > 4 else []), node]
                raise problem(tree, circle[0], f"cycle: {' -> '.join(shown)}, so give one of them another parent.")
            chain[node] = None
            node = parents.get(node)
        for step in reversed(chain):
            depths[step] = depths[node] + 1
            node = step
            if depths[step] > MAX_DEPTH:
                raise problem(tree, step, f"{step!r} lies below more than {MAX_DEPTH} nodes: flatten the tree.")
