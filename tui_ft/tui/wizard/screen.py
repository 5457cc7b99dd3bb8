"""The wizard's frame: seven steps in any order, the plan beside them, and the way on, back and out."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from textual import events, on
from textual.app import ComposeResult
from textual.containers import Container, Horizontal, Vertical
from textual.content import Content
from textual.widgets import Button, Footer, Input, Static

from tui_ft.tui import keys
from tui_ft.tui.draft import Draft
from tui_ft.tui.text import content
from tui_ft.tui.widgets.field import Field
from tui_ft.tui.widgets.plan_panel import Known, PlanPanel, plan_line
from tui_ft.tui.widgets.stepper import Stepper
from tui_ft.tui.wizard.beginning import Beginning
from tui_ft.tui.wizard.changing import Changing
from tui_ft.tui.wizard.dataset import DatasetStep
from tui_ft.tui.wizard.guidance import belongs, field_help, hint, note, step_state, why_not
from tui_ft.tui.wizard.language import LanguageStep
from tui_ft.tui.wizard.method import MethodStep
from tui_ft.tui.wizard.model import ModelStep
from tui_ft.tui.wizard.prompt import PromptStep
from tui_ft.tui.wizard.review import ReviewStep
from tui_ft.tui.wizard.starting import Starting
from tui_ft.tui.wizard.step import Step
from tui_ft.tui.wizard.training import TrainingStep
from tui_ft.tui.wizard.walking import Walking

STEPS: tuple[type[Step], ...] = (ModelStep, DatasetStep, LanguageStep, PromptStep, MethodStep, TrainingStep, ReviewStep)
_LOOKS_AT_DATA = (DatasetStep, LanguageStep, PromptStep)


class WizardScreen(Walking, Beginning, Changing, Starting):
    """Edits a draft. Leaving keeps it; starting a run uses it up."""

    CSS_PATH = Path(__file__).with_name("wizard.tcss")
    AUTO_FOCUS = ""  # each step knows which of its fields needs a person
    GROUP = "wizard"
    BINDINGS = keys.bindings("wizard")  # type: ignore[assignment]
    ABOUT: ClassVar[str] = (
        "Seven steps to a run, in any order; the digits 1 to 7 go to one where no text is typed. What you choose is kept while you "
        "go back and forth, and for next time when you leave. The plan follows every change: memory, batch, disk, and why."
    )

    def __init__(self, draft: Draft) -> None:
        super().__init__(draft)
        self.at = 0

    def compose(self) -> ComposeResult:
        yield Stepper([step.TITLE for step in STEPS])
        with Horizontal(id="wizard-main"):
            with Vertical(id="wizard-left"):
                yield Static("", id="lead")
                yield Container(id="step-place")
                yield Static("", id="explain")
            yield PlanPanel(id="plan-panel")
        yield Static("", id="plan-line")
        with Horizontal(id="nav"):
            yield Button("← Back", id="back", compact=True)
            yield Button("Next →", id="next", compact=True, variant="primary")
            yield Static("", id="nav-note")
        yield Footer(show_command_palette=False)

    async def on_mount(self) -> None:
        for button in self.query("#nav Button").results(Button):
            button.active_effect_duration = 0  # while the effect lasts a button drops key presses: enter, enter, enter must count
        await self.go(0)

    @property
    def last(self) -> bool:
        """The open step is the review."""
        return self.at == len(STEPS) - 1

    # Going about

    async def go(self, index: int) -> None:
        """Open a step; what was typed in the one before is taken over first."""
        for step in self.query(Step):
            step.commit()
            step.ready = False
        self.at = max(0, min(len(STEPS) - 1, index))
        self._seen.add(self.at)
        kind = STEPS[self.at]
        place = self.query_one("#step-place", Container)
        step = kind(self.draft, self.backstage)
        async with self.batch():
            await place.remove_children()
            await place.mount(step)
            self.query_one("#lead", Static).update(Content(kind.LEAD))
            self.query_one("#next", Button).label = "Start training" if self.last else "Next →"
            self.query_one("#back", Button).disabled = self.at == 0
        self.call_after_refresh(self._focus_first)
        self.refresh_bindings()
        self.show()
        self.refresh_soon()

    def _focus_first(self) -> None:
        """The first field that needs a person; where none does, the way on: enter, enter, enter reaches the end."""
        wrong = [field for field in self.query(Field) if field.key in self.draft.problems]
        if wrong:
            wrong[0].control.focus()
        else:
            self.to_the_way_on()

    def to_the_way_on(self) -> None:
        """Focus on Next: where the list that had it is answered, or nothing else is to be done."""
        self.query_one("#next", Button).focus()
        self.explain(self._hint())  # it may have had the focus before, of another step

    async def action_next(self) -> None:
        await self.go(self.at + 1)

    async def action_back(self) -> None:
        await self.go(self.at - 1)

    async def action_go(self, number: int) -> None:
        await self.go(number - 1)

    def action_plan(self) -> None:
        self.toggle_class("-no-plan" if self.has_class("-wide") else "-plan")
        self.query_one("#plan-panel", PlanPanel).scroll_home(animate=False)

    def action_restore(self) -> None:
        for field in self.query(Field):
            if field.has_focus_within:
                self.draft.restore(field.key)
                self.touched = True
                self.step.refresh_fields()
                self.refresh_soon()

    def action_leave(self) -> None:
        self.step.commit()
        self._keep()
        self.dismiss()
        if self.touched:
            self.app.notify("The draft is kept: New run goes on with it.")

    def looks_at_data(self) -> bool:
        return STEPS[self.at] in _LOOKS_AT_DATA

    # Showing

    def show(self) -> None:
        """Everything that follows from the draft and the findings."""
        if not self.is_mounted or not self.query(Stepper):  # not yet, or not any more
            return
        with self.app.batch_update():
            self.show_steps()
            self.show_plan()
            self.show_work()
            for step in self.query(Step):
                if step.ready:
                    step.show()
        self.refresh_keys()

    def show_plan(self) -> None:
        known = self._known()
        self.query_one("#plan-line", Static).update(plan_line(known))
        self.query_one("#plan-panel", PlanPanel).show(known)
        for step in self.query(Step):
            if step.ready:
                step.show_alternatives()
                step.show_resolved()

    def _known(self) -> Known:
        found = self.backstage
        return Known(
            found.plan,
            found.memory_shown(),
            found.hardware,
            problems=len(self.draft.problems),
            looking=found.facts.busy,
            trouble=found.facts.error or found.forecasting.found.error,
            disk_free=found.disk_free,
            moved=found.moved,
        )

    def show_steps(self) -> None:
        states = [step_state(step, self.draft, self.backstage, index in self._seen) for index, step in enumerate(STEPS)]
        told = sum(finding.severity != "ok" for finding in self.backstage.all_findings(self.recipe_now()))
        self.query_one(Stepper).show(self.at, states, {len(STEPS) - 1: told})

    def show_work(self) -> None:
        """How far the lookups are; where there is nothing else to show, in the step as well."""
        place = self.query_one("#nav-note", Static)
        place.update(note(self.draft, self.backstage, place.size.width))
        if self.backstage.preview.busy or self.backstage.exact.busy:
            for step in self.query(Step):
                if step.ready:
                    step.show_work()

    # Explaining

    def on_descendant_focus(self, event: events.DescendantFocus) -> None:
        field = self._focused_field()
        self.explain(field.spec.help if field else self._hint())

    def explain(self, about: str) -> None:
        """Two lines on what is focused."""
        self.query_one("#explain", Static).update(content(about))

    def _hint(self) -> str:
        """What the keys do where no field is focused."""
        return hint(self.focused, None if self.last else STEPS[self.at + 1])

    def _focused_field(self) -> Field | None:
        return next((field for field in self.query(Field) if field.has_focus_within), None)

    def help_text(self) -> str:
        field = self._focused_field()
        return field_help(field, self.draft, self.backstage.plan.value) if field else ""

    # What can be done now

    def unavailable(self, action: str) -> str:
        return why_not(action, self.draft, self.backstage, STEPS[self.at], first=self.at == 0, last=self.last)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Each step has its own keys; F8, pressed once too often, must not start a run."""
        if not belongs(action, STEPS[self.at]) or (action == "next" and self.last):
            return False
        return super().check_action(action, parameters)

    @on(Stepper.Chosen)
    async def _chosen(self, event: Stepper.Chosen) -> None:
        await self.go(event.index)

    @on(Button.Pressed, "#next")
    async def _next(self) -> None:
        if self.last:
            self.action_start()
        else:
            await self.action_next()

    @on(Button.Pressed, "#back")
    async def _back(self) -> None:
        await self.action_back()

    @on(Input.Submitted)
    def _swallow(self, event: Input.Submitted) -> None:
        event.stop()
