"""What earlier runs took, against what had been forecast: the errors to look at, and what the next plan learns from them.

A run's worker writes `measured.json`: predicted and measured bytes and seconds of each attempt.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tui_ft.planning.forecast import Setup
from tui_ft.recipe.plan import Tier
from tui_ft.runs import store
from tui_ft.runs.store import read_json

FILE = "measured.json"
OUT_OF_MEMORY = "out-of-memory"
RUNS = 200
"""So many of the newest runs are looked at."""
RECENT = 20
"""So many of the newest matching attempts are learned from."""
WORST_FACTOR = 1.5
"""Beyond it a measurement says nothing of a forecast: something else was trained than planned."""
MET = 0.95
"""A batch of so many of the forecast's tokens was met, or its memory says nothing of the forecast."""
LIKE = 8.0
"""A run counts for the speed of another if a token costs at most so many times more or less: small models leave a GPU idle."""


class Measured(BaseModel):
    """One attempt. Bytes and seconds; None: not told, or nothing like it on this device."""

    model_config = ConfigDict(extra="ignore", frozen=True, protected_namespaces=())

    run: str = ""
    attempt: int = Field(1, ge=0)
    gpu: str | None = None
    model: str = ""
    tier: Tier = "lower-bound"
    outcome: str = ""
    predicted_bytes: int | None = Field(None, ge=0, description="Of tensors alone.")
    predicted_total_bytes: int | None = Field(None, ge=0, description="With context and safety.")
    allocated_bytes: int | None = Field(None, ge=0)
    reserved_bytes: int | None = Field(None, ge=0)
    process_bytes: int | None = Field(None, ge=0)
    predicted_seconds_per_step: float | None = Field(None, ge=0, allow_inf_nan=False)
    seconds_per_step: float | None = Field(None, ge=0, allow_inf_nan=False)
    tokens_per_second: float | None = Field(None, ge=0, allow_inf_nan=False)
    flops_per_token: float | None = Field(None, ge=0, allow_inf_nan=False)
    rows: int | None = Field(None, ge=1)
    length: int | None = Field(None, ge=1)
    largest_rows: int | None = Field(None, ge=1, description="Of the largest batch that was met.")
    largest_length: int | None = Field(None, ge=1)
    rank: int | None = Field(None, ge=0)
    packed: bool = False
    setup: Setup | None = None

    @property
    def tokens(self) -> int:
        """Of the largest batch that was met, padding included; of the one that was planned for, where that is not known."""
        return (self.largest_rows or 0) * (self.largest_length or 0) or (self.rows or 0) * (self.length or 0)

    @property
    def memory_error(self) -> float | None:
        """Predicted against allocated tensors, as a share: 0.02 says two percent too much. None where one of them is missing."""
        if not self.predicted_bytes or not self.allocated_bytes or self.tier == "lower-bound" or self.outcome == OUT_OF_MEMORY:
            return None  # out of memory, it never held what it needed; a lower bound does not claim to be right
        met = (self.largest_rows or 0) * (self.largest_length or 0)
        if met and not self.packed and met < MET * (self.rows or 0) * (self.length or 0):
            return None  # the batch that was forecast has not come yet
        return self.predicted_bytes / self.allocated_bytes - 1

    @property
    def time_error(self) -> float | None:
        """Predicted against measured seconds a step, as a share."""
        if not self.predicted_seconds_per_step or not self.seconds_per_step:
            return None
        return self.predicted_seconds_per_step / self.seconds_per_step - 1


@dataclass(frozen=True)
class History:
    """Attempts, the newest first."""

    rows: tuple[Measured, ...] = ()

    def context(self, gpu: str) -> int | None:
        """Bytes that driver and libraries took of this GPU besides torch's memory: the most of recent attempts; None where none was measured."""
        taken = [row.process_bytes - row.reserved_bytes for row in self._on(gpu) if row.process_bytes and row.reserved_bytes]
        return max((value for value in taken if value > 0), default=None)

    def memory_factor(self, gpu: str, setup: Setup, *, cap: float, context: int) -> float:
        """By how much a forecast of tensors is raised, since forecasts of like setups were too low on this GPU; never below 1.

        Either the tensors were more than forecast, or the process held more than the whole that was planned: then the
        factor is what would have made the plan's `(tensors × factor + context) / cap` large enough.
        """
        factor = 1.0
        for row in self._on(gpu):
            like = row.setup is not None and (row.setup.kind, row.setup.quantization) == (setup.kind, setup.quantization)
            if not like or row.memory_error is None or not row.predicted_bytes:
                continue
            needed = max((row.allocated_bytes or 0) / row.predicted_bytes, ((row.process_bytes or 0) * cap - context) / row.predicted_bytes)
            if needed <= WORST_FACTOR:
                factor = max(factor, needed)
        return factor

    def most_tokens(self, gpu: str, model: str, setup: Setup, *, rank: int, packed: bool) -> int | None:
        """Tokens of the largest batch that may be tried: fewer than ran out of memory on this GPU, in this setup or one that keeps less."""
        ended = [row for row in self.rows if row.gpu == gpu and row.model == model and row.outcome == OUT_OF_MEMORY and row.packed == packed]
        limits = [row.tokens - 1 for row in ended if row.tokens and row.setup and (row.rank or 0) <= rank and _keeps_no_more(row.setup, setup)]
        return min(limits, default=None)

    def speeds(self, gpu: str | None, precision: str, flops_per_token: float) -> list[float]:
        """FLOPs a second of recent attempts on this GPU (None: the CPU) in which a token cost about as much, the newest first."""
        return [
            row.flops_per_token * row.tokens_per_second
            for row in self._on(gpu)
            if row.flops_per_token and row.tokens_per_second and row.setup and row.setup.precision == precision
            if 1 / LIKE <= row.flops_per_token / flops_per_token <= LIKE
        ]

    def _on(self, gpu: str | None) -> list[Measured]:
        return [row for row in self.rows if row.gpu == gpu][:RECENT]


def read(most: int = RUNS) -> History:
    """Of the newest runs of this home; what is damaged is left out."""
    return History(tuple(row for run in store.all_runs()[:most] for row in reversed(list(_attempts(run.id, read_json(run.path / FILE))))))


def _attempts(run: str, record: dict[str, Any]) -> Iterable[Measured]:
    attempts = record.get("attempts")
    for attempt in attempts if isinstance(attempts, list) else ():
        if not isinstance(attempt, dict):
            continue
        try:
            yield Measured.model_validate({**attempt, "run": run, "packed": bool(attempt.get("packed"))})
        except ValidationError:
            continue


def summary(errors: Iterable[float | None]) -> tuple[float, float] | None:
    """The mean of the errors without their signs, and the worst with its sign; None without any."""
    known = [error for error in errors if error is not None]
    return (statistics.fmean(map(abs, known)), max(known, key=abs)) if known else None


def _keeps_no_more(ended: Setup, wanted: Setup) -> bool:
    """Whether what ended is as `wanted`, or is but for activation checkpointing and keeps fewer activations."""
    if ended.model_copy(update={"activation_checkpointing": wanted.activation_checkpointing}) != wanted:
        return False
    return _level(ended) >= _level(wanted)


def _level(setup: Setup) -> float:
    """Orders the levels of activation checkpointing by what they do not keep."""
    value = setup.activation_checkpointing
    return 2.0 if isinstance(value, str) else 1 / value if value else 0.0
