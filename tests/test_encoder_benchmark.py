"""The parts of the encoder's benchmarks that need no photographs: the ridge map, and the split of the classes."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from robustree.taxonomy import Forest

BENCHMARKS = str(Path(__file__).parent.parent / "benchmarks")


@pytest.fixture
def photos(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("encoder_photos")


@pytest.mark.usefixtures("photos")
def test_the_ridge_map_is_the_least_squares_solution_of_the_rows_with_penalty_rows_below() -> None:
    bridge = importlib.import_module("encoder_bridge")
    draw = np.random.default_rng(0)
    features, targets, penalty = draw.normal(size=(20, 30)), draw.normal(size=(20, 4)), 2.5
    rows = np.vstack([np.hstack([features, np.ones((20, 1))]), np.sqrt(penalty) * np.eye(31)])
    wanted = np.linalg.lstsq(rows, np.vstack([targets, np.zeros((31, 4))]), rcond=None)[0]
    found = bridge.ridge(torch.from_numpy(features), torch.from_numpy(targets), penalty)
    np.testing.assert_allclose(found.numpy(), wanted, atol=1e-12)


def _groups(forest: Forest, tree: str, leaf: int) -> set[str]:
    """The names of all groups above a leaf that hold another class of it."""
    chosen = forest.tree(tree)
    return {forest.names[node] for level in chosen.levels for node in level if leaf in chosen.leaves_below(node)}


def test_every_class_is_on_one_side_and_keeps_its_groups(photos: ModuleType) -> None:
    seen, unseen = photos.split()
    assert len(seen.numbers) == 150 and sorted(seen.numbers + unseen.numbers) == list(range(200))
    whole = photos.RECORD.forest(("kind",))
    for classes in (seen, unseen):
        forest = classes.forest(("kind",))
        assert forest.leaves == classes.names
        for leaf, number in enumerate(classes.numbers):
            own = _groups(forest, "kind", leaf) - {forest.names[leaf]}
            assert own and own <= _groups(whole, "kind", number)
