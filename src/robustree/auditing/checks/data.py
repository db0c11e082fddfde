"""S1 and S26: the audited images and their labels."""

from __future__ import annotations

from collections import Counter
from hashlib import sha256

import torch

from robustree.auditing.checks.case import Case, listed, where
from robustree.auditing.checks.check import Check, found
from robustree.data import AuditImages, batches
from robustree.models.encoder import ImageEncoder
from robustree.taxonomy import Forest

BATCH = 256
"""Images in memory at a time."""
GREY = 1 / 255
DARKEST = 2 * GREY
"""The brightest pixel of a data set that was divided by 255 twice."""


def pixels(images: AuditImages) -> Check:
    """S1: are these images (N, 3, H, W) in [0, 1]?"""
    given = images.pixels[:1]
    if not given.is_floating_point() or given.ndim != 4 or given.shape[1] != 3:
        shape = f"{str(given.dtype).removeprefix('torch.')} of shape {(len(images.pixels), *given.shape[1:])}"
        return found(
            "S1", "", "fail", shape, f"the images are {shape}: give floats (N, 3, H, W), bytes divided by 255."
        )
    ranges, outside = [], []
    for start in range(0, len(images.ids), BATCH):
        batch = images.pixels[start : start + BATCH]
        ranges.append((batch.min(), batch.max()))
        bad = ((batch < 0) | (batch > 1) | ~batch.isfinite()).flatten(1).any(1)
        outside += [start + position for position in where(bad).tolist()]
    lows, highs = torch.tensor(ranges).unbind(1)
    low, high = float(lows.min()), float(highs.max())
    figure = f"{low:.4g} to {high:.4g}"
    if outside:
        names = ", ".join(images.ids[i] for i in outside[:3])
        return found(
            "S1",
            "",
            "fail",
            figure,
            f"{len(outside)} of {len(images.ids)} images ({names}) leave [0, 1], the pixels being {figure}: divide "
            "bytes by 255 once, and leave normalisation to the model.",
        )
    if high <= DARKEST:
        return found("S1", "", "fail", figure, f"no pixel is above {high:.2g}: the images were divided by 255 twice.")
    return found("S1", "", "pass", figure, f"{len(images.ids)} images of {str(given.dtype)[6:]} pixels from {figure}.")


def pictures(images: AuditImages, forest: Forest, cases: tuple[Case, ...]) -> Check:
    """S26: is every image once there, with a label that exists, and how is it brought to the model's size?"""
    n = len(images.ids)
    double = [name for name, count in Counter(images.ids).items() if count > 1]
    if double:
        return found("S26", "", "fail", len(double), f"ids occur twice ({listed(double)}): give every image its own.")
    strange = [images.ids[i] for i in range(n) if not 0 <= int(images.leaves[i]) < forest.leaf_count]
    if strange:
        return found(
            "S26",
            "",
            "fail",
            len(strange),
            f"{listed(strange)} have labels outside 0 to {forest.leaf_count - 1}: labels count leaves.",
        )
    first: dict[str, int] = {}
    twice, conflicts = [], []
    pictures = (picture for batch in batches(images.pixels, BATCH) for picture in batch)
    for i, picture in enumerate(pictures):
        digest = sha256(picture.contiguous().cpu().numpy().tobytes()).hexdigest()
        other = first.setdefault(digest, i)
        if other != i:
            pair = f"{images.ids[other]} = {images.ids[i]}"
            (twice if images.leaves[i] == images.leaves[other] else conflicts).append(pair)
    if conflicts:
        return found(
            "S26",
            "",
            "fail",
            len(conflicts),
            f"one picture has two labels ({listed(conflicts)}), so one of them is always wrong: remove it.",
        )
    if twice:
        return found(
            "S26",
            "",
            "flag",
            len(twice),
            f"pictures occur twice ({listed(twice)}): keep one, or intervals are too narrow.",
        )
    per_class = torch.bincount(images.leaves, minlength=forest.leaf_count)
    for tree in forest.trees[:1]:
        coarsest = forest.cut(tree.name, tree.depth)
        seen = {coarsest.of_leaf[leaf] for leaf in images.leaves.tolist()}
        empty = [forest.names[node] for k, node in enumerate(coarsest.nodes) if k not in seen]
        if empty:
            return found(
                "S26",
                "",
                "flag",
                len(empty),
                f"no image shows {listed(empty)} of {coarsest.label}: take more images, or leave the classes out.",
            )
    return found(
        "S26",
        "",
        "pass",
        n,
        f"{n} different pictures, {int(per_class.min())} to {int(per_class.max())} a class, {_sizes(images, cases)}; "
        "an overlap with training images is not checked, as checkpoints hold no hashes of these.",
    )


def _sizes(images: AuditImages, cases: tuple[Case, ...]) -> str:
    height, width = images.pixels[:1].shape[-2:]
    sides = {
        module.preprocessing.resolution
        for case in cases
        for module in case.subject.model.modules()
        if isinstance(module, ImageEncoder)
    }
    inside = sorted(side for side in sides if (height, width) != (side, side))
    if inside:
        return f"{height} x {width}, resized to {', '.join(map(str, inside))} inside the attacked function"
    return f"{height} x {width}, as the models see them (any resizing came before the attack)"
