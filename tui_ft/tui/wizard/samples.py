"""The samples of the prompt step: one at a time, walked through, jumped about in, searched."""

from __future__ import annotations

import asyncio
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING

from textual import on, work
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import Input, Static
from textual.worker import Worker

from tui_ft.tui.text import MUTED, line
from tui_ft.tui.widgets.token_view import BADGES, CLOSE, LINE_END, OPEN, TokenView
from tui_ft.tui.wizard import shelf
from tui_ft.tui.wizard.backstage import Backstage

if TYPE_CHECKING:
    from tui_ft.data.preview import Preview, PreviewSample, Shelved, Token

_MOST_HITS = 500
"""Places marked in one sample."""


class Samples(Vertical):
    """Reads the shelf of the newest preview; which sample is looked at is kept in the backstage, so that leaving the step keeps it."""

    DEFAULT_CSS = """
    Samples { height: 12fr; border: round $border; border-title-color: $text-muted; border-subtitle-color: $text-muted; padding: 0 1; }
    Samples:focus-within { border: round $primary; }
    Samples > #sample-head { height: 1; text-wrap: nowrap; text-overflow: ellipsis; }
    Samples > Input { height: 1; background: $panel; display: none; }
    Samples.-searching > Input { display: block; }
    """

    def __init__(self, backstage: Backstage) -> None:
        super().__init__(id="samples")
        self.backstage = backstage
        self.border_title = "Samples, token by token"
        self.border_subtitle = f"{OPEN}learned{CLOSE}  {LINE_END} line end  {' '.join(f'‹{BADGES[kind]}›' for kind in ('bos', 'eos', 'end'))}"
        self.needle = ""
        self.hits: list[int] | None = None
        """The samples that hold what was searched for; None: nothing was."""
        self._listed: tuple[Path | None, int] = (None, -1)

    def compose(self) -> ComposeResult:
        yield Static("", id="sample-head", markup=False)
        yield Input(placeholder="a text; enter searches in all samples", compact=True, id="sample-needle")
        yield TokenView(id="tokens")

    def on_worker_state_changed(self, event: Worker.StateChanged) -> None:
        from tui_ft.tui.screen import TuiScreen

        assert isinstance(self.screen, TuiScreen)
        self.screen.tui.worker_failed(event)

    @property
    def seen(self) -> Preview | None:
        return self.backstage.preview.value

    @property
    def count(self) -> int:
        return len(self.seen.shelf) if self.seen else 0

    @property
    def entries(self) -> Sequence[Shelved]:
        return self.seen.shelf if self.seen else ()

    def refresh_samples(self) -> None:
        """A newer preview may have come: its samples, at the place where the person was."""
        self.display = bool(self.count)
        if self.count and self._listed != (self.backstage.shelf_file, self.backstage.sample_at):
            if self.hits is not None and self._listed[0] != self.backstage.shelf_file:
                self.find(self.needle, stay=True)
            self.go(self.backstage.sample_at)

    # Going about

    def go(self, number: int) -> None:
        """Show a sample by its place on the shelf."""
        self.backstage.sample_at = max(0, min(self.count - 1, number))
        self._listed = (self.backstage.shelf_file, self.backstage.sample_at)
        self._load(self.backstage.sample_at)

    def walk(self, by: int) -> None:
        """On to the next sample, of those found where something was searched for."""
        at = self.backstage.sample_at
        if self.hits is None:
            self.go(at + by)
        elif self.hits:
            beyond = [number for number in self.hits if (number > at if by > 0 else number < at)]
            self.go((beyond[0] if by > 0 else beyond[-1]) if beyond else (self.hits[0] if by > 0 else self.hits[-1]))

    def extreme(self, sign: int) -> None:
        """The longest (1) or the shortest (-1) sample."""
        if self.count:
            self.go(max(range(self.count), key=lambda number: (sign * self.entries[number].tokens, -number)))

    def next_truncated(self) -> None:
        at = self.backstage.sample_at
        order = [*range(at + 1, self.count), *range(at + 1)]
        cut = next((number for number in order if self.entries[number].truncated), None)
        if cut is None:
            self.app.notify("No sample here is cut at the maximum.")
        else:
            self.go(cut)

    # Searching

    def ask(self) -> None:
        """Open the line that asks for a text."""
        self.add_class("-searching")
        self.query_one(Input).focus()

    @on(Input.Submitted)
    def _asked(self, event: Input.Submitted) -> None:
        event.stop()
        self.find(event.value)
        self.query_one(TokenView).focus()

    @on(Input.Blurred)
    def _left(self) -> None:
        self.remove_class("-searching")

    def find(self, needle: str, stay: bool = False) -> None:
        """Look for a text in all samples, and go to the first from here on unless told to `stay`; nothing to look for ends the search."""
        self.needle = needle
        if needle and self.backstage.shelf_file:
            self._search(self.backstage.shelf_file, self.entries, needle, stay)
        else:
            self.hits = None
            self.go(self.backstage.sample_at)

    @work(exclusive=True, group="search", exit_on_error=False)
    async def _search(self, file: Path, entries: Sequence[Shelved], needle: str, stay: bool) -> None:
        try:
            self.hits = await asyncio.to_thread(shelf.search, file, entries, needle)
        except (OSError, ValueError):
            if file == self.backstage.shelf_file:  # else a newer preview took its place, and searches itself
                raise
            return
        at = self.backstage.sample_at
        self.go(at if stay else next((number for number in self.hits if number >= at), self.hits[0] if self.hits else at))

    @work(exclusive=True, group="sample", exit_on_error=False)
    async def _load(self, number: int) -> None:
        file, entry = self.backstage.shelf_file, self.entries[number]
        if file is None:
            return
        try:
            sample = await asyncio.to_thread(shelf.read, file, entry)
        except (OSError, ValueError):
            if file == self.backstage.shelf_file:
                raise
            return
        if self.is_mounted:
            self.query_one("#sample-head", Static).update(self._head(number, sample))
            self.query_one(TokenView).show(sample.tokens, places(sample.tokens, self.needle) if self.hits is not None else ())

    def _head(self, number: int, sample: PreviewSample) -> Content:
        learned = sum(token.learned for token in sample.tokens)
        cut = f" of {sample.length:,}" if sample.length > len(sample.tokens) else ""
        found = ""
        if self.hits is not None:
            place = f"{self.hits.index(number) + 1} of {len(self.hits):,}" if number in self.hits else f"{len(self.hits):,} samples"
            found = f' · "{self.needle}": {place}'
        first = "the first " if self.seen and self.count < self.seen.kept else ""
        return Content.assemble(
            (f"sample {number + 1:,} of {first}{self.count:,}", "bold"),
            f" · {len(sample.tokens):,}",
            (cut, "$text-warning"),
            (f" tokens, {learned:,} learned", "" if learned else "$text-error"),
            line(found, 60, "$accent"),
            line(f" · {sample.origin}" if sample.origin else "", 60, MUTED),
        )


def places(tokens: Sequence[Token], needle: str) -> set[int]:
    """The tokens that hold, or share in, an occurrence of `needle`, in whatever case."""
    wanted, parts = needle.casefold(), [token.text.casefold() for token in tokens]
    text, starts = "".join(parts), [0, *accumulate(map(len, parts))]
    found: set[int] = set()
    at = text.find(wanted) if wanted else -1
    for _ in range(_MOST_HITS):
        if at < 0:
            break
        end = at + len(wanted)
        found.update(range(bisect_right(starts, at) - 1, bisect_left(starts, end)))
        at = text.find(wanted, end)
    return found
