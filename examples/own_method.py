"""A method of your own: one frozen dataclass with `inner` and `loss`; here, cross-entropy at a superclass level.

Run: `python examples/own_method.py` (some seconds: four steps on the built-in model).
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from robustree.attacks import Threat
from robustree.data import emoji
from robustree.methods import Adversarial, Context
from robustree.models import load
from robustree.objectives import CrossEntropy
from robustree.training import Recipe, harden


@dataclass(frozen=True, kw_only=True)
class OneLevel:
    """L = CE at one level; the attack maximises the same."""

    level: str

    trains_text = False
    text_threat = None

    def inner(self, context: Context) -> Sequence[CrossEntropy]:
        return (CrossEntropy(context.forest.find_cut(self.level), context.leaves),)

    def loss(self, context: Context, adversarial: Sequence[Adversarial]) -> tuple[Tensor, dict[str, Tensor]]:
        loss = self.inner(context)[0](adversarial[0].scores).mean()
        return loss, {"cross_entropy": loss.detach()}


if __name__ == "__main__":
    data = emoji()
    recipe = Recipe(method=OneLevel(level="unicode/1"), threat=Threat(eps=4 / 255), steps=4, batch_size=16, lr=1e-3)
    with tempfile.TemporaryDirectory() as folder:
        harden(
            load("nano"),
            data,
            data.forest(("unicode",)),
            recipe,
            Path(folder),
            report=lambda progress: print(f"step {progress.step}: loss {progress.logs['loss']:.3f}"),
        )
