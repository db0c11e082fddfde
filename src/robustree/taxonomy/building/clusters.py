"""A label tree from text embeddings: agglomerative clusters, cut by size, named after WordNet's hypernyms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from robustree.taxonomy.building.dendrogram import Linkage, central_first, chains_of, directions, merges_of
from robustree.taxonomy.building.nouns import wordnet_nouns
from robustree.taxonomy.building.senses import known_senses
from robustree.taxonomy.building.wordnet import candidate_names, is_readable
from robustree.taxonomy.nested import TreeSource, assemble
from robustree.taxonomy.sizing import sized_level, useful_sizes

COVERED = 2 / 3
"""The share of a cluster's classes that its hypernym must cover."""
OWNED = 1 / 3
"""The share of a hypernym's classes that must lie in the cluster."""


def cluster_tree(
    classes: Sequence[str],
    embeddings: NDArray[np.floating],
    *,
    name: str = "cluster",
    levels: int = 5,
    linkage: Linkage = "ward",
    about: str = "",
) -> TreeSource:
    """Clusters of the embeddings (K, D) of K classes, cut by size into at most `levels` levels.

    The embeddings are centred and scaled to unit length; the thresholds are K^(l / (levels + 1)) leaves. A cluster is
    called after the WordNet hypernym that fits it best (`name_clusters`).

    Raises:
        ValueError: another number of embeddings than classes, embeddings without directions, fewer than one level, or
            too few classes for a level.
    """
    if len(classes) != len(embeddings):
        raise ValueError(f"{len(embeddings)} embeddings were given for {len(classes)} classes: give one a class.")
    points = directions(embeddings)
    chains = chains_of(merges_of(points, linkage))
    sizes = useful_sizes(chains, levels)
    if not sizes:
        raise ValueError(f"the {len(classes)} classes leave no level between them and all: name more classes.")
    on_a_level = {node for size in sizes for node in sized_level(size, chains) if node >= len(classes)}
    chains = [[node for node in chain if node in on_a_level] for chain in chains]
    members: dict[int, list[int]] = {}
    for leaf, chain in enumerate(chains):
        for node in chain:
            members.setdefault(node, []).append(leaf)
    central = {node: central_first(points, leaves) for node, leaves in members.items()}
    nested = assemble(classes, chains, name_clusters(classes, central))
    return TreeSource(name, nested, cut_sizes=sizes, about=about, licence="Apache-2.0; names after WordNet 3.0")


def name_clusters(classes: Sequence[str], clusters: Mapping[int, Sequence[int]]) -> dict[int, str]:
    """A name for every cluster that no class and no other cluster has; its classes come with the most central first.

    A readable hypernym fits a cluster when it covers `COVERED` of the cluster's classes and `OWNED` of its own classes
    lie there. The best fit (F1 of the two shares, then the more specific) is given first, each hypernym once.
    What is left is called "a or b" if it has two classes, else "a or similar" after its most central class.
    """
    nouns = wordnet_nouns()
    below: dict[str, set[int]] = {}
    for leaf, wnid in known_senses(classes, nouns).items():
        for synset in (wnid, *nouns.above(wnid)):
            if is_readable(synset):
                below.setdefault(synset, set()).add(leaf)
    fits = []
    for node, members in clusters.items():
        for synset, owned in below.items():
            shared = len(owned.intersection(members))
            if shared >= COVERED * len(members) and shared >= OWNED * len(owned):
                fits.append((-2 * shared / (len(members) + len(owned)), node, -len(nouns.above(synset)), synset))
    taken = {name.casefold() for name in classes}
    names: dict[int, str] = {}
    used: set[str] = set()

    def give(node: int, candidates: Sequence[str]) -> bool:
        free = next((name for name in candidates if name.casefold() not in taken), None)
        if free is not None:
            names[node] = free
            taken.add(free.casefold())
        return free is not None

    for _, node, _, synset in sorted(fits):
        if node not in names and synset not in used and give(node, candidate_names(nouns.synsets[synset])):
            used.add(synset)
    for node, members in clusters.items():
        central = [classes[member] for member in members]
        if node not in names and not (len(members) == 2 and give(node, [f"{central[0]} or {central[1]}"])):
            give(node, [f"{name} or similar" for name in central])
    return names
