"""The worker's side of commands: each acknowledged on disk before it is acted on, and acted on once."""

from __future__ import annotations

import signal
import time
from dataclasses import dataclass, field
from typing import Any

from tui_ft.runs.commands import Command, pending, put_away
from tui_ft.runs.store import Run
from tui_ft.worker.journal import Journal


class StopNow(BaseException):
    """Raised between two micro-batches to leave the training at once. Not an Exception: no library may swallow it."""


@dataclass
class Inbox:
    """What was asked of this attempt and is not done yet."""

    run: Run
    journal: Journal
    waiting: list[Command] = field(default_factory=list)
    step: int = 0
    """The last optimizer step that is done: what a command took effect after."""
    terminated: bool = False
    """SIGTERM came: stop and save at the next step's end, as if it had been asked for."""

    def __post_init__(self) -> None:
        signal.signal(signal.SIGTERM, self._on_term)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        self._redo_interrupted()

    def poll(self) -> None:
        """Take in new commands: acknowledged and fsynced as `applied`, then moved to `done`."""
        for file, command in pending(self.run):
            if command is None:
                put_away(self.run, file)
                self.journal.alert("command", "warning", f"{file.name} is not a command of this user and was ignored", "Look at who can write here.")
                continue
            refusal = self._refusal(command)
            if refusal:
                self.tell(command, "rejected", reason=refusal)
            else:
                self.tell(command, "applied")
                self.waiting.append(command)
            put_away(self.run, file)

    def take(self, name: str) -> list[Command]:
        """Remove and give the waiting commands of one name."""
        taken = [command for command in self.waiting if command.name == name]
        self.waiting = [command for command in self.waiting if command.name != name]
        return taken

    def wants(self, name: str, **args: Any) -> bool:
        return any(command.name == name and all(command.args.get(key) == value for key, value in args.items()) for command in self.waiting)

    def tell(self, command: Command, phase: str, reason: str = "") -> None:
        self.journal.tell("command", id=command.id, name=command.name, args=command.args, phase=phase, step=self.step, reason=reason)

    def finish(self, reason: str) -> None:
        """At the end of the attempt nothing stays unanswered."""
        self.poll()
        for command in self.waiting:
            self.tell(command, "rejected", reason)
        self.waiting.clear()

    def _refusal(self, command: Command) -> str:
        if command.attempt != self.journal.attempt:
            return f"stale: it was meant for attempt {command.attempt}, this is attempt {self.journal.attempt}"
        if time.time() > command.expires:
            return "expired before the worker came to it"
        if command.name == "resume" and self.journal.progress.state != "paused":
            return f"stale: the run is {self.journal.progress.state}, not paused"
        return ""

    def _redo_interrupted(self) -> None:
        """Changes of the training that were acknowledged, but not made before a crash, are made now.

        The others (pause, stop, checkpoint) spoke to a process that is gone; their sender was told so.
        """
        commands = [event for event in self.journal.history if event["type"] == "command"]
        answered = {event["id"] for event in commands if event["phase"] != "applied"}
        for event in commands:
            if event["phase"] == "applied" and event["id"] not in answered and event["name"] == "set":
                self.waiting.append(Command(id=event["id"], name="set", args=event["args"], attempt=self.journal.attempt))

    def _on_term(self, *_: object) -> None:
        self.terminated = True
