"""The samples that a preview wrote down to be walked through: a file beside the answer, read one line at a time."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from tui_ft import home
from tui_ft.runs import identity

if TYPE_CHECKING:
    from tui_ft.data.preview import PreviewSample, Shelved

_TEXT = re.compile(r'\{"text":\s*')
"""How a line begins: what is searched is read without the tokens behind it, which are fifty times as long."""


class Shelf:
    """A private folder of one wizard's, with a file for each preview; made at first use, and gone with `close`."""

    def __init__(self) -> None:
        self._folder: Path | None = None
        self._number = 0

    def new_file(self) -> Path:
        """A name for the next preview's samples.

        Raises:
            OSError: the disk refuses.
        """
        if self._folder is None:
            _sweep()
            me = identity.of(os.getpid())
            self._folder = Path(tempfile.mkdtemp(dir=home.private_folder(_place())))
            (self._folder / "owner.json").write_text(me.model_dump_json(), encoding="utf-8")
        self._number += 1
        return self._folder / f"{self._number}.jsonl"

    def drop(self, file: Path | None) -> None:
        """A newer preview has taken its place."""
        if file is not None:
            with suppress(OSError):
                file.unlink()

    def close(self) -> None:
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None


def read(file: Path, entry: Shelved) -> PreviewSample:
    """One sample; some milliseconds for a usual one, so that it is read in a thread.

    Raises:
        OSError: the file is gone.
        ValueError: it is damaged.
    """
    from tui_ft.data.preview import PreviewSample

    with file.open("rb") as stream:
        stream.seek(entry.offset)
        return PreviewSample.model_validate_json(stream.read(entry.size))


def search(file: Path, entries: Sequence[Shelved], needle: str) -> list[int]:
    """The numbers of the samples whose text holds `needle`, in whatever case; in a thread, since it reads the whole file.

    Raises:
        OSError, ValueError: as `read`.
    """
    wanted = needle.casefold()
    found = []
    with file.open("rb") as stream:
        for number, entry in enumerate(entries):
            stream.seek(entry.offset)
            line = stream.read(entry.size).decode("utf-8", "replace")
            begun = _TEXT.match(line)
            text = json.JSONDecoder().raw_decode(line, begun.end())[0] if begun else json.loads(line)["text"]
            if wanted in text.casefold():
                found.append(number)
    return found


def _place() -> Path:
    return home.cache_folder() / "preview"


def _sweep() -> None:
    """Remove what wizards left that were killed. Another machine's, which may share this home, are its own to judge."""
    for folder in _place().glob("*/"):
        with suppress(OSError, ValueError):
            owner = identity.Identity.model_validate_json((folder / "owner.json").read_bytes())
            if owner.is_here() and not owner.is_alive():
                shutil.rmtree(folder, ignore_errors=True)
