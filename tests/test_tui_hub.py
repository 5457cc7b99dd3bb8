"""The Hub in the wizard, by keyboard: searching, what is told of a model, and the question about its own code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from local_hub import LocalHub, Repository, closed_port, environment
from pilots import until
from textual.pilot import Pilot
from textual.widgets import Static

from tui_ft.hub.code import CodeFile, RemoteCode
from tui_ft.runs import store
from tui_ft.tui.app import TuiFtApp
from tui_ft.tui.screens.consent import CodeConsent
from tui_ft.tui.screens.hub_search import HubSearch
from tui_ft.tui.wizard.screen import WizardScreen

HOSTILE = "[/INST] [bold red]x[/] [@click=app.quit]y[/] \x1b]0;owned\x07\x1b[31m\u202e"
HARMLESS = "[/INST] [bold red]x[/] [@click=app.quit]y[/] ␛]0;owned␇␛[31m⟨U+202E⟩"
CONFIG = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "max_position_embeddings": 4096}
WAIT = 40.0


def model(config: dict[str, object] | None = None, **about: object) -> Repository:
    files = {"config.json": json.dumps({**CONFIG, **(config or {})}).encode(), "model.safetensors": b"w" * 1000}
    return Repository(files, about={"cardData": {"license": "mit"}, "pipeline_tag": "text-generation", **about})


@pytest.fixture
def hub(hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> LocalHub:
    monkeypatch.setattr(HubSearch, "PAUSE", 0.01)
    return hub


def texts(app: TuiFtApp) -> str:
    return "\n".join("".join(segment.text for segment in line) for line in app.screen._compositor.render_strips())


def flat(app: TuiFtApp) -> str:
    """As `texts`, without the frame and the line breaks that wrapping put in."""
    return " ".join(texts(app).replace("│", " ").split())


async def wizard(pilot: Pilot[int], app: TuiFtApp) -> WizardScreen:
    app.open_wizard(preset="demo")
    await until(pilot, lambda: isinstance(app.screen, WizardScreen) and bool(app.screen.query("#next:focus")), WAIT)
    assert isinstance(app.screen, WizardScreen)
    return app.screen


async def test_a_model_is_searched_looked_at_and_taken(hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.repositories |= {"org/small": model(), "org/smaller": model(), "org/other": model()}
    app = TuiFtApp()
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await wizard(pilot, app)
        await pilot.press("f3")
        await until(pilot, lambda: "3 found" in texts(app), WAIT)
        pause = HubSearch.PAUSE
        monkeypatch.setattr(HubSearch, "PAUSE", 3600.0)
        await pilot.press(*"small", "enter")  # too early: what is in sight was found by another text
        assert isinstance(app.screen, HubSearch)
        monkeypatch.setattr(HubSearch, "PAUSE", pause)
        await pilot.press("backspace", "l")
        await until(pilot, lambda: "2 found" in texts(app), WAIT)
        await pilot.press("down")
        await until(pilot, lambda: "context 4,096" in texts(app) and "licence mit" in texts(app), WAIT)
        await pilot.press("enter")
        await until(pilot, lambda: app.screen is screen)
        assert screen.draft.value("model.name") == "org/smaller"
        await until(pilot, lambda: "1000 B, base model, no chat template, licence mit" in texts(app), WAIT)
    assert hub.weights_asked() == []


async def test_a_dataset_is_searched_from_its_step(hub: LocalHub) -> None:
    parquet = {"default": {"train": [], "test": []}}
    hub.repositories["org/rows"] = Repository({"README.md": b""}, kind="dataset", parquet=parquet, about={"description": HOSTILE})
    app = TuiFtApp()
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await wizard(pilot, app)
        await pilot.press("2")
        await until(pilot, lambda: screen.at == 1)
        await pilot.press("f3")
        await until(pilot, lambda: "default: train, test" in texts(app), WAIT)
        assert HARMLESS in flat(app) and "\x1b" not in texts(app)
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is screen)
        assert screen.draft.value("data.source") == "builtin:demo"


async def test_hostile_metadata_shows_harmlessly(hub: LocalHub) -> None:
    hub.repositories["evil/model"] = model({"architectures": [HOSTILE], "torch_dtype": HOSTILE}, cardData={"license": HOSTILE})
    app = TuiFtApp()
    async with app.run_test(size=(120, 40)) as pilot:
        await wizard(pilot, app)
        await pilot.press("f3")
        await until(pilot, lambda: flat(app).count("[/INST]") == 3, WAIT)
        assert flat(app).count("␛]0;owned␇") == 3 and "\u202e" not in texts(app)
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, WizardScreen), WAIT)
        facts = app.screen.query_one("#model-facts", Static)
        await until(pilot, lambda: f"licence {HARMLESS[:50]}" in str(facts.render()), WAIT)


async def test_without_a_hub_the_cache_is_offered_and_said_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment(monkeypatch, closed_port(), tmp_path / "hf")
    snapshot = tmp_path / "hf" / "hub" / "models--org--here" / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text(json.dumps(CONFIG))
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("a" * 40)
    app = TuiFtApp()
    async with app.run_test(size=(80, 24)) as pilot:
        await wizard(pilot, app)
        await until(pilot, lambda: "org/here" in texts(app), WAIT)
        await pilot.press("f3")
        await until(pilot, lambda: "Only what is on this machine" in texts(app) and "● org/here" in texts(app), WAIT)
        await until(pilot, lambda: "the connection was refused" in flat(app), WAIT)


async def test_a_models_own_code_is_asked_about_and_no_is_the_default(hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)  # read when it was imported, before this test said otherwise
    hub.repositories["org/own"] = model({"model_type": "own-of-it", "auto_map": {"AutoConfig": "own.Own"}})
    hub.repositories["org/own"].files["own.py"] = b"raise SystemExit('foreign code ran')"
    commit = hub.repositories["org/own"].commit
    app = TuiFtApp()
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await wizard(pilot, app)
        screen.step.take("org/own")
        await screen.go(6)
        await until(pilot, lambda: screen.at == 6 and bool(screen.query("#next:focus")), WAIT)
        screen.action_start()
        await until(pilot, lambda: isinstance(app.screen, CodeConsent) and commit in flat(app), WAIT)
        assert "org/own" in flat(app) and "own.py 36 B" in flat(app) and f"{hub.address}/org/own/tree/" in flat(app)
        await pilot.press("enter")
        await until(pilot, lambda: app.screen is screen and "needs its own code" in flat(app), WAIT)
        assert store.all_runs() == []
        assert commit not in json.dumps(screen.draft.tree)


@pytest.mark.parametrize(("key", "answer"), [("enter", False), ("escape", False), ("n", False), ("q", False), ("y", True)])
async def test_only_one_key_consents(key: str, answer: bool) -> None:
    code = RemoteCode(repository=f"org/{HOSTILE}", commit="a" * 40, files=[CodeFile(name=HOSTILE, bytes=9)] * 50, address="http://hub/tree")
    app, answers = TuiFtApp(), []
    async with app.run_test(size=(60, 15)) as pilot:
        app.push_screen(CodeConsent(code), answers.append)
        await until(pilot, lambda: bool(app.screen.query("#no:focus")))
        assert "\x1b" not in texts(app)
        await pilot.press(key)
        await until(pilot, lambda: answers == [answer])
