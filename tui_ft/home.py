"""Where files live. `TUI_FT_HOME` moves presets, runs and caches together."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path

import platformdirs


def home() -> Path:
    """The folder that holds everything of ours; created 0700 by whoever writes first."""
    chosen = os.environ.get("TUI_FT_HOME")
    return Path(chosen).expanduser().absolute() if chosen else Path(platformdirs.user_data_dir("tui-ft"))


def runs_folder() -> Path:
    return home() / "runs"


def user_presets_folder() -> Path:
    return home() / "presets"


def cache_folder() -> Path:
    return home() / "cache"


def bundled_presets_folder() -> Path:
    """`presets/` at the top of a checkout, or its copy inside the installed package."""
    package = Path(__file__).parent
    installed = package / "presets"
    return installed if installed.is_dir() else package.parent / "presets"


def private_folder(path: Path) -> Path:
    """Make `path` and its missing parents, readable by their owner alone."""
    if not path.is_dir():
        private_folder(path.parent)
        path.mkdir(mode=0o700, exist_ok=True)
    return path


def write_atomically(path: Path, text: str) -> None:
    """Replace `path` by `text` so that a reader, a crash or a full disk never meets half a file. Mode 0600.

    Raises:
        OSError: the old file is still there, untouched.
    """
    private_folder(path.parent)
    handle, staged = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(staged, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(staged)
        raise
