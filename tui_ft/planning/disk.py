"""What a run leaves on the disk at most."""

from __future__ import annotations

from tui_ft.planning import memory
from tui_ft.planning.model_facts import ModelFacts
from tui_ft.recipe.plan import Memory
from tui_ft.recipe.schema import Recipe


def run_bytes(recipe: Recipe, facts: ModelFacts, need: Memory, precision: str) -> tuple[int, int]:
    """Bytes of all that is kept at the fullest moment (checkpoints, their ZIPs, the final model and its copy), and those of the copy in output.dir.

    `need` is the lower bound of the same run's memory: what is trained there is what is saved here.
    """
    saved = need.adapters or need.weights  # an adapter alone, else the whole model
    checkpoint = saved + need.optimizer
    count = recipe.checkpoints.keep + 1  # the best one, kept besides
    zips = count if recipe.checkpoints.zip else 0
    final = facts.total * memory.WIDTH[precision] if recipe.output.merge and need.adapters else saved
    copy = final if recipe.output.dir else 0
    return (count + zips) * checkpoint + final + copy, copy
