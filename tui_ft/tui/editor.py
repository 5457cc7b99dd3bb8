"""The person's own editor, on a text of ours."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

from tui_ft import home
from tui_ft.errors import RequestError

USUAL = ("nano", "vim", "vi")


def command() -> list[str]:
    """`$VISUAL`, else `$EDITOR`, else a usual one that is there.

    Raises:
        RequestError: there is none, or it cannot be understood.
    """
    for name in ("VISUAL", "EDITOR"):
        chosen = os.environ.get(name, "").strip()
        if chosen:
            try:
                parts = shlex.split(chosen)
            except ValueError as error:
                raise RequestError(f"{name} cannot be understood: {error}", f"For example: export {name}=nano") from None
            if parts and shutil.which(parts[0]):
                return parts
            raise RequestError(f"the editor {chosen} of {name} is not there", f"For example: export {name}=nano")
    found = next((name for name in USUAL if shutil.which(name)), None)
    if found is None:
        raise RequestError("no editor was found", "Say which one: export EDITOR=nano")
    return [found]


def edit(text: str, suffix: str = ".yaml") -> str:
    """Open the editor on `text`, wait until it is closed, and give what was saved. The screen must be out of the way.

    Raises:
        RequestError: there is no editor, it failed, or it left something that is no text.
        OSError: the text cannot be written.
    """
    program = command()
    folder = home.private_folder(home.cache_folder())
    handle, name = tempfile.mkstemp(dir=folder, prefix="edit-", suffix=suffix)  # 0600
    file = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
        code = subprocess.run([*program, name], check=False).returncode
        if code:
            raise RequestError(f"the editor {program[0]} ended with code {code}; nothing was taken from it")
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise RequestError("what the editor left is not UTF-8 text; nothing was taken from it") from None
    finally:
        file.unlink(missing_ok=True)
