"""Driving real runs through the public doors: the command line and the run directory."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tui_ft.planning.planner import make_plan
from tui_ft.recipe import presets
from tui_ft.runs import checkpoints, launch, store
from tui_ft.runs.events import EventReader
from tui_ft.runs.store import Run
from tui_ft.runs.summary import Summary, summarize

WAIT_SECONDS = 180.0
COMMAND = [sys.executable, "-m", "tui_ft"]


def tui_ft(*arguments: str, code: int = 0, text: str | None = None, **env: str) -> subprocess.CompletedProcess[str]:
    """Run one command to its end and check its exit code."""
    done = subprocess.run(
        [*COMMAND, *arguments], input=text, stdin=None if text is not None else subprocess.DEVNULL, capture_output=True, encoding="utf-8",
        timeout=WAIT_SECONDS, env={**os.environ, **env}, check=False,
    )  # fmt: skip
    assert done.returncode == code, f"exit code {done.returncode} instead of {code}\n{done.stdout}\n{done.stderr}"
    return done


def tui_ft_json(*arguments: str, code: int = 0) -> Any:
    return json.loads(tui_ft(*arguments, "--json", code=code).stdout)


def start(preset: str, *settings: str) -> Run:
    """A run by the doors below the command line, without its look at model and data first: seconds less for each test.

    `settings` are as on the command line: "--set", "a.b=c", …
    """
    recipe = presets.open_recipe(preset, settings[1::2])
    run = store.create(recipe, make_plan(recipe))
    launch.start(run)
    return run


def wait_for(run: Run, condition: Callable[[Summary], bool]) -> Summary:
    """The first summary that meets the condition; fails with the run's log when it never comes."""
    deadline = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline:
        summary = summarize(run)
        if condition(summary):
            return summary
        if summary.state in ("failed", "lost", "finished", "stopped") and not condition(summary):
            break
        time.sleep(0.05)
    errors = "".join(file.read_text(errors="replace")[-3000:] for file in sorted(run.logs.glob("*.err")))
    raise AssertionError(f"{summarize(run)}\n{errors}")


def wait_for_state(run: Run, *states: str) -> Summary:
    return wait_for(run, lambda summary: summary.state in states)


def wait_for_step(run: Run, step: int) -> None:
    """Return as soon as the events tell of that step; the status is only written once a second."""
    reader = EventReader(run)
    wait_for(run, lambda _: any(event["type"] == "step" and event["step"] >= step for event in reader.poll()))


def worker_pid(run: Run) -> int:
    """The process id of the running worker, found as a person would find it."""
    import psutil

    owner = run.owner()
    assert owner is not None
    workers = [child for child in psutil.Process(owner[0].pid).children() if "tui_ft.worker" in child.cmdline()]
    assert len(workers) == 1
    return workers[0].pid


def weights(folder: Path) -> dict[str, bytes]:
    """Every tensor of a saved model or adapter, as bytes, so that equal means bit for bit."""
    from safetensors import safe_open

    files = sorted(folder.glob("*.safetensors"))
    assert files, f"{folder} holds no weights"
    found = {}
    for file in files:
        with safe_open(file, framework="np") as tensors:
            found.update({name: tensors.get_tensor(name).tobytes() for name in tensors.keys()})  # noqa: SIM118 - not a dict
    return found


SMALL_LORA = [
    "demo", "--set", "method.kind=lora", "--set", "method.r=4", "--set", "method.dropout=0.05", "--set", "method.targets=all-linear",
    "--set", "train.micro_batch=2", "--set", "train.effective_batch=4", "--set", "evaluate.samples=[]",
]  # fmt: skip
"""A LoRA with dropout on the demo's model and data: 19 steps an epoch, a tenth of a second each."""


def republish(run: Run, step: int, change: Callable[[Path], Any], **facts: Any) -> None:
    """A checkpoint as somebody leaves it who knows how it is made: changed, with hashes that fit again, other facts in its manifest."""
    checkpoint = checkpoints.folder(run, step)
    told = {**json.loads((checkpoint / checkpoints.MANIFEST).read_text()), **facts}
    staged = checkpoints.staging(run)
    shutil.copytree(checkpoint, staged, dirs_exist_ok=True)
    (staged / checkpoints.MANIFEST).unlink()
    change(staged)
    checkpoints.publish(staged, run, step, {key: value for key, value in told.items() if key not in ("format", "step", "files", "self")})
    assert not checkpoints.verify(checkpoint)
