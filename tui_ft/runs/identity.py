"""Who a process is, beyond its number: numbers are used again after it ends, and after a reboot."""

from __future__ import annotations

import socket
from functools import cache
from pathlib import Path

import psutil
from pydantic import BaseModel


class Identity(BaseModel):
    """One process on one machine since one boot."""

    host: str
    boot_id: str
    pid: int
    start_ticks: str
    """When it started: the kernel's clock ticks on Linux, elsewhere the creation time."""

    def is_here(self) -> bool:
        """Whether this machine can look the process up at all."""
        return self.host == socket.gethostname()

    def is_alive(self) -> bool:
        """Whether this very process runs on this machine; a zombie does not."""
        return self.is_here() and self.boot_id == _boot() and self.start_ticks == _start(self.pid)


def of(pid: int) -> Identity:
    """The identity of a living process; of a dead one, an identity that is never alive."""
    return Identity(host=socket.gethostname(), boot_id=_boot(), pid=pid, start_ticks=_start(pid) or "gone")


@cache
def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return str(int(psutil.boot_time()))


def _start(pid: int) -> str | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None if Path("/proc/self").exists() else _start_elsewhere(pid)
    fields = stat.rpartition(")")[2].split()  # the command name before it may hold spaces and brackets
    return None if fields[0] in "ZX" else fields[19]


def _start_elsewhere(pid: int) -> str | None:
    try:
        return str(psutil.Process(pid).create_time())
    except psutil.Error:
        return None
