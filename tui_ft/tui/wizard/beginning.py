"""Where the wizard's draft comes from: nothing, or a preset; what is lost by it is asked about."""

from __future__ import annotations

from tui_ft.errors import TuiFtError
from tui_ft.tui.draft import Draft
from tui_ft.tui.wizard.lookups import Lookups
from tui_ft.tui.wizard.step import Step


class Beginning(Lookups):
    """The actions that put another draft in the place of this one."""

    def __init__(self, draft: Draft) -> None:
        super().__init__(draft)
        self._seen: set[int] = set()
        """The steps that were open, by their numbers."""

    async def go(self, index: int) -> None:
        """Open a step."""
        raise NotImplementedError

    async def action_start_over(self) -> None:
        from tui_ft.tui.screens.confirm import Confirm

        async def begin(sure: bool | None) -> None:
            if sure:
                Draft.forget()
                await self._replace(Draft.empty())

        await self.app.push_screen(Confirm("Forget this draft?", "The wizard begins with an empty recipe.", yes="Forget it", no="Keep it"), begin)

    def begin_from(self, preset: str) -> None:
        """Take a preset in place of the draft; changes are lost, so they are asked about."""
        from tui_ft.tui.screens.confirm import Confirm

        try:
            draft = Draft.of_preset(preset)
        except TuiFtError as error:
            self.tui.report(error)
            return

        async def begin(sure: bool | None) -> None:
            if sure:
                self.touched = True
                await self._replace(draft)

        if self.draft.changed:
            self.app.push_screen(
                Confirm(f"Begin anew from {preset}?", "Your changes to this draft are lost.", yes="Begin anew", no="Keep mine"), begin
            )
        else:
            self.run_worker(begin(True), exit_on_error=False)

    async def _replace(self, draft: Draft) -> None:
        self._seen.clear()
        for step in self.query(Step):
            step.ready = False  # what it holds belongs to the old draft
        self.begin_with(draft)
        await self.go(0)
