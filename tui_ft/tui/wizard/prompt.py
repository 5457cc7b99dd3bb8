"""Step 4: the very text that the model will see, token by token, and which of it is learned."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.app import ComposeResult
from textual.content import Content
from textual.suggester import SuggestFromList
from textual.widgets import Static

from tui_ft.text import visible
from tui_ft.tui.text import MUTED, content
from tui_ft.tui.wizard.step import Shown, Step, waiting

if TYPE_CHECKING:
    from tui_ft.data.preview import Preview, PreviewSample

TEMPLATES = ("model", "chatml", "alpaca", "human-assistant", "text")
MOST_TOKENS = 600
"""Of one sample: more is scrolling without an end, and a slow redraw over SSH."""
_LEARNED = "underline $success"
_GIVEN = MUTED


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
        yield Shown("Samples, token by token", "prompt-samples")

    def irrelevant(self) -> set[str]:
        return {"prompt.add_tokens"} if self.draft.value("prompt.template") in ("model", "text") else set()

    def show(self) -> None:
        found, seen = self.backstage.preview, self.backstage.preview.value
        lines = [waiting(found, "the data") or _lengths(seen, found.busy)]
        if seen:
            lines += [content(f"✗ {refusal}", "$text-error") for refusal in seen.refusals]
        self.query_one("#prompt-found", Static).update(Content("\n").join(lines))
        box = self.query_one("#prompt-samples", Shown)
        box.display = bool(seen and seen.samples)
        box.update(
            Content("\n").join([part for number, sample in enumerate(seen.samples, 1) for part in _sample(number, sample)]) if seen else Content("")
        )


def _lengths(seen: Preview | None, busy: bool) -> Content:
    if seen is None:
        return Content("")
    lengths, kept = seen.lengths, max(1, seen.kept + seen.lengths.answer_lost)
    cut = f"{100 * lengths.truncated / kept:.1f} % truncated"
    lost = f"{100 * lengths.answer_lost / kept:.1f} % lose their whole answer"
    return Content.assemble(
        ("tokens a sample  ", MUTED),
        f"half under {lengths.p50:,}, 95 % under {lengths.p95:,}, longest {lengths.max:,}\n",
        ("at this maximum  ", MUTED),
        (cut, "$text-warning" if lengths.truncated else ""),
        ", ",
        (lost, "$text-error" if lengths.answer_lost else ""),
        ("  (looking again …)" if busy else "", MUTED),
    )


def _sample(number: int, sample: PreviewSample) -> list[Content]:
    """One sample: learned runs stand in ⟦ ⟧ and are underlined, neighbouring tokens are told apart by their background."""
    learned = sum(token.learned for token in sample.tokens)
    head = Content.assemble((f"sample {number}", "bold"), (f"  {len(sample.tokens):,} tokens, {learned:,} learned", MUTED))
    parts: list[tuple[str, str]] = []
    before = False
    for index, token in enumerate(sample.tokens[:MOST_TOKENS]):
        if token.learned != before:
            parts.append(("⟦", "bold $success") if token.learned else ("⟧", "bold $success"))
            before = token.learned
        shade = "$foreground 6%" if index % 2 else "$foreground 13%"
        parts.append((_token(token.text), f"{_LEARNED if token.learned else _GIVEN} on {shade}"))
    if before:
        parts.append(("⟧", "bold $success"))
    if len(sample.tokens) > MOST_TOKENS:
        parts.append((f" … and {len(sample.tokens) - MOST_TOKENS:,} more", MUTED))
    return [head, Content.assemble(*parts), Content("")]


def _token(text: str) -> str:
    """A token's characters: line breaks marked and kept, nothing invisible."""
    return visible(text).replace("\t", "⇥").replace("\n", "⏎\n") or "∅"
