"""The micro-batch and the level of activation checkpointing: by the forecasts, or carefully without."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tui_ft.hardware import GpuReading
from tui_ft.planning import batch, batching
from tui_ft.planning.data_facts import DataFacts
from tui_ft.planning.history import History
from tui_ft.planning.outlook import Case, Outlook
from tui_ft.planning.suggestion import Bounds, Suggestion, at_level, suggest
from tui_ft.recipe.plan import Memory
from tui_ft.recipe.schema import SET, Recipe
from tui_ft.text import one_line

_TOLD = {
    "estimate": "estimated from traces of models of this architecture",
    "traced": "counted by following a training step of this very model, without its weights",
    "measured": "measured on this GPU with random weights",
}


@dataclass(frozen=True)
class Chooser:
    """Adds what it decides to the plan's `reasons`, and to its `warnings` what speaks against a person's own choice."""

    recipe: Recipe
    gpu: GpuReading | None
    data: DataFacts | None
    history: History
    reasons: dict[str, str]
    warnings: list[str]

    def suggestion(self, outlook: Outlook, case: Case, levels: tuple[bool | int | str, ...]) -> Suggestion | None:
        train = self.recipe.train
        rows = self._row_lengths(case, batching.LONGEST_ROW if self.gpu else batch.CPU_TOKENS)
        if train.micro_batch != "auto":
            self.reasons["micro_batch"] = SET
        limits = {level: self._allowed(case, tokens, rows) for level in levels if (tokens := self._ran_out(case, level)) is not None}
        if train.micro_batch != "auto" and any(limit < min(rows) for limit in limits.values()):
            self.warnings.append(f"A micro-batch of {train.micro_batch} ran out of memory in an earlier run of this model on this GPU.")
        chosen = suggest(outlook, case, Bounds(levels, sorted(rows), limits, rows), largest=self.gpu is None)
        if chosen is not None:
            self.reasons.update(chosen.reasons)
            self.reasons.setdefault("micro_batch", "the effective batch is one sequence" if not case.packed else "a step is one packed row")
            tier = _TOLD[outlook.forecasts[chosen.case.setup].tier]
            self.reasons["memory"] = f"{tier}; the most is held in {chosen.memory.phase or 'the step'}, with {self._longest_words(chosen.case)}"
        return chosen

    def _row_lengths(self, case: Case, most: int) -> dict[int, int]:
        """For each number of samples that a forward pass may hold, how long its rows are."""
        train = self.recipe.train
        mean = self.data.mean if self.data else None
        if train.micro_batch != "auto":
            count = train.micro_batch
            return {count: batching.packed_row(count, mean, case.length) if case.packed and mean else case.length}
        lengths = batch.row_lengths(case, train.effective_batch, mean, most)
        limit = max(lengths) if case.packed or self.gpu else batch.most(case.length, on_gpu=False)
        return {count: length for count, length in lengths.items() if count <= limit} or {1: case.length}

    def _longest_words(self, case: Case) -> str:
        rows = "one row" if case.rows == 1 else f"{case.rows} rows"
        if case.packed:
            return f"{rows} packed to {case.length:,} tokens"
        longest = self.data.longest if self.data else None
        return f"{rows} of {case.length:,} tokens, " + ("the longest there are" if longest else "the longest that prompt.max_length allows")

    def _ran_out(self, case: Case, level: bool | int | str) -> int | None:
        """Tokens of a pass that have not run out of memory here; None where nothing has."""
        if self.gpu is None:
            return None
        setup, name = at_level(case.setup, level), one_line(self.gpu.name)
        return self.history.most_tokens(name, self.recipe.model.name, setup, rank=case.rank, packed=case.packed)

    def _allowed(self, case: Case, tokens: int, rows: dict[int, int]) -> int:
        """The most samples of a pass whose tokens are no more than `tokens`; 0 where already the fewest are."""
        return max((count for count, length in rows.items() if length * (1 if case.packed else count) <= tokens), default=0)

    def careful(self, case: Case, least: Memory) -> Case:
        """The choice without a forecast: activation checkpointing on a GPU, and a small micro-batch."""
        train = self.recipe.train
        level = case.setup.activation_checkpointing
        if train.activation_checkpointing == "auto":
            level = self.gpu is not None
            self.reasons["activation_checkpointing"] = (
                "on: about a third slower, but the activations are not forecast yet and would be the largest part"
                if level
                else "off: main memory is roomy, and recomputing costs about a third of the speed"
            )
        case = replace(case, setup=at_level(case.setup, level))
        if case.packed:
            length = max(self._row_lengths(case, batch.GPU_TOKENS if self.gpu else batch.CPU_TOKENS).values())
            self.reasons["micro_batch"] = f"careful, since the activations are not forecast: one packed row of {length:,} tokens at a time"
            return replace(case, length=length)
        if train.micro_batch != "auto":
            self.reasons["micro_batch"] = SET
            return replace(case, rows=train.micro_batch)
        tokens, free = self._ran_out(case, level), self.gpu.free_bytes if self.gpu else None
        limit = None if tokens is None else tokens // case.length
        rows, self.reasons["micro_batch"] = batch.suggest(
            train.effective_batch, case.length, on_gpu=self.gpu is not None, least=least.total_bytes, free=free, limit=limit
        )
        return replace(case, rows=rows)
