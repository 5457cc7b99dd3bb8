"""Rate and time left of long work, from its reports."""

from __future__ import annotations

from tui_ft.pace import Pace


def test_rate_and_time_left_follow_the_reports() -> None:
    pace = Pace()
    for second in range(11):
        pace.update(second * 800, 16_000, now=float(second))
    assert pace.rate == 800 and pace.seconds_left == 10 and pace.share == 0.5
    assert pace.text("rows") == "50 % · 800 rows/s · 10 s left"


def test_an_old_stretch_is_forgotten_and_another_pass_begins_anew() -> None:
    pace = Pace()
    for second in range(60):
        pace.update(second * 10, None, now=float(second))
    for second in range(60, 120):
        pace.update(600 + (second - 60) * 1000, None, now=float(second))
    assert pace.rate is not None and 950 < pace.rate <= 1000
    assert pace.text("texts") == "59,600 texts · 1.0k texts/s"
    pace.update(5, 10, now=120.0)
    assert pace.rate is None and pace.text("rows") == "50 %"


def test_nothing_is_said_that_is_not_known() -> None:
    assert Pace().text("rows") == "0 rows"
    still = Pace()
    still.update(3, 10, now=1.0)
    still.update(3, 10, now=1.0)
    assert still.rate is None and still.seconds_left is None and still.text() == "30 %"
