"""Commands that control a run: each waits for the worker's acknowledgement and prints it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import asdict

from tui_ft import units
from tui_ft.cli import output
from tui_ft.errors import RequestError
from tui_ft.recipe.files import parse_yaml
from tui_ft.runs import control, store
from tui_ft.runs.store import Run
from tui_ft.runs.summary import summarize

STOP_SECONDS = 30.0
ANSWER_SECONDS = 120.0
QUICK_SECONDS = 0.5
"""What is answered sooner shows no progress."""


def pause(arguments: argparse.Namespace) -> int:
    return _ask(arguments, lambda run: control.pause(run, free_gpu=arguments.free_gpu))


def checkpoint(arguments: argparse.Namespace) -> int:
    return _ask(arguments, control.checkpoint)


def stop(arguments: argparse.Namespace) -> int:
    if not arguments.now:
        return _ask(arguments, control.stop)
    run = store.find(arguments.run)
    answer = control.wait(run, control.stop(run, now=True), STOP_SECONDS)
    if answer.phase == "waiting":
        control.end_by_force(run)
        answer = control.Outcome("effected", None, "the worker did not answer and was ended by force")
    return _print(arguments, run, answer)


def change(arguments: argparse.Namespace) -> int:
    settings = {}
    for setting in arguments.settings:
        key, equals, text = setting.partition("=")
        if not equals:
            raise RequestError(f"{setting} needs the form key=value", "For example: tui-ft set latest learning_rate=1e-5")
        settings[key.removeprefix("train.")] = parse_yaml(f"value: {text}", setting)[0]["value"]
    return _ask(arguments, lambda run: control.change(run, **settings))


def remove(arguments: argparse.Namespace) -> int:
    run = store.find(arguments.run)
    summary = summarize(run)
    if summary.state in control.ALIVE:
        raise RequestError(f"{run.id} is {summary.state}", f"`tui-ft stop {run.id}` first.")
    freed = run.bytes_on_disk()
    if not arguments.yes:
        if not (sys.stdin.isatty() and sys.stdout.isatty()):
            raise RequestError(f"deleting {run.id} needs --yes where nobody can be asked", f"It would free {units.size(freed)}.")
        if input(f"Delete {run.id} with its checkpoints and model ({units.size(freed)})? [y/N] ").strip().lower() not in ("y", "yes"):
            output.say("Nothing was deleted.")
            return 0
    run.delete()
    if arguments.json:
        output.print_json({"run": run.id, "freed_bytes": freed})
    else:
        output.say(f"{run.id} is deleted; {units.size(freed)} are free again.")
    return 0


def _ask(arguments: argparse.Namespace, send: Callable[[Run], str]) -> int:
    run = store.find(arguments.run)
    command = send(run)
    line = output.ProgressLine()

    def show(acknowledged: bool, seconds: float) -> None:
        if seconds > QUICK_SECONDS:
            has_it = "acknowledged, waiting for the end of the step" if acknowledged else "sent, not acknowledged yet"
            line.show(f"{has_it} · {units.duration(seconds)}")

    try:
        answer = control.wait(run, command, ANSWER_SECONDS, show)
    finally:
        line.clear()
    return _print(arguments, run, answer)


def _print(arguments: argparse.Namespace, run: Run, answer: control.Outcome) -> int:
    if arguments.json:
        output.print_json({"run": run.id, **asdict(answer)})
    else:
        at = f" at step {answer.step}" if answer.step is not None else ""
        after = f" after {answer.seconds:.1f} s" if answer.seconds is not None else ""
        output.say(f"{run.id}: {answer.phase}{at}{after}" + (f": {answer.reason}" if answer.reason else ""))
    return 1 if answer.phase == "rejected" else 0
