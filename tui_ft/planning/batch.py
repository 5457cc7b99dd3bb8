"""How many sequences go through the model at once: careful as long as nothing forecasts the activations."""

from __future__ import annotations

from tui_ft.planning import batching
from tui_ft.planning.outlook import Case

GPU_TOKENS = 4096
"""Most tokens a forward pass on a GPU is given unasked."""
CPU_TOKENS = 2048
"""The same on a CPU, where larger passes are slower: beside a vocabulary of 50,000 one of 4096 tokens took 1.25 to 1.4 times as long a token."""
LARGEST = 8
"""Most sequences a forward pass is given unasked."""


def most(max_length: int, *, on_gpu: bool) -> int:
    """Sequences of `max_length` tokens that a forward pass is given at most, unasked."""
    return max(1, min(LARGEST, (GPU_TOKENS if on_gpu else CPU_TOKENS) // max_length))


def divisors(effective: int, most: int | None = None) -> list[int]:
    """Micro-batches that make the effective batch whole, ascending."""
    small = [n for n in range(1, int(effective**0.5) + 1) if effective % n == 0]
    every = sorted({*small, *(effective // n for n in small)})
    return [n for n in every if most is None or n <= most] or [1]


def row_lengths(case: Case, effective: int, mean: float | None, most: int = batching.LONGEST_ROW) -> dict[int, int]:
    """For each number of samples that a forward pass may hold, the tokens of its rows: of each sample's, or of the packed one that holds them.

    Args:
        case: as long as the longest sample, which no row may cut.
        effective: samples of an optimizer step; a row holds no more, so that the step's tokens are held.
        mean: tokens of a sample; None where unknown: rows are as long as the longest sample may be.
        most: tokens that a packed row has at most, where the longest sample allows.
    """
    if not case.packed:
        return dict.fromkeys(divisors(effective), case.length)
    if mean is None:
        return {1: case.length}
    by_length = {batching.packed_row(count, mean, case.length): count for count in divisors(effective)}  # of equal lengths the most samples
    shortest = min(by_length)
    return {count: length for length, count in by_length.items() if length <= max(most, shortest)}


def suggest(effective: int, max_length: int, *, on_gpu: bool, least: int = 0, free: int | None = None, limit: int | None = None) -> tuple[int, str]:
    """A micro-batch that divides the effective batch, and the reason for it.

    Args:
        effective: sequences per optimizer step.
        max_length: tokens of the longest sequence.
        least: bytes that are proven to be needed before any activation; 0 where unknown.
        free: bytes that may be used; None where unknown.
        limit: sequences that have not run out of memory here; None where nothing has.
    """
    if on_gpu and free is not None and 2 * least > free:
        return 1, "weights, gradients and optimizer take more than half of the free memory: one sequence at a time until a forecast says more fits"
    tokens = GPU_TOKENS if on_gpu else CPU_TOKENS
    usual = most(max_length, on_gpu=on_gpu)
    size = max(n for n in range(1, max(1, min(usual, usual if limit is None else limit)) + 1) if effective % n == 0)
    device = "a GPU" if on_gpu else "the CPU"
    if limit is not None and limit < usual:
        return size, "careful: more ran out of memory in an earlier run of this model on this GPU"
    return size, (
        f"careful, since the activations are not forecast: at most {LARGEST} sequences and {tokens:,} tokens at once on {device}, "
        f"as the largest divisor of the effective batch {effective}; set train.micro_batch if you know better"
    )
