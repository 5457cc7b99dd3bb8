"""The wizard by keyboard: from the demo preset to a running run, mistakes, hostile text, small terminals."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from textual.pilot import Pilot
from textual.widgets import Static

from tui_ft import demo
from tui_ft.runs import store
from tui_ft.runs.summary import summarize
from tui_ft.tui.app import TuiFtApp
from tui_ft.tui.draft import Draft
from tui_ft.tui.help import HelpScreen
from tui_ft.tui.screens.home import HomeScreen
from tui_ft.tui.widgets.field import Field
from tui_ft.tui.widgets.token_view import TokenView
from tui_ft.tui.wizard.screen import STEPS, WizardScreen

HOSTILE = "[/INST] [bold red]row[/] [@click=app.quit]x[/] \x1b]0;owned\x07\x1b[31m\u202e"


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is looked up behind the screen: for tests of what the screen itself does."""
    monkeypatch.setattr(WizardScreen, "PAUSE", 3600.0)


async def until(pilot: Pilot[int], condition: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait for what must come; the time is only for a machine that is very busy."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come"
        await pilot.pause(0.05)


def wizard(app: TuiFtApp) -> WizardScreen:
    assert isinstance(app.screen, WizardScreen)
    return app.screen


def texts(app: TuiFtApp) -> str:
    """Everything on the screen, as a person reads it."""
    return "\n".join("".join(segment.text for segment in line) for line in app.screen._compositor.render_strips())


async def open_wizard(pilot: Pilot[int], app: TuiFtApp, preset: str = "") -> WizardScreen:
    app.open_wizard(preset=preset)
    await until(pilot, lambda: isinstance(app.screen, WizardScreen) and bool(app.screen.query("#next:focus, Input:focus")))
    return wizard(app)


async def test_from_the_demo_preset_to_a_running_run_by_enter_alone(quiet: None, no_run_stays: None) -> None:
    app = TuiFtApp("demo")
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: isinstance(app.screen, WizardScreen) and app.focused is not None)
        screen = wizard(app)
        visited = []
        for index, step in enumerate(STEPS):
            await until(pilot, lambda index=index: screen.at == index and bool(screen.query("#next:focus")))
            visited.append(screen.step.TITLE)
            assert step.LEAD in texts(app)
            if index < len(STEPS) - 1:
                await pilot.press("enter")
        assert visited == ["Model", "Dataset", "Language", "Prompt", "Method", "Training", "Review"]
        await until(pilot, lambda: "Nothing speaks against starting" in texts(app))
        assert "tui-ft run demo" in texts(app)
        await pilot.press("enter")
        await until(pilot, lambda: type(app.screen).__name__ == "DashboardScreen" and app.focused is not None)
        run = store.find("latest")
    assert run.recipe().name == "demo" and Draft.kept().origin == ""
    assert summarize(run).state in ("starting", "running")  # the screen is gone, the run is not


async def test_a_wrong_value_is_told_at_its_field_and_stops_the_start(quiet: None) -> None:
    app = TuiFtApp()
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await open_wizard(pilot, app, "demo")
        await pilot.press("6")
        await until(pilot, lambda: screen.at == 5 and bool(screen.query("#next:focus")))
        field = screen.query_one("#field-train-epochs", Field)
        field.control.focus()
        await pilot.press("end", "x")
        assert not field.has_class("-wrong")  # not while it is being typed
        await pilot.press("tab")
        await until(pilot, lambda: field.has_class("-wrong"))
        assert "✗ should be a valid number (found '1x')" in texts(app)
        await pilot.press("f8")
        await until(pilot, lambda: screen.at == 6 and "stops the start" in texts(app))
        assert "train.epochs" in texts(app)
        await pilot.press("f7", "f8", "f7")  # the text is kept on the way about
        await until(pilot, lambda: screen.at == 5 and isinstance(app.focused, object) and bool(screen.query("#field-train-epochs Input:focus")))
        assert screen.query_one("#field-train-epochs", Field).text == "1x"
        await pilot.press("end", "backspace", "enter")
        await until(pilot, lambda: screen.draft.recipe is not None)
        assert store.all_runs() == []


async def test_the_arrow_keys_go_from_field_to_field(quiet: None) -> None:
    app = TuiFtApp()
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await open_wizard(pilot, app, "demo")
        await pilot.press("6")
        await until(pilot, lambda: screen.at == 5 and bool(screen.query("#next:focus")))
        for key, field in (("down", "epochs"), ("down", "max_steps"), ("down", "effective_batch"), ("up", "max_steps")):
            await pilot.press(key)
            await until(pilot, lambda field=field: bool(screen.query(f"#field-train-{field} Input:focus")))


async def test_a_new_recipe_is_typed_in_by_keyboard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quiet: None) -> None:
    monkeypatch.chdir(tmp_path)
    app = TuiFtApp()
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await open_wizard(pilot, app)
        assert screen.query("#field-model-name Input:focus")
        await pilot.press(*"builtin:demo", "enter", "enter")  # model, revision: the last field goes on
        await until(pilot, lambda: screen.at == 1 and bool(screen.query("#field-data-source Input:focus")))
        await pilot.press(*"./none.jsonl", "enter")
        await pilot.press("5")  # a digit is typed where text is entered
        assert screen.at == 1
        await pilot.press("f8", "f8", "f8")
        await until(pilot, lambda: screen.at == 4)
        choice = screen.query_one("#field-method-kind", Field)
        choice.control.focus()
        await pilot.press("home")
        assert screen.draft.value("method.kind") == "full"
        await until(pilot, lambda: not screen.query_one("#field-method-r").display)
        await pilot.press("end")
        await until(pilot, lambda: bool(screen.query_one("#field-method-r").display))
        await pilot.press("7")
        await until(pilot, lambda: screen.at == 6 and "✗ stops the start" in texts(app))
        await until(
            pilot, lambda: "data.source" in texts(app) and "none.jsonl" in "".join(texts(app).replace("│", "").split())
        )  # a long path is wrapped


async def test_leaving_keeps_the_draft_for_next_time(quiet: None) -> None:
    app = TuiFtApp()
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await open_wizard(pilot, app, "demo")
        await pilot.press("7")
        await until(pilot, lambda: screen.at == 6)
        screen.query_one("#field-name Input").focus()
        await pilot.press("end", *"-two", "escape")
        await until(pilot, lambda: isinstance(app.screen, HomeScreen))
        screen = await open_wizard(pilot, app)
        assert screen.draft.value("name") == "demo-two" and screen.draft.origin == "demo"
        await pilot.press("f9")
        await until(pilot, lambda: not isinstance(app.screen, WizardScreen))
        await pilot.press("enter")  # the default is no
        await until(pilot, lambda: isinstance(app.screen, WizardScreen))
        assert screen.draft.value("name") == "demo-two"
        await pilot.press("f9")
        await until(pilot, lambda: not isinstance(app.screen, WizardScreen))
        await pilot.press("y")
        await until(pilot, lambda: isinstance(app.screen, WizardScreen) and screen.draft.origin == "")
    assert Draft.kept().origin == ""


async def test_hostile_text_in_model_and_data_is_shown_and_obeyed_by_nobody(tmp_path: Path) -> None:
    model = tmp_path / "[red]m[/INST]"
    shutil.copytree(demo.model_folder(), model)
    rows = tmp_path / "[@click=app.quit]rows.jsonl"
    row = {"messages": [{"role": "user", "content": HOSTILE}, {"role": "assistant", "content": HOSTILE}], HOSTILE: HOSTILE, "lang": "[/x]"}
    rows.write_text("".join(json.dumps(row) + "\n" for _ in range(20)), encoding="utf-8")
    draft = Draft.of_preset("demo")
    for key, text in {
        "model.name": str(model),
        "data.source": str(rows),
        "data.format": "auto",
        "data.languages": "",
        "train.epochs": HOSTILE,
    }.items():
        draft.type(key, text)
    draft.keep()
    app = TuiFtApp()
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        screen = await open_wizard(pilot, app)
        await until(pilot, lambda: screen.backstage.preview.value is not None or bool(screen.backstage.preview.error))
        assert screen.backstage.preview.error == ""
        for index in range(len(STEPS)):
            await screen.go(index)
            await until(pilot, lambda index=index: screen.at == index and bool(screen.query("#next:focus, Input:focus")))
            assert "\x1b" not in texts(app) and "\u202e" not in texts(app) and "\x07" not in texts(app)
            if index in (1, 3):
                await until(pilot, lambda index=index: "␛]0;owned␇" in data_shown(screen, index))
                assert "[/INST] [bold red]row[/] [@click=app.quit]" in data_shown(screen, index)
        await pilot.press("f6", "f6", "f1")
        await until(pilot, lambda: isinstance(app.screen, HelpScreen))
        await pilot.press("escape")
        app.notify(HOSTILE, title=HOSTILE)
        await pilot.pause()
        assert app.is_running


def data_shown(screen: WizardScreen, index: int) -> str:
    """The rows of the dataset step, the tokens of the prompt step."""
    if index == 1:
        return str(screen.query_one("#dataset-rows Static", Static).content)
    return "".join(screen.query_one(TokenView).rows_as_text())


async def test_every_step_lives_in_any_size(quiet: None) -> None:
    app = TuiFtApp()
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await open_wizard(pilot, app, "phi-2-oasst1-qlora")
        for size in ((60, 15), (20, 5), (80, 24)):
            await pilot.resize_terminal(*size)
            for index in range(len(STEPS)):
                await screen.go(index)
                await pilot.pause()
            await pilot.press("f6")
            await pilot.pause()
            await pilot.press("f6")
        assert screen.draft.origin == "phi-2-oasst1-qlora" and not screen.draft.changed
        panel = screen.query_one("#plan-panel")
        assert not panel.display and screen.query_one("#plan-line").display
        await pilot.resize_terminal(120, 40)
        await until(pilot, lambda: panel.display and not screen.query_one("#plan-line").display)


async def test_help_explains_the_focused_field_and_the_palette_holds_every_action(quiet: None) -> None:
    from tui_ft.tui import keys

    app = TuiFtApp()
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await open_wizard(pilot, app, "demo")
        named = {command.title for command in app.get_system_commands(screen)}
        assert {key.label for group in ("app", "wizard") for key in keys.TABLE[group]} <= named
        screen.query_one("#field-model-name Input").focus()
        await pilot.press("f1")
        await until(pilot, lambda: isinstance(app.screen, HelpScreen))
        assert "(model.name)" in texts(app) and "a Hugging Face Hub id" in texts(app)
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.screen, WizardScreen))


def test_the_key_table_binds_nothing_that_belongs_to_the_terminal() -> None:
    from tui_ft.tui import keys

    ids = [key.id for group in keys.TABLE.values() for key in group]
    assert len(ids) == len(set(ids))
    for group, table in keys.TABLE.items():
        for key in table:
            assert key.id.startswith(f"{group}.") and key.tooltip.endswith(".") and len(key.label.split()) <= 2
            assert not {"ctrl+h", "ctrl+i", "ctrl+j", "ctrl+m", "ctrl+a", "ctrl+b"} & set(key.keys.split(",")) and "alt+" not in key.keys


def test_the_screens_process_loads_no_torch_and_needs_no_colour() -> None:
    code = """
import asyncio, sys
from tui_ft.tui.app import TuiFtApp
from tui_ft.tui.wizard.screen import STEPS
async def main():
    app = TuiFtApp("demo")
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        while not app.screen.query("#next:focus"):
            await pilot.pause(0.02)
        while app.screen.backstage.facts.value is None or app.screen.backstage.preview.value is None:
            await pilot.pause(0.02)
        for index in range(len(STEPS)):
            await app.screen.go(index)
            await pilot.pause(0.05)
asyncio.run(main())
print(sorted({"torch", "transformers", "datasets", "trl", "peft"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, env={**os.environ, "NO_COLOR": "1"}, check=False)
    assert done.stdout.strip().splitlines()[-1:] == ["[]"], done.stderr[-2000:]


def test_without_a_terminal_it_says_so_and_asks_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import sys; from tui_ft.tui.app import run_app; sys.exit(run_app())"],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2 and "terminal" in done.stderr and done.stdout == ""
