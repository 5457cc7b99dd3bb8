"""Commands that start runs and follow them: run, demo, resume."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from types import FrameType

from tui_ft import units
from tui_ft.cli import output
from tui_ft.cli.control import parse_settings
from tui_ft.cli.queue import wanted_bytes
from tui_ft.errors import RequestError, TuiFtError
from tui_ft.findings import Finding
from tui_ft.recipe import presets
from tui_ft.runs import control, store
from tui_ft.runs.events import Event, EventReader
from tui_ft.runs.store import Run
from tui_ft.runs.summary import Summary, summarize

POLL_SECONDS = 0.25
EXIT_CODES = {"finished": 0, "failed": 1, "lost": 1, "paused": 3, "stopped": 3}
STOPPED_NOW = 130
FORCE_SECONDS = 30.0
REMARKED = ("eval", "alert", "attempt_ended")
"""Events that are told while a run is followed; its steps are in the progress line."""


def run(arguments: argparse.Namespace) -> int:
    from tui_ft.start import parse_trust, start_run

    trust = parse_trust(arguments.trust_remote_code)
    when_free = wanted_bytes(arguments)
    recipe = presets.open_recipe(arguments.recipe, arguments.set)
    started = start_run(recipe, force=arguments.force, trust=trust, queued=arguments.queue, when_free=when_free, on_warning=_warn)
    return _detached(started, arguments) if arguments.detach else follow(started, arguments.json)


def demo(arguments: argparse.Namespace) -> int:
    if not arguments.headless and not arguments.json and not arguments.set and sys.stdin.isatty() and sys.stdout.isatty():
        from tui_ft.cli.screen import open_screen

        return open_screen("demo")
    from tui_ft.start import start_run

    return follow(start_run(presets.open_recipe("demo", arguments.set), on_warning=_warn), arguments.json)


def resume(arguments: argparse.Namespace) -> int:
    if arguments.all_lost:
        return _resume_lost(arguments)
    if not arguments.run:
        raise RequestError("name the run to resume", "`tui-ft resume latest`, or `tui-ft resume --all-lost`.")
    chosen = store.find(arguments.run)
    settings = parse_settings(arguments.set)
    before = summarize(chosen).total_steps
    waits = output.ProgressLine()
    command = control.resume(
        chosen,
        arguments.from_step,
        settings=settings,
        accept=[key for keys in arguments.accept for key in keys.split(",") if key],
        queued=arguments.queue,
        when_free=wanted_bytes(arguments),
        on_wait=lambda left: waits.show(f"{chosen.id} was last told of on another machine: looking for a sign of life, {left:.0f} s"),
    )
    waits.clear()
    if before is not None and settings.get("max_steps", 0) > before:
        output.note(f"{settings['max_steps']} steps in place of {before}: the schedule is laid out anew for them")
    if command:
        answer = control.wait(chosen, command)
        if answer.phase == "rejected":
            raise TuiFtError(f"{chosen.id} was not resumed: {answer.reason}")
    return _detached(chosen, arguments) if arguments.detach else follow(chosen, arguments.json)


def _resume_lost(arguments: argparse.Namespace) -> int:
    """Every run that nobody stopped. One that cannot go on is told, and does not keep the others."""
    if arguments.set or arguments.accept or arguments.from_step is not None:
        raise RequestError("--set, --accept and --from are for one run", "Name it: `tui-ft resume RUN …`.")
    when_free = wanted_bytes(arguments)
    told: list[dict[str, str]] = []
    for candidate in control.lost_runs():
        told.append({"run": candidate.id, "dir": str(candidate.path)})
        try:
            control.resume(candidate, queued=arguments.queue, when_free=when_free)
            output.note(f"resumed {candidate.id}")
        except TuiFtError as error:
            told[-1]["error"] = " ".join(error.lines())
            output.note("\n".join([f"{candidate.id} was not resumed: {error.lines()[0]}", *error.lines()[1:]]))
    if arguments.json:
        output.print_json(told)
    elif not told:
        output.say("No run is lost.")
    return 1 if any("error" in entry for entry in told) else 0


def _warn(finding: Finding) -> None:
    output.note(f"  warning: {finding}" + (f"\n    → {finding.hint}" if finding.hint else ""))


def _detached(started: Run, arguments: argparse.Namespace) -> int:
    if arguments.json:
        output.print_json({"run": started.id, "dir": str(started.path)})
    elif summarize(started).state == "queued":
        output.say(f"{started.id} waits in the queue and begins by itself.\n  tui-ft queue\n  tui-ft queue cancel {started.id}")
    else:
        output.say(f"{started.id} runs in the background.\n  tui-ft attach {started.id}\n  tui-ft status --watch")
    return 0


class _Interrupts:
    """Ctrl+C: the first asks the worker to save and stop, the second to stop now."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.count = 0
        signal.signal(signal.SIGINT, self._on_interrupt)

    def _on_interrupt(self, *_: int | FrameType | None) -> None:
        self.count += 1

    def act(self, seen: int) -> int:
        """Send what the interrupts since the last look ask for; how many have been acted on.

        One that comes meanwhile is left for the next look: it asks for more.
        """
        count = self.count
        if count > seen:
            now = count > 1
            try:
                if control.cancel(self.run):
                    output.note("\ntaken out of the queue")
                    return count
                output.note("\nstopping now" if now else "\nsaving and stopping after this step; Ctrl+C again stops now")
                command = control.stop(self.run, now=now)
                if now and control.wait(self.run, command, FORCE_SECONDS).phase == "waiting":
                    control.end_by_force(self.run)
            except TuiFtError as error:
                output.note(error.message)
        return count


def follow(run: Run, as_json: bool) -> int:
    """Show progress on stderr until the run is over or paused, then its summary on stdout.

    A hang-up ends only this process: SIGHUP keeps its default action, and the run never knew of us.
    """
    interrupts, seen = _Interrupts(run), 0
    attempt = run.attempt()  # what earlier ones told is no news to whoever resumes
    reader, line = EventReader(run, only=REMARKED), output.ProgressLine()
    while True:
        seen = interrupts.act(seen)
        for event in reader.stream():
            if event["attempt"] >= attempt:
                _remark(line, event)
        summary = summarize(run)
        if summary.state in EXIT_CODES:
            break
        line.show(output.one_run(summary))
        time.sleep(POLL_SECONDS)
    line.clear()
    if as_json:
        output.print_json(summary)
    else:
        print_summary(summary)
    return STOPPED_NOW if seen > 1 and summary.state == "stopped" else EXIT_CODES[summary.state]


def _remark(line: output.ProgressLine, event: Event) -> None:
    if event["type"] == "eval":
        accuracy = event.get("accuracy")
        line.say(
            f"  step {event['step']}: validation loss {output.number(event.get('loss'))}" + (f", token accuracy {accuracy:.1%}" if accuracy else "")
        )
    elif event["type"] == "alert":
        line.say(f"  {event['severity']}: {event['cause']}" + (f"\n    → {event['remedy']}" if event.get("remedy") else ""))
    elif event["type"] == "attempt_ended" and event.get("outcome") not in EXIT_CODES:
        line.say(f"  attempt {event['attempt']} ended: {event.get('reason')}")


def print_summary(summary: Summary) -> None:
    """A run for a person: what became of it, and what can be done next."""
    output.say(f"{summary.run}: {summary.state}" + (f" ({summary.reason})" if summary.reason else ""))
    rows = [
        ("steps", f"{output.steps(summary)}, epoch {summary.epoch:g}"),
        ("loss", f"{output.number(summary.first_loss)} → {output.number(summary.last_loss)}"),
        ("best validation loss", output.number(summary.best_eval_loss)),
        ("tokens", f"{summary.tokens:,}" + (f" at {summary.tokens_per_second:,.0f}/s" if summary.tokens_per_second else "")),
        ("peak memory", units.size(summary.peak_memory_bytes)),
        ("parameters", _parameters(summary)),
        ("checkpoints", ", ".join(f"{c.step} ({units.size(c.bytes)})" for c in summary.checkpoints) or "none"),
        ("folder", summary.dir),
        ("model", summary.model or "-"),
    ]
    for name, value in rows:
        output.say(f"  {name:<22}{value}")
    for alert in summary.alerts:
        output.say(f"  {alert.severity:<22}{alert.cause}" + (f"\n  {'':<22}→ {alert.remedy}" if alert.remedy else ""))
    nexts = {"finished": f"tui-ft chat {summary.run}", "paused": f"tui-ft resume {summary.run}", "stopped": f"tui-ft resume {summary.run}"}
    nexts |= {"lost": f"tui-ft resume {summary.run}", "failed": f"tui-ft logs {summary.run}"}
    if summary.state in nexts:
        output.say(f"  {'next':<22}{nexts[summary.state]}")


def _parameters(summary: Summary) -> str:
    if not summary.parameters or summary.trainable_parameters is None:
        return "-"
    share = summary.trainable_parameters / summary.parameters
    return f"{summary.trainable_parameters:,} of {summary.parameters:,} trainable ({share:.2%})"
