"""Step 1: what to start from — a preset, a model of the Hub, one on this machine, a folder or a GGUF file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual import on, work
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from tui_ft import demo, units
from tui_ft.hub.search import Hit
from tui_ft.recipe import presets
from tui_ft.tui import hub
from tui_ft.tui.draft import Draft
from tui_ft.tui.text import MUTED, content, line
from tui_ft.tui.widgets.model_details import published
from tui_ft.tui.widgets.options import Narrowed, Options, by_name_and_size
from tui_ft.tui.widgets.paths import PathSuggester
from tui_ft.tui.wizard.backstage import Backstage
from tui_ft.tui.wizard.step import Step, waiting

if TYPE_CHECKING:
    from tui_ft.planning.model_facts import ModelFacts


class ModelStep(Step):
    TITLE = "Model"
    LEAD = "Begin from a preset, or name the model to start from."
    KEYS = ("model",)
    HUB = "model"

    def __init__(self, draft: Draft, backstage: Backstage) -> None:
        super().__init__(draft, backstage)
        self._asked: tuple[str, str | None] | None = None
        """The model that `_details` are of, or are on their way for."""
        self._details: Content | None = None

    def compose(self) -> ComposeResult:
        yield self.field("model.name", "a Hub id such as microsoft/phi-2, a folder or a GGUF file; F3 searches", PathSuggester((".gguf",)))
        yield self.field("model.revision", "the main branch")
        yield Static("", id="model-facts", classes="found", markup=False)
        with Horizontal(classes="lists"):
            with Vertical(classes="list") as box:
                box.border_title = "Presets"
                yield Narrowed(Options(id="presets"))
            with Vertical(classes="list") as box:
                box.border_title = "Models on this machine"
                box.border_subtitle = "F3 searches the Hub"
                yield Narrowed(Options(id="cached"))

    def on_mount(self) -> None:
        super().on_mount()
        self._list_presets()
        self.list_cached()

    def _list_presets(self) -> None:
        listed, shown = self.query_one("#presets", Options), []
        infos = presets.names()
        self._about = {info.name: info.about for info in infos}
        for info in sorted(infos, key=lambda info: (info.name != "demo", not info.bundled)):
            mark = "● " if info.name == self.draft.origin else "  "
            mine = "" if info.bundled else "  (yours)"
            told = Content.assemble((mark, "$accent"), line(info.name, style="bold"), mine, "\n  ", line(info.about, style=MUTED))
            shown.append(Option(told, info.name))
        listed.offer(shown)
        listed.highlight(self.draft.origin or "demo")

    @work(exclusive=True, group="cached", exit_on_error=False)
    async def list_cached(self) -> None:
        listed = self.query_one("#cached", Options)
        listed.offer([Option(Content.styled("looking …", MUTED), disabled=True)])
        answer = await hub.cached("model")
        hits: list[Hit] = answer.value.hits if answer.value else []
        shown = [Option(Content.assemble(line(hit.name, style="bold"), (f"  {units.size(hit.cached_bytes)}", MUTED)), hit.name) for hit in hits]
        reason = answer.error or "None in the Hub's cache yet.\nF3 searches the Hub; a model is\ndownloaded when the run starts."
        listed.offer(shown or [Option(content(reason, MUTED), disabled=True)], by_name_and_size({hit.name: hit.cached_bytes for hit in hits}))

    @on(OptionList.OptionHighlighted, "#presets")
    def _explain(self, event: OptionList.OptionHighlighted) -> None:
        if event.option_list.has_focus:
            self.wizard.explain(self._about.get(event.option_id or "", ""))

    @on(OptionList.OptionSelected, "#presets")
    def _preset(self, event: OptionList.OptionSelected) -> None:
        self.wizard.begin_from(event.option_id or "")

    @on(OptionList.OptionSelected, "#cached")
    def _cached(self, event: OptionList.OptionSelected) -> None:
        if event.option_id:
            self.take(event.option_id)

    def show(self) -> None:
        asked = (str(self.draft.value("model.name")), self.draft.value("model.revision"))
        if "model.name" in self.draft.problems:
            self.query_one("#model-facts", Static).update("")
            return
        if asked != self._asked and asked[0] != demo.NAME:
            self._asked, self._details = asked, None
            self.look(*asked)
        found = self.backstage.facts
        parts = [waiting(found, "the model") or _described(found.value), self._details or Content("")]
        self.query_one("#model-facts", Static).update(Content("\n").join([part for part in parts if part]))

    @work(exclusive=True, group="details", exit_on_error=False)
    async def look(self, name: str, revision: str | None) -> None:
        """What its publisher says of it; the structure comes from elsewhere, so a failure here is not told twice."""
        answer = await hub.model_details(name, revision)
        if answer.value is not None and self.ready and self._asked == (name, revision):
            self._details = published(answer.value)
            self.show()


def _described(facts: ModelFacts | None) -> Content:
    """What the config says, on two lines."""
    if facts is None:
        return Content("")
    stored = f", stored as {facts.dtype}" if facts.dtype else ""
    quantized = f", already quantized by {facts.quantized}" if facts.quantized else ""
    return Content.assemble(
        ("✓ ", "$success"),
        line(facts.architecture, style="bold"),
        f"  {units.count(facts.total)} parameters in {facts.layers} layers",
        content(f"{stored}{quantized}\n  context {facts.context_length:,} tokens, vocabulary {facts.vocab_size:,}", MUTED),
    )
