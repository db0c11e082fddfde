"""A label tree from the hypernyms of WordNet 3.0."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from importlib.resources import files

from robustree.taxonomy.building.nouns import Nouns, Synset, wordnet_nouns
from robustree.taxonomy.building.senses import Sense
from robustree.taxonomy.nested import TreeSource, assemble
from robustree.taxonomy.sizing import chains_above, useful_sizes

LICENCE = "WordNet 3.0 license, Copyright 2006 by Princeton University; Apache-2.0 for names and changes"
_ROOT = ""


def wordnet_tree(senses: Sequence[Sense], *, name: str = "wordnet", levels: int = 5) -> TreeSource:
    """The classes below the hypernyms of their synsets, cut by size into at most `levels` levels.

    A synset with several hypernyms stands below the first of them, so that every class has one path. Synsets that no
    caption would name are left out, and so is every node with a single child: the more specific name stays. A class
    whose synset has other classes below it, or shares it with one, is a leaf inside the node of that synset.
    The thresholds are K^(l / (levels + 1)) leaves for K classes.

    Raises:
        ValueError: fewer than three classes, fewer than one level, or no group of classes but all together.
    """
    nouns = wordnet_nouns()
    children = _branching(senses, nouns)
    classes = [sense.name for sense in senses]
    names = _names(children, classes, nouns)
    number = {wnid: len(senses) + position for position, wnid in enumerate(names)}
    parents = {
        child if isinstance(child, int) else number[child]: number[node]
        for node, below in children.items()
        for child in below
        if node != _ROOT
    }
    chains = chains_above(parents, len(senses))
    sizes = useful_sizes(chains, levels)
    if not sizes:
        raise ValueError(
            f"WordNet puts no two of the {len(senses)} classes into a group of their own: name more classes."
        )
    nested = assemble(classes, chains, {number[wnid]: written for wnid, written in names.items()})
    about = (
        "Hypernyms of WordNet 3.0, the first where there are several; nodes of no use in a caption left out, "
        "unary nodes collapsed, levels cut by size."
    )
    return TreeSource(name, nested, cut_sizes=sizes, about=about, licence=LICENCE)


def is_readable(wnid: str) -> bool:
    """Whether a caption would name the synset: "mammal" yes, "placental" or "physical entity" no."""
    return wnid not in _naming()[0]


def candidate_names(synset: Synset) -> tuple[str, ...]:
    """What a synset may be called, the most readable name first.

    The name written by hand, else its first lemma of which it is the most frequent sense, else its first lemma; then
    "kind of" that name, for where a class is called so; then its other lemmas.
    """
    written = _naming()[1].get(synset.wnid)
    ranked = sorted(range(len(synset.lemmas)), key=lambda position: synset.senses[position] > 1)
    lemmas = [synset.lemmas[position] for position in ranked]
    first = written or lemmas[0]
    return tuple(dict.fromkeys([first, f"kind of {first}", *lemmas]))


@lru_cache(maxsize=1)
def _naming() -> tuple[frozenset[str], dict[str, str]]:
    """The synsets that are left out, and the names written by hand (`wordnet30/naming.json`)."""
    resource = files("robustree.taxonomy.building").joinpath("wordnet30", "naming.json")
    content = json.loads(resource.read_text(encoding="utf-8"))
    return frozenset(content["left_out"]), content["names"]


def _branching(senses: Sequence[Sense], nouns: Nouns) -> dict[str, list[str | int]]:
    """The children of the root and of every synset that branches: synsets, and classes by their position."""
    below: dict[str, dict[str | int, None]] = {_ROOT: {}}
    chains = [nouns.chain(sense.wnid) for sense in senses]
    owners = [sense.wnid for sense in senses]
    above = {wnid for chain in chains for wnid in chain[1:]}
    for leaf, chain in enumerate(chains):
        grouped = chain[0] in above or owners.count(chain[0]) > 1
        path = [wnid for wnid in (chain if grouped else chain[1:]) if is_readable(wnid)]
        child: str | int = leaf
        for parent in [*path, _ROOT]:
            below.setdefault(parent, {})[child] = None
            child = parent

    def collapsed(node: str | int) -> str | int:
        while isinstance(node, str) and len(below[node]) == 1:
            (node,) = below[node]
        return node

    top = collapsed(_ROOT)
    if isinstance(top, str):
        below[_ROOT] = below[top]  # a node above all classes says nothing about them
    kept: dict[str, list[str | int]] = {}
    waiting = [_ROOT]
    while waiting:
        node = waiting.pop()
        kept[node] = [collapsed(child) for child in below[node]]
        waiting.extend(child for child in kept[node] if isinstance(child, str))
    return kept


def _names(children: dict[str, list[str | int]], classes: Sequence[str], nouns: Nouns) -> dict[str, str]:
    """A name for every node that no class and no other node has; nodes near the root choose first."""
    taken = {name.casefold() for name in classes}
    names: dict[str, str] = {}
    level = [_ROOT]
    while level:
        level = [child for node in level for child in children[node] if isinstance(child, str)]
        for wnid in level:
            candidates = candidate_names(nouns.synsets[wnid])
            free = [name for name in candidates if name.casefold() not in taken]
            names[wnid] = free[0] if free else f"{candidates[0]} ({wnid})"
            taken.add(names[wnid].casefold())
    return names
