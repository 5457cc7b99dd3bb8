"""Logging in to the Hub: the token goes to the Hub's own place and is seen nowhere else."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from local_hub import TOKEN, LocalHub, ask, closed_port, environment
from pilots import until
from textual.widgets import Input, Static

from tui_ft.tui.app import TuiFtApp
from tui_ft.tui.screens.hub_login import HubLogin


def holders(root: Path) -> list[str]:
    """The files that hold the token."""
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file() and TOKEN.encode() in path.read_bytes())


def test_the_token_lies_where_the_hubs_tools_keep_it_and_nowhere_else(hub: LocalHub, tmp_path: Path) -> None:
    assert ask("account") == {**ask("account"), "has_token": False, "user": None}
    told = ask("login", token=TOKEN)
    assert told["user"] == "ann" and told["role"] == "read" and TOKEN not in str(told)
    assert holders(tmp_path) == ["hf/stored_tokens", "hf/token"]
    assert all(stat.S_IMODE((tmp_path / "hf" / name).stat().st_mode) == 0o600 for name in ("token", "stored_tokens"))
    assert ask("account")["user"] == "ann"
    assert ask("logout")["has_token"] is False and holders(tmp_path) == []


@pytest.mark.parametrize("token", ["", "two words", "hf_\u202e", "hf_wrong0123456789wrong"])
def test_what_the_hub_does_not_know_is_not_kept(hub: LocalHub, tmp_path: Path, token: str) -> None:
    told = ask("login", code=2, token=token)
    assert told["error"] in ("that is no token", "the Hub does not know this token") and "/settings/tokens" in told["hint"]
    assert token not in str(told) or not token
    assert not (tmp_path / "hf" / "token").exists()


def test_without_a_hub_nothing_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment(monkeypatch, closed_port(), tmp_path / "hf")
    assert "can only be checked with the Hub" in ask("login", code=2, token=TOKEN)["error"]
    assert holders(tmp_path) == []


def test_a_token_of_the_environment_is_named_and_wins(hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    told = ask("account")
    assert told["variable"] == "HF_TOKEN" and told["user"] == "ann" and TOKEN not in str(told)
    assert ask("logout")["variable"] == "HF_TOKEN"
    monkeypatch.setenv("HF_TOKEN", "hf_expired")
    assert "does not know this token" in ask("account")["problem"]


def shown(app: TuiFtApp) -> str:
    return "\n".join(str(static.render()) for static in app.screen.query(Static))


async def test_the_screen_logs_in_forgets_the_token_and_logs_out(hub: LocalHub, tmp_path: Path) -> None:
    app = TuiFtApp()
    async with app.run_test(size=(80, 24)) as pilot:
        app.push_screen(HubLogin())
        await until(pilot, lambda: "Nobody is logged in" in shown(app), 30)
        field = app.screen.query_one(Input)
        field.value = "hf_wrong"
        await pilot.press("enter")
        await until(pilot, lambda: "does not know this token" in shown(app), 30)
        assert field.value == ""
        field.value = TOKEN
        assert TOKEN not in "\n".join("".join(segment.text for segment in line) for line in app.screen._compositor.render_strips())
        await pilot.press("enter")
        await until(pilot, lambda: "Logged in as ann" in shown(app), 30)
        assert field.value == "" and TOKEN not in shown(app)
        assert holders(tmp_path) == ["hf/stored_tokens", "hf/token"]
        await pilot.press("ctrl+o")
        await until(pilot, lambda: "Nobody is logged in" in shown(app), 30)
        await pilot.press("escape")
        await until(pilot, lambda: not isinstance(app.screen, HubLogin))
    assert holders(tmp_path) == []
