"""Commands: a maildir from any terminal to the worker. Written whole, acted on once, answered in the events."""

from __future__ import annotations

import errno
import os
import stat
import time
import uuid
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field, ValidationError, model_validator

from tui_ft.runs import identity
from tui_ft.runs.store import Run, destroy

Name = Literal["pause", "resume", "checkpoint", "stop", "set"]
EXPIRES_SECONDS = 600.0
MOST_BYTES = 1 << 16
"""No command is a hundredth as large; what is larger is not read at all."""
KEPT_DONE = 1000
"""Commands kept in `done`, the newest: they are for people who look for a fault; the answers stand in the events."""
PRUNE_EVERY = 50
TORN_SECONDS = 3600.0
"""A file in `tmp` of that age was left by a terminal that was killed: writing one takes milliseconds."""


def ticking() -> float:
    """Seconds on a clock that nobody can set, which also counts the time a laptop sleeps where the system offers that."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


class Command(BaseModel):
    """One request. Each is absolute (never "one more"), so that doing it twice does no harm."""

    id: str = Field(default_factory=lambda: uuid.uuid4().hex, min_length=1, max_length=80)
    name: Name
    args: dict[str, Any] = Field(default_factory=dict)
    attempt: int
    """The attempt that the sender saw; another one answers `rejected: stale`, unless the supervisor started it by itself."""
    expires: float = Field(default_factory=lambda: time.time() + EXPIRES_SECONDS)
    """Unix time after which it must not be acted on any more: holds where it was sent from another host."""
    boot: str = ""
    """The sender's boot, within which `deadline` means something."""
    deadline: float = 0.0
    """The same moment by `ticking`: a wall clock that is set must neither revive an old command nor drop a new one."""

    @model_validator(mode="after")
    def _mark_deadline(self) -> Command:
        if not self.boot:
            self.boot, self.deadline = identity.of(os.getpid()).boot_id, ticking() + self.expires - time.time()
        return self

    def is_expired(self) -> bool:
        if self.boot == identity.of(os.getpid()).boot_id:
            return ticking() > self.deadline
        return time.time() > self.expires


@dataclass(frozen=True)
class Pending:
    """Something that lies in the inbox."""

    file: Path
    command: Command | None
    """None where it is no command of this user's making."""
    problem: str = ""
    """What it is instead."""


def send(run: Run, command: Command) -> str:
    """Put a command into the run's inbox, durably, and give its id.

    Raises:
        OSError: the run directory cannot be written.
    """
    name = f"{time.time_ns():020d}-{os.getpid()}-{command.id}.json"
    staged = run.commands / "tmp" / name
    handle = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        data = command.model_dump_json().encode()
        if os.write(handle, data) != len(data):
            raise OSError(errno.ENOSPC, "No space left on device")
        os.fsync(handle)
        staged.rename(run.commands / "new" / name)
    except OSError:
        with suppress(OSError):
            staged.unlink()
        raise
    finally:
        os.close(handle)
    sync_folder(run.commands / "new")
    return command.id


def pending(run: Run, skip: Collection[str] = ()) -> list[Pending]:
    """What waits, oldest first, but for the names in `skip`; empty where the folder cannot be read just now."""
    try:
        files = sorted((run.commands / "new").iterdir())
    except OSError:
        return []
    return [_read(file) for file in files if file.name not in skip]


def _read(file: Path) -> Pending:
    """Look at a file that anybody may have put there: never follow a link, never wait for a pipe, never read what is too large."""
    try:
        handle = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        return Pending(file, None, "a link" if file.is_symlink() else f"unreadable ({error.strerror})")
    try:
        facts = os.fstat(handle)
        if not stat.S_ISREG(facts.st_mode):
            return Pending(file, None, "not a file")
        if facts.st_uid != os.getuid():
            return Pending(file, None, "another user's")
        if facts.st_size > MOST_BYTES:
            return Pending(file, None, f"{facts.st_size} bytes large")
        return Pending(file, Command.model_validate_json(os.read(handle, MOST_BYTES + 1)))
    except (OSError, ValidationError):
        return Pending(file, None, "not of the form of a command")
    finally:
        os.close(handle)


def put_away(run: Run, file: Path) -> None:
    """Move a command out of the inbox once its acknowledgement is on disk.

    Raises:
        OSError: it cannot be moved and will be met again.
    """
    file.rename(run.commands / "done" / file.name)


def prune(run: Run) -> None:
    """Keep `done` and `tmp` small; never fails."""
    with suppress(OSError):
        for old in sorted((run.commands / "done").iterdir())[:-KEPT_DONE]:
            destroy(old)
    with suppress(OSError):
        for torn in (run.commands / "tmp").iterdir():
            if abs(time.time() - torn.lstat().st_mtime) > TORN_SECONDS:
                destroy(torn)


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
