"""OpenAssistant message trees: rebuilt from rows, or read whole, and walked to conversations.

A tree's messages are answers to their parents. Siblings of one prompt are ranked by people, 0 the best; prompts have no rank.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel, Field

from tui_ft.data.conversations import ASSISTANT, ROLES, BadRow, Conversation, Ledger, Turn, conversation
from tui_ft.data.files import Row
from tui_ft.data.formats import PARTS, Format
from tui_ft.data.language import fold
from tui_ft.text import one_line

_AGAIN = "the same message again"
_DELETED = "deleted"
_EMPTY = "empty message"
_SPAM = "spam"
_FAILED = "failed its review"
_NO_RANK = 10**6
_LEAST_SPAM = 0.5  # half of the reviewers
_FINISHED = "ready_for_export"
_COLUMNS = {name: name for name in PARTS["oasst"]}


@dataclass(slots=True)
class _Message:
    id: str
    parent: str | None
    tree: str
    turn: Turn
    language: str
    rank: int
    fault: str
    """Why it must not be learned; empty where nothing speaks against it."""
    state: str
    """Of its whole tree; empty where the data name none."""
    replies: list[_Message] = field(default_factory=list)


class TreeStatistics(BaseModel):
    """What oasst message trees hold, before anything is left out."""

    trees: int = 0
    messages: int = 0
    mean_depth: float = Field(0.0, description="Messages on the longest path of a tree, on average.")
    max_depth: int = 0
    languages: dict[str, int] = Field(default_factory=dict, description="Trees by the language of their first message.")
    states: dict[str, int] = Field(default_factory=dict, description="Trees by tree_state, where the data name one.")


def conversations(
    rows: Iterable[Row], found: Format, paths: Literal["best", "all"], ledger: Ledger, statistics: TreeStatistics
) -> Iterator[Conversation]:
    """One conversation a tree along its best-ranked answers, or one a path; what is left out goes to the ledger, counted in messages.

    A tree that was not finished is left out whole; deleted messages, spam, and those that failed their review, with what answers them.
    """
    for root in _nested_roots(rows, ledger) if found.nested else _roots(rows, {**_COLUMNS, **found.columns}, ledger):
        _count(root, statistics)
        if root.state not in ("", _FINISHED):
            ledger.drop(f"tree not finished: {one_line(root.state, 40)}", _size(root))
            continue
        _prune(root, ledger)
        yield from _walk(root, paths, ledger)


def _count(root: _Message, statistics: TreeStatistics) -> None:
    messages = depth = 0
    pending = [(root, 1)]
    while pending:
        message, level = pending.pop()
        messages, depth = messages + 1, max(depth, level)
        pending += [(reply, level + 1) for reply in message.replies]
    statistics.mean_depth = (statistics.mean_depth * statistics.trees + depth) / (statistics.trees + 1)
    statistics.trees += 1
    statistics.messages += messages
    statistics.max_depth = max(statistics.max_depth, depth)
    for counts, name in ((statistics.languages, root.language), (statistics.states, root.state)):
        if name:
            counts[name] = counts.get(name, 0) + 1


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
        state = row.values.get("tree_state") if row.values else None
        root: _Message | None = None
        pending: list[tuple[Any, _Message | None]] = [(prompt, None)]
        while pending:  # a loop: the depth of foreign trees is not ours to trust to the call stack
            item, parent = pending.pop()
            ledger.rows += 1
            try:
                if not isinstance(item, dict):
                    raise BadRow("a reply is not a message")
                message = _message(Row(row.place, {**item, "message_tree_id": tree, "tree_state": state}), _COLUMNS)
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
        fault=_fault(values, text),
        state=values["tree_state"] if isinstance(values["tree_state"], str) else "",
    )


def _fault(values: Mapping[str, Any], text: str) -> str:
    """Why a message must not be learned. A message nobody has reviewed yet is no fault: the whole tree tells whether it is finished."""
    if values["deleted"] is True or str(values["deleted"]).lower() == "true":
        return _DELETED
    if not text.strip():
        return _EMPTY
    if _spam_share(values["labels"]) >= _LEAST_SPAM:
        return _SPAM
    return _FAILED if values["review_result"] is False or str(values["review_result"]).lower() == "false" else ""


def _spam_share(labels: Any) -> float:
    """The share of reviewers who called a message spam, 0 to 1. `labels` is a mapping of names and values, or of each name to its value."""
    if not isinstance(labels, Mapping):
        return 0.0
    names, shares = labels.get("name"), labels.get("value")
    share = labels.get("spam")
    if isinstance(names, list) and isinstance(shares, list) and "spam" in names:
        share = dict(zip(names, shares, strict=False)).get("spam")
    share = share.get("value") if isinstance(share, Mapping) else share
    return float(share) if isinstance(share, (int, float)) else 0.0


def _size(message: _Message) -> int:
    """Messages in the tree below and including this one."""
    count, pending = 0, [message]
    while pending:
        count += 1
        pending += pending.pop().replies
    return count


def _prune(root: _Message, ledger: Ledger) -> None:
    """Cut off what must not be learned, with everything below it."""
    pending = [root]
    while pending:
        message = pending.pop()
        if message.fault:
            ledger.drop(message.fault)
            ledger.drop("below a message that was left out", _size(message) - 1)
            message.replies = []
        else:
            pending += message.replies
            message.replies = sorted(message.replies, key=lambda reply: (bool(reply.fault), reply.rank))  # stable: file order among equals
    for message in _all(root):
        message.replies = [reply for reply in message.replies if not reply.fault]


def _all(root: _Message) -> Iterator[_Message]:
    pending = [root]
    while pending:
        message = pending.pop()
        yield message
        pending += message.replies


def _walk(root: _Message, paths: str, ledger: Ledger) -> Iterator[Conversation]:
    if root.fault:
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
