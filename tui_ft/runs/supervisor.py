"""The supervisor: one small process a run, without torch, that starts the worker and records how it ended.

`python -m tui_ft.runs.supervisor RUN_FOLDER`, in a session of its own. It holds the run's lock while it lives. A worker
that was killed from outside is started again from its last checkpoint, a bounded number of times; one that failed by an
error of its own is not, since it would fail again. SIGTERM asks the worker to stop and save; SIGINT ends it at once.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from tui_ft import home
from tui_ft.recipe import Plan
from tui_ft.runs import checkpoints, identity
from tui_ft.runs.events import EventReader
from tui_ft.runs.store import Run

RESTART_DELAYS = (1.0, 4.0, 16.0)
"""Seconds before each restart in a row; the count starts anew when a checkpoint was published in between."""
KILL_AFTER_SECONDS = 30.0
REPORT_SECONDS = 120.0
INSIST_SECONDS = 3600.0
OUT_OF_MEMORY = "out-of-memory"
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36


def main() -> int:
    os.umask(0o077)
    run = Run(Path(sys.argv[1]))
    lock = os.open(run.lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        print("another supervisor holds this run", file=sys.stderr)
        return 1
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    return Supervisor(run).supervise()


class Supervisor:
    """The attempts of one run, one after the other."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.worker: subprocess.Popen[bytes] | None = None
        self.ask_to_stop = False
        self.killing_since: float | None = None
        signal.signal(signal.SIGTERM, self._on_term)
        signal.signal(signal.SIGINT, self._on_int)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def supervise(self) -> int:
        attempt, restarts = self.run.attempt(), 0
        while True:
            newest = self._newest_checkpoint()
            record = self._one_attempt(attempt)
            restarts = 0 if self._newest_checkpoint() != newest else restarts
            plan = None if self.ask_to_stop or restarts == len(RESTART_DELAYS) else self._next_plan(attempt, record)
            if plan is None:
                if record["outcome"] != "paused":  # who pauses to free the GPU may want it back at once
                    self._report()
                self._insist(self.run.write_exit_record, attempt, _final(record, restarts, self.ask_to_stop))
                return 0
            self._insist(self.run.write_exit_record, attempt, record)
            self._wait(RESTART_DELAYS[restarts])
            attempt, restarts = attempt + 1, restarts + 1
            self._insist(self.run.write_plan, attempt, plan)

    def _next_plan(self, attempt: int, record: dict[str, Any]) -> Plan | None:
        """The plan of a restart; None where a restart would end the same way."""
        plan = self.run.plan(attempt).model_copy(update={"from_step": None})  # not back to where a person once sent it
        if record["outcome"] == "killed":
            return plan
        return _halved(plan, record) if record["outcome"] == OUT_OF_MEMORY else None

    def _one_attempt(self, attempt: int) -> dict[str, Any]:
        """Run one worker to its end and say how it ended."""
        self.worker = None
        self._sign(attempt)
        if self.ask_to_stop:
            return {"outcome": "stopped", "reason": "stopped before the attempt began", "code": None, "signal": None}
        kills_before = _oom_kills()
        with _log(self.run, attempt, "out") as out, _log(self.run, attempt, "err") as err:
            self.worker = subprocess.Popen(
                [sys.executable, "-m", "tui_ft.worker", str(self.run.path), str(attempt)],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )
        self._sign(attempt)
        code = self._reap()
        return self._record(attempt, code, _oom_kills() > kills_before)

    def _sign(self, attempt: int) -> None:
        """Say who holds the run, at which attempt, with which worker."""
        owner = {**identity.of(os.getpid()).model_dump(), "attempt": attempt, "worker_pid": self.worker.pid if self.worker else None}
        with suppress(OSError):  # on a full disk the lock and the events still tell
            home.write_atomically(self.run.owner_file, json.dumps(owner))

    def _reap(self) -> int:
        """Wait for the worker, and end it by force when it was told to end at once and does not."""
        assert self.worker is not None
        while True:
            try:
                return self.worker.wait(timeout=None if self.killing_since is None else 0.5)
            except subprocess.TimeoutExpired:
                if self.killing_since is not None and time.monotonic() - self.killing_since > KILL_AFTER_SECONDS:
                    self.worker.kill()

    def _record(self, attempt: int, code: int, oom_killed: bool) -> dict[str, Any]:
        said = self._last_words(attempt)
        number = -code if code < 0 else None
        record = {"code": code if code >= 0 else None, "signal": number, "oom_kill": oom_killed, "t": time.time()}
        if said:
            return {**record, **said}
        if number is not None:
            name = signal.Signals(number).name
            cause = "the system's out-of-memory killer" if oom_killed else "somebody outside"
            return {**record, "outcome": "killed", "reason": f"the worker was killed by {name}, sent by {cause}"}
        return {**record, "outcome": "failed", "reason": f"the worker ended with code {code} and no word; its log is logs/{attempt}.err"}

    def _last_words(self, attempt: int) -> dict[str, Any] | None:
        """The worker's own `attempt_ended`, which is its outcome whatever its exit code was."""
        for event in reversed(EventReader(self.run).poll()):
            if event["attempt"] == attempt and event["type"] == "attempt_ended":
                return {"outcome": event.get("outcome", "failed"), "reason": event.get("reason", "")}
        return None

    def _insist(self, write: Callable[..., None], *arguments: Any) -> None:
        """Write what must not be lost: while the disk is full, wait for room."""
        deadline = time.monotonic() + INSIST_SECONDS
        while True:
            try:
                return write(*arguments)
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(1.0)

    def _report(self) -> None:
        """Have the loss picture drawn by a process of its own, so that its failure harms nothing."""
        with suppress(subprocess.SubprocessError, OSError), _log(self.run, 0, "report") as log:
            command = [sys.executable, "-m", "tui_ft.results.report", str(self.run.path)]
            subprocess.run(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, timeout=REPORT_SECONDS, check=False)

    def _newest_checkpoint(self) -> int:
        return max(checkpoints.steps(self.run), default=0)

    def _wait(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not self.ask_to_stop:
            time.sleep(0.1)

    def _on_term(self, *_: object) -> None:
        self.ask_to_stop = True
        self._signal_worker(signal.SIGTERM)

    def _on_int(self, *_: object) -> None:
        self.ask_to_stop = True
        if self.killing_since is None:
            self.killing_since = time.monotonic()
            self._signal_worker(signal.SIGTERM)
            signal.setitimer(signal.ITIMER_REAL, KILL_AFTER_SECONDS)  # wakes a wait that has no time limit
            signal.signal(signal.SIGALRM, lambda *_: self._signal_worker(signal.SIGKILL))

    def _signal_worker(self, number: int) -> None:
        if self.worker and self.worker.poll() is None:
            self.worker.send_signal(number)


def _halved(plan: Plan, record: dict[str, Any]) -> Plan | None:
    """The plan with half the micro-batch and twice the accumulation, told in the record; None when there is nothing left to halve."""
    if plan.micro_batch % 2:
        return None
    half = plan.micro_batch // 2
    reason = f"the micro-batch of {plan.micro_batch} ran out of memory; {half} × {plan.accumulation * 2} keeps the same effective batch"
    record["reason"] = f"{record['reason']}; {reason}"
    return plan.model_copy(update={"micro_batch": half, "accumulation": plan.accumulation * 2, "reasons": {**plan.reasons, "micro_batch": reason}})


def _final(record: dict[str, Any], restarts: int, asked_to_stop: bool) -> dict[str, Any]:
    """The record of the last attempt, in the words of run states."""
    outcome = record["outcome"]
    if outcome in ("killed", OUT_OF_MEMORY):
        outcome = "stopped" if asked_to_stop else "failed"
    after = f" (after {restarts} restarts without a new checkpoint)" if restarts == len(RESTART_DELAYS) else ""
    return {**record, "outcome": outcome, "reason": record["reason"] + after}


def _log(run: Run, attempt: int, name: str) -> Any:
    return os.fdopen(
        os.open(run.logs / (f"{attempt}.{name}" if attempt else f"{name}.log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600), "ab"
    )


def _die_with_parent() -> None:
    """In the worker, before it starts: a worker without its supervisor would be a run that nobody can find."""
    parent = os.getppid()
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _prctl(option: int, value: int) -> None:
    """Linux only; elsewhere the worker outlives a killed supervisor until its next command poll."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def _oom_kills() -> int:
    """How often the kernel killed for memory in our control group, where it counts."""
    for file in (Path("/sys/fs/cgroup/memory.events"), Path("/sys/fs/cgroup/memory/memory.oom_control")):
        try:
            for line in file.read_text(encoding="ascii").splitlines():
                if line.startswith("oom_kill "):
                    return int(line.split()[1])
        except OSError:
            continue
    return 0


if __name__ == "__main__":
    sys.exit(main())
