"""Train a small CLIP on photographs from nothing, for benchmarks/photos.py:

    python recipes/photographs.py --data tiny_imagenet=PATH --output benchmarks/runs/photos/plain

Data: the 20,000 training photographs of 200 classes without every tenth, which are the validation split. Loss: as in
nano.py. Where the processor multiplies bfloat16 faster, `--bf16` halves
the time; losses stay fp32."""

from __future__ import annotations

import argparse
import json
import math
import platform
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from pretraining import Descent, level_loss
from torch import Tensor

from robustree.data.catalog import open_data
from robustree.data.images import Augmented
from robustree.models.huggingface import adapt
from robustree.models.nano import PREPROCESSING, RESOLUTION, build_nano, build_tokenizer
from robustree.taxonomy import Forest
from robustree.tree_model import TEMPLATE, TreeModel, build_tree_model, fill
from robustree.writing import write_whole

TEMPLATES = (TEMPLATE, "a photo of a {}.", "{}", "a picture of a {}", "a blurry photo of a {}.")
SIDE = 64  # of the files
HELD_OUT = 10
"""Every tenth photograph of a class is for validation."""


@dataclass(frozen=True)
class Photographs:
    """Decoded photographs: `pixels` (N, 3, 64, 64) uint8 and `leaves` (N,)."""

    pixels: Tensor
    leaves: Tensor

    def take(self, index: Tensor) -> Photographs:
        return Photographs(self.pixels[index], self.leaves[index])

    def images(self) -> Tensor:
        """(N, 3, 48, 48) in [0, 1], as they are."""
        return F.interpolate(self.pixels.float() / 255, size=RESOLUTION, mode="bilinear", antialias=True)


def validation_positions(leaves: Tensor) -> Tensor:
    """Positions of the validation photographs: every tenth of each class, in the order of the file."""
    return torch.cat([(leaves == leaf).nonzero()[::HELD_OUT, 0] for leaf in leaves.unique()]).sort().values


def split(data: str) -> tuple[Photographs, Photographs]:
    """The photographs to train on, and those for validation."""
    training = open_data(data).training(SIDE)
    if not isinstance(training, Augmented):
        raise ValueError(f"data is {data!r}; give the files of tiny_imagenet: tiny_imagenet=PATH.")
    parts = torch.arange(len(training.leaves)).split(500)
    pixels = torch.cat([(training.pixels[part] * 255).round().to(torch.uint8) for part in parts])
    held = torch.zeros(len(pixels), dtype=torch.bool)
    held[validation_positions(training.leaves)] = True
    whole = Photographs(pixels, training.leaves)
    return whole.take((~held).nonzero()[:, 0]), whole.take(held.nonzero()[:, 0])


def augmented(photographs: Photographs, generator: torch.Generator) -> Tensor:
    """(B, 3, 48, 48) in [0, 1]: a random part of 35 to 100 % of each photograph, mirrored, with other light and
    colours."""
    count = len(photographs.leaves)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(count, *shape, generator=generator)

    area, ratio = uniform(0.35, 1.0), torch.exp(uniform(math.log(3 / 4), math.log(4 / 3)))
    width, height = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
    x, y = (1 - width) * uniform(-1, 1), (1 - height) * uniform(-1, 1)
    mirror, zero = torch.sign(uniform(-1, 1)), torch.zeros(count)
    affine = torch.stack([torch.stack([width * mirror, zero, x], 1), torch.stack([zero, height, y], 1)], 1)
    grid = F.affine_grid(affine, [count, 3, RESOLUTION, RESOLUTION], align_corners=False)
    images = F.grid_sample(photographs.pixels.float() / 255, grid, padding_mode="reflection", align_corners=False)
    grey = images.mean(1, keepdim=True)
    images = grey + (images - grey) * uniform(0.5, 1.5, 1, 1, 1)
    mean = images.mean((1, 2, 3), keepdim=True)
    return ((images - mean) * uniform(0.6, 1.4, 1, 1, 1) + mean + uniform(-0.15, 0.15, 1, 1, 1)).clamp(0, 1)


@torch.no_grad()
def accuracies(tree_model: TreeModel, forest: Forest, photographs: Photographs) -> dict[str, float]:
    """Clean accuracy at every cut."""
    nodes = torch.cat([tree_model(part).nodes for part in photographs.images().split(250)])
    truth = {cut.label: torch.tensor(cut.of_leaf)[photographs.leaves] for cut in forest.cuts()}
    return {
        cut.label: round(float((nodes[:, list(cut.nodes)].argmax(1) == truth[cut.label]).float().mean()), 4)
        for cut in forest.cuts()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--bf16", action="store_true")
    options = parser.parse_args()
    started = time.process_time()
    forest = open_data(options.data).forest(None)
    train, validation = split(options.data)
    torch.manual_seed(options.seed)
    tokenizer = build_tokenizer({prompt for template in TEMPLATES for prompt in fill(template, forest.names)})
    model = build_nano(tokenizer, patch_size=8)
    with torch.no_grad():
        model.logit_scale.fill_(math.log(10))
    adapted = adapt(model, tokenizer, preprocessing=PREPROCESSING, name="photos")
    fit(adapted, model, tokenizer, forest, train, validation, options)
    options.output.mkdir(parents=True, exist_ok=True)
    adapted.save(options.output)
    record = {
        "command": f"python recipes/photographs.py --data tiny_imagenet=PATH --output PATH --steps {options.steps} "
        f"--batch {options.batch} --lr {options.lr:g} --seed {options.seed}{' --bf16' if options.bf16 else ''}",
        "cpu_seconds": round(time.process_time() - started),
        "parameters": sum(p.numel() for p in model.parameters()),
        "machine": f"{platform.machine()}, {torch.get_num_threads()} thread(s), torch {torch.__version__}",
        "validation": accuracies(build_tree_model(adapted, forest, images=validation.images()), forest, validation),
    }
    write_whole(options.output / "training.json", json.dumps(record, indent=2) + "\n")
    print(json.dumps(record["validation"]), flush=True)


def fit(adapted, model, tokenizer, forest: Forest, train: Photographs, validation: Photographs, options) -> None:
    """Train the model in place; it ends with the running mean of its weights."""
    descent = Descent(model, options.lr)
    for step in range(options.steps):
        descent.set_rate(step / options.steps)
        generator = torch.Generator().manual_seed(options.seed * 10**9 + step)
        batch = train.take(torch.randint(len(train.leaves), (options.batch,), generator=generator))
        images = augmented(batch, generator)
        with torch.autocast("cpu", torch.bfloat16, enabled=options.bf16):
            embeddings = F.normalize(adapted.image_encoder(images).float())
            loss = level_loss(model, tokenizer, embeddings, forest, TEMPLATES, batch.leaves, generator)
        descent.step(loss, step)
        if step % 250 == 249:
            found = accuracies(build_tree_model(adapted, forest, images=validation.images()), forest, validation)
            print(f"step {step + 1}  loss {loss.item():.3f}  validation {found['leaf']:.3f}", flush=True)
    with torch.no_grad():
        for mean, parameter in zip(descent.average, model.parameters(), strict=True):
            parameter.copy_(mean)


if __name__ == "__main__":
    main()
