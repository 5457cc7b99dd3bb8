"""The order of the rows, a function of seed and epoch alone: whoever resumes in the middle of any epoch goes on with the same row."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import Sampler

POOL = 50
"""Batches that are sorted by length together: enough for little padding, few enough that long rows do not all meet at once."""

FAR = 0x9E3779B97F4A7C15
"""Between the seeds of two epochs, so that seed 1's second epoch is not seed 2's first."""


class Order(Sampler[int]):
    """Every row once an epoch: shuffled, or in batches of like lengths, these in random order.

    The library's own grouping draws from the global random numbers, so that a resume in a later epoch went on with other rows.
    A batch is that of an optimizer step, not of a forward pass: halving the micro-batch after an out-of-memory leaves the order alone.
    """

    def __init__(self, rows: int, seed: int, batch: int, lengths: torch.Tensor | None = None) -> None:
        """
        Args:
            batch: rows of an optimizer step.
            lengths: tokens of each row, shape (rows,); None: plain shuffling.
        """
        self.rows = rows
        self.seed = seed
        self.batch = batch
        self.lengths = lengths
        self.epoch = 0

    def __len__(self) -> int:
        return self.rows

    def set_epoch(self, epoch: int) -> None:
        """Called by the training loop before each epoch, also the one that a resume begins in."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        seed = (self.seed + self.epoch * FAR) % 2**63
        generator = torch.Generator().manual_seed(seed)
        shuffled = torch.randperm(self.rows, generator=generator)
        if self.lengths is not None:
            shuffled = self._grouped(shuffled, self.lengths, generator)
        yield from shuffled.tolist()

    def _grouped(self, shuffled: torch.Tensor, lengths: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Sort within pools, cut into batches, shuffle these; the longest row's batch comes first, so that memory runs out at once or never."""
        pools = shuffled.split(self.batch * POOL)
        batches = [batch for pool in pools for batch in pool[lengths[pool].argsort(descending=True, stable=True)].split(self.batch)]
        last = batches.pop() if len(batches[-1]) < self.batch else None  # the training loop wants the short one at the end
        order = torch.randperm(len(batches), generator=generator).tolist()
        longest = max(order, key=lambda number: int(lengths[batches[number]].max()), default=None)
        if longest is not None:
            order.remove(longest)
            order.insert(0, longest)
        return torch.cat([*(batches[number] for number in order), *([last] if last is not None else [])])


def lengths_of(dataset: Any) -> torch.Tensor:
    """Tokens of each row of a `datasets.Dataset` with the column `input_ids`, shape (rows,); reads no token."""
    import pyarrow.compute

    column = dataset.data.column("input_ids")
    return torch.from_numpy(pyarrow.compute.list_value_length(column).to_numpy().astype("int64"))
