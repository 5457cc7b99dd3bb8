"""What the draft was before: a step back for every change, and forward again. For as long as the wizard is open."""

from __future__ import annotations

from tui_ft.tui import fields
from tui_ft.tui.draft import Draft, State

MOST = 200
"""States that are kept, the newest; each is some kilobytes."""


class History:
    """The states of a draft in their order, and the one that is looked at."""

    def __init__(self, draft: Draft) -> None:
        self._states: list[State] = [draft.state()]
        self._at = 0

    def note(self, draft: Draft) -> None:
        """Take in what the draft is now; what was undone before cannot be gone forward to any more."""
        now = draft.state()
        if now != self._states[self._at]:
            self._states = [*self._states[: self._at + 1], now][-MOST:]
            self._at = len(self._states) - 1

    @property
    def can_undo(self) -> bool:
        return self._at > 0

    @property
    def can_redo(self) -> bool:
        return self._at < len(self._states) - 1

    def go(self, draft: Draft, by: int) -> str:
        """Make the draft what it was one change before (-1) or after (1), and say in words what that changed."""
        before = self._states[self._at]
        self._at += by
        draft.become(self._states[self._at])
        return told(before, draft)


def told(before: State, now: Draft) -> str:
    """`Learning rate is 2e-4`, or how many settings are others."""
    changed = now.differences_from(before)
    if not changed:
        return f"the draft is from {now.origin}" if now.origin else "nothing that a recipe holds is another"
    if len(changed) > 2:
        return f"{len(changed)} settings are others"
    return ", ".join(f"{fields.spec(key).label} is {now.text(key) or 'empty'}" for key in changed)
