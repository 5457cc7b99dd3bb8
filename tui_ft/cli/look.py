"""Commands that only look: preview, runs, show, compare, status, logs, doctor. They never change a run."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable

from tui_ft import units
from tui_ft.cli import drive, output
from tui_ft.pace import Pace
from tui_ft.recipe import presets
from tui_ft.runs import compare as beside
from tui_ft.runs import store
from tui_ft.runs.store import Run
from tui_ft.runs.summary import Summary, summarize

WATCH_SECONDS = 2.0
QUICK_SECONDS = 2.0
"""What takes no longer shows no progress."""


def preview(arguments: argparse.Namespace) -> int:
    from tui_ft.cli.preview_text import print_preview
    from tui_ft.data.preview import preview as look

    line = output.ProgressLine()
    try:
        found = look(presets.open_recipe(arguments.recipe, arguments.set), n=arguments.n, exact=arguments.exact, on_progress=_told_on(line))
    finally:
        line.clear()
    if arguments.json:
        output.print_json(found)
    else:
        print_preview(found)
    return 0


def _told_on(line: output.ProgressLine) -> Callable[[str, int, int | None], None]:
    """Stage, share, rate and time left of work that takes more than a moment."""
    paces: dict[str, Pace] = {}
    begun = time.monotonic()

    def tell(stage: str, done: int, total: int | None) -> None:
        pace = paces.setdefault(stage, Pace())
        pace.update(done, total)
        if time.monotonic() - begun > QUICK_SECONDS:
            line.show(f"{stage} {pace.text('rows')}")

    return tell


def runs(arguments: argparse.Namespace) -> int:
    summaries = [summarize(run) for run in store.all_runs()]
    if arguments.json:
        output.print_json(summaries)
    elif not summaries:
        output.say("No runs yet. `tui-ft demo` makes the first one.")
    else:
        rows = [(s.run, s.state, output.steps(s), output.number(s.last_loss), units.duration(s.eta_seconds), s.reason) for s in summaries]
        output.table(rows, ("RUN", "STATE", "STEP", "LOSS", "LEFT", "REASON"))
    return 0


def show(arguments: argparse.Namespace) -> int:
    summary = summarize(store.find(arguments.run))
    if arguments.json:
        output.print_json(summary)
    else:
        drive.print_summary(summary)
    return 0


def compare(arguments: argparse.Namespace) -> int:
    found = beside.compare([store.find(reference) for reference in arguments.runs])
    if arguments.json:
        output.print_json({"runs": found.summaries, "differs": found.differs})
        return 0
    letters = [chr(ord("A") + number) for number in range(len(found.runs))]
    for letter, summary in zip(letters, found.summaries, strict=True):
        output.say(f"{letter}  {summary.run} · {summary.state}" + (f" · {summary.reason}" if summary.reason else ""))
    output.say()
    results = [[name, *(tell(summary) for summary in found.summaries)] for name, tell in RESULTS.items()]
    settings = [[key, *(_value(value) for value in values)] for key, values in found.differs.items()]
    output.table([*results, *([["", *("" for _ in letters)]] if settings else []), *settings], ("", *letters))
    if not settings:
        output.say("\nTheir settings are the same.")
    return 0


RESULTS: dict[str, Callable[[Summary], str]] = {
    "step": output.steps,
    "first loss": lambda summary: output.number(summary.first_loss),
    "last loss": lambda summary: output.number(summary.last_loss),
    "best validation loss": lambda summary: output.number(summary.best_eval_loss),
    "tokens": lambda summary: f"{summary.tokens:,}",
    "tokens/s": lambda summary: "-" if summary.tokens_per_second is None else f"{summary.tokens_per_second:,.0f}",
    "peak memory": lambda summary: "-" if summary.peak_memory_bytes is None else units.size(summary.peak_memory_bytes),
}


def _value(value: object) -> str:
    return "-" if value is None or value in ([], {}) else ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def status(arguments: argparse.Namespace) -> int:
    frame = output.Frame() if arguments.watch and not arguments.json else None
    while True:
        summaries = [summarize(run) for run in store.all_runs()]
        live = [summary for summary in summaries if summary.is_live]
        lines = [output.one_run(summary) for summary in live or summaries[:1]] or ["no runs"]
        if arguments.json:
            output.print_json(live)
        elif frame:
            frame.show(lines)
        else:
            output.say("\n".join(lines))
        if not arguments.watch:
            return 0
        sys.stdout.flush()
        time.sleep(WATCH_SECONDS)


def logs(arguments: argparse.Namespace) -> int:
    run = store.find(arguments.run)
    if arguments.json:
        output.print_json({"run": run.id, "attempt": run.attempt(), "out": _read(run, "out"), "err": _read(run, "err")})
        return 0
    offsets = {"err": 0, "out": 0}
    attempt = run.attempt()
    while True:
        for name in offsets:
            file = run.logs / f"{attempt}.{name}"
            if file.exists():
                with file.open("rb") as stream:
                    if stream.seek(0, os.SEEK_END) < offsets[name]:
                        offsets[name] = 0  # it was begun anew: a log does not grow without bound
                    stream.seek(offsets[name])
                    text = stream.read()
                offsets[name] += len(text)
                if text:
                    print(output.visible(text.decode("utf-8", "replace")), end="", flush=True)
        if not arguments.follow or not summarize(run).is_live:
            return 0
        if run.attempt() != attempt:
            attempt, offsets = run.attempt(), {"err": 0, "out": 0}
        time.sleep(drive.POLL_SECONDS)


def _read(run: Run, name: str) -> str:
    file = run.logs / f"{run.attempt()}.{name}"
    return file.read_text(encoding="utf-8", errors="replace") if file.exists() else ""


def doctor(arguments: argparse.Namespace) -> int:
    from tui_ft.planning.doctor import examine

    findings = examine()
    if arguments.json:
        output.print_json([{key: value for key, value in vars(finding).items() if key != "places"} for finding in findings])
    else:
        marks = {"ok": "ok     ", "warning": "warning", "error": "FAULT  "}
        for finding in findings:
            output.say(f"{marks[finding.severity]}  {finding.where}: {finding.message}" + (f"\n           → {finding.hint}" if finding.hint else ""))
    return 1 if any(finding.severity == "error" for finding in findings) else 0
