"""Samples token by token: marked without colour, harmless whatever they hold, walked through from the shelf."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from data_material import byte_tokenizer, write_rows
from rich.cells import cell_len
from test_tui_wizard_screen import open_wizard, texts, until
from textual.widgets import Static

from tui_ft import home
from tui_ft.data.preview import PreviewSample, Shelved, Token, write_shelf
from tui_ft.runs import identity
from tui_ft.tui.app import TuiFtApp
from tui_ft.tui.draft import Draft
from tui_ft.tui.widgets.token_view import TokenView, lay_out
from tui_ft.tui.wizard import shelf
from tui_ft.tui.wizard.samples import places
from tui_ft.tui.wizard.screen import WizardScreen
from tui_ft.tui.wizard.shelf import Shelf

HOSTILE = "[/INST] [bold red]row[/] [@click=app.quit]x[/] \x1b]0;owned\x07\x1b[31m\u202e\x00\u2028"


def tokens(*parts: tuple[str, bool, str]) -> list[Token]:
    return [Token(id=number, text=text, learned=learned, kind=kind) for number, (text, learned, kind) in enumerate(parts)]


def test_what_is_learned_and_what_is_special_is_marked_without_colour() -> None:
    shown = lay_out(
        tokens(("<s>", False, "bos"), ("Hi\n", False, ""), ("Yes", True, ""), (".", True, ""), ("</s>", True, "eos"), ("\n", False, "")), 60
    )
    rows = ["".join(text for text, _ in row) for row in shown.rows]
    assert rows == ["‹BOS›<s>Hi⏎", "⟦Yes.‹EOS›</s>⟧⏎", ""]
    roles = {text: role for row in shown.rows for text, role in row}
    assert (roles["Hi⏎"], roles["Yes"], roles["."]) == ("given-odd", "learned-even", "learned-odd")  # neighbours have different shades
    assert "".join(text for text, _ in lay_out(tokens(("a", False, ""), ("b", False, "")), 60, boundaries=True).rows[0]) == "a·b"


@pytest.mark.parametrize("width", [1, 2, 7, 60])
def test_no_row_is_wider_than_the_screen_and_nothing_in_it_is_obeyed(width: int) -> None:
    odd = tokens((HOSTILE, True, ""), ("日本語のテキスト", False, ""), ("", False, ""), ("\t", False, "end"), ("e\u0301👩‍👩‍👧" * 30, True, "what?"))
    page = lay_out(odd, width)
    for row in page.rows:
        assert cell_len("".join(text for text, _ in row)) <= width
        assert not any(char in text for text, _ in row for char in "\x1b\x07\x00\u202e\u2028\n\t")


def test_a_token_of_ten_million_characters_is_shown_in_part() -> None:
    page = lay_out(tokens(("x" * 10_000_000, True, "")), 80)
    assert len(page.rows) < 10 and "…(+9,999,600)" in "".join(text for row in page.rows for text, _ in row)


def test_a_search_marks_every_token_that_shares_in_a_find() -> None:
    found = places(tokens(("the photo", False, ""), ("Syn", False, ""), ("thesis", True, ""), (" PHOTOSYNTHESIS", True, "")), "photosyn")
    assert found == {0, 1, 3}
    assert places(tokens(("a", True, "")), "") == set()


def shelved(file: Path, *samples: str) -> list[Shelved]:
    return write_shelf(file, (PreviewSample(text=text, tokens=tokens((text, True, "")), origin=f"row {n}") for n, text in enumerate(samples)))


def test_a_shelf_gives_each_sample_back_and_finds_texts_in_any_case(tmp_path: Path) -> None:
    file = tmp_path / "shelf.jsonl"
    entries = shelved(file, "First", HOSTILE, "größe \U0001f600", 'quote " and \\ {"text": "FIRST"}')
    assert [shelf.read(file, entry).text for entry in entries][1] == HOSTILE
    assert shelf.read(file, entries[3]).origin == "row 3"
    assert shelf.search(file, entries, "first") == [0, 3]
    assert shelf.search(file, entries, "GRÖSSE") == [2] and shelf.search(file, entries, "\x1b[31m") == [1]
    assert shelf.search(file, entries, "row 0") == []  # the text is searched, not what is written around it


def test_what_a_killed_wizard_left_is_removed_by_the_next_one_and_a_living_one_keeps_its_own() -> None:
    mine, other = Shelf(), Shelf()
    kept = mine.new_file()
    kept.write_text("{}", encoding="utf-8")
    dead = home.cache_folder() / "preview" / "dead"
    dead.mkdir()
    gone = identity.of(os.getpid()).model_copy(update={"start_ticks": "gone"})
    (dead / "owner.json").write_text(gone.model_dump_json(), encoding="utf-8")
    (dead / "1.jsonl").write_text("a private row", encoding="utf-8")
    other.new_file()
    assert not dead.exists() and kept.exists()
    assert kept.parent.stat().st_mode & 0o777 == 0o700
    mine.close()
    other.close()
    assert list((home.cache_folder() / "preview").iterdir()) == []


def draft_of(tmp_path: Path, rows: list[object], **prompt: str) -> Draft:
    """A draft on a tokenizer in which every byte is a token, with plain ChatML."""
    draft = Draft.of_preset("demo")
    model = byte_tokenizer(tmp_path / "model", bos="<s>")
    for key, text in {"model.name": str(model), "data.source": str(write_rows(tmp_path / "rows.jsonl", rows)), "data.format": "auto"}.items():
        draft.type(key, text)
    for key, text in {"data.languages": "", "data.max_bad_rows": "0.9", "prompt.template": "chatml", "prompt.max_length": "512", **prompt}.items():
        draft.type(key if "." in key else f"prompt.{key}", text)
    draft.keep()
    return draft


async def test_hostile_rows_are_walked_through_and_searched_by_key(tmp_path: Path) -> None:
    rows: list[object] = [{"prompt": f"question {n}", "completion": f"answer {n}"} for n in range(30)]
    rows[3] = {"prompt": HOSTILE, "completion": f"{HOSTILE} needle [/x]"}
    rows[0] = {**rows[0], "notes": "[/x] " * 2_000_000}  # type: ignore[dict-item]  # ten million characters in a cell that is shown
    rows[7] = {"prompt": "long", "completion": "w" * 300_000}
    rows[9] = {"prompt": "Q", "completion": "NEEDLE"}
    rows[11] = {HOSTILE: HOSTILE}
    draft_of(tmp_path, [json.dumps(row) for row in rows])
    app = TuiFtApp()
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        screen = await open_wizard(pilot, app)
        await pilot.press("2")
        found = screen.backstage.preview
        await until(pilot, lambda: screen.at == 1 and bool(found.value or found.error))
        assert found.error == ""
        await harmless(app, screen)
        await pilot.press("4")
        await until(pilot, lambda: head(screen).startswith("sample 1 of 29"))
        for key, begins in (
            ("n", "sample 2 of"),
            ("right", "sample 3 of"),
            ("p", "sample 2 of"),
            ("end", "sample 29 of"),
            ("home", "sample 1 of"),
            *[("right", f"sample {number} of") for number in (2, 3, 4)],
            ("T", "sample 8 of"),
            ("S", "sample 10 of"),
            ("L", "sample 8 of"),
        ):
            await pilot.press(key)
            await until(pilot, lambda begins=begins: head(screen).startswith(begins))
            await harmless(app, screen)
        assert "512 of 3" in head(screen) and "rows.jsonl:8" in head(screen)
        await pilot.press("home", "slash", *"needle", "enter")
        await until(pilot, lambda: '"needle": 1 of 2' in head(screen))
        await pilot.press("n")
        await until(pilot, lambda: head(screen).startswith("sample 10 of 29") and '"needle": 2 of 2' in head(screen))
        await pilot.press("slash", *[*["backspace"] * 6, *HOSTILE[:7]], "enter")
        await until(pilot, lambda: '"[/INST]"' in head(screen))
        await harmless(app, screen)
        await pilot.press("slash", *["backspace"] * 7, "enter", "n")
        await until(pilot, lambda: '"' not in head(screen))
        await pilot.press("7")
        await until(pilot, lambda: screen.at == 6 and "warning" in texts(app))
        await harmless(app, screen)
        assert app.is_running
    assert not any((home.cache_folder() / "preview").iterdir())  # rows of a private dataset stay nowhere


def head(screen: WizardScreen) -> str:
    return str(screen.query_one("#sample-head", Static).content)


async def harmless(app: TuiFtApp, screen: WizardScreen) -> None:
    shown = texts(app) + "".join(row for view in screen.query(TokenView) for row in view.rows_as_text())
    assert not any(char in shown for char in "\x1b\x07\x00\u202e\u2028\ud800")


async def test_escape_sequences_in_tokens_reach_no_terminal(tmp_path: Path) -> None:
    """The strips that are sent to the terminal, not the text they were made from."""
    app = TuiFtApp()
    async with app.run_test(size=(40, 10)) as pilot:
        view = TokenView()
        await app.screen.mount(view)
        view.show(tokens((HOSTILE * 3, True, "eos"), (json.dumps(HOSTILE), False, "")))
        await pilot.pause()
        assert "␛]0;owned␇" in "".join(view.rows_as_text()) and "\x1b" not in texts(app)
        view.focus()
        await pilot.press("j", "down", "pagedown", "k", "up", "pageup", "space")
        assert "\x1b" not in texts(app)


async def test_learned_tokens_look_different_in_colour_and_without() -> None:
    app = TuiFtApp()
    async with app.run_test(size=(40, 10)) as pilot:
        view = TokenView()
        await app.screen.mount(view)
        view.show(tokens(("yes", True, ""), ("no", False, "")))
        await pilot.pause()
        looks = {segment.text: segment.style for segment in view.render_line(0)}
        learned, given = looks["yes"], looks["no"]
        assert learned and given and learned.color != given.color and learned.bgcolor != given.bgcolor
        assert learned.underline and not given.underline


async def test_a_long_sample_scrolls_and_loses_no_column_at_any_width() -> None:
    app = TuiFtApp()
    async with app.run_test(size=(40, 10)) as pilot:
        view = TokenView()
        await app.screen.mount(view)
        text = "".join(f"{number:>4}" for number in range(500))
        view.show(tokens(*((text[at : at + 3], True, "") for at in range(0, len(text), 3))))
        for width in (40, 23):
            await pilot.resize_terminal(width, 10)
            await until(pilot, lambda: "".join(view.rows_as_text())[1:-1] == text and view.max_scroll_y > 40)
            assert max(map(len, view.rows_as_text())) <= view.scrollable_content_region.width
        view.scroll_end(animate=False)
        await until(pilot, lambda: "499⟧" in texts(app))
