"""`python -m tui_ft.worker RUN_FOLDER ATTEMPT`: one attempt of a run, from its first event to its last.

`--load` in place of a run loads the libraries and ends: whoever is about to start has them in the system's memory then.
"""

from __future__ import annotations

import ctypes
import gc
import io
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from tui_ft.errors import TuiFtError
from tui_ft.recipe import Gpu, Plan
from tui_ft.runs.endings import NO_WAY_OUT, OUT_OF_MEMORY
from tui_ft.runs.store import Run
from tui_ft.text import one_line
from tui_ft.worker.inbox import Inbox, StopNow
from tui_ft.worker.journal import Journal
from tui_ft.worker.room import is_disk_full
from tui_ft.worker.shortage import ran_out

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Of malloc.h: what the heap's end must have in free bytes to be given back (-1: never), and how many blocks may lie outside of it."""


class _Unbreakable(io.TextIOBase):
    """A log that a full disk cannot turn into an error of whoever writes to it."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        with suppress(OSError):
            self.stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            self.stream.flush()

    def fileno(self) -> int:
        return self.stream.fileno()


def main() -> int:
    os.umask(0o077)
    if sys.argv[1:] == ["--load"]:
        _set_environment(None)  # no GPU is touched
        _load_libraries()
        return 0
    sys.stdout, sys.stderr = _Unbreakable(sys.stdout), _Unbreakable(sys.stderr)
    run, attempt, restarted = Run(Path(sys.argv[1])), int(sys.argv[2]), sys.argv[3:] == ["restart"]
    plan = run.plan(attempt)
    _set_environment(plan.gpu)
    if plan.gpu is None:
        _keep_freed_memory()
    journal = Journal(run, attempt, run.recipe().log.every, restarted)
    inbox = Inbox(run, journal)
    outcome, reason, cause = "failed", "", "error"
    try:
        journal.stage("start")
        _quieten_libraries()
        outcome, reason = _load_libraries()(run, plan, journal, inbox)
        cause = journal.cause or ("done" if outcome == "finished" else "user")
    except StopNow as stop:
        outcome, reason, cause = stop.outcome, str(stop), stop.cause
    except TuiFtError as error:
        reason, cause = " ".join(error.lines()), "disk" if is_disk_full(error) else "error"
        print("\n".join(error.lines()), file=sys.stderr)
    except Exception as error:
        traceback.print_exc()
        outcome, reason, cause = _explain(error, journal)
    if outcome != OUT_OF_MEMORY:  # after it the supervisor starts again, and what was asked for is done then
        inbox.finish(f"the attempt ended: {reason}")
    journal.measured.write(outcome, cause)
    journal.end(outcome, reason, cause)
    return 0


def _load_libraries() -> Callable[[Run, Plan, Journal, Inbox], tuple[str, str]]:
    """The training, with torch, trl and peft behind it: seven seconds in which the journal already tells.

    Their million objects stay for good. Looking through them for garbage again and again was a fifth of these seconds; frozen, they are left
    out of every later look as well.
    """
    gc.disable()
    try:
        from tui_ft.worker.train import train
    finally:
        gc.freeze()
        gc.enable()
    return train


def _set_environment(gpu: Gpu | None) -> None:
    """Before torch is loaded: show it the planned GPU alone, by NVML's numbering (without one, none), and be a good neighbour."""
    os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
    os.environ["CUDA_VISIBLE_DEVICES"] = (gpu.uuid or str(gpu.index)) if gpu else ""
    os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # Threads that spin while they wait take the cores of whoever shares them: ten times slower beside one busy process, seen on 2 cores.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def _keep_freed_memory() -> None:
    """Let a tensor be made in the memory that another has left, in place of returning that to the system and asking for it anew, page by page.

    On a CPU the pages of tensors of some megabytes were four tenths of the time: 1.8 times the tokens a second on two cores
    (`scripts/bench_speed.py`, eight layers of width 256). What it costs: a peak from the same to a quarter more, which the process then keeps.
    """
    with suppress(OSError, AttributeError):  # another C library than glibc
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, -1)


def _quieten_libraries() -> None:
    """What libraries say to their developers would stand among what the log says to a person."""
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # warns of optional kernels that nobody asked for
    warnings.filterwarnings("ignore", category=FutureWarning)
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


def _explain(error: Exception, journal: Journal) -> tuple[str, str, str]:
    """(outcome, reason, cause) of an error that nobody foresaw, or that foresees itself."""
    shortage = ran_out(error)
    if shortage and journal.progress.state == "starting":  # no smaller batch would help
        return "failed", f"{shortage[0]} before the first step: not even model and optimizer fit. {NO_WAY_OUT}", shortage[1]
    if shortage:
        return OUT_OF_MEMORY, *shortage
    cause = "disk" if is_disk_full(error) else "error"
    return "failed", f"{type(error).__name__}: {one_line(error, 400)}; the whole error is in the run's log", cause


if __name__ == "__main__":
    sys.exit(main())
