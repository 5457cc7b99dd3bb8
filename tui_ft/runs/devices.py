"""Who may use a GPU: one lock a GPU, held by a supervisor for as long as its run may use it; without a GPU, one lock a machine.

The kernel lets a lock go with the process that held it, so no kill leaves a GPU taken. Workers do not inherit it.
Locks speak for the runs of this home alone; everybody else is seen by the memory that is free.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import socket
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tui_ft import hardware, home, units
from tui_ft.hardware import GpuReading, Hardware
from tui_ft.recipe import Gpu, Plan
from tui_ft.runs.store import Run, read_json
from tui_ft.text import one_line

CPU = "cpu"
MOST_HOLDERS = 3
"""So many processes are named as holding a GPU's memory."""


@dataclass
class Device:
    """What a supervisor was given: a GPU, or the processor."""

    gpu: Gpu | None
    handle: int | None
    """The open lock; None where a person forced the run onto a device in use."""

    def release(self) -> None:
        if self.handle is not None:
            os.close(self.handle)
            self.handle = None


@dataclass(frozen=True)
class Busy:
    """Why a device cannot be had now."""

    reason: str
    holder: str = ""
    """The run that holds it, where it is a run of ours."""


def folder() -> Path:
    """Where the queue and the locks lie.

    Raises:
        OSError: it cannot be made.
    """
    return home.private_folder(home.home() / "queue")


def exists() -> bool:
    """Whether any run of this home has ever asked for a device: before, none can be held and none waited for."""
    return (home.home() / "queue").is_dir()


def kind(plan: Plan) -> str:
    """What a run waits for: any GPU of that name, or the processor."""
    return plan.gpu.name if plan.gpu else CPU


def needed(plan: Plan) -> int:
    """Bytes that must be free on the GPU: what was asked for, else what the plan counts in all."""
    return plan.when_free if plan.when_free is not None else plan.memory.total_bytes


def read() -> Hardware:
    return hardware.read()


def take(run: Run, plan: Plan, machine: Hardware) -> Device | Busy:
    """The device for a run, locked, or why it must wait. To be called by whoever holds the queue's lock, since two may come at once.

    A queued run takes the processor for itself; the others share it.

    Raises:
        OSError: the locks cannot be written.
    """
    if plan.gpu is None:
        handle = _lock(_file(CPU), shared=not plan.queued)
        if handle is None:
            return _or_shared(plan, None, _busy("the CPU", _file(CPU)))
        return _held(run, handle, None)
    free, busy = [], Busy(f"there is no {one_line(plan.gpu.name)} here any more")
    for gpu in reversed(_fitting(plan, machine)):  # the planned one comes last, so that it is the one told of
        if gpu.free_bytes < needed(plan) and (plan.queued or not _is_planned(gpu, plan)):
            busy = _full(gpu, plan)
        elif _is_taken(_file(_key(gpu)), shared=False):
            busy = _busy(f"GPU {gpu.index}", _file(_key(gpu)))
        else:
            free.append(gpu)
    for gpu in reversed(free):
        handle = _lock(_file(_key(gpu)), shared=False)
        if handle is not None:
            return _held(run, handle, _as_planned(gpu))
    return _or_shared(plan, plan.gpu, busy)


def would_be_busy(plan: Plan, machine: Hardware) -> Busy | None:
    """What would keep a run that does not queue from its device; None where nothing does. Takes no lock that lasts."""
    if plan.gpu is None:
        return _busy("the CPU", _file(CPU)) if _is_taken(_file(CPU), shared=True) else None
    gpus = [gpu for gpu in _fitting(plan, machine) if _is_planned(gpu, plan) or gpu.free_bytes >= needed(plan)]
    taken = [gpu for gpu in gpus if _is_taken(_file(_key(gpu)), shared=False)]
    return _busy(f"GPU {taken[0].index}", _file(_key(taken[0]))) if taken and len(taken) == len(gpus) else None


def _fitting(plan: Plan, machine: Hardware) -> list[GpuReading]:
    """The GPUs that are as good as the planned one, it first."""
    assert plan.gpu is not None
    same = [gpu for gpu in machine.gpus if one_line(gpu.name) == plan.gpu.name and gpu.total_bytes == plan.gpu.total_bytes]
    return sorted(same, key=lambda gpu: (not _is_planned(gpu, plan), gpu.index))


def _is_planned(gpu: GpuReading, plan: Plan) -> bool:
    assert plan.gpu is not None
    return gpu.uuid == plan.gpu.uuid if plan.gpu.uuid else gpu.index == plan.gpu.index


def _as_planned(gpu: GpuReading) -> Gpu:
    return Gpu(name=one_line(gpu.name), total_bytes=gpu.total_bytes, free_bytes=gpu.free_bytes, index=gpu.index, uuid=gpu.uuid)


def _full(gpu: GpuReading, plan: Plan) -> Busy:
    """`waiting for GPU 0: 3.1 GiB of 10.0 GiB free; python (anna, pid 123) holds 12.0 GiB`."""
    return Busy("; ".join([f"waiting for GPU {gpu.index}: {units.size(gpu.free_bytes)} of {units.size(needed(plan))} free", *holders(gpu)]))


def holders(gpu: GpuReading) -> list[str]:
    """Who holds the most of a GPU's memory, in words: `python (anna, pid 123) holds 12.0 GiB`."""
    largest = sorted(gpu.processes, key=lambda process: -(process.memory_bytes or 0))[:MOST_HOLDERS]
    return [
        f"{one_line(process.name or 'a process', 30)} ({one_line(process.user or 'unknown user', 30)}, pid {process.pid}) holds "
        + (units.size(process.memory_bytes) if process.memory_bytes is not None else "some")
        for process in largest
    ]


def _busy(what: str, file: Path) -> Busy:
    holder = one_line(str(read_json(file).get("run") or "another run"), 80)
    return Busy(f"waiting for {what}: {holder} holds it", holder)


def _or_shared(plan: Plan, gpu: Gpu | None, busy: Busy) -> Device | Busy:
    return Device(gpu, None) if plan.shared and not plan.queued else busy


def _key(gpu: GpuReading) -> str:
    return gpu.uuid or f"{socket.gethostname()}-{gpu.index}"  # a driver that tells no uuid still counts its cards


def _file(key: str) -> Path:
    name = f"cpu-{socket.gethostname()}" if key == CPU else f"gpu-{key}"
    return folder() / (re.sub(r"[^A-Za-z0-9._-]", "_", name) + ".lock")


def _lock(file: Path, *, shared: bool) -> int | None:
    handle = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return None
    return handle


def _is_taken(file: Path, *, shared: bool) -> bool:
    handle = _lock(file, shared=shared)
    if handle is not None:
        os.close(handle)
    return handle is None


def _held(run: Run, handle: int, gpu: Gpu | None) -> Device:
    """Write the run's name into its lock, for those who wait for it; on a full disk it goes unnamed."""
    with suppress(OSError):
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps({"run": run.id, "pid": os.getpid()}).encode(), 0)
    return Device(gpu, handle)
