"""The supervisor: one small process a run, without torch, that waits for the GPU, starts the worker and records how it ended.

`python -m tui_ft.runs.supervisor RUN_FOLDER`, in a session of its own. It holds the run's lock while it lives, and the GPU's while
a worker may use it. A worker that was killed from outside is started again from its last checkpoint, a bounded number of times;
one that failed by an error of its own is not, since it would fail again. SIGTERM asks the worker to stop and save; SIGINT ends it
at once.
"""

from __future__ import annotations

import ctypes
import errno
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
from typing import Any, TypeVar

from tui_ft import home
from tui_ft.errors import TuiFtError
from tui_ft.runs import checkpoints, endings, identity, logs, queue
from tui_ft.runs.devices import Busy, Device
from tui_ft.runs.endings import RESTART_DELAYS
from tui_ft.runs.heartbeat import Heart
from tui_ft.runs.store import Run

T = TypeVar("T")

POLL_SECONDS = 0.5
QUEUE_SECONDS = 0.3
"""How often a waiting supervisor looks at the queue: two small files on a local disk, and the driver's count of free memory."""
LOCK_SECONDS = 3.0
"""So long the lock of a supervisor that is just dying is waited for."""
KILL_AFTER_SECONDS = 30.0
READ_ONLY_SECONDS = 10.0
"""A file server that is remounted may refuse for a moment."""
REPORT_SECONDS = 120.0
INSIST_SECONDS = 3600.0
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36


def main() -> int:
    os.umask(0o077)
    run = Run(Path(sys.argv[1]))
    lock = os.open(run.lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    if not _locked(lock):
        print(f"another supervisor holds {run.id}", file=sys.stderr)
        return 1
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    return Supervisor(run).supervise()


def _locked(lock: int) -> bool:
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except OSError:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)


class Supervisor:
    """The attempts of one run, one after the other."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.worker: subprocess.Popen[bytes] | None = None
        self.ask_to_stop = False
        self.killing_since: float | None = None
        self.by_force = False
        """A person asked to end it at once."""
        self.gone = ""
        """Why the run's directory cannot be used any more."""
        self._heart = Heart(run)
        self._inode = run.path.stat().st_ino
        self._refused_since: float | None = None
        signal.signal(signal.SIGTERM, self._on_term)
        signal.signal(signal.SIGINT, self._on_int)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def supervise(self) -> int:
        attempt, restarts, again = self.run.attempt(), 0, False
        device = self._device(attempt)
        if isinstance(device, dict):
            self._insist(self.run.write_exit_record, attempt, device)
            return 0
        while True:
            newest = self._newest_checkpoint()
            record = self._one_attempt(attempt, restart=again)
            self._live()
            if self.gone:
                return self._give_up(attempt, record)
            restarts = 0 if self._newest_checkpoint() != newest else restarts
            smaller = record["outcome"] == endings.OUT_OF_MEMORY  # each such restart takes less: there is an end to them without a count
            ends = self.ask_to_stop or (restarts == len(RESTART_DELAYS) and not smaller)
            plan = None if ends else endings.next_plan(self.run.plan(attempt), record)
            if plan is None:
                device.release()  # nothing that is left to do needs it
                if record["outcome"] != "paused":  # who pauses to free the GPU may want it back at once
                    self._report()
                self._insist(self.run.write_exit_record, attempt, endings.final(record, restarts, self.ask_to_stop, self.by_force))
                return 0
            self._insist(self.run.write_exit_record, attempt, record)
            restarts += not smaller
            endings.tell_restart(self.run, attempt, record, 0 if smaller else restarts, self._newest_checkpoint())
            self._wait(RESTART_DELAYS[0 if smaller else restarts - 1])
            attempt, again = attempt + 1, True
            self._insist(self.run.write_plan, attempt, plan)

    def _device(self, attempt: int) -> Device | dict[str, Any]:
        """The GPU to train on, waited for if the plan says so; or the record of an attempt that did not come to begin."""
        plan = self.run.plan(attempt)
        try:
            device = self._queue(attempt) if plan.queued else queue.take_at_once(self.run, plan)
        except queue.Cancelled:
            return _not_begun("stopped", "user", "cancelled while it waited")
        except TuiFtError as error:
            device = Busy(" ".join(error.lines()))
        if device is None:
            return _not_begun("stopped", "user" if self.by_force else "system", self.gone or "asked to end while it waited")
        if isinstance(device, Busy):
            self._sign(attempt)
            return _not_begun("stopped", "busy", f"it did not begin: {device.reason}; `tui-ft resume {self.run.id} --queue` waits for it")
        if device.gpu and plan.gpu and (device.gpu.uuid, device.gpu.index) != (plan.gpu.uuid, plan.gpu.index):
            self._insist(self.run.write_plan, attempt, plan.model_copy(update={"gpu": device.gpu}))
        return device

    def _queue(self, attempt: int) -> Device | None:
        """Wait for the run's turn, telling where it stands; None where this process was asked to end.

        Raises:
            Cancelled: a person took the run out of the queue.
        """
        waiting, told = queue.Waiting(self.run, attempt, self.run.plan(attempt)), None
        while not self.ask_to_stop and not self.gone:
            try:
                device = waiting.look()
            except TuiFtError as error:
                device, waiting.reason = None, error.message
            if device:
                return device
            standing = {"position": waiting.position, "reason": waiting.reason}
            if standing != told:
                self._sign(attempt, standing)
                told = standing
            self._wait(QUEUE_SECONDS)
        waiting.leave()
        return None

    def _one_attempt(self, attempt: int, restart: bool) -> dict[str, Any]:
        """Run one worker to its end and say how it ended."""
        self.worker = None
        self._sign(attempt)
        if self.ask_to_stop or self.gone:
            return _not_begun("stopped", "user" if self.by_force else "system", "stopped before the attempt began")
        kills_before = endings.oom_kills()
        out, err = (self._insist(logs.open_log, self.run, f"{attempt}.{name}") for name in ("out", "err"))
        if out is None or err is None:
            self.gone = self.gone or f"{self.run.path} cannot be written"
            return _not_begun("failed", "disk", self.gone)
        with out, err:
            self.worker = subprocess.Popen(
                [sys.executable, "-m", "tui_ft.worker", str(self.run.path), str(attempt), *(["restart"] if restart else [])],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )
        self._sign(attempt)
        code = self._reap(attempt)
        return endings.record(self.run, attempt, code, endings.oom_kills() > kills_before)

    def _sign(self, attempt: int, queued: dict[str, Any] | None = None) -> None:
        """Say who holds the run, at which attempt, with which worker, or where it stands in the queue."""
        owner = {**identity.of(os.getpid()).model_dump(), "attempt": attempt, "worker_pid": self.worker.pid if self.worker else None}
        with suppress(OSError):  # on a full disk the lock and the events still tell
            home.write_atomically(self.run.owner_file, json.dumps({**owner, **({"queued": queued} if queued else {})}))

    def _reap(self, attempt: int) -> int:
        """Wait for the worker, and end it by force when it was told to end at once and does not."""
        assert self.worker is not None
        while True:
            with suppress(subprocess.TimeoutExpired):
                return self.worker.wait(timeout=POLL_SECONDS)
            logs.rotate(self.run, attempt)
            self._live()
            if self.killing_since is not None and time.monotonic() - self.killing_since > KILL_AFTER_SECONDS:
                self.worker.kill()

    def _live(self) -> None:
        """What must happen now and then, whatever is waited for: a sign of life, and a look whether the run is still there."""
        self._heart.beat()
        if self.gone:
            return
        if not self._is_there():
            self._abandon(f"{self.run.path} is gone: the worker is ended", signal.SIGKILL)
        elif os.access(self.run.path, os.W_OK):
            self._refused_since = None
        elif self._refused_since is None:
            self._refused_since = time.monotonic()
        elif time.monotonic() - self._refused_since > READ_ONLY_SECONDS:
            self._abandon(f"{self.run.path} cannot be written any more: the worker is ended", signal.SIGTERM)

    def _is_there(self) -> bool:
        """Whether the very folder is there: a worker that wrote into a deleted one may have made another of its name."""
        try:
            return self.run.path.stat().st_ino == self._inode
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:  # a file server that does not answer for a moment
            return True

    def _abandon(self, why: str, number: int) -> None:
        """End the worker: what it learns from here on could not be kept."""
        self.gone = why
        self.killing_since = self.killing_since or time.monotonic()
        self._signal_worker(number)

    def _give_up(self, attempt: int, record: dict[str, Any]) -> int:
        """Say once what happened, where that is still possible. No restart: it would find the same."""
        with suppress(OSError):
            print(self.gone, file=sys.stderr, flush=True)
        with suppress(OSError):
            if self._is_there():  # writing would make the folders of a deleted run anew
                self.run.write_exit_record(attempt, {**record, "outcome": "failed", "cause": "disk", "reason": self.gone})
        return 1

    def _insist(self, write: Callable[..., T], *arguments: Any) -> T | None:
        """Write what must not be lost: while the disk is full, wait for room. None where it cannot be written.

        Raises:
            OSError: still full after an hour. One that refuses for another reason is told in the supervisor's log alone.
        """
        deadline = time.monotonic() + INSIST_SECONDS
        while not self.gone and self._is_there():
            try:
                return write(*arguments)
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                    print(f"{self.run.path} cannot be written: {error.strerror}", file=sys.stderr, flush=True)
                    return None
                if time.monotonic() > deadline:
                    raise
                self._live()
                time.sleep(1.0)
        return None

    def _report(self) -> None:
        """Have the loss picture drawn by a process of its own, so that its failure harms nothing."""
        with suppress(OSError), logs.open_log(self.run, "report.log") as log:
            command = [sys.executable, "-m", "tui_ft.results.report", str(self.run.path)]
            drawing = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=_die_with_parent)
            deadline = time.monotonic() + REPORT_SECONDS
            while True:
                with suppress(subprocess.TimeoutExpired):
                    drawing.wait(timeout=POLL_SECONDS)
                    return
                self._live()
                if time.monotonic() > deadline or self.gone:
                    drawing.kill()

    def _newest_checkpoint(self) -> int:
        return max(checkpoints.steps(self.run), default=0)

    def _wait(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not self.ask_to_stop and not self.gone:
            self._live()
            left = deadline - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(0.1, left))

    def _on_term(self, *_: object) -> None:
        self.ask_to_stop = True
        self._signal_worker(signal.SIGTERM)

    def _on_int(self, *_: object) -> None:
        self.ask_to_stop = self.by_force = True
        if self.killing_since is None:
            self.killing_since = time.monotonic()
            self._signal_worker(signal.SIGTERM)

    def _signal_worker(self, number: int) -> None:
        if self.worker and self.worker.poll() is None:
            self.worker.send_signal(number)


def _not_begun(outcome: str, cause: str, reason: str) -> dict[str, Any]:
    return {"outcome": outcome, "cause": cause, "reason": reason, "code": None, "signal": None, "t": time.time()}


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


if __name__ == "__main__":
    sys.exit(main())
