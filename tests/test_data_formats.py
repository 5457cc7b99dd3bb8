"""Formats: found without help, mapped by hand, and rows that cannot be used."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from data_material import Read, byte_tokenizer, recipe, write_rows
from data_material import read as read_all

from tui_ft.data import formats, language, prepare, tokenizer
from tui_ft.errors import ChoiceError, ConfigError, RequestError
from tui_ft.recipe.schema import Data

TURNS = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]
OLD_TURNS = [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}]


def load(tmp_path: Path, rows: list[Any], **data: Any) -> Read:
    return read_all(Data(source=str(write_rows(tmp_path / "rows.jsonl", rows)), **data))


def contents(read: Read) -> list[list[tuple[str, str]]]:
    return [[(turn.role, turn.content) for turn in conversation.turns] for conversation in read.conversations]


@pytest.mark.parametrize(
    ("row", "name"),
    [
        ({"messages": TURNS}, "messages"),
        ({"conversation": TURNS}, "messages"),
        ({"conversations": TURNS}, "messages"),
        ({"chosen": TURNS, "rejected": TURNS}, "messages"),
        ({"conversations": OLD_TURNS}, "sharegpt"),
        ({"dialog": OLD_TURNS}, "sharegpt"),
        ({"instruction": "Q", "output": "A"}, "alpaca"),
        ({"instruction": "Q", "input": "", "response": "A"}, "alpaca"),
        ({"instruction": "Q", "context": "", "completion": "A", "category": "x"}, "alpaca"),
        ({"prompt": "Q", "completion": "A"}, "prompt-completion"),
        ({"question": "Q", "answer": "A"}, "prompt-completion"),
        ({"prompt": "Q", "chosen": "A", "rejected": "B"}, "prompt-completion"),
        ({"prompt": TURNS[:1], "completion": TURNS[1:]}, "prompt-completion"),
        ({"prompt": "Q", "chosen": TURNS, "rejected": TURNS}, "messages"),
    ],
)
def test_formats_are_found(tmp_path: Path, row: dict[str, Any], name: str) -> None:
    read = load(tmp_path, [row])
    assert (read.found.name, contents(read)) == (name, [[("user", "Q"), ("assistant", "A")]])
    assert read.found.reason
    assert bool(read.found.notices) == ("rejected" in row)


@pytest.mark.parametrize(("row", "name"), [({"text": "T"}, "text"), ({"content": "T", "id": 3}, "text"), ({"body": "T"}, "text")])
def test_plain_text_is_found(tmp_path: Path, row: dict[str, Any], name: str) -> None:
    read = load(tmp_path, [row, {**row, next(iter(row)): "  \n"}])
    assert read.found.name == name and contents(read) == [[("document", "T")]]
    assert read.ledger.dropped == {"empty text": 1} and read.ledger.bad == 0


def test_alpaca_keeps_the_input_apart_and_joined(tmp_path: Path) -> None:
    read = load(tmp_path, [{"instruction": "Spell", "input": "freind", "output": "friend", "system": "Be exact."}])
    system, user, _ = read.conversations[0].messages()
    assert system == {"role": "system", "content": "Be exact."}
    assert user == {"role": "user", "content": "Spell\n\nfreind", "instruction": "Spell", "input": "freind"}


def test_ambiguous_answers_ask(tmp_path: Path) -> None:
    row = {"instruction": "Q", "output": "one", "response": "two"}
    with pytest.raises(ConfigError) as error:
        load(tmp_path, [row])
    assert "both output and response could be the answer" in str(error.value) and "data.columns: {output: output}" in str(error.value)
    assert contents(load(tmp_path, [row], columns={"output": "response"}))[0][1] == ("assistant", "two")


def test_columns_are_mapped_by_hand(tmp_path: Path) -> None:
    row = {"frage": "Q", "antwort": "A", "quelle": "web"}
    assert contents(load(tmp_path, [row], columns={"instruction": "frage", "output": "antwort"})) == [[("user", "Q"), ("assistant", "A")]]
    assert load(tmp_path, [row], columns={"text": "frage"}).found.name == "text"
    assert (
        load(tmp_path, [row], format="prompt-completion", columns={"prompt": "frage", "completion": "antwort"}).found.reason == "set by data.format"
    )


def test_rows_of_trees_may_be_read_as_text(tmp_path: Path) -> None:
    row = {"message_id": "1", "parent_id": None, "text": "T", "role": "prompter", "lang": "en"}
    assert contents(load(tmp_path, [row], format="text")) == [[("document", "T")]]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({}, "the columns tell no known format: frage, antwort"),
        ({"columns": {"instruction": "q", "output": "antwort"}}, "no column 'q'"),
        ({"columns": {"instructoin": "frage"}}, "Did you mean instruction?"),
        ({"format": "alpaca"}, "needs a column for instruction, output"),
        ({"format": "messages", "columns": {"output": "frage"}}, "is no part of a conversation"),
        ({"columns": {"text": "frage"}, "language_column": "sprache"}, "no column 'sprache'"),
    ],
)
def test_wrong_mappings_name_what_there_is(tmp_path: Path, data: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as error:
        load(tmp_path, [{"frage": "Q", "antwort": "A"}], **data)
    assert words in str(error.value)
    assert "frage, antwort" in str(error.value) or "Did you mean" in str(error.value) or "Parts:" in str(error.value)


GOOD = {"messages": TURNS}
BAD_MESSAGES = {
    "null in messages": {"messages": None},
    "messages is not a list": {"messages": "Q: hi"},
    "empty conversation": {"messages": []},
    "a turn is not an object": {"messages": ["hi"]},
    "unknown role": {"messages": [{"role": "narrator", "content": "x"}, *TURNS]},
    "null content": {"messages": [TURNS[0], {"role": "assistant", "content": None}]},
    "content is not text": {"messages": [TURNS[0], {"role": "assistant", "content": 3.5}]},
    "content that is not text": {"messages": [{"role": "user", "content": [{"type": "image", "url": "x"}]}, TURNS[1]]},
    "empty answer": {"messages": [TURNS[0], {"role": "assistant", "content": " \n"}]},
    "no answer": {"messages": TURNS[:1]},
    "not valid JSON": '{"messages": [{"role"',
    "not an object": "[]",
}


def test_bad_rows_are_counted_by_reason_with_place_and_sample(tmp_path: Path) -> None:
    read = load(tmp_path, [GOOD, *BAD_MESSAGES.values(), GOOD])
    assert dict(read.ledger.dropped) == dict.fromkeys(BAD_MESSAGES, 1)
    assert read.ledger.bad == len(BAD_MESSAGES) and len(read.conversations) == 2
    for number, reason in enumerate(BAD_MESSAGES, 2):
        assert read.ledger.samples[reason][0].startswith(f"rows.jsonl:{number}")
    model = byte_tokenizer(tmp_path / "model")
    wanted = recipe(model, tmp_path / "rows.jsonl", data={"max_bad_rows": 0.5})
    with pytest.raises(RequestError) as error:
        prepare.prepare(wanted, tokenizer.load(wanted.model, wanted.prompt))
    assert "12 of 14 rows" in error.value.message and "rows.jsonl:6: role 'narrator'" in error.value.message
    allowed = recipe(model, tmp_path / "rows.jsonl", data={"max_bad_rows": 0.9})
    assert prepare.prepare(allowed, tokenizer.load(wanted.model, wanted.prompt)).report.bad_rows == 12


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"instruction": None, "output": "A"}, "null in instruction"),
        ({"instruction": "Q", "output": None}, "null in output"),
        ({"instruction": "Q", "output": 42}, "output is not text"),
        ({"instruction": "Q", "input": {"a": 1}, "output": "A"}, "input is not text"),
        ({"instruction": " ", "output": "A"}, "empty instruction"),
        ({"instruction": "Q", "output": ""}, "empty answer"),
    ],
)
def test_bad_alpaca_rows(tmp_path: Path, row: dict[str, Any], reason: str) -> None:
    read = load(tmp_path, [{"instruction": "Q", "input": "", "output": "A"}, row])
    assert dict(read.ledger.dropped) == {reason: 1} and len(read.conversations) == 1


def test_a_flood_of_bad_rows_keeps_few_samples_and_none_of_their_control_characters(tmp_path: Path) -> None:
    read = load(tmp_path, [GOOD, *[{"messages": [{"role": "\x1b[2Jevil\u202e" * 100, "content": "x"}]}] * 50])
    (samples,) = read.ledger.samples.values()
    assert len(samples) == 3 and read.ledger.dropped["unknown role"] == 50
    assert all(sample.isprintable() and len(sample) <= 160 for sample in samples)


def test_typed_parts_tools_and_other_keys_survive(tmp_path: Path) -> None:
    call = {"function": {"name": "add", "arguments": {"a": 1}}}
    turns = [
        {"role": "developer", "content": "S"},
        {"role": "human", "content": [{"type": "text", "text": "Q"}, {"type": "text", "text": "!"}]},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "function", "name": "add", "content": "2"},
        {"role": "Assistant", "content": "A", "reasoning_content": "hm", "weight": 1},
        {"role": "user", "content": "never answered"},
    ]
    (messages,) = (conversation.messages() for conversation in load(tmp_path, [{"messages": turns}]).conversations)
    assert messages == [
        {"role": "system", "content": "S"},
        {"role": "user", "content": "Q!"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "2", "name": "add"},
        {"role": "assistant", "content": "A", "reasoning_content": "hm"},
    ]


def test_nothing_to_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="is empty"):
        load(tmp_path, [])
    with pytest.raises(RequestError, match=r"rows.jsonl:1, is not valid JSON"):
        load(tmp_path, ["{", "{"])


def test_languages_by_column_fold_and_filter(tmp_path: Path) -> None:
    rows = [{"text": code, "lang": code} for code in ("en", "pt-BR", "pt", "en_GB", "uk-UA")] + [{"text": "?", "lang": None}]
    read = load(tmp_path, rows, languages=["pt", "uk"])
    assert [conversation.text() for conversation in read.conversations] == ["pt-BR", "pt", "uk-UA"]
    assert read.languages == {"en": 2, "pt": 2, "uk": 1, "unknown": 1}
    assert read.ledger.dropped == {"another language": 3} and read.ledger.bad == 0
    assert "[en]: en" in read.ledger.samples["another language"][0]
    assert len(load(tmp_path, rows).conversations) == 6


def test_languages_are_read_from_the_whole_conversation(tmp_path: Path) -> None:
    rows = [
        {"prompt": "Wie heißt die Hauptstadt von Frankreich, und wie viele Menschen leben dort?", "completion": "print('Paris')"},
        {"prompt": "What is the capital of France, and how many people live there?", "completion": "print('Paris')"},
    ]
    read = load(tmp_path, rows, languages=["de"])
    assert read.languages == {"de": 1, "en": 1} and contents(read)[0][0][1].startswith("Wie")
    assert not load(tmp_path, rows).languages  # nobody asked
    assert load(tmp_path, rows, language_column="detect").languages == {"de": 1, "en": 1}


def test_max_rows_follow_the_seed(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.jsonl", [{"text": f"T{n}"} for n in range(100)])

    def chosen(seed: int) -> list[str]:
        return [item.text() for item in read_all(Data(source=str(path), max_rows=10), seed=seed).conversations]

    assert chosen(1) == chosen(1) != chosen(2)
    assert len(chosen(1)) == 10 and chosen(1) == sorted(chosen(1), key=lambda text: int(text[1:]))


def test_tools_and_calls_of_every_spelling(tmp_path: Path) -> None:
    """A call written as JSON in a string, as sharegpt's function_call, and OpenAI's form become the one that templates read."""
    tool = {"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}}}}
    call = {"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}
    openai = [
        {"role": "user", "content": "1?"},
        {"role": "assistant", "content": None, "tool_calls": [{**call, "function": {"name": "add", "arguments": '{"a": 1}'}, "id": None}]},
        {"role": "tool", "content": "1", "tool_call_id": "x"},
        {"role": "assistant", "content": "One.", "tool_calls": None},
    ]
    shared = [
        {"from": "human", "value": "1?"},
        {"from": "function_call", "value": '{"name": "add", "arguments": {"a": 1}}'},
        {"from": "observation", "value": "1"},
        {"from": "gpt", "value": "One."},
    ]
    rows = [{"messages": openai, "tools": [tool]}, {"messages": openai, "tools": json.dumps([tool])}]
    for read in (load(tmp_path, rows), load(tmp_path, [{"conversations": shared, "tools": json.dumps([tool])}])):
        for conversation in read.conversations:
            assert conversation.tools == (tool,)
            assert [turn.role for turn in conversation.turns] == ["user", "assistant", "tool", "assistant"]
            assert conversation.turns[1].extra == {"tool_calls": [call]} and conversation.turns[3].extra == {}
    table = {"messages": openai, "tools": [{"type": "function", "function": {"name": "add", "parameters": None}}]}
    assert load(tmp_path, [table]).conversations[0].tools == ({"type": "function", "function": {"name": "add"}},), "a table's nulls are no keys"
    bad = [
        ({"messages": openai, "tools": "{"}, "tools are not valid JSON"),
        ({"messages": openai, "tools": "3"}, "tools are not a list of definitions"),
        ({"messages": [openai[0], {"role": "assistant", "content": "", "tool_calls": "add"}]}, "calls are not a list"),
        ({"messages": [openai[0], {"role": "function_call", "content": "add(1)"}]}, "a call is not valid JSON"),
        ({"messages": [openai[0], {"role": "assistant", "content": "", "tool_calls": [{"id": "1"}]}]}, "a call names no function"),
    ]
    read = load(tmp_path, [rows[0], *(row for row, _ in bad)])
    assert dict(read.ledger.dropped) == {reason: 1 for _, reason in bad}


def test_the_history_of_alpaca_rows_comes_before_the_question(tmp_path: Path) -> None:
    row = {"instruction": "Q2", "input": "", "output": "A2", "system": "S", "history": [["Q1", "A1"]]}
    read = load(tmp_path, [row, {**row, "history": None}, {**row, "history": [["alone"]]}, {**row, "history": [["Q", 1]]}])
    assert contents(read)[0] == [("system", "S"), ("user", "Q1"), ("assistant", "A1"), ("user", "Q2"), ("assistant", "A2")]
    assert contents(read)[1] == [("system", "S"), ("user", "Q2"), ("assistant", "A2")]
    assert dict(read.ledger.dropped) == {"history is not a list of pairs": 1, "history is not text": 1}


@pytest.mark.parametrize(
    ("row", "part", "choices"),
    [
        ({"prompt": "Q", "answer": "A", "response": "B"}, "completion", ["response", "answer"]),
        ({"prompt": "Q", "question": "Q?", "answer": "A"}, "prompt", ["prompt", "question"]),
        ({"instruction": "Q", "input": "", "context": "", "output": "A"}, "input", ["input", "context"]),
        ({"frage": "Q", "antwort": "A"}, "format", list(formats.PARTS)),
    ],
)
def test_what_only_a_person_can_tell_is_asked_with_the_choices(tmp_path: Path, row: dict[str, Any], part: str, choices: list[str]) -> None:
    with pytest.raises(ChoiceError) as error:
        load(tmp_path, [row])
    asked = error.value
    assert (asked.part, asked.choices, asked.columns, asked.rows) == (part, choices, list(row), [row])
    assert asked.problems[0].hint
    if part != "format":
        assert load(tmp_path, [row], columns={part: choices[1]}).found.columns[part] == choices[1]


def test_confidence_is_the_share_of_the_first_rows_that_fit(tmp_path: Path) -> None:
    assert load(tmp_path, [GOOD] * 4).confidence == 1
    assert load(tmp_path, [GOOD] * 3 + [{"messages": None}]).confidence == 0.75
    assert load(tmp_path, [{"instruction": None, "output": "A"}] * 2 + [{"instruction": "Q", "output": "A"}] * 2).confidence == 0.5


def test_two_questions_in_a_row_are_noted_and_used(tmp_path: Path) -> None:
    read = load(tmp_path, [{"messages": [TURNS[0], *TURNS]}, GOOD])
    assert len(read.conversations) == 2 and read.ledger.noted == {"two turns of one side in a row": 1}
    assert read.ledger.samples["two turns of one side in a row"] == ["rows.jsonl:1"]


def test_detected_languages_are_remembered_for_the_dataset(tmp_path: Path, tui_ft_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"text": f"Das ist der Satz Nummer {n} in einem deutschen Text."} for n in range(20)]
    rows += [{"text": f"This is sentence number {n} of an English text."} for n in range(30)] + [{"text": "12 34"}] * 3
    first = load(tmp_path, rows, languages=["de"])
    assert len(first.conversations) == 20 and first.languages["en"] == 30 and first.language_source == "detected"
    sample = first.ledger.samples["another language"][0]
    assert re.match(r"rows.jsonl:21 \[en [01]\.\d\d\]: This is", sample), sample

    detected: list[str] = []
    monkeypatch.setattr(language, "detect", lambda text: detected.append(text) or ("en", 1.0))
    again = load(tmp_path, rows, languages=["en"])
    assert not detected and again.languages == first.languages and len(again.conversations) == 30
    (stored,) = (tui_ft_home / "cache" / "languages").iterdir()
    assert stored.stat().st_mode & 0o077 == 0
    load(tmp_path, [*rows, {"text": "Encore une phrase."}], languages=["en"])
    assert len(set(detected)) == 52, "another file is another dataset"
    for damage in (b"", b"PK\x03\x04 no archive", stored.read_bytes()[:-200]):
        stored.write_bytes(damage)
        detected.clear()
        assert len(load(tmp_path, rows, languages=["en"]).conversations) == 53 and detected, "a damaged memory is made anew"


def test_languages_of_a_row_may_be_many(tmp_path: Path) -> None:
    rows = [{"text": code, "lang": code} for code in ("en", "de", "fr", "pt-BR")]
    assert [item.text() for item in load(tmp_path, rows, languages=["pt", "fr"]).conversations] == ["fr", "pt-BR"]
