"""Step 4: the very text that the model will see, token by token, which of it is learned, and how long it may be."""

from __future__ import annotations

from textual import on
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.suggester import SuggestFromList
from textual.widgets import Static

from tui_ft.tui.widgets.field import Field
from tui_ft.tui.widgets.length_chart import LengthChart
from tui_ft.tui.widgets.token_view import TokenView
from tui_ft.tui.wizard.lengths import LengthPanel, stepped
from tui_ft.tui.wizard.samples import Samples
from tui_ft.tui.wizard.step import Step, again, findings_of, waiting

TEMPLATES = ("model", "chatml", "alpaca", "human-assistant", "text")


class PromptStep(Step):
    TITLE = "Prompt"
    LEAD = "The text that the model sees; what stands in ⟦ ⟧ is learned."
    KEYS = ("prompt",)

    def compose(self) -> ComposeResult:
        yield self.field("prompt.template", ", ".join(TEMPLATES) + " or a .jinja file", SuggestFromList(TEMPLATES))
        yield self.field("prompt.learn")
        yield self.field("prompt.max_length")
        yield self.field("prompt.overlong")
        yield self.field("prompt.add_tokens")
        yield Static("", id="prompt-found", classes="found", markup=False)
        with Vertical(id="prompt-panels"):
            yield Samples(self.backstage)
            yield LengthPanel()

    def irrelevant(self) -> set[str]:
        return {"prompt.add_tokens"} if self.draft.value("prompt.template") in ("model", "text") else set()

    def show(self) -> None:
        found = self.backstage.preview
        note = waiting(found, "the data") or (again(self.backstage) if found.busy else None)  # a count is told by the lengths' own title
        told = Content("\n").join([part for part in (note, *findings_of(found.value, "prompt")) if part])
        place = self.query_one("#prompt-found", Static)
        place.update(told)
        place.display = bool(told)
        self.query_one(Samples).refresh_samples()
        self.show_lengths()

    def show_lengths(self) -> None:
        """From the table alone: this follows every key."""
        panel = self.query_one(LengthPanel)
        known = self.backstage.table(self.wizard.recipe_now())
        panel.display = bool(known and known[0])
        if known and known[0] and self.draft.usable:
            prompt, plan, exact = self.draft.usable.prompt, self.backstage.plan.value, self.backstage.exact
            panel.show(
                known[0],
                prompt.max_length,
                overlong=prompt.overlong,
                sampled=known[1],
                batch=plan.micro_batch if plan and not plan.packing else None,
                counting="counting the rest" if exact.busy else "",
            )

    def move_maximum(self, up: bool, coarse: bool) -> None:
        """The line moves at once; the samples are cut anew once the person has paused."""
        if self.draft.usable is None:
            return
        self.draft.put("prompt.max_length", stepped(self.draft.usable.prompt.max_length, up, coarse))
        self.wizard.touched = True
        self.refresh_fields()
        self.show_lengths()
        self.wizard.plan_at_once()
        self.wizard.refresh_soon()

    def next_panel(self) -> None:
        """From the samples to the lengths and back to the fields; each comes into sight as it is entered."""
        stops = [widget for widget in (*self.query(TokenView), *self.query(LengthChart)) if widget.parent and widget.parent.display]  # type: ignore[attr-defined]
        at = next((index for index, widget in enumerate(stops) if widget.has_focus), -1)
        (stops[at + 1] if at + 1 < len(stops) else self.query(Field).first().control).focus()

    @on(Field.Edited)
    def _typed(self, event: Field.Edited) -> None:
        if event.field.key in ("prompt.max_length", "prompt.overlong"):
            self.call_later(self.show_lengths)
