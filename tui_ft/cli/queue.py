"""The queue from the command line: what waits and why, move, cancel."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from tui_ft import units
from tui_ft.cli import output
from tui_ft.errors import RequestError
from tui_ft.recipe.schema import parse_bytes
from tui_ft.runs import queue, store
from tui_ft.runs.queue import Entry


def listing(arguments: argparse.Namespace) -> int:
    entries = queue.listing()
    found = [_facts(entry, entries) for entry in entries]
    if arguments.json:
        output.print_json(found)
    elif not found:
        output.say("No run waits.")
    else:
        rows = [(item["position"], item["run"], _wants(item), item["reason"] + _where(entry)) for item, entry in zip(found, entries, strict=True)]
        output.table(rows, ("POSITION", "RUN", "WANTS", "WHY IT WAITS"))
    return 0


def move(arguments: argparse.Namespace) -> int:
    run = store.find(arguments.run)
    now = queue.move(run, arguments.position)
    if arguments.json:
        output.print_json({"run": run.id, "position": now})
    else:
        output.say(f"{run.id} is now {queue.ordinal(now)} in the queue.")
    return 0


def cancel(arguments: argparse.Namespace) -> int:
    run = store.find(arguments.run)
    queue.cancel(run)
    if arguments.json:
        output.print_json({"run": run.id, "cancelled": True})
    else:
        output.say(f"{run.id} is out of the queue.\n  tui-ft resume {run.id}")
    return 0


def wanted_bytes(arguments: argparse.Namespace) -> int | None:
    """What `--when-free` says.

    Raises:
        RequestError: it is no size, or stands without --queue.
    """
    if arguments.when_free is None:
        return None
    if not arguments.queue:
        raise RequestError("--when-free belongs to --queue", "Without a queue a run begins at once.")
    try:
        return parse_bytes(arguments.when_free)
    except ValueError as error:
        raise RequestError(f"--when-free: {error}") from None


def _facts(entry: Entry, entries: list[Entry]) -> dict[str, Any]:
    return {
        "position": queue.position(entry, entries),
        "run": entry.run,
        "dir": str(Path(entry.dir)),
        "host": entry.supervisor.host,
        "device": entry.device,
        "when_free": entry.wants,
        "reason": queue.reason(entry),
    }


def _wants(item: dict[str, Any]) -> str:
    if item["device"] == "cpu":
        return "the CPU"
    return item["device"] + (f", {units.size(item['when_free'])} free" if item["when_free"] else "")


def _where(entry: Entry) -> str:
    return "" if entry.supervisor.is_here() else f" (on {entry.supervisor.host})"
