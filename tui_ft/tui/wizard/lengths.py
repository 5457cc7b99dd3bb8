"""The lengths of the prompt step: what any maximum would cost, answered from one table while the maximum moves."""

from __future__ import annotations

from collections.abc import Sequence

from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.content import Content
from textual.widgets import Static

from tui_ft import units
from tui_ft.data.lengths import Cut, Entry, cut, packing_fill
from tui_ft.tui.text import MUTED
from tui_ft.tui.widgets.length_chart import LengthChart

SHORTEST = 8
"""What the recipe's schema allows at least."""
LONGEST = 2**20
_USUAL_BATCH = 8
_TOO_LONG = {"truncate": "cut", "drop": "dropped", "split": "split"}


class LengthPanel(Horizontal):
    """A histogram, and beside it what the maximum does to these samples."""

    DEFAULT_CSS = """
    LengthPanel {
        height: 11fr; border: round $border; border-title-color: $text-muted; border-subtitle-color: $text-muted; padding: 0 1;
    }
    LengthPanel:focus-within { border: round $primary; }
    LengthPanel > Static { width: 33; margin-left: 2; }
    """

    def __init__(self) -> None:
        super().__init__(id="lengths")
        self.border_title = "Lengths"
        self.border_subtitle = "- + and < > move the maximum"

    def compose(self) -> ComposeResult:
        yield LengthChart(id="length-chart")
        yield Static("", id="length-facts", markup=False)

    def show(self, entries: Sequence[Entry], maximum: int, *, overlong: str, sampled: int | None, batch: int | None, counting: str) -> None:
        """
        Args:
            entries: the table of lengths, sorted.
            maximum: tokens.
            sampled: the rows that the table is of; None where it is of all.
            batch: samples of one forward pass, where the plan knows.
            counting: how far the count of all rows is; empty where none is under way.
        """
        among = "all rows" if sampled is None else f"the first {sampled:,} rows"
        self.border_title = f"Lengths of {among}{f' ({counting})' if counting else ''}"
        self.query_one(LengthChart).show(entries, maximum)
        self.query_one("#length-facts", Static).update(_facts(entries, maximum, overlong, batch or _USUAL_BATCH))


def _facts(entries: Sequence[Entry], maximum: int, overlong: str, batch: int) -> Content:
    at = cut(entries, maximum, overlong)
    lost = at.answer_lost if overlong == "truncate" else 0
    rows = [
        ("longest", f"{entries[-1][0]:,} tokens" if entries else "–", ""),
        ("kept", f"{at.kept:,} of {at.samples:,}", ""),
        (_TOO_LONG.get(overlong, "too long"), _share(at.too_long, at), "$text-warning" if at.too_long else ""),
        *([("answer lost", _share(lost, at), "$text-error" if lost else "")] if overlong == "truncate" else []),
        ("an epoch", f"{units.count(at.tokens)} tokens", ""),
        ("packed", f"{100 * packing_fill(entries, maximum):.0f} % full", ""),
        ("padded", f"{100 * padding_fill(entries, maximum, overlong, batch):.0f} % full, {batch} a batch", ""),
    ]
    return Content("\n").join([Content.assemble((f"{name:<13}", MUTED), (value, style)) for name, value, style in rows])


def _share(count: int, at: Cut) -> str:
    return f"{100 * count / max(1, at.samples):.1f} %  ({count:,})"


def padding_fill(entries: Sequence[Entry], maximum: int, overlong: str, batch: int) -> float:
    """The share of tokens in batches padded to their longest sample, 0 to 1: the mean length over the mean of the longest of `batch` drawn ones."""
    kept = [
        (min(length, maximum), count)
        for length, first, count in entries
        if length <= maximum or overlong == "split" or (overlong == "truncate" and first < maximum)
    ]
    total = sum(count for _, count in kept)
    if not total:
        return 0.0
    longest, below, counted = 0.0, 0.0, 0
    for length, count in kept:
        counted += count
        upto = (counted / total) ** batch  # the chance that all of a batch are no longer than this
        longest += length * (upto - below)
        below = upto
    return sum(length * count for length, count in kept) / total / longest


def stepped(maximum: int, up: bool, coarse: bool) -> int:
    """The next sensible maximum: eight to each power of two (64 apart from 512, 256 apart from 2048), or the power of two itself."""
    power = 1 << (maximum.bit_length() - 1)
    if coarse:
        following = power * 2 if up else (power if maximum > power else power // 2)
    else:
        step = max(SHORTEST, (power if up or maximum > power else power // 2) // 8)
        following = (maximum // step + 1) * step if up else (-(-maximum // step) - 1) * step
    return max(SHORTEST, min(LONGEST, following))
