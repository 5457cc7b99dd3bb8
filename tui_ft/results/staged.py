"""Files that appear whole or not at all: written under another name beside the target, then renamed."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from tui_ft import home


@contextmanager
def replacing(target: Path) -> Iterator[IO[bytes]]:
    """A seekable binary file, mode 0600, that becomes `target` when the block ends well and vanishes when it does not.

    Raises:
        OSError: the disk is full, or the folder cannot be written; an older `target` is still there, untouched.
    """
    home.private_folder(target.parent)
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
