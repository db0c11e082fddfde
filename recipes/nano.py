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
from pretraining import Descent, level_loss

from robustree.data.drawings import compose, quickstart_classes, quickstart_drawings
from robustree.models.huggingface import adapt
from robustree.models.loading import nano_directory
from robustree.models.nano import PREPROCESSING, RESOLUTION, build_nano, build_tokenizer
from robustree.taxonomy import shipped_forest
from robustree.tree_model import TEMPLATE, build_tree_model, fill
from robustree.writing import write_whole

TEMPLATES = (TEMPLATE, "a drawing of a {}", "a picture of a {}.", "{}", "an emoji of a {}")


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
    descent = Descent(model, options.lr)
    train, validation = quickstart_drawings("train"), quickstart_drawings("val")
    held = compose(validation, RESOLUTION, generator=torch.Generator().manual_seed(1), augment=False)
    started, step, progress = time.monotonic(), 0, 0.0
    while progress < 1:
        descent.set_rate(progress)
        generator = torch.Generator().manual_seed(options.seed * 10**9 + step)
        batch = train.take(torch.randint(len(train), (options.batch,), generator=generator))
        images = compose(batch, RESOLUTION, generator=generator, augment=True)
        embeddings = F.normalize(adapted.image_encoder(images))
        loss = level_loss(model, tokenizer, embeddings, forest, TEMPLATES, batch.leaves, generator)
        descent.step(loss, step)
        step += 1
        progress = (time.monotonic() - started) / (60 * options.minutes)
        if step % 500 == 0:
            with torch.no_grad():
                scores = build_tree_model(adapted, forest, images=held)(held)
            correct = (scores.at(forest.leaf_cut).argmax(1) == validation.leaves).float().mean()
            print(f"step {step}  {100 * progress:.0f} %  loss {loss.item():.3f}  validation {correct:.3f}", flush=True)
        if step % 1500 == 0:
            save(model, descent.average, tokenizer, options, step, time.monotonic() - started)
    save(model, descent.average, tokenizer, options, step, time.monotonic() - started)


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
