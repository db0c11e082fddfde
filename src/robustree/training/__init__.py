"""Training: a recipe, the six-line step, and the loop that is the same for every method."""

from robustree.training.harden import harden, recipe_record
from robustree.training.loop import NonFiniteError, Progress, train
from robustree.training.recipe import Recipe, hierarchical_recipe
from robustree.training.runtime import Runtime
from robustree.training.step import frozen_parameters, training_step

__all__ = [
    "NonFiniteError",
    "Progress",
    "Recipe",
    "Runtime",
    "frozen_parameters",
    "harden",
    "hierarchical_recipe",
    "recipe_record",
    "train",
    "training_step",
]
