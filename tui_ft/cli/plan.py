"""`tui-ft plan`: what a recipe becomes on this machine, and how right earlier plans were."""

from __future__ import annotations

import argparse
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from tui_ft import units
from tui_ft.cli import output
from tui_ft.errors import RequestError, TuiFtError
from tui_ft.recipe import Plan, Recipe, presets
from tui_ft.recipe.plan import Memory, Option
from tui_ft.recipe.schema import parse_bytes

if TYPE_CHECKING:
    from tui_ft.hardware import Hardware
    from tui_ft.planning.data_facts import DataFacts
    from tui_ft.planning.forecast import Fit, Setup
    from tui_ft.planning.history import History, Measured
    from tui_ft.planning.model_facts import ModelFacts

QUICK_SECONDS = 2.0
"""What takes no longer shows no progress."""
BAR = 40
"""Characters."""
PARTS = {
    "weights": "█", "adapters": "▉", "gradients": "▓", "optimizer": "▒", "activations": "▚", "head": "▞", "context": "░", "safety": "·",
}  # fmt: skip


def plan(arguments: argparse.Namespace) -> int:
    recipe = presets.open_recipe(arguments.recipe, arguments.set) if arguments.recipe else None
    if arguments.history:
        return _history(recipe, arguments.json)
    if recipe is None:
        raise RequestError("plan needs a RECIPE", "`tui-ft presets` lists those there are; --history alone tells of earlier runs.")
    made = _made(recipe, arguments)
    if arguments.json:
        output.print_json(made)
    else:
        _print_plan(recipe, made)
    return 0


def _made(recipe: Recipe, arguments: argparse.Namespace) -> Plan:
    from tui_ft import hardware
    from tui_ft.planning import device, forecasts, history, model_facts, planner

    assumed = _assumed(arguments.gpu_memory)
    machine = hardware.read()
    if arguments.measure and not machine.gpus:
        raise RequestError(f"--measure runs on a GPU: {machine.note}", "Leave it out: a forecast without a GPU is within some percent.")
    line = output.ProgressLine()
    try:
        if arguments.instant:
            facts, data = model_facts.facts(recipe.model, compute=False), None
        else:
            if line.in_place:
                line.show(f"looking at {recipe.model.name}")
            facts, data = _look(recipe)
        asked = _Asked(recipe, facts, machine, assumed, data, history.read())
        wanted = planner.setups_wanted(recipe, facts=facts, hardware=machine, gpu_memory=assumed)
        gpu = device.choose(recipe, machine, assumed).gpu
        known = forecasts.known(recipe.model, facts, wanted, gpu.name if gpu else "")
        if not arguments.instant:
            known |= _traced(recipe, wanted, measure_on=gpu.name if gpu and arguments.measure else "", line=line)
    finally:
        line.clear()
    return asked.plan(known)


def _assumed(size: str | None) -> int | None:
    try:
        return parse_bytes(size) if size else None
    except ValueError as error:
        raise RequestError(f"--gpu-memory: {error}") from None


@dataclass(frozen=True)
class _Asked:
    """All that decides the plan but the forecasts."""

    recipe: Recipe
    facts: ModelFacts | None
    machine: Hardware
    assumed: int | None
    data: DataFacts | None
    history: History

    def plan(self, known: dict[Setup, Fit]) -> Plan:
        from tui_ft.planning.planner import make_plan

        return make_plan(
            self.recipe,
            facts=self.facts,
            hardware=self.machine,
            gpu_memory=self.assumed,
            data=self.data,
            forecasts=known,
            history=self.history,
        )


def _look(recipe: Recipe) -> tuple[ModelFacts | None, DataFacts | None]:
    """Model and data at once, since each takes seconds of imports. Data that cannot be looked at is a note: the plan goes without."""
    from tui_ft.planning import model_facts

    cancelled = threading.Event()
    with ThreadPoolExecutor(2) as pool:
        try:
            of_data = pool.submit(_data, recipe, cancelled)
            return model_facts.facts(recipe.model), of_data.result()
        finally:
            cancelled.set()


def _data(recipe: Recipe, cancelled: threading.Event) -> DataFacts | None:
    """Of data that lie on this machine."""
    from tui_ft import demo
    from tui_ft.planning import data_facts

    if not (recipe.data.source == demo.NAME or Path(recipe.data.source).exists()):
        return None
    try:
        found = data_facts.look(recipe, cancelled=cancelled)
    except TuiFtError as error:
        output.note(f"the rows could not be counted: {error.message}")
        return None
    for finding in found.errors if found else ():
        output.note(f"a run would be refused: {finding}")
    return found


def _traced(recipe: Recipe, wanted: list[Setup], *, measure_on: str, line: output.ProgressLine) -> dict[Setup, Fit]:
    """The forecasts that are not known yet; what cannot be had is a note."""
    from tui_ft.planning import forecasts

    missing = forecasts.missing(recipe.model, wanted, measured_on=measure_on)
    begun = time.monotonic()
    arrived = 0

    def count(*_: object) -> None:
        nonlocal arrived
        arrived += 1
        if time.monotonic() - begun > QUICK_SECONDS:
            line.show(f"{'measuring' if measure_on else 'tracing'} memory: {arrived} of {len(missing)} settings")

    try:
        return forecasts.trace(recipe.model, missing, on_fit=count, on_refusal=count, measure=bool(measure_on), gpu=measure_on)
    except TuiFtError as error:
        line.say(f"the memory could not be forecast: {error.message}")
        return {}


_RESOLVED = (
    "micro_batch", "accumulation", "precision", "optimizer", "attention", "packing", "row_length", "length_grouped",
    "activation_checkpointing", "steps",
)  # fmt: skip


def _print_plan(recipe: Recipe, made: Plan) -> None:
    output.say(f"{recipe.name} on {made.gpu.name if made.gpu else 'the CPU'}  [{made.tier}]")
    _print_memory(made)
    for key in _RESOLVED:
        if (value := getattr(made, key)) is not None or key in made.reasons:
            _print_value(key, value, made.reasons.get(key, ""))
    output.say(f"  effective batch: {made.effective_batch}")
    if made.tokens_per_step:
        _print_value("tokens a step", f"{made.tokens_per_step:,}", made.reasons.get("tokens_per_step", ""))
    if made.parameters:
        output.say(f"  parameters: {made.trainable_parameters or 0:,} of {made.parameters:,} trainable")
    if made.seconds is not None and made.seconds_range is not None:
        low, high = map(units.duration, made.seconds_range)
        _print_value("time", f"about {units.duration(made.seconds)}, {low} to {high}", made.reasons.get("seconds", ""))
    elif "seconds" in made.reasons:
        _print_value("time", "–", made.reasons["seconds"])
    output.say(f"  disk: {units.size(made.disk_bytes)}")
    for warning in made.warnings:
        output.say(f"  warning: {warning}")
    _print_options(made.options)


def _print_value(name: str, value: object, reason: str) -> None:
    output.say(f"  {name}: {value}" + (f"  ({reason})" if reason else ""))


def _print_memory(made: Plan) -> None:
    memory = made.memory
    if not memory.total_bytes:
        output.say(f"  memory: {made.reasons.get('memory', 'not known')}")
        return
    free = made.gpu.free_bytes if made.gpu else None
    share = f", {100 * memory.total_bytes / free:.0f} % of the {units.size(free)} that may be used" if free else ""
    verdict = {True: ": fits", False: ": does not fit", None: ""}[made.fits]
    at_least = "at least " if made.tier == "lower-bound" else ""
    output.say(f"  memory: {at_least}{units.size(memory.total_bytes)}{share}{verdict}")
    output.say(f"    [{_bar(memory, free)}]")
    sizes = [f"{sign} {name} {units.size(getattr(memory, name))}" for name, sign in PARTS.items() if getattr(memory, name)]
    output.say(f"    {'  '.join(sizes)}")
    output.say(f"    {made.reasons.get('memory', '')}")


def _bar(memory: Memory, free: int | None) -> str:
    """The parts in proportion, then what stays free; as long as the larger of need and room."""
    whole = max(memory.total_bytes, free or 0)
    drawn, filled = "", 0.0
    for name, sign in PARTS.items():
        filled += getattr(memory, name) / whole * BAR
        drawn += sign * (round(filled) - len(drawn))
    return drawn.ljust(BAR)


def _print_options(options: list[Option]) -> None:
    if not options:
        return
    output.say("  to make it fit:" if options[0].remedy else "  otherwise:")
    for before, option in zip([None, *options], options, strict=False):
        if before is not None and before.remedy and not option.remedy:
            output.say("  otherwise:")
        output.say(f"    {option.text}")
        output.say(f"      {' '.join(f'--set {key}={_written(value)}' for key, value in option.changes.items())}")


def _written(value: object) -> str:
    """As `--set` reads it."""
    return yaml.safe_dump(value, default_flow_style=True).removesuffix("\n...\n").strip()


def _history(recipe: Recipe | None, as_json: bool) -> int:
    from tui_ft.planning import history

    rows = [row for row in history.read().rows if recipe is None or row.model == recipe.model.name]
    errors = {"memory": history.summary(row.memory_error for row in rows), "seconds": history.summary(row.time_error for row in rows)}
    if as_json:
        told = [{**row.model_dump(mode="json"), "memory_error": row.memory_error, "time_error": row.time_error} for row in rows]
        output.print_json({"attempts": told, "errors": {name: _mean_and_worst(error) for name, error in errors.items()}})
        return 0
    if not rows:
        output.say("No run has recorded what it took yet.")
        return 0
    head = ("RUN", "ATTEMPT", "DEVICE", "TIER", "OUTCOME", "PREDICTED", "ALLOCATED", "RESERVED", "PROCESS", "ERROR", "S/STEP", "PREDICTED", "ERROR")
    output.table([_cells(row) for row in rows], head)
    for name, error in errors.items():
        if error is not None:
            output.say(f"{name}: mean error {100 * error[0]:.1f} %, worst {_percent(error[1])}")
    return 0


def _cells(row: Measured) -> tuple[object, ...]:
    sizes = (row.predicted_bytes, row.allocated_bytes, row.reserved_bytes, row.process_bytes)
    seconds = (output.number(row.seconds_per_step, 3), output.number(row.predicted_seconds_per_step, 3))
    begin = (row.run, row.attempt, row.gpu or "CPU", row.tier, row.outcome)
    return (*begin, *map(units.size, sizes), _percent(row.memory_error), *seconds, _percent(row.time_error))


def _percent(error: float | None) -> str:
    return "–" if error is None else f"{100 * error:+.1f} %"


def _mean_and_worst(error: tuple[float, float] | None) -> dict[str, float] | None:
    return {"mean": error[0], "worst": error[1]} if error else None
