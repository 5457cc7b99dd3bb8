"""Questions that only heavy libraries can answer, asked of a child process that prints one JSON value."""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import IO, Any

from tui_ft.errors import NeedsCode, RequestError, TuiFtError
from tui_ft.text import one_line, visible


def ask(module: str, *arguments: str, stdin: str, subject: str, timeout: float, cancelled: threading.Event | None = None) -> dict[str, Any] | None:
    """Run `python -m module` with `stdin` and read its answer; None where `cancelled` was set while waiting.

    Args:
        subject: what is looked at, for error messages.
        timeout: seconds.

    Raises:
        RequestError: the child refused; its own message and hint.
        NeedsCode: it refused to run a model's own code.
        TuiFtError: it failed.
        TimeoutError: it took longer.
    """
    child = subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        errors="replace",
    )
    request: str | None = stdin
    end = time.monotonic() + timeout
    try:
        while True:
            try:
                output, complaint = child.communicate(request, timeout=0.1)
                break
            except subprocess.TimeoutExpired:
                request = None  # sent already
                if cancelled is not None and cancelled.is_set():
                    return None
                if time.monotonic() > end:
                    raise TimeoutError(f"looking at {subject} took longer than {timeout:.0f} s") from None
    finally:
        if child.poll() is None:
            child.kill()
            child.communicate()
    return _answer(subject, output, complaint, child.returncode)


def stream(module: str, *, stdin: str, subject: str, timeout: float, cancelled: threading.Event | None = None) -> Iterator[dict[str, Any]]:
    """Run `python -m module` with `stdin` and give each JSON object that it prints, as it comes; ends early once `cancelled` is set.

    The child does not outlive the iteration. What was given before an error stays true.

    Raises:
        RequestError, NeedsCode, TuiFtError, TimeoutError: as `ask` does.
    """
    with tempfile.TemporaryFile() as complaints:
        child = subprocess.Popen([sys.executable, "-m", module], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=complaints)
        assert child.stdin is not None and child.stdout is not None
        lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        reader = threading.Thread(target=_read_lines, args=(child.stdout, lines), daemon=True)
        reader.start()
        end = time.monotonic() + timeout
        last = b""
        try:
            with suppress(BrokenPipeError):  # it ended at once; its exit code tells why
                child.stdin.write(stdin.encode())
                child.stdin.close()
            while True:
                try:
                    line = lines.get(timeout=0.1)
                except queue.Empty:
                    if cancelled is not None and cancelled.is_set():
                        return
                    if time.monotonic() > end:
                        raise TimeoutError(f"looking at {subject} took longer than {timeout:.0f} s") from None
                    continue
                if line is None:
                    break
                last = line
                if (value := _object(line)) is not None:
                    yield value
            child.wait()
        finally:
            if child.poll() is None:
                child.kill()
                child.wait()
            reader.join()
            child.stdout.close()
        if child.returncode:
            complaints.seek(0)
            _answer(subject, last.decode(errors="replace"), complaints.read().decode(errors="replace"), child.returncode)


def _read_lines(stream: IO[bytes], lines: queue.SimpleQueue[bytes | None]) -> None:
    for line in stream:
        lines.put(line)
    lines.put(None)


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _answer(subject: str, output: str, complaint: str, code: int) -> dict[str, Any]:
    try:
        answer = json.loads(output.strip().rpartition("\n")[2])
    except ValueError:
        answer = None
    if code == 0 and isinstance(answer, dict):
        return answer
    if code == RequestError.exit_code and isinstance(answer, dict) and "error" in answer:
        kind = NeedsCode if answer.get("needs_code") else RequestError
        raise kind(visible(answer["error"]), visible(answer.get("hint", "")))
    words = one_line(complaint.strip().rpartition("\n")[2], 200)
    raise TuiFtError(f"looking at {subject} failed (exit code {code}): {words}", "See `tui-ft doctor`.")
