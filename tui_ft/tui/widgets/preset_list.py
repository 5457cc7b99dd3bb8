"""The presets to start from, each with what it is for."""

from __future__ import annotations

from textual.content import Content
from textual.widgets.option_list import Option

from tui_ft.recipe import presets
from tui_ft.tui.text import line
from tui_ft.tui.widgets.options import ScreenOptions


class PresetList(ScreenOptions):
    """Bundled presets first, then the user's own."""

    def __init__(self, id: str | None = None) -> None:
        super().__init__(id=id)
        self._presets: list[presets.PresetInfo] = []

    def load(self) -> None:
        """Read the presets anew; the cursor stays where it was."""
        self._presets = presets.names()
        width = max((len(preset.name) for preset in self._presets), default=0)
        self.offer(
            [
                Option(Content.assemble(line(f"{preset.name:<{width}}  ", style="bold"), line(preset.about, style="$foreground 60%")), id=preset.name)
                for preset in self._presets
            ]
        )

    def detail(self, width: int) -> Content:
        """The selected preset in two lines."""
        preset = next((preset for preset in self._presets if preset.name == self.selected), None)
        if preset is None:
            return Content("")
        return Content.assemble(line(preset.about, width), ("\nenter sets up a run from it", "$foreground 60%"))
