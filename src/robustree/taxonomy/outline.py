"""A label tree as indented text for terminals."""

from __future__ import annotations

import textwrap

from robustree.taxonomy.forest import Forest

_WIDTH = 100


def outline(forest: Forest, tree_name: str) -> str:
    """The whole tree as indented lines: every internal node with its number of leaves, leaves side by side.

    The first line holds the number of nodes at every level, leaves first.
    """
    tree = forest.tree(tree_name)
    counts = [len(forest.cut(tree_name, level).nodes) for level in range(tree.depth + 1)]
    lines = [f"{tree_name} ({' - '.join(map(str, counts))} nodes at levels 0..{tree.depth})"]

    def write(nodes: tuple[int, ...], indent: str) -> None:
        leaves = [forest.names[node] for node in nodes if node < forest.leaf_count]
        inner = [node for node in nodes if node >= forest.leaf_count]
        if leaves:
            branch, below = ("├─ ", "│  ") if inner else ("└─ ", "   ")
            wrapped = textwrap.wrap(
                ", ".join(name.replace(" ", "\u00a0") for name in leaves),
                max(30, _WIDTH - len(indent) - 3),
                break_long_words=False,
                break_on_hyphens=False,
            )
            for position, line in enumerate(wrapped):
                lines.append(indent + (below if position else branch) + line.replace("\u00a0", " "))
        for node in inner:
            branch, below = ("├─ ", "│  ") if node != inner[-1] else ("└─ ", "   ")
            lines.append(f"{indent}{branch}{forest.names[node]} ({len(tree.leaves_below(node))})")
            write(tree.children(node), indent + below)

    write(tree.tops, "")
    return "\n".join(lines) + "\n"
