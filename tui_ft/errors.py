"""The errors a person may see. Each names what is wrong and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


class TuiFtError(Exception):
    """Something failed while it was carried out. The command line exits with `exit_code`."""

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def lines(self) -> list[str]:
        """The text for a person: the message, then the remedy."""
        return [self.message, *([f"  → {self.hint}"] if self.hint else [])]


class RequestError(TuiFtError):
    """What was asked for cannot be done as asked: nothing was started, nothing was written."""

    exit_code = 2


class NeedsCode(RequestError):
    """The model brings Python code of its own, and nobody consented to running it yet."""


class InUse(RequestError):
    """The GPU is another run's: the queue waits for it."""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a recipe, a file or a dataset."""

    where: str
    """The place: a recipe key (`train.learning_rate`), a file, a file and line, a row."""
    message: str
    hint: str = ""

    def __str__(self) -> str:
        text = f"{self.where}: {self.message}" if self.where else self.message
        return f"{text}\n  → {self.hint}" if self.hint else text


class ConfigError(RequestError):
    """A recipe or a dataset is wrong. Carries every problem, so that all are mended in one go."""

    def __init__(self, problems: Iterable[Problem], title: str = "") -> None:
        self.problems = list(problems)
        self.title = title
        super().__init__("\n".join(self.lines()))

    def lines(self) -> list[str]:
        return [*([self.title] if self.title else []), *(str(problem) for problem in self.problems)]


class ChoiceError(ConfigError):
    """Only a person can tell which of a few is meant: carries the choices, for a screen to offer them."""

    def __init__(self, problem: Problem, part: str, choices: Iterable[str], format: str = "") -> None:
        """`part` is what is to be chosen: a part of the conversation (then of `format`), or `format`, `config` or `split`."""
        super().__init__([problem])
        self.part = part
        self.choices = list(choices)
        self.format = format
        self.columns: list[str] = []
        """The columns there are, and the first rows, for a screen that lets a person look; filled by whoever has read them."""
        self.rows: list[dict[str, Any]] = []
