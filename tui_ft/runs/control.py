"""Control of a run from any terminal: each request waits for the worker's own acknowledgement."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tui_ft.errors import RequestError, TuiFtError
from tui_ft.recipe import Plan
from tui_ft.runs import launch
from tui_ft.runs.commands import Command, Name, send
from tui_ft.runs.events import EventReader
from tui_ft.runs.progress import Progress
from tui_ft.runs.store import Run
from tui_ft.runs.summary import Summary, summarize

ALIVE = {"starting", "running", "paused"}
SETTLE_SECONDS = 30.0
RESUMABLE = {"queued", "paused", "stopped", "failed", "lost"}


@dataclass(frozen=True)
class Outcome:
    """What became of a request."""

    phase: str
    """effected, rejected, or waiting: the worker has not come to it in the time given."""
    step: int | None = None
    reason: str = ""
    acknowledged_seconds: float | None = None
    """From the request until the worker said, on disk, that it has it; None where it never did."""
    seconds: float | None = None
    """From the request until it was effected or rejected."""


def pause(run: Run, free_gpu: bool = False) -> str:
    """Ask the worker to pause after the current step; with `free_gpu` it saves, ends and frees all memory. Gives the command's id."""
    return _ask(run, "pause", {"free_gpu": free_gpu}, allowed={"starting", "running", "paused"})


def checkpoint(run: Run) -> str:
    """Ask for a checkpoint after the current step."""
    return _ask(run, "checkpoint", {}, allowed=ALIVE)


def stop(run: Run, now: bool = False) -> str:
    """Ask the worker to save and stop after the current step, or to stop at once without saving."""
    return _ask(run, "stop", {"now": now}, allowed=ALIVE)


def change(run: Run, **settings: Any) -> str:
    """Change `learning_rate` (the schedule's peak) or `max_steps` (not below the current step) while it runs.

    Raises:
        RequestError: another setting, or a value that makes no sense.
    """
    for key, value in settings.items():
        if key not in ("learning_rate", "max_steps"):
            raise RequestError(f"{key} cannot be changed while a run trains", "learning_rate and max_steps can; the rest needs a new run.")
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1e12 or (key == "max_steps" and value != int(value)):
            raise RequestError(f"{key} must be a positive number, not {value!r}")
        if key == "learning_rate" and value >= 10:
            raise RequestError(f"learning_rate {value} is not below 10")
    return _ask(run, "set", settings, allowed=ALIVE)


def resume(run: Run, from_step: int | None = None, plan: Plan | None = None) -> str | None:
    """Go on: a run that waits with its memory kept gets a command (its id is given), any other a new attempt.

    Args:
        from_step: a checkpoint to go back to; by default the newest that is whole.
        plan: for the new attempt; by default the last one's.

    Raises:
        RequestError: it is running or finished, or there is no such checkpoint.
    """
    summary = _settled(run)
    owner = run.owner()
    if summary.state == "paused" and owner and owner[0].is_alive():
        return _ask(run, "resume", {}, allowed={"paused"})
    if summary.state not in RESUMABLE:
        _refuse(run, summary, "resumed")
    if from_step is not None and from_step not in {checkpoint.step for checkpoint in summary.checkpoints}:
        there = ", ".join(str(checkpoint.step) for checkpoint in summary.checkpoints) or "none"
        raise RequestError(f"{run.id} has no checkpoint at step {from_step}", f"There are: {there}.")
    next_plan = (plan or run.plan()).model_copy(update={"from_step": from_step})
    run.write_plan(run.attempt() + 1, next_plan)
    launch.start(run)
    return None


def _settled(run: Run) -> Summary:
    """The summary once a worker that has ended is on record: asked right after a pause, a resume need not be refused."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while Progress.read(run).ended and _has_worker(run) and time.monotonic() < deadline:
        time.sleep(0.05)
    return summarize(run)


def _ask(run: Run, name: Name, args: dict[str, Any], allowed: set[str]) -> str:
    summary = summarize(run)
    if summary.state not in allowed or not _has_worker(run):
        _refuse(run, summary, {"set": "changed", "checkpoint": "checkpointed", "stop": "stopped"}.get(name, f"{name}d"))
    owner = run.owner()
    try:
        return send(run, Command(name=name, args=args, attempt=owner[1] if owner else summary.attempt))
    except OSError as error:
        raise TuiFtError(f"the command cannot be written into {run.commands}: {error.strerror}", "Check the disk's free space.") from None


def _has_worker(run: Run) -> bool:
    owner = run.owner()
    return owner is not None and (owner[0].is_alive() or not owner[0].is_here())


def _refuse(run: Run, summary: Summary, done: str) -> None:
    hints = {
        "finished": f"`tui-ft chat {run.id}` talks to its model; `tui-ft run` starts a new run.",
        "running": f"`tui-ft attach {run.id}` looks at it.",
        "starting": f"`tui-ft attach {run.id}` looks at it.",
    }
    raise RequestError(f"{run.id} is {summary.state} and cannot be {done}", hints.get(summary.state, f"`tui-ft resume {run.id}` starts it again."))


def wait(run: Run, command_id: str, timeout: float = 60.0, on_wait: Callable[[bool, float], None] = lambda *_: None) -> Outcome:
    """Follow the events until the worker says what became of the command, or `timeout` seconds have passed.

    Args:
        on_wait: is told, again and again, whether the worker has acknowledged it, and the seconds that have passed.
    """
    reader = EventReader(run, only=("command",), about=command_id)
    begun, acknowledged = time.monotonic(), None
    while True:
        has_worker = _has_worker(run)  # before the look: its last words are on disk when it is gone
        for event in reader.stream():
            if event.get("id") != command_id:
                continue
            passed = time.monotonic() - begun
            acknowledged = passed if acknowledged is None else acknowledged
            if event.get("phase") != "applied":
                return Outcome(event["phase"], event.get("step"), event.get("reason") or "", round(acknowledged, 3), round(passed, 3))
        passed = time.monotonic() - begun
        if passed > timeout:
            has_it = "the worker has it and does it" if acknowledged is not None else "it will be done"
            return Outcome("waiting", None, f"no answer within {timeout:.0f} s; {has_it} after the current step", acknowledged)
        if not has_worker:
            return Outcome("rejected", None, f"the worker ended before it came to this: {summarize(run).reason}", acknowledged, round(passed, 3))
        on_wait(acknowledged is not None, passed)
        time.sleep(0.05)


def end_by_force(run: Run) -> None:
    """For a worker that does not answer `stop --now`: its supervisor ends it, by SIGKILL if need be."""
    owner = run.owner()
    if owner and owner[0].is_alive():
        os.kill(owner[0].pid, signal.SIGINT)
