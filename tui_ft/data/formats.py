"""How a row holds its conversation: found by looking at columns and values, or told by `data.format` and `data.columns`."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from tui_ft.data.sources import columns_of
from tui_ft.errors import ChoiceError, ConfigError, Problem
from tui_ft.recipe.schema import Data
from tui_ft.text import one_line

Row = dict[str, Any]

PARTS: dict[str, tuple[str, ...]] = {
    "messages": ("messages", "tools"),
    "sharegpt": ("conversations", "system", "tools"),
    "alpaca": ("instruction", "input", "output", "system", "history"),
    "prompt-completion": ("prompt", "completion", "system", "tools"),
    "text": ("text",),
    "oasst": ("message_id", "parent_id", "text", "role", "lang", "rank", "deleted", "message_tree_id", "tree_state", "review_result", "labels"),
}
"""For each format, the parts that `data.columns` may name; a part's usual column has the same name."""

REQUIRED: dict[str, tuple[str, ...]] = {
    "messages": ("messages",),
    "sharegpt": ("conversations",),
    "alpaca": ("instruction", "output"),
    "prompt-completion": ("prompt", "completion"),
    "text": ("text",),
    "oasst": ("message_id", "parent_id", "text", "role"),
}
_USUAL: dict[str, tuple[str, ...]] = {
    "messages": ("messages", "conversation", "conversations", "chat", "dialogue", "dialog"),
    "conversations": ("conversations", "conversation", "messages"),
    "instruction": ("instruction",),
    "input": ("input", "context"),
    "output": ("output", "response", "completion", "answer"),
    "prompt": ("prompt", "question", "query", "input", "user"),
    "completion": ("completion", "response", "answer", "output", "assistant", "target"),
    "text": ("text", "content", "document"),
    "system": ("system", "system_prompt"),
    "tools": ("tools", "functions"),
    "history": ("history",),
}
"""The columns that usually play a part. Where a source has two of one part, only a person can tell which is meant."""
_WORDS = {"output": "answer", "completion": "answer", "prompt": "question", "input": "input", "system": "system text"}
_PREFERENCE = "preference rows: trained on the column chosen; rejected is not used"
LANGUAGE_COLUMNS = ("lang", "language", "lang_code", "locale")


@dataclass(frozen=True)
class Format:
    name: str
    """One of the formats of `data.format` but auto."""
    columns: dict[str, str]
    """Part → column of this source; optional parts that it lacks are left out."""
    reason: str
    """Why this format, in a few words."""
    notices: tuple[str, ...] = ()
    """What a person should know about the choice."""
    nested: bool = False
    """oasst only: each row is a whole tree, not one message."""


def find_format(rows: Sequence[Row], data: Data) -> Format:
    """The format of a source, judged by its first rows.

    Raises:
        ConfigError: a column that does not exist, two columns for one part, or nothing that fits; names the columns there are.
    """
    columns = columns_of(rows)
    _check_mapping(data, columns)
    if data.format != "auto":
        return _fill(data.format, data.columns, columns, rows, "set by data.format")
    if data.columns:
        for name, required in REQUIRED.items():
            if set(required) <= set(data.columns):
                return _fill(name, data.columns, columns, rows, f"data.columns names {', '.join(data.columns)}")
    return _look(rows, columns, data)


def language_column(data: Data, columns: Sequence[str]) -> str | None:
    """The column that names a row's language; None where the text itself must tell, or nobody asks.

    Raises:
        ConfigError: the recipe names a column that does not exist.
    """
    if data.language_column == "detect":
        return None
    if data.language_column == "auto":
        return next((name for name in LANGUAGE_COLUMNS if name in columns), None)
    if data.language_column not in columns:
        raise ConfigError([_unknown_column("data.language_column", data.language_column, columns)])
    return data.language_column


def _check_mapping(data: Data, columns: Sequence[str]) -> None:
    known = PARTS[data.format] if data.format != "auto" else tuple(dict.fromkeys(part for parts in PARTS.values() for part in parts))
    problems = []
    for part, column in data.columns.items():
        if part not in known:
            near = difflib.get_close_matches(part, known, n=1)
            hint = f"Did you mean {near[0]}?" if near else f"Parts: {', '.join(known)}."
            problems.append(Problem(f"data.columns.{one_line(part, 60)}", "is no part of a conversation", hint))
        elif column not in columns:
            problems.append(_unknown_column(f"data.columns.{part}", column, columns))
    if problems:
        raise ConfigError(problems)


def _unknown_column(where: str, column: str, columns: Sequence[str]) -> Problem:
    return Problem(where, f"there is no column {one_line(column, 60)!r}", f"The columns are: {_names(columns)}.")


def _names(columns: Sequence[str]) -> str:
    return one_line(", ".join(columns), 400) or "none"


def _fill(name: str, mapping: dict[str, str], columns: Sequence[str], rows: Sequence[Row], reason: str) -> Format:
    """The format with every part that the source has a usual column for."""
    nested = name == "oasst" and _nested(rows)
    if nested:
        return Format(name, {}, reason, nested=True)
    filled: dict[str, str] = {}
    notices: list[str] = []
    preference = {"chosen", "rejected"} <= set(columns)
    for part in PARTS[name]:
        taken = {*filled.values(), *mapping.values()}
        usual = [column for column in _USUAL.get(part, (part,)) if column in columns and column not in taken]
        if part in mapping:
            filled[part] = mapping[part]
        elif preference and part in ("output", "completion"):
            filled[part] = "chosen"
            notices.append(_PREFERENCE)
        elif len(usual) > 1 and name not in ("messages", "text"):
            words = f"both {' and '.join(usual)} could be the {_WORDS.get(part, part)}"
            raise ChoiceError(Problem("data.columns", words, f"Choose with data.columns: {{{part}: {usual[0]}}}."), part, usual, name)
        elif usual:
            filled[part] = usual[0]
    missing = [part for part in REQUIRED[name] if part not in filled]
    if missing:
        hint = f"Say which column it is with data.columns: {{{missing[0]}: NAME}}. The columns are: {_names(columns)}."
        problem = Problem("data.columns", f"the format {name} needs a column for {', '.join(missing)}", hint)
        raise ChoiceError(problem, missing[0], [column for column in columns if column not in filled.values()], name)
    return Format(name, filled, reason, tuple(notices))


def _look(rows: Sequence[Row], columns: Sequence[str], data: Data) -> Format:
    have = set(columns)

    def fill(name: str, reason: str, **found: str) -> Format:
        return _fill(name, {**found, **data.columns}, columns, rows, reason)

    if set(REQUIRED["oasst"]) <= have:
        return fill("oasst", "message_id, parent_id, role and text: messages of conversation trees")
    if _nested(rows):
        return fill("oasst", "prompt holds a message with replies: whole conversation trees")
    for column in [*_USUAL["messages"], "chosen"]:
        keys = _keys_of_turns(rows, column)
        if "role" in keys and keys & {"content", "tool_calls"}:
            found = fill("messages", f"{column} is a list of role and content", messages=column)
            return replace(found, notices=(*found.notices, _PREFERENCE)) if column == "chosen" else found
        if {"from", "value"} <= keys:
            return fill("sharegpt", f"{column} is a list of from and value", conversations=column)
    answers = have & {*_USUAL["output"], "chosen"}
    if "instruction" in have and answers:
        return fill("alpaca", f"columns instruction and {', '.join(name for name in columns if name in answers)}")
    prompts = [name for name in _USUAL["prompt"] if name in have]
    answers = have & {*_USUAL["completion"], "chosen"}
    if prompts and answers - set(prompts):
        return fill("prompt-completion", f"columns {prompts[0]} and {', '.join(name for name in columns if name in answers)}")
    texts = [name for name in _USUAL["text"] if name in have] or [name for name in columns if len(columns) == 1 and _strings(rows, name)]
    if texts:
        return Format("text", {"text": data.columns.get("text", texts[0])}, f"column {one_line(texts[0], 60)} holds plain text")
    hint = "Say which column plays which part, e.g. data.columns: {instruction: question, output: answer}, or {text: body}."
    raise ChoiceError(Problem("data.format", f"the columns tell no known format: {_names(columns)}", hint), "format", PARTS)


def _nested(rows: Sequence[Row]) -> bool:
    return any(isinstance(row.get("prompt"), dict) and "replies" in row["prompt"] for row in rows)


def _keys_of_turns(rows: Sequence[Row], column: str) -> set[str]:
    """The keys in the turns of the first row whose `column` is a list of mappings."""
    for row in rows:
        turns = row.get(column)
        if isinstance(turns, list) and turns and isinstance(turns[0], dict):
            return {key for turn in turns if isinstance(turn, dict) for key in turn}
    return set()


def _strings(rows: Sequence[Row], column: str) -> bool:
    return any(isinstance(row.get(column), str) for row in rows)
