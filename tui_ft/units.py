"""Sizes, durations and counts as people read them."""

from __future__ import annotations


def size(count: float | None) -> str:
    """Bytes with a binary unit: 512 B, 75.0 MiB, 7.4 GiB; a dash for None."""
    if count is None:
        return "–"
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def duration(seconds: float | None) -> str:
    """Two units at most: 42 s, 3 min 20 s, 5 h 10 min, 2 d 4 h; empty for None."""
    if seconds is None:
        return ""
    whole = max(0, round(seconds))
    for length, name, part, part_name in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= length:
            rest = whole % length // part
            return f"{whole // length} {name} {rest} {part_name}" if rest and whole < 10 * length else f"{whole // length} {name}"
    return f"{whole} s"


def count(number: float | None) -> str:
    """A large number in few characters: 640, 12.3k, 20.9M, 2.8B; a dash for None."""
    if number is None:
        return "–"
    for factor, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= factor:
            return f"{number / factor:.1f}{letter}"
    return f"{number:.0f}"
