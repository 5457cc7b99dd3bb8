"""Home: the runs as they are, the presets, the ways to begin; nothing is lost by a wrong key."""

from __future__ import annotations

import pytest
import synthetic
from pilots import until
from textual.widgets import Input, OptionList

from tui_ft import text
from tui_ft.runs import store
from tui_ft.tui.app import TuiFtApp
from tui_ft.tui.screens.confirm import Confirm
from tui_ft.tui.screens.dashboard import DashboardScreen
from tui_ft.tui.screens.home import HomeScreen

SIZES = [(60, 15), (80, 24), (120, 40)]


def lines(app: TuiFtApp, selector: str) -> list[str]:
    return [str(option.prompt) for option in app.screen.query_one(selector, OptionList).options]


def screen_text(app: TuiFtApp) -> str:
    return "\n".join("".join(segment.text for segment in strip) for strip in app.screen._compositor.render_strips())


@pytest.mark.parametrize("size", SIZES[::2])
async def test_first_start_offers_the_demo_and_lists_the_presets(size: tuple[int, int]) -> None:
    app = TuiFtApp()
    async with app.run_test(size=size) as pilot:
        await until(pilot, lambda: isinstance(app.screen, HomeScreen) and app.screen.query("#presets"))
        assert any(line.startswith("demo") for line in lines(app, "#presets"))
        assert "No runs yet" in screen_text(app)
        assert "Press d for the demo" in screen_text(app)


@pytest.mark.parametrize("size", SIZES)
async def test_every_state_is_named_in_words(size: tuple[int, int]) -> None:
    for number, state in enumerate(("running", "paused", "finished", "stopped", "failed", "lost")):
        synthetic.recorded(state, steps=30 + number, total=100, name=f"run-{state}")
    synthetic.new_run("run-queued")
    app = TuiFtApp()
    async with app.run_test(size=size) as pilot:
        await until(pilot, lambda: len(lines(app, "#runs")) == 7)
        for line in lines(app, "#runs"):
            state = line.split()[1]
            assert line.split()[2].startswith(f"run-{state}"[:8])
            assert len(line) <= size[0]
        assert not app.screen.query_one("#welcome").display


async def test_a_run_that_goes_on_and_then_dies_is_shown_as_it_is() -> None:
    run = synthetic.recorded("running", steps=30, total=100)
    app = TuiFtApp()
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "running" in lines(app, "#runs")[0])
        assert "30%" in lines(app, "#runs")[0]
        log = synthetic.Recorder(run)
        log.write("step", step=50, loss=1.5, mono=1.0)
        log.flush()
        await until(pilot, lambda: "50%" in lines(app, "#runs")[0])
        synthetic.own(run, alive=False)
        await until(pilot, lambda: "lost" in lines(app, "#runs")[0])


async def test_filter_narrows_by_name_and_state_and_escape_shows_all() -> None:
    synthetic.recorded("finished", steps=5, total=5, name="alpha")
    synthetic.recorded("stopped", steps=2, total=5, name="beta")
    app = TuiFtApp()
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: len(lines(app, "#runs")) == 2)
        await pilot.press("slash", *"ALPH")
        await until(pilot, lambda: len(lines(app, "#runs")) == 1)
        assert "alpha" in lines(app, "#runs")[0]
        await pilot.press("escape")
        await until(pilot, lambda: len(lines(app, "#runs")) == 2)
        await pilot.press("slash", *"stopp", "enter")
        await until(pilot, lambda: "beta" in "".join(lines(app, "#runs")) and len(lines(app, "#runs")) == 1)
        assert app.focused is app.screen.query_one("#runs")
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, DashboardScreen))
        assert app.screen.run.id.startswith("beta")


async def test_vi_keys_move_and_enter_opens_the_dashboard() -> None:
    for name in ("first", "second", "third"):
        synthetic.recorded("finished", steps=5, total=5, name=name)
    app = TuiFtApp()
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: len(lines(app, "#runs")) == 3)
        runs = app.screen.query_one("#runs", OptionList)
        await pilot.press("G")
        assert runs.highlighted == 2
        await pilot.press("k")
        assert runs.highlighted == 1
        await pilot.press("g", "j")
        assert runs.highlighted == 1
        wanted = runs.get_option_at_index(1).id
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, DashboardScreen))
        assert app.screen.run.id == wanted
        await pilot.press("q")
        await until(pilot, lambda: isinstance(app.screen, HomeScreen))
        assert app.screen.query_one("#runs", OptionList).highlighted == 1


async def test_delete_asks_and_no_is_the_default() -> None:
    run = synthetic.recorded("finished", steps=5, total=5)
    app = TuiFtApp()
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: len(lines(app, "#runs")) == 1)
        for answer in ("enter", "escape"):
            await pilot.press("x")
            await until(pilot, lambda: isinstance(app.screen, Confirm))
            assert run.id in screen_text(app)
            await pilot.press(answer)
            await until(pilot, lambda: isinstance(app.screen, HomeScreen))
            assert store.all_runs() == [run]
        await pilot.press("x")
        await until(pilot, lambda: isinstance(app.screen, Confirm))
        await pilot.press("y")
        await until(pilot, lambda: not store.all_runs())
        await until(pilot, lambda: not lines(app, "#runs"))


async def test_a_live_run_cannot_be_deleted_or_resumed_and_the_reason_is_told() -> None:
    run = synthetic.recorded("running", steps=5, total=50)
    app = TuiFtApp()
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: len(lines(app, "#runs")) == 1)
        home = app.screen
        assert isinstance(home, HomeScreen)
        assert "stop it first" in home.unavailable("delete")
        assert home.unavailable("resume") == "this run is running"
        assert home.unavailable("chat")
        await pilot.press("x", "r", "c")
        await pilot.pause()
        assert app.screen is home
        assert store.all_runs() == [run]


async def test_hostile_file_names_stay_harmless() -> None:
    run = synthetic.recorded("finished", steps=5, total=5)
    run.path.rename(run.path.with_name("[red][$x] \x1b]0;owned\x07[@click=app.quit]x"))
    app = TuiFtApp()
    async with app.run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: len(lines(app, "#runs")) == 1)
        assert lines(app, "#runs")[0] == text.visible(lines(app, "#runs")[0])
        assert "\x1b" not in screen_text(app)
        assert "[red][$x] ␛" in screen_text(app)


async def test_new_runs_appear_and_deleted_ones_go_while_the_filter_stays() -> None:
    synthetic.recorded("finished", steps=5, total=5, name="alpha")
    app = TuiFtApp()
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: len(lines(app, "#runs")) == 1)
        await pilot.press("slash", *"alp", "enter")
        synthetic.recorded("finished", steps=5, total=5, name="beta")
        other = synthetic.recorded("finished", steps=6, total=6, name="alpha2")
        await until(pilot, lambda: len(lines(app, "#runs")) == 2)
        assert app.screen.query_one("#filter", Input).value == "alp"
        other.delete()
        await until(pilot, lambda: len(lines(app, "#runs")) == 1)
