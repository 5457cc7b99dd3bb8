"""One row → one conversation, for the formats in which a row stands for itself."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from tui_ft.data.conversations import ASSISTANT, CALL_ROLES, DOCUMENT, ROLES, SYSTEM, USER, BadRow, Conversation, Turn, conversation
from tui_ft.data.formats import Format

Values = Mapping[str, Any]
EMPTY_TEXT = "empty text"
_KEPT_KEYS = ("name", "tool_calls", "tool_call_id", "reasoning_content", "thinking")


def reader(found: Format) -> Callable[[Values, str], Conversation]:
    """The function (values, place) → Conversation of a format; it raises BadRow."""
    read = {"messages": _messages, "sharegpt": _sharegpt, "alpaca": _alpaca, "prompt-completion": _prompt_completion, "text": _text}[found.name]
    return lambda values, place: read(values, found.columns, place)


def _messages(values: Values, columns: Mapping[str, str], place: str) -> Conversation:
    turns = [_turn(item) for item in _list(values, columns["messages"])]
    return conversation(turns, place, tools=_tools(values, columns))


def _sharegpt(values: Values, columns: Mapping[str, str], place: str) -> Conversation:
    turns = [_turn(item) for item in _list(values, columns["conversations"])]
    return conversation(_system(values, columns) + turns, place, tools=_tools(values, columns))


def _alpaca(values: Values, columns: Mapping[str, str], place: str) -> Conversation:
    """Instruction and input are one user turn, joined by a blank line; a template with sections of its own finds both as extra keys."""
    instruction = _string(values, columns["instruction"])
    if not instruction.strip():
        raise BadRow("empty instruction")
    given = _string(values, columns["input"], optional=True) if "input" in columns else ""
    asked = Turn(USER, instruction)
    if given.strip():
        asked = Turn(USER, f"{instruction}\n\n{given}", {"instruction": instruction, "input": given})
    answer = Turn(ASSISTANT, _answer(values, columns["output"]))
    return conversation([*_system(values, columns), *_history(values, columns), asked, answer], place)


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
    return conversation([*_system(values, columns), *before, *after], place, tools=_tools(values, columns))


def _text(values: Values, columns: Mapping[str, str], place: str) -> Conversation:
    text = _string(values, columns["text"])
    if not text.strip():
        raise BadRow(EMPTY_TEXT)
    return Conversation((Turn(DOCUMENT, text),), place)


def _system(values: Values, columns: Mapping[str, str]) -> list[Turn]:
    text = _string(values, columns["system"], optional=True) if "system" in columns else ""
    return [Turn(SYSTEM, text)] if text.strip() else []


def _history(values: Values, columns: Mapping[str, str]) -> list[Turn]:
    """Earlier questions with their answers, `[[question, answer], …]`; all answers are learned, as they are in any conversation."""
    pairs = values.get(columns["history"]) if "history" in columns else None
    if pairs is None:
        return []
    if not isinstance(pairs, list) or not all(isinstance(pair, (list, tuple)) and len(pair) == 2 for pair in pairs):
        raise BadRow("history is not a list of pairs", f"found {pairs!r:.60}")
    if not all(isinstance(text, str) for pair in pairs for text in pair):
        raise BadRow("history is not text")
    return [turn for question, answer in pairs for turn in (Turn(USER, question), Turn(ASSISTANT, answer))]


def _tools(values: Values, columns: Mapping[str, str]) -> tuple[dict[str, Any], ...]:
    """Definitions of tools: a list, or the JSON of one as a string."""
    tools = values.get(columns["tools"]) if "tools" in columns else None
    if isinstance(tools, str):
        try:
            tools = json.loads(tools) if tools.strip() else None
        except (ValueError, RecursionError):
            raise BadRow("tools are not valid JSON", f"found {tools!r:.60}") from None
    if not tools:
        return ()
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise BadRow("tools are not a list of definitions", f"found {tools!r:.60}")
    return tuple(_without_nulls(tool) for tool in tools)


def _without_nulls(value: Any) -> Any:
    """Tables give every row the keys of all others, as nulls: a template would render them."""
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value


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
    name = name.strip().lower() if isinstance(name, str) else name
    content = item.get("content", item.get("value"))
    if name in CALL_ROLES:
        return Turn(ASSISTANT, "", {"tool_calls": _calls(content)})
    role = ROLES.get(name) if isinstance(name, str) else None
    if role is None:
        raise BadRow("unknown role", f"role {name!r:.60}")
    extra = {key: _without_nulls(item[key]) for key in _KEPT_KEYS if item.get(key)} if len(item) > 2 else {}
    if "tool_calls" in extra:
        extra["tool_calls"] = _all_calls(extra["tool_calls"])
    if content is None and extra.get("tool_calls"):
        content = ""
    return Turn(role, _content(content), extra)


def _calls(content: Any) -> list[dict[str, Any]]:
    """A sharegpt turn of the role `function_call`: the JSON of one call or of several, each with name and arguments."""
    try:
        found = json.loads(content)
    except (TypeError, ValueError, RecursionError):
        raise BadRow("a call is not valid JSON", f"found {content!r:.60}") from None
    return _all_calls(found if isinstance(found, list) else [found])


def _all_calls(calls: Any) -> list[dict[str, Any]]:
    if not isinstance(calls, list):
        raise BadRow("calls are not a list", f"found {type(calls).__name__}")
    return [_call(call) for call in calls]


def _call(call: Any) -> dict[str, Any]:
    """A call in the one form that templates agree on: `function` with a name, and arguments as an object, not as its JSON."""
    function = call.get("function", call) if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise BadRow("a call names no function", f"found {call!r:.60}")
    arguments = function.get("arguments", {})
    if isinstance(arguments, str):
        with suppress(ValueError, RecursionError):
            arguments = json.loads(arguments)
    return {**({"type": "function"} if function is call else call), "function": {**function, "arguments": arguments}}


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
