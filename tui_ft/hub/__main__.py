"""A child process: `python -m tui_ft.hub WHAT` answers one question about the Hub.

The question is JSON on stdin, since a token must stand neither in an argument nor in the environment; the answer is one line of
JSON. A problem is printed as `{"error": …, "hint": …}` with exit code 2.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, SecretStr

from tui_ft.errors import RequestError, TuiFtError


def _search(asked: dict[str, Any]) -> BaseModel:
    from tui_ft.hub import search

    return search.search(asked["kind"], asked["text"])


def _cached(asked: dict[str, Any]) -> BaseModel:
    from tui_ft.hub import search

    return search.cached(asked["kind"])


def _choices(asked: dict[str, Any]) -> BaseModel:
    from tui_ft.hub import search

    return search.choices(asked["name"])


def _details(asked: dict[str, Any]) -> BaseModel:
    """Of a path from its files; of a Hub id from the Hub, else from the cache."""
    from tui_ft.hub import details, network

    name, revision = asked["name"], asked.get("revision")
    path = Path(name).expanduser()
    if path.exists():
        return details.of_folder(path, name)
    why = network.settle()
    if not why:
        return details.of_hub(name, revision)
    cached = details.of_cache(name, revision)
    if cached is None:
        raise RequestError(f"this model is not on this machine: {why}", "Check the network, or choose one that is.")
    return cached.model_copy(update={"note": f"as cached here: {why}"})


def _code(asked: dict[str, Any]) -> BaseModel:
    from tui_ft.hub import code

    return code.remote_code(asked["name"], asked.get("revision"))


def _login(asked: dict[str, Any]) -> BaseModel:
    from tui_ft.hub import login

    return login.log_in(SecretStr(asked.pop("token")))


def _logout(_: dict[str, Any]) -> BaseModel:
    from tui_ft.hub import login

    return login.log_out()


def _account(_: dict[str, Any]) -> BaseModel:
    from tui_ft.hub import login

    return login.account()


QUESTIONS: dict[str, Callable[[dict[str, Any]], BaseModel]] = {
    "search": _search, "cached": _cached, "details": _details, "choices": _choices, "code": _code,
    "login": _login, "logout": _logout, "account": _account,
}  # fmt: skip


def main() -> int:
    logging.disable(logging.CRITICAL)  # stdout and stderr are read by a program, and a debug log would hold the request's headers
    os.umask(0o077)
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    try:
        print(QUESTIONS[sys.argv[1]](json.loads(sys.stdin.read() or "{}")).model_dump_json())
    except TuiFtError as error:
        print(json.dumps({"error": error.message, "hint": error.hint}))
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
