"""What worker and supervisor print, in files that do not grow without bound."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import IO

from tui_ft.runs.store import Run

MOST_BYTES = 16 << 20
"""A log beyond this is begun anew; one older part is kept beside it, as `<name>.1`."""


def open_log(run: Run, name: str) -> IO[bytes]:
    """A log for appending, which a truncation therefore cannot leave with a hole."""
    return os.fdopen(os.open(run.logs / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600), "ab")


def rotate(run: Run, attempt: int) -> None:
    """Copy a long log away and empty it: the worker holds it open, so it cannot be renamed.

    What is written between the copy's last read and the emptying is lost: microseconds, once in 16 MB of a log. A disk that is too
    full for the copy leaves the log as it is.
    """
    for name in (f"{attempt}.out", f"{attempt}.err"):
        file = run.logs / name
        with suppress(OSError):
            if file.stat().st_size > MOST_BYTES:
                _copy(file, older_part(file))
                os.truncate(file, 0)


def older_part(file: Path) -> Path:
    """Where the part before the newest lies, if there was one."""
    return file.with_name(f"{file.name}.1")


def _copy(file: Path, target: Path) -> None:
    staged = target.with_name(f".{target.name}.new")
    try:
        handle = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "wb") as copy, file.open("rb") as source:
            shutil.copyfileobj(source, copy, 1 << 20)
        staged.replace(target)
    except OSError:
        staged.unlink(missing_ok=True)
        raise
