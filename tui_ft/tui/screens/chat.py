"""Plain chat with a run's model: tuned or as it was before, streamed from a process of its own."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from textual import on
from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.content import Content
from textual.message import Message
from textual.widgets import Footer, Input, Static

from tui_ft.errors import TuiFtError
from tui_ft.runs.store import Run
from tui_ft.tui import keys
from tui_ft.tui.screen import TuiScreen
from tui_ft.tui.text import content, line

if TYPE_CHECKING:
    from tui_ft.results.chat import Chat

FRAME = 1 / 15
"""Seconds between two redraws while an answer streams in: a token a redraw would flood a slow line."""


@dataclass
class Loaded(Message):
    """The model is ready, or could not be loaded."""

    chat: Chat
    error: TuiFtError | None = None


@dataclass
class Answer(Message):
    """The answer has ended."""

    chat: Chat
    error: TuiFtError | None = None


class ChatScreen(TuiScreen):
    """One conversation. Nothing of it is kept when the screen is left."""

    GROUP = "chat"
    ABOUT = (
        "The model gets the very template and end of turn that it was trained with. Answers are greedy: the same question gives the same "
        "answer. Base is the model before the training, for comparison; switching begins a new conversation."
    )
    BINDINGS = keys.bindings("chat")  # type: ignore[assignment]
    CSS_PATH = Path(__file__).with_name("chat.tcss")

    def __init__(self, run: Run, base: bool = False) -> None:
        super().__init__()
        self.run = run
        self.base = base
        self.messages: list[dict[str, str]] = []
        self.chat: Chat | None = None
        self.answering = False
        self._pieces: list[str] = []
        self._shown = 0

    def compose(self) -> ComposeResult:
        yield Static(id="title")
        yield VerticalScroll(id="talk", can_focus=False)
        yield Static(id="status")
        yield Input(placeholder="Say something; enter sends it", id="question", compact=True)
        yield Footer(show_command_palette=False)

    def on_mount(self) -> None:
        self.set_interval(FRAME, self._show_pieces)
        self.query_one("#question").focus()
        self._begin()

    def on_unmount(self) -> None:
        self._close()

    def _begin(self) -> None:
        """A new process for the chosen model, and an empty conversation."""
        from tui_ft.results.chat import Chat

        self._close()
        self.messages, self.answering, self._pieces = [], False, []
        self.query_one("#talk").remove_children()
        which = "the model as it was before the training" if self.base else "the trained model"
        self.query_one("#title", Static).update(Content.assemble(line(self.run.id, style="bold"), (f"  {which}", "$accent")))
        try:
            self.chat = Chat(self.run, base=self.base)
        except TuiFtError as error:
            self._say("\n".join(error.lines()), "$error")
            return
        self._say("loading the model …")
        self.run_worker(partial(self._load, self.chat), thread=True, group="chat", exit_on_error=False)

    def _close(self) -> None:
        chat, self.chat = self.chat, None
        if chat:
            self.app.run_worker(chat.close, thread=True, group="closing", exit_on_error=False)

    def _load(self, chat: Chat) -> None:
        try:
            chat.start()
            chat.wait_until_ready()
        except TuiFtError as error:
            self.post_message(Loaded(chat, error))
        else:
            self.post_message(Loaded(chat))

    def on_loaded(self, event: Loaded) -> None:
        if event.chat is self.chat:
            self._say("\n".join(event.error.lines()) if event.error else "ready", "$error" if event.error else "")
            self.refresh_keys()

    def _say(self, words: str, style: str = "$foreground 60%") -> None:
        self.query_one("#status", Static).update(content(words, style or "$foreground 60%"))

    def _add(self, who: str, words: str) -> None:
        talk = self.query_one("#talk", VerticalScroll)
        talk.mount(Static(content(words), classes=who))
        talk.scroll_end(animate=False)

    @on(Input.Submitted, "#question")
    def _ask(self, event: Input.Submitted) -> None:
        words = event.value.strip()
        if not words or self.chat is None or self.answering:
            return
        event.input.value = ""
        self.messages.append({"role": "user", "content": words})
        self._add("user", words)
        self._add("assistant", "…")
        self._pieces, self._shown, self.answering = [], 0, True
        self._say("answering … ctrl+x stops")
        self.refresh_keys()
        self.run_worker(partial(self._answer, self.chat, list(self.messages), self._pieces), thread=True, group="chat", exit_on_error=False)

    def _answer(self, chat: Chat, messages: list[dict[str, str]], pieces: list[str]) -> None:
        """In a thread: the pieces are collected in a list of this answer's own; the screen looks at it a few times a second."""
        try:
            for piece in chat.ask(messages):
                pieces.append(piece)
        except TuiFtError as error:
            self.post_message(Answer(chat, error))
        else:
            self.post_message(Answer(chat))

    def _show_pieces(self) -> None:
        if len(self._pieces) > self._shown:
            self._shown = len(self._pieces)
            self.query(".assistant").last(Static).update(content("".join(self._pieces[: self._shown])))
            self.query_one("#talk", VerticalScroll).scroll_end(animate=False)

    def on_answer(self, event: Answer) -> None:
        if event.chat is not self.chat:
            return
        self._show_pieces()
        self.answering = False
        if event.error:
            self.messages.pop()
            self._say("\n".join(event.error.lines()), "$error")
        else:
            self.messages.append({"role": "assistant", "content": "".join(self._pieces)})
            if not self._pieces:
                self.query(".assistant").last(Static).update(Content.styled("(no words)", "$foreground 60%"))
            last = event.chat.last
            how = {"length": "cut at the limit", "cancelled": "stopped"}.get(last.stopped, "") if last else ""
            self._say(f"{last.tokens} tokens, {last.tokens_per_second:.0f} a second{' · ' + how if how else ''}" if last else "ready")
        self.refresh_keys()

    def unavailable(self, action: str) -> str:
        if action == "stop" and not self.answering:
            return "no answer is being written"
        return "there is no conversation yet" if action == "clear" and not self.messages else ""

    def action_stop(self) -> None:
        if self.chat and self.answering:
            self.chat.cancel()

    def action_base(self) -> None:
        self.base = not self.base
        self._begin()

    def action_clear(self) -> None:
        if self.answering:
            self._begin()
        else:
            self.messages = []
            self.query_one("#talk").remove_children()
            self._say("ready")

    def action_leave(self) -> None:
        self.dismiss()
