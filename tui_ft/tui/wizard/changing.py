"""Changes of the draft as a whole: back and forth through what it was, and the recipe as text in the person's own editor."""

from __future__ import annotations

from textual.app import SuspendNotSupported

from tui_ft.errors import ConfigError, RequestError, TuiFtError
from tui_ft.recipe import files
from tui_ft.tui import editor
from tui_ft.tui.screens.confirm import Confirm
from tui_ft.tui.wizard.lookups import Lookups
from tui_ft.tui.wizard.step import Step


class Changing(Lookups):
    """The actions undo, redo and edit."""

    def action_undo(self) -> None:
        self._go(-1)

    def action_redo(self) -> None:
        self._go(1)

    def _go(self, by: int) -> None:
        self._take_over_fields()
        self.history.note(self.draft)
        if not (self.history.can_undo if by < 0 else self.history.can_redo):
            self.notify("There is nothing to take back." if by < 0 else "There is nothing to do again.", timeout=3)
            return
        words = self.history.go(self.draft, by)
        self._show_another()
        self.notify(f"{'Back' if by < 0 else 'Again'}: {words}.", timeout=3)

    def action_edit(self) -> None:
        self._take_over_fields()
        self._edit(self.draft.as_yaml())

    def _edit(self, text: str) -> None:
        """Let the person edit it, as often as something is wrong with it."""
        try:
            with self.app.suspend():
                edited = editor.edit(text)
        except SuspendNotSupported:
            self.tui.report(RequestError("this terminal cannot be lent to an editor", "`tui-ft presets save` takes a recipe file instead."))
            return
        except OSError as error:
            self.tui.report(RequestError(f"the recipe cannot be written for the editor: {error.strerror}"))
            return
        except TuiFtError as error:
            self.tui.report(error)
            return
        finally:
            self.app.refresh(layout=True)
        if edited == text and self.draft.recipe is not None:
            self.notify("Nothing was changed.", timeout=3)
            return
        try:
            recipe = files.parse(edited, "the recipe")
        except TuiFtError as error:
            self._ask_again(edited, error)
            return
        self.draft.take(recipe)
        self._show_another()
        self.notify("The recipe is as you wrote it.", timeout=3)

    def _ask_again(self, edited: str, error: TuiFtError) -> None:
        wrong = "\n".join(f"· {problem}" for problem in error.problems) if isinstance(error, ConfigError) else "\n".join(error.lines())
        question = Confirm("This is no recipe yet. Edit it again?", wrong, yes="Edit again", no="Discard it")
        self.app.push_screen(question, lambda sure: self._edit(edited) if sure else None)

    def _take_over_fields(self) -> None:
        for step in self.query(Step):
            step.commit()

    def _show_another(self) -> None:
        """The draft is another now: every field, the plan, and what must be looked up for it."""
        self.touched = True
        for step in self.query(Step):
            step.refresh_fields()
        self.plan_at_once()
        self.show()
        self.refresh_soon()
