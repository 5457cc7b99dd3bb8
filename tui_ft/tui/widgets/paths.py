"""Completes the path that is being typed; the right arrow takes it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from textual.suggester import Suggester

from tui_ft.text import visible

_MOST = 500
"""Entries looked at: a folder of a million files must not stop the typing."""


class PathSuggester(Suggester):
    """Suggests folders, and files with one of `endings`; says nothing where what is typed is no path."""

    def __init__(self, endings: Iterable[str] = ()) -> None:
        super().__init__(use_cache=False, case_sensitive=True)
        self.endings = tuple(endings)

    async def get_suggestion(self, value: str) -> str | None:
        if not value.startswith(("/", "./", "../", "~")):
            return None
        typed, begun = os.path.split(value)
        try:
            with os.scandir(Path(typed).expanduser()) as entries:
                names = [self._shown(entry) for entry, _ in zip(entries, range(_MOST), strict=False) if entry.name.startswith(begun)]
        except (OSError, RuntimeError):
            return None
        fitting = sorted(name for name in names if name and (begun or not name.startswith(".")) and visible(name) == name)
        return os.path.join(typed, fitting[0]) if fitting else None  # noqa: PTH118 - keeps the ~ and ./ as typed

    def _shown(self, entry: os.DirEntry[str]) -> str:
        if entry.is_dir():
            return entry.name + "/"
        return entry.name if entry.name.endswith(self.endings) and self.endings else ""
