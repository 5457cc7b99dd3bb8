"""The keys of the steps that show data: which step they belong to, and what they do there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tui_ft.tui.wizard.dataset import DatasetStep
from tui_ft.tui.wizard.lookups import Lookups
from tui_ft.tui.wizard.prompt import PromptStep
from tui_ft.tui.wizard.samples import Samples

if TYPE_CHECKING:
    from tui_ft.tui.wizard.step import Step

OF_SAMPLES = ("next_sample", "sample_before", "first_sample", "last_sample", "longest", "shortest", "truncated", "search")
OF_LENGTHS = ("shorter", "longer", "halve", "double")
OF_A_STEP: dict[str, type[Step]] = {**dict.fromkeys((*OF_SAMPLES, *OF_LENGTHS, "panel"), PromptStep), "columns": DatasetStep}
"""The actions of these keys, each with the step it belongs to."""


class Walking(Lookups):
    """Each action is offered at its own step only (`unavailable`), so that the step is there."""

    def action_next_sample(self) -> None:
        self._samples.walk(1)

    def action_sample_before(self) -> None:
        self._samples.walk(-1)

    def action_first_sample(self) -> None:
        self._samples.go(0)

    def action_last_sample(self) -> None:
        self._samples.go(self._samples.count - 1)

    def action_longest(self) -> None:
        self._samples.extreme(1)

    def action_shortest(self) -> None:
        self._samples.extreme(-1)

    def action_truncated(self) -> None:
        self._samples.next_truncated()

    def action_search(self) -> None:
        self._samples.ask()

    def action_shorter(self) -> None:
        self.query_one(PromptStep).move_maximum(up=False, coarse=False)

    def action_longer(self) -> None:
        self.query_one(PromptStep).move_maximum(up=True, coarse=False)

    def action_halve(self) -> None:
        self.query_one(PromptStep).move_maximum(up=False, coarse=True)

    def action_double(self) -> None:
        self.query_one(PromptStep).move_maximum(up=True, coarse=True)

    def action_panel(self) -> None:
        self.query_one(PromptStep).next_panel()

    def action_columns(self) -> None:
        self.query_one(DatasetStep).map_columns()

    @property
    def _samples(self) -> Samples:
        return self.query_one(Samples)
