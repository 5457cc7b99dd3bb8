"""What every screen of ours shares: its group in the key table, and the reason why an action is not to be had now."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, cast

from textual import events, on
from textual.screen import ModalScreen, Screen, ScreenResultType
from textual.worker import Worker

if TYPE_CHECKING:
    from tui_ft.tui.app import TuiFtApp


class SizedScreen(Screen[ScreenResultType]):
    """A screen that lets a size go which the terminal no longer has.

    The library lays a screen out at the size that it is told, and that layout tells the screen its size once more. When a terminal changes its size
    twice before the first is drawn, as in a dragged window, the two sizes follow each other for ever, and no key is answered any more.
    """

    @on(events.Resize)
    def _drop_an_old_size(self, event: events.Resize) -> None:
        if event.size != self.app.size:
            event.prevent_default()


class Modal(SizedScreen[ScreenResultType], ModalScreen[ScreenResultType]):
    """A screen over another one, that answers with a result."""


class TuiScreen(SizedScreen[None]):
    """A full screen. Subclasses set `GROUP` and `BINDINGS = keys.bindings(GROUP)`."""

    GROUP: ClassVar[str] = ""
    """The screen's entry in `keys.TABLE`."""
    ABOUT: ClassVar[str] = ""
    """What the help screen says first, in a few plain sentences."""
    _unavailable: tuple[str, ...] | None = None

    @property
    def is_seen(self) -> bool:
        """On top, or under nothing but questions and help. (The library's `is_current` holds for a screen that is wholly covered as well.)"""
        stack = self.app.screen_stack
        return self in stack and all(isinstance(above, ModalScreen) for above in stack[stack.index(self) + 1 :])

    def unavailable(self, action: str) -> str:
        """Why `action` cannot be done now, as one short sentence; empty when it can."""
        return ""

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Unavailable actions are dimmed, not hidden; help and palette say the reason."""
        return None if self.unavailable(action) else True

    def on_key(self, event: events.Key) -> None:
        """A key whose action cannot be done now says why, instead of nothing."""
        active = self.active_bindings.get(event.key)  # with the person's own keys
        if active and active.node is self and (reason := self.unavailable(active.binding.action)):
            self.notify(f"{active.binding.description}: {reason}", severity="warning", timeout=4)

    def refresh_keys(self) -> None:
        """Dim and light the footer's keys anew, if any of them changed: each time costs a footer made from scratch."""
        now = tuple(self.unavailable(binding.action) for _, binding in self._bindings)
        if now != self._unavailable:
            self._unavailable = now
            self.refresh_bindings()

    def help_text(self) -> str:
        """More for the help screen: what the focused widget means."""
        return ""

    def on_worker_state_changed(self, event: Worker.StateChanged) -> None:
        self.tui.worker_failed(event)

    @property
    def tui(self) -> TuiFtApp:
        from tui_ft.tui.app import TuiFtApp  # the app imports its screens lazily, and they it

        return cast(TuiFtApp, self.app)
