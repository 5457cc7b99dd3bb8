"""The preview: the shape that other programs rely on, from a sample of large files, harmless and honest."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from data_material import byte_tokenizer, chats, recipe, write_rows

from tui_ft.data import prepare, preview, tokenizer
from tui_ft.errors import RequestError
from tui_ft.text import visible

HOSTILE = "\x1b]52;c;ZXZpbA==\x07\x1b[2J[red]markup[/red]\u202egnp.exe\x00\x9b31m\u2028"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return byte_tokenizer(tmp_path_factory.mktemp("model"), unk="<unk>")


def test_the_json_shape(tmp_path: Path, model: Path) -> None:
    rows = [{**row, "lang": "en"} for row in chats(5)]
    shown = preview.preview(recipe(model, write_rows(tmp_path / "a.jsonl", rows)), n=2).model_dump(mode="json")
    assert (shown["sampled"], shown["rows"], shown["kept"], shown["dropped"], shown["languages"]) == (
        None,
        5,
        5,
        {},
        {"en": 5},
    )
    (warning,) = shown["warnings"]
    assert warning.startswith("the template's markers are not tokens of this model")
    assert set(shown["lengths"]) == {"mean", "p50", "p95", "max", "truncated", "answer_lost"}
    assert len(shown["samples"]) == len(shown["rows_shown"]) == 2
    sample = shown["samples"][0]
    assert {"text", "tokens"} <= set(sample) and {"id", "text", "learned"} <= set(sample["tokens"][0])
    assert "".join(token["text"] for token in sample["tokens"]) == sample["text"]
    assert "".join(token["text"] for token in sample["tokens"] if token["learned"]) == "Answer 0</s>"
    assert (shown["format"], shown["columns"], shown["column_parts"], shown["refusals"]) == (
        "messages",
        ["messages", "lang"],
        {"messages": "messages"},
        [],
    )


def test_preview_and_training_take_one_road(tmp_path: Path, model: Path) -> None:
    for sections in ({}, {"prompt": {"max_length": 75}}, {"prompt": {"template": "alpaca", "learn": "all"}}):
        wanted = recipe(model, write_rows(tmp_path / "a.jsonl", [*chats(20), *chats(3, answer="Long " * 20)]), **sections)
        shown = preview.preview(wanted, n=100)
        prepared = prepare.prepare(wanted, tokenizer.load(wanted.model, wanted.prompt))
        assert [[token.id for token in sample.tokens] for sample in shown.samples] == [row["input_ids"] for row in prepared.train]
        assert [[token.learned for token in sample.tokens] for sample in shown.samples] == [
            [label != -100 for label in row["labels"]] for row in prepared.train
        ]
        assert shown.lengths == prepared.report.lengths and shown.kept == prepared.report.kept


def test_blocks_of_text_are_shown_as_they_train(tmp_path: Path, model: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", [{"text": "Some words."}] * 100)
    wanted = recipe(model, path, prompt={"template": "text", "overlong": "split", "max_length": 32})
    shown = preview.preview(wanted, n=3)
    prepared = prepare.prepare(wanted, tokenizer.load(wanted.model, wanted.prompt))
    assert shown.kept == prepared.report.kept
    assert [sample.text for sample in shown.samples] == [
        "Some words.</s>Some words.</s>Some wor",
        "ds.</s>Some words.</s>Some words.</s>Some",
        " words.</s>Some words.</s>Some words.</s>",
    ]


def test_a_large_file_is_judged_by_a_sample(tmp_path: Path, model: Path) -> None:
    wanted = recipe(model, write_rows(tmp_path / "a.jsonl", chats(6000)))
    quick, exact = preview.preview(wanted), preview.preview(wanted, exact=True)
    assert (quick.sampled, quick.rows, quick.kept) == (1000, 1000, 1000)
    assert (exact.sampled, exact.rows, exact.kept) == (None, 6000, 6000)
    assert quick.samples == exact.samples


def test_what_a_start_would_refuse_is_told_not_raised(tmp_path: Path, model: Path) -> None:
    bad = preview.preview(recipe(model, write_rows(tmp_path / "a.jsonl", [*chats(3), {"messages": None}])))
    assert bad.kept == 3 and "1 of 4 rows are unusable" in bad.refusals[0] and "a.jsonl:4" in bad.refusals[0]
    lost = preview.preview(recipe(model, tmp_path / "a.jsonl", data={"max_bad_rows": 0.5}, prompt={"max_length": 20}))
    assert lost.kept == 0 and lost.samples == [] and lost.lengths.answer_lost == 3 and "no sample is left" in lost.refusals[0]
    with pytest.raises(RequestError):
        preview.preview(recipe(model, tmp_path / "missing.jsonl"))


def test_a_base_model_without_a_template_hides_nothing_of_the_data(tmp_path: Path, model: Path) -> None:
    rows = [{**row, "lang": "en"} for row in chats(3)]
    shown = preview.preview(recipe(model, write_rows(tmp_path / "a.jsonl", rows), prompt={"template": "model"}))
    assert (shown.format, shown.kept, shown.languages, shown.samples, shown.length_table) == ("messages", 3, {"en": 3}, [], [])
    assert [(finding.severity, finding.where) for finding in shown.findings] == [("error", "prompt.template")]
    assert "no chat template of its own" in shown.refusals[0] and "chatml" in shown.refusals[0]


def test_samples_on_the_shelf_are_the_samples(tmp_path: Path, model: Path) -> None:
    wanted = recipe(model, write_rows(tmp_path / "a.jsonl", [*chats(5), *chats(1, answer="long " * 40)]), prompt={"max_length": 100})
    shown = preview.preview(wanted, n=6, shelf=tmp_path / "shelf")
    content = (tmp_path / "shelf").read_bytes()
    lines = [json.loads(content[entry.offset : entry.offset + entry.size]) for entry in shown.shelf]
    assert [preview.PreviewSample.model_validate(line) for line in lines] == shown.samples and len(lines) == 6
    assert [entry.truncated for entry in shown.shelf] == [False] * 5 + [True] and lines[5]["length"] > 100 == shown.shelf[5].tokens
    kinds = {token["text"]: token["kind"] for token in lines[0]["tokens"]}
    assert kinds["</s>"] in ("eos", "end") and kinds["A"] == "" and lines[0]["origin"] == "a.jsonl:1"


def test_hostile_text_is_carried_whole_and_shown_harmlessly(tmp_path: Path, model: Path) -> None:
    rows = [{"messages": [{"role": "user", "content": HOSTILE}, {"role": "assistant", "content": HOSTILE * 2}], "lang": HOSTILE, HOSTILE: HOSTILE}]
    shown = preview.preview(recipe(model, write_rows(tmp_path / "a.jsonl", rows)))
    assert "".join(token.text for token in shown.samples[0].tokens if token.learned) == HOSTILE * 2 + "</s>"
    assert json.dumps(shown.model_dump(mode="json")).isprintable()
    for row in shown.rows_shown:
        assert all(text == visible(text) and "\n" not in text for pair in row.items() for text in pair)


def test_half_a_character_is_a_bad_row(tmp_path: Path, model: Path) -> None:
    """JSON can write one, and no tokenizer, terminal or file takes it."""
    rows = [
        '{"prompt": "a\\ud800", "completion": "b"}',
        '{"prompt": "a", "completion": "b\\udfff", "lang": "\\ud800"}',
        *({"prompt": "Q", "completion": "A"},) * 3,
    ]
    for columns in ({}, {"language_column": "detect"}):
        wanted = recipe(model, write_rows(tmp_path / "a.jsonl", rows), data={"max_bad_rows": 0.5, **columns})
        shown = preview.preview(wanted)
        assert shown.kept == 3 and shown.dropped == {"half a character (a lone surrogate)": 2}
        assert json.dumps(shown.model_dump(mode="json")).isascii()
        assert prepare.prepare(wanted, tokenizer.load(wanted.model, wanted.prompt)).report.bad_rows == 2
    code, told = child(wanted.model_dump_json(), "--shelf", str(tmp_path / "shelf"))
    assert code == 0 and told["kept"] == 3


def test_a_huge_row_stays_small_in_view(tmp_path: Path, model: Path) -> None:
    rows = [{"prompt": "short", "completion": "word " * 100_000}, *({"prompt": "Q", "completion": "A"} for _ in range(3))]
    shown = preview.preview(recipe(model, write_rows(tmp_path / "a.jsonl", rows), prompt={"max_length": 64}))
    assert shown.lengths.max > 500_000 and len(shown.samples[0].tokens) == 64 and shown.lengths.truncated == 1
    assert len(shown.model_dump_json()) < 20_000


def child(text: str, *arguments: str) -> tuple[int, Any]:
    done = subprocess.run([sys.executable, "-m", "tui_ft.data.preview", *arguments], input=text, capture_output=True, text=True, timeout=120)
    return done.returncode, json.loads(done.stdout.splitlines()[-1])


def test_the_child_process(tmp_path: Path, model: Path) -> None:
    wanted = recipe(
        model,
        write_rows(tmp_path / "a.jsonl", [*chats(3), {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": HOSTILE}]}]),
    )
    code, shown = child(wanted.model_dump_json(), "-n", "4")
    assert code == 0 and shown == preview.preview(wanted, n=4).model_dump(mode="json")


@pytest.mark.parametrize("broken", ["not JSON", '{"model": {"name": "x"}}', "missing"])
def test_the_child_says_errors_as_json(tmp_path: Path, model: Path, broken: str) -> None:
    text = recipe(model, tmp_path / "missing.jsonl").model_dump_json() if broken == "missing" else broken
    code, shown = child(text)
    assert code == 2 and set(shown) == {"error", "hint"} and shown["error"]
