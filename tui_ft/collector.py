"""Python's garbage collector, for processes that load torch and its friends."""

from __future__ import annotations

import gc


def relax() -> None:
    """For a child process that lives for seconds, before its libraries: look for garbage a hundredth as often.

    The libraries make about a million objects that stay. At the usual threshold looking through them again and again is a fifth of the time that
    they take to load.
    """
    gc.set_threshold(100_000, 20, 100)
