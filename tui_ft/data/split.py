"""Training and validation without leakage: whole groups on one side."""

from __future__ import annotations

from collections.abc import Sequence

import xxhash


def for_validation(groups: Sequence[str], fraction: float, seed: int) -> list[bool]:
    """For each sample, whether it is validation: a share of the groups, chosen by the seed.

    At least one group on each side where there are two; with one group or a fraction of 0, none. A group's lot depends on its name and
    the seed alone, so that more data later moves few groups across.
    """
    names = dict.fromkeys(groups)
    if fraction <= 0 or len(names) < 2:
        return [False] * len(groups)
    count = min(max(1, round(fraction * len(names))), len(names) - 1)
    drawn = set(sorted(names, key=lambda name: xxhash.xxh3_64_intdigest(name.encode(), seed=seed))[:count])
    return [group in drawn for group in groups]
