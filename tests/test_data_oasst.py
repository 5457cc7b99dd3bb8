"""Message trees: rebuilt from rows or read whole, ranked, pruned, and never cut across by the validation split."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from data_material import Read, write_rows
from data_material import read as read_all

from tui_ft.recipe.schema import Data


def message(
    identity: str, parent: str | None, *, rank: int | None = None, deleted: bool = False, lang: str = "en", text: str | None = None
) -> dict[str, Any]:
    depth = identity.count(".")
    return {
        "message_id": identity, "parent_id": parent, "message_tree_id": identity.split(".")[0], "text": identity if text is None else text,
        "role": "assistant" if depth % 2 else "prompter", "lang": lang, "rank": rank, "deleted": deleted,
    }  # fmt: skip


# A person reads an id as its path: t1.b.a is a follow-up to the answer b of tree t1.
ROWS = [
    message("t1", None),
    message("t1.a", "t1", rank=1),
    message("t1.b", "t1", rank=0),
    message("t1.c", "t1"),
    message("t1.b.a", "t1.b"),
    message("t1.b.a.a", "t1.b.a", rank=0, deleted=True),
    message("t1.b.a.a.a", "t1.b.a.a"),
    message("t1.b.a.b", "t1.b.a", rank=1),
    message("t1.b.b", "t1.b"),
    message("t2", None),
    message("t2.a", "t2", rank=0, deleted=True),
    message("t3", None, deleted=True),
    message("t3.a", "t3", rank=0),
    message("t4.a", "t4", rank=0),
    message("t4.a.a", "t4.a"),
    message("t5", None, lang="pt-BR"),
    message("t5.a", "t5", rank=0, lang="en"),
]


def load(tmp_path: Path, rows: list[Any], **data: Any) -> Read:
    return read_all(Data(source=str(write_rows(tmp_path / "rows.jsonl", rows)), **data))


def paths(read: Read) -> list[str]:
    return [conversation.turns[-1].content for conversation in read.conversations]


def test_best_answers_are_followed_and_the_rest_is_accounted_for(tmp_path: Path) -> None:
    read = load(tmp_path, ROWS)
    assert [[turn.content for turn in item.turns] for item in read.conversations] == [["t1", "t1.b", "t1.b.a", "t1.b.a.b"], ["t5", "t5.a"]]
    assert [turn.role for turn in read.conversations[0].turns] == ["user", "assistant"] * 2
    assert read.ledger.dropped == {
        "orphan: its parent message is missing": 2,
        "deleted": 3,
        "below a message that was left out": 2,
        "another answer ranks higher, or unanswered": 3,
        "tree without an answer": 1,
    }
    assert read.ledger.rows == sum(len(item.turns) for item in read.conversations) + read.ledger.dropped.total()
    assert [item.group for item in read.conversations] == ["tree t1", "tree t5"] and read.ledger.bad == 0


def test_all_paths_end_in_an_answer_and_come_once(tmp_path: Path) -> None:
    assert paths(load(tmp_path, ROWS, oasst="all")) == ["t1.b.a.b", "t1.b", "t1.a", "t1.c", "t5.a"]


def test_a_language_must_hold_for_every_message(tmp_path: Path) -> None:
    assert paths(load(tmp_path, ROWS, languages=["en"])) == ["t1.b.a.b"]
    assert paths(load(tmp_path, ROWS, languages=["en", "pt"])) == ["t1.b.a.b", "t5.a"]
    assert load(tmp_path, ROWS).languages == {"en": 1, "pt": 1}


def test_the_language_of_trees_may_come_from_another_column_or_the_text(tmp_path: Path) -> None:
    rows = [
        {**message("t1", None, lang="de", text="What is the tallest mountain in the world, and who climbed it first?"), "code": "fr"},
        {**message("t1.a", "t1", rank=0, lang="de", text="Mount Everest, first climbed by Hillary and Tenzing."), "code": "fr"},
    ]
    assert [load(tmp_path, rows, language_column=name).languages for name in ("auto", "code", "detect")] == [{"de": 1}, {"fr": 1}, {"en": 1}]


def test_the_order_of_rows_does_not_matter(tmp_path: Path) -> None:
    shuffled = [row for row in ROWS if row["message_id"] not in ("t1.c", "t1.b.b")]  # equal ranks follow the file
    before = sorted(paths(load(tmp_path, shuffled)))
    random.Random(3).shuffle(shuffled)
    assert sorted(paths(load(tmp_path, shuffled))) == before


def nest(rows: list[dict[str, Any]], root: dict[str, Any]) -> dict[str, Any]:
    return {**root, "replies": [nest(rows, row) for row in rows if row["parent_id"] == root["message_id"]]}


def test_nested_trees_give_the_same(tmp_path: Path) -> None:
    roots = [row for row in ROWS if row["parent_id"] is None]
    trees = [{"message_tree_id": root["message_id"], "tree_state": "ready_for_export", "prompt": nest(ROWS, root)} for root in roots]
    for choice in ("best", "all"):
        nested, flat = load(tmp_path, trees, oasst=choice), load(tmp_path, ROWS, oasst=choice)
        assert [item.turns for item in nested.conversations] == [item.turns for item in flat.conversations]
    assert nested.found.nested and load(tmp_path, [trees[0], trees[0]]).ledger.dropped["the same message again"] == 9


def test_rings_repeats_and_broken_messages_harm_nobody(tmp_path: Path) -> None:
    ring = [message("x.a", "x.b"), message("x.b", "x.a")]
    broken: list[Any] = [
        {**ROWS[1], "message_id": None},
        {**ROWS[1], "message_id": "n1", "text": None},
        {**ROWS[1], "message_id": "n2", "role": "judge"},
        "{",
    ]
    read = load(tmp_path, [*ROWS, *ring, ROWS[1], *broken])
    assert paths(read) == ["t1.b.a.b", "t5.a"]
    assert read.ledger.dropped["its parents form a ring"] == 2 and read.ledger.dropped["the same message again"] == 1
    assert read.ledger.bad == 4 and {"message_id is missing", "text is not text", "unknown role", "not valid JSON"} == read.ledger.bad_reasons


def test_an_empty_message_ends_its_path(tmp_path: Path) -> None:
    read = load(tmp_path, [message("t1", None), message("t1.a", "t1", rank=0, text=" "), message("t1.b", "t1", rank=1)])
    assert paths(read) == ["t1.b"] and read.ledger.dropped == {"empty message": 1}


def test_a_tree_may_be_deeper_than_the_call_stack(tmp_path: Path) -> None:
    rows = [message("t", None)]
    for _ in range(3000):
        rows.append(message(f"{rows[-1]['message_id'][:1]}{'.' * len(rows)}", rows[-1]["message_id"]))
        rows[-1]["message_tree_id"] = "t"
    assert len(load(tmp_path, rows).conversations[0].turns) == 3000


@pytest.mark.parametrize(
    ("name", "data", "conversations", "dropped"),
    [
        ("oasst1_en_validation_rows.jsonl", {}, 188, {"orphan: its parent message is missing": 3}),
        ("oasst2_multilingual_rows.jsonl", {"languages": ["en"]}, 48, {"the same message again": 52, "deleted": 35}),
        ("oasst2_multilingual_trees.jsonl", {"languages": ["en"]}, 48, {"the same message again": 52, "deleted": 35}),
    ],
)
def test_real_trees(shared_data: Path, name: str, data: dict[str, Any], conversations: int, dropped: dict[str, int]) -> None:
    path = shared_data / "datasets" / "oasst" / name
    read = read_all(Data(source=str(path), **data))
    assert len(read.conversations) == conversations
    assert dropped.items() <= read.ledger.dropped.items() and read.ledger.bad == 0
    if name.endswith("rows.jsonl"):
        known = {row["message_id"]: row for row in map(json.loads, path.read_text("utf-8").splitlines())}
        times = Counter(row["text"] for row in known.values())
        by_text = {row["text"]: row for row in known.values() if times[row["text"]] == 1}
        answers = [by_text[turn.content] for item in read.conversations for turn in item.turns[1::2] if turn.content in by_text]
        assert len(answers) > 40
        for row in answers:
            siblings = [other["rank"] for other in known.values() if other["parent_id"] == row["parent_id"] and not other["deleted"]]
            assert not row["deleted"] and row["rank"] == min((rank for rank in siblings if rank is not None), default=None)
