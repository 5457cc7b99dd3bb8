"""Step 5: which weights are trained, and how the frozen ones are held."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.content import Content
from textual.widgets import Static

from tui_ft import units
from tui_ft.tui.text import MUTED, content, line
from tui_ft.tui.wizard.alternatives import Alternatives
from tui_ft.tui.wizard.step import Step, waiting


class MethodStep(Step):
    TITLE = "Method"
    LEAD = "Train everything, the last layers, or small adapters beside frozen weights."
    KEYS = ("method",)

    def compose(self) -> ComposeResult:
        yield self.field("method.kind")
        yield self.field("method.quantization")
        yield self.field("method.double_quantization")
        yield self.field("method.layers", "how many")
        yield self.field("method.variant")
        yield self.field("method.r")
        yield self.field("method.alpha")
        yield self.field("method.dropout")
        yield self.field("method.targets", "all-linear, or names such as q_proj, v_proj")
        yield Static("", id="method-found", classes="found", markup=False)
        yield Alternatives()

    def irrelevant(self) -> set[str]:
        kind = self.draft.value("method.kind")
        hidden = (
            set()
            if kind == "lora"
            else {f"method.{leaf}" for leaf in ("quantization", "double_quantization", "variant", "r", "alpha", "dropout", "targets")}
        )
        if self.draft.value("method.quantization") != "nf4":
            hidden.add("method.double_quantization")
        return hidden if kind == "last-layers" else hidden | {"method.layers"}

    def show(self) -> None:
        self.query_one("#method-found", Static).update(Content("\n").join([*self._modules(), *self._trained()]))

    def _modules(self) -> list[Content]:
        """The names that targets may hold, as this model calls them."""
        found = self.backstage.facts
        note = waiting(found, "the model")
        if note or found.value is None:
            return [note or Content("")]
        if self.draft.value("method.kind") == "last-layers":
            return [content(f"This model has {found.value.layers} layers.", MUTED)]
        if self.draft.value("method.kind") != "lora":
            return []
        names = list(dict.fromkeys(group.short_name for group in found.value.linears if not group.head))
        return [Content.assemble(("linear modules of this model  ", MUTED), line(", ".join(names)))]

    def _trained(self) -> list[Content]:
        plan = self.backstage.plan.value
        if plan is None or not plan.trainable_parameters or not plan.parameters:
            return []
        share = f"{100 * plan.trainable_parameters / plan.parameters:.3g} %"
        return [
            Content.assemble(
                ("trained parameters  ", MUTED),
                (f"{plan.trainable_parameters:,}", "bold"),
                f" of {plan.parameters:,} ({share})",
            ),
            content(f"memory for them  {units.size(plan.memory.adapters + plan.memory.gradients + plan.memory.optimizer)}", MUTED),
        ]
