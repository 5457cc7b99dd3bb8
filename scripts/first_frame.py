"""Prints what the first frame of the terminal program costs: CPU and wall seconds, after the imports and with them.

    python scripts/first_frame.py [home|demo]

The terminal is a headless one of 80×24 cells: what a real one does with the bytes is not counted.
"""

from __future__ import annotations

import time

CPU, WALL = time.process_time(), time.perf_counter()

import asyncio  # noqa: E402
import sys  # noqa: E402

from textual import events  # noqa: E402

from tui_ft.tui.app import TuiFtApp  # noqa: E402


class Timed(TuiFtApp):
    """Notes the moment after the first screen of its own was drawn."""

    frame: tuple[float, float] = (0.0, 0.0)

    def on_ready(self, event: events.Ready) -> None:
        self.screen.call_after_refresh(self._note)

    def _note(self) -> None:
        self.frame = (time.process_time(), time.perf_counter())
        self.exit(0)


def main() -> int:
    import tui_ft.tui.screens.home
    import tui_ft.tui.wizard.screen  # noqa: F401 - counted as imports

    imported = (time.process_time(), time.perf_counter())
    app = Timed(sys.argv[1] if len(sys.argv) > 1 else "home")
    asyncio.run(app.run_async(headless=True, size=(80, 24)))
    for name, begin in (("after imports", imported), ("with imports ", (CPU, WALL))):
        print(f"first frame {name}: {app.frame[0] - begin[0]:.2f} s CPU, {app.frame[1] - begin[1]:.2f} s wall")
    heavy = sorted({"torch", "transformers", "datasets"} & set(sys.modules))
    print(f"heavy modules loaded: {', '.join(heavy) or 'none'}")
    return 1 if heavy else 0


if __name__ == "__main__":
    sys.exit(main())
