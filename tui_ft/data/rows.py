"""One row → one conversation, for the formats in which a row stands for itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tui_ft.data.conversations import ASSISTANT, DOCUMENT, ROLES, SYSTEM, USER, BadRow, Conversation, Turn, conversation
from tui_ft.data.formats import Format

Values = Mapping[str, Any]
EMPTY_TEXT = "empty text"
_KEPT_KEYS = ("name", "tool_calls", "tool_call_id", "reasoning_content", "thinking")


def reader(found: Format) -> Callable[[Values, str], Conversation]:
    """The function (values, place) → Conversation of a format; it raises BadRow."""
    read = {"messages": _messages, "sharegpt": _sharegpt, "alpaca": _alpaca, "prompt-completion": _prompt_completion, "text": _text}[found.name]
    return lambda values, place: read(values, found.columns, place)


def _messages(values: Values, columns: Mapping[str, str], place: str) -> Conversation:
    return conversation([_turn(item) for item in _list(values, columns["messages"])], place)


def _sharegpt(values: Values, columns: Mapping[str, str], place: str) -> Conversation:
    turns = [_turn(item) for item in _list(values, columns["conversations"])]
    return conversation(_system(values, columns) + turns, place)


def _alpaca(values: Values, columns: Mapping[str, str], place: str) -> Conversation:
    """Instruction and input are one user turn, joined by a blank line; a template with sections of its own finds both as extra keys."""
    instruction = _string(values, columns["instruction"])
    if not instruction.strip():
        raise BadRow("empty instruction")
    given = _string(values, columns["input"], optional=True) if "input" in columns else ""
    asked = Turn(USER, instruction)
    if given.strip():
        asked = Turn(USER, f"{instruction}\n\n{given}", {"instruction": instruction, "input": given})
    return conversation([*_system(values, columns), asked, Turn(ASSISTANT, _answer(values, columns["output"]))], place)


def _prompt_completion(values: Values, columns: Mapping[str, str], place: str) -> Conversation:
    """Both sides may be text or, as preference sets have it, a list of messages; a side that repeats the other's messages is cut."""
    prompt, completion = values.get(columns["prompt"]), values.get(columns["completion"])
    before = [_turn(item) for item in prompt] if isinstance(prompt, list) else [Turn(USER, _string(values, columns["prompt"]))]
    if isinstance(completion, list):
        after = [_turn(item) for item in completion]
        after = after[len(before) :] if after[: len(before)] == before else after
    else:
        after = [Turn(ASSISTANT, _answer(values, columns["completion"]))]
    if not any(turn.content.strip() for turn in before):
        raise BadRow("empty prompt")
    return conversation([*_system(values, columns), *before, *after], place)


def _text(values: Values, columns: Mapping[str, str], place: str) -> Conversation:
    text = _string(values, columns["text"])
    if not text.strip():
        raise BadRow(EMPTY_TEXT)
    return Conversation((Turn(DOCUMENT, text),), place)


def _system(values: Values, columns: Mapping[str, str]) -> list[Turn]:
    text = _string(values, columns["system"], optional=True) if "system" in columns else ""
    return [Turn(SYSTEM, text)] if text.strip() else []


def _list(values: Values, column: str) -> list[Any]:
    value = values.get(column)
    if value is None:
        raise BadRow(f"null in {column}")
    if not isinstance(value, list):
        raise BadRow(f"{column} is not a list", f"found {type(value).__name__}")
    if not value:
        raise BadRow("empty conversation")
    return value


def _turn(item: Any) -> Turn:
    """One message, with `role` and `content` or `from` and `value`: some files mix them."""
    if not isinstance(item, dict):
        raise BadRow("a turn is not an object", f"found {type(item).__name__}")
    name = item.get("role", item.get("from"))
    role = ROLES.get(name.strip().lower()) if isinstance(name, str) else None
    if role is None:
        raise BadRow("unknown role", f"role {name!r:.60}")
    extra = {key: item[key] for key in _KEPT_KEYS if item.get(key) is not None}
    content = item.get("content", item.get("value"))
    if content is None and extra.get("tool_calls"):
        content = ""
    return Turn(role, _content(content), extra)


def _content(content: Any) -> str:
    """Text, or the text of typed parts (`[{"type": "text", "text": …}]`)."""
    if isinstance(content, str):
        return content
    if content is None:
        raise BadRow("null content")
    if not isinstance(content, list):
        raise BadRow("content is not text", f"found {type(content).__name__}")
    parts = []
    for part in content:
        text = part.get("text") if isinstance(part, dict) else part
        if not isinstance(text, str):
            kind = part.get("type", "unknown") if isinstance(part, dict) else type(part).__name__
            raise BadRow("content that is not text", f"a part of type {kind}")
        parts.append(text)
    return "".join(parts)


def _answer(values: Values, column: str) -> str:
    """The answer: text, or the last message where a preference set keeps messages there."""
    value = values.get(column)
    if isinstance(value, list) and value:
        return _turn(value[-1]).content
    return _string(values, column)


def _string(values: Values, column: str, optional: bool = False) -> str:
    value = values.get(column)
    if isinstance(value, str):
        return value
    if value is None:
        if optional:
            return ""
        raise BadRow(f"null in {column}")
    raise BadRow(f"{column} is not text", f"found {type(value).__name__} {value!r:.60}")
