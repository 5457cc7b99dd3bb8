"""What every format becomes: a conversation of turns, or a bad row with its reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from tui_ft.text import one_line

SYSTEM, USER, ASSISTANT, TOOL = "system", "user", "assistant", "tool"
DOCUMENT = "document"
"""The role of the only turn of plain text, which is no conversation."""

ROLES = {
    "system": SYSTEM, "developer": SYSTEM,
    "user": USER, "human": USER, "prompter": USER, "question": USER, "instruction": USER,
    "assistant": ASSISTANT, "gpt": ASSISTANT, "bot": ASSISTANT, "model": ASSISTANT, "chatgpt": ASSISTANT, "answer": ASSISTANT, "ai": ASSISTANT,
    "tool": TOOL, "function": TOOL, "observation": TOOL, "ipython": TOOL, "function_response": TOOL,
}  # fmt: skip
"""The names that files give to a role, and what we call it."""


class BadRow(ValueError):
    """A row that cannot be used. `reason` is one of a few short texts, so that rows can be counted by it."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Turn:
    role: str
    content: str
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Further keys of the message that a template may read: `instruction` and `input` (alpaca), `tool_calls`, `reasoning_content`, `name` …"""

    def message(self) -> dict[str, Any]:
        """The form that chat templates read."""
        return {"role": self.role, "content": self.content, **self.extra}


@dataclass(frozen=True, slots=True)
class Conversation:
    turns: tuple[Turn, ...]
    origin: str
    """Where it comes from, for a person: `train.jsonl:12`, `row 12`, `tree 5af2…`."""
    languages: tuple[str, ...] = ()
    """Folded codes of its messages, the first one leading; empty while unknown."""
    group: str = ""
    """Conversations of one group never stand on both sides of the validation split (a tree's id); empty: a group of its own."""
    tools: tuple[dict[str, Any], ...] = ()
    """Definitions of the tools that the assistant may call, as JSON schemas, in the form that chat templates read."""

    @property
    def is_document(self) -> bool:
        return len(self.turns) == 1 and self.turns[0].role == DOCUMENT

    def messages(self) -> list[dict[str, Any]]:
        return [turn.message() for turn in self.turns]

    def text(self, limit: int = 0) -> str:
        """All contents, one a line; cut to `limit` characters (0: not cut)."""
        parts, length = [], 0
        for turn in self.turns:
            parts.append(turn.content)
            length += len(turn.content) + 1
            if limit and length > limit:
                break
        whole = "\n".join(parts)
        return whole[:limit] if limit else whole


SYSTEMS, CALLS, THINKING = "system texts", "tool calls", "thinking"
TWO_IN_A_ROW = "two turns of one side in a row"
FEATURES = (SYSTEMS, CALLS, THINKING, TWO_IN_A_ROW)
"""What not every template can show."""


def features(conversation: Conversation) -> Iterator[str]:
    """Which of `FEATURES` a conversation has; tools may answer in any number between two turns of one side."""
    roles = [turn.role for turn in conversation.turns]
    extra = {key for turn in conversation.turns for key in turn.extra}
    if SYSTEM in roles:
        yield SYSTEMS
    if "tool_calls" in extra or TOOL in roles:
        yield CALLS
    if extra & {"reasoning_content", "thinking"}:
        yield THINKING
    if any(one == two and one in (USER, ASSISTANT) for one, two in pairwise(roles)):
        yield TWO_IN_A_ROW


def conversation(
    turns: list[Turn], origin: str, *, languages: tuple[str, ...] = (), group: str = "", tools: tuple[dict[str, Any], ...] = ()
) -> Conversation:
    """A conversation that can be learned from: it ends with its last answer, and no answer is empty.

    Raises:
        BadRow: it has no answer, or an empty one.
    """
    while turns and turns[-1].role != ASSISTANT:
        turns = turns[:-1]
    if not turns:
        raise BadRow("no answer")
    if any(turn.role == ASSISTANT and not turn.content.strip() and not turn.extra.get("tool_calls") for turn in turns):
        raise BadRow("empty answer")
    return Conversation(tuple(turns), origin, languages, group, tools)


CALL_ROLES = ("function_call", "tool_call")
"""Roles by which sharegpt files mark an assistant's turn that is the JSON of a call."""

_SAMPLES, _EXCERPT = 3, 160  # excerpts kept of one reason, and their width in terminal cells


@dataclass
class Ledger:
    """What was left out on the way, by reason, with places and samples for a person."""

    rows: int = 0
    """Rows read from the source."""
    dropped: Counter[str] = field(default_factory=Counter)
    """Rows or conversations left out, by reason; bad rows are among them."""
    bad: int = 0
    """Rows that could not be used at all: what `data.max_bad_rows` limits."""
    bad_reasons: set[str] = field(default_factory=set)
    samples: dict[str, list[str]] = field(default_factory=dict)
    """For a reason, the first places with an excerpt; harmless to show."""
    noted: Counter[str] = field(default_factory=Counter)
    """What is odd and used all the same, by what it is."""

    def note(self, oddity: str, place: str) -> None:
        self.noted[oddity] += 1
        shown = self.samples.setdefault(oddity, [])
        if len(shown) < _SAMPLES:
            shown.append(one_line(place, _EXCERPT))

    def drop(self, reason: str, count: int = 1, *, sample: str = "") -> None:
        """Leave out what is not wrong, only not wanted."""
        if count:
            self.dropped[reason] += count
        shown = self.samples.setdefault(reason, []) if sample else []
        if sample and len(shown) < _SAMPLES:
            shown.append(one_line(sample, _EXCERPT))

    def drop_bad(self, problem: BadRow, place: str, row: object = "") -> None:
        self.bad += 1
        self.bad_reasons.add(problem.reason)
        excerpt = problem.detail or (str(row)[: 2 * _EXCERPT] if row and self.dropped[problem.reason] < _SAMPLES else "")
        self.drop(problem.reason, sample=f"{place}: {excerpt}" if excerpt else place)
