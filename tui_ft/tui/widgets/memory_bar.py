"""The memory of a plan as one bar: what each part of a training step takes, what others hold, what stays free.

Each cell carries its part's sign as well as its colour, so that it reads the same without colours, in ASCII, and in a screenshot.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from textual.content import Content
from textual.geometry import Size
from textual.widget import Widget

from tui_ft import units
from tui_ft.recipe import Plan
from tui_ft.tui.text import MUTED, line

if TYPE_CHECKING:
    from tui_ft.hardware import Hardware

OURS = {
    "weights": ("W", "$primary"),
    "adapters": ("+", "$accent"),
    "gradients": ("G", "$primary 60%"),
    "optimizer": ("O", "$secondary"),
    "activations": ("A", "$success"),
    "head": ("H", "$accent"),
    "context": ("C", "$foreground 50%"),
    "safety": ("S", "$foreground 35%"),
}
"""The parts of `Memory` in the order in which they come to be, with sign and colour."""
NOT_OURS = {"others": ("x", "$error"), "not counted yet": ("?", ""), "free": (".", "")}
FADED = "$foreground 45%"
"""Of a value that is being replaced."""
MOST_CELLS, LEGEND_CELLS = 96, 25
TIERS = {
    "lower-bound": "at least: activations and logits come on top",
    "estimate": "estimate, from traces of such models",
    "traced": "traced on this very model",
    "measured": "measured on this GPU",
}
SHORT_TIERS = {"lower-bound": "at least", "estimate": "estimate", "traced": "traced", "measured": "measured"}


@dataclass(frozen=True)
class Part:
    """One stretch of the bar."""

    name: str
    sign: str
    colour: str
    bytes: int


@dataclass(frozen=True)
class Layout:
    """What a bar shows."""

    parts: tuple[Part, ...]
    capacity: int
    """Bytes of the whole device."""
    free: int
    """Bytes of it that this run may use."""
    need: int

    @property
    def over(self) -> int:
        """Bytes that are missing; 0 where it fits."""
        return max(0, self.need - self.free)


def layout(plan: Plan, machine: Hardware | None) -> Layout:
    """The parts of the plan on its GPU, or in main memory; without a reading of the machine the parts alone."""
    memory = plan.memory
    sizes = {name: int(getattr(memory, name)) for name in OURS}
    if memory.overhead and not sizes["context"] + sizes["safety"]:
        sizes["safety"] = memory.overhead  # a plan of before, which did not tell them apart
    need = memory.total_bytes
    capacity, free = _room(plan, machine, need)
    rest = max(0, free - need)
    known = plan.tier != "lower-bound"
    more = {"others": max(0, capacity - free), "free" if known else "not counted yet": rest}
    styles = OURS | NOT_OURS
    parts = tuple(Part(name, *styles[name], size) for name, size in (sizes | more).items() if size > 0)
    return Layout(parts, capacity, free, need)


def _room(plan: Plan, machine: Hardware | None, need: int) -> tuple[int, int]:
    if plan.gpu:
        return plan.gpu.total_bytes, plan.gpu.free_bytes
    return (machine.ram_total, machine.ram_free) if machine and machine.ram_total else (need, need)


def cells(shown: Layout, width: int) -> list[Part]:
    """One part a cell: each has one at least, the rest goes by size. Where it does not fit there is no free part, and the bar is all need."""
    parts = shown.parts[: max(0, width)]
    whole = sum(part.bytes for part in parts)
    if not parts or not whole:
        return []
    spare = width - len(parts)
    exact = [part.bytes / whole * width - 1 for part in parts]
    wanted = [max(0.0, value) for value in exact]
    scale = spare / sum(wanted) if sum(wanted) else 0.0
    counts = [int(value * scale) for value in wanted]
    by_rest = sorted(range(len(parts)), key=lambda index: counts[index] - wanted[index] * scale)
    for index in by_rest[: spare - sum(counts)]:
        counts[index] += 1
    return [part for part, count in zip(parts, counts, strict=True) for _ in range(count + 1)]


def bar(shown: Layout, width: int, faded: bool = False) -> Content:
    """The bar, `width` cells long."""
    drawn = cells(shown, width)
    return Content.assemble(*((part.sign, _style(part, faded)) for part in drawn)) if drawn else Content("")


def _style(part: Part, faded: bool) -> str:
    if faded or not part.colour:
        return FADED
    return f"$background on {part.colour}"


def legend(shown: Layout, width: int, faded: bool = False) -> list[Content]:
    """Sign, name and size of each part, in as many columns as there is room for."""
    columns = max(1, width // LEGEND_CELLS)
    entries = [_entry(part, faded, width if columns == 1 else LEGEND_CELLS) for part in shown.parts]
    height = -(-len(entries) // columns)
    return [Content("").join(entries[row::height]) for row in range(height)]


def _entry(part: Part, faded: bool, width: int) -> Content:
    name = part.name.ljust(max(0, min(width, 34) - 15))
    size = f"{units.size(part.bytes):>10}  "
    return Content.assemble((part.sign, _style(part, faded)), (f" {name}", FADED if faded else MUTED), (size, FADED if faded else ""))


def verdict(plan: Plan, shown: Layout) -> Content:
    """`9.1 of 9.6 GiB that are free: fits`, with what is missing where it does not."""
    least = "at least " if plan.tier == "lower-bound" else ""
    words = f"{least}{units.size(shown.need)} of {units.size(shown.free)} free"
    if shown.over and plan.fits is not True:
        return Content.assemble(f"{words}: ", (f"{units.size(shown.over)} too much", "bold $text-error"))
    fit = {True: ("fits", "bold $text-success"), False: ("does not fit", "bold $text-error"), None: ("", "")}[plan.fits]
    return Content.assemble(words, ": " if fit[0] else "", fit)


@dataclass(frozen=True)
class MemoryView:
    """What the wizard knows of a plan's memory at this moment."""

    plan: Plan
    note: str = ""
    """How far a newer forecast is; empty where none is under way."""
    faded: bool = False
    """The plan is the one before: its values are of other settings."""


class MemoryBar(Widget):
    """The bar with its heading, its verdict and its legend, as wide as it stands."""

    DEFAULT_CSS = "MemoryBar { height: auto; width: 1fr; }"

    def __init__(self, id: str | None = None) -> None:
        super().__init__(id=id, markup=False)
        self._shown: tuple[MemoryView, Layout] | None = None

    def show(self, shown: MemoryView | None, machine: Hardware | None) -> None:
        self._shown = (shown, layout(shown.plan, machine)) if shown is not None and shown.plan.memory.total_bytes else None
        self.display = self._shown is not None
        self.refresh(layout=True)

    def render(self) -> Content:
        return self._content(self.content_size.width)

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        """Of what is drawn at this width: a bar as wide as before, which a scrollbar has made too long, would wrap."""
        return self._content(width).plain.count("\n") + 1

    def _content(self, width: int) -> Content:
        return bar_content(*self._shown, width=min(MOST_CELLS, width or 39)) if self._shown else Content("")


def bar_content(shown: MemoryView, made: Layout, width: int) -> Content:
    """Heading, bar, verdict, the phase that peaks, legend."""
    plan = shown.plan
    where = f"GPU {plan.gpu.index}" if plan.gpu else "main memory"
    rows = [Content.assemble(("Memory", "bold"), (f"  on {where}", MUTED))]
    rows += [Content.styled(TIERS[plan.tier], MUTED)] if not shown.faded else []
    rows += [line(f"{shown.note}{'; the value before' if shown.faded else ''}", style="$text-warning")] if shown.note else []
    judged = verdict(plan, made)
    rows += [bar(made, width, shown.faded), Content.styled(judged.plain, FADED) if shown.faded else judged]
    if plan.memory.phase and not shown.faded:
        rows.append(Content.assemble(("the most in  ", MUTED), line(plan.memory.phase.partition(" #")[0])))
    return Content("\n").join([*rows, *legend(made, width, shown.faded)])
