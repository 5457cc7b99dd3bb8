"""The chat's other end, a process of its own because it needs torch: `python -m tui_ft.results.generate RUN_FOLDER [--base] [--checkpoint FOLDER]`.

One JSON object a line. In: `{"id": 1, "messages": […], "max_new_tokens": 256, "temperature": 0}`, and `{"cancel": 1}`
at any time. Out: `{"ready": true}` once, then for each question `{"text": piece}` … and
`{"done": true, "tokens": n, "tokens_per_second": x, "stopped": "turn" | "length" | "cancelled"}`, or `{"error": message, "hint": text}`.
It ends when its input ends.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tui_ft import collector
from tui_ft.errors import RequestError, TuiFtError
from tui_ft.text import one_line

if TYPE_CHECKING:
    from tui_ft.results.speaker import Speaker

Say = Callable[[dict[str, Any]], None]
DEFAULT_NEW_TOKENS = 512


class Inbox:
    """Questions from standard input, read by a thread so that a cancellation arrives while an answer is being written."""

    def __init__(self, lines: Any) -> None:
        self._questions: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._cancelled: set[int] = set()
        self._closed = False
        threading.Thread(target=self._read, args=(lines,), daemon=True).start()

    def _read(self, lines: Any) -> None:
        for line in lines:
            try:
                value = json.loads(line)
            except ValueError:
                value = {}
            if not isinstance(value, dict):
                value = {}
            if isinstance(number := value.get("cancel"), int):
                self._cancelled.add(number)
            else:
                self._questions.put(value)
        self._closed = True
        self._questions.put(None)

    def next(self) -> dict[str, Any] | None:
        """The next question; None when there will be none."""
        return self._questions.get()

    def is_cancelled(self, question: int) -> bool:
        """Cancelled, or nobody is left to read the answer."""
        return self._closed or question in self._cancelled


def main() -> int:
    collector.relax()
    arguments = _arguments()
    say = _private_stdout()
    inbox = Inbox(sys.stdin)
    try:
        from tui_ft.results.speaker import load_speaker

        speaker = load_speaker(arguments.run, base=arguments.base, checkpoint=arguments.checkpoint)
    except TuiFtError as error:
        say(_error(error))
        return error.exit_code
    except Exception as error:
        say({"error": f"the model could not be loaded: {one_line(error, 400)}"})
        raise
    say({"ready": True})
    while (question := inbox.next()) is not None:
        try:
            say(_answer(speaker, question, say, inbox))
        except TuiFtError as error:
            say(_error(error))
        except Exception as error:  # a model can fail on one question in more ways than can be listed; the next may go well
            print(repr(error), file=sys.stderr)
            say({"error": f"the model failed on this question: {one_line(error, 400)}", "hint": "Shorten it, or ask something else."})
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("--base", action="store_true")
    parser.add_argument("--checkpoint", type=Path)
    return parser.parse_args()


def _private_stdout() -> Say:
    """A way to say JSON lines that no library can write into: what they print goes to standard error."""
    stream = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def say(value: dict[str, Any]) -> None:
        stream.write(json.dumps(value) + "\n")
        stream.flush()

    return say


def _error(error: TuiFtError) -> dict[str, Any]:
    return {"error": error.message, "hint": error.hint, "exit_code": error.exit_code}


def _answer(speaker: Speaker, question: dict[str, Any], say: Say, inbox: Inbox) -> dict[str, Any]:
    messages, number = question.get("messages"), question.get("id", 0)
    new_tokens, temperature = question.get("max_new_tokens", DEFAULT_NEW_TOKENS), question.get("temperature") or 0.0
    if not isinstance(messages, list) or not messages or not all(_is_message(message) for message in messages):
        raise RequestError("a question needs messages, each with a role and a content")
    if type(new_tokens) is not int or new_tokens < 1:
        raise RequestError(f"max_new_tokens must be a whole number from 1 up, not {one_line(new_tokens, 40)}")
    if not isinstance(temperature, int | float) or not 0 <= temperature <= 10:
        raise RequestError(f"temperature must be between 0 and 10, not {one_line(temperature, 40)}")
    return speaker.answer(messages, new_tokens, float(temperature), lambda piece: say({"text": piece}), lambda: inbox.is_cancelled(number))


def _is_message(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("role"), str) and isinstance(value.get("content"), str)


if __name__ == "__main__":
    sys.exit(main())
