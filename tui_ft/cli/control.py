"""Commands that control a run: each waits for the worker's acknowledgement and prints it."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from tui_ft import units
from tui_ft.cli import output
from tui_ft.errors import RequestError
from tui_ft.recipe.files import parse_yaml
from tui_ft.runs import control, queue, store
from tui_ft.runs.store import Run
from tui_ft.runs.summary import summarize

STOP_SECONDS = 30.0
ANSWER_SECONDS = 120.0
QUICK_SECONDS = 0.5
"""What is answered sooner shows no progress."""


def pause(arguments: argparse.Namespace) -> int:
    code = _ask(arguments, lambda run: control.pause(run, free_gpu=arguments.free_gpu))
    others = 0 if code or arguments.free_gpu else queue.waiting_behind(store.find(arguments.run))
    if others:
        output.note(f"The memory is kept while {others} in the queue wait for it; `tui-ft pause --free-gpu` lets them begin.")
    return code


def checkpoint(arguments: argparse.Namespace) -> int:
    return _ask(arguments, control.checkpoint)


def stop(arguments: argparse.Namespace) -> int:
    run = store.find(arguments.run)
    if control.cancel(run):
        return _print(arguments, run, control.Outcome("effected", None, "it waited in the queue and is out of it"))
    if not arguments.now:
        return _ask(arguments, control.stop)
    answer = control.wait(run, control.stop(run, now=True), STOP_SECONDS)
    if answer.phase == "waiting":
        control.end_by_force(run)
        answer = control.Outcome("effected", None, "the worker did not answer and was ended by force")
    return _print(arguments, run, answer)


def change(arguments: argparse.Namespace) -> int:
    settings = parse_settings(arguments.settings)
    return _ask(arguments, lambda run: control.change(run, **settings))


def parse_settings(words: list[str]) -> dict[str, Any]:
    """`["train.learning_rate=1e-5"]` → {"learning_rate": 1e-05}.

    Raises:
        RequestError: not of that form.
    """
    settings = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals:
            raise RequestError(f"{word} needs the form key=value", "For example: learning_rate=1e-5")
        settings[key.removeprefix("train.")] = parse_yaml(f"value: {text}", word)[0]["value"]
    return settings


def remove(arguments: argparse.Namespace) -> int:
    run = store.find(arguments.run)
    summary = summarize(run)
    if summary.is_live:
        raise RequestError(f"{run.id} is {summary.state}", f"`tui-ft stop {run.id}` first.")
    freed = run.bytes_on_disk()
    if not arguments.yes and not output.may_delete(run.id, " with its checkpoints and model", units.size(freed)):
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
