"""Changes of the draft as a whole: back and forth, and through the person's own editor."""

from __future__ import annotations

import stat
import sys
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
from test_tui_wizard_screen import open_wizard, texts, until

from tui_ft import home
from tui_ft.tui.app import TuiFtApp
from tui_ft.tui.draft import Draft
from tui_ft.tui.history import History
from tui_ft.tui.screens.confirm import Confirm
from tui_ft.tui.wizard.screen import WizardScreen


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is looked up behind the screen."""
    monkeypatch.setattr(WizardScreen, "PAUSE", 3600.0)


def test_every_change_goes_back_and_forward_and_a_new_one_ends_what_was_undone() -> None:
    draft = Draft.of_preset("demo")
    history = History(draft)
    whole = draft.state()
    for key, text in (("train.learning_rate", "1e-4"), ("train.epochs", "three"), ("train.epochs", "3")):
        draft.type(key, text)
        history.note(draft)
    history.note(draft)
    assert history.go(draft, -1) == "Epochs is three"
    assert draft.problems.keys() == {"train.epochs"} and draft.text("train.epochs") == "three"
    history.go(draft, -1)
    assert history.go(draft, -1).startswith("Learning rate is ") and draft.state() == whole and not history.can_undo
    assert history.go(draft, 1) == "Learning rate is 1e-4"
    draft.type("method.kind", "lora")
    history.note(draft)
    assert not history.can_redo and history.go(draft, -1) == "What is trained is full"


async def test_undo_by_key_takes_back_what_was_typed_and_the_preset_that_was_taken(quiet: None) -> None:
    app = TuiFtApp()
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        screen = await open_wizard(pilot, app)
        screen.begin_from("demo")
        await until(pilot, lambda: screen.draft.origin == "demo")
        await screen.go(5)
        await until(pilot, lambda: bool(screen.query("#next:focus")))
        field = screen.query_one("#field-train-learning_rate Input")
        await until(pilot, lambda: (field.focus(), app.focused is field)[1])  # the step puts the focus on Next once it is drawn
        before = screen.draft.text("train.learning_rate")
        await pilot.press("end", *["backspace"] * 8, *"3e-3")
        assert screen.draft.text("train.learning_rate") == "3e-3"
        await pilot.press("ctrl+z")
        assert screen.draft.text("train.learning_rate") == before == field.value  # type: ignore[attr-defined]
        await until(pilot, lambda: f"Learning rate is {before}" in texts(app))
        await pilot.press("ctrl+y")
        assert screen.draft.text("train.learning_rate") == "3e-3"
        await pilot.press("ctrl+z", "ctrl+z")
        await until(pilot, lambda: screen.draft.origin == "" and screen.draft.text("model.name") == "")
        app.clear_notifications()
        await pilot.press("ctrl+z")
        await until(pilot, lambda: "nothing to take back" in texts(app))


EDITOR = """
import os, stat, sys
from pathlib import Path
file, script = Path(sys.argv[-1]), Path(sys.argv[1])
assert stat.S_IMODE(file.stat().st_mode) == 0o600 and file.suffix == ".yaml"
edits = script.read_text().splitlines()
old, _, new = edits[0].partition(" => ")
text = file.read_text()
assert old in text, text
file.write_text(text.replace(old, new))
script.write_text("\\n".join(edits[1:]))
"""


@pytest.fixture
def edits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A real program as `$EDITOR`, which does one line of this file each time; and a screen that can be lent in a test as well."""
    program, script = tmp_path / "editor.py", tmp_path / "edits"
    program.write_text(EDITOR, encoding="utf-8")
    monkeypatch.setenv("VISUAL", "")
    monkeypatch.setenv("EDITOR", f"{sys.executable} {program} {script}")

    @contextmanager
    def lent(self: TuiFtApp):  # type: ignore[no-untyped-def]
        yield

    monkeypatch.setattr(TuiFtApp, "suspend", lent)
    return script


async def test_the_recipe_is_edited_as_a_file_and_mistakes_come_back_all_at_once(quiet: None, edits: Path) -> None:
    edits.write_text("max_steps: 300 => max_stops: 300\nmax_stops: 300 => max_steps: 40\n", encoding="utf-8")
    app = TuiFtApp("demo")
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await until(pilot, lambda: isinstance(app.screen, WizardScreen) and app.focused is not None)
        screen = app.screen
        assert isinstance(screen, WizardScreen)
        await pilot.press("e")
        await until(pilot, lambda: isinstance(app.screen, Confirm))
        assert "max_stops" in texts(app) and "max_steps" in texts(app), "what is wrong, and the nearest key that exists"
        assert screen.draft.value("train.max_steps") == 300
        await pilot.press("y")
        await until(pilot, lambda: screen.draft.value("train.max_steps") == 40)
        assert screen.draft.recipe is not None and screen.draft.origin == "demo" and "--set train.max_steps=40" in screen.draft.command()
        await pilot.press("ctrl+z")
        assert screen.draft.value("train.max_steps") == 300
    assert not list(home.cache_folder().glob("edit-*"))


@pytest.mark.parametrize(
    ("editor", "told"),
    [("no-such-editor", "the editor no-such-editor of EDITOR is not there"), ("false", "ended with code 1"), ('"', "EDITOR cannot be understood")],
)
async def test_an_editor_that_fails_is_told_and_changes_nothing(
    quiet: None, edits: Path, monkeypatch: pytest.MonkeyPatch, editor: str, told: str
) -> None:
    monkeypatch.setenv("EDITOR", editor)
    app = TuiFtApp("demo")
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await until(pilot, lambda: isinstance(app.screen, WizardScreen) and app.focused is not None)
        assert isinstance(app.screen, WizardScreen)
        before = app.screen.draft.state()
        await pilot.press("f2")
        await until(pilot, lambda: told in " ".join(texts(app).split()))
        assert app.screen.draft.state() == before


async def test_whoever_reads_the_review_has_the_libraries_read_meanwhile(quiet: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(WizardScreen, "READ_SECONDS", 0.05)
    app = TuiFtApp("demo")

    def loading() -> list[psutil.Process]:
        found = []
        for process in psutil.Process().children():
            with suppress(psutil.Error):  # it may be ending
                found += [process] if process.cmdline()[-2:] == ["tui_ft.worker", "--load"] else []
        return found

    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: isinstance(app.screen, WizardScreen) and app.focused is not None)
        assert isinstance(app.screen, WizardScreen)
        await app.screen.go(3)
        await pilot.pause(0.2)
        assert not loading()
        await app.screen.go(6)
        await until(pilot, lambda: bool(loading()))
        child = loading()[0]
        await pilot.press("escape")
        await until(pilot, lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)  # it goes with the wizard


async def test_the_command_can_be_copied_in_every_step(quiet: None, monkeypatch: pytest.MonkeyPatch) -> None:
    copied: list[str] = []
    monkeypatch.setattr(TuiFtApp, "copy_to_clipboard", lambda self, text: copied.append(text))
    monkeypatch.setenv("TMUX", "/nowhere")
    app = TuiFtApp("demo")
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: isinstance(app.screen, WizardScreen) and app.focused is not None)
        assert isinstance(app.screen, WizardScreen)
        for number in range(7):
            await app.screen.go(number)
            await pilot.press("y")
    assert copied == ["tui-ft run demo"] * 7
    kept = home.cache_folder() / "copied.txt"
    assert kept.read_text() == "tui-ft run demo\n" and stat.S_IMODE(kept.stat().st_mode) == 0o600
