"""How samples become batches: padded as they come, padded among others of like length, or packed into rows without padding.

What is padded is computed, and nothing is learned of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import ceil

from tui_ft.hardware import GpuReading
from tui_ft.planning.data_facts import DataFacts
from tui_ft.planning.model_facts import ModelFacts
from tui_ft.recipe.schema import SET, Recipe

VARLEN = "varlen"
"""The attention that keeps packed samples apart at the cost of their own lengths."""
FULL = 0.9
"""Rows that hold so much of their length in tokens are worth no other order."""
ROWS = 8
"""Sequences in a forward pass whose padding is judged, where the recipe does not say how many."""
PACKED_FULL = 0.98
"""What a packed row holds of its length: trl's best fit reaches 0.97 to 0.99 with rows of four samples and more."""
LONGEST_ROW = 32768
"""Tokens beyond which a longer packed row gains nothing: a pass of 8192 keeps a GPU busy for nineteen twentieths of its time."""


@dataclass(frozen=True)
class Batching:
    packing: bool = False
    length_grouped: bool = False
    reasons: dict[str, str] = field(default_factory=dict)


def choose(recipe: Recipe, gpu: GpuReading | None, precision: str, facts: ModelFacts | None, data: DataFacts | None) -> Batching:
    """By the share of its padded length that a row fills, unless the recipe says it."""
    asked = recipe.train
    lengths = data.lengths if data else ()
    full = fill(lengths, ROWS if asked.micro_batch == "auto" else asked.micro_batch)
    words = f"padded as they come, rows would hold {100 * full:.0f} % of their length in tokens" if full is not None else ""
    if asked.packing == "auto":
        packing, why = _packs(recipe, gpu, precision, facts, lengths, full)
        reason = f"{why}; {words}" if full is not None and full <= FULL else why
    else:
        packing, reason = asked.packing, SET
    reasons = {"packing": reason}
    if packing:
        return Batching(True, facts is not None and not facts.packs, reasons)
    if asked.length_grouped != "auto":
        grouped, reasons["length_grouped"] = asked.length_grouped, SET
    elif full is None:
        grouped, reasons["length_grouped"] = True, "on: samples of one length need no padding; how much is saved is open until they are counted"
    else:
        grouped = full <= FULL
        reasons["length_grouped"] = f"{'on' if grouped else 'off'}: {words}"
    return Batching(False, grouped, reasons)


def fill(lengths: Sequence[int], rows: int) -> float | None:
    """The share of real tokens in batches of `rows` samples as they come, padded to the longest of each; None where no length is known."""
    return sum(lengths) / len(lengths) / padded(lengths, rows) if lengths else None


def padded(lengths: Sequence[int], rows: int) -> float:
    """The mean length of the longest of `rows` samples. `lengths` are the samples' quantiles, ascending."""
    shares = [(number / len(lengths)) ** rows for number in range(len(lengths) + 1)]
    return sum(length * (above - below) for length, below, above in zip(lengths, shares, shares[1:], strict=False))


def grouped(lengths: Sequence[int]) -> float:
    """The mean length to which samples are padded among others of like length: of a quantile's samples, the longest is at the next one."""
    return sum((*lengths[1:], lengths[-1])) / len(lengths)


def packed_row(samples: int, mean: float, longest: int) -> int:
    """Tokens of a packed row that holds as many as `samples` samples have on average, and the longest of them whole."""
    return max(longest, ceil(samples * mean / PACKED_FULL))


def _packs(
    recipe: Recipe, gpu: GpuReading | None, precision: str, facts: ModelFacts | None, lengths: Sequence[int], full: float | None
) -> tuple[bool, str]:
    if full is None:
        return False, "off until the samples' lengths are known"
    if full > FULL:
        return False, f"off: the samples are of much the same length, and rows {100 * full:.0f} % full without it"
    if facts is None or not facts.packs:
        return False, "off: this model's attention is not known to keep packed samples apart"
    if gpu is not None and precision == "fp32":
        return False, "off: the attention kernel for packed rows needs 16 bits"
    if recipe.train.effective_batch * sum(lengths) / len(lengths) < lengths[-1]:
        return False, "off: a step has fewer tokens than the longest sample alone"
    return True, "on: packed rows need no padding, and each sample attends to itself alone"
