"""Bytes as polynomials in a model's dimensions: from one traced step of a model each of whose dimensions is a number of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tui_ft.modeling.trace import build
from tui_ft.modeling.trace.fit import Case, choose_sizes, follow, words
from tui_ft.modeling.trace.setup import Setup
from tui_ft.modeling.trace.tracker import PARTS, SCALES, Sizes, Tracker

MULTIPLES = {"hidden": (1, 3), "inner": (1, 2), "width": (1, 0.5, 0.25, 0.75, 0.4, 0.6)}
"""Of a dimension, in which it is met as well: fused projections, gated layers, halves and parts of a head that are rotated."""

INPUTS = ("hidden", "inner", "queries")

Monomial = tuple[str, ...]
Moment = dict[tuple[int, int, Monomial], float]
"""For (part, scale, monomial) the bytes for each unit of both."""


class Symbols:
    """Which dimension a number stands for."""

    def __init__(self, values: Mapping[str, int], *, parts: int = 0) -> None:
        """
        Args:
            parts: inputs of linear modules are met divided by this, too, rounded down; 0: they are not.

        Raises:
            ValueError: two dimensions could be taken for one another.
        """
        self.values = dict(values)
        if "groups" in values:
            self.values["repeats"] = values["heads"] // values["groups"]
        self._names: dict[float, str] = {}
        for name, value in values.items():
            met = [value * factor for factor in MULTIPLES.get(name, (1,))]
            met += [value // parts] if parts and name in INPUTS else []
            for size in met:
                if self._names.setdefault(size, name) != name:
                    raise ValueError(f"{size} may be of {name} and of {self._names[size]}")

    def of(self, shape: Sequence[int]) -> Monomial:
        found = [self._names[size] for size in shape if size in self._names]
        if "groups" in found and self.values["heads"] // self.values["groups"] in shape:
            found.append("repeats")  # too small a number to be told from others but beside its heads
        return tuple(sorted(found))

    def value(self, monomial: Monomial) -> float:
        return float(np.prod([self.values[name] for name in monomial])) if monomial else 1.0


class SymbolicTracker(Tracker):
    """Counts by part, scale and monomial of the dimensions; cells are added as they are met."""

    def __init__(self, sizes: Sizes, symbols: Symbols) -> None:
        super().__init__(sizes)
        self.symbols = symbols
        self.cells: dict[tuple[int, int, Monomial], int] = {}
        self.live = []

    def cell(self, part: str, shape: Sequence[int], scale: int | None = None) -> int:
        key = (PARTS.index(part), self.sizes.scale(shape) if scale is None else scale, self.symbols.of(shape))
        index = self.cells.setdefault(key, len(self.cells))
        self.live.extend([0] * (len(self.cells) - len(self.live)))
        return index


def moments(config: Any, depths: Sequence[int], setup: Setup, symbols: Symbols, *, padded: bool) -> list[tuple[str, list[Moment]]]:
    """Each moment of a step with its phase, once for each of `depths`, the numbers of layers.

    A segment that has more moments in a deeper model is told by its greatest.

    Raises:
        ValueError: no batch could be told from the model's dimensions.
    """
    found = [_segments(config, layers, setup, symbols, padded=padded) for layers in depths]
    told: list[tuple[str, list[Moment]]] = []
    for name in found[0]:
        lists = [segments[name] for segments in found]
        if len({len(own) for own in lists}) > 1:
            lists = [[max(own, key=lambda moment: moment[0])] for own in lists]
        told += [(words(name), [moment for _, moment in moments]) for moments in zip(*lists, strict=True)]
    return told


def _segments(config: Any, layers: int, setup: Setup, symbols: Symbols, *, padded: bool) -> dict[str, list[tuple[int, Moment]]]:
    """The moments of each segment, with what is held in the traced step."""
    sizes = _sizes(config, symbols, padded)
    tracker = SymbolicTracker(sizes, symbols)
    follow(tracker, config, build.Depth(layers), setup, padded=padded, period=1)
    tokens = sizes.rows * sizes.length
    units = [1, tokens, tokens * sizes.length, sizes.rank, sizes.rank * tokens, max(1, sizes.chunk), 1]
    assert len(units) == len(SCALES)
    each = {key: 1 / (units[key[1]] * symbols.value(key[2])) for key in tracker.cells}
    keys = list(tracker.cells)

    def told(snapshot: list[int]) -> tuple[int, Moment]:
        return sum(snapshot), {keys[index]: size * each[keys[index]] for index, size in enumerate(snapshot) if size}

    return {name: [told(snapshot) for snapshot in snapshots] for name, snapshots in tracker.segments.items() if snapshots}


def _sizes(config: Any, symbols: Symbols, padded: bool) -> Sizes:
    sizes = choose_sizes(config, Case(padded))
    taken = {int(value * factor) for name, value in symbols.values.items() for factor in MULTIPLES.get(name, (1,))}
    if sizes.clashes(taken):
        raise ValueError(f"a batch of {sizes.rows} × {sizes.length} would be mistaken for the model's dimensions")
    return sizes


def matrix(found: Sequence[Moment], keys: Sequence[tuple[int, int, Monomial]]) -> NDArray[np.float64]:
    """moment × key."""
    return np.array([[moment.get(key, 0.0) for key in keys] for moment in found])
