"""Talking to a run's model: the client of `results.generate`, without torch."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from pydantic import BaseModel

from tui_ft import home
from tui_ft.errors import RequestError, TuiFtError
from tui_ft.runs.store import Run

Message = dict[str, str]
"""`{"role": "user" | "assistant" | "system", "content": text}`"""

CLOSING_SECONDS = 5.0


class Answered(BaseModel):
    """How the last answer ended."""

    tokens: int
    tokens_per_second: float
    stopped: str = "turn"
    """turn: the model ended it; length: the limit or the context did; cancelled."""


class Chat:
    """One model in a process of its own, asked one question after another. Use it as a context manager.

    The conversation is the caller's: each question carries all messages so far. `ask` blocks between pieces;
    `cancel` and `close` may be called from another thread.
    """

    def __init__(self, run: Run, base: bool = False, checkpoint: Path | None = None) -> None:
        """
        Args:
            base: the model the run started from, with the run's template, for comparison.
            checkpoint: a checkpoint's folder in place of the final model.

        Raises:
            RequestError: the run has no model yet.
        """
        if not base and checkpoint is None and not run.model.is_dir():
            raise RequestError(f"{run.id} has no model yet: it is written when the run ends", f"`tui-ft show {run.id}` tells where it stands.")
        self.run = run
        self.last: Answered | None = None
        self._log = run.logs / ("chat-base.err" if base else "chat.err")
        self._options = [*(["--base"] if base else []), *(["--checkpoint", str(checkpoint)] if checkpoint else [])]
        self._process: subprocess.Popen[str] | None = None
        self._ready = False
        self._question = 0
        self._writing = threading.Lock()
        self._living = threading.Lock()
        self._closed = False

    def __enter__(self) -> Chat:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def start(self) -> None:
        """Start loading the model and return at once; a model that cannot be loaded shows in `wait_until_ready` or `ask`.

        Raises:
            TuiFtError: `close` came first, from another thread.
        """
        home.private_folder(self._log.parent)
        with self._living, open(self._log, "wb", opener=lambda path, flags: os.open(path, flags, 0o600)) as errors:
            if self._closed:
                raise self._ended()
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tui_ft.results.generate", str(self.run.path), *self._options],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                encoding="utf-8",
                start_new_session=True,  # Ctrl+C in the terminal is for the chat, not for the model
            )

    def wait_until_ready(self) -> None:
        """Return once the model is loaded.

        Raises:
            TuiFtError: it could not be.
        """
        if not self._ready:
            self._read()
            self._ready = True

    def ask(self, messages: list[Message], max_new_tokens: int = 512, temperature: float = 0.0) -> Iterator[str]:
        """The answer to a conversation, piece by piece; afterwards `last` tells how it ended.

        Raises:
            RequestError: the template refuses the conversation, or it is too long for the model.
            TuiFtError: the model failed or its process ended.
        """
        self.wait_until_ready()
        self.last = None
        self._question += 1
        self._write({"id": self._question, "messages": messages, "max_new_tokens": max_new_tokens, "temperature": temperature})
        try:
            while "done" not in (line := self._read()):
                yield line["text"]
        except (GeneratorExit, KeyboardInterrupt):  # the caller lost interest: the rest must not be taken for the next answer
            self._discard()
            raise
        self.last = Answered.model_validate(line)

    def _discard(self) -> None:
        self.cancel()
        with suppress(TuiFtError):
            while "done" not in self._read():
                pass

    def cancel(self) -> None:
        """End the answer that is being written after its current token; `ask` then ends as usual."""
        with suppress(TuiFtError):
            self._write({"cancel": self._question})

    def close(self) -> None:
        """End the process; an `ask` in another thread ends with an error."""
        with self._living:
            process, self._process, self._closed = self._process, None, True
        if process is None:
            return
        with suppress(OSError):
            process.stdin.close()  # type: ignore[union-attr]
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(CLOSING_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        process.stdout.close()  # type: ignore[union-attr]

    def _write(self, value: dict[str, Any]) -> None:
        process = self._process
        try:
            with self._writing:
                process.stdin.write(json.dumps(value) + "\n")  # type: ignore[union-attr]
                process.stdin.flush()  # type: ignore[union-attr]
        except (OSError, ValueError, AttributeError):
            raise self._ended() from None

    def _read(self) -> dict[str, Any]:
        """The next line of the child.

        Raises:
            RequestError, TuiFtError: as the child says, or because it is gone.
        """
        process = self._process
        try:
            line = process.stdout.readline()  # type: ignore[union-attr]
        except (OSError, ValueError, AttributeError):
            line = ""
        try:
            value: dict[str, Any] = json.loads(line)
        except ValueError:
            raise self._ended() from None
        if "error" in value:
            kind = RequestError if value.get("exit_code") == RequestError.exit_code else TuiFtError
            raise kind(value["error"], value.get("hint", ""))
        return value

    def _ended(self) -> TuiFtError:
        return TuiFtError("the chat's process has ended", f"{self._log} may say why.")
