"""Waiting for what a screen driven by keys must come to."""

from __future__ import annotations

from collections.abc import Callable

from textual.pilot import Pilot


async def until(pilot: Pilot[int], true: Callable[[], object], seconds: float = 8.0) -> None:
    """Wait for a condition, not for a time."""
    for _ in range(round(seconds / 0.02)):
        if true():
            return
        await pilot.pause(0.02)
    raise AssertionError(f"it did not come to it: {true}")
