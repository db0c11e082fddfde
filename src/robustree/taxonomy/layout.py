"""A written tree as the text of a tree file: one node a line, leaves side by side."""

from __future__ import annotations

import json
from collections.abc import Mapping

from robustree.taxonomy.nested import Nested, TreeSource

_WIDTH = 110


def tree_to_json(source: TreeSource) -> str:
    """The text of a tree file, which `parse_tree` reads as an equal source."""
    head: dict[str, object] = {"name": str(source.name)}
    head |= {key: text for key, text in (("about", source.about), ("licence", source.licence)) if text}
    if source.cut_sizes is not None:
        head["cut_sizes"] = list(source.cut_sizes)
    if source.levels is not None:
        head["levels"] = [list(level) for level in source.levels]
    lines = [f" {_text(key)}: {_text(value)},\n" for key, value in head.items()]
    return "{\n" + "".join(lines) + f' "tree": {_children(source.nested, 1)}\n}}\n'


def _children(nested: Nested, depth: int) -> str:
    """The children of a node whose line is indented by `depth` blanks."""
    pad = " " * depth
    if isinstance(nested, Mapping):
        rows = [f"{pad} {_text(name)}: {_children(below, depth + 1)}" for name, below in nested.items()]
        return "{\n" + ",\n".join(rows) + f"\n{pad}}}"
    rows, plain = [], True
    for entry in nested:
        if isinstance(entry, Mapping):
            rows.append(_children(entry, depth + 1))
            plain = False
        elif plain and rows and depth + len(rows[-1]) + len(_text(entry)) < _WIDTH:
            rows[-1] += f", {_text(entry)}"
        else:
            rows.append(_text(entry))
            plain = True
    if len(rows) == 1 and plain:
        return f"[{rows[0]}]"
    return "[\n" + ",\n".join(f"{pad} {row}" for row in rows) + f"\n{pad}]"


def _text(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
