"""Which bridge from ImageNet features to sentence embeddings, and at which size of image?

    PHOTOS=FOLDER python benchmarks/encoder_bridge.py       # writes encoder_bridge.json

ConSE at several temperatures, the same without its softmax, and a ridge map W = (X'X + c I)^-1 X'Y from features to
the embedding of the class's prompt, on 2,000 training photographs (10 of each of the 200 classes). ConSE and the linear
map see no photograph; the ridge is fitted to the photographs with even numbers of 150 classes and measured on all those
with odd numbers. *Leaf*: right among all 200 classes; *levels*: mean over the 18 levels of the five trees, read by
their own prompts; *new*: photographs of the 50 other classes, right among those 50."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from encoder_photos import RECORD, SIDE, in_memory, split
from provenance import provenance
from torch import Tensor

from robustree.data.images import audited
from robustree.models import load
from robustree.tree_model import TEMPLATE, fill
from robustree.writing import write_whole

HERE = Path(__file__).parent
PHOTOGRAPHS = 2000
NAMES = {96: "efficientnet-minilm-96", 224: "efficientnet-minilm"}
TEMPERATURES = (0.5, 1.0, 2.0, 3.0, 4.0)
PENALTIES = (1.0, 10.0, 100.0, 1000.0, 10000.0)
SCALES = (5.0, 7.0, 9.0, 11.0, 15.0, 20.0)


def ridge(features: Tensor, targets: Tensor, penalty: float) -> Tensor:
    """W (F + 1, D) with |[X 1] W - Y|^2 + penalty |W|^2 minimal."""
    rows = torch.cat([features, features.new_ones(len(features), 1)], dim=1)
    return torch.linalg.solve(rows.T @ rows + penalty * torch.eye(rows.shape[1], dtype=rows.dtype), rows.T @ targets)


def measure(embeddings: Tensor, texts: Tensor, leaves: Tensor) -> dict[str, float]:
    """Accuracies of image embeddings (B, D) against the texts (N, D) of all nodes."""
    forest, new = RECORD.forest(), torch.tensor(split()[1].numbers)
    cosines = F.normalize(embeddings) @ F.normalize(texts).T
    levels = [
        float((cosines[:, list(cut.nodes)].argmax(dim=1) == torch.tensor(cut.of_leaf)[leaves]).float().mean())
        for cut in forest.cuts()
    ]
    own = torch.isin(leaves, new)
    right = new[cosines[own][:, new].argmax(dim=1)] == leaves[own]
    return {"leaf": levels[0], "levels": sum(levels) / len(levels), "new": float(right.float().mean())}


@torch.no_grad()
def bridges(side: int) -> list[dict[str, Any]]:
    """One row a bridge."""
    model = load(NAMES[side])
    encoder, forest = model.image_encoder, RECORD.forest()
    images = audited(in_memory("train.parquet"), SIDE).subset(PHOTOGRAPHS)
    bridge, encoder.projection = encoder.projection, torch.nn.Identity()
    features = torch.cat([encoder(images.pixels[part]) for part in torch.arange(len(images.ids)).split(100)])
    prompts = model.text_features(fill(TEMPLATE, forest.names))
    texts, logits, leaves = model.text_projection(prompts), bridge.classes(features), images.leaves  # type: ignore[operator]
    names = bridge.names.weight.T  # type: ignore[union-attr]
    rows = []
    for temperature in TEMPERATURES:
        embeddings = F.softmax(logits / temperature, dim=1) @ names  # type: ignore[operator]
        cosines = F.normalize(embeddings) @ F.normalize(texts[: forest.leaf_count]).T
        losses = {f"{scale:g}": float(F.cross_entropy(scale * cosines, leaves)) for scale in SCALES}
        figures = measure(embeddings, texts, leaves)
        rows.append({"bridge": "conse", "temperature": temperature, **figures, "loss_by_logit_scale": losses})
    rows.append({"bridge": "linear", **measure((logits - logits.mean(dim=1, keepdim=True)) @ names, texts, leaves)})  # type: ignore[operator]
    even = torch.arange(len(leaves)) % 2 == 0
    fitted = even & ~torch.isin(leaves, torch.tensor(split()[1].numbers))
    wide = torch.cat([features, features.new_ones(len(features), 1)], dim=1).double()
    for penalty in PENALTIES:
        weights = ridge(features[fitted].double(), texts[leaves[fitted]].double(), penalty)
        rows.append(
            {"bridge": "ridge", "penalty": penalty, **measure((wide @ weights).float()[~even], texts, leaves[~even])}
        )
    return [{"side": side, **row} for row in rows]


def main() -> None:
    torch.set_num_threads(1)
    rows = [row for side in NAMES for row in bridges(side)]
    content = {
        "rows": rows,
        "protocol": __doc__,
        **provenance("PHOTOS=FOLDER python benchmarks/encoder_bridge.py"),
    }
    write_whole(HERE / "encoder_bridge.json", json.dumps(content, indent=1) + "\n")
    for row in rows:
        print({name: round(value, 3) if isinstance(value, float) else value for name, value in row.items()})


if __name__ == "__main__":
    main()
