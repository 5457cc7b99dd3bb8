"""What the steps that name a repository can do with the Hub: search it, log in to it."""

from __future__ import annotations

from tui_ft.tui.wizard.lookups import Lookups
from tui_ft.tui.wizard.step import Step


class WithHub(Lookups):
    """The actions of the Model and the Dataset step."""

    @property
    def step(self) -> Step:
        return self.query_one(Step)

    def action_hub_search(self) -> None:
        from tui_ft.tui.screens.hub_search import HubSearch

        step = self.step
        step.commit()
        if step.HUB:
            self.app.push_screen(HubSearch(step.HUB), lambda name: step.take(name) if name and step.ready else None)

    def action_hub_login(self) -> None:
        from tui_ft.tui.screens.hub_login import HubLogin

        self.app.push_screen(HubLogin())

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Elsewhere the keys mean nothing, so they are not shown."""
        if action in ("hub_search", "hub_login") and not any(step.HUB for step in self.query(Step)):
            return False
        return super().check_action(action, parameters)
