"""A real training in the test's own process, stopped at an exact step: the worker's imports cost eight seconds, once in place of each time.

For whoever asks whether a stop leaves a trace: `whole = train_in_process(r)`, then `run = train_in_process(r, stop_at=7)` and
`train_in_process(r, run=run)` must end in the same `weights`. A training takes some tenths of a second.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from data_material import chats, write_rows
from transformers import TrainerControl, TrainerState

from tui_ft.hardware import Hardware
from tui_ft.planning.planner import make_plan
from tui_ft.recipe import Plan, Recipe
from tui_ft.recipe.files import validate
from tui_ft.runs import store
from tui_ft.runs.commands import Command, send
from tui_ft.runs.progress import Progress
from tui_ft.runs.store import Run
from tui_ft.worker import __main__ as worker
from tui_ft.worker.conductor import Conductor

FEATURES: dict[str, dict[str, dict[str, Any]]] = {
    "full": {"method": {"kind": "full"}},
    "lora": {"method": {"dropout": 0.1}},
    "nf4": {"method": {"quantization": "nf4", "dropout": 0.1}},
    "packing": {"train": {"packing": True, "effective_batch": 8}, "prompt": {"max_length": 256}, "method": {"dropout": 0.1}},
    "length-grouped": {"train": {"length_grouped": True}, "method": {"dropout": 0.1}},
    "accumulation": {"train": {"micro_batch": 1}, "method": {"dropout": 0.1}},
    "data-workers": {"plan": {"data_workers": 2}, "method": {"dropout": 0.1}},
    "evaluation": {"evaluate": {"every": 2}, "method": {"dropout": 0.1}},
}
"""What a stop must leave no trace in, each as sections of a recipe; `plan` are values of the plan."""
STEPS = 12
"""Of a training that says nothing else: a little over two epochs of five steps."""


def small_recipe(model: Path, folder: Path, **sections: dict[str, Any]) -> Recipe:
    """Twelve steps of four chats each on a small model, unless a section says otherwise; its data are written into `folder`."""
    rows = chats(22)
    for number, row in enumerate(rows):
        row["messages"][1]["content"] += " and so on" * (number * 7 % 5)  # else there would be nothing to group by length
    return validate(
        {
            "name": "small",
            "model": {"name": str(model)},
            "data": {"source": str(write_rows(folder / "chats.jsonl", rows)), "validation": 0.1, **sections.get("data", {})},
            "prompt": {"template": "chatml", "max_length": 128, **sections.get("prompt", {})},
            "method": {"kind": "lora", "r": 4, "alpha": 32, **sections.get("method", {})},
            "train": {
                "max_steps": STEPS,
                "effective_batch": 4,
                "micro_batch": 2,
                "learning_rate": 1e-2,
                "length_grouped": False,
                **sections.get("train", {}),
            },
            "evaluate": {"every": "never", **sections.get("evaluate", {})},
            "checkpoints": {"every": 100, "keep": 2, **sections.get("checkpoints", {})},
            "output": sections.get("output", {}),
        }
    )


def train_in_process(
    recipe: Recipe | None = None, *, run: Run | None = None, stop_at: int | None = None, plan: Plan | dict[str, Any] | None = None
) -> Run:
    """One attempt, from its first event to its last: the first of a new run of `recipe`, or the next one of `run`.

    Args:
        stop_at: at the end of this optimizer step a stop command lies in the run's inbox, as `tui-ft stop` writes it.
        plan: the whole one of a new run, or what it shall say otherwise than the planner, or than the attempt before, did.
    """
    changes = plan if isinstance(plan, dict) else {}
    if run is None:
        assert recipe is not None
        made = plan if isinstance(plan, Plan) else make_plan(recipe, hardware=Hardware()).model_copy(update=changes)
        run = store.create(recipe, made)
        attempt = 1
    else:
        attempt = run.attempt() + 1
        run.write_plan(attempt, Plan.model_validate({**run.plan().model_dump(), "from_step": None, "settings": {}, "accepted": [], **changes}))
    with own_process(), _stopping(run, attempt, stop_at):
        sys.argv = ["worker", str(run.path), str(attempt)]
        worker.main()
    return run


def state_of(run: Run) -> str:
    """The state that the worker left, with its reason."""
    progress = Progress.read(run)
    return f"{progress.state}: {progress.reason}"


@contextmanager
def _stopping(run: Run, attempt: int, step: int | None) -> Iterator[None]:
    """Write the command at the step's end, just before the worker looks into its inbox: a terminal could not time it so."""
    if step is None:
        yield
        return
    step_end = Conductor.step_end

    def stopping(self: Conductor, state: TrainerState, control: TrainerControl) -> None:
        if state.global_step == step:
            send(run, Command(name="stop", attempt=attempt))
        step_end(self, state, control)

    with patch.object(Conductor, "step_end", stopping):
        yield


@contextmanager
def own_process() -> Iterator[None]:
    """A worker changes the process that it has to itself; all of it is taken back."""
    import huggingface_hub.constants

    environment, mask = dict(os.environ), os.umask(0o077)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with ExitStack() as kept:
        for name in ("argv", "stdout", "stderr"):
            kept.enter_context(patch.object(sys, name, getattr(sys, name)))
        kept.enter_context(patch.object(huggingface_hub.constants, "HF_HUB_OFFLINE", True))
        try:
            yield
        finally:
            torch.set_num_threads(threads)
            os.umask(mask)
            for number, handler in handlers.items():
                signal.signal(number, handler)
            os.environ.clear()
            os.environ.update(environment)
