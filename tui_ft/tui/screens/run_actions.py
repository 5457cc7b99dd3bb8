"""What home does with the selected run: talk to it, go on with it, delete it, move it in the queue."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from tui_ft import units
from tui_ft.runs import control, queue
from tui_ft.runs.store import Run
from tui_ft.tui import requests as ask
from tui_ft.tui.screen import TuiScreen
from tui_ft.tui.screens.confirm import Confirm
from tui_ft.tui.widgets.run_table import Row, RunTable

OF_A_RUN = ("chat", "resume", "delete", "sooner", "later", "unqueue", "mark", "compare")
MOST_COMPARED = 6


class RunActions(TuiScreen):
    """Home's actions, without what it shows."""

    table: RunTable
    marked: list[str]
    """Ids of the runs to compare, in the order in which they were marked."""

    @property
    def row(self) -> Row | None:
        """The run under the cursor."""
        raise NotImplementedError

    @property
    def on_presets(self) -> bool:
        """The cursor is among the presets, so no run is meant."""
        raise NotImplementedError

    def look(self) -> None:
        """Show what has changed."""
        raise NotImplementedError

    def unavailable(self, action: str) -> str:
        if action not in OF_A_RUN or not self.is_mounted:
            return ""
        row = None if self.on_presets else self.row
        if row is None:
            return "no run is selected"
        state, waits = row.summary.state, row.summary.queue_position is not None
        if action == "mark":
            return f"{MOST_COMPARED} runs are marked already" if len(self.marked) >= MOST_COMPARED and row.run.id not in self.marked else ""
        if action == "compare":
            return "" if len(self._compared()) > 1 else "there is no other run: space marks those to compare"
        if action == "chat":
            return "" if row.summary.model else "this run has no model yet"
        if action == "resume":
            return "it waits in the queue and begins by itself" if waits else "" if state in control.RESUMABLE else f"this run is {state}"
        if action == "delete":
            return "it waits in the queue: u takes it out first" if waits else "this run is live: stop it first" if row.is_live else ""
        return "" if waits else "this run is not in the queue"

    def _compared(self) -> list[Run]:
        """The marked runs; without two marks the selected one and the run listed below it, or above it."""
        rows = self.table.rows
        marked = [rows[run_id].run for run_id in self.marked if run_id in rows]
        if len(marked) > 1 or not self.row:
            return marked
        listed = [row.run for row in rows.values()]
        at = listed.index(self.row.run)
        return list({run.id: run for run in [*marked, self.row.run, *listed[at + 1 : at + 2], *listed[max(0, at - 1) : at]]}.values())[:2]

    def action_mark(self) -> None:
        if self.row:
            run_id = self.row.run.id
            if run_id in self.marked:
                self.marked.remove(run_id)
            else:
                self.marked.append(run_id)
            self.show_marks()

    def show_marks(self) -> None:
        """Show which runs are marked."""
        raise NotImplementedError

    def action_compare(self) -> None:
        self.tui.open_comparison(self._compared())

    def action_chat(self) -> None:
        if self.row:
            self.tui.open_chat(self.row.run)

    def action_resume(self) -> None:
        if self.row:
            run = self.row.run
            self._carry_out(f"{run.id} goes on", lambda: control.resume(run))

    def action_delete(self) -> None:
        if not self.row:
            return
        run = self.row.run
        there = units.size(run.bytes_on_disk())
        detail = f"Its checkpoints, model and log go for good: {there}. Nothing else is touched."
        self.app.push_screen(Confirm(f"Delete {run.id}?", detail, yes="Delete", no="Keep"), partial(self._delete, run.id))

    def _delete(self, run_id: str, sure: bool | None) -> None:
        row = self.table.rows.get(run_id)
        if sure and row:
            self._carry_out(f"{run_id} is deleted", row.run.delete)

    def action_sooner(self) -> None:
        self._move(-1)

    def action_later(self) -> None:
        self._move(1)

    def _move(self, by: int) -> None:
        row = self.row
        if row and row.summary.queue_position is not None:
            run, to = row.run, max(1, row.summary.queue_position + by)

            def move() -> None:
                queue.move(run, to)

            self._carry_out(f"{run.id} goes {'ahead' if by < 0 else 'back'} in the queue", move)

    def action_unqueue(self) -> None:
        if self.row:
            run = self.row.run
            question = Confirm(
                f"Take {run.id} out of the queue?", "It will not begin by itself; it can be resumed.", yes="Take out", no="Let it wait"
            )
            self.app.push_screen(
                question, lambda sure: self._carry_out(f"{run.id} is out of the queue", partial(queue.cancel, run)) if sure else None
            )

    def _carry_out(self, words: str, act: Callable[[], str | None]) -> None:
        self.run_worker(partial(ask.carry_out, words, act, self.post_message), thread=True, exit_on_error=False)

    def on_asked(self, event: ask.Asked) -> None:
        if event.error:
            self.tui.report(event.error)
        else:
            self.notify(event.words)
        self.look()
