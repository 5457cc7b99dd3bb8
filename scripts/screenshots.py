"""Make the pictures of the documentation: `python scripts/screenshots.py` writes docs/images from the real screens.

Runs are made up with a fixed seed and the machine is always the same, so a picture changes only when a screen does. Braille characters become
circles: few fonts on the web have them in one width with the rest.
"""

from __future__ import annotations

import asyncio
import html
import os
import re
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

import synthetic  # noqa: E402
from textual.pilot import Pilot  # noqa: E402

from tui_ft import hardware  # noqa: E402
from tui_ft.hardware import Hardware  # noqa: E402
from tui_ft.planning import timing  # noqa: E402
from tui_ft.tui.app import TuiFtApp  # noqa: E402
from tui_ft.tui.screens.dashboard import DashboardScreen  # noqa: E402
from tui_ft.tui.wizard.screen import STEPS, WizardScreen  # noqa: E402

IMAGES = ROOT / "docs" / "images"
WIDE, USUAL = (110, 34), (80, 24)
GIB = 2**30
"""Of main memory that the pictured machine has."""
_TEXT = re.compile(r'<text class="(?P<style>[^"]*)" x="(?P<x>[\d.]+)" y="(?P<y>[\d.]+)" textLength="(?P<length>[\d.]+)"[^>]*>(?P<text>[^<]*)</text>')
_FONTS = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)
_DOTS = ((0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (0, 3), (1, 3))
LINE_HEIGHT = 24.4


def with_dots(svg: str) -> str:
    """The picture with each braille character drawn as dots, in the colour of its text."""
    colours = dict(re.findall(r"\.([\w-]+) \{ fill: (#\w+)", svg))

    def drawn(match: re.Match[str]) -> str:
        text = html.unescape(match["text"])
        if not any("\u2800" <= char <= "\u28ff" for char in text):
            return match[0]
        cell = float(match["length"]) / len(text)
        left, top = float(match["x"]), float(match["y"]) - 18.5
        path = "".join(
            f"M{left + cell * (index + 0.27 + 0.5 * across):.1f} {top + LINE_HEIGHT * (0.125 + 0.25 * down):.1f}h0"
            for index, char in enumerate(text)
            for bit, (across, down) in enumerate(_DOTS)
            if "\u2800" <= char <= "\u28ff" and ord(char) >> bit & 1
        )
        rest = "".join(" " if "\u2800" <= char <= "\u28ff" else char for char in text)
        kept = match[0].replace(match["text"], html.escape(rest).replace(" ", "&#160;")) if rest.strip() else ""
        return f'<path d="{path}" stroke="{colours.get(match["style"], "#fff")}" stroke-width="3.6" stroke-linecap="round"/>{kept}'

    return _TEXT.sub(drawn, svg)


def steady(svg: str) -> str:
    """Without what differs from one making to the next, and without fonts from elsewhere."""
    svg = re.sub(r"-\d{6}(?!\d|…)", "-092653", re.sub(r"-20\d{6}-", "-20260314-", svg))
    numbers = {name: f"terminal-{number}" for number, name in enumerate(dict.fromkeys(re.findall(r"terminal-\d+", svg)))}
    return _FONTS.sub("", re.sub(r"terminal-\d+", lambda match: numbers[match[0]], svg))


def keep(app: TuiFtApp, name: str) -> None:
    picture = steady(with_dots(app.export_screenshot(title="tui-ft")))
    (IMAGES / f"{name}.svg").write_text(picture, encoding="utf-8")
    print(f"{name}.svg: {len(picture) // 1000} kB", flush=True)


async def until(pilot: Pilot[int], true: Callable[[], object], seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            raise SystemExit("a screen does not come to what its picture shall show")
        await pilot.pause(0.05)
    await pilot.pause(0.7)


@asynccontextmanager
async def opened(size: tuple[int, int], start: str = "home") -> AsyncIterator[tuple[TuiFtApp, Pilot[int]]]:
    app = TuiFtApp(start)
    async with app.run_test(size=size) as pilot:
        yield app, pilot


async def dashboards() -> None:
    run = synthetic.recorded("running", steps=1480, total=2400, seed=7)
    for name, size in (("dashboard", WIDE), ("dashboard-80x24", USUAL)):
        async with opened(size) as (app, pilot):
            app.open_run(run)
            await until(pilot, lambda app=app: isinstance(app.screen, DashboardScreen) and app.screen.feed.curves.progress.step == 1480)
            keep(app, name)
            if size == WIDE:
                await pilot.press("question_mark")
                await pilot.pause(0.5)
                keep(app, "help")


async def homes() -> None:
    for number, state in enumerate(("finished", "stopped", "paused")):
        synthetic.recorded(state, steps=200 + 90 * number, total=500, name=("demo", "opt-350m-oasst1", "sft-config")[number], seed=number)
    async with opened(WIDE) as (app, pilot):
        await until(pilot, lambda: app.screen.query("#runs"))
        keep(app, "home")
        await pilot.press("down", "m")
        await pilot.pause(2.0)
        keep(app, "compare")


async def wizard() -> None:
    async with opened(WIDE, "demo") as (app, pilot):
        await until(pilot, lambda: isinstance(app.screen, WizardScreen) and app.focused is not None)
        screen = app.screen
        assert isinstance(screen, WizardScreen)
        found = screen.backstage
        await until(pilot, lambda: found.facts.value and found.preview.value and not (found.preview.busy or found.exact.busy))
        await until(pilot, lambda: found.plan.value and not found.forecasting.found.busy)
        for number, step in enumerate(STEPS):
            await screen.go(number)
            await pilot.pause(0.7)
            keep(app, f"wizard-{number + 1}-{step.TITLE.lower()}")


async def all_of_them() -> None:
    await dashboards()
    await homes()
    await wizard()


def main() -> None:
    rate = timing.rate
    timing.rate = lambda gpu, setup, timed, *rest: rate(gpu, setup, 1e11 if timed else None, *rest)
    hardware.read = lambda: Hardware(cpus=8, ram_total=64 * GIB, ram_free=48 * GIB, note="no GPU: there is no driver")
    hardware.free_disk = lambda path: 200 * GIB
    os.environ["TZ"] = "UTC"
    time.tzset()
    IMAGES.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TUI_FT_HOME"] = folder
        asyncio.run(all_of_them())


if __name__ == "__main__":
    main()
