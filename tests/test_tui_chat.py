"""The chat screen with a real model in its own process."""

from __future__ import annotations

from collections.abc import Callable

import synthetic
from textual.pilot import Pilot
from textual.widgets import Static

from tui_ft.tui.app import TuiFtApp
from tui_ft.tui.screens.chat import ChatScreen
from tui_ft.tui.screens.home import HomeScreen


async def until(pilot: Pilot[int], true: Callable[[], object], seconds: float = 90.0) -> None:
    """Wait for a condition, not for a time."""
    for _ in range(round(seconds / 0.05)):
        if true():
            return
        await pilot.pause(0.05)
    raise AssertionError(f"it did not come to it: {true}")


def status(screen: ChatScreen) -> str:
    return str(screen.query_one("#status", Static).render())


async def test_a_run_without_a_model_says_so() -> None:
    run = synthetic.recorded("running", steps=5, total=10)
    app = TuiFtApp()
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: isinstance(app.screen, HomeScreen))
        app.push_screen(screen := ChatScreen(run))
        await until(pilot, lambda: screen.is_mounted and "no model yet" in status(screen))
        await pilot.press("H", "i", "enter")
        assert screen.messages == []
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.screen, HomeScreen))


async def test_an_answer_streams_in_can_be_stopped_and_the_process_ends_with_the_screen() -> None:
    run = synthetic.recorded("finished", steps=5, total=5, name="chat-run")
    app = TuiFtApp()
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: isinstance(app.screen, HomeScreen))
        app.push_screen(screen := ChatScreen(run, base=True))
        await until(pilot, lambda: screen.is_mounted and status(screen) == "ready")
        process = screen.chat and screen.chat._process
        assert process
        await pilot.press(*"[/INST]", "enter")
        await until(pilot, lambda: screen.answering)
        await pilot.press("ctrl+x")
        await until(pilot, lambda: not screen.answering)
        assert "tokens" in status(screen)
        assert [message["role"] for message in screen.messages] == ["user", "assistant"]
        assert screen.messages[0]["content"] == "[/INST]"
        await pilot.press("escape")
        await until(pilot, lambda: process.poll() is not None)
