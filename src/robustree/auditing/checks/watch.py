"""Watching: what an attack saw on its way, and whether a model is after the checks what it was before."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from robustree.attacks import Threat
from robustree.auditing.checks.case import Case, Level
from robustree.tree_model import Scores, TreeModel

CLEAR = 1e-4
"""A margin, relative to the spread of an image's scores, that no rounding makes."""


class Watch:
    """A model that notes every image an attack looks at inside the threat, and how far it was from falling.

    `highest` and `last` (n,): the largest and the latest margin of each image, relative to the spread of its clean
    scores. `traces`: all margins of each image in order. Images that lie within 2 eps of another cannot be told
    apart by what the attack asks, and are not watched (`clear` (n,))."""

    def __init__(self, case: Case, level: Level) -> None:
        self.case, self.level = case, level
        self.clear = ~_crowded(case.pixels, case.plan.threat)
        nodes = case.clean.nodes
        self.spread = (nodes.amax(1) - nodes.amin(1)).clamp(min=torch.finfo(nodes.dtype).tiny)
        self.seen: list[tuple[Tensor, Tensor]] = []

    def __call__(self, images: Tensor) -> Scores:
        scores = self.case.predict(images)
        if not torch.is_autocast_enabled(images.device.type):  # what low precision claims is judged again later
            with torch.no_grad():
                self._note(images.detach(), scores)
        return scores

    def _note(self, images: Tensor, scores: Scores) -> None:
        pixels = self.case.pixels
        index = torch.cdist(images.flatten(1), pixels.flatten(1)).argmin(1)
        kept = self.case.plan.threat.contains(images, pixels[index]) & self.clear[index]
        margin = self.case.margin(scores, self.level, index) / self.spread[index]
        self.seen.append((index.where(kept, -1).cpu(), margin.float().cpu()))

    @cached_property
    def traces(self) -> list[list[float]]:
        traces: list[list[float]] = [[] for _ in self.case.images.ids]
        for index, margins in self.seen:
            for image, margin in zip(index.tolist(), margins.tolist(), strict=True):
                if image >= 0:
                    traces[image].append(margin)
        return traces

    @cached_property
    def clean(self) -> list[float]:
        """The margins of the clean images, on the same scale."""
        return (self.case.margin(self.case.clean, self.level) / self.spread).tolist()

    def fallen(self) -> tuple[Tensor, Tensor]:
        """(n,), (n,): whether an adversarial image was met, and whether the last image looked at was one."""
        traces = self.traces
        met = [max(trace, default=-1.0) > CLEAR for trace in traces]
        last = [bool(trace) and trace[-1] > 0 for trace in traces]
        return torch.tensor(met, device=self.case.device), torch.tensor(last, device=self.case.device)


def _crowded(images: Tensor, threat: Threat) -> Tensor:
    """(n,) whether another image is so near that their balls touch."""
    found = []
    for position in range(len(images)):
        distance = threat.distance(images, images[position : position + 1])
        distance[position] = torch.inf
        found.append(distance.min() <= 2 * threat.eps)
    return torch.stack(found)


@contextmanager
def untouched(model: TreeModel) -> Iterator[Snapshot]:
    """A model that leaves the block as it entered it: parameters, buffers and training flags."""
    snapshot = Snapshot(model)
    try:
        yield snapshot
    finally:
        snapshot.restore()


class Snapshot:
    """Copies of a model's tensors and flags."""

    def __init__(self, model: TreeModel) -> None:
        self.model = model
        self.tensors = {name: tensor.detach().clone() for name, tensor in _tensors(model).items()}
        self.flags = [(module, module.training) for module in model.modules()]

    def changed(self) -> list[str]:
        """The tensors that are not as they were."""
        now = _tensors(self.model)
        names = [name for name, tensor in self.tensors.items() if name not in now or not _same(tensor, now[name])]
        return names + [name for name in now if name not in self.tensors]

    def restore(self) -> None:
        now = _tensors(self.model)
        with torch.no_grad():
            for name in self.changed():
                if name in self.tensors and name in now and now[name].shape == self.tensors[name].shape:
                    now[name].copy_(self.tensors[name])
                elif name in self.tensors:
                    owner, _, last = name.rpartition(".")
                    setattr(self.model.get_submodule(owner), last, self.tensors[name])
        for module, training in self.flags:
            module.training = training


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def _same(first: Tensor, second: Tensor) -> bool:
    """Bit for bit: NaN is NaN."""
    if first.shape != second.shape or first.dtype != second.dtype:
        return False
    one, two = (t.detach().contiguous().view(-1).view(torch.uint8) for t in (first, second))
    return torch.equal(one, two)


class _Calls(TorchFunctionMode):
    """Counts calls of autograd."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func in (torch.autograd.grad, torch.autograd.backward, Tensor.backward)
        return func(*args, **(kwargs or {}))


def computes_gradients(model: TreeModel, images: Tensor) -> bool:
    """Whether a forward computes gradients itself, as defences do that optimise at test time."""
    with torch.no_grad(), _Calls() as calls:
        model(images)
    return calls.count > 0
