"""What a recipe would take on one device in any setting, as far as forecasts of that setting are known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil

from tui_ft.planning import batching, timing
from tui_ft.planning.forecast import Fit, Setup
from tui_ft.planning.history import History
from tui_ft.planning.timing import Shape
from tui_ft.recipe.plan import Memory

CAP = 0.85
"""Share of the free memory that tensors and context may take. Published runs on a T4 completed up to 0.852 and ran out of memory from
0.905 on: an allocator holds 5 to 32 % more than its tensors take."""
GPU_CONTEXT = 2**29
"""Bytes that driver and libraries take on a GPU, until a run there has measured them."""
CPU_CONTEXT = 600 * 2**20
"""Bytes of main memory that the training process takes before the model: measured with all libraries imported, 0.5 GiB, and some room."""


@dataclass(frozen=True)
class Case:
    """One way to train: what decides its memory and, with the data, its speed."""

    setup: Setup
    rows: int
    """Sequences in one forward pass."""
    length: int
    """Tokens of the longest."""
    rank: int
    packed: bool = False
    masked: bool = True
    """Packed rows are given a mask that keeps their samples apart; without it an attention does that knows where they end."""
    grouped: bool = False
    """Batches are of samples of like length."""


@dataclass(frozen=True)
class Outlook:
    """The answers. Some ten microseconds each."""

    forecasts: Mapping[Setup, Fit]
    free: int | None
    """Bytes that may be used; None: nobody knows, and all fits."""
    gpu: str | None
    """The GPU's name; None for the CPU."""
    shape: Shape
    adapters: int
    """Numbers in the adapters for each rank."""
    effective: int
    lengths: Sequence[int] = ()
    """Quantiles of the samples' lengths; empty where nothing is known: then all are as long as the longest."""
    history: History = field(default_factory=History)

    @property
    def context(self) -> int:
        if self.gpu is None:
            return CPU_CONTEXT
        return self.history.context(self.gpu) or GPU_CONTEXT

    def memory(self, case: Case) -> Memory | None:
        """The whole need, with context and safety; None where no forecast of this setup is known."""
        fit = self.forecasts.get(case.setup)
        if fit is None:
            return None
        masked = case.packed and case.masked
        tensors = fit.memory(case.rows, case.length, case.rank, packed=masked, accumulating=self.passes(case) > 1)
        context, safety = self.context, 0
        if self.gpu is not None:
            factor = self.history.memory_factor(self.gpu, case.setup, cap=CAP, context=context)
            safety = ceil((tensors.total_bytes * factor + context) / CAP) - tensors.total_bytes - context
        whole = {"context": context, "safety": safety, "overhead": context + safety}
        return tensors.model_copy(update={**whole, "total_bytes": tensors.total_bytes + context + safety})

    def has_room(self, need: Memory) -> bool:
        return self.free is None or need.total_bytes <= self.free

    def padded(self, case: Case) -> float:
        """Tokens that a row is expected to be padded to: the mean of the longest of so many samples."""
        if case.packed or not self.lengths:
            return case.length
        lengths = [min(length, case.length) for length in self.lengths]
        return batching.grouped(lengths) if case.grouped else batching.padded(lengths, case.rows)

    def passes(self, case: Case) -> float:
        """Forward passes of an optimizer step."""
        if not case.packed:
            return self.effective / case.rows
        return max(1.0, self.effective * (self.mean(case) or case.length) / (case.length * batching.PACKED_FULL))

    def mean(self, case: Case) -> float | None:
        """Tokens of a sample on average, cut to the case's length; None where nothing is known."""
        return sum(min(length, case.length) for length in self.lengths) / len(self.lengths) if self.lengths else None

    def work(self, case: Case) -> float:
        """FLOPs of an optimizer step, idle kernels included."""
        padded = self.padded(case)
        adapters = self.adapters * case.rank if case.setup.kind == "lora" else 0
        each = timing.flops_per_token(self.shape, case.setup, adapters, round(self._seen(case, padded)))
        return self.passes(case) * timing.pass_tokens(case.rows * padded, case.setup) * each

    def _seen(self, case: Case, padded: float) -> float:
        """Tokens of the text that a token is part of, on average, as far as the attention goes: whole rows, but for packed samples told apart."""
        if not case.packed or case.masked or not self.lengths:
            return padded
        return sum(length * length for length in self.lengths) / sum(self.lengths)
