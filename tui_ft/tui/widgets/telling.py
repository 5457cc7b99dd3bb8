"""Events as a person reads them: one line each, for the log of the dashboard."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from tui_ft import text, units
from tui_ft.runs.events import Event
from tui_ft.tui.widgets.raster import number

SAMPLE = 160
"""Cells of a sample shown in the log; the whole of it stands among the samples."""
ACTS = {"pause": "pause", "resume": "go on", "checkpoint": "checkpoint", "stop": "stop", "set": "change"}


def told(event: Event) -> str:
    """The line for an event, control characters made visible; empty for what a log does not tell."""
    words = {
        "attempt_started": _attempt,
        "plan": lambda event: "",
        "step": _step,
        "eval": _eval,
        "sample": lambda event: text.one_line(f"sample: {event.get('prompt', '')} → {event.get('text', '')}", SAMPLE),
        "checkpoint": _checkpoint,
        "command": _command,
        "alert": lambda event: f"! {alert(event)}",
        "state": _state,
        "attempt_ended": lambda event: "",
    }.get(event["type"])
    line = words(event) if words else ""
    return f"{_clock(event.get('t'))} {text.one_line(line)}" if line else ""


def alert(event: Event) -> str:
    """Cause and remedy of an alert."""
    return " → ".join(str(event[part]) for part in ("cause", "remedy") if event.get(part))


def _clock(stamp: Any) -> str:
    """The event's UTC time as the local time of day."""
    try:
        return datetime.fromisoformat(str(stamp)).astimezone().strftime("%H:%M:%S")
    except ValueError:
        return "--:--:--"


def _attempt(event: Event) -> str:
    start = event.get("from_step") or 0
    return f"attempt {event.get('attempt', 1)} begins" + (f" from step {start}" if start else "")


def _number(value: Any) -> str:
    return number(float(value)) if isinstance(value, (int, float)) else "not a number"


def _step(event: Event) -> str:
    return f"step {event.get('step')}: loss {_number(event.get('loss'))}"


def _eval(event: Event) -> str:
    accuracy = event.get("accuracy")
    share = f", {accuracy:.1%} of tokens right" if isinstance(accuracy, (int, float)) else ""
    return f"step {event.get('step')}: validation loss {_number(event.get('loss'))}{share}"


def _checkpoint(event: Event) -> str:
    outcome = str(event.get("outcome", ""))
    fate = f"{units.size(event.get('bytes'))}" if outcome in ("", "written", "ok", "published") else outcome
    return f"step {event.get('step')}: checkpoint, {fate}"


def _command(event: Event) -> str:
    if event.get("phase") == "applied":
        return ""
    name = ACTS.get(str(event.get("name")), str(event.get("name")))
    settings = event.get("args")
    if event.get("name") == "set" and isinstance(settings, dict):
        name = ", ".join(f"{key} = {_number(value)}" for key, value in settings.items())
    if event.get("phase") == "effected":
        return f"{name}: done at step {event.get('step')}"
    return f"! {name}: {event.get('phase')}: {event.get('reason', '')}"


def _state(event: Event) -> str:
    reason = event.get("reason")
    return f"{event.get('from', '')} → {event.get('to', '')}" + (f": {reason}" if reason else "")
