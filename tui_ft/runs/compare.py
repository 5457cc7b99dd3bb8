"""Several runs beside each other: only the settings that differ, and what came of them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from tui_ft.errors import RequestError, TuiFtError
from tui_ft.recipe import files
from tui_ft.runs.store import Run
from tui_ft.runs.summary import Summary, summarize

PLANNED = (
    "micro_batch",
    "accumulation",
    "precision",
    "optimizer",
    "packing",
    "length_grouped",
    "attention",
    "activation_checkpointing",
    "fused_lora",
)
"""What the planner resolved and a difference may come from; named `plan.…` beside the recipe's keys."""
NAMES = ("name", "about", "version")
"""What a recipe says of itself, and no setting."""


@dataclass(frozen=True)
class Comparison:
    """Runs with their summaries, and the settings in which they are not all alike."""

    runs: list[Run]
    summaries: list[Summary]
    differs: dict[str, list[Any]] = field(default_factory=dict)
    """By dotted key, the value in each run; None also where a run's recipe cannot be read."""


def compare(runs: Sequence[Run]) -> Comparison:
    """Set runs beside each other.

    Raises:
        RequestError: fewer than two different ones.
    """
    chosen = list({run.id: run for run in runs}.values())
    if len(chosen) < 2:
        raise RequestError("one run cannot be compared with itself", "Name two runs or more; `tui-ft runs` lists them.")
    settings = [settings_of(run) for run in chosen]
    keys = list(dict.fromkeys(key for each in settings for key in each))
    values = {key: [each.get(key) for each in settings] for key in keys}
    differs = {key: found for key, found in values.items() if any(value != found[0] for value in found)}
    return Comparison(chosen, [summarize(run) for run in chosen], differs)


def settings_of(run: Run) -> dict[str, Any]:
    """The settings of a run by dotted key, the recipe's and the plan's; nothing where they cannot be read."""
    found: dict[str, Any] = {}
    with suppress(TuiFtError):
        tree = run.recipe().model_dump(mode="json")
        for key in files.known_keys():
            section, _, leaf = key.rpartition(".")
            value = tree[section][leaf] if section else tree[leaf]
            if key not in NAMES and not (isinstance(value, dict) and not section):
                found[key] = value
    with suppress(TuiFtError):
        plan = run.plan()
        found |= {f"plan.{name}": getattr(plan, name) for name in PLANNED}
    return found
