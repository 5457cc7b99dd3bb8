"""Control of a run from any terminal: each request waits for the worker's own acknowledgement."""

from __future__ import annotations

import os
import signal
import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tui_ft.errors import RequestError, TuiFtError
from tui_ft.recipe import Plan
from tui_ft.runs import checkpoints, fingerprint, heartbeat, launch, queue, store
from tui_ft.runs.checkpoints import CheckpointInfo
from tui_ft.runs.commands import Command, Name, send
from tui_ft.runs.events import EventReader
from tui_ft.runs.manifest import Manifest, read_manifest
from tui_ft.runs.progress import Progress
from tui_ft.runs.store import Run
from tui_ft.runs.summary import ALIVE, Summary, summarize
from tui_ft.text import one_line

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
    _check_settings(settings)
    return _ask(run, "set", settings, allowed=ALIVE)


def _check_settings(settings: dict[str, Any]) -> None:
    for key, value in settings.items():
        if key not in ("learning_rate", "max_steps"):
            raise RequestError(f"{key} cannot be changed once a run has begun", "learning_rate and max_steps can; the rest needs a new run.")
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1e12 or (key == "max_steps" and value != int(value)):
            raise RequestError(f"{key} must be a positive number, not {value!r}")
        if key == "learning_rate" and value >= 10:
            raise RequestError(f"learning_rate {value} is not below 10")


def cancel(run: Run) -> bool:
    """Take a run that waits in the queue out of it; whether it was there. It can be resumed.

    Raises:
        TuiFtError: the queue cannot be written.
    """
    if summarize(run).queue_position is None:
        return False
    queue.cancel(run)
    return True


def resume(
    run: Run,
    from_step: int | None = None,
    plan: Plan | None = None,
    *,
    settings: dict[str, Any] | None = None,
    accept: Iterable[str] = (),
    queued: bool = False,
    when_free: int | None = None,
    on_wait: Callable[[float], None] = lambda _: None,
) -> str | None:
    """Go on: a run that waits with its memory kept gets a command (its id is given), any other a new attempt.

    Args:
        from_step: a checkpoint to go back to; by default the newest that is whole.
        plan: for the new attempt; by default the last one's.
        settings: a learning_rate from there on, or max_steps: more of them than before lay the schedule out anew, and extend a finished run.
        accept: what may be another than it was when the checkpoint was written, by key, or `all`.
        queued: wait for the GPU if it is in use; a run that was begun so goes back into the queue anyway.
        when_free: bytes that must be free on the GPU, for a run that queues.
        on_wait: is given the seconds that are left while another machine's sign of life is waited for.

    Raises:
        Changed: something is another, and not accepted.
        RequestError: it is running, or finished and not extended; its GPU is another run's; there is no such checkpoint; settings make no sense.
    """
    settings = settings or {}
    _check_settings(settings)
    summary = _settled(run)
    if summary.queue_position is not None:
        raise RequestError(f"{run.id} waits in the queue already", "`tui-ft queue` tells where; `tui-ft queue move` lets it go ahead.")
    if _seems_to_run_elsewhere(run, summary):
        _make_sure_gone(run, on_wait)
        summary = summarize(run)
    owner = run.owner()
    if summary.state == "paused" and owner and owner[0].is_alive():
        if settings or from_step is not None:
            raise RequestError(f"{run.id} waits with its memory kept", f"`tui-ft set {run.id} …` changes it there; or `tui-ft stop {run.id}` first.")
        return _ask(run, "resume", {}, allowed={"paused"})
    extends = summary.state == "finished" and "max_steps" in settings
    if summary.state not in RESUMABLE and not extends:
        _refuse(run, summary, "resumed")
    begin = _checkpoint(run, summary, from_step)
    next_plan = _next_plan(plan or run.plan(), begin, from_step, settings, accept)
    if extends and begin is None:
        raise RequestError(f"{run.id} has no whole checkpoint to go on from", "`tui-ft run` starts a new run.")
    _require_same(run, begin, next_plan)
    if queued:
        next_plan = next_plan.model_copy(update={"queued": True, "when_free": when_free or next_plan.when_free})
    queue.check_free(next_plan, f"`tui-ft resume {run.id} --queue` waits for it.")
    run.write_plan(run.attempt() + 1, next_plan)
    launch.start(run)
    return None


def _next_plan(plan: Plan, begin: CheckpointInfo | None, from_step: int | None, settings: dict[str, Any], accept: Iterable[str]) -> Plan:
    """The plan of a person's resume: what an earlier one was told holds no longer."""
    done = begin.step if begin else 0
    if settings.get("max_steps", done + 1) <= done:
        raise RequestError(f"step {done} is done already: max_steps must be more", "`tui-ft resume RUN --from STEP` goes back.")
    name = uuid.uuid4().hex if settings else ""
    return plan.model_copy(update={"from_step": from_step, "settings": settings, "settings_id": name, "accepted": sorted(set(accept))})


def _require_same(run: Run, begin: CheckpointInfo | None, plan: Plan) -> None:
    manifest = read_manifest(Path(begin.path)) if begin else ""
    if isinstance(manifest, Manifest):
        fingerprint.require_same(run, fingerprint.differences(manifest, run.recipe(), plan), plan.accepted)


def _checkpoint(run: Run, summary: Summary, step: int | None) -> CheckpointInfo | None:
    """The checkpoint at a step, or the newest one, of those against which nothing speaks; the worker reads all of it."""
    whole = [checkpoint for checkpoint in summary.checkpoints if not checkpoint.damage]
    if step is None:
        return whole[-1] if whole else None
    for checkpoint in summary.checkpoints:
        if checkpoint.step == step and checkpoint.damage:
            raise RequestError(f"checkpoint {step} of {run.id} cannot be used: {checkpoint.damage}", "Take another one.")
        if checkpoint.step == step:
            return checkpoint
    raise RequestError(f"{run.id} has no checkpoint at step {step}", f"There are: {', '.join(str(one.step) for one in whole) or 'none'}.")


def require_deletable(run: Run, step: int) -> None:
    """Refuse what would cost work: the newest whole checkpoint of a run that is alive, and the best where its end will want it.

    Raises:
        RequestError: it must stay for now.
    """
    summary = summarize(run)
    whole = [checkpoint for checkpoint in summary.checkpoints if not checkpoint.damage]
    if summary.state not in ALIVE or step not in {checkpoint.step for checkpoint in whole}:
        return
    if step == whole[-1].step:
        hint = f"`tui-ft checkpoint {run.id}` writes another one first; or `tui-ft stop {run.id}`."
        raise RequestError(f"checkpoint {step} is the newest of {run.id}, which is {summary.state}: a crash would cost the work since the last", hint)
    if run.recipe().evaluate.early_stopping and any(checkpoint.best for checkpoint in whole if checkpoint.step == step):
        raise RequestError(f"checkpoint {step} is the best of {run.id}, which takes its weights in the end", f"`tui-ft stop {run.id}` first.")


def delete_checkpoint(run: Run, step: int) -> int:
    """Remove a checkpoint with its ZIP, and give the bytes that are free again.

    Raises:
        RequestError: it must stay for now.
        TuiFtError: it is gone already, or the file system refuses.
    """
    require_deletable(run, step)
    try:
        return checkpoints.delete(run, step)
    except OSError as error:
        raise TuiFtError(f"checkpoint {step} of {run.id} cannot be deleted: {error.strerror}", f"`tui-ft checkpoints {run.id}` lists them.") from None


def lost_runs() -> list[Run]:
    """Those that nobody meant to end: their processes are gone, or the system ended them, as it does before a reboot.

    In the order in which they are to go on: first those that did not queue, each the older first.
    """
    lost = [run for run in reversed(store.all_runs()) if _was_lost(run)]
    return sorted(lost, key=lambda run: bool(store.read_json(run.path / "plan" / f"{run.attempt()}.json").get("queued")))


def _was_lost(run: Run) -> bool:
    state = summarize(run).state
    return state == "lost" or (state == "stopped" and run.exit_record(run.attempt()).get("cause") == "system")


def _seems_to_run_elsewhere(run: Run, summary: Summary) -> bool:
    owner = run.owner()
    return owner is not None and not owner[0].is_here() and summary.state in ALIVE


def _make_sure_gone(run: Run, on_wait: Callable[[float], None]) -> None:
    """Watch the sign of life of a supervisor on another machine.

    Raises:
        RequestError: it lives.
    """
    owner = run.owner()
    if owner and not heartbeat.is_still(run, on_wait):
        host = one_line(owner[0].host, 80)
        raise RequestError(f"{run.id} is alive on {host} and cannot be resumed here", f"`tui-ft attach {run.id}` looks at it from anywhere.")


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
        "queued": f"`tui-ft queue cancel {run.id}` takes it out of the queue." if summary.queue_position else f"`tui-ft resume {run.id}` starts it.",
        "finished": f"`tui-ft chat {run.id}` talks to its model; `tui-ft resume {run.id} --set max_steps=N` trains it further.",
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
