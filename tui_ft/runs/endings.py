"""How an attempt ended: the worker's own last words, or what its exit says of one that came to none; and whether to try again."""

from __future__ import annotations

import json
import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from tui_ft.recipe import Plan
from tui_ft.runs.events import Event, EventWriter
from tui_ft.runs.store import Run

OUT_OF_MEMORY = "out-of-memory"
RESTART_DELAYS = (1.0, 4.0, 16.0)
"""Seconds before each restart in a row; the count starts anew when a checkpoint was published in between."""
TAIL = 1 << 16
"""Bytes of the events that are searched for last words: a run of a million steps has hundreds of megabytes."""
REASON = "out_of_memory"
"""Among a plan's reasons: what was made smaller, since an attempt before ran out of memory."""
NO_WAY_OUT = (
    "Shorter rows (prompt.max_length), a lower method.r or 4-bit weights (method.quantization nf4) take less in a new run; "
    "if others hold memory (`tui-ft doctor`), `tui-ft resume` later."
)
_CAUSES = {"finished": "done", "paused": "user", "stopped": "user", OUT_OF_MEMORY: "cuda-oom"}
"""The cause, where the worker gave none beside its outcome."""
_CRASHES = {"SIGSEGV", "SIGBUS", "SIGABRT", "SIGILL", "SIGFPE"}
"""Signals that a process brings upon itself."""


def record(run: Run, attempt: int, code: int, oom_killed: bool) -> dict[str, Any]:
    """What `exit/<attempt>.json` says: code, signal, outcome, cause, and a sentence for a person.

    Args:
        code: as `Popen` gives it, negative for a signal.
        oom_killed: the kernel killed for memory in our control group meanwhile.
    """
    facts = {"code": code if code >= 0 else None, "signal": -code if code < 0 else None, "oom_kill": oom_killed, "t": time.time()}
    said = last_words(run, attempt)
    if said:
        outcome = str(said.get("outcome") or "failed")
        return {**facts, "outcome": outcome, "cause": said.get("cause") or _CAUSES.get(outcome, "error"), "reason": said.get("reason") or ""}
    if code >= 0:
        reason = f"the worker ended with code {code} and no word; its log is logs/{attempt}.err"
        return {**facts, "outcome": "failed", "cause": "code", "reason": reason}
    if oom_killed and -code == signal.SIGKILL:
        reason = "main memory ran out, and the system's out-of-memory killer ended the worker (SIGKILL); other programs may have taken the memory"
        return {**facts, "outcome": "killed", "cause": "host-oom", "reason": reason}
    name = _name(-code)
    if name in _CRASHES:
        reason = f"the worker crashed in native code ({name}); its log is logs/{attempt}.err"
    else:
        reason = f"the worker was killed by {name}, sent by somebody outside"
    return {**facts, "outcome": "killed", "cause": "signal", "reason": reason}


def last_words(run: Run, attempt: int) -> Event | None:
    """The worker's own `attempt_ended`, which is its outcome whatever its exit code was."""
    return next((event for event in reversed(_tail(run.events / f"{attempt}.jsonl")) if event.get("type") == "attempt_ended"), None)


def next_plan(plan: Plan, ended: dict[str, Any]) -> Plan | None:
    """The plan of a restart; None where a restart would end the same way. What it changes, or what a person can, is told in the record."""
    again = plan.model_copy(update={"from_step": None})  # not back to where a person once sent it
    if ended["outcome"] == "killed":
        return again
    if ended["outcome"] != OUT_OF_MEMORY:
        return None
    smaller = _halved(again) or _recomputing(again)
    words = smaller.reasons[REASON] if smaller else f"nothing is left to make smaller by itself. {NO_WAY_OUT}"
    ended["reason"] = f"{ended['reason']}; {words}"
    return smaller


def final(ended: dict[str, Any], restarts: int, asked_to_stop: bool, by_force: bool) -> dict[str, Any]:
    """The record of the last attempt, in the words of run states."""
    outcome, reason = ended["outcome"], ended["reason"]
    if outcome in ("killed", OUT_OF_MEMORY):
        outcome = "stopped" if asked_to_stop else "failed"
        if by_force:
            return {**ended, "outcome": outcome, "cause": "user", "reason": f"ended by force, as asked: {reason}"}
        if asked_to_stop:
            return {**ended, "outcome": outcome, "cause": "system", "reason": reason}
    after = f" (after {restarts} restarts without a new checkpoint)" if restarts == len(RESTART_DELAYS) else ""
    return {**ended, "outcome": outcome, "reason": reason + after}


def tell_restart(run: Run, attempt: int, ended: dict[str, Any], restart: int, checkpoint: int) -> None:
    """Add an alert to the ended attempt's events, whose writer is gone: who follows the run reads why it goes on elsewhere.

    Args:
        restart: its number in a row, from 1; 0 for one that is not counted, since each makes the plan smaller.
        checkpoint: the newest one's step; 0 without one.
    """
    begins = f"from checkpoint {checkpoint}" if checkpoint else "from the beginning"
    count = f" (restart {restart} of at most {len(RESTART_DELAYS)} in a row)" if restart else ""
    remedy = f"It is started again {begins} in {RESTART_DELAYS[max(0, restart - 1)]:.0f} s{count}."
    with suppress(OSError):  # a full disk: the exit record, which is insisted on, says the same
        writer = EventWriter(run, attempt)
        writer.write("alert", kind="restart" if restart else "out-of-memory", severity="warning", cause=ended["reason"], remedy=remedy)
        writer.close()


def oom_kills() -> int:
    """How often the kernel killed for memory in our control group, where it counts."""
    for file in _counters():
        try:
            for line in file.read_text(encoding="ascii").splitlines():
                if line.startswith("oom_kill "):
                    return int(line.split()[1])
        except OSError:
            continue
    return 0


def _counters() -> list[Path]:
    """Where the count may stand: of our own group (version 2, version 1), of the one that a container shows at the top, of the machine."""
    root, found = Path("/sys/fs/cgroup"), []
    with suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines():
            number, controllers, group = line.split(":", 2)
            if number == "0":
                found.append(root / group.strip("/") / "memory.events")
            elif "memory" in controllers.split(","):
                found.append(root / "memory" / group.strip("/") / "memory.oom_control")
    return [*found, root / "memory.events", root / "memory" / "memory.oom_control", Path("/proc/vmstat")]


def _halved(plan: Plan) -> Plan | None:
    """The plan with at most half the micro-batch and as many more of them a step; None at a micro-batch of one.

    Its memory is what stays proven: weights, gradients and optimizer do not depend on the batch.
    """
    rows = plan.micro_batch * plan.accumulation
    half = max((n for n in range(1, plan.micro_batch // 2 + 1) if rows % n == 0), default=0)
    if not half:
        return None
    words = f"the micro-batch of {plan.micro_batch} ran out of memory; {half} × {rows // half} keeps the same effective batch"
    return _smaller(plan, words, "micro_batch", {"micro_batch": half, "accumulation": rows // half})


def _recomputing(plan: Plan) -> Plan | None:
    """The plan with every layer's activations recomputed; None where they are already."""
    if plan.activation_checkpointing is True or plan.activation_checkpointing == "offload":
        return None
    words = "a single row at a time ran out of memory; activation checkpointing is switched on, which is slower and gives the same numbers"
    setup = {**plan.setup, "activation_checkpointing": True} if plan.setup else None
    return _smaller(plan, words, "activation_checkpointing", {"activation_checkpointing": True, "setup": setup})


def _smaller(plan: Plan, words: str, key: str, changes: dict[str, Any]) -> Plan:
    proven = plan.memory.model_copy(update={"activations": 0, "head": 0, "safety": 0, "overhead": plan.memory.context, "phase": ""})
    proven.total_bytes = proven.weights + proven.adapters + proven.gradients + proven.optimizer + proven.overhead
    reasons = {**plan.reasons, key: words, REASON: words}
    return plan.model_copy(update={**changes, "tier": "lower-bound", "memory": proven, "fits": None, "options": [], "reasons": reasons})


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"


def _tail(file: Path) -> list[Event]:
    """The whole events at the end of a file."""
    try:
        with file.open("rb") as stream:
            stream.seek(max(0, stream.seek(0, os.SEEK_END) - TAIL))
            lines = stream.read().split(b"\n")
    except OSError:
        return []
    events = []
    for line in lines:
        with suppress(ValueError):  # the first may be cut, the last torn
            event = json.loads(line)
            if isinstance(event, dict):
                events.append(event)
    return events
