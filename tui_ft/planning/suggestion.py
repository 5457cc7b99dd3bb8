"""The suggestion: of all that fits, the fastest micro-batch and level of activation checkpointing, and why."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache

from tui_ft import units
from tui_ft.planning.forecast import Setup
from tui_ft.planning.outlook import Case, Outlook
from tui_ft.recipe.plan import Memory

LADDER: tuple[bool | int | str, ...] = (False, 4, 3, 2, True, "offload")
"""Levels of activation checkpointing, each slower than the one before, and smaller."""
_ORDINALS = {2: "second", 3: "third", 4: "fourth"}


@dataclass(frozen=True)
class Suggestion:
    case: Case
    memory: Memory
    fits: bool
    samples: int
    """That a forward pass holds; on average, where they are packed."""
    reasons: dict[str, str] = field(default_factory=dict)
    """For micro_batch and activation_checkpointing, where they were chosen here."""


@dataclass(frozen=True)
class Bounds:
    """What the choice may range over."""

    levels: Sequence[bool | int | str]
    samples: Sequence[int]
    """In one forward pass, ascending."""
    most_rows: dict[bool | int | str, int] = field(default_factory=dict)
    """By level: no more than these, since more ran out of memory before."""
    row_lengths: dict[int, int] = field(default_factory=dict)
    """Of packed rows, for each number of samples."""

    def allowed(self, level: bool | int | str) -> list[int]:
        """At least one, so that there is something to tell of."""
        if level not in self.most_rows:
            return list(self.samples)
        return list(self.samples[: bisect_right(self.samples, self.most_rows[level])] or self.samples[:1])

    def with_samples(self, case: Case, count: int) -> Case:
        """`case` with so many samples in a forward pass: rows of their own, or one packed row."""
        return replace(case, length=self.row_lengths[count]) if case.packed else replace(case, rows=count)


def suggest(outlook: Outlook, base: Case, bounds: Bounds, *, largest: bool = False) -> Suggestion | None:
    """The fastest that fits; where nothing does, the level that needs least of the usual ones. None as long as too few forecasts are known to say so.

    Args:
        base: the case whose level and samples in a forward pass are chosen here.
        largest: take the largest micro-batch that fits, not the fastest.
    """
    found = [_at_level(outlook, _leveled(base, level), bounds, largest) for level in bounds.levels]
    known = [suggestion for suggestion in found if suggestion is not None]
    fitting = [suggestion for suggestion in known if suggestion.fits]
    decisive = [level for level in bounds.levels if level != "offload"] or bounds.levels
    if fitting:
        chosen = min(fitting, key=lambda s: outlook.work(s.case))
    elif _leveled(base, decisive[-1]).setup in outlook.forecasts:
        chosen = next(s for s in known if s.case.setup.activation_checkpointing == decisive[-1])  # what else can be done is told from there
    else:
        return None  # what needs least is not known yet
    reasons = {}
    if len(bounds.samples) > 1:
        reasons["micro_batch"] = _why_rows(outlook, chosen, bounds)
    if len(bounds.levels) > 1:
        reasons["activation_checkpointing"] = _why_level(outlook, chosen, known)
    return replace(chosen, reasons=reasons)


def at_level(setup: Setup, level: bool | int | str) -> Setup:
    return setup.model_copy(update={"activation_checkpointing": level})


def _leveled(case: Case, level: bool | int | str) -> Case:
    return replace(case, setup=at_level(case.setup, level))


def _at_level(outlook: Outlook, base: Case, bounds: Bounds, largest: bool) -> Suggestion | None:
    """The fastest number of samples that fits, else the smallest."""
    if base.setup not in outlook.forecasts:
        return None
    counts = bounds.allowed(base.setup.activation_checkpointing)

    @cache
    def need(count: int) -> Memory:
        memory = outlook.memory(bounds.with_samples(base, count))
        assert memory is not None
        return memory

    def is_full(count: int) -> bool:
        return not outlook.has_room(need(count))

    fitting = counts[: bisect_right(counts, False, hi=len(counts) - 1, key=is_full)]  # memory grows with the samples ...
    if not is_full(counts[-1]):
        fitting.append(counts[-1])  # ... but for the whole batch at once, which holds no gradients of a micro-batch before
    if not fitting:
        chosen = min((counts[0], counts[-1]), key=lambda count: need(count).total_bytes)
    elif largest:
        chosen = fitting[-1]
    else:
        chosen = min(fitting, key=lambda count: (outlook.work(bounds.with_samples(base, count)), -count))
    return Suggestion(bounds.with_samples(base, chosen), need(chosen), bool(fitting), chosen)


def _why_rows(outlook: Outlook, chosen: Suggestion, bounds: Bounds) -> str:
    case = chosen.case
    takes = f"{_words(chosen)} {units.size(chosen.memory.total_bytes)}"
    room = f" of the {units.size(outlook.free)} that may be used" if outlook.free is not None else ""
    if not chosen.fits:
        return f"the smallest: {takes}, more than{room.removeprefix(' of')}"
    level = case.setup.activation_checkpointing
    following = next((count for count in bounds.samples if count > chosen.samples), None)
    if following is None:
        return f"{takes}{room}"
    if following > bounds.allowed(level)[-1]:
        return f"{takes}{room}; {following} ran out of memory in an earlier run on this GPU"
    more = outlook.memory(bounds.with_samples(case, following))
    assert more is not None
    if outlook.has_room(more):
        return f"{takes}{room}; {following} would fit as well, but {'longer rows gain' if case.packed else 'would pad more and gain'} nothing"
    return f"{takes}{room}; {following} would take {units.size(more.total_bytes)}"


def _words(chosen: Suggestion) -> str:
    length = f"{chosen.case.length:,}"
    if chosen.case.packed:
        return f"a packed row of {length} tokens, about {_sequences(chosen.samples).replace('sequence', 'sample')}, takes"
    return f"{_sequences(chosen.samples)} of up to {length} tokens {'takes' if chosen.samples == 1 else 'take'}"


def _sequences(count: int) -> str:
    return "one sequence" if count == 1 else f"{count} sequences"


def _why_level(outlook: Outlook, chosen: Suggestion, known: Sequence[Suggestion]) -> str:
    level = chosen.case.setup.activation_checkpointing
    by_level = {s.case.setup.activation_checkpointing: s for s in known}
    if level is False:
        full = by_level.get(True)
        slower = f", and recomputing would take {outlook.work(full.case) / outlook.work(chosen.case):.2f} times as long" if full else ""
        return f"off: all activations fit into {units.size(outlook.free)}{slower}" if outlook.free is not None else f"off{slower}"
    name = {True: "on", "offload": "activations wait in main memory"}.get(level) or f"in every {_ORDINALS.get(int(level), f'{level}th')} layer"
    if not chosen.fits:
        return f"{name}: the smallest, and still too large"
    without = by_level.get(False)
    if without is None:
        return f"{name}: what less of it takes is not known yet"
    if not without.fits:
        return f"{name}: without it even one sequence at a time takes {units.size(without.memory.total_bytes)}, more than may be used"
    ratio = outlook.work(without.case) / outlook.work(chosen.case)
    return f"{name}: without it only {_sequences(without.samples)} at a time would fit, which takes {ratio:.2f} times as long"
