"""When the wizard looks things up, and when it saves: once the person has paused."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from textual import work
from textual.timer import Timer

from tui_ft.recipe import Recipe, files
from tui_ft.tui.draft import Draft
from tui_ft.tui.screen import TuiScreen
from tui_ft.tui.wizard.backstage import Backstage, is_here


class Lookups(TuiScreen):
    """The draft and what is known about it. The screen that shows both builds on this."""

    PAUSE: ClassVar[float] = 0.4
    """Seconds without a change before anything is looked up or saved."""

    def __init__(self, draft: Draft) -> None:
        super().__init__()
        self.draft = draft
        self.backstage = Backstage()
        self.touched = False
        """Something was chosen: only then is the kept draft replaced by this one."""
        self._soon: Timer | None = None

    def show(self) -> None:
        """Show what the draft and the findings say now."""
        raise NotImplementedError

    def looks_at_data(self) -> bool:
        """Whether the open step shows the data: then it is looked up even where that asks a network."""
        raise NotImplementedError

    def refresh_soon(self) -> None:
        """Look things up once the person has paused; each change puts it off."""
        if self._soon:
            self._soon.stop()
        self._soon = self.set_timer(self.PAUSE, self._refresh)

    def _refresh(self) -> None:
        self._keep()
        if self.draft.usable is None:
            self.show()
            return
        recipe = files.absolute(self.draft.usable, Path.cwd())
        stands_in = "model.name" in self.draft.problems
        if not stands_in and self.backstage.facts.key != self.backstage.facts_key(recipe):
            self.backstage.expect_facts(recipe)
            self._load_facts(self.backstage, recipe)
        source_open = "data.source" in self.draft.problems
        asked = is_here(recipe) or self.looks_at_data()
        if asked and not source_open and self.backstage.preview.key != self.backstage.preview_key(recipe):
            self.backstage.expect_preview(recipe)
            self._load_preview(self.backstage, recipe)
        self.backstage.make_plan(recipe)
        self.show()

    @work(exclusive=True, group="facts", exit_on_error=False)
    async def _load_facts(self, backstage: Backstage, recipe: Recipe) -> None:
        await backstage.load_facts(recipe)
        backstage.make_plan(recipe)
        self.show()

    @work(exclusive=True, group="preview", exit_on_error=False)
    async def _load_preview(self, backstage: Backstage, recipe: Recipe) -> None:
        await backstage.load_preview(recipe)
        backstage.make_plan(recipe)
        self.show()

    def _keep(self) -> None:
        if self.touched:
            try:
                self.draft.keep()
            except OSError as error:
                self.app.notify(f"The draft cannot be kept: {error.strerror}", severity="warning")
