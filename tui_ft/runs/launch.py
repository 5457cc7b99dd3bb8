"""Starting a run: a supervisor in a session of its own, which no terminal can take down."""

from __future__ import annotations

import getpass
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from tui_ft.errors import RequestError, TuiFtError
from tui_ft.runs.store import Run
from tui_ft.runs.summary import is_held

START_SECONDS = 20.0
DYING_SECONDS = 2.0
"""So long the lock of a supervisor that was just killed is waited for."""
LINGER_FOLDER = Path("/var/lib/systemd/linger")
SCOPE = ("--user", "--scope", "--quiet", "--collect")


def start(run: Run) -> None:
    """Start the supervisor for the newest planned attempt and return as soon as it holds the run.

    Raises:
        RequestError: another supervisor holds the run.
        TuiFtError: the supervisor could not start.
    """
    _wait_for_lock(run)
    systemd_run = shutil.which("systemd-run") if has_lasting_manager() else None
    if (systemd_run and _started(run, [systemd_run, *SCOPE])) or _started(run, []):
        return
    raise TuiFtError(f"the supervisor of {run.id} did not start", f"{run.logs / 'supervisor.err'} says why.")


def has_lasting_manager() -> bool:
    """Whether systemd keeps a manager for this user that outlives the login.

    Under such a manager a supervisor is in no login session, so `KillUserProcesses` does not reach it. Without linger it would be
    the wrong place: the manager ends with the last login and takes what it started along, while a process that has merely left its
    terminal lives on wherever logind is not set to kill.
    """
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    return runtime is not None and Path(runtime, "systemd").is_dir() and is_lingering()


def is_lingering() -> bool:
    """Whether systemd lets this user's processes outlive the login (`loginctl enable-linger`)."""
    try:
        return (LINGER_FOLDER / getpass.getuser()).exists()
    except (KeyError, OSError):  # a user without a name, as in some containers
        return False


def _wait_for_lock(run: Run) -> None:
    deadline = time.monotonic() + DYING_SECONDS
    while is_held(run):
        owner = run.owner()
        if (owner and owner[0].is_alive()) or time.monotonic() > deadline:
            raise RequestError(f"{run.id} is already being run", f"`tui-ft attach {run.id}` looks at it.")
        time.sleep(0.05)


def _started(run: Run, wrapper: list[str]) -> bool:
    """Whether the supervisor came to hold the run; `wrapper` goes before its command, and becomes it without a new process."""
    attempt = run.attempt()
    with open(run.logs / "supervisor.err", "ab", opener=lambda path, flags: os.open(path, flags, 0o600)) as errors:
        process = subprocess.Popen(
            [*wrapper, sys.executable, "-m", "tui_ft.runs.supervisor", str(run.path)],
            stdin=subprocess.DEVNULL,
            stdout=errors,
            stderr=errors,
            start_new_session=True,
        )
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        owner = run.owner()
        if owner and owner[0].pid == process.pid and owner[1] >= attempt:
            return True
        if process.poll() is not None:
            return False
        time.sleep(0.02)
    return False
