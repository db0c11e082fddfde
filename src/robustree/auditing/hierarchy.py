"""How far a wrong answer lies from the right one in a tree: severity, edges, hierarchical F1, consistency."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from robustree.auditing.statistics import percentile_interval, resampled_means
from robustree.auditing.table import Run, Table
from robustree.taxonomy.forest import Forest


def families(forest: Forest, tree_name: str) -> tuple[frozenset[int], ...]:
    """Return each leaf with its ancestors in a tree, without the root (a single top above every leaf)."""
    tops = forest.tree(tree_name).tops
    root = set(tops) if len(tops) == 1 and tops[0] >= forest.leaf_count else set()
    lines = ((leaf, *forest.ancestors(tree_name, leaf)) for leaf in range(forest.leaf_count))
    return tuple(frozenset(line) - root for line in lines)


def hierarchy_figures(
    table: Table, tree_name: str, run: Run, *, resamples: int, seed: int
) -> dict[str, dict[str, Any] | None]:
    """Return the hierarchical figures of a run's leaf predictions in one tree, each {value, low, high}.

    With h the height of the lowest common ancestor of prediction and truth, e the edges between them and
    A+ a node with its ancestors (root excluded), over all n images and micro-averaged:
    severity_mistakes = sum h / mistakes (None without mistakes), severity_all = sum h / n,
    tree_induced_error = sum e / n, precision = sum |A+(p) & A+(t)| / sum |A+(p)|, recall = the same over
    sum |A+(t)|, f1 = their harmonic mean, consistency = share of images whose direct decision at every level
    of the tree is the ancestor of the leaf decision.

    Intervals: paired bootstrap over images. Sources: Bertinetto et al. (CVPR 2020), Dekel et al. (ICML 2004),
    Kosmopoulos et al. (Data Min. Knowl. Discov. 2015).
    """
    columns = _columns(table, tree_name, run)
    totals, means = columns.mean(axis=0), resampled_means(columns, resamples=resamples, seed=seed)
    height, mistake, edges, overlap, size, true_size, agree, one = range(columns.shape[1])
    parts: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
        "severity_mistakes": ((height,), (mistake,)),
        "severity_all": ((height,), (one,)),
        "tree_induced_error": ((edges,), (one,)),
        "precision": ((overlap,), (size,)),
        "recall": ((overlap,), (true_size,)),
        "f1": ((overlap, overlap), (size, true_size)),
        "consistency": ((agree,), (one,)),
    }
    figures: dict[str, dict[str, Any] | None] = {}
    for name, (above, below) in parts.items():
        if not totals[list(below)].sum():
            figures[name] = None
            continue
        bottom = means[:, list(below)].sum(axis=1)
        samples = means[:, list(above)].sum(axis=1) / np.where(bottom > 0, bottom, np.nan)
        low, high = percentile_interval(samples)
        value = float(totals[list(above)].sum() / totals[list(below)].sum())
        figures[name] = {"value": value, "low": low, "high": high}
    return figures


def _columns(table: Table, tree_name: str, run: Run) -> NDArray[np.float64]:
    forest, predicted = table.forest, run.predicted["direct"][:, 0]
    related = families(forest, tree_name)
    known: dict[tuple[int, int], tuple[float, ...]] = {}
    for pair in zip(table.leaves.tolist(), predicted.tolist(), strict=True):
        if pair not in known:
            true, guess = pair
            known[pair] = (
                forest.lca_height(tree_name, true, guess),
                true != guess,
                forest.distance(tree_name, true, guess),
                len(related[true] & related[guess]),
                len(related[guess]),
                len(related[true]),
            )
    pairs = zip(table.leaves.tolist(), predicted.tolist(), strict=True)
    measured = np.array([known[pair] for pair in pairs], dtype=np.float64)
    levels = [index for index, cut in enumerate(table.cuts) if cut.tree == tree_name or cut.level == 0]
    same = run.predicted["direct"][:, levels] == run.predicted["via_leaf"][:, levels]
    return np.column_stack([measured, same.all(axis=1), np.ones(len(measured))]).astype(np.float64)
