"""OpenAssistant message trees: rebuilt from rows, or read whole, and walked to conversations.

A tree's messages are answers to their parents. Siblings of one prompt are ranked by people, 0 the best; prompts have no rank.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from tui_ft.data.conversations import ASSISTANT, ROLES, BadRow, Conversation, Ledger, Turn, conversation
from tui_ft.data.files import Row
from tui_ft.data.formats import Format
from tui_ft.data.language import fold

_AGAIN = "the same message again"
_NO_RANK = 10**6
_COLUMNS = {name: name for name in ("message_id", "parent_id", "text", "role", "lang", "rank", "deleted", "message_tree_id")}


@dataclass(slots=True)
class _Message:
    id: str
    parent: str | None
    tree: str
    turn: Turn
    language: str
    rank: int
    deleted: bool
    replies: list[_Message] = field(default_factory=list)


def conversations(rows: Iterable[Row], found: Format, paths: Literal["best", "all"], ledger: Ledger) -> Iterator[Conversation]:
    """One conversation a tree along its best-ranked answers, or one a path; what is left out goes to the ledger, counted in messages."""
    for root in _nested_roots(rows, ledger) if found.nested else _roots(rows, {**_COLUMNS, **found.columns}, ledger):
        _prune(root, ledger)
        yield from _walk(root, paths, ledger)


def _roots(rows: Iterable[Row], columns: Mapping[str, str], ledger: Ledger) -> list[_Message]:
    messages: dict[str, _Message] = {}
    for row in rows:
        ledger.rows += 1
        try:
            message = _message(row, columns)
            if message.id in messages:
                ledger.drop(_AGAIN)
            else:
                messages[message.id] = message
        except BadRow as problem:
            ledger.drop_bad(problem, row.place, row.values)
    roots, orphans = [], []
    for message in messages.values():
        if message.parent is None:
            roots.append(message)
        elif message.parent in messages:
            messages[message.parent].replies.append(message)
        else:
            orphans.append(message)
    ledger.drop("orphan: its parent message is missing", sum(_size(orphan) for orphan in orphans))
    in_rings = len(messages) - sum(_size(top) for top in [*roots, *orphans])
    ledger.drop("its parents form a ring", in_rings)
    return roots


def _nested_roots(rows: Iterable[Row], ledger: Ledger) -> Iterator[_Message]:
    seen: set[str] = set()
    for row in rows:
        prompt = row.values.get("prompt") if row.values else None
        if not isinstance(prompt, dict):
            ledger.rows += 1
            ledger.drop_bad(BadRow(row.problem or "prompt is not a message"), row.place, row.values)
            continue
        tree = str(row.values.get("message_tree_id") or prompt.get("message_id")) if row.values else ""
        root: _Message | None = None
        pending: list[tuple[Any, _Message | None]] = [(prompt, None)]
        while pending:  # a loop: the depth of foreign trees is not ours to trust to the call stack
            item, parent = pending.pop()
            ledger.rows += 1
            try:
                if not isinstance(item, dict):
                    raise BadRow("a reply is not a message")
                message = _message(Row(row.place, {"message_tree_id": tree, **item}), _COLUMNS)
            except BadRow as problem:
                ledger.drop_bad(problem, row.place, item)
                continue
            if message.id in seen:
                ledger.drop(_AGAIN)
            elif parent:
                parent.replies.append(message)
            else:
                root = message
            seen.add(message.id)
            replies = item.get("replies")
            pending += [(reply, message) for reply in reversed(replies if isinstance(replies, list) else [])]
        if root:
            yield root


def _message(row: Row, columns: Mapping[str, str]) -> _Message:
    if row.values is None:
        raise BadRow(row.problem)
    values = {part: row.values.get(column) for part, column in columns.items()}
    identity, parent, text, rank = values["message_id"], values["parent_id"], values["text"], values["rank"]
    if not isinstance(identity, str) or not identity:
        raise BadRow("message_id is missing")
    if not isinstance(text, str):
        raise BadRow("text is not text", f"found {type(text).__name__}")
    role = ROLES.get(str(values["role"]).lower())
    if role is None:
        raise BadRow("unknown role", f"role {values['role']!r}")
    return _Message(
        id=identity,
        parent=str(parent) if parent else None,  # CSV has no null: an empty cell is a root
        tree=str(values["message_tree_id"] or ""),
        turn=Turn(role, text),
        language=fold(values["lang"]) if isinstance(values["lang"], str) else "",
        rank=int(rank) if isinstance(rank, (int, float)) or (isinstance(rank, str) and rank.isdigit()) else _NO_RANK,
        deleted=values["deleted"] is True or str(values["deleted"]).lower() == "true",
    )


def _size(message: _Message) -> int:
    """Messages in the tree below and including this one."""
    count, pending = 0, [message]
    while pending:
        count += 1
        pending += pending.pop().replies
    return count


def _prune(root: _Message, ledger: Ledger) -> None:
    """Cut off deleted and empty messages with everything below them."""
    pending = [root]
    while pending:
        message = pending.pop()
        if message.deleted or not message.turn.content.strip():
            ledger.drop("deleted" if message.deleted else "empty message")
            ledger.drop("below a message that was left out", _size(message) - 1)
            message.replies = []
            message.deleted = True
        else:
            pending += message.replies
            message.replies = sorted(message.replies, key=lambda reply: (reply.deleted, reply.rank))  # stable: file order among equals
    for message in _all(root):
        message.replies = [reply for reply in message.replies if not reply.deleted]


def _all(root: _Message) -> Iterator[_Message]:
    pending = [root]
    while pending:
        message = pending.pop()
        yield message
        pending += message.replies


def _walk(root: _Message, paths: str, ledger: Ledger) -> Iterator[Conversation]:
    if root.deleted:
        return
    used: set[int] = set()
    seen: set[int] = set()
    for path in _best(root) if paths == "best" else _every(root):
        while path and path[-1].turn.role != ASSISTANT:
            path.pop()
        if not path or id(path[-1]) in seen:  # two unanswered prompts after one answer end in the same conversation
            continue
        seen.add(id(path[-1]))
        used.update(map(id, path))
        languages = tuple(dict.fromkeys(message.language for message in path if message.language))
        tree = root.tree or root.id
        yield conversation([message.turn for message in path], f"tree {tree}", languages=languages, group=f"tree {tree}")
    reason = "another answer ranks higher, or unanswered" if used else "tree without an answer"
    ledger.drop(reason, sum(1 for message in _all(root) if id(message) not in used))


def _best(root: _Message) -> Iterator[list[_Message]]:
    path = [root]
    while path[-1].replies:
        path.append(path[-1].replies[0])
    yield path


def _every(root: _Message) -> Iterator[list[_Message]]:
    pending = [[root]]
    while pending:
        path = pending.pop()
        if path[-1].replies:
            pending += [[*path, reply] for reply in reversed(path[-1].replies)]
        else:
            yield list(path)
