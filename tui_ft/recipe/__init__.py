"""Recipes, presets and plans: the words in which everything else speaks about a run."""

from tui_ft.recipe.plan import Gpu, Memory, Plan
from tui_ft.recipe.schema import Recipe

__all__ = ["Gpu", "Memory", "Plan", "Recipe"]
