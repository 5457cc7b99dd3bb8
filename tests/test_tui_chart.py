"""The loss chart: what its dots say is exactly what the numbers were."""

from __future__ import annotations

import math
from array import array
from itertools import pairwise

import pytest
from textual.app import App, ComposeResult

from tui_ft.runs import curves as curves_of_runs
from tui_ft.runs.curves import Curves
from tui_ft.tui.widgets import picture
from tui_ft.tui.widgets.loss_chart import LossChart, StepColumns, StepSparkline, diverged_at, domain_of
from tui_ft.tui.widgets.raster import ASCII, BLOCKS, BRAILLE, Columns, Glyphs, Grid, Scale, glyphs_for, levels, log_ticks, number, scale_of, ticks


def filled(columns: int, ys: list[float], domain: tuple[float, float] | None = None) -> Columns:
    binned = Columns(columns, domain or (0, len(ys) - 1))
    binned.add(list(range(len(ys))), ys)
    return binned


def text_of(columns: Columns, marks: picture.Marks = (), glyphs: Glyphs = BRAILLE, width: int = 60, height: int = 12, **options: object) -> list[str]:
    rows = picture.draw(columns, marks, picture.layout_for(width, height), glyphs, **options)  # type: ignore[arg-type]
    return ["".join(text for text, _ in row) for row in rows]


def chart_columns(ys: list[float], width: int = 60, height: int = 12, glyphs: Glyphs = BRAILLE) -> Columns:
    return filled(picture.layout_for(width, height).plot[0] * glyphs.dots[0], ys)


def test_a_spike_of_one_step_among_ten_thousand_reaches_the_top_row() -> None:
    ys = [1.0] * 10_000
    ys[7_000] = 9.0
    columns = chart_columns(ys)
    assert max(columns.high) == 9.0
    rows = text_of(columns)
    top = next(row for row in rows if any(0x2800 < ord(char) <= 0x28FF for char in row.split("loss")[0][7:]) and "loss" not in row)
    place = next(index for index, char in enumerate(top) if 0x2800 < ord(char) <= 0x28FF)
    assert place - 7 == pytest.approx(0.7 * 52, abs=1)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_no_line_crosses_a_value_that_is_no_number(bad: float) -> None:
    band = filled(9, [1, 1, 1, 1, bad, 3, 3, 3, 3]).band()
    assert band[3] == (1, 1)
    assert band[4] is None
    assert band[5] == (3, 3)
    sparse = Columns(9, (0, 8))
    sparse.add([0, 4, 8], [1, bad, 3])
    assert sparse.band() == [(1, 1), None, None, None, None, None, None, None, (3, 3)]
    assert sparse.average(5)[1:8] == [None] * 7


def test_between_two_points_runs_a_straight_line() -> None:
    sparse = Columns(5, (0, 4))
    sparse.add([0, 4], [1, 5])
    assert sparse.band() == [(1, 1), (2, 2), (3, 3), (4, 4), (5, 5)]


def test_the_average_is_the_mean_of_its_window_and_never_leans_at_the_start() -> None:
    columns = filled(5, [10, 4, 4, 1, 1])
    averaged = [interval[0] for interval in columns.average(3) if interval]
    assert averaged == pytest.approx([10, 6, 3, 2, 1])


def test_each_dot_column_gets_its_own_dots() -> None:
    grid = Grid(2, 1, BRAILLE)
    scale = Scale(0, 3, 4)
    grid.draw([(0, 0), (3, 3), None, (0, 3)], scale)
    drawn = "".join(BRAILLE.line[cell] for cell in grid.cells[0])
    assert drawn == "⡸⢸"  # bottom left, joined upwards on the right; a gap; the whole right column


def test_new_points_are_added_to_the_columns_that_are_there_and_a_rewind_starts_anew() -> None:
    xs, ys = array("d", range(100)), array("d", [float(value % 7) for value in range(100)])
    follower = StepColumns()
    first = follower.follow(xs[:60], ys[:60], 20, (0, 100))
    near = follower.follow(xs[:60], ys[:60], 20, (40, 60))
    assert sum(near.number) == 20 and near.low[0] == ys[40]
    assert follower.follow(xs, ys, 20, (0, 100)) is first
    whole = Columns(20, (0, 100))
    whole.add(xs, ys)
    assert (first.low, first.high, first.number) == (whole.low, whole.high, whole.number)
    ys[50:] = array("d", [99.0] * 50)  # an attempt that began at step 50 told other losses, just as many
    again = follower.follow(xs, ys, 20, (0, 100))
    assert again is not first
    assert max(again.high) == 99.0


def test_the_domain_is_the_whole_run_or_up_to_the_next_round_number() -> None:
    assert domain_of([1, 2, 3], 400) == (0, 400)
    assert domain_of([1, 2, 430], 400) == (0, 430)
    assert domain_of([1, 2, 430], None) == (0, 500)
    assert domain_of([], None) == (0, 10)


def test_diverged_at_is_where_the_newest_numbers_end() -> None:
    assert diverged_at([1, 2, 3, 4], [1, 2, math.nan, math.nan]) == 3
    assert diverged_at([1, 2, 3, 4], [1, math.nan, 2, 2]) is None
    assert diverged_at([], []) is None
    assert diverged_at([5], [math.inf]) == 5


@pytest.mark.parametrize(("low", "high", "count", "expected"), [(0, 90, 5, [0, 20, 40, 60, 80]), (0.9, 3.3, 3, [1, 2, 3]), (0, 1, 2, [0, 0.5, 1])])
def test_ticks_are_round(low: float, high: float, count: int, expected: list[float]) -> None:
    assert ticks(low, high, count) == pytest.approx(expected)


def test_ticks_step_by_one_two_or_five() -> None:
    for high in (0.003, 0.7, 13, 960, 10_000, 3.7e6):
        for count in (2, 5, 9):
            found = ticks(0, high, count)
            step = found[1] - found[0]
            assert round(step / 10 ** math.floor(math.log10(step * 1.0001)), 6) in (1, 2, 5)
            assert all(b - a == pytest.approx(step) for a, b in pairwise(found))
            assert len(found) <= count + 1


def test_log_ticks_and_log_rows() -> None:
    assert log_ticks(0.09, 11, 5) == pytest.approx([0.1, 1, 10])
    scale = scale_of([0.01, 1.0], 101, log=True)
    assert scale
    assert scale.row(0.1) == 50
    assert scale_of([-1.0, 0.0], 10, log=True) is None
    assert scale_of([math.nan], 10) is None


def test_one_value_alone_and_equal_values_have_a_scale() -> None:
    for values in ([2.0], [0.0, 0.0], [1e-9] * 3):
        scale = scale_of(values, 20)
        assert scale
        assert 0 <= scale.row(values[0]) < 20


def test_validation_marks_and_legend_name_what_is_drawn() -> None:
    rows = text_of(chart_columns([3 - index / 50 for index in range(101)]), [(50, 2.2), (100, 1.4)])
    assert sum(row.count("◆") for row in rows) == 3  # two marks, one in the legend
    assert "validation 1.400" in rows[0]
    assert rows[-1].split() == ["0", "20", "40", "60", "80", "100"]


def test_the_badge_and_crosses_tell_a_divergence_without_colour() -> None:
    rows = text_of(chart_columns([1.0] * 50 + [math.nan] * 50), badge="diverged at step 50")
    assert "✗ diverged at step 50" in rows[1]
    assert rows[-2].count("✗") >= 20


def test_all_of_a_chart_without_a_number_is_said() -> None:
    assert any("waiting for the first step" in row for row in text_of(Columns(106, (0, 10))))
    assert any("no loss that is a number" in row for row in text_of(filled(106, [math.nan] * 3), badge="diverged at step 1"))


@pytest.mark.parametrize(
    ("term", "encoding", "expected"),
    [("xterm-256color", "utf-8", BRAILLE), ("linux", "UTF-8", BLOCKS), ("xterm", "ascii", ASCII), ("linux", "latin-1", ASCII)],
)
def test_the_glyphs_follow_the_terminal(term: str, encoding: str, expected: Glyphs) -> None:
    assert glyphs_for(term, encoding) is expected


@pytest.mark.parametrize("glyphs", [BRAILLE, BLOCKS, ASCII])
def test_every_row_has_the_same_width_at_every_size(glyphs: Glyphs) -> None:
    for width in (1, 2, 9, 29, 30, 77):
        for height in (1, 2, 5, 6, 20):
            rows = text_of(chart_columns([2.0, 1.0, math.nan, 4.0], width, height, glyphs), [(1, 1.5)], glyphs, width, height, badge="diverged")
            assert [len(row) for row in rows] == [width] * height
            if glyphs is ASCII:
                assert all(row.isascii() for row in rows)


def test_the_sparkline_keeps_spikes_and_shows_gaps() -> None:
    ys = [1.0] * 1_000
    ys[420] = 5.0
    assert levels(filled(20, ys), BRAILLE).count("█") == 1
    assert levels(filled(5, [1, 2, math.nan, 4, 5]), BRAILLE) == "▁▃✗▆█"
    assert levels(Columns(4, (0, 3)), BRAILLE) == "    "


@pytest.mark.parametrize(
    ("value", "shown"), [(0.0123, "0.0123"), (0, "0"), (12_000, "12k"), (2.5e6, "2.5M"), (2e-5, "2e-05"), (math.nan, "not a number")]
)
def test_numbers_are_short(value: float, shown: str) -> None:
    assert number(value) == shown


class ChartApp(App[None]):
    def compose(self) -> ComposeResult:
        yield LossChart(BRAILLE)
        yield StepSparkline("rate", glyphs=BRAILLE)


def test_the_newest_steps_of_a_long_run_are_put_together_without_binning_all_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curves_of_runs, "POINTS", 100)
    curves, follower = Curves(), StepColumns()
    binned: list[Columns] = []
    for step in range(1, 1001):
        curves.add([{"type": "step", "step": step, "loss": 3.0 - step / 500}])
        columns = follower.follow(curves.steps, curves.loss, 20, (0, 1000), (curves.lowest, curves.highest), curves.settled)
        binned += [columns] * all(columns is not before for before in binned)
        assert len(curves.steps) - curves.settled < curves.stride
    assert curves.stride == 16 and len(binned) <= 6, "anew only when all points become half as many"
    whole = Columns(20, (0, 1000))
    whole.add(curves.steps, curves.loss, 0, (curves.lowest, curves.highest), curves.settled)
    assert (columns.low, columns.high, columns.total) == (whole.low, whole.high, whole.total)


async def test_the_widget_sends_only_rows_that_changed_and_keeps_its_state_when_resized(monkeypatch: pytest.MonkeyPatch) -> None:
    app = ChartApp()
    async with app.run_test(size=(80, 24)) as pilot:
        chart = app.query_one(LossChart)
        xs, ys = array("d", range(1, 101)), array("d", [3.0 - index / 50 for index in range(100)])
        chart.show(xs[:50], ys[:50], [], 100)
        refreshed: list[int] = []
        monkeypatch.setattr(chart, "refresh", lambda *regions, **_: refreshed.append(len(regions)))
        chart.show(xs[:50], ys[:50], [], 100)
        assert refreshed == []  # nothing new, nothing sent
        xs, ys = xs[:51], array("d", [*ys[:50], ys[49]])
        chart.show(xs, ys, [], 100)
        assert len(refreshed) == 1
        assert 1 <= refreshed[0] <= 3
        monkeypatch.undo()
        chart.log_scale = True
        assert "log" in chart.rows_as_text()[0]
        await pilot.resize_terminal(50, 12)
        await pilot.pause()
        assert chart.log_scale
        assert {len(row) for row in chart.rows_as_text()} == {chart.content_size.width}
        assert chart.content_size.width < 60
