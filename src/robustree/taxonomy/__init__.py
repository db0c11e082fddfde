"""Label trees: one set of leaf classes, grouped by one or more trees into nested levels."""

from __future__ import annotations

from robustree.taxonomy.drawing import draw_tree, outline
from robustree.taxonomy.files import (
    forest_from_json,
    forest_to_json,
    leaves_of,
    parse_tree,
    read_forest,
    read_tree,
    tree_to_json,
    write_forest,
)
from robustree.taxonomy.forest import Cut, Forest, Tree, TreeSource, build_forest
from robustree.taxonomy.shipped import EMOJI_TREES, SHIPPED_TREES, shipped_forest, shipped_tree_file
from robustree.taxonomy.traces import Trace

__all__ = [
    "EMOJI_TREES",
    "SHIPPED_TREES",
    "Cut",
    "Forest",
    "Trace",
    "Tree",
    "TreeSource",
    "build_forest",
    "draw_tree",
    "forest_from_json",
    "forest_to_json",
    "leaves_of",
    "outline",
    "parse_tree",
    "read_forest",
    "read_tree",
    "shipped_forest",
    "shipped_tree_file",
    "tree_to_json",
    "write_forest",
]
