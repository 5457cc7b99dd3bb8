"""Logging in to the Hub and out, over the screen that needs it. The token goes through a pipe to the Hub's own library, which keeps it."""

from __future__ import annotations

from pathlib import Path

from textual import on, work
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import Input, Static
from textual.worker import Worker

from tui_ft.hub.login import Account
from tui_ft.tui import child, hub, keys
from tui_ft.tui.screen import Modal
from tui_ft.tui.text import MUTED, content, line


class HubLogin(Modal[None]):
    """Says who is logged in, takes a token, forgets it at once."""

    CSS_PATH = Path(__file__).with_name("hub.tcss")
    GROUP = "login"
    BINDINGS = keys.bindings("login")  # type: ignore[assignment]

    def compose(self) -> ComposeResult:
        with Vertical(classes="hub -small") as box:
            box.border_title = "Log in to the Hub"
            box.border_subtitle = "enter logs in · ctrl+o logs out · esc leaves"
            yield Static("", id="login-state", markup=False)
            yield Static("An access token from your Hub account's settings; it is shown as dots.", classes="dim")
            yield Input(password=True, placeholder="hf_…", compact=True)
            yield Static("", id="login-answer", markup=False)

    def on_mount(self) -> None:
        self.query_one(Input).focus()
        self.look()

    @work(exclusive=True, group="account", exit_on_error=False)
    async def look(self) -> None:
        """Who is logged in now."""
        self.query_one("#login-state", Static).update(Content.styled("looking who is logged in …", MUTED))
        self._show(await hub.account())

    @on(Input.Submitted)
    def _submitted(self, event: Input.Submitted) -> None:
        event.stop()
        token, event.input.value = event.value, ""
        if token.strip():
            self.log_in(token)

    @work(exclusive=True, group="account", exit_on_error=False)
    async def log_in(self, token: str) -> None:
        self.query_one("#login-answer", Static).update(Content.styled("asking the Hub …", MUTED))
        self._show(await hub.log_in(token), "Logged in.")

    @work(exclusive=True, group="account", exit_on_error=False)
    async def action_log_out(self) -> None:
        self._show(await hub.log_out(), "Logged out: the tokens kept on this machine are deleted.")

    def _show(self, answer: child.Answer, done: str = "") -> None:
        place = self.query_one("#login-answer", Static)
        if answer.error:
            place.update(content(f"✗ {answer.error}\n→ {answer.hint}", "$text-error"))
            return
        place.update(Content.assemble(("✓ ", "$success"), done) if done else Content(""))
        self.query_one("#login-state", Static).update(_who(answer.value))

    def on_worker_state_changed(self, event: Worker.StateChanged) -> None:
        if worker_failed := getattr(self.app, "worker_failed", None):
            worker_failed(event)


def _who(account: Account) -> Content:
    """Whose token is in force, where it comes from, and what is wrong with it."""
    if not account.has_token:
        return Content.assemble("Nobody is logged in: public models and datasets only.\n", content(f"A token will be kept in {account.file}", MUTED))
    who = (
        Content.assemble("Logged in as ", line(account.user, 60, "bold"), content(f" ({account.role})" if account.role else "", MUTED))
        if account.user
        else Content("A token is there; whose it is could not be asked.")
    )
    rows = [who]
    if account.variable:
        rows.append(content(f"It comes from the environment variable {account.variable}, which wins over a login here.", "$text-warning"))
    else:
        rows.append(content(f"It is kept in {account.file}", MUTED))
    if account.problem:
        rows.append(content(f"! {account.problem}", "$text-warning"))
    return Content("\n").join(rows)
