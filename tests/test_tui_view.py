"""The chart's window and cursor, and several runs on one chart."""

from __future__ import annotations

import synthetic
from pilots import until

from tui_ft.runs import compare
from tui_ft.tui.app import TuiFtApp
from tui_ft.tui.screens.compare import CompareScreen
from tui_ft.tui.screens.dashboard import DashboardScreen
from tui_ft.tui.screens.home import HomeScreen
from tui_ft.tui.widgets.loss_chart import Chart, LossChart
from tui_ft.tui.widgets.run_log import RunLog
from tui_ft.tui.widgets.view import NARROWEST, View

WHOLE = (0.0, 1000.0)


def test_zooming_in_stays_around_the_newest_step_and_out_comes_back_to_all() -> None:
    view = View().zoomed(WHOLE, newest=600, factor=0.5)
    first, last = view.domain(WHOLE)
    assert last - first == 500 and first <= 600 <= last
    for _ in range(20):
        view = view.zoomed(WHOLE, 600, 0.5)
    assert view.domain(WHOLE)[1] - view.domain(WHOLE)[0] == NARROWEST and view.domain(WHOLE)[0] <= 600 <= view.domain(WHOLE)[1]
    for _ in range(20):
        view = view.zoomed(WHOLE, 600, 2.0)
    assert view == View()


def test_a_window_never_leaves_the_run_and_follows_the_newest_step() -> None:
    view = View((0, 100))
    assert view.panned(WHOLE, -5).domain(WHOLE) == (0, 100)
    assert view.panned(WHOLE, 50).domain(WHOLE) == (900, 1000)
    assert View().panned(WHOLE, 0.5) == View()
    assert view.following(before=90, newest=140).window == (40, 140)
    assert view.following(before=300, newest=340) == view, "who looks at the past stays there"


def test_the_cursor_begins_at_the_newest_step_and_takes_the_window_along() -> None:
    view = View().moved(WHOLE, newest=400, by=-7)
    assert view.cursor == 400
    view = view.moved(WHOLE, 400, -50)
    assert view.cursor == 350
    assert view.moved(WHOLE, 400, -10_000).cursor == 0 and view.moved(WHOLE, 400, 10_000).cursor == 400
    view = View((300, 360), 310).moved(WHOLE, 400, -20)
    assert view.cursor == 290 and view.window == (280, 340)


async def test_the_dashboard_s_chart_by_keys() -> None:
    run = synthetic.recorded("running", steps=300, total=600)
    app = TuiFtApp()
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: isinstance(app.screen, HomeScreen))
        app.open_run(run)
        await until(pilot, lambda: isinstance(app.screen, DashboardScreen) and app.screen.feed.curves.progress.step == 300)
        screen = app.screen
        assert isinstance(screen, DashboardScreen)
        chart = screen.query_one(LossChart)
        await until(pilot, lambda: any("⠒⠒ loss" in row for row in chart.rows_as_text()))
        assert "all steps are in sight" in screen.unavailable("pan_left")
        await pilot.press("+", "+")
        assert chart.domain[1] - chart.domain[0] == 150 and chart.domain[0] <= 300 <= chart.domain[1]
        assert screen.unavailable("pan_left") == ""
        await pilot.press("<")
        assert chart.domain[1] - chart.domain[0] == 150 and chart.domain[1] < 400
        await pilot.press("left_square_bracket", "left_square_bracket")
        told = chart.rows_as_text()[0]
        step = int(told.split("step ")[1].split(":")[0])
        assert chart.domain[0] <= step <= 300
        loss = screen.feed.curves.loss[step - 1]
        assert f"loss {loss:.4g}" in told
        log = synthetic.Recorder(run)
        log.seq = 10_000
        log.write("step", step=301, epoch=0.5, loss=1.0, learning_rate=1e-4, grad_norm=0.5, tokens=1, tokens_per_second=1.0, memory_bytes=1)
        log.flush()
        await until(pilot, lambda: screen.feed.curves.progress.step == 301)
        assert chart.view.cursor is not None, "new steps leave the cursor where it is"
        await pilot.press("0")
        assert chart.view == View() and chart.domain == (0, 600)
        await pilot.press("slash", *"validation", "enter")
        lines = screen.query_one(RunLog)
        assert lines.log_lines.lines and all("validation" in line.lower() for line in lines.log_lines.lines)
        await pilot.press("escape")
        assert isinstance(app.screen, DashboardScreen) and any("checkpoint" in line for line in lines.log_lines.lines)
        await pilot.press("w")
        assert not any("checkpoint" in line for line in lines.log_lines.lines) and lines.told == "trouble only"
        await pilot.press("w", "escape")
        await until(pilot, lambda: isinstance(app.screen, HomeScreen))


async def test_marked_runs_are_compared_and_only_what_differs_is_told() -> None:
    first = synthetic.recorded("finished", steps=100, total=100, name="one", seed=1)
    second = synthetic.recorded("running", steps=60, total=100, name="two", seed=2)
    third = synthetic.recorded("stopped", steps=50, total=100, seed=3)  # another preset: another model
    assert compare.compare([first, second]).differs == {}
    differs = compare.compare([first, third]).differs
    assert differs["model.name"] == ["builtin:demo", "microsoft/phi-2"] and "name" not in differs
    assert differs["method.quantization"] == ["none", "nf4"]
    app = TuiFtApp()
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: isinstance(app.screen, HomeScreen) and app.focused is not None and app.focused.id == "runs")
        await pilot.press("space", "down", "space", "down", "space")
        home = app.screen
        assert isinstance(home, HomeScreen)
        assert len(home.marked) == 3 and "3 marked" in str(home.query_one("#runs-pane").border_subtitle)
        await pilot.press("space", "m")
        await until(pilot, lambda: isinstance(app.screen, CompareScreen))
        screen = app.screen
        assert isinstance(screen, CompareScreen)
        assert {feed.run.id for feed in screen.feeds} == set(home.marked) and len(screen.feeds) == 2
        chart = screen.query_one(Chart)
        await until(pilot, lambda: all(any(letter in row[7:] for row in chart.rows_as_text()) for letter in "AB"))
        await pilot.press("left_square_bracket")
        assert "A " in chart.rows_as_text()[0] and "B " in chart.rows_as_text()[0]
        shown = "\n".join("".join(segment.text for segment in strip) for strip in app.screen._compositor.render_strips())
        assert "model.name" in shown or "last loss" in shown
        await pilot.press("q")
        await until(pilot, lambda: isinstance(app.screen, HomeScreen))
        await pilot.press("o", "o", "o")
        ids = [option.id for option in home.query_one("#runs").options]  # type: ignore[attr-defined]
        losses = [home.table.rows[run_id].summary.last_loss for run_id in ids]
        assert losses == sorted(losses) and home.query_one("#runs-pane").border_title == "Runs by loss"
