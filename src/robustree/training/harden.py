"""From a pretrained model to a hardened checkpoint: load, build the tree model, train, save."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from robustree.checkpoint import save_checkpoint
from robustree.data import DataSet
from robustree.models import VisionLanguageModel
from robustree.taxonomy import Forest
from robustree.training.loop import Progress, train
from robustree.training.order import first_images
from robustree.training.recipe import Recipe
from robustree.training.runtime import Runtime
from robustree.tree_model import TreeModel, build_tree_model

_CALIBRATION = 64  # images that set the scale of the embedding norm and of the logits


def harden(
    model: VisionLanguageModel,
    data: DataSet,
    forest: Forest,
    recipe: Recipe,
    directory: Path,
    *,
    runtime: Runtime | None = None,
    save_every: int = 50,
    report: Callable[[Progress], None] = lambda progress: None,
    stop: Callable[[], bool] = lambda: False,
) -> TreeModel:
    """Harden `model` (in place) by `recipe` on `data` over `forest`; `directory` becomes a checkpoint that
    transformers opens.

    An interrupted run resumes from `directory`. A `stop` saves the state and leaves without a checkpoint.
    """
    runtime = runtime or Runtime()
    size = model.image_encoder.preprocessing.resolution
    images = data.training(size)
    generator = torch.Generator().manual_seed(recipe.seed)
    sample = first_images(recipe, images, _CALIBRATION, generator)
    tree_model = build_tree_model(
        model,
        forest,
        images=images.images(sample, generator),
        space=recipe.space,
        depths=recipe.depths,
        scale=recipe.scale,
        template=recipe.template,
    )

    def finish() -> None:
        record = {"recipe": recipe_record(recipe), "data": data.name, "model": model.name}
        save_checkpoint(directory, model, tree_model, template=recipe.template, record=record)

    train(
        tree_model,
        recipe,
        images,
        directory=directory,
        runtime=runtime,
        save_every=save_every,
        report=report,
        stop=stop,
        finish=finish,
    )
    return tree_model.requires_grad_(False)


def recipe_record(recipe: Recipe) -> dict[str, Any]:
    """A recipe as JSON values, the kinds of method and space named."""
    record = asdict(recipe)
    record["method"] = {"kind": type(recipe.method).__name__} | record["method"]
    record["space"] = {"kind": recipe.space.name} | record["space"]
    return record
