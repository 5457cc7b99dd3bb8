"""Training and validation without leakage: whole groups on one side."""

from __future__ import annotations

from typing import TYPE_CHECKING

import xxhash

if TYPE_CHECKING:
    import numpy as np


def for_validation(groups: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """For each sample, whether it is validation: a share of the groups, chosen by the seed; bool, shape (samples,).

    At least one group on each side where there are two; with one group or a fraction of 0, none. A group's lot depends on itself and the
    seed alone, so that more data later moves few groups across.

    Args:
        groups: the group of each sample, 64 bits, shape (samples,).
    """
    import numpy as np

    names = np.unique(groups)
    if fraction <= 0 or len(names) < 2:
        return np.zeros(len(groups), dtype=bool)
    count = min(max(1, round(fraction * len(names))), len(names) - 1)
    lots = np.fromiter((xxhash.xxh3_64_intdigest(name.tobytes(), seed=seed) for name in names), np.uint64, len(names))
    return np.isin(groups, names[np.argsort(lots, kind="stable")[:count]])
