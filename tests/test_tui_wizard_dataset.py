"""The dataset step: what is offered, what is asked where the data leave it open, columns mapped by hand, rows that fall away."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from data_material import byte_tokenizer, write_rows
from test_tui_wizard_screen import open_wizard, texts, until
from textual.widgets import Button, Select, Static

from tui_ft.tui.app import TuiFtApp
from tui_ft.tui.draft import Draft
from tui_ft.tui.widgets.choice import Choice
from tui_ft.tui.wizard.columns import ColumnsScreen
from tui_ft.tui.wizard.finding import Finding
from tui_ft.tui.wizard.offers import Choices, Offers, local_files, question_of
from tui_ft.tui.wizard.screen import WizardScreen
from tui_ft.tui.wizard.step import Shown

HOSTILE = "[/INST] [red]x[/]\x1b]0;owned\x07\u202e"


def draft_of(tmp_path: Path, source: str = "") -> Draft:
    draft = Draft.empty()
    for key, text in {"model.name": str(byte_tokenizer(tmp_path / "model")), "data.source": source, "prompt.template": "chatml"}.items():
        draft.type(key, text)
    draft.keep()
    return draft


async def test_a_file_of_this_folder_is_taken_and_its_ambiguous_columns_are_asked_about(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_rows(tmp_path / "rows.jsonl", [{"instruction": "Why?", "response": f"Because {n} {HOSTILE}", "output": "42"} for n in range(40)])
    draft_of(tmp_path)
    app = TuiFtApp()
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await open_wizard(pilot, app)
        await pilot.press("f8")
        await until(pilot, lambda: screen.at == 1 and "./rows.jsonl" in texts(app))
        await pilot.press("tab", "enter")  # from the field to the list
        assert screen.draft.value("data.source") == "./rows.jsonl" and not screen.query_one(Offers).display
        await until(pilot, lambda: "Which column is the answer?" in texts(app))
        assert "response" in texts(app) and "Because 0 [/INST]" in texts(app) and "\x1b" not in texts(app)
        await until(pilot, lambda: bool(screen.query("#answers:focus")))  # nobody was typing
        await pilot.press("j", "enter")
        await until(pilot, lambda: bool(screen.draft.value("data.columns")))
        assert screen.draft.value("data.columns") == {"output": "response"}
        await until(pilot, lambda: "every one of the first rows fits" in texts(app))
        assert not screen.query_one(Choices).display and "alpaca" in texts(app)


async def test_columns_are_mapped_by_hand_with_the_conversation_in_sight(tmp_path: Path) -> None:
    source = write_rows(tmp_path / "rows.jsonl", [{"frage": f"Warum {n}?", "antwort": "Darum.", HOSTILE: HOSTILE} for n in range(20)])
    draft_of(tmp_path, str(source))
    app = TuiFtApp()
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await open_wizard(pilot, app)
        await pilot.press("2")
        await until(pilot, lambda: "How do these rows hold a conversation?" in texts(app))
        assert "frage" in str(screen.query_one("#dataset-rows Static", Static).content)  # what there is, is seen all the same
        screen.to_the_way_on()
        await pilot.press("c")
        await until(pilot, lambda: isinstance(app.screen, ColumnsScreen) and isinstance(app.focused, Choice))
        mapper = app.screen
        while mapper.query_one(Choice).value != "prompt-completion":
            await pilot.press("right")
        await until(pilot, lambda: bool(mapper.query("#part-prompt")))
        assert mapper.query_one("#take", Button).disabled and "Still to choose: prompt, completion" in texts(app)
        await pilot.press("tab", "enter", "down", "enter", "tab", "enter", "down", "down", "enter")
        await until(pilot, lambda: [select.value for select in mapper.query(Select)][:2] == [0, 1])
        await until(pilot, lambda: "Warum 0?" in texts(app) and "⟦Darum." in texts(app))
        assert "\x1b" not in texts(app)
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.screen, WizardScreen))
        assert screen.draft.value("data.format") == "auto" and screen.draft.value("data.columns") == {}
        await pilot.press("c")
        await until(pilot, lambda: isinstance(app.screen, ColumnsScreen) and isinstance(app.focused, Choice))
        mapper = app.screen
        while mapper.query_one(Choice).value != "prompt-completion":
            await pilot.press("right")
        await until(pilot, lambda: bool(mapper.query("#part-prompt")))
        mapper.query_one("#part-prompt", Select).value = 0
        mapper.query_one("#part-completion", Select).value = 1
        await until(pilot, lambda: not mapper.query_one("#take", Button).disabled)
        mapper.query_one("#take", Button).press()
        await until(pilot, lambda: isinstance(app.screen, WizardScreen))
        assert screen.draft.value("data.format") == "prompt-completion"
        assert screen.draft.value("data.columns") == {"prompt": "frage", "completion": "antwort"}
        await until(pilot, lambda: "all 20 rows: 20 samples kept" in texts(app))


async def test_rows_that_fall_away_are_told_by_reason_and_place_also_at_the_review(tmp_path: Path) -> None:
    rows: list[object] = [{"prompt": "q", "completion": f"a {n}"} for n in range(30)]
    rows[4], rows[9], rows[12] = {"prompt": HOSTILE, "completion": None}, '{"prompt": "cut off', rows[0]
    draft_of(tmp_path, str(write_rows(tmp_path / "rows.jsonl", rows)))
    app = TuiFtApp()
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await open_wizard(pilot, app)
        await pilot.press("2")
        await until(pilot, lambda: screen.backstage.preview.value is not None and bool(screen.query_one("#dataset-dropped", Shown).display))
        told = str(screen.query_one("#dataset-dropped Static", Static).content)
        assert "rows.jsonl:5" in told and "rows.jsonl:10" in told and "\x1b" not in told and "1 × " in told
        assert "samples repeat an earlier one exactly" in str(screen.query_one("#dataset-found", Static).content)
        await pilot.press("7")
        await until(pilot, lambda: "stops the start" in texts(app))
        checks = str(screen.query_one("#review-findings Static", Static).content)
        assert checks.index("✗ stops the start") < checks.index("! warning")  # errors first
        assert "rows.jsonl:5" in checks and "data.max_bad_rows" in checks and "\x1b" not in checks
        found = sum(finding.severity != "ok" for finding in screen.backstage.all_findings(screen.recipe_now()))
        assert found >= 2 and f"Review ({found})" in texts(app)
        assert "2 errors" in str(screen.query_one("#review-findings", Shown).border_title)


def test_choices_of_every_kind_become_a_question_and_nonsense_does_not() -> None:
    def asked(choices: object, **more: object) -> str:
        question = question_of(Finding(error="x", details={"choices": choices, **more}))
        return question.text if question else ""

    assert asked({"part": "config", "columns": ["en", "de"]}) == "Which configuration?"
    assert asked({"part": "split", "columns": ["train"]}) == "Which split to learn from?"
    assert asked({"part": "format", "columns": ["alpaca"]}) == "How do these rows hold a conversation?"
    assert asked({"part": "\x1b[31mfoo", "columns": ["a"]}) == "Which column is the ␛[31mfoo?"
    for nonsense in (None, [], "x", {}, {"part": "output"}, {"part": "output", "columns": "a"}):
        assert asked(nonsense, rows_shown=[3]) == ""
    assert question_of(Finding(busy=True, details={"choices": {"part": "split", "columns": ["train"]}})) is None


def test_files_offered_are_data_files_here_and_one_folder_below(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a.csv", "notes.md", ".hidden.json", "data/c.parquet", "data/deep/d.jsonl", "evil\x1b[31m.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(json.dumps(name), encoding="utf-8")
    assert [str(path) for path, _ in local_files(tmp_path)] == ["a.csv", "b.jsonl", "data/c.parquet"]
    assert local_files(tmp_path / "none") == []


async def test_datasets_of_the_hubs_cache_are_offered_beside_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    snapshot = tmp_path / "hub" / "datasets--org--chats" / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (snapshot / "train.jsonl").write_text("{}", encoding="utf-8")
    refs = snapshot.parent.parent / "refs"
    refs.mkdir()
    (refs / "main").write_text("a" * 40, encoding="utf-8")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    draft_of(tmp_path)
    app = TuiFtApp()
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await open_wizard(pilot, app)
        await pilot.press("f8")
        await until(pilot, lambda: screen.at == 1 and "org/chats" in texts(app))
        await pilot.press("tab", "G", "enter")
        assert screen.draft.value("data.source") == "org/chats"
