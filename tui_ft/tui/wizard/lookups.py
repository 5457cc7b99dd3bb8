"""When the wizard looks things up, and when it saves: once the person has paused."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from textual import work
from textual.timer import Timer

from tui_ft.recipe import Recipe, files
from tui_ft.recipe.plan import Option
from tui_ft.tui.draft import Draft
from tui_ft.tui.history import History
from tui_ft.tui.screen import TuiScreen
from tui_ft.tui.wizard import alternatives
from tui_ft.tui.wizard.alternatives import Taken
from tui_ft.tui.wizard.backstage import Backstage, is_here


class Lookups(TuiScreen):
    """The draft and what is known about it. The screen that shows both builds on this."""

    PAUSE: ClassVar[float] = 0.4
    """Seconds without a change before anything is looked up or saved."""
    TICK: ClassVar[float] = 0.25
    """Seconds between two looks at how far a child is."""
    MACHINE: ClassVar[float] = 10.0
    """Seconds between two looks at what others leave free on the GPUs; a reading takes milliseconds."""

    def __init__(self, draft: Draft) -> None:
        super().__init__()
        self.draft = draft
        self.history = History(draft)
        self.backstage = Backstage()
        self.touched = False
        """Something was chosen: only then is the kept draft replaced by this one."""
        self.taken: Taken | None = None
        """The setting that was last taken from those that the plan offers."""
        self._soon: Timer | None = None
        self._trace_soon: Timer | None = None

    async def on_mount(self) -> None:
        self.set_interval(self.TICK, self._tick)
        self.set_interval(self.MACHINE, self._read_machine)

    def on_unmount(self) -> None:
        self.backstage.close()

    def show(self) -> None:
        """Show what the draft and the findings say now."""
        raise NotImplementedError

    def show_plan(self) -> None:
        """Show what the plan says now, and no more: this follows every key."""
        raise NotImplementedError

    def show_work(self) -> None:
        """Show how far the lookups are."""
        raise NotImplementedError

    def looks_at_data(self) -> bool:
        """Whether the open step shows the data: then it is looked up even where that asks a network."""
        raise NotImplementedError

    def refresh_soon(self) -> None:
        """Look things up once the person has paused; each change puts it off."""
        if self._soon:
            self._soon.stop()
        self._soon = self.set_timer(self.PAUSE, self._refresh)

    def plan_at_once(self) -> None:
        """Answer a change of a setting with what is known; what must be looked up for it waits until the person has paused."""
        recipe = self.recipe_now()
        if recipe is not None and self.backstage.hardware is not None:
            self.backstage.make_plan(recipe)
            self.show_plan()
            if self.backstage.forecasting.wants_trace():
                if self._trace_soon:
                    self._trace_soon.stop()
                self._trace_soon = self.set_timer(self.PAUSE, self._plan_now)

    def _plan_now(self) -> None:
        recipe = self.recipe_now()
        if recipe is not None:
            self._plan(self.backstage, recipe)

    def take(self, option: Option | None) -> None:
        """Take one of the settings that the plan offers; None takes the last one back."""
        self.history.note(self.draft)
        if option is not None:
            self.taken = alternatives.take(self.draft, option)
        elif self.taken is not None:
            alternatives.take_back(self.draft, self.taken)
            self.taken = None
        self.touched = True
        self.plan_at_once()
        self.show()
        self.refresh_soon()

    def begin_with(self, draft: Draft) -> None:
        """Another draft: what was looked up for the old one is forgotten, and what is on its way is ended."""
        for group in ("facts", "preview", "exact", "forecasts"):
            self.workers.cancel_group(self, group)
        self.backstage.close()
        self.draft, self.backstage, self.taken = draft, Backstage(), None
        self.history.note(draft)

    def action_count(self) -> None:
        """One key for the long looks: it ends the one under way; else it looks again, or at all rows."""
        found = self.backstage
        if found.preview.busy:
            self.workers.cancel_group(self, "preview")
            found.preview.stop()
        elif found.exact.busy:
            self.workers.cancel_group(self, "exact")
            found.exact.stop()
        elif (recipe := self.recipe_now()) is not None:
            if found.preview.stopped or found.preview.error:
                self._expect_preview(recipe)
            elif found.preview.value is not None and found.preview.value.sampled is not None:
                self._expect_count(recipe)
        self.show()

    def recipe_now(self) -> Recipe | None:
        """The draft as a recipe with absolute paths, as lookups know it; None while nothing usable was typed."""
        return files.absolute(self.draft.usable, Path.cwd()) if self.draft.usable else None

    def _refresh(self) -> None:
        self.history.note(self.draft)
        self._keep()
        recipe = self.recipe_now()
        if recipe is None:
            self.show()
            return
        stands_in = "model.name" in self.draft.problems
        if not stands_in and self.backstage.facts.key != self.backstage.facts_key(recipe):
            self.backstage.expect_facts(recipe)
            self._load_facts(self.backstage, recipe)
        if self.backstage.exact.busy and not self.backstage.counts(recipe):
            self.workers.cancel_group(self, "exact")
            self.backstage.exact.busy, self.backstage.exact.key = False, ""
        source_open = "data.source" in self.draft.problems
        asked = is_here(recipe) or self.looks_at_data()
        if asked and not source_open and self.backstage.preview.key != self.backstage.preview_key(recipe):
            self._expect_preview(recipe)
        self._plan(self.backstage, recipe)

    def _plan(self, backstage: Backstage, recipe: Recipe) -> None:
        """Make the plan with what is known, show it, and have traced what is missing, behind everything else."""
        backstage.make_plan(recipe)
        if backstage is self.backstage and backstage.forecasting.wants_trace():
            backstage.forecasting.expect()
            self._trace(backstage, recipe)
        self.show()

    def _expect_preview(self, recipe: Recipe) -> None:
        self.backstage.expect_preview(recipe)
        self._load_preview(self.backstage, recipe)

    def _expect_count(self, recipe: Recipe) -> None:
        self.backstage.expect_count(recipe)
        self._count_all(self.backstage, recipe)

    def _count_if_wanted(self) -> None:
        """All rows of a source on this machine are counted without being asked for; elsewhere they would have to be fetched."""
        recipe = self.recipe_now()
        if recipe is not None and is_here(recipe) and self.backstage.wants_count(recipe):
            self._expect_count(recipe)

    @work(exclusive=True, group="facts", exit_on_error=False)
    async def _load_facts(self, backstage: Backstage, recipe: Recipe) -> None:
        await backstage.load_facts(recipe)
        self._plan(backstage, recipe)

    @work(exclusive=True, group="preview", exit_on_error=False)
    async def _load_preview(self, backstage: Backstage, recipe: Recipe) -> None:
        await backstage.load_preview(recipe)
        self._count_if_wanted()
        self._plan(backstage, recipe)

    @work(exclusive=True, group="exact", exit_on_error=False)
    async def _count_all(self, backstage: Backstage, recipe: Recipe) -> None:
        await backstage.count_all(recipe)
        self._plan(backstage, recipe)
        self.call_later(self._count_if_wanted)  # the maximum may have moved meanwhile: then the rest of the answer is of another recipe

    @work(exclusive=True, group="forecasts", exit_on_error=False)
    async def _trace(self, backstage: Backstage, recipe: Recipe) -> None:
        """The plan is made anew with each answer, of the recipe as it is by then."""

        def again() -> None:
            now = self.recipe_now()
            if backstage is self.backstage and now is not None:
                backstage.make_plan(now)
                self.show()

        await backstage.forecasting.trace(recipe, again)
        again()

    def _read_machine(self) -> None:
        """Plan anew where somebody else has taken or given back a GPU's memory."""
        from tui_ft import hardware

        recipe, found = self.recipe_now(), self.backstage
        if self.is_seen and recipe is not None and found.hardware is not None and found.hardware.gpus and found.read_machine(hardware.read()):
            self._plan(found, recipe)

    def _tick(self) -> None:
        if self.backstage.preview.busy or self.backstage.exact.busy:
            self.show_work()

    def _keep(self) -> None:
        if self.touched:
            try:
                self.draft.keep()
            except OSError as error:
                self.app.notify(f"The draft cannot be kept: {error.strerror}", severity="warning")
