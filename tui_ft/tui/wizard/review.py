"""Step 7: the recipe as a file, the command that does the same, what speaks against it, and the start."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING

from textual import on, work
from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.content import Content
from textual.widgets import Button, Static

from tui_ft import home
from tui_ft.errors import ConfigError, Problem, TuiFtError
from tui_ft.recipe import Recipe, files, presets
from tui_ft.tui.text import MUTED, content, line
from tui_ft.tui.wizard.alternatives import Alternatives
from tui_ft.tui.wizard.step import COLOURS, SIGNS, Shown, Step

if TYPE_CHECKING:
    from tui_ft.findings import Finding

_MEANS = {"error": "stops the start", "warning": "warning", "ok": "to know"}


class ReviewStep(Step):
    TITLE = "Review"
    LEAD = "This is what will run; it goes on without this terminal."
    KEYS = ("name", "about")

    def compose(self) -> ComposeResult:
        yield self.field("name")
        yield Static("", id="review-command", classes="found", markup=False)
        yield Alternatives()
        yield Shown("Checks", "review-findings")
        yield Shown("Recipe", "review-yaml")
        with Horizontal(classes="buttons"):
            yield Button("Queue", id="queue", compact=True, action="screen.queue")
            yield Button("Save as preset", id="save-preset", compact=True, action="screen.save_preset")
            yield Button("Copy the command", id="copy-command", compact=True, action="screen.copy_command")

    def on_mount(self) -> None:
        self.wizard.warm_up_soon()

    def show(self) -> None:
        self.query_one("#review-command", Static).update(_command(self.draft.command(), self.draft.recipe is not None))
        shown = content(files.dump(self.draft.recipe)) if self.draft.recipe else Content.styled("The recipe is not whole yet.", MUTED)
        self.query_one("#review-yaml", Shown).update(shown)
        self.check()

    @work(exclusive=True, group="preflight", exit_on_error=False)
    async def check(self) -> None:
        """Everything that speaks against starting, and everything to know before, in words."""
        if self.draft.recipe is None:
            self._tell(_problems(ConfigError([Problem(key, message) for key, message in self.draft.problems.items()])))
            return
        from tui_ft.planning import preflight

        recipe = files.absolute(self.draft.recipe, Path.cwd())
        backstage = self.backstage
        try:
            backstage.checked = await asyncio.to_thread(preflight.check, recipe)
        except TuiFtError as error:
            self._tell(_problems(error))
            return
        if self.ready:
            found = backstage.all_findings(recipe)
            waits = "the data is being looked at; " if backstage.preview.busy else ""
            self._tell(_findings(found), f"{waits}{_count(found)}".removesuffix("; "))
            self.wizard.show_steps()

    def _tell(self, shown: Content, count: str = "") -> None:
        box = self.query_one("#review-findings", Shown)
        box.border_title = count or "Checks"
        box.update(shown)

    def complain(self, error: TuiFtError) -> None:
        """Why the start was refused, where the person is looking; a check still on its way would write over it."""
        self.workers.cancel_group(self, "preflight")
        self._tell(_problems(error))
        self.scroll_home(animate=False)

    @on(Button.Pressed)
    def _pressed(self, event: Button.Pressed) -> None:
        event.stop()


def save_preset(recipe: Recipe, name: str, overwrite: bool) -> str:
    """Save it and give the sentence that says so.

    Raises:
        RequestError: the name, a secret, the disk; nothing was written.
    """
    path = presets.save(recipe, name, overwrite)
    return f"Saved as {name}: {path}"


def name_problem(name: str) -> str:
    """What is wrong with a name for a preset, before anything is tried."""
    return "" if name else "A preset needs a name."


def copied_to() -> Path | None:
    """Where a copied text is written as well: tmux does not hand on the clipboard unless told to."""
    return home.cache_folder() / "copied.txt" if os.environ.get("TMUX") else None


def _command(command: str, whole: bool) -> Content:
    head = Content.styled("The same by command", MUTED)
    if command:
        return Content.assemble(head, "\n  ", content(command, "bold"), ("\n  with --queue it waits for its turn, as u does here", MUTED))
    why = "save it as a preset first (w), then: tui-ft run NAME" if whole else "once the recipe is whole"
    return Content.assemble(head, "\n  ", (why, MUTED))


def _count(found: list[Finding]) -> str:
    """`2 errors, 1 warning`; empty where there are none."""
    counts = [(sum(finding.severity == severity for finding in found), name) for severity, name in (("error", "error"), ("warning", "warning"))]
    return ", ".join(f"{number} {name}{'s' if number > 1 else ''}" for number, name in counts if number)


def _findings(found: list[Finding]) -> Content:
    rows = [_row(finding.severity, finding.where, finding.message, finding.hint, finding.places) for finding in found]
    if not any(finding.severity in ("error", "warning") for finding in found):
        rows.insert(0, Content.assemble(("✓ ", "$success"), "Nothing speaks against starting."))
    return Content("\n").join(rows)


def _problems(error: TuiFtError) -> Content:
    if isinstance(error, ConfigError):
        return Content("\n").join([_row("error", problem.where, problem.message, problem.hint) for problem in error.problems])
    return _row("error", "", error.message, error.hint)


def _row(severity: str, where: str, message: str, hint: str, places: tuple[str, ...] = ()) -> Content:
    """A finding with its mark, where it was seen, and what to do."""
    sign = f"{SIGNS[severity]} {_MEANS[severity]}"
    place = f"{where}: " if where and where != "plan" else ""
    rows = content(f"\n    in {', '.join(places)}", MUTED) if places else Content("")
    remedy = Content.assemble("\n    → ", content(hint, MUTED)) if hint else Content("")
    return Content.assemble((f"{sign}  ", COLOURS[severity]), line(place, style="bold"), content(message), rows, remedy)
