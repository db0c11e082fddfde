"""What the recipes of small CLIPs share: a loss at two levels of a tree, optimisers, the running mean of weights."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import CLIPModel

from robustree.taxonomy import Cut, Forest
from robustree.tree_model import fill

SMOOTHING = 0.1
CANDIDATES = 96  # prompts in one softmax: all 262 leaves at every step would cost as much as the images


class Descent:
    """Muon and AdamW with a short warm-up and a cosine to 0, and `average`, the running mean of the weights."""

    def __init__(self, model: CLIPModel, lr: float):
        self.model, self.optimisers = model, optimisers_of(model, lr)
        self._peaks = [(group, group["lr"]) for optimiser in self.optimisers for group in optimiser.param_groups]
        self.average = [p.detach().clone() for p in model.parameters()]

    def set_rate(self, progress: float) -> None:
        """The learning rates at a fraction of the run."""
        for group, peak in self._peaks:
            group["lr"] = peak * min(1, progress / 0.03) * (1 + math.cos(math.pi * progress)) / 2

    def step(self, loss: Tensor, number: int) -> None:
        """Step number `number`, counted from 0, down a loss."""
        for optimiser in self.optimisers:
            optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimiser in self.optimisers:
            optimiser.step()
        with torch.no_grad():
            decay = min(0.998, (1 + number) / (10 + number))
            for mean, parameter in zip(self.average, self.model.parameters(), strict=True):
                mean.lerp_(parameter, 1 - decay)


def optimisers_of(model: CLIPModel, lr: float) -> tuple[torch.optim.Optimizer, ...]:
    """Muon for the matrices of both towers, AdamW for the rest."""
    matrices = [p for name, p in model.named_parameters() if ".layers." in name and p.ndim == 2]
    known = {id(p) for p in matrices}
    rest = [p for p in model.parameters() if id(p) not in known]
    return (
        torch.optim.Muon(matrices, lr=lr, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(
            [
                {"params": [p for p in rest if p.ndim > 1], "weight_decay": 0.1},
                {"params": [p for p in rest if p.ndim <= 1], "weight_decay": 0.0},
            ],
            lr=1e-3,
            betas=(0.9, 0.98),
        ),
    )


def level_loss(
    model: CLIPModel, tokenizer, embeddings: Tensor, forest: Forest, templates: Sequence[str], leaves, generator
) -> Tensor:
    """Cross-entropy of images (B, D) at the leaf, and half of it at one random level of one random tree, with a random
    template."""
    template = templates[int(torch.randint(len(templates), (1,), generator=generator))]
    upper = forest.cuts()[1 + int(torch.randint(len(forest.cuts()) - 1, (1,), generator=generator))]
    loss = torch.tensor(0.0)
    for cut, weight in ((forest.leaf_cut, 1.0), (upper, 0.5)):
        logits, labels = cut_logits(model, tokenizer, embeddings, forest.names, cut, template, leaves, generator)
        loss = loss + weight * F.cross_entropy(logits.float(), labels, label_smoothing=SMOOTHING)
    return loss


def cut_logits(
    model: CLIPModel, tokenizer, embeddings, names, cut: Cut, template: str, leaves, generator
) -> tuple[Tensor, Tensor]:
    """scale * cos between images (B, D) and the prompts of the batch's nodes and some others of the cut, and the
    column (B,) of each image's own node."""
    own, labels = torch.tensor(cut.of_leaf)[leaves].unique(return_inverse=True)
    others = torch.randperm(len(cut.nodes), generator=generator)
    others = others[~torch.isin(others, own)][: max(0, CANDIDATES - len(own))]
    chosen = [names[cut.nodes[position]] for position in torch.cat([own, others]).tolist()]
    tokens = tokenizer(fill(template, chosen), return_tensors="pt", padding=True)
    texts = F.normalize(model.text_projection(model.text_model(**tokens).pooler_output))
    return model.logit_scale.exp() * embeddings @ texts.T, labels
