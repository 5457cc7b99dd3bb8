"""The plan beside the wizard: what this recipe becomes on this machine, each value with its reason."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widgets import Static

from tui_ft import units
from tui_ft.recipe import Plan
from tui_ft.tui.text import MUTED, content, line
from tui_ft.tui.widgets import memory_bar
from tui_ft.tui.widgets.memory_bar import MemoryBar, MemoryView
from tui_ft.tui.wizard.finding import Finding

if TYPE_CHECKING:
    from tui_ft.hardware import Hardware

LINE_CELLS = 16
"""Of the bar in the one line that stands for the plan where there is no room beside."""
_YES_NO = {"True": "yes", "False": "no"}


@dataclass(frozen=True)
class Known:
    """What is shown of the plan: the plan itself, and what was found out around it."""

    found: Finding[Plan]
    memory: MemoryView | None
    machine: Hardware | None
    problems: int = 0
    """Fields that hold nothing usable."""
    looking: bool = False
    """The model is being looked at."""
    trouble: str = ""
    """Why the model or its memory cannot be told of."""
    disk_free: int | None = None
    moved: str = ""
    """That the free memory has changed since the last plan."""


def plan_line(known: Known) -> Content:
    """The plan in one line, for where there is no room beside."""
    found, plan = known.found, known.found.value
    if known.problems:
        return Content.styled(f"Plan: waits for {_fields(known.problems)} to be mended", "$text-error")
    if found.error:
        return Content.assemble(("Plan: ", MUTED), line(found.error, style="$text-error"))
    if plan is None:
        return Content.styled("Plan: …", MUTED)
    facts = [f"batch {plan.batch_words}"]
    facts += [f"{plan.steps} steps"] if plan.steps else []
    facts += [units.duration(plan.seconds)] if plan.seconds else []
    facts += [f"{units.size(plan.disk_bytes)} disk"] if plan.disk_bytes else []
    warned = (f"  ! {len(plan.warnings)}", "$text-warning") if plan.warnings else ""
    return Content.assemble(("Plan ", MUTED), _memory_line(known), (" · ", MUTED), " · ".join(facts), warned)


def _memory_line(known: Known) -> Content:
    shown = known.memory
    if shown is None or not shown.plan.memory.total_bytes:
        return Content("looking at the model" if known.looking else "model not looked at yet")
    plan, made = shown.plan, memory_bar.layout(shown.plan, known.machine)
    least = "≥ " if plan.tier == "lower-bound" else ""
    need, free = units.size(made.need), units.size(made.free)
    number, _, unit = need.partition(" ")
    sizes = f" {least}{number if free.endswith(f' {unit}') else need} of {free}"
    if shown.faded:
        return Content.assemble(memory_bar.bar(made, LINE_CELLS, True), (sizes, memory_bar.FADED), ("  estimating", "$text-warning"))
    fit = {True: ("  fits", "$text-success"), False: ("  does not fit", "$text-error bold"), None: ("", "")}[plan.fits]
    tier = "" if plan.tier == "lower-bound" else f" {memory_bar.SHORT_TIERS[plan.tier]}"
    return Content.assemble(memory_bar.bar(made, LINE_CELLS), sizes, (tier, MUTED), fit)


def plan_head(known: Known) -> Content:
    """What stands above the memory: what is wrong, and that there is no memory to show yet."""
    parts: list[Content] = []
    if known.problems:
        parts.append(Content.styled(f"{_fields(known.problems)} to be mended first;\nthis is the plan with the last good values.\n", "$text-warning"))
    if known.found.error:
        parts.append(content(f"✗ {known.found.error}", "$text-error"))
        parts += [content(f"→ {known.found.hint}", MUTED)] if known.found.hint else []
    elif known.found.value is None:
        parts.append(Content.styled("not made yet", MUTED))
    elif known.memory is None or not known.memory.plan.memory.total_bytes:
        parts += [Content.styled("Memory", "bold"), content(known.trouble or "The model has not been looked at yet.", MUTED)]
    elif known.trouble:
        parts.append(content(f"! {known.trouble}", "$text-warning"))
    return Content("\n").join(parts)


def plan_content(known: Known) -> Content:
    """The plan below its memory, a value a line; empty without a plan."""
    plan = known.found.value
    if plan is None or known.found.error:
        return Content("")
    parts = [content(f"! {known.moved}", "$text-warning")] if known.moved else []
    parts += [Content(""), *_values(plan, known.disk_free)]
    if plan.warnings:
        parts += [
            Content(""),
            Content.styled("Warnings", "bold $text-warning"),
            *(content(f"! {warning}", "$text-warning") for warning in plan.warnings),
        ]
    if plan.options:
        parts += [Content(""), Content.styled("Other settings", "bold")]
        parts += [content(f"{'→' if option.remedy else '·'} {option.text}", "" if option.remedy else MUTED) for option in plan.options]
    reasons = {key: reason for key, reason in plan.reasons.items() if reason != "set in the recipe"}
    if reasons:
        parts += [Content(""), Content.styled("Why", "bold")]
        parts += [Content.assemble((f"{key.replace('_', ' ')}: ", MUTED), content(reason)) for key, reason in reasons.items()]
    return Content("\n").join(parts)


def _fields(count: int) -> str:
    return f"{count} field{'s' if count > 1 else ''}"


def _values(plan: Plan, disk_free: int | None) -> list[Content]:
    rows = {
        "batch": f"{plan.effective_batch} = {plan.batch_words}",
        "steps": f"{plan.steps:,}" if plan.steps else "after counting the rows",
        **({"tokens": f"{units.count(plan.tokens_per_step)} a step"} if plan.tokens_per_step else {}),
        "precision": plan.precision,
        "optimizer": plan.optimizer,
        "batching": "packed" if plan.packing else "like lengths" if plan.length_grouped else "padded",
        "attention": plan.attention,
        "recompute": _YES_NO.get(str(plan.activation_checkpointing), f"{plan.activation_checkpointing}"),
        "time": _time(plan),
        "disk": units.size(plan.disk_bytes) + (f" of {units.size(disk_free)} free" if plan.disk_bytes and disk_free is not None else ""),
        "trained": _trained(plan),
    }
    return [Content.assemble((f"{name:<12}", MUTED), line(value)) for name, value in rows.items()]


def _time(plan: Plan) -> str:
    """`1 h 10 min (50 min to 1 h 40 min)`."""
    if plan.seconds is None:
        return "not known yet"
    likely = f" ({units.duration(plan.seconds_range[0])} to {units.duration(plan.seconds_range[1])})" if plan.seconds_range else ""
    return units.duration(plan.seconds) + likely


def _trained(plan: Plan) -> str:
    if not plan.trainable_parameters or not plan.parameters:
        return "–"
    return f"{units.count(plan.trainable_parameters)} of {units.count(plan.parameters)} ({100 * plan.trainable_parameters / plan.parameters:.3g} %)"


class PlanPanel(VerticalScroll, can_focus=False):
    """The whole plan, scrollable, beside the step."""

    DEFAULT_CSS = """
    PlanPanel { width: 42; padding: 0 1; background: $surface; border-left: vkey $border; scrollbar-size-vertical: 1; scrollbar-gutter: stable; }
    """

    def compose(self) -> ComposeResult:
        yield Static("", id="plan-head", markup=False)
        yield MemoryBar(id="plan-memory")
        yield Static("", id="plan-text", markup=False)

    def show(self, known: Known) -> None:
        head = plan_head(known)
        self.query_one("#plan-head", Static).update(head)
        self.query_one("#plan-head", Static).display = bool(head.plain)
        self.query_one(MemoryBar).show(None if known.found.error else known.memory, known.machine)
        self.query_one("#plan-text", Static).update(plan_content(known))
