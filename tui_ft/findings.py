"""What a check found: one line for a person, with the places and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Finding:
    """The result of one check."""

    severity: Literal["error", "warning", "ok"]
    """error: it cannot work as asked. warning: it may go wrong. ok: good to know."""
    where: str
    """The recipe key it is about, or the part of the machine."""
    message: str
    hint: str = ""
    places: tuple[str, ...] = ()
    """Rows that it was seen in, the first few, as a person finds them (`train.jsonl:12`); harmless to show."""

    def __str__(self) -> str:
        """The message with its places, a line each."""
        return "\n    ".join([self.message, *self.places])
