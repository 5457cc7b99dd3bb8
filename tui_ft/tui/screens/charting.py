"""The keys of a chart over steps, for every screen that has one: zoom, move, a cursor with the values under it."""

from __future__ import annotations

from tui_ft.tui.screen import TuiScreen
from tui_ft.tui.widgets.loss_chart import Chart
from tui_ft.tui.widgets.view import View

ZOOM, PAN = 0.5, 0.25
"""What a key leaves of the steps in sight, and the share of them it moves by."""


class Charting(TuiScreen):
    """The actions; `show_curves` brings what goes along with the chart."""

    _chart: Chart | None = None

    @property
    def chart(self) -> Chart:
        """Looked for once: it is asked for at every look."""
        if self._chart is None:
            self._chart = self.query_one(Chart)
        return self._chart

    def show_curves(self) -> None:
        """Show the curves anew, after the steps in sight have changed."""

    def action_zoom_in(self) -> None:
        self.chart.zoom(ZOOM)
        self.show_curves()

    def action_zoom_out(self) -> None:
        self.chart.zoom(1 / ZOOM)
        self.show_curves()

    def action_pan_left(self) -> None:
        self.chart.pan(-PAN)
        self.show_curves()

    def action_pan_right(self) -> None:
        self.chart.pan(PAN)
        self.show_curves()

    def action_cursor_left(self) -> None:
        self.chart.move_cursor(-1)
        self.show_curves()

    def action_cursor_right(self) -> None:
        self.chart.move_cursor(1)
        self.show_curves()

    def action_all_steps(self) -> None:
        """Everything in sight again, and no cursor."""
        self.chart.view = View()
        self.show_curves()

    def action_log_scale(self) -> None:
        self.chart.log_scale = not self.chart.log_scale

    def why_not_chart(self, action: str) -> str:
        """Why one of these actions does nothing now."""
        if action in ("pan_left", "pan_right") and self.is_mounted and self.chart.view.window is None:
            return "all steps are in sight: + shows fewer"
        return ""
