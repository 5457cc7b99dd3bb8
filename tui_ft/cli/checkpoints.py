"""`tui-ft checkpoints`: list, verify, zip, delete."""

from __future__ import annotations

import argparse
import time

from tui_ft import units
from tui_ft.cli import output
from tui_ft.cli.look import QUICK_SECONDS
from tui_ft.errors import RequestError
from tui_ft.pace import Pace
from tui_ft.runs import checkpoints, control, store
from tui_ft.runs.archive import zip_folder
from tui_ft.runs.checkpoints import CheckpointInfo
from tui_ft.runs.store import Run


def checkpoints_of(arguments: argparse.Namespace) -> int:
    run = store.find(arguments.run)
    if arguments.what is None:
        return _list(run, arguments)
    if arguments.what == "verify":
        return _verify(run, arguments)
    if arguments.step is None:
        raise RequestError(f"{arguments.what} needs the step of a checkpoint", _there_are(run))
    checkpoint = _chosen(run, arguments.step)
    return _zip(run, checkpoint, arguments) if arguments.what == "zip" else _delete(run, checkpoint, arguments)


def _list(run: Run, arguments: argparse.Namespace) -> int:
    found = checkpoints.listing(run)
    if arguments.json:
        output.print_json(found)
    elif not found:
        output.say(f"{run.id} has no checkpoints.")
    else:
        rows = [
            (one.step, units.size(one.bytes), output.number(one.eval_loss), "best" if one.best else "", _zip_size(one), state(one)) for one in found
        ]
        output.table(rows, ("STEP", "SIZE", "VALIDATION", "", "ZIP", "STATE"))
    return 0


def state(checkpoint: CheckpointInfo) -> str:
    """Whether it can be used, in words."""
    if checkpoint.damage:
        return f"damaged: {checkpoint.damage}"
    if checkpoint.verified is None:
        return "not verified"
    return f"verified {time.strftime('%Y-%m-%d %H:%M', time.localtime(checkpoint.verified))}"


def _zip_size(checkpoint: CheckpointInfo) -> str:
    return "" if checkpoint.zip is None else units.size(checkpoint.zip)


def _verify(run: Run, arguments: argparse.Namespace) -> int:
    """Read everything; what was found is remembered for the list."""
    chosen = checkpoints.listing(run) if arguments.step is None else [_chosen(run, arguments.step)]
    line, pace, total, done = output.ProgressLine(), Pace(), sum(one.bytes for one in chosen), 0
    begun = time.monotonic()

    def on_bytes(count: int) -> None:
        nonlocal done
        done += count
        pace.update(done, total)
        if time.monotonic() - begun > QUICK_SECONDS:
            line.show(f"verify {pace.text('B')}")

    results = []
    for one in chosen:
        damage = checkpoints.verify(checkpoints.folder(run, one.step), on_bytes)
        if not checkpoints.folder(run, one.step).exists():
            continue  # rotated away meanwhile
        try:
            checkpoints.remember_verified(run, one.step, damage)
        except OSError as error:
            line.say(f"what was found cannot be kept: {error.strerror}")
        results.append({"step": one.step, "bytes": one.bytes, "ok": not damage, "damage": damage})
    line.clear()
    if arguments.json:
        output.print_json(results)
    else:
        for result in results:
            output.say(f"checkpoint {result['step']}: " + ("whole" if result["ok"] else f"damaged: {result['damage']}"))
        if not results:
            output.say(f"{run.id} has no checkpoints.")
    return 0 if all(result["ok"] for result in results) else 1


def _zip(run: Run, checkpoint: CheckpointInfo, arguments: argparse.Namespace) -> int:
    if checkpoint.damage:
        raise RequestError(f"checkpoint {checkpoint.step} is damaged: {checkpoint.damage}", "Take another one.")
    output.note(f"packing {units.size(checkpoint.bytes)}")
    target = zip_folder(checkpoints.folder(run, checkpoint.step), checkpoints.archive(run, checkpoint.step))
    if arguments.json:
        output.print_json({"run": run.id, "step": checkpoint.step, "zip": str(target), "bytes": target.stat().st_size})
    else:
        output.say(f"{target} ({units.size(target.stat().st_size)})")
    return 0


def _delete(run: Run, checkpoint: CheckpointInfo, arguments: argparse.Namespace) -> int:
    control.require_deletable(run, checkpoint.step)
    size = units.size(checkpoint.bytes + (checkpoint.zip or 0))
    what = f"checkpoint {checkpoint.step} of {run.id}" + (", the best by validation loss" if checkpoint.best else "")
    if not arguments.yes and not output.may_delete(what, "", size):
        return 0
    freed = control.delete_checkpoint(run, checkpoint.step)
    if arguments.json:
        output.print_json({"run": run.id, "step": checkpoint.step, "freed_bytes": freed})
    else:
        output.say(f"Checkpoint {checkpoint.step} is deleted; {units.size(freed)} are free again.")
    return 0


def _chosen(run: Run, step: int) -> CheckpointInfo:
    for one in checkpoints.listing(run):
        if one.step == step:
            return one
    raise RequestError(f"{run.id} has no checkpoint at step {step}", _there_are(run))


def _there_are(run: Run) -> str:
    return f"There are: {', '.join(map(str, checkpoints.steps(run))) or 'none'}."
