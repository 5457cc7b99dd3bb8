"""What happens when a checkpoint cannot be written: on a full disk the run stands still, its memory kept, and saves when there is room."""

from __future__ import annotations

import errno
import time
from typing import TYPE_CHECKING

from tui_ft.text import one_line
from tui_ft.worker.room import Room

if TYPE_CHECKING:
    from tui_ft.worker.conductor import Conductor

POLL_SECONDS = 0.1
RETRY_SECONDS = 60.0
"""Where free space tells nothing (a quota), saving is simply tried again."""


class Saving:
    """The conductor's hand for saves that fail."""

    def __init__(self, conductor: Conductor) -> None:
        self.conductor = conductor
        self.room = Room(conductor.run)
        self._failure: BaseException | str = ""
        """Why the save that was tried last failed."""
        self._is_trying = False

    def require_room(self) -> None:
        """Before a save: a disk that is filled to its last byte harms everybody on it.

        Raises:
            OSError: there is too little.
        """
        if self.room.missing():
            raise OSError(errno.ENOSPC, self.room.words())

    def failed(self, error: BaseException | str) -> None:
        """A save failed, its leftovers removed: wait until one fits and try again, or go on without it."""
        self._failure = error
        if self._is_trying:
            return
        self._is_trying = True
        try:
            while self._failure:
                full = self.room.has_failed(self._failure)
                if not full or not self._wait_for_room():
                    self._give_up(self._failure, full)
                    return
                self._failure = ""
                self.conductor.trainer._save_checkpoint(self.conductor.trainer.model)
        finally:
            self._is_trying = False

    def _wait_for_room(self) -> bool:
        """Stand still until a checkpoint fits, or a person or the system wants otherwise; whether to try again."""
        conductor, journal, inbox = self.conductor, self.conductor.journal, self.conductor.inbox
        before, reason, words = journal.progress.state, journal.progress.reason, self.room.words()
        conductor.refuse_endings(self._refusal())
        remedy = f"Free some space, e.g. with `tui-ft rm` or `tui-ft checkpoints {journal.run.id}`."
        journal.alert("disk", "error", words, remedy, "checkpoints.keep")
        journal.state("paused", f"{words}; goes on by itself when there is room")
        began = time.monotonic()
        while not inbox.terminated:
            conductor.between_batches()
            self._answer()
            journal.flush()
            asked = inbox.take("resume")
            if not self.room.missing() or time.monotonic() - began > RETRY_SECONDS:
                for command in asked:
                    inbox.tell(command, "effected", "there is room: saves and goes on")
                journal.alert("disk", "info", "there is room on the disk again", "", "checkpoints.keep", cleared=True)
                journal.state(before, reason)
                return True
            for command in asked:
                inbox.tell(command, "rejected", self.room.words())
            time.sleep(POLL_SECONDS)
        return False

    def _answer(self) -> None:
        """What can be done without room is done, a checkpoint waits for it; what is to end with one is refused."""
        inbox = self.conductor.inbox
        ending = [] if inbox.wants("stop", now=True) else inbox.take("stop")
        for command in inbox.take("pause"):
            if command.args.get("free_gpu"):
                ending.append(command)
            else:
                inbox.stand_still = True
                inbox.tell(command, "effected", "it waits for room on the disk, and stays paused after it")
        for command in ending:
            inbox.tell(command, "rejected", self._refusal())
        self.conductor.obey_settings(self.conductor.trainer.state)

    def _refusal(self) -> str:
        return f"nothing can be saved: {self.room.words()}. Free some, or `tui-ft stop {self.conductor.run.id} --now`"

    def _give_up(self, error: BaseException | str, full: bool) -> None:
        """Training goes on without this checkpoint, unless the system wants it to end: the last whole one is still there."""
        conductor, journal, state = self.conductor, self.conductor.journal, self.conductor.trainer.state
        words = one_line(error if isinstance(error, str) else f"{type(error).__name__}: {error}", 300)
        cause = f"the checkpoint of step {state.global_step} could not be written: {words}"
        journal.tell("checkpoint", step=state.global_step, path=None, bytes=0, outcome=f"failed: {words}")
        if not full:
            remedy = f"See logs/{journal.attempt}.err and who may write into the run's folder; the next checkpoint is tried again."
            journal.alert("checkpoint", "error", cause, remedy)
        conductor.refuse_endings(f"{cause}; training goes on")
        conductor.refuse_checkpoints(f"{cause}; training goes on")
        if conductor.inbox.terminated:
            conductor.trainer.control.should_training_stop = True
            conductor.outcome, conductor.reason, journal.cause = "stopped", f"asked to end by the system; {cause}", "system"
