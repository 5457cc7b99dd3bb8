"""Make the pictures of the documentation: `python scripts/screenshots.py` writes docs/images/dashboard.svg from a recorded run.

The run is made up with a fixed seed, so the picture changes only when the screen does. Braille characters become circles:
few fonts on the web have them in one width with the rest.
"""

from __future__ import annotations

import asyncio
import html
import os
import re
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
IMAGES = ROOT / "docs" / "images"
SIZE = (110, 34)
_TEXT = re.compile(r'<text class="(?P<style>[^"]*)" x="(?P<x>[\d.]+)" y="(?P<y>[\d.]+)" textLength="(?P<length>[\d.]+)"[^>]*>(?P<text>[^<]*)</text>')
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


async def dashboard() -> str:
    """The dashboard of a run in the middle of its training."""
    sys.path.insert(0, str(ROOT / "tests"))
    import synthetic

    from tui_ft.tui.app import TuiFtApp
    from tui_ft.tui.screens.dashboard import DashboardScreen

    run = synthetic.recorded("running", steps=1480, total=2400, seed=7)
    app = TuiFtApp()
    async with app.run_test(size=SIZE) as pilot:
        app.open_run(run)
        while not (isinstance(app.screen, DashboardScreen) and app.screen.feed.curves.progress.step == 1480):
            await pilot.pause(0.05)
        await pilot.pause(1.2)
        return app.export_screenshot(title="tui-ft")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TUI_FT_HOME"] = folder
        picture = with_dots(asyncio.run(dashboard()))
    IMAGES.mkdir(parents=True, exist_ok=True)
    (IMAGES / "dashboard.svg").write_text(picture, encoding="utf-8")
    print(f"{IMAGES / 'dashboard.svg'}: {len(picture) // 1000} kB")


if __name__ == "__main__":
    main()
