"""What `auto` stands for, in the words of the form."""

from __future__ import annotations

from tui_ft.recipe import Plan
from tui_ft.tui.draft import Draft


def resolved(key: str, draft: Draft, plan: Plan | None) -> str:
    """What `auto` has become for a key that the planner decides; empty where it is not `auto`, or nothing is known yet."""
    if plan is None or draft.value(key) != "auto":
        return ""
    if key == "hardware.gpus":
        return plan.gpu.name if plan.gpu else "no GPU"
    section, _, leaf = key.rpartition(".")
    value = getattr(plan, leaf, None) if section == "train" else None
    return {True: "yes", False: "no", None: ""}[value] if value is None or isinstance(value, bool) else str(value)
