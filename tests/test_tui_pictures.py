"""Every screen as it looks, kept as text beside the tests: a change of looks is seen in the diff, and meant.

After a meant change: `TUI_FT_PICTURES=write pytest tests/test_tui_pictures.py`, and read what changed. The themes are kept with their colours,
as a terminal gets them: `cat tests/pictures/*.ansi` shows them.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import synthetic
from local_hub import LocalHub, Repository
from pilots import until
from rich.console import Console
from rich.segment import Segment, Segments
from textual.pilot import Pilot
from textual.screen import Screen

from tui_ft import hardware
from tui_ft.hardware import Hardware
from tui_ft.hub.code import CodeFile, RemoteCode
from tui_ft.planning import timing
from tui_ft.runs.store import Run
from tui_ft.tui import keys, themes
from tui_ft.tui.app import TuiFtApp
from tui_ft.tui.screens.chat import ChatScreen
from tui_ft.tui.screens.compare import CompareScreen
from tui_ft.tui.screens.consent import CodeConsent
from tui_ft.tui.screens.dashboard import DashboardScreen
from tui_ft.tui.screens.home import HomeScreen
from tui_ft.tui.screens.hub_search import HubSearch
from tui_ft.tui.wizard.screen import STEPS, WizardScreen

SIZES = ((80, 24), (120, 40))
GIB = 2**30
PICTURES = Path(__file__).with_name("pictures")
PATIENCE = 20.0
"""Seconds that a screen may take to look as it shall, on a machine that is very busy."""
REST = 0.6
"""A screen that has not changed for so long is at rest, when its picture is made."""


@pytest.fixture(autouse=True)
def same_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a screen tells of the machine and of the time is the same everywhere."""
    monkeypatch.setattr(hardware, "read", lambda: Hardware(cpus=8, ram_total=64 * GIB, ram_free=48 * GIB, note="no GPU: there is no driver"))
    monkeypatch.setattr(hardware, "free_disk", lambda path: 200 * GIB)
    rate = timing.rate
    monkeypatch.setattr(timing, "rate", lambda gpu, setup, timed, *rest: rate(gpu, setup, 1e11 if timed else None, *rest))
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()


def strips(app: TuiFtApp) -> list[list[Segment]]:
    return [list(strip) for strip in app.screen._compositor.render_strips()]


def steady(text: str) -> str:
    """Without what differs from run to run: the time in a run's name, cut or whole."""
    text = re.sub(r"-(2\d*)…", lambda match: f"-{'20260314'[: len(match[1])]}…", text)
    return re.sub(r"-\d{6}(?!\d|…)", "-092653", re.sub(r"-\d{8}-", "-20260314-", text))


def plain(app: TuiFtApp) -> str:
    """What a person reads."""
    return steady("\n".join("".join(segment.text for segment in line).rstrip() for line in strips(app)) + "\n")


def coloured(app: TuiFtApp) -> str:
    """What a terminal of many colours gets."""
    console = Console(force_terminal=True, color_system="truecolor", width=app.size.width, legacy_windows=False)
    with console.capture() as captured:
        for line in strips(app):
            console.print(Segments(line), end="\n")
    return steady(captured.get())


async def looks(pilot: Pilot[int], app: TuiFtApp, name: str, seen: Callable[[TuiFtApp], str] = plain) -> None:
    """Wait until the screen looks like its picture, or make the picture where that was asked for."""
    file = PICTURES / f"{name}.{'txt' if seen is plain else 'ansi'}"
    if os.environ.get("TUI_FT_PICTURES") == "write":
        file.parent.mkdir(exist_ok=True)
        file.write_text(await at_rest(pilot, app, seen), encoding="utf-8")
        return
    expected, deadline = file.read_text(encoding="utf-8"), time.monotonic() + PATIENCE
    while seen(app) != expected and time.monotonic() < deadline:
        await pilot.pause(0.05)
    assert seen(app).splitlines() == expected.splitlines(), f"{name} looks otherwise: TUI_FT_PICTURES=write makes its picture anew"


async def at_rest(pilot: Pilot[int], app: TuiFtApp, seen: Callable[[TuiFtApp], str]) -> str:
    shown, since, deadline = seen(app), time.monotonic(), time.monotonic() + PATIENCE
    while time.monotonic() - since < REST:
        await pilot.pause(0.05)
        assert time.monotonic() < deadline, "the screen does not come to rest"
        if seen(app) != shown:
            shown, since = seen(app), time.monotonic()
    return shown


async def looks_at_each_size(pilot: Pilot[int], app: TuiFtApp, name: str) -> None:
    for width, height in SIZES:
        await pilot.resize_terminal(width, height)
        await looks(pilot, app, f"{name}-{width}x{height}")


async def test_home() -> None:
    app = TuiFtApp()
    async with app.run_test(size=SIZES[0]) as pilot:
        await until(pilot, lambda: isinstance(app.screen, HomeScreen) and "no GPU" in plain(app))
        await looks_at_each_size(pilot, app, "home-empty")
    for number, state in enumerate(("running", "paused", "finished", "stopped", "failed", "lost")):
        synthetic.recorded(state, steps=30 + 5 * number, total=100, name=f"run-{state}", seed=number)
    app = TuiFtApp()
    async with app.run_test(size=SIZES[0]) as pilot:
        await until(pilot, lambda: isinstance(app.screen, HomeScreen) and "run-lost" in plain(app))
        await pilot.press("o")  # by name: those of one second come in any order
        await looks_at_each_size(pilot, app, "home-filled")
        await pilot.press("slash", *"nothing-of-this-name", "enter")
        await looks_at_each_size(pilot, app, "home-filtered")


@pytest.mark.parametrize("state", ["running", "paused", "diverged", "finished", "failed"])
async def test_dashboard(state: str) -> None:
    app, run = TuiFtApp(), synthetic.recorded(state, steps=120, total=200)
    async with app.run_test(size=SIZES[0]) as pilot:
        await opened(pilot, app, run)
        await looks_at_each_size(pilot, app, f"dashboard-{state}")
        if state == "running":
            for panel in ("checkpoints", "samples"):
                await pilot.press("v")
                await looks_at_each_size(pilot, app, f"dashboard-{panel}")


async def test_dashboard_in_every_theme() -> None:
    app, run = TuiFtApp(), synthetic.recorded("diverged", steps=120, total=200)
    async with app.run_test(size=SIZES[0]) as pilot:
        await opened(pilot, app, run)
        for name in themes.NAMES:
            app.theme = name
            await looks(pilot, app, f"theme-{name}", coloured)


async def test_wizard_empty_and_invalid() -> None:
    app = TuiFtApp()
    async with app.run_test(size=SIZES[0]) as pilot:
        await until(pilot, lambda: isinstance(app.screen, HomeScreen))
        app.open_wizard()
        await until(pilot, lambda: isinstance(app.screen, WizardScreen) and app.focused is not None)
        for number, step in enumerate(STEPS, 1):
            await wizard(app).go(number - 1)
            await looks_at_each_size(pilot, app, f"wizard-empty-{number}-{step.TITLE.lower()}")
        draft = wizard(app).draft
        for key, text in {"prompt.max_length": "-5", "method.r": "many", "train.learning_rate": "fast", "train.epochs": "0"}.items():
            draft.type(key, text)
        for number in (4, 5, 6, 7):
            await wizard(app).go(number - 1)
            await looks_at_each_size(pilot, app, f"wizard-invalid-{number}-{STEPS[number - 1].TITLE.lower()}")


async def test_wizard_filled() -> None:
    """The demo preset, looked at by the real children: once for all seven steps and both sizes."""
    app = TuiFtApp("demo")
    async with app.run_test(size=SIZES[1]) as pilot:
        await until(pilot, lambda: isinstance(app.screen, WizardScreen) and app.focused is not None)
        found = wizard(app).backstage
        await until(pilot, lambda: found.facts.value and found.preview.value and not (found.preview.busy or found.exact.busy), 240)
        await until(pilot, lambda: found.plan.value and not found.forecasting.found.busy, 240)
        for number, step in enumerate(STEPS, 1):
            await wizard(app).go(number - 1)
            await looks_at_each_size(pilot, app, f"wizard-demo-{number}-{step.TITLE.lower()}")


async def test_help_and_questions() -> None:
    app, run = TuiFtApp(), synthetic.recorded("running", steps=120, total=200)
    async with app.run_test(size=SIZES[0]) as pilot:
        await opened(pilot, app, run)
        for name, key in (("help-dashboard", "question_mark"), ("question-stop", "s"), ("question-learning-rate", "e")):
            await pilot.press(key)
            await until(pilot, lambda: not isinstance(app.screen, DashboardScreen))
            await looks_at_each_size(pilot, app, name)
            await pilot.press("escape")
            await until(pilot, lambda: isinstance(app.screen, DashboardScreen))


async def test_compare_and_glossary() -> None:
    runs = [synthetic.recorded(state, steps=120, total=200, name=f"run-{state}", seed=seed) for seed, state in enumerate(("finished", "stopped"))]
    app = TuiFtApp()
    async with app.run_test(size=SIZES[0]) as pilot:
        await until(pilot, lambda: isinstance(app.screen, HomeScreen) and app.screen.is_mounted)
        app.open_comparison(runs)
        await until(pilot, lambda: isinstance(app.screen, CompareScreen) and "A " in plain(app))
        await looks_at_each_size(pilot, app, "compare")
        await pilot.press("ctrl+g", *"packing")
        await looks_at_each_size(pilot, app, "glossary")


async def test_hub_and_chat(hub: LocalHub) -> None:
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "max_position_embeddings": 4096}
    files = {"config.json": json.dumps(config).encode(), "model.safetensors": b"w" * 1000}
    hub.repositories |= {f"org/{name}": Repository(files, about={"cardData": {"license": "mit"}}) for name in ("small", "smaller")}
    code = RemoteCode(
        repository="org/own", commit="a" * 40, files=[CodeFile(name=f"own_{n}.py", bytes=2000 * n) for n in range(9)], address="http://hub/tree"
    )
    run = synthetic.recorded("running", steps=5, total=10)
    screens: list[tuple[str, Screen[Any], str]] = [
        ("hub-search", HubSearch("model"), "context 4,096"),
        ("hub-search-empty", HubSearch("model", "nothing-of-this-name"), "nothing of that name"),
        ("hub-consent", CodeConsent(code), "own_1.py"),
        ("chat-empty", ChatScreen(run), "no model yet"),
    ]
    for name, screen, words in screens:
        app = TuiFtApp()
        async with app.run_test(size=SIZES[0]) as pilot:
            await until(pilot, partial(shows, app, HomeScreen, "no GPU"))
            app.push_screen(screen)
            await until(pilot, partial(shows, app, type(screen), words), 40)
            await looks_at_each_size(pilot, app, name)


def shows(app: TuiFtApp, screen: type[Screen[Any]], words: str) -> bool:
    return isinstance(app.screen, screen) and words in plain(app)


def test_the_page_of_the_terminal_lists_every_key() -> None:
    """docs/terminal.md is made from the table of keys, and says what can be given another one."""
    page = Path(__file__).parent.parent / "docs" / "terminal.md"
    rows = [f"| `{key.id}` | {shown(key)} | {key.tooltip} |" for group in keys.TABLE.values() for key in group]
    told = "\n".join(["<!-- keys -->", "| action | key | does |", "|---|---|---|", *rows, "<!-- /keys -->"])
    before = page.read_text(encoding="utf-8")
    after = re.sub(r"<!-- keys -->.*<!-- /keys -->", lambda _: told, before, flags=re.DOTALL)
    if os.environ.get("TUI_FT_PICTURES") == "write":
        page.write_text(after, encoding="utf-8")
    assert page.read_text(encoding="utf-8") == after, "TUI_FT_PICTURES=write makes the page anew"


def shown(key: keys.Key) -> str:
    return ", ".join(f"`{part}`" for part in key.keys.split(","))


def wizard(app: TuiFtApp) -> WizardScreen:
    assert isinstance(app.screen, WizardScreen)
    return app.screen


async def opened(pilot: Pilot[int], app: TuiFtApp, run: Run) -> None:
    """The dashboard of `run`, with all that its events tell."""
    await until(pilot, lambda: isinstance(app.screen, HomeScreen) and app.screen.is_mounted)
    app.open_run(run)
    await until(pilot, lambda: isinstance(app.screen, DashboardScreen) and app.screen.feed.curves.progress.step == 120)
