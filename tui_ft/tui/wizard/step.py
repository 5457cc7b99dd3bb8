"""What the steps of the wizard share: fields bound to the draft, and places that show what was found out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

from textual import on
from textual.containers import VerticalScroll
from textual.content import Content
from textual.suggester import Suggester
from textual.widgets import Static
from textual.worker import Worker

from tui_ft.tui import keys
from tui_ft.tui.draft import REQUIRED, Draft
from tui_ft.tui.text import MUTED, content
from tui_ft.tui.widgets.field import Field
from tui_ft.tui.wizard.alternatives import Alternatives
from tui_ft.tui.wizard.backstage import Backstage
from tui_ft.tui.wizard.finding import Finding
from tui_ft.tui.wizard.resolved import resolved

if TYPE_CHECKING:
    from tui_ft.data.preview import Preview
    from tui_ft.tui.wizard.screen import WizardScreen

SIGNS = {"error": "✗", "warning": "!", "ok": "·"}
COLOURS = {"error": "$text-error", "warning": "$text-warning", "ok": MUTED}
"""Of a finding's severity: told by the sign as well as by the colour."""


class Step(VerticalScroll, can_focus=False):
    """One step. It holds no state of its own: everything is in the draft, so that it can be left and come back to at any time."""

    BINDINGS = [keys.find(f"wizard.{name}").binding() for name in ("next-field", "field-before")]  # noqa: RUF012
    """The screen's own, here in place of those that scroll."""

    TITLE: ClassVar[str] = ""
    LEAD: ClassVar[str] = ""
    """One sentence under the stepper."""
    KEYS: ClassVar[tuple[str, ...]] = ()
    """The recipe's keys that are set here; a section's name stands for all of its keys."""

    HUB: ClassVar[Literal["", "model", "dataset"]] = ""
    """What F3 searches for here."""

    def __init__(self, draft: Draft, backstage: Backstage) -> None:
        super().__init__(id=f"step-{self.TITLE.lower()}", classes="step")
        self.draft = draft
        self.backstage = backstage
        self.ready = False
        """Its widgets are there: before they are mounted, and while they are taken away, nothing can be shown in them."""

    @property
    def wizard(self) -> WizardScreen:
        return cast("WizardScreen", self.screen)

    def on_worker_state_changed(self, event: Worker.StateChanged) -> None:
        self.wizard.tui.worker_failed(event)

    @classmethod
    def problems(cls, draft: Draft) -> dict[str, str]:
        """What is wrong with the keys of this step."""
        return {key: message for key, message in draft.problems.items() if key in cls.KEYS or key.partition(".")[0] in cls.KEYS}

    def irrelevant(self) -> set[str]:
        """The keys that mean nothing as the others stand; their fields are not shown."""
        return set()

    def show(self) -> None:
        """Show what was found out; called whenever the draft or a finding has changed."""

    def show_work(self) -> None:
        """Show how far the look at the data is; called a few times a second while one is under way."""

    def field(self, key: str, placeholder: str = "", suggester: Suggester | None = None) -> Field:
        return Field(key, self.draft.text(key), placeholder, suggester)

    def on_mount(self) -> None:
        self.ready = True
        self.refresh_fields()
        self.show()
        self.show_alternatives()
        self.show_resolved()

    def show_alternatives(self) -> None:
        """In the steps that offer them."""
        plan = self.backstage.plan.value
        for listed in self.query(Alternatives):
            listed.show(plan.options if plan and not self.backstage.plan.error else [], self.wizard.taken)

    def show_resolved(self) -> None:
        """What `auto` stands for, beside each field that says so."""
        plan = self.backstage.plan.value
        for field in self.query(Field):
            field.resolve(resolved(field.key, self.draft, plan))

    def refresh_fields(self) -> None:
        """Texts, problems and relevance of all fields, from the draft."""
        if not self.ready:
            return
        hidden = self.irrelevant()
        for field in self.query(Field):
            field.show(self.draft.text(field.key))
            field.display = field.key not in hidden or field.key in self.draft.problems
            problem = self.draft.problems.get(field.key, "")
            field.complain("" if problem == REQUIRED.get(field.key) else problem)

    def commit(self) -> None:
        """Take over every text."""
        if not self.ready:
            return
        for field in self.query(Field):
            self.draft.type(field.key, field.text)

    def take(self, name: str) -> None:
        """Take a repository that was found by a search; what belonged to the one before goes with it."""
        taken: dict[str, dict[str, Any]] = {
            "model": {"model.name": name, "model.revision": None},
            "dataset": {"data.source": name, "data.config": None, "data.columns": {}, "data.format": "auto"},
        }
        for key, value in taken[self.HUB].items():
            self.draft.put(key, value)
        self.wizard.touched = True
        self.refresh_fields()
        self.wizard.refresh_soon()

    @on(Field.Edited)
    def _edited(self, event: Field.Edited) -> None:
        event.stop()
        if self.draft.type(event.field.key, event.text):
            self.wizard.touched = True
            if event.field.key not in self.draft.problems:
                event.field.complain("")
                self.wizard.plan_at_once()

    @on(Alternatives.Chosen)
    def _alternative(self, event: Alternatives.Chosen) -> None:
        event.stop()
        self.wizard.take(event.option)
        self.refresh_fields()

    @on(Field.Committed)
    def _committed(self, event: Field.Committed) -> None:
        event.stop()
        if not self.ready:
            return
        event.field.complain(self.draft.problems.get(event.field.key, ""))
        self.refresh_fields()
        self.wizard.show()
        self.wizard.refresh_soon()

    @on(Field.Done)
    async def _done(self, event: Field.Done) -> None:
        event.stop()
        if not self.ready:
            return
        following = [field for field in self.query(Field) if field.display]
        at = following.index(event.field)
        if at + 1 < len(following):
            following[at + 1].control.focus()
        else:
            await self.wizard.action_next()


class Shown(VerticalScroll, can_focus=True):
    """A box that is read, not typed into; focused, the arrow keys scroll it."""

    DEFAULT_CSS = """
    Shown { height: 1fr; min-height: 5; border: round $border; border-title-color: $text-muted; padding: 0 1; scrollbar-size-vertical: 1; }
    Shown:focus { border: round $primary; }
    Shown > Static { width: 1fr; }
    """

    def __init__(self, title: str, id: str) -> None:
        super().__init__(id=id)
        self.border_title = title

    def compose(self) -> Any:
        yield Static("", markup=False)

    def update(self, shown: Content) -> None:
        for static in self.query(Static):
            static.update(shown)


def waiting(found: Finding[Any], what: str) -> Content | None:
    """What to say where there is no value to show: that it is being looked up, or why it failed; None where there is one."""
    if found.stopped:
        return Content.styled(f"Stopped: {what} was not looked at to the end. x looks again.", "$text-warning")
    if found.error and not found.busy:
        hint = content(f"\n→ {found.hint}", MUTED) if found.hint else Content("")
        return Content.assemble(content(f"✗ {found.error}", "$text-error"), hint)
    if found.value is None:
        told = found.work.text()
        return content(f"Looking at {what} …{f' {told} (x stops)' if told else ''}" if found.busy else f"Not looked at yet: {what}.", MUTED)
    return None


def again(backstage: Backstage) -> Content | None:
    """That a newer preview is on its way while the old one is in sight, or that all rows are being counted, and how far that is; else None."""
    found, exact = backstage.preview, backstage.exact
    if found.busy and found.value is not None:
        return content(f"looking again … {found.work.text()}", MUTED)
    return content(f"counting all rows … {exact.work.text()} (x stops)", MUTED) if exact.busy else None


def findings_of(seen: Preview | None, *sections: str) -> list[Content]:
    """What the data's checks found wrong that these sections of the recipe can mend; the rows, and what is good to know, stand at the review."""
    spoken = [finding for finding in seen.findings if finding.severity != "ok"] if seen else []
    return [
        Content.assemble(
            content(f"{SIGNS[finding.severity]} {finding.message}", COLOURS[finding.severity]),
            content(f"\n  → {finding.hint}", MUTED) if finding.hint and finding.severity == "error" else "",
        )
        for finding in spoken
        if finding.where.partition(".")[0] in sections
    ]
