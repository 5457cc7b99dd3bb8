"""A run in one JSON object: what `runs` and `show` print and the screens show."""

from __future__ import annotations

import fcntl
import os
from typing import Any

from pydantic import BaseModel, Field

from tui_ft.runs import checkpoints, heartbeat, queue
from tui_ft.runs.checkpoints import CheckpointInfo
from tui_ft.runs.progress import Alert, Progress, State
from tui_ft.runs.store import Run, read_json
from tui_ft.text import one_line

ALIVE = {"starting", "running", "paused"}
"""The states in which a worker may be asked for something, if one is there."""
ENDS = ("finished", "paused", "stopped", "failed")
"""The outcomes with which a supervisor ends."""


class Summary(BaseModel):
    """The promised `--json` shape of a run, and a few facts more for the screens."""

    run: str
    dir: str
    recipe: str
    state: State
    step: int
    total_steps: int | None
    epoch: float
    first_loss: float | None = Field(description="Mean over the first five optimizer steps.")
    last_loss: float | None = Field(description="Mean over the last five optimizer steps.")
    best_eval_loss: float | None
    tokens: int
    tokens_per_second: float | None
    peak_memory_bytes: int | None
    checkpoints: list[CheckpointInfo]
    model: str | None
    reason: str = Field(description="Why it stopped, or what it does now.")
    attempt: int
    created: str
    eta_seconds: float | None
    eta_error_seconds: float | None = Field(None, description="By how much that may be wrong, if the pace stays what it was.")
    stage: str
    stage_pace: str
    parameters: int | None
    trainable_parameters: int | None
    queue_position: int | None = Field(None, description="From 1, while it waits in the queue.")
    forecast_bytes: int | None = Field(
        None, description="What `peak_memory_bytes` was forecast to be: tensors on a GPU, the whole process without one; None: not forecast."
    )
    forecast_tier: str = Field("lower-bound", description="How that was forecast; a lower bound says the least.")
    alerts: list[Alert] = Field(default_factory=list, description="What the present attempt warns of, the newest of each kind.")

    @property
    def is_live(self) -> bool:
        """It trains, stands paused, or waits in the queue: something will come of it without a resume."""
        return self.state in ALIVE or self.queue_position is not None


def summarize(run: Run, shelf: checkpoints.Listing | None = None) -> Summary:
    """Where a run stands, from its small files alone: no event file is read.

    Args:
        shelf: the checkpoints as whoever asks every second keeps them; read anew without.
    """
    progress = Progress.read(run)
    state, reason = state_of(run, progress)
    record = run.record()
    plan = read_json(run.path / "plan" / f"{run.attempt()}.json")
    return Summary(
        run=run.id,
        dir=str(run.path),
        recipe=str((record.get("recipe") or {}).get("name", "")),
        state=state,
        step=progress.step,
        total_steps=progress.total_steps or plan.get("steps"),
        epoch=round(progress.epoch, 4),
        first_loss=progress.first_loss(),
        last_loss=progress.last_loss(),
        best_eval_loss=progress.best_eval_loss,
        tokens=progress.tokens,
        tokens_per_second=progress.tokens_per_second,
        peak_memory_bytes=progress.peak_memory_bytes,
        checkpoints=shelf.read() if shelf else checkpoints.listing(run),
        model=str(run.model) if state == "finished" or (run.model / "config.json").exists() or _adapter(run) else None,
        reason=reason,
        attempt=progress.attempt,
        created=str(record.get("created", "")),
        eta_seconds=progress.eta_seconds() if state == "running" else None,
        eta_error_seconds=progress.eta_error() if state == "running" else None,
        stage=progress.stage if state == "starting" else "",
        stage_pace=progress.stage_pace() if state == "starting" else "",
        parameters=plan.get("parameters"),
        trainable_parameters=plan.get("trainable_parameters"),
        queue_position=queue_place(run).get("position") if state == "queued" else None,
        forecast_bytes=_forecast(plan),
        forecast_tier=str(plan.get("tier", "lower-bound")),
        alerts=progress.alerts,
    )


def _forecast(plan: dict[str, Any]) -> int | None:
    """From a plan as it lies on the disk, which may be an older version's, or somebody's."""
    memory = plan.get("memory")
    total, overhead = (memory.get("total_bytes"), memory.get("overhead", 0)) if isinstance(memory, dict) else (None, None)
    if not isinstance(total, int) or not isinstance(overhead, int):
        return None
    return (total - overhead if plan.get("gpu") else total) or None


def _adapter(run: Run) -> bool:
    return (run.model / "adapter_config.json").exists()


def state_of(run: Run, progress: Progress) -> tuple[State, str]:
    """The state and its reason: what the worker said, held against who is still alive. No clock has a say."""
    owner = run.owner()
    if owner is None:
        return "queued", "not started yet"
    supervisor, attempt = owner
    if supervisor.is_here():
        return _told(run, progress, attempt) if supervisor.is_alive() else _ended(run, attempt)
    pulse = heartbeat.observe(run)
    if run.exit_record(attempt).get("outcome") in ENDS or pulse.still_seconds >= heartbeat.STILL_SECONDS:
        return _ended(run, attempt)
    state, reason = _told(run, progress, attempt)
    seen = "" if pulse.moved else ", not seen from here"
    return state, "; ".join(filter(None, [reason, f"on {one_line(supervisor.host, 80)}{seen}"]))


def _told(run: Run, progress: Progress, attempt: int) -> tuple[State, str]:
    """What a living supervisor and its worker say."""
    waits = queue_place(run)
    if waits:
        return "queued", str(waits.get("reason", ""))
    if progress.attempt < attempt:
        return "starting", progress.reason
    if progress.ended:
        return "running", f"writing its last files: {progress.reason}"
    if progress.state == "paused" and (others := queue.waiting_behind(run)):
        wait = "another run waits for it" if others == 1 else f"{others} runs wait for it"
        return "paused", f"{progress.reason}; it keeps {'the GPU' if run.plan().gpu else 'the CPU'}, and {wait}"
    return progress.state, progress.reason


def _ended(run: Run, attempt: int) -> tuple[State, str]:
    """What the supervisor wrote down at the end; a record that only leads to a restart is no end."""
    record = run.exit_record(attempt)
    if record.get("outcome") in ENDS:
        return record["outcome"], str(record.get("reason", ""))
    return "lost", f"worker and supervisor are gone; `tui-ft resume {run.id}` goes on from the last checkpoint"


def queue_place(run: Run) -> dict[str, Any]:
    """`position` and `reason` of a run whose supervisor waits in the queue, as it last told; empty for any other."""
    told = read_json(run.owner_file).get("queued")
    return told if isinstance(told, dict) else {}


def is_held(run: Run) -> bool:
    """Whether a supervisor on this machine holds the run's lock."""
    try:
        handle = os.open(run.lock_file, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(handle)
    return False
