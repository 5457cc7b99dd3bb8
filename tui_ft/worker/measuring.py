"""What an attempt took, beside what was forecast for it: kept in the run as `measured.json`, from which the next plan learns. No torch by itself."""

from __future__ import annotations

import json
import os
import resource
import sys
from collections import deque
from contextlib import suppress
from statistics import median
from typing import Any

from tui_ft import hardware, home
from tui_ft.errors import TuiFtError
from tui_ft.runs.store import Run, read_json

KEPT = 1000
"""Steps whose times count: the newest, so that a run of a week costs no more memory than one of a minute."""
WARM_UP = 2
"""Steps of an attempt that say nothing of its speed, where there are others: kernels are chosen and memory is fetched in them."""


class Measured:
    """One attempt's entry in the file. What is not known is null; a full disk costs the entry, never the training."""

    def __init__(self, run: Run, attempt: int) -> None:
        self.run = run
        self.attempt = attempt
        self._steps = 0
        self._times: deque[tuple[float, int]] = deque(maxlen=KEPT)
        self._rows, self._length, self._area = 0, 0, 0

    def batch(self, rows: int, length: int) -> None:
        """Take in the shape of one forward pass of the training: the largest decides the peak."""
        if rows * length > self._area:
            self._rows, self._length, self._area = rows, length, rows * length

    def step(self, seconds: float, tokens: int) -> None:
        """Take in one optimizer step, without the evaluation and the saving around it."""
        self._steps += 1
        if self._steps == WARM_UP + 1:
            self._times.clear()
        self._times.append((seconds, tokens))

    def write(self, outcome: str = "running", cause: str = "") -> None:
        """Put this attempt's entry into the file, in place of an earlier one of its own.

        Args:
            outcome: the attempt's own; `running` at a checkpoint, and that is what a killed one leaves.
        """
        with suppress(OSError, TuiFtError):
            file = self.run.path / "measured.json"
            told = read_json(file).get("attempts")
            others = [entry for entry in told if isinstance(entry, dict) and entry.get("attempt") != self.attempt] if isinstance(told, list) else []
            if self.run.path.is_dir():  # a run that was deleted must not come back
                home.write_atomically(file, json.dumps({"attempts": [*others, self._entry(outcome, cause)]}, indent=1))

    def _entry(self, outcome: str, cause: str) -> dict[str, Any]:
        plan, recipe = self.run.plan(self.attempt), self.run.recipe()
        memory, longest = plan.memory, plan.row_length if plan.packing else plan.longest
        seconds = sum(seconds for seconds, _ in self._times)
        return {
            "attempt": self.attempt,
            "outcome": outcome,
            "cause": cause,
            "gpu": plan.gpu.name if plan.gpu else None,
            "tier": plan.tier,
            "predicted_bytes": memory.total_bytes - memory.overhead if memory.total_bytes else None,
            "predicted_total_bytes": memory.total_bytes or None,
            **peaks(),
            "predicted_seconds_per_step": plan.seconds / plan.steps if plan.seconds and plan.steps else None,
            "seconds_per_step": median(seconds for seconds, _ in self._times) if self._times else None,
            "tokens_per_second": sum(tokens for _, tokens in self._times) / seconds if seconds else None,
            "flops_per_token": plan.flops_per_token,
            "rows": plan.micro_batch,
            "length": longest or recipe.prompt.max_length,
            "largest_rows": self._rows or None,
            "largest_length": self._length or None,
            "rank": recipe.method.r if recipe.method.kind == "lora" else None,
            "packed": plan.packing,
            "setup": plan.setup,
            "model": recipe.model.name,
            "steps": self._steps,
        }


def peaks() -> dict[str, int | None]:
    """The most that this process has held: by torch's allocator and in the driver's count on a GPU, resident in main memory without one."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        return {
            "allocated_bytes": torch.cuda.max_memory_allocated(),
            "reserved_bytes": torch.cuda.max_memory_reserved(),
            "process_bytes": hardware.held_by(os.getpid()),
        }
    return {"allocated_bytes": None, "reserved_bytes": None, "process_bytes": resident_peak()}


def resident_peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
