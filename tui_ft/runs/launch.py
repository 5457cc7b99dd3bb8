"""Starting a run: a supervisor in a session of its own, which no terminal can take down."""

from __future__ import annotations

import os
import subprocess
import sys
import time

from tui_ft.errors import RequestError, TuiFtError
from tui_ft.runs.store import Run
from tui_ft.runs.summary import is_held

START_SECONDS = 20.0


def start(run: Run) -> None:
    """Start the supervisor for the newest planned attempt and return as soon as it holds the run.

    Raises:
        RequestError: another supervisor holds the run.
        TuiFtError: the supervisor could not start.
    """
    if is_held(run):
        raise RequestError(f"{run.id} is already being run", f"`tui-ft attach {run.id}` looks at it.")
    attempt = run.attempt()
    log = run.logs / "supervisor.err"
    with open(log, "ab", opener=lambda path, flags: os.open(path, flags, 0o600)) as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "tui_ft.runs.supervisor", str(run.path)],
            stdin=subprocess.DEVNULL,
            stdout=errors,
            stderr=errors,
            start_new_session=True,
        )
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        owner = run.owner()
        if owner and owner[0].pid == process.pid and owner[1] >= attempt:
            return
        if process.poll() is not None:
            break
        time.sleep(0.02)
    raise TuiFtError(f"the supervisor of {run.id} did not start", f"{log} says why.")
