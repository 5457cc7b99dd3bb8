"""Queued runs without a training: real supervisors, locks and signals, with a worker and a driver of a few lines in place of theirs."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import recorded_nvml

from tui_ft.recipe import Gpu, Memory, Plan, presets
from tui_ft.runs import launch, store
from tui_ft.runs.store import Run
from tui_ft.runs.summary import Summary, summarize

GIB = 2**30
CARD = "Card 10"
TINY_WORKER = """
import json, os, sys, time
argv = sys.orig_argv
if "tui_ft.worker" in argv:
    at = argv.index("tui_ft.worker")
    run, attempt = argv[at + 1 : at + 3]
    def tell(what):
        with open(os.environ["TINY_TOLD"], "a") as file:
            file.write(json.dumps({"what": what, "run": os.path.basename(run), "t": time.monotonic(), "given": argv[at + 2 :]}) + "\\n")
    tell("begin")
    time.sleep(0.1)
    while os.path.exists(os.path.join(run, "hold")):
        time.sleep(0.02)
    tell("end")
    with open(os.path.join(run, "events", attempt + ".jsonl"), "a") as file:
        file.write(json.dumps({"type": "attempt_ended", "outcome": "finished", "reason": "", "cause": "done"}) + "\\n")
    os._exit(0)
if "tui_ft.results.report" in argv:
    os._exit(0)
"""
"""Tells when it begins and ends; with a file `hold` in the run's folder it lasts until that is gone."""


class Waiters:
    """Makes and starts runs whose worker is tiny."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.monkeypatch = monkeypatch
        self.told_file = folder / "told"
        (folder / "sitecustomize.py").write_text(TINY_WORKER)
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")])))
        monkeypatch.setenv("TINY_TOLD", str(self.told_file))

    def driver(self) -> None:
        """From here on children see the cards that `cards` writes."""
        recorded_nvml.install_for_children(self.folder, self.monkeypatch)

    def cards(self, *free: float, names: tuple[str, ...] = (), processes: tuple[tuple[int, int], ...] = ()) -> None:
        """One card of 10 GiB for each number of GiB that is free."""
        cards = [
            {"uuid": f"GPU-{i}", "name": names[i] if names else CARD, "total": 10 * GIB, "free": round(f * GIB), "compute": processes}
            for i, f in enumerate(free)
        ]
        recorded_nvml.tell(self.folder, {"driver": "550", "cards": cards})

    def create(self, *, queued: bool = True, hold: bool = False, card: int | None = None, name: str = CARD, **changes: Any) -> Run:
        """A run; with `card` on that GPU, else on the processor. With `hold` its worker lasts until `let_go`."""
        gpu = None if card is None else Gpu(name=name, total_bytes=10 * GIB, free_bytes=10 * GIB, index=card, uuid=f"GPU-{card}")
        memory = Memory(total_bytes=4 * GIB)
        plan = Plan(micro_batch=1, accumulation=1, effective_batch=1, precision="fp32", gpu=gpu, memory=memory, queued=queued, **changes)
        run = store.create(presets.open_recipe("demo"), plan)
        if hold:
            (run.path / "hold").touch()
        return run

    def start(self, **how: Any) -> Run:
        run = self.create(**how)
        launch.start(run)
        return run

    def told(self) -> list[dict[str, Any]]:
        """What the workers told, in the order in which they did."""
        return [json.loads(line) for line in self.told_file.read_text().splitlines()] if self.told_file.exists() else []

    def began(self) -> list[str]:
        return [item["run"] for item in self.told() if item["what"] == "begin"]


def let_go(run: Run) -> None:
    (run.path / "hold").unlink(missing_ok=True)


def until(true: Callable[[], object], seconds: float = 15.0) -> None:
    """Wait for a condition, not for a time."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not come to it"
        time.sleep(0.02)


def until_state(run: Run, state: str, seconds: float = 15.0) -> Summary:
    until(lambda: summarize(run).state == state, seconds)
    return summarize(run)
