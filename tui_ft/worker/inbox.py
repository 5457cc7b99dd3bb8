"""The worker's side of commands: each acknowledged on disk before it is acted on, and acted on once."""

from __future__ import annotations

import signal
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tui_ft.runs.commands import PRUNE_EVERY, Command, pending, prune, put_away
from tui_ft.runs.events import Event
from tui_ft.runs.store import Run
from tui_ft.text import one_line
from tui_ft.worker.journal import Journal


class StopNow(BaseException):
    """Raised between two micro-batches to leave the training at once. Not an Exception: no library may swallow it.

    `outcome` and `cause` are those of the attempt that it ends.
    """

    outcome = "stopped"

    def __init__(self, reason: str, cause: str = "user") -> None:
        super().__init__(reason)
        self.cause = cause


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
    stand_still: bool = False
    """The run was paused when its worker was killed: the restarted one stands still as well."""

    def __post_init__(self) -> None:
        signal.signal(signal.SIGTERM, self._on_term)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        self._answered: set[str] = set(self.journal.past.known)
        self._lying: set[str] = set()
        """Files that stay in the inbox although they are dealt with: they cannot be moved, or their answer is not on disk yet."""
        self._moved = 0
        prune(self.run)
        self.stand_still = self.journal.restarted and self.journal.past.was_paused
        self._take_over()

    def poll(self) -> None:
        """Take in new commands: acknowledged and fsynced as `applied`, then moved to `done`."""
        found = pending(self.run, skip=self._lying)
        if self._lying and self.journal.is_on_disk:
            self._move_lying()
        for item in found:
            command = item.command
            if command is None:
                cause = f"{one_line(item.file.name, 100)} is no command of this user ({item.problem}) and was ignored"
                self.journal.alert("command", "warning", cause, f"See who can write into {one_line(self.run.commands, 200)}.")
            elif command.id not in self._answered:
                self._answer(command)
            self._away(item.file)

    def _answer(self, command: Command) -> None:
        refusal = self._refusal(command)
        if refusal:
            self.tell(command, "rejected", reason=refusal)
        else:
            self.tell(command, "applied")
            self.waiting.append(command)

    def _away(self, file: Path) -> None:
        """Out of the inbox, but not before the answer is on disk: a crash between would lose the command."""
        try:
            if not self.journal.is_on_disk:
                raise OSError
            put_away(self.run, file)
        except OSError:
            self._lying.add(file.name)
        self._moved += 1
        if self._moved % PRUNE_EVERY == 0:
            prune(self.run)

    def _move_lying(self) -> None:
        lying, self._lying = self._lying, set()
        for name in lying:
            file = self.run.commands / "new" / name
            if file.is_symlink() or file.exists():
                self._away(file)

    def take(self, name: str) -> list[Command]:
        """Remove and give the waiting commands of one name."""
        taken = [command for command in self.waiting if command.name == name]
        self.waiting = [command for command in self.waiting if command.name != name]
        return taken

    def wants(self, name: str, **args: Any) -> bool:
        return any(command.name == name and all(command.args.get(key) == value for key, value in args.items()) for command in self.waiting)

    def tell(self, command: Command, phase: str, reason: str = "") -> None:
        self._answered.add(command.id)
        self.journal.tell("command", id=command.id, name=command.name, args=command.args, phase=phase, step=self.step, reason=reason)

    def finish(self, reason: str) -> None:
        """At the end of the attempt nothing stays unanswered."""
        self.poll()
        for command in self.waiting:
            self.tell(command, "rejected", reason)
        self.waiting.clear()

    def _refusal(self, command: Command) -> str:
        newest = self.journal.attempt
        oldest = min(newest, self.journal.past.willed) if self.journal.restarted else newest
        if not oldest <= command.attempt <= newest:
            return f"stale: it was meant for attempt {command.attempt}, this is attempt {newest}"
        if command.is_expired():
            return "expired before the worker came to it"
        if command.name == "resume" and self.journal.progress.state != "paused":
            return f"stale: the run is {self.journal.progress.state}, not paused"
        return ""

    def _take_over(self) -> None:
        """What was acknowledged and not done before the end of an earlier attempt.

        After a restart all of it is done now: nobody changed his mind, and the senders still wait. After a person's resume that
        will holds: an old wish to stop, pause or save is answered. Changes of the training are made in both cases.
        """
        for event in self.journal.past.unanswered.values():
            command = self._again(event)
            if command.name == "set" or (self.journal.restarted and command.name != "resume"):
                self.waiting.append(command)
            elif self.journal.restarted:
                self.stand_still = False
                self.tell(command, "effected", "goes on")
            else:
                self.tell(command, "rejected", "superseded by the resume")

    def _again(self, event: Event) -> Command:
        return Command(id=event["id"], name=event["name"], args=event["args"], attempt=self.journal.attempt)

    def _on_term(self, *_: object) -> None:
        self.terminated = True
