"""The plan beside the wizard: what this recipe becomes on this machine, each value with its reason."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widgets import Static

from tui_ft import units
from tui_ft.recipe import Plan
from tui_ft.tui.text import MUTED, content, line
from tui_ft.tui.wizard.backstage import Finding

_PARTS = ("weights", "adapters", "gradients", "optimizer", "activations", "head", "overhead")
_BAR = 12
_YES_NO = {"True": "yes", "False": "no"}
_TIERS = {
    "lower-bound": "activations come on top",
    "estimate": "estimated",
    "traced": "traced on this model",
    "measured": "measured",
}


def plan_line(found: Finding[Plan], problems: int, busy: bool) -> Content:
    """The plan in one line, for where there is no room beside."""
    if problems:
        return Content.styled(f"Plan: waits for {problems} field{'s' if problems > 1 else ''} to be mended", "$text-error")
    if found.error:
        return Content.assemble(("Plan: ", MUTED), line(found.error, style="$text-error"))
    plan = found.value
    if plan is None:
        return Content.styled("Plan: …", MUTED)
    least = "≥ " if plan.tier == "lower-bound" else ""
    known = (
        [f"{least}{units.size(plan.memory.total_bytes)}"]
        if plan.memory.total_bytes
        else ["model not looked at yet" if not busy else "looking at the model"]
    )
    known.append(f"batch {plan.micro_batch} × {plan.accumulation}")
    known += [f"{plan.steps} steps"] if plan.steps else []
    known += [f"{units.size(plan.disk_bytes)} disk"] if plan.disk_bytes else []
    fit = {True: ("  fits", "$text-success"), False: ("  does not fit", "$text-error bold"), None: ("", "")}[plan.fits]
    warned = (f"  ! {len(plan.warnings)}", "$text-warning") if plan.warnings else ""
    return Content.assemble(("Plan: ", MUTED), " · ".join(known), fit, warned)


def plan_content(found: Finding[Plan], problems: int, facts_note: str = "") -> Content:
    """The whole plan, a value a line."""
    plan = found.value
    parts: list[Content] = []
    if problems:
        parts.append(
            Content.styled(
                f"{problems} field{'s' if problems > 1 else ''} to be mended first;\nthis is the plan with the last good values.\n", "$text-warning"
            )
        )
    if found.error:
        parts.append(content(f"✗ {found.error}", "$text-error"))
        if found.hint:
            parts.append(content(f"→ {found.hint}", MUTED))
        return Content("\n").join(parts)
    if plan is None:
        return Content("\n").join([*parts, Content.styled("not made yet", MUTED)])
    parts += [*_memory(plan, facts_note), Content(""), *_values(plan)]
    if plan.warnings:
        parts += [
            Content(""),
            Content.styled("Warnings", "bold $text-warning"),
            *(content(f"! {warning}", "$text-warning") for warning in plan.warnings),
        ]
    reasons = {key: reason for key, reason in plan.reasons.items() if reason != "set in the recipe"}
    if reasons:
        parts += [Content(""), Content.styled("Why", "bold")]
        parts += [Content.assemble((f"{key.replace('_', ' ')}: ", MUTED), content(reason)) for key, reason in reasons.items()]
    return Content("\n").join(parts)


def _memory(plan: Plan, facts_note: str) -> list[Content]:
    where = f"GPU {plan.gpu.index}" if plan.gpu else "main memory"
    head = Content.assemble(("Memory", "bold"), (f"  on {where}", MUTED))
    if not plan.memory.total_bytes:
        return [head, content(facts_note or "The model has not been looked at yet.", MUTED)]
    whole = max(plan.memory.total_bytes, plan.gpu.free_bytes if plan.gpu else 0)
    rows = [head, Content.styled(f"{plan.tier}: {_TIERS[plan.tier]}", MUTED)]
    for name in _PARTS:
        value = getattr(plan.memory, name)
        if value:
            rows.append(_bar(name, value, whole, "$primary"))
    colour = "$error" if plan.fits is False else "$success" if plan.fits else "$secondary"
    rows.append(_bar("total", plan.memory.total_bytes, whole, colour, "bold"))
    if plan.gpu:
        verdict = {True: "fits", False: "does not fit", None: "not known whether it fits"}[plan.fits]
        rows.append(
            Content.assemble(line(f"{units.size(plan.gpu.free_bytes)} free of {units.size(plan.gpu.total_bytes)}: "), (verdict, f"bold {colour}"))
        )
    return rows


def _bar(name: str, value: int, whole: int, colour: str, style: str = "") -> Content:
    cells = min(_BAR, max(1, round(_BAR * value / whole)))
    return Content.assemble(
        (f"{name:<12}", style or MUTED), ("█" * cells, colour), ("░" * (_BAR - cells), "$foreground 15%"), (f"{units.size(value):>11}", style)
    )


def _values(plan: Plan) -> list[Content]:
    rows = {
        "batch": f"{plan.micro_batch} × {plan.accumulation} = {plan.effective_batch}",
        "steps": f"{plan.steps:,}" if plan.steps else "after counting the rows",
        "precision": plan.precision,
        "optimizer": plan.optimizer,
        "packing": _YES_NO[str(plan.packing)],
        "attention": plan.attention,
        "recompute": _YES_NO.get(str(plan.activation_checkpointing), f"{plan.activation_checkpointing}"),
        "time": units.duration(plan.seconds) or "not known yet",
        "disk": units.size(plan.disk_bytes),
        "trained": _trained(plan),
    }
    return [Content.assemble((f"{name:<12}", MUTED), line(value)) for name, value in rows.items()]


def _trained(plan: Plan) -> str:
    if not plan.trainable_parameters or not plan.parameters:
        return "–"
    return f"{units.count(plan.trainable_parameters)} of {units.count(plan.parameters)} ({100 * plan.trainable_parameters / plan.parameters:.3g} %)"


class PlanPanel(VerticalScroll, can_focus=False):
    """The whole plan, scrollable, beside the step."""

    DEFAULT_CSS = """
    PlanPanel { width: 42; padding: 0 1; background: $surface; border-left: vkey $border; scrollbar-size-vertical: 1; }
    """

    def compose(self) -> ComposeResult:
        yield Static("", id="plan-text")

    def show(self, shown: Content) -> None:
        self.query_one("#plan-text", Static).update(shown)
