"""A large source: the first rows at once, all of them counted behind the screen, stopped by a key, nothing left behind."""

from __future__ import annotations

import json
import os
from pathlib import Path

import psutil
from data_material import write_rows
from test_tui_wizard_samples import draft_of
from test_tui_wizard_screen import open_wizard, texts, until
from textual.widgets import Static

from tui_ft import home
from tui_ft.data.preview import WHOLE_ROWS
from tui_ft.tui.app import TuiFtApp
from tui_ft.tui.wizard.lengths import LengthPanel
from tui_ft.tui.wizard.screen import WizardScreen

ROWS = WHOLE_ROWS + 3000


def rows(count: int) -> list[object]:
    return [{"prompt": f"question {n}", "completion": "answer " * (1 + n % 40)} for n in range(count)]


def children() -> list[str]:
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            found.append(" ".join(process.cmdline()))
        except psutil.Error:  # it ended meanwhile
            continue
    return [line for line in found if "tui_ft.data.preview" in line]


def title(screen: WizardScreen) -> str:
    return str(screen.query_one(LengthPanel).border_title)


async def test_the_count_of_all_rows_takes_the_place_of_the_sample(tmp_path: Path) -> None:
    draft_of(tmp_path, rows(ROWS))
    app = TuiFtApp()
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await open_wizard(pilot, app)
        await pilot.press("4")
        found = screen.backstage.preview
        await until(pilot, lambda: found.value is not None and screen.backstage.exact.busy)
        assert found.value is not None and found.value.sampled == 1000 and "the first 1,000 rows (counting the rest)" in title(screen)
        assert screen.backstage.data_facts(screen.recipe_now()).rows is None  # type: ignore[arg-type, union-attr]
        await until(pilot, lambda: "counting all rows" in str(screen.query_one("#nav-note", Static).content))
        await pilot.press("-")  # the maximum moves meanwhile: the table is still this one's
        await until(pilot, lambda: "all rows" in title(screen) and not screen.backstage.exact.busy and not found.busy, 120)
        await until(pilot, lambda: found.value is not None and found.value.sampled is None and not screen.backstage.exact.busy, 120)
        assert found.value is not None and found.value.kept == ROWS == sum(count for _, _, count in found.value.length_table)
        assert screen.backstage.data_facts(screen.recipe_now()).rows  # type: ignore[arg-type, union-attr]
        assert len(list((home.cache_folder() / "preview").glob("*/*.jsonl"))) == 1  # the sample's own shelf went with it
    assert list((home.cache_folder() / "preview").iterdir()) == []


async def test_a_key_stops_the_count_and_it_stays_stopped_until_the_data_change(tmp_path: Path) -> None:
    draft_of(tmp_path, rows(ROWS))
    other = write_rows(tmp_path / "other.jsonl", [json.dumps(row) for row in rows(ROWS + 1)])
    app = TuiFtApp()
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await open_wizard(pilot, app)
        await pilot.press("4")
        found, exact = screen.backstage.preview, screen.backstage.exact
        await until(pilot, lambda: exact.busy and bool(children()))
        assert "x stops" in texts(app)
        await pilot.press("x")
        await until(pilot, lambda: not exact.busy and not children())
        await pilot.press("-")
        await until(pilot, lambda: found.busy)
        await until(pilot, lambda: not found.busy)
        assert not exact.busy and found.value is not None and found.value.sampled == 1000
        await pilot.press("x")  # pressed again it counts after all
        await until(pilot, lambda: exact.busy and bool(children()))
        screen.draft.put("data.source", str(other))
        screen.refresh_soon()
        await until(pilot, lambda: found.busy)
        assert not exact.busy  # what is counted no longer is what is asked for
        await pilot.press("x")  # the look itself is stopped
        await until(pilot, lambda: found.stopped and not children())
        assert "x looks again" in texts(app)
        await pilot.press("x")
        await until(pilot, lambda: exact.busy)  # looked again, and counts by itself: these are other data
    assert not children()


async def test_leaving_the_wizard_ends_the_count(tmp_path: Path) -> None:
    draft_of(tmp_path, rows(ROWS))
    app = TuiFtApp()
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await open_wizard(pilot, app)
        await until(pilot, lambda: screen.backstage.exact.busy and bool(children()))
        counted = next(process for process in psutil.Process().children() if "--exact" in process.cmdline())
        await until(pilot, lambda: counted.nice() > os.nice(0))  # it gives way to whatever a person does
        await pilot.press("escape")
        await until(pilot, lambda: not isinstance(app.screen, WizardScreen) and not children())
        assert list((home.cache_folder() / "preview").iterdir()) == []
