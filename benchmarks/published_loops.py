"""TeCoA and FARE as their authors' training loops run them, for benchmarks/step.py.

TeCoA: Mao et al. 2023, `finetuning.py` and `attacks.py` of ZSRobust4FoundationModel. FARE: Schlarmann et al. 2024,
`train/adversarial_training_clip.py` and `train/pgd_train.py` of RobustVLM. Written from descriptions
of these loops. What decides their cost is kept: what is encoded when, what needs a gradient, which backward pass is
made, what is asked of the device."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Images (B, 3, H, W) in [0, 1] and their classes (B,)."""

    images: Tensor
    leaves: Tensor


@dataclass(frozen=True, kw_only=True)
class Ascent:
    """The attack inside a step: linf, radius and step in pixels of [0, 1]."""

    eps: float
    step_size: float
    steps: int


def tecoa(
    clip: Any,
    images_of: Callable[[Any, Tensor], Tensor],
    tokenizer: Any,
    prompts: list[str],
    others: Tensor,
    batch: Batch,
    ascent: Ascent,
) -> Callable[[], None]:
    """One TeCoA step: no parameter is frozen, the attack's backward passes fill `.grad` of both towers, and the prompts
    are tokenised and encoded again, with their graph, in every pass.

    `others` (K, D): unit embeddings of the classes that are not encoded again (none in the published loop)."""
    clip = copy.deepcopy(clip).requires_grad_(True)
    optimiser = torch.optim.SGD(clip.vision_model.parameters(), lr=1e-7, momentum=0.9)

    def texts() -> Tensor:
        tokens = tokenizer(prompts, return_tensors="pt", padding="max_length", truncation=True, max_length=77)
        output = clip.text_model(**{name: value.to(batch.images.device) for name, value in tokens.items()})
        return torch.cat([F.normalize(clip.text_projection(output.pooler_output)), others])

    def loss(images: Tensor) -> Tensor:
        logits = clip.logit_scale.exp() * F.normalize(images_of(clip, images)) @ (texts() if prompts else others).T
        return F.cross_entropy(logits, batch.leaves)

    def step() -> None:
        delta = torch.zeros_like(batch.images).uniform_(-ascent.eps, ascent.eps)
        delta = torch.max(torch.min(delta, 1 - batch.images), -batch.images).requires_grad_(True)
        for _ in range(ascent.steps):
            loss(batch.images + delta).backward()
            moved = (delta.detach() + ascent.step_size * delta.grad.sign()).clamp(-ascent.eps, ascent.eps)  # type: ignore[union-attr]
            delta.data = torch.max(torch.min(moved, 1 - batch.images), -batch.images)
            delta.grad = None
        optimiser.zero_grad()
        value = loss(batch.images + delta.detach())
        value.backward()
        optimiser.step()
        float(value.detach())

    return step


def fare(
    clip: Any, images_of: Callable[[Any, Tensor], Tensor], batch: Batch, ascent: Ascent, texts: Tensor
) -> Callable[[], None]:
    """One FARE step, without its evaluation: parameters keep needing gradients in the attack, which asks for that of
    the images alone; the tuned model's clean images are encoded with a graph and used for logging only.

    `texts` (K, D): unit embeddings of all classes, for the accuracies that are logged."""
    tuned, original = copy.deepcopy(clip).requires_grad_(True), copy.deepcopy(clip).requires_grad_(False)
    optimiser = torch.optim.AdamW(tuned.vision_model.parameters(), lr=1e-5, weight_decay=1e-4)

    def shift(embeddings: Tensor, targets: Tensor) -> Tensor:
        return F.mse_loss(embeddings, targets, reduction="none").sum(dim=1).mean()

    def attacked(images: Tensor, targets: Tensor) -> Tensor:
        delta, velocity = torch.zeros_like(images).uniform_(-ascent.eps, ascent.eps), torch.zeros_like(images)
        for _ in range(ascent.steps):
            delta = delta.detach().requires_grad_(True)
            (gradient,) = torch.autograd.grad(shift(images_of(tuned, images + delta), targets), delta)
            if gradient.isnan().any():
                gradient[gradient.isnan()] = 0.0
            velocity = (0.9 * velocity + gradient.sign()).sign()
            delta = (delta.detach() + ascent.step_size * velocity).clamp(-ascent.eps, ascent.eps)
            delta = (images + delta).clamp(0, 1) - images
        return images + delta

    def step() -> None:
        with torch.no_grad():
            targets = images_of(original, batch.images)
        adversarial = attacked(batch.images, targets)
        clean = images_of(tuned, batch.images)
        embeddings = images_of(tuned, adversarial)
        value = shift(embeddings, targets)
        value.backward()
        optimiser.step()
        optimiser.zero_grad()
        with torch.no_grad():
            for points in (clean, embeddings):
                float((F.normalize(points) @ texts.T).argmax(1).eq(batch.leaves).float().mean())
                float(F.cosine_similarity(points, targets).mean())
        float(value.detach())
        if batch.images.is_cuda:
            torch.cuda.empty_cache()

    return step
