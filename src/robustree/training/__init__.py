"""Training: a recipe, the six-line step, and the loop that is the same for every method."""

from robustree.training.errors import ChangedCourseWarning, NonFiniteError, NotEnoughMemoryError, StoppedError
from robustree.training.harden import harden, recipe_record
from robustree.training.loop import Progress, train
from robustree.training.recipe import Recipe, hierarchical_recipe
from robustree.training.runtime import Runtime
from robustree.training.step import frozen_parameters, training_step

__all__ = [
    "ChangedCourseWarning",
    "NonFiniteError",
    "NotEnoughMemoryError",
    "Progress",
    "Recipe",
    "Runtime",
    "StoppedError",
    "frozen_parameters",
    "harden",
    "hierarchical_recipe",
    "recipe_record",
    "train",
    "training_step",
]
