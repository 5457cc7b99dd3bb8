"""Every action of every screen comes from one table, is there, can be reached by the keyboard alone, and can be given another key."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import synthetic
from pilots import until
from textual.app import App
from textual.screen import Screen

from tui_ft.tui import keys, settings, terminal, themes
from tui_ft.tui.app import TuiFtApp
from tui_ft.tui.glossary import TERMS
from tui_ft.tui.help import HelpScreen
from tui_ft.tui.screens.chat import ChatScreen
from tui_ft.tui.screens.compare import CompareScreen
from tui_ft.tui.screens.consent import CodeConsent
from tui_ft.tui.screens.dashboard import DashboardScreen
from tui_ft.tui.screens.glossary import GlossaryScreen
from tui_ft.tui.screens.home import HomeScreen
from tui_ft.tui.screens.hub_login import HubLogin
from tui_ft.tui.screens.hub_search import HubSearch
from tui_ft.tui.widgets.length_chart import LengthChart
from tui_ft.tui.widgets.options import Narrowed, Options
from tui_ft.tui.widgets.run_log import RunLog
from tui_ft.tui.widgets.token_view import TokenView
from tui_ft.tui.wizard.screen import STEPS, WizardScreen

OWNERS: dict[str, type] = {
    "app": TuiFtApp, "home": HomeScreen, "dashboard": DashboardScreen, "compare": CompareScreen, "chat": ChatScreen, "wizard": WizardScreen,
    "reading": TokenView, "lengths": LengthChart, "glossary": GlossaryScreen, "search": HubSearch, "login": HubLogin, "consent": CodeConsent,
    "log": RunLog, "list": Options, "narrowed": Narrowed,
}  # fmt: skip
"""The class whose keys a group of the table holds."""
ELSEWHERE = {"app": App, "screen": WizardScreen}


def test_every_action_of_the_table_is_there() -> None:
    assert OWNERS.keys() == keys.TABLE.keys()
    for group, entries in keys.TABLE.items():
        for key in entries:
            name = key.action.partition("(")[0]
            namespace, _, name = name.rpartition(".")
            owner = ELSEWHERE[namespace] if namespace else OWNERS[group]
            assert callable(getattr(owner, f"action_{name}", None)), key.id


def test_no_key_means_two_things_and_none_is_the_terminal_s() -> None:
    for group, entries in keys.TABLE.items():
        seen: dict[str, str] = {}
        for entry in [*entries, *(keys.TABLE["app"] if group != "app" else ())]:
            for part in entry.keys.split(","):
                assert part not in keys.FORBIDDEN, entry.id
                assert part not in seen, f"{entry.id} and {seen.get(part)} share {part}"
                seen[part] = entry.id
    ids = [key.id for entries in keys.TABLE.values() for key in entries]
    assert len(ids) == len(set(ids)) and all(key.tooltip.endswith(".") for entries in keys.TABLE.values() for key in entries)


def labels(group: str) -> set[str]:
    return {key.label for key in keys.TABLE[group]}


async def reached_by_tab(app: TuiFtApp, pilot: object, screen: Screen[object]) -> None:
    """Tab alone comes to everything that can have the focus, and back."""
    chain = screen.focus_chain
    seen = set()
    await pilot.press("tab")  # type: ignore[attr-defined]
    for _ in range(len(chain) + 1):
        seen.add(screen.focus_next())  # what tab does, without waiting for each frame
    assert set(chain) <= seen, {widget.id for widget in set(chain) - seen}  # type: ignore[attr-defined]


async def test_palette_footer_and_help_say_what_the_table_says_and_tab_reaches_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(WizardScreen, "PAUSE", 3600.0)  # nothing is looked up behind it
    run = synthetic.recorded("running", steps=20, total=40)
    app = TuiFtApp()
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: isinstance(app.screen, HomeScreen) and app.focused is not None)

        async def holds(group: str) -> None:
            screen = app.screen
            await until(pilot, lambda: app.focused is not None)
            offered = {command.title for command in app.get_system_commands(screen)}
            assert offered == labels(group) | labels("app") | {"Theme"}
            shown = {active.binding.id for active in screen.active_bindings.values() if active.binding.show}
            known = {key.id for entries in keys.TABLE.values() for key in entries}
            assert shown <= known, shown - known
            await reached_by_tab(app, pilot, screen)

        async def has_help() -> None:
            screen = app.screen
            await pilot.press("f1")
            await until(pilot, lambda: isinstance(app.screen, HelpScreen))
            await pilot.press("escape")
            await until(pilot, lambda: app.screen is screen)

        await holds("home")
        await has_help()
        app.open_run(run)
        await until(pilot, lambda: isinstance(app.screen, DashboardScreen) and app.screen.summary is not None)
        await holds("dashboard")
        await has_help()
        app.open_comparison([run, synthetic.recorded("finished", steps=20, total=20, name="other")])
        await until(pilot, lambda: isinstance(app.screen, CompareScreen))
        await holds("compare")
        await has_help()
        app.open_wizard()
        await until(pilot, lambda: isinstance(app.screen, WizardScreen) and app.screen.query("#next:focus, Input:focus"))
        screen = app.screen
        assert isinstance(screen, WizardScreen)
        for number in range(len(STEPS)):
            await screen.go(number)
            await pilot.pause()
            await holds("wizard")
        await has_help()


async def test_keys_can_be_chosen_and_footer_and_help_follow(tui_ft_home: Path) -> None:
    tui_ft_home.mkdir(exist_ok=True)
    settings.file().write_text("keys:\n  home.new: ctrl+t\n  home.sort: f\n", encoding="utf-8")
    app = TuiFtApp()
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: isinstance(app.screen, HomeScreen) and app.focused is not None)
        assert keys.find("home.new").shown == "ctrl+t"
        await pilot.press("n")
        assert isinstance(app.screen, HomeScreen)
        await pilot.press("ctrl+t")
        await until(pilot, lambda: isinstance(app.screen, WizardScreen))


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("keys: {home.nwe: t}", "home.nwe is no action; did you mean home.new?"),
        ("keys: {home.new: ctrl+a}", "home.new cannot have ctrl+a: it is the terminal's own"),
        ("keys: {home.new: d}", "home.new cannot have d: home.demo has it"),
        ('keys: {home.new: "\\e[31m"}', "cannot have the key"),
        ("keys: [1]", "keys: "),
        ("them: dark", "them is no setting; did you mean theme?"),
        ("theme: dracula", "theme dracula is not known; there are tui-ft"),
        ("mouse: perhaps", "mouse: "),
        ("just words", "is no list of settings"),
        ("theme: [", "cannot be read"),
    ],
)
def test_settings_that_are_wrong_are_told_and_left_out(tui_ft_home: Path, written: str, told: str) -> None:
    tui_ft_home.mkdir(exist_ok=True)
    settings.file().write_text(f"{written}\n", encoding="utf-8")
    found, problems = settings.load()
    assert len(problems) == 1 and told in problems[0], problems
    assert found == settings.Settings() and not re.search(r"[\x00-\x1f]", problems[0])


async def test_a_chosen_theme_is_kept_beside_what_stands_there(tui_ft_home: Path) -> None:
    tui_ft_home.mkdir(exist_ok=True)
    settings.file().write_text("# mine\nbell: false\ntheme: tui-ft\nthem: x\n", encoding="utf-8")
    app = TuiFtApp()
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: isinstance(app.screen, HomeScreen))
        assert set(app.available_themes) == set(themes.NAMES)
        app.theme = themes.LIGHT.name
        await until(pilot, lambda: "theme: tui-ft-light" in settings.file().read_text())
    assert settings.file().read_text() == "# mine\nbell: false\ntheme: tui-ft-light\nthem: x\n"
    assert settings.file().stat().st_mode & 0o777 == 0o600


async def test_an_end_that_is_looked_at_rings_once(monkeypatch: pytest.MonkeyPatch) -> None:
    app, rung = TuiFtApp(), []
    monkeypatch.setattr(TuiFtApp, "bell", lambda self: rung.append(True))
    run = synthetic.recorded("running", steps=20, total=40)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: isinstance(app.screen, HomeScreen))
        app.open_run(run)
        await until(pilot, lambda: isinstance(app.screen, DashboardScreen) and app.screen.summary is not None and app.screen.summary.step == 20)
        log = synthetic.Recorder(run)
        log.seq = 10_000
        log.write("state", **{"from": "running", "to": "finished", "reason": ""})
        log.write("attempt_ended", outcome="finished", reason="")
        run.write_exit_record(1, {"outcome": "finished", "reason": "", "code": 0})
        synthetic.own(run, alive=False)
        log.flush()
        await until(pilot, lambda: isinstance(app.screen, DashboardScreen) and app.screen.summary and app.screen.summary.state == "finished")
        await pilot.press("q")
        await until(pilot, lambda: isinstance(app.screen, HomeScreen))
    assert rung == [True]


async def test_where_only_ascii_is_wanted_nothing_else_is_written(tui_ft_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(WizardScreen, "PAUSE", 3600.0)
    tui_ft_home.mkdir(exist_ok=True)
    settings.file().write_text("ascii: true\n", encoding="utf-8")
    run = synthetic.recorded("running", steps=60, total=100)
    app = TuiFtApp()

    def shown() -> list[str]:
        return ["".join(segment.text for segment in strip) for strip in app.screen._compositor.render_strips()]

    try:
        async with app.run_test(size=(80, 24)) as pilot:
            for opened, words in ((lambda: None, "Presets"), (lambda: app.open_run(run), "loss"), (lambda: app.open_wizard(preset="demo"), "Next")):
                opened()
                await until(pilot, lambda words=words: any(words in row for row in shown()))
                assert all(row.isascii() and len(row) == 80 for row in shown())
            assert any("> Next" in row or "Next >" in row for row in shown())
    finally:
        terminal.only_ascii = False


def test_the_glossary_speaks_of_settings_that_exist() -> None:
    from tui_ft.recipe import files

    known = set(files.known_keys())
    assert len(TERMS) >= 40 and len({term.name for term in TERMS}) == len(TERMS)
    for term in TERMS:
        assert set(term.keys) <= known, term.name
        assert len(term.about) > 30 and term.about.endswith((".", "once."))
    assert [term.name for term in TERMS if term.matches("METHOD.R")] and not [term for term in TERMS if term.matches("no such word")]
