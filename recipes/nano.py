"""Train the built-in model: `python recipes/nano.py --minutes 60` writes src/robustree/models/nano.

Data: the training artists of the embedded emoji set (Noto, Noto v1, three Fluent styles, FxEmoji) without its
validation drawings; Twemoji and EmojiOne are never seen. Loss: cross-entropy of scaled cosines between each image and
the prompts of all nodes of a cut, at the leaf and at one random level of one random tree, with a random template,
both towers trained. So the model knows "mammal" as well as "fox", as a CLIP trained on captions does. Muon for the
matrices of both towers, AdamW for the rest."""

from __future__ import annotations

import argparse
import copy
import json
import math
import platform
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from transformers import CLIPModel

from robustree.data.drawings import compose, quickstart_classes, quickstart_drawings
from robustree.models.huggingface import adapt
from robustree.models.loading import nano_directory
from robustree.models.nano import PREPROCESSING, RESOLUTION, build_nano, build_tokenizer
from robustree.taxonomy import Cut, shipped_forest
from robustree.tree_model import TEMPLATE, build_tree_model, fill
from robustree.writing import write_whole

TEMPLATES = (TEMPLATE, "a drawing of a {}", "a picture of a {}.", "{}", "an emoji of a {}")
SMOOTHING = 0.1
CANDIDATES = 96  # prompts in one softmax: all 262 leaves at every step would cost as much as the images


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--lr", type=float, default=5e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=nano_directory())
    options = parser.parse_args()

    forest = shipped_forest("emoji", quickstart_classes())
    torch.manual_seed(options.seed)
    tokenizer = build_tokenizer({prompt for template in TEMPLATES for prompt in fill(template, forest.names)})
    model = build_nano(tokenizer)
    with torch.no_grad():
        model.logit_scale.fill_(math.log(10))
    adapted = adapt(model, tokenizer, preprocessing=PREPROCESSING, name="nano")
    optimisers = optimisers_of(model, options.lr)
    peaks = [(group, group["lr"]) for optimiser in optimisers for group in optimiser.param_groups]
    train, validation = quickstart_drawings("train"), quickstart_drawings("val")
    held = compose(validation, RESOLUTION, generator=torch.Generator().manual_seed(1), augment=False)
    average = [p.detach().clone() for p in model.parameters()]
    started, step, progress = time.monotonic(), 0, 0.0
    while progress < 1:
        for group, peak in peaks:
            group["lr"] = peak * min(1, progress / 0.03) * (1 + math.cos(math.pi * progress)) / 2
        generator = torch.Generator().manual_seed(options.seed * 10**9 + step)
        batch = train.take(torch.randint(len(train), (options.batch,), generator=generator))
        images = compose(batch, RESOLUTION, generator=generator, augment=True)
        embeddings = F.normalize(adapted.image_encoder(images))
        template = TEMPLATES[int(torch.randint(len(TEMPLATES), (1,), generator=generator))]
        upper = forest.cuts()[1 + int(torch.randint(len(forest.cuts()) - 1, (1,), generator=generator))]
        loss = torch.tensor(0.0)
        for cut, weight in ((forest.leaf_cut, 1.0), (upper, 0.5)):
            scored = cut_logits(model, tokenizer, embeddings, forest.names, cut, template, batch.leaves, generator)
            loss = loss + weight * F.cross_entropy(*scored, label_smoothing=SMOOTHING)
        for optimiser in optimisers:
            optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimiser in optimisers:
            optimiser.step()
        with torch.no_grad():
            decay = min(0.998, (1 + step) / (10 + step))
            for mean, parameter in zip(average, model.parameters(), strict=True):
                mean.lerp_(parameter, 1 - decay)
        step += 1
        progress = (time.monotonic() - started) / (60 * options.minutes)
        if step % 500 == 0:
            with torch.no_grad():
                scores = build_tree_model(adapted, forest, images=held)(held)
            correct = (scores.at(forest.leaf_cut).argmax(1) == validation.leaves).float().mean()
            print(f"step {step}  {100 * progress:.0f} %  loss {loss.item():.3f}  validation {correct:.3f}", flush=True)
        if step % 1500 == 0:
            save(model, average, tokenizer, options, step, time.monotonic() - started)
    save(model, average, tokenizer, options, step, time.monotonic() - started)


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


def cut_logits(
    model: CLIPModel, tokenizer, embeddings, names, cut: Cut, template: str, leaves, generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """scale * cos between images (B, D) and the prompts of the batch's nodes and some others of the cut, and the
    column (B,) of each image's own node."""
    own, labels = torch.tensor(cut.of_leaf)[leaves].unique(return_inverse=True)
    others = torch.randperm(len(cut.nodes), generator=generator)
    others = others[~torch.isin(others, own)][: max(0, CANDIDATES - len(own))]
    chosen = [names[cut.nodes[position]] for position in torch.cat([own, others]).tolist()]
    tokens = tokenizer(fill(template, chosen), return_tensors="pt", padding=True)
    texts = F.normalize(model.text_projection(model.text_model(**tokens).pooler_output))
    return model.logit_scale.exp() * embeddings @ texts.T, labels


def save(model, average, tokenizer, options, steps: int, seconds: float) -> None:
    """The averaged weights as a model directory, with the record of training and the accuracies on both splits."""
    model = copy.deepcopy(model)
    with torch.no_grad():
        for mean, parameter in zip(average, model.parameters(), strict=True):
            parameter.copy_(mean)
    adapted = adapt(model, tokenizer, preprocessing=PREPROCESSING, name="nano")
    forest = shipped_forest("emoji", quickstart_classes())
    options.output.mkdir(parents=True, exist_ok=True)
    adapted.save(options.output)
    record = {
        "command": f"python recipes/nano.py --minutes {options.minutes:g} --batch {options.batch} "
        f"--lr {options.lr:g} --seed {options.seed}",
        "steps": steps,
        "seconds": round(seconds),
        "parameters": sum(p.numel() for p in model.parameters()),
        "machine": f"{platform.machine()}, {torch.get_num_threads()} thread(s), torch {torch.__version__}",
        "clean_accuracy": {},
    }
    for split in ("val", "test"):
        drawings = quickstart_drawings(split)
        images = compose(drawings, RESOLUTION, generator=torch.Generator().manual_seed(1), augment=False)
        with torch.no_grad():
            scores = build_tree_model(adapted, forest, images=images)(images)
        record["clean_accuracy"][split] = {
            cut.label: round(
                float((scores.at(cut).argmax(1) == torch.tensor(cut.of_leaf)[drawings.leaves]).float().mean()), 4
            )
            for cut in forest.cuts()
        }
    write_whole(options.output / "training.json", json.dumps(record, indent=2) + "\n")
    print(
        f"saved {options.output}: leaf accuracy {record['clean_accuracy']['val']['leaf']:.3f} on validation", flush=True
    )


if __name__ == "__main__":
    main()
