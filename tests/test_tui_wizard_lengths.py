"""The maximum length as a line that moves over the histogram, and what it costs, without asking a child."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from test_tui_wizard_samples import draft_of
from test_tui_wizard_screen import open_wizard, until
from textual.widgets import Static

from tui_ft.data.lengths import Entry, cut
from tui_ft.tui.app import TuiFtApp
from tui_ft.tui.widgets import length_chart
from tui_ft.tui.widgets.length_chart import LengthChart, top_of
from tui_ft.tui.widgets.raster import ASCII, BLOCKS, BRAILLE, Glyphs
from tui_ft.tui.wizard.lengths import LengthPanel, padding_fill, stepped
from tui_ft.tui.wizard.screen import WizardScreen

ENTRIES: list[Entry] = [(10, 4, 5), (100, 40, 50), (200, 40, 20), (900, 40, 1)]


def picture(entries: list[Entry], maximum: int, glyphs: Glyphs = BRAILLE, width: int = 60, height: int = 10) -> list[str]:
    return ["".join(text for text, _ in row) for row in length_chart.draw(entries, maximum, width, height, glyphs)]


def test_bars_stand_where_the_lengths_are_and_change_their_look_beyond_the_line() -> None:
    rows = picture(ENTRIES, 150)
    top = top_of(ENTRIES, 150)
    line, at_100, at_200 = 150 * 60 // top, 99 * 60 // top, 199 * 60 // top
    assert "150 tokens" in rows[0] and all(row[line] == "│" for row in rows[1:-1])
    assert rows[1][at_100] == "█" and all(char in " │" for char in rows[1][at_100 + 1 :])  # the highest bar reaches the top, alone
    assert {row[at_200] for row in rows[1:8]} == {" ", "▒"} or rows[7][at_200] == "▒"
    assert rows[7][59] != " "  # the one of 900 is beyond the axis, and counted at its end
    assert rows[-1].startswith("0 ")


@pytest.mark.parametrize("glyphs", [BRAILLE, BLOCKS, ASCII], ids=["braille", "blocks", "ascii"])
@pytest.mark.parametrize("size", [(8, 4), (61, 9), (1, 1), (200, 3)])
@pytest.mark.parametrize("entries", [[], [(1, 1, 1)], ENTRIES, [(100_000, 0, 10**9)]], ids=["none", "one", "some", "huge"])
def test_it_fits_any_size(glyphs: Glyphs, size: tuple[int, int], entries: list[Entry]) -> None:
    for maximum in (8, 150, 2**20):
        rows = picture(entries, maximum, glyphs, *size)
        assert len(rows) == size[1] and all(len(row) == size[0] for row in rows)
        assert glyphs is not ASCII or all(row.isascii() for row in rows)


def test_steps_are_round_and_lead_to_every_power_of_two() -> None:
    assert [stepped(maximum, True, False) for maximum in (256, 300, 512, 1000, 2048, 8192)] == [288, 320, 576, 1024, 2304, 9216]
    assert [stepped(maximum, False, False) for maximum in (256, 300, 512, 2048, 9)] == [240, 288, 480, 1920, 8]
    assert [stepped(maximum, True, True) for maximum in (256, 300)] == [512, 512]
    assert [stepped(maximum, False, True) for maximum in (256, 300, 8)] == [128, 256, 8]
    maximum, seen = 8, []
    while maximum < 2**16:
        seen.append(maximum)
        maximum = stepped(maximum, True, False)
    assert {2**power for power in range(3, 16)} <= set(seen)
    for here in seen[1:]:
        assert stepped(stepped(here, False, False), True, False) == here


def test_padding_is_forecast_as_drawing_batches_would_fill() -> None:
    assert padding_fill([], 100, "truncate", 8) == 0.0
    assert padding_fill(ENTRIES, 500, "truncate", 1) == pytest.approx(1.0)
    lengths = [min(length, 500) for length, _, count in ENTRIES for _ in range(count)]
    noise = random.Random(3)
    filled = padded = 0
    for _ in range(20_000):
        batch = noise.choices(lengths, k=4)
        filled, padded = filled + sum(batch), padded + 4 * max(batch)
    assert padding_fill(ENTRIES, 500, "truncate", 4) == pytest.approx(filled / padded, rel=0.02)
    assert padding_fill([(50, 10, 1), (900, 600, 99)], 500, "truncate", 4) == 1.0  # what loses its answer is not there to be padded


async def test_the_line_and_the_numbers_follow_each_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draft_of(tmp_path, [{"prompt": "q", "completion": "a" * number} for number in range(100, 500)])
    app = TuiFtApp()
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await open_wizard(pilot, app)
        await pilot.press("4")
        await until(pilot, lambda: screen.backstage.preview.value is not None and bool(screen.query_one(LengthPanel).display))
        monkeypatch.setattr(WizardScreen, "PAUSE", 3600.0)  # from here on nothing is asked of a child
        seen = screen.backstage.preview.value
        assert seen is not None and "all rows" in str(screen.query_one(LengthPanel).border_title)
        for key, maximum in (("-", 480), ("-", 448), ("<", 256), (">", 512), ("+", 576)):
            await pilot.press(key)
            assert screen.draft.value("prompt.max_length") == maximum
            at = cut(seen.length_table, maximum)
            facts = str(screen.query_one("#length-facts", Static).content)
            assert f"{at.kept:,} of 400" in facts and f"({at.too_long:,})" in facts
            assert f"{maximum:,} tokens" in screen.query_one(LengthChart).rows_as_text()[0]
        assert screen.query_one("#field-prompt-max_length").text == "576" and screen.touched  # type: ignore[attr-defined]
        await pilot.press("v", "v")
        await until(pilot, lambda: bool(screen.query("LengthChart:focus")))
        await pilot.press("left", "shift+right")
        assert screen.draft.value("prompt.max_length") == 1024
        await pilot.press("v")
        await until(pilot, lambda: bool(screen.query("Field Input:focus, Field Choice:focus")))
        screen.query_one("#field-prompt-max_length Input").focus()
        await pilot.press("end", "backspace", "backspace", "-")  # typed, not taken as a key
        assert screen.query_one("#field-prompt-max_length").text == "10-"  # type: ignore[attr-defined]
        assert "prompt.max_length" in screen.draft.problems
