"""Commands: a maildir from any terminal to the worker. Written whole, acted on once, answered in the events."""

from __future__ import annotations

import os
import time
import uuid
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field, ValidationError

from tui_ft.runs.store import Run

Name = Literal["pause", "resume", "checkpoint", "stop", "set"]
EXPIRES_SECONDS = 600.0


class Command(BaseModel):
    """One request. Each is absolute (never "one more"), so that doing it twice does no harm."""

    id: str = Field(default_factory=lambda: uuid.uuid4().hex)
    name: Name
    args: dict[str, Any] = Field(default_factory=dict)
    attempt: int
    """The attempt that the sender saw; another one answers `rejected: stale`."""
    expires: float = Field(default_factory=lambda: time.time() + EXPIRES_SECONDS)
    """Unix time after which it must not be acted on any more."""


def send(run: Run, command: Command) -> str:
    """Put a command into the run's inbox, durably, and give its id.

    Raises:
        OSError: the run directory cannot be written.
    """
    name = f"{time.time_ns():020d}-{os.getpid()}-{command.id}.json"
    staged = run.commands / "tmp" / name
    handle = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(handle, command.model_dump_json().encode())
        os.fsync(handle)
    finally:
        os.close(handle)
    staged.rename(run.commands / "new" / name)
    sync_folder(run.commands / "new")
    return command.id


def pending(run: Run) -> list[tuple[Path, Command | None]]:
    """The waiting commands, oldest first; None for a file that is not a command of this user's making."""
    found: list[tuple[Path, Command | None]] = []
    for file in sorted((run.commands / "new").iterdir()):
        try:
            mine = file.stat().st_uid == os.getuid()
            found.append((file, Command.model_validate_json(file.read_bytes()) if mine else None))
        except (OSError, ValidationError):
            found.append((file, None))
    return found


def put_away(run: Run, file: Path) -> None:
    """Move a command out of the inbox once its acknowledgement is on disk."""
    file.rename(run.commands / "done" / file.name)


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
