"""The terminal's questions about the Hub, each answered by a child process that can be killed: nothing here waits for a network itself."""

from __future__ import annotations

import json
from typing import Literal, TypeVar

from pydantic import BaseModel, ValidationError

from tui_ft.hub.code import RemoteCode
from tui_ft.hub.details import ModelDetails
from tui_ft.hub.login import Account
from tui_ft.hub.search import Choices, Hits
from tui_ft.tui import child

T = TypeVar("T", bound=BaseModel)
SECONDS = 45.0
"""An answer that takes longer is no use to a person; a dead network is said after four."""


async def search(kind: Literal["model", "dataset"], text: str) -> child.Answer:
    """`Hits` of a search by name; what is cached comes first, and alone where there is no network."""
    return await _ask(Hits, "search", kind=kind, text=text)


async def cached(kind: Literal["model", "dataset"]) -> child.Answer:
    """`Hits` of what is on this machine, last used first; asks no network."""
    return await _ask(Hits, "cached", kind=kind)


async def model_details(name: str, revision: str | None = None) -> child.Answer:
    """`ModelDetails` of a Hub id, a folder or a GGUF file."""
    return await _ask(ModelDetails, "details", name=name, revision=revision)


async def dataset_choices(name: str) -> child.Answer:
    """`Choices` of a dataset on the Hub: its configurations and their splits."""
    return await _ask(Choices, "choices", name=name)


async def remote_code(name: str, revision: str | None = None) -> child.Answer:
    """`RemoteCode` of a model: the commit and the Python files in it."""
    return await _ask(RemoteCode, "code", name=name, revision=revision)


async def account() -> child.Answer:
    """`Account`: who is logged in."""
    return await _ask(Account, "account")


async def log_in(token: str) -> child.Answer:
    """`Account` after logging in; the token goes through a pipe, so that it stands in no argument and no environment."""
    return await _ask(Account, "login", token=token)


async def log_out() -> child.Answer:
    """`Account` after logging out."""
    return await _ask(Account, "logout")


async def _ask(shape: type[T], question: str, **asked: str | None) -> child.Answer:
    answer = await child.ask("tui_ft.hub", question, stdin=json.dumps(asked), seconds=SECONDS)
    if answer.error:
        return answer
    try:
        return child.Answer(shape.model_validate(answer.value))
    except ValidationError:
        return child.Answer(error="the helper's answer makes no sense", hint="Are two versions of tui-ft installed?")
