"""Where files live. `TUI_FT_HOME` moves presets, runs and caches together."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

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


def exposure(path: Path) -> str:
    """Why others could write into `path`, and so steer what runs here; empty where only its owner, this user, can."""
    try:
        status = path.stat()
    except OSError:
        return ""  # not there yet: it will be made private
    if status.st_uid not in (os.getuid(), 0):
        return "it belongs to another user"
    return "every user of this machine can write there" if status.st_mode & stat.S_IWOTH else ""


@contextmanager
def replacing(target: Path) -> Iterator[IO[bytes]]:
    """A seekable binary file, mode 0600, that becomes `target` when the block ends well and vanishes when it does not.

    A reader, a crash or a full disk never meets half a file.

    Raises:
        OSError: the disk is full, or the folder cannot be written; an older `target` is still there, untouched.
    """
    private_folder(target.parent)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    staged = Path(name)
    try:
        with os.fdopen(handle, "w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        staged.replace(target)
    except BaseException:
        with suppress(OSError):
            staged.unlink()
        raise


def write_atomically(target: Path, text: str) -> None:
    """Replace `target` by `text`, whole or not at all.

    Raises:
        OSError: the old file is still there, untouched.
    """
    with replacing(target) as file:
        file.write(text.encode())
