"""Work that the terminal leaves to another process: it can be killed, it cannot freeze the screen, and what it loads goes with it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from tui_ft.text import one_line

MAX_BYTES = 32_000_000
"""More than this is no answer to a screen; the child is ended."""


@dataclass(frozen=True)
class Answer:
    """What a child said: a value, or an error for a person."""

    value: Any = None
    error: str = ""
    hint: str = ""


async def ask(module: str, *arguments: str, stdin: str = "", seconds: float = 120.0) -> Answer:
    """Run `python -m module` and read the JSON value it prints.

    A child that fails prints `{"error": …, "hint": …}`; whatever else goes wrong comes back in the same shape. Cancelling
    the task that awaits this, or the end of `seconds`, kills the child and its own children.
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
    try:
        async with asyncio.timeout(seconds):
            output, errors = await _talk(process, stdin.encode())
    except TimeoutError:
        return Answer(error=f"no answer within {seconds:.0f} seconds", hint="It may be waiting for the network, or the dataset is very large.")
    except ValueError as error:
        return Answer(error=str(error))
    finally:
        await _end(process)
    return _read(output, errors, process.returncode or 0)


async def _talk(process: asyncio.subprocess.Process, data: bytes) -> tuple[bytes, bytes]:
    """Feed the child and read it to its end; both pipes at once, so that neither can block it."""
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

    async def whole(reader: asyncio.StreamReader) -> bytes:
        kept = bytearray()
        while chunk := await reader.read(65536):
            kept += chunk
            if len(kept) > MAX_BYTES:
                raise ValueError("the answer is too large to show")
        return bytes(kept)

    _, output, errors = await asyncio.gather(feed(process.stdin), whole(process.stdout), tail(process.stderr))
    await process.wait()
    return output, errors


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


def _read(output: bytes, errors: bytes, code: int) -> Answer:
    lines = output.decode("utf-8", "replace").strip().splitlines()
    try:
        value = json.loads(lines[-1]) if lines else None
    except ValueError:
        value = None
    if isinstance(value, dict) and value.get("error"):
        return Answer(error=str(value["error"]), hint=str(value.get("hint") or ""))
    if code == 0 and value is not None:
        return Answer(value)
    said = errors.decode("utf-8", "replace").strip().splitlines()
    return Answer(error=one_line(said[-1], 300) if said else f"the helper process ended with code {code} and no answer")
