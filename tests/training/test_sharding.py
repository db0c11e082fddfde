"""Two processes that share the weights compute what one does with all of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch

from robustree.geometry import Poincare
from robustree.training import Runtime, train


def test_shared_weights_end_in_those_of_one_process(
    worker: ModuleType, in_other_processes: Callable[[str, Path], str], tmp_path: Path
) -> None:
    """To 1e-6; each process holds little more than half; states go over from one process and back."""
    in_other_processes("shared_weights", tmp_path)
    ranks = [torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in range(2)]
    for name in worker.SHARED:
        method, space = worker.METHODS[name]
        recipe, model = replace(worker.RECIPE, method=method, space=space, steps=4), worker.layered(space)
        train(model, recipe, worker.Pictures(), directory=tmp_path / "one" / name)
        for key, value in model.state_dict().items():
            assert torch.equal(ranks[0][name][key], ranks[1][name][key]), (name, key)
            torch.testing.assert_close(ranks[0][name][key], value, rtol=0, atol=1e-6, msg=f"{name} {key}")
    assert [rank["kept"] < 0.6 for rank in ranks] == [True, True]
    said = "memory ran out at step 1 among processes that share their weights: begin again with more micro_batches, or"
    assert all(rank["short"].startswith(said) for rank in ranks)
    recipe, data = replace(worker.RECIPE, micro_batches=2, steps=6), worker.Pictures()
    whole = train(worker.layered(Poincare()), recipe, worker.Pictures(), directory=tmp_path / "undisturbed")
    ended = train(worker.layered(Poincare()), recipe, data, directory=tmp_path / "back")
    assert len(data.seen) == 4  # two processes did steps 3 and 4, one the others
    for key, value in whole.state_dict().items():
        torch.testing.assert_close(ended.state_dict()[key], value, rtol=0, atol=1e-6, msg=key)


def test_one_process_has_nobody_to_share_with() -> None:
    with pytest.raises(ValueError, match="the weights of one process cannot be shared: start several"):
        Runtime(cpu=True, shard_weights=True)


def test_compiled_encoders_share_no_weights() -> None:
    with pytest.raises(ValueError, match="are not supported: leave --compile or --shard-weights out"):
        Runtime(cpu=True, shard_weights=True, compiled=True)
