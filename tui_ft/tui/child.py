"""Work that the terminal leaves to another process: it can be killed, it cannot freeze the screen, and what it loads goes with it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import psutil

from tui_ft.text import one_line

MAX_BYTES = 32_000_000
"""A line of more than this is no answer to a screen; the child is ended."""

Progress = Callable[[str, int, int | None], None]
"""Called with (stage, done, total or None)."""


@dataclass(frozen=True)
class Answer:
    """What a child said: a value, or an error for a person."""

    value: Any = None
    error: str = ""
    hint: str = ""
    details: dict[str, Any] = field(default_factory=dict)
    """What a child says besides its error: the choices there are, the columns it saw. Foreign text."""


async def ask(
    module: str, *arguments: str, stdin: str = "", seconds: float = 120.0, on_progress: Progress | None = None, background: bool = False
) -> Answer:
    """Run `python -m module` and read the JSON value that is its last line.

    A child that fails prints `{"error": …, "hint": …}`; whatever else goes wrong comes back in the same shape. Cancelling
    the task that awaits this, or `seconds` without a word, kills the child and its own children.

    Args:
        on_progress: is given each line `{"progress": {"stage", "done", "total"}}`, which is a sign of life.
        background: the child gives way to whatever else wants the processor.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        module,
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
        env={**os.environ, "TOKENIZERS_PARALLELISM": "false"},
        limit=2**20,
    )
    if background:
        with suppress(psutil.Error, OSError):
            psutil.Process(process.pid).nice(10)
    try:
        async with asyncio.timeout(seconds) as limit:

            def alive(stage: str, done: int, total: int | None) -> None:
                limit.reschedule(asyncio.get_running_loop().time() + seconds)
                if on_progress:
                    on_progress(stage, done, total)

            output, errors = await _talk(process, stdin.encode(), alive)
    except TimeoutError:
        return Answer(error=f"no answer within {seconds:.0f} seconds", hint="It may be waiting for the network, or the dataset is very large.")
    except ValueError as error:
        return Answer(error=str(error))
    finally:
        await _end(process)
    return _read(output, errors, process.returncode or 0)


async def _talk(process: asyncio.subprocess.Process, data: bytes, on_progress: Progress) -> tuple[bytes, bytes]:
    """Feed the child and read it to its end, both pipes at once, so that neither can block it: its last line and the end of its complaints."""
    assert process.stdin and process.stdout and process.stderr

    async def feed(writer: asyncio.StreamWriter) -> None:
        with suppress(BrokenPipeError, ConnectionResetError):
            writer.write(data)
            await writer.drain()
        writer.close()

    async def tail(reader: asyncio.StreamReader) -> bytes:
        kept = b""
        while chunk := await reader.read(65536):
            kept = (kept + chunk)[-8192:]
        return kept

    async def last_line(reader: asyncio.StreamReader) -> bytes:
        answer, begun = b"", bytearray()
        while chunk := await reader.read(65536):
            *ended, rest = chunk.split(b"\n")
            for part in ended:
                begun += part
                if not _progress(begun, on_progress) and begun.strip():
                    answer = bytes(begun)
                begun.clear()
            begun += rest
            if len(begun) > MAX_BYTES:
                raise ValueError("the answer is too large to show")
        return bytes(begun) if begun.strip() else answer

    _, output, errors = await asyncio.gather(feed(process.stdin), last_line(process.stdout), tail(process.stderr))
    await process.wait()
    return output, errors


def _progress(line: bytearray, on_progress: Progress) -> bool:
    """Whether a line only says how far the child is; then it is handed on."""
    if not line.startswith(b'{"progress"'):
        return False
    with suppress(ValueError, KeyError, TypeError):
        told = json.loads(line)["progress"]
        on_progress(str(told["stage"]), int(told["done"]), None if told["total"] is None else int(told["total"]))
    return True


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


def _read(output: bytes, errors: bytes, code: int) -> Answer:
    try:
        value = json.loads(output.decode("utf-8", "replace")) if output.strip() else None
    except ValueError:
        value = None
    if isinstance(value, dict) and value.get("error"):
        details = {key: detail for key, detail in value.items() if key not in ("error", "hint")}
        return Answer(error=str(value["error"]), hint=str(value.get("hint") or ""), details=details)
    if code == 0 and value is not None:
        return Answer(value)
    said = errors.decode("utf-8", "replace").strip().splitlines()
    return Answer(error=one_line(said[-1], 300) if said else f"the helper process ended with code {code} and no answer")
