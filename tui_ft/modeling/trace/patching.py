"""Replace attributes of libraries for a while, and put all of them back."""

from __future__ import annotations

from typing import Any


class Patches:
    """Replacements that end with the `with` block."""

    def __init__(self) -> None:
        self._before: list[tuple[Any, str, Any]] = []

    def set(self, owner: Any, name: str, value: Any) -> None:
        self._before.append((owner, name, getattr(owner, name)))
        setattr(owner, name, value)

    def __enter__(self) -> Patches:
        return self

    def __exit__(self, *_: object) -> None:
        while self._before:
            owner, name, value = self._before.pop()
            setattr(owner, name, value)
