"""Prepared data on disk: folders named by a hash of all they were made of, whole or not there, the least used ones removed."""

from __future__ import annotations

import errno
import json
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tui_ft import home, units
from tui_ft.errors import TuiFtError

KEPT = 12
"""So many folders are kept, the newest used; those of the last hour besides, since a run may be about to open one."""
_SIZES = "sizes.json"
_HOUR = 3600.0
_DAY = 24 * _HOUR


def folder() -> Path:
    return home.cache_folder() / "data"


def find(key: str) -> Path | None:
    """The folder of `key`, marked as used now; None where it is not there, or no longer whole: then what is left of it is removed."""
    path = folder() / key
    if not path.is_dir():
        return None
    try:
        sizes = json.loads((path / _SIZES).read_bytes())
        whole = all((path / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, AttributeError):
        whole = False
    if not whole:
        shutil.rmtree(path, ignore_errors=True)
        return None
    with suppress(OSError):  # another user's cache on a shared home may be read only
        os.utime(path)
    return path


@contextmanager
def making(key: str) -> Iterator[Path]:
    """A private folder to fill, which becomes the folder of `key` when the block ends well and vanishes when it does not.

    Raises:
        TuiFtError: the disk is full, or cannot be written.
    """
    staged = folder() / f".{key}.{os.getpid()}.{uuid.uuid4().hex[:8]}"
    try:
        home.private_folder(staged)
        yield staged
        (staged / _SIZES).write_text(json.dumps({file.name: file.stat().st_size for file in staged.iterdir()}), encoding="utf-8")
        for file in staged.iterdir():
            file.chmod(0o600)
            with file.open("rb") as written:
                os.fsync(written.fileno())
        with suppress(OSError):  # somebody else made the same meanwhile: theirs is as good
            staged.rename(folder() / key)
        _prune()
    except OSError as error:
        raise _explained(error) from None
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def _explained(error: OSError) -> TuiFtError:
    free = 0
    with suppress(OSError):
        free = shutil.disk_usage(home.home()).free
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return TuiFtError(
            f"the disk is full: the prepared data do not fit ({units.size(free)} are free at {home.home()})",
            "Make room, use fewer rows (data.max_rows), or move TUI_FT_HOME to a larger disk.",
        )
    return TuiFtError(f"the prepared data cannot be written: {error.strerror or error}", f"Check {folder()}.")


def _prune() -> None:
    """Remove what was used least, and what a killed process left unfinished a day ago. Open files stay readable for whoever has them."""
    now = time.time()
    found: list[tuple[float, Path]] = []
    for path in folder().iterdir():
        with suppress(OSError):
            found.append((path.stat().st_mtime, path))
    whole = sorted((entry for entry in found if not entry[1].name.startswith(".")), reverse=True)
    old = [path for used, path in whole[KEPT:] if now - used > _HOUR]
    old += [path for used, path in found if path.name.startswith(".") and now - used > _DAY]
    for path in old:
        shutil.rmtree(path, ignore_errors=True)
