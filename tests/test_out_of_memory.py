"""Out of memory in a run: real errors at chosen moments of a real training, and what the supervisor makes of each."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import recorded_nvml as recorded
import tiny_models
import torch
from in_process import small_recipe, state_of, train_in_process
from runs import wait_for_state
from safetensors.numpy import load_file

from tui_ft.hardware import Hardware
from tui_ft.planning.planner import make_plan
from tui_ft.recipe import Gpu, Memory, Plan, Recipe
from tui_ft.runs import checkpoints, endings, launch, store
from tui_ft.runs.events import EventReader
from tui_ft.runs.store import Run
from tui_ft.worker.trainer import Trainer

GPU_FULL = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
MAIN_FULL = RuntimeError("[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.llama(tmp_path_factory.mktemp("llama"))


def recipe(model: Path, folder: Path, micro: int, effective: int = 4, **sections: dict[str, Any]) -> Recipe:
    """Adam's step is a gradient over its own size, so that a gradient of nearly zero is all rounding: SGD shows what the rows did."""
    train = {"micro_batch": micro, "effective_batch": effective, "optimizer": "sgd", "max_grad_norm": 0.0, "max_steps": 8}
    return small_recipe(model, folder, train=train, method={"dropout": 0.0}, **{"checkpoints": {"every": 3}, **sections})


@contextmanager
def running_out(where: str, error: Exception, when: Callable[[Trainer], bool]) -> Iterator[None]:
    """The error comes out of the trainer's method, in the middle of its work."""
    usual = getattr(Trainer, where)

    def out(self: Trainer, *args: Any, **kwargs: Any) -> Any:
        if when(self):
            raise error
        return usual(self, *args, **kwargs)

    with patch.object(Trainer, where, out):
        yield


def next_attempt(run: Run) -> Plan:
    """What the supervisor does with the attempt that has just ended: its record, its alert, the next plan."""
    attempt = run.attempt()
    record = endings.record(run, attempt, 0, False)
    plan = endings.next_plan(run.plan(attempt), record)
    assert plan is not None, record
    endings.tell_restart(run, attempt, record, 0, max(checkpoints.steps(run), default=0))
    return plan


def assert_same_weights(run: Run, other: Run) -> None:
    ours, theirs = (load_file(each.model / "adapter_model.safetensors") for each in (run, other))
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert np.abs(tensor - theirs[name]).max() <= 1e-5 * np.abs(theirs[name]).max(), name


def from_steps(run: Run) -> list[int]:
    return [event["from_step"] for event in EventReader(run).poll() if event["type"] == "attempt_started"]


@pytest.mark.parametrize(
    ("where", "at", "error", "micro", "effective", "after", "starts"),
    [
        ("training_step", 4, GPU_FULL, 4, 4, (2, 2), [0, 4]),
        ("training_step", 0, MAIN_FULL, 3, 3, (1, 3), [0, 0]),
        ("evaluate", 4, GPU_FULL, 4, 8, (2, 4), [0, 3]),
    ],
    ids=["a step", "the first step, an odd batch, main memory", "an evaluation"],
)
def test_the_micro_batch_is_halved_and_the_result_is_the_same(
    model: Path, tmp_path: Path, where: str, at: int, error: Exception, micro: int, effective: int, after: tuple[int, int], starts: list[int]
) -> None:
    wanted = recipe(model, tmp_path, micro, effective, evaluate={"every": 2})
    with running_out(where, error, lambda trainer: trainer.state.global_step == at and trainer.args.per_device_train_batch_size == micro):
        run = train_in_process(wanted)
        assert endings.last_words(run, 1)["outcome"] == "out-of-memory"
        plan = next_attempt(run)
        assert (plan.micro_batch, plan.accumulation) == after
        train_in_process(run=run, plan=plan.model_dump())
    assert state_of(run).startswith("finished"), state_of(run)
    assert from_steps(run) == starts
    told = [event for event in EventReader(run).poll() if event["type"] == "alert" and event["kind"] == "out-of-memory"]
    words = f"the micro-batch of {micro} ran out of memory; {after[0]} × {after[1]} keeps the same effective batch"
    assert len(told) == 2 and all(words in event["cause"] for event in told), "the attempt that ended tells it, and the one that follows"
    assert_same_weights(run, train_in_process(recipe(model, tmp_path, after[0], effective, evaluate={"every": 2})))
    first, second = json.loads((run.path / "measured.json").read_text())["attempts"]
    assert (first["outcome"], first["rows"], second["outcome"], second["rows"]) == ("out-of-memory", micro, "finished", after[0])
    assert first["cause"] == ("host-oom" if error is MAIN_FULL else "cuda-oom") and second["seconds_per_step"] > 0
    assert second["allocated_bytes"] is None and second["process_bytes"] > 2**27 and 0 < second["largest_length"] <= second["length"]


def test_a_single_row_is_recomputed_then_nothing_is_left(model: Path, tmp_path: Path) -> None:
    wanted = recipe(model, tmp_path, 1)
    with running_out("training_step", GPU_FULL, lambda trainer: not trainer.args.activation_checkpointing):
        run = train_in_process(wanted)
        plan = next_attempt(run)
        assert (plan.micro_batch, plan.activation_checkpointing) == (1, True)
        train_in_process(run=run, plan=plan.model_dump())
    assert_same_weights(run, train_in_process(wanted))
    checkpoints.set_aside(run, 8)  # else there is no step left to do
    with running_out("training_step", GPU_FULL, lambda trainer: True):
        train_in_process(run=run, plan=plan.model_dump())
    record = endings.record(run, 3, 0, False)
    assert endings.next_plan(run.plan(3), record) is None
    assert endings.final(record, 0, False, False)["outcome"] == "failed" and "prompt.max_length" in record["reason"]


def test_a_model_that_cannot_even_be_loaded_is_not_tried_again(model: Path, tmp_path: Path) -> None:
    with patch("tui_ft.worker.train.load.load_model", side_effect=GPU_FULL):
        run = train_in_process(recipe(model, tmp_path, 4))
    said = endings.last_words(run, 1)
    assert (said["outcome"], said["cause"]) == ("failed", "cuda-oom") and "not even model and optimizer fit" in said["reason"]


def test_a_smaller_plan_forecasts_what_is_still_proven() -> None:
    memory = Memory(total_bytes=100, weights=30, adapters=1, gradients=2, optimizer=3, activations=40, head=4, overhead=20, context=5, safety=15)
    plan = Plan(micro_batch=5, accumulation=2, effective_batch=10, precision="bf16", tier="traced", memory=memory, fits=True)
    smaller = endings.next_plan(plan, {"outcome": "out-of-memory", "reason": "full"})
    assert smaller is not None and (smaller.micro_batch, smaller.accumulation, smaller.tier, smaller.fits) == (2, 5, "lower-bound", None)
    assert (smaller.memory.total_bytes, smaller.memory.activations, smaller.memory.overhead) == (41, 0, 5)
    offloading = plan.model_copy(update={"micro_batch": 1, "activation_checkpointing": "offload"})
    assert endings.next_plan(offloading, {"outcome": "out-of-memory", "reason": "full"}) is None


def test_memory_that_others_took_since_the_plan_is_told_when_an_attempt_begins(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a card that is replayed; torch finds none, and trains on the processor."""
    recorded.install(monkeypatch, recorded.RTX_WITH_A_DESKTOP)
    card = recorded.RTX_WITH_A_DESKTOP["cards"][0]
    for planned, told in ((card["free"] + 2**30, 1), (card["free"] + 2**27, 0)):
        gpu = {"name": card["name"], "uuid": card["uuid"], "index": 0, "total_bytes": card["total"], "free_bytes": planned}
        run = train_in_process(recipe(model, tmp_path, 4), plan={"gpu": Gpu.model_validate(gpu)}, stop_at=1)
        alerts = [event for event in EventReader(run).poll() if event["type"] == "alert" and event["kind"] == "memory"]
        assert len(alerts) == told
    assert json.loads((run.path / "measured.json").read_text())["attempts"][0]["gpu"] == card["name"]


PLUG_IN = """
import sys
if "tui_ft.worker" in sys.orig_argv:
    import torch
    from tui_ft.worker.trainer import Trainer
    usual = Trainer.training_step
    def full(self, *args, **kwargs):
        if self.state.global_step == 5 and self.args.per_device_train_batch_size == 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return usual(self, *args, **kwargs)
    Trainer.training_step = full
"""


def test_a_real_run_goes_on_by_itself(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under its supervisor, from four rows to two, each in a process of its own."""
    (tmp_path / "sitecustomize.py").write_text(PLUG_IN)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{Path(__file__).parent.parent}")
    wanted = recipe(model, tmp_path, 4)
    run = store.create(wanted, make_plan(wanted, hardware=Hardware()))
    launch.start(run)
    finished = wait_for_state(run, "finished")
    assert (finished.step, finished.attempt, from_steps(run)) == (8, 2, [0, 3])
    assert [(plan.micro_batch, plan.accumulation) for plan in map(run.plan, (1, 2))] == [(4, 1), (2, 2)]
    assert run.exit_record(1)["outcome"] == "out-of-memory" and finished.alerts[0].kind == "out-of-memory"
    assert_same_weights(run, train_in_process(recipe(model, tmp_path, 2)))
