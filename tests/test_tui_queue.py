"""The queue by keyboard: home shows, moves and cancels; the wizard offers it where the device is another run's."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pilots import until
from textual.widgets import OptionList
from waiting import Waiters

from tui_ft.runs import queue, store
from tui_ft.runs.devices import Device
from tui_ft.runs.store import Run
from tui_ft.runs.summary import summarize
from tui_ft.tui.app import TuiFtApp
from tui_ft.tui.screens.confirm import Confirm
from tui_ft.tui.screens.dashboard import DashboardScreen
from tui_ft.tui.screens.home import HomeScreen
from tui_ft.tui.wizard.screen import WizardScreen


@pytest.fixture
def holder(waiters: Waiters) -> Iterator[Run]:
    """A run that has the processor to itself."""
    run = waiters.create()
    held = queue.take_at_once(run, run.plan())
    assert isinstance(held, Device)
    yield run
    held.release()


def lines(app: TuiFtApp) -> list[str]:
    return [str(option.prompt) for option in app.screen.query_one("#runs", OptionList).options]


def text(app: TuiFtApp) -> str:
    return "\n".join("".join(segment.text for segment in strip) for strip in app.screen._compositor.render_strips())


async def test_home_shows_the_queue_moves_in_it_and_takes_out_after_a_question(waiters: Waiters, holder: Run) -> None:
    first, second = waiters.start(), waiters.start()
    app = TuiFtApp()
    async with app.run_test(size=(100, 30)) as pilot:
        await until(pilot, lambda: isinstance(app.screen, HomeScreen) and len(lines(app)) == 3)
        assert "queued" in lines(app)[0] and "2nd" in lines(app)[0] and "1st" in lines(app)[1]
        await until(pilot, lambda: "2nd in the queue" in text(app) and "u takes it out" in text(app))
        home = app.screen
        assert isinstance(home, HomeScreen)
        assert "u takes it out first" in home.unavailable("delete") and "begins by itself" in home.unavailable("resume")
        await pilot.press("K")
        await until(pilot, lambda: "1st" in lines(app)[0] and f"{holder.id} holds it" in text(app))
        await pilot.press("J")
        await until(pilot, lambda: "2nd" in lines(app)[0])
        for answer in ("enter", "y"):
            await pilot.press("u")
            await until(pilot, lambda: isinstance(app.screen, Confirm))
            await pilot.press(answer)
            await until(pilot, lambda: isinstance(app.screen, HomeScreen))
        await until(pilot, lambda: "stopped" in lines(app)[0])
        assert home.unavailable("unqueue") == "this run is not in the queue"
        await pilot.press("j", "enter")
        await until(pilot, lambda: isinstance(app.screen, DashboardScreen) and "waiting for the CPU" in text(app))
        await pilot.press("s")
        await until(pilot, lambda: isinstance(app.screen, Confirm))
        await pilot.press("y")
        await until(pilot, lambda: summarize(first).state == "stopped")
    assert summarize(second).reason == "cancelled while it waited"


async def test_the_wizard_offers_the_queue_where_another_run_has_the_device(holder: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(WizardScreen, "PAUSE", 3600.0)  # nothing is looked up behind the screen
    app = TuiFtApp("demo")
    async with app.run_test(size=(100, 30)) as pilot:
        await until(pilot, lambda: isinstance(app.screen, WizardScreen) and app.focused is not None)
        await pilot.press("7")
        await until(pilot, lambda: bool(app.screen.query("#step-review #queue")) and "with --queue it waits" in text(app), 30)
        await pilot.press("s")
        await until(pilot, lambda: f"the CPU is in use by {holder.id}. Queue?" in text(app), 150)
        assert store.all_runs() == [holder], "a refusal leaves nothing behind"
        await pilot.press("y")
        await until(pilot, lambda: isinstance(app.screen, DashboardScreen) and "waiting for the CPU" in text(app), 150)
    run = store.find("latest")
    assert run.plan().queued and summarize(run).queue_position == 1
