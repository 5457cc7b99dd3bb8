"""What the last step does: start the run, save the recipe as a preset, copy the command."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import ClassVar

from textual import work
from textual.content import Content
from textual.widgets import Button, Static

from tui_ft import home
from tui_ft.errors import InUse, NeedsCode, RequestError, TuiFtError
from tui_ft.hub.code import RemoteCode
from tui_ft.recipe import Recipe, files
from tui_ft.tui import child, hub
from tui_ft.tui.draft import Draft
from tui_ft.tui.text import MUTED
from tui_ft.tui.wizard.hub import WithHub
from tui_ft.tui.wizard.review import ReviewStep, copied_to, name_problem, save_preset


class Starting(WithHub):
    """The actions of the review."""

    READ_SECONDS: ClassVar[float] = 2.0
    """Who stays at the review for so long reads it, and will start."""
    _is_warm = False

    def warm_up_soon(self) -> None:
        """Once a wizard: while the person reads, let the training's libraries be loaded by a process that ends with that.

        Their gigabyte then lies in the system's memory when the worker asks for them. From a cold disk that is most of a start.
        """
        if not self._is_warm:
            self._is_warm = True
            self.set_timer(self.READ_SECONDS, self._warm_up)

    @work(exclusive=True, group="warm", exit_on_error=False)
    async def _warm_up(self) -> None:
        await child.ask("tui_ft.worker", "--load", seconds=600.0, background=True)

    def action_copy_command(self) -> None:
        command = self.draft.command()
        self.app.copy_to_clipboard(command)
        target = copied_to()
        if target:
            with suppress(OSError):
                home.write_atomically(target, command + "\n")
        self.app.notify("Copied." + (f" It is in {target} as well." if target else ""))

    def action_save_preset(self) -> None:
        from tui_ft.tui.screens.confirm import Confirm, Prompt

        try:
            recipe = files.absolute(self.draft.require(), Path.cwd())
        except TuiFtError as error:
            self.tui.report(error)
            return

        def save(overwrite: bool, name: str) -> None:
            try:
                self.app.notify(save_preset(recipe, name, overwrite))
                self.draft.began_as(name)
                self.show()
            except RequestError as error:
                if "already" in error.message and not overwrite:
                    question = Confirm(f"Replace your preset {name}?", "Its old settings are lost.", yes="Replace", no="Keep it")
                    self.app.push_screen(question, lambda sure: save(True, name) if sure else None)
                else:
                    self.tui.report(error)

        asked = Prompt("Save this recipe as a preset", recipe.name, "Letters, digits, dot, dash and underscore.", name_problem)
        self.app.push_screen(asked, lambda name: save(False, name) if name else None)

    def _whole_recipe(self) -> Recipe | None:
        """The draft as a recipe; None where something is wrong with it, which is shown."""
        self.step.commit()
        try:
            return files.absolute(self.draft.require(), Path.cwd())
        except TuiFtError as error:
            self._refused(error)
            return None

    def action_start(self) -> None:
        recipe = self._whole_recipe()
        if recipe is None:
            return
        plan = self.backstage.plan.value
        if plan is not None and plan.fits is False:
            from tui_ft.tui.screens.confirm import Confirm

            question = Confirm("This does not fit. Start all the same?", "It will most likely run out of memory.", yes="Start", no="Change it")
            self.app.push_screen(question, lambda sure: self._start_if(bool(sure), recipe))
        else:
            self._start(recipe, False)

    def action_queue(self) -> None:
        """As a start, but for a GPU that others may be using now: whether it fits is judged on the empty GPU, by the start itself."""
        recipe = self._whole_recipe()
        if recipe is not None:
            self._start(recipe, False, queued=True)

    def _start_if(self, sure: bool, recipe: Recipe) -> None:
        if sure:
            self._start(recipe, True)

    @work(exclusive=True, group="start", exit_on_error=False)
    async def _start(self, recipe: Recipe, force: bool, trust: dict[str, str] | None = None, queued: bool = False) -> None:
        """Create the run and open its dashboard; a refusal is shown where the person is looking.

        Args:
            trust: the consent to a model's own code, for this run alone.
            queued: wait until no other run has the GPU.
        """
        from tui_ft.start import start_run

        button = self.query_one("#next", Button)
        button.disabled = True
        self.query_one("#nav-note", Static).update(Content.styled("starting …", MUTED))
        try:
            data = await asyncio.to_thread(self.backstage.data_as_it_is, recipe)
            run = await asyncio.to_thread(partial(start_run, recipe, force=force, trust=trust, data=data, queued=queued))
        except NeedsCode as error:
            button.disabled = False
            self.show()
            await self._ask_consent(recipe, force, error, queued)
            return
        except InUse as error:
            button.disabled = False
            self.show()
            self._offer_queue(recipe, error, force, trust)
            return
        except TuiFtError as error:
            button.disabled = False
            self._refused(error)
            return
        Draft.forget()
        self.tui.open_run(run, instead=True)

    def _offer_queue(self, recipe: Recipe, refusal: InUse, force: bool, trust: dict[str, str] | None) -> None:
        from tui_ft.tui.screens.confirm import Confirm

        def begin(sure: bool | None) -> None:
            if sure:
                self._start(recipe, force, trust, queued=True)

        detail = "The new run can wait in the queue and begin by itself."
        self.app.push_screen(Confirm(f"{refusal.message}. Queue?", detail, yes="Queue", no="Not now"), begin)

    async def _ask_consent(self, recipe: Recipe, force: bool, refusal: NeedsCode, queued: bool) -> None:
        """Show what code would run, and start with it only if the person says so."""
        from tui_ft.tui.screens.consent import CodeConsent

        self.query_one("#nav-note", Static).update(Content.styled("looking at the model's own code …", MUTED))
        answer = await hub.remote_code(recipe.model.name, recipe.model.revision)
        if answer.error:
            self._refused(RequestError(f"{refusal.message}. {answer.error}", answer.hint))
            return
        code: RemoteCode = answer.value

        def begin(sure: bool | None) -> None:
            if sure:
                self._start(recipe, force, {code.repository: code.commit}, queued)
            else:
                self._refused(refusal)

        self.app.push_screen(CodeConsent(code), begin)

    def _refused(self, error: TuiFtError) -> None:
        self.show()
        step = self.step
        if isinstance(step, ReviewStep):
            step.complain(error)
        self.tui.report(error)
