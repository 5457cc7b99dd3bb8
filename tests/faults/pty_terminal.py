"""A real pseudo terminal around a command: what it writes, byte by byte, and ways to take the terminal away."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import struct
import subprocess
import termios
import threading
import time
from contextlib import suppress
from typing import Any, ClassVar

SANE = ("ICANON", "ECHO", "ISIG")


class Terminal:
    """One terminal window. Commands are run in it one after the other; `output` keeps every byte that it was sent."""

    processes: ClassVar[list[subprocess.Popen[bytes]]] = []
    """Of all terminals: a test that fails must not leave any behind."""

    def __init__(self, columns: int = 100, rows: int = 30) -> None:
        self.master, self.slave = pty.openpty()
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.output = b""
        threading.Thread(target=self._read, daemon=True).start()

    def run(self, command: list[str], **env: str) -> subprocess.Popen[bytes]:
        """Start a command in a session of its own whose controlling terminal this is, as a login shell's child has it."""
        process = subprocess.Popen(
            command, stdin=self.slave, stdout=self.slave, stderr=self.slave, start_new_session=True, preexec_fn=self._take,
            env={**os.environ, "TERM": "xterm-256color", **env},
        )  # fmt: skip
        self.processes.append(process)
        return process

    def _take(self) -> None:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    def _read(self) -> None:
        with suppress(OSError):
            while block := os.read(self.master, 1 << 16):
                self.output += block

    def type(self, keys: str) -> None:
        os.write(self.master, keys.encode())

    def wait_for(self, text: str, seconds: float = 60.0) -> None:
        """Until `text` was written in one piece."""
        deadline = time.monotonic() + seconds
        while text.encode() not in self.output:
            assert time.monotonic() < deadline, f"{text!r} did not come: {self.output[-2000:]!r}"
            time.sleep(0.02)

    def is_sane(self) -> bool:
        """Whether a shell could be used in it: lines are edited, typed characters are seen, Ctrl+C interrupts."""
        flags: Any = termios.tcgetattr(self.slave)[3]
        return all(flags & getattr(termios, name) for name in SANE)

    def hang_up(self) -> None:
        """Close the window: whoever runs in it gets SIGHUP, and every write fails from now on."""
        os.close(self.slave)
        os.close(self.master)


def kill(process: subprocess.Popen[bytes], number: int = signal.SIGKILL) -> None:
    process.send_signal(number)
    process.wait(30)
