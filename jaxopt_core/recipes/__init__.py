"""The four scenarios as recipes: data, model, loss and metrics, ready for the loop."""

from jaxopt_core.recipes.optimizer import OPTIMIZERS, SCHEDULES, build_optimizer
from jaxopt_core.recipes.recipe import Recipe, build_recipe

__all__ = ["OPTIMIZERS", "SCHEDULES", "Recipe", "build_optimizer", "build_recipe"]
