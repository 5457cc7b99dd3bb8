"""How a run begins, for the wizard and the command line alike: check, plan, create, launch."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace

from tui_ft import units
from tui_ft.errors import ConfigError, Problem, RequestError, TuiFtError
from tui_ft.findings import Finding
from tui_ft.hardware import Hardware, read
from tui_ft.planning import data_facts, device, forecasts, history, model_facts, preflight
from tui_ft.planning.data_facts import DataFacts
from tui_ft.planning.forecast import Fit, Setup
from tui_ft.planning.model_facts import ModelFacts
from tui_ft.planning.planner import make_plan, setups_wanted
from tui_ft.recipe import Plan, Recipe
from tui_ft.runs import launch, queue, store
from tui_ft.runs.store import Run

TRACE_SECONDS = 60.0
"""So long a start waits for a forecast at most."""


@dataclass(frozen=True)
class Ready:
    """A recipe that passed its checks, with what it became on this machine."""

    recipe: Recipe
    plan: Plan
    warnings: list[Finding]


def get_ready(
    recipe: Recipe,
    *,
    hardware: Hardware | None = None,
    force: bool = False,
    trust: dict[str, str] | None = None,
    data: DataFacts | None = None,
    queued: bool = False,
    when_free: int | None = None,
) -> Ready:
    """Check a recipe with absolute paths and plan it: some seconds, in which two children look at the model and the data. Writes nothing.

    Args:
        force: start although the plan says that it does not fit.
        data: what a preview of this very recipe found, its data as they are now; another is not made.
        trust: as in `start_run`. A model that needs its own code is not looked into before it runs, so nothing is said of its memory.
        queued, when_free: as in `start_run`. Such a run is planned for the GPU as it will be when its turn comes: empty, or that free.

    Raises:
        RequestError: the model is unknown or cannot be trained, or nothing can be learned from the data.
        ConfigError: all that is wrong, at once.
    """
    hardware = hardware or read()
    if queued:
        hardware = _emptied(hardware, when_free)
    findings = preflight.check(recipe, hardware)
    _refuse(findings)
    facts, seen = _look(recipe, look_at_model=recipe.model.name not in (trust or {}), look_at_data=data is None)
    data = data or seen
    _refuse(data.errors if data else [])
    plan, notes = _planned(recipe, facts, hardware, data)
    room = list(preflight.disk_space(recipe, plan))  # once more: the model's size may be known only now
    _refuse(room)
    if plan.fits is False and not force:
        raise ConfigError([Problem("hardware", plan.reasons["fits"], "--force tries all the same.")])
    of_data = data.findings if data else ()
    warnings = [finding for finding in [*findings, *of_data, *room] if finding.severity == "warning" and finding.where != "plan"]
    warnings += [Finding("warning", "plan", warning) for warning in plan.warnings]  # this plan's: the check's own knew less of the model
    return Ready(recipe, plan, list(dict.fromkeys([*warnings, *notes])))


def _planned(recipe: Recipe, facts: ModelFacts | None, machine: Hardware, data: DataFacts | None) -> tuple[Plan, list[Finding]]:
    """The plan with forecasts: those that are known, and on a GPU, where they decide whether it fits, those that a trace brings in time.

    A trace that fails or takes too long is no reason not to start: the plan says what it is made of, and the note why.
    """
    wanted = setups_wanted(recipe, facts=facts, hardware=machine)
    gpu = device.choose(recipe, machine, None).gpu
    known = forecasts.known(recipe.model, facts, wanted, gpu.name if gpu else "")
    past = history.read()
    plan = make_plan(recipe, facts=facts, hardware=machine, data=data, forecasts=known, history=past)
    if plan.gpu is None or plan.tier != "lower-bound" or plan.fits is False:
        return plan, []
    note = f"the memory could not be forecast within {TRACE_SECONDS:.0f} s, and the plan is a lower bound"
    enough = threading.Event()

    def take_in(setup: Setup, fit: Fit) -> None:
        nonlocal plan
        known[setup] = fit
        plan = make_plan(recipe, facts=facts, hardware=machine, data=data, forecasts=known, history=past)
        if plan.fits and not plan.activation_checkpointing and plan.micro_batch == plan.effective_batch:
            enough.set()  # nothing that is still to come could be faster

    try:
        own = setups_wanted(recipe, facts=facts, hardware=machine, alternatives=False)
        forecasts.trace(recipe.model, forecasts.missing(recipe.model, own), on_fit=take_in, cancelled=enough, timeout=TRACE_SECONDS)
    except TuiFtError as error:
        note = f"the memory could not be forecast: {error.message}"
    return plan, [Finding("warning", "plan", note, "`tui-ft plan` takes as long as it needs.")] if plan.tier == "lower-bound" and facts else []


def _emptied(hardware: Hardware, when_free: int | None) -> Hardware:
    """The machine as a queued run will find it: others of ours have left the GPU, and so much is free."""
    return replace(hardware, gpus=tuple(replace(gpu, free_bytes=min(gpu.total_bytes, when_free or gpu.total_bytes)) for gpu in hardware.gpus))


def _look(recipe: Recipe, *, look_at_model: bool, look_at_data: bool) -> tuple[ModelFacts | None, DataFacts | None]:
    """Model and data at once, since each takes seconds of imports. A complaint about the model ends the look at the data."""
    cancelled = threading.Event()
    with ThreadPoolExecutor(2) as pool:
        try:
            of_model = pool.submit(model_facts.facts, recipe.model, cancelled=cancelled) if look_at_model else None
            of_data = pool.submit(data_facts.look, recipe, cancelled=cancelled) if look_at_data else None
            facts = of_model.result() if of_model else None
            data = of_data.result() if of_data else None
        finally:
            cancelled.set()
    return facts, data


def _refuse(findings: list[Finding]) -> None:
    errors = [Problem(finding.where, str(finding), finding.hint) for finding in findings if finding.severity == "error"]
    if errors:
        raise ConfigError(errors)


def start_run(
    recipe: Recipe,
    *,
    force: bool = False,
    trust: dict[str, str] | None = None,
    data: DataFacts | None = None,
    queued: bool = False,
    when_free: int | None = None,
    on_warning: Callable[[Finding], None] = lambda _: None,
) -> Run:
    """Check, plan, create the run's directory and launch its supervisor.

    Args:
        trust: repositories whose own Python code may run, each with the commit that was read.
        data: as in `get_ready`.
        queued: wait until no other run has the GPU.
        when_free: bytes that must be free on the GPU before a queued run begins; by default what the plan needs.
        on_warning: is given each warning, before the run begins.

    Raises:
        RequestError: the recipe cannot work, or its GPU is another run's; nothing was written.
        TuiFtError: the directory or the process could not be made.
    """
    wanted = {"queued": queued, "when_free": when_free, "shared": force and not queued}
    with suppress(ConfigError):  # told in full below
        _check_device(make_plan(recipe).model_copy(update=wanted))  # before seconds are spent on a look at model and data
    ready = get_ready(recipe, force=force, trust=trust, data=data, queued=queued, when_free=when_free)
    plan = ready.plan.model_copy(update=wanted)
    _check_device(plan)
    for warning in ready.warnings:
        on_warning(warning)
    run = store.create(ready.recipe, plan, trust)
    launch.start(run)
    return run


def _check_device(plan: Plan) -> None:
    """Refuse a device that is another run's, and to wait for what can never be.

    Raises:
        InUse: another run holds it, and this one is neither to wait nor to share.
        RequestError: `when_free` is asked for without a GPU, or is more than the GPU has.
    """
    if plan.when_free is not None and plan.gpu is None:
        raise RequestError("--when-free speaks of a GPU's memory, and there is none here", "--queue alone waits until no other run trains.")
    if plan.when_free is not None and plan.gpu and plan.when_free > plan.gpu.total_bytes:
        total = units.size(plan.gpu.total_bytes)
        raise RequestError(f"{units.size(plan.when_free)} can never be free: {plan.gpu.name} has {total} in all", f"Ask for less than {total}.")
    queue.check_free(plan)


def parse_trust(consents: list[str]) -> dict[str, str]:
    """`["org/model@<40 hex digits>"]` → {"org/model": commit}.

    Raises:
        RequestError: not of that form; a branch would let the code change after it was read.
    """
    parsed = {}
    for consent in consents:
        repository, _, commit = consent.rpartition("@")
        if not repository or not re.fullmatch(r"[0-9a-f]{40}", commit):
            raise RequestError(
                f"--trust-remote-code {consent} is not REPO@COMMIT with all 40 digits of a commit", "A branch could change after you read it."
            )
        parsed[repository] = commit
    return parsed
