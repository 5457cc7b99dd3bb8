"""A folder as one ZIP file, easy to copy away."""

from __future__ import annotations

import zipfile
from pathlib import Path

from tui_ft.errors import RequestError, TuiFtError
from tui_ft.home import replacing
from tui_ft.text import one_line

INCOMPRESSIBLE = {".safetensors", ".bin", ".pt", ".pth", ".png", ".zip", ".gz"}
"""Weights are noise to a compressor: deflating them costs minutes a gigabyte and saves a few percent."""


def zip_folder(folder: Path, target: Path) -> Path:
    """Pack `folder` under its own name into `target`, streaming; whoever looks sees the whole archive or none.

    Raises:
        RequestError: `folder` is no folder, or holds `target`, a link that leads out, or something that is no file.
        TuiFtError: the disk is full, or a file cannot be read; nothing is left behind.
    """
    if not folder.is_dir():
        raise RequestError(f"{one_line(folder)} is not a folder")
    if target.resolve().is_relative_to(folder.resolve()):
        raise RequestError(f"{one_line(target)} lies inside the folder to be packed", "Put the archive beside the folder.")
    files = _files(folder)
    try:
        with replacing(target) as staged, zipfile.ZipFile(staged, "w", strict_timestamps=False) as archive:
            for file in files:
                compression = zipfile.ZIP_STORED if file.suffix in INCOMPRESSIBLE else zipfile.ZIP_DEFLATED
                archive.write(file, Path(folder.resolve().name, file.relative_to(folder)), compression)
    except OSError as error:
        raise TuiFtError(f"{one_line(target)} could not be written: {error.strerror or error}", "Free some space, or choose another disk.") from error
    return target


def _files(folder: Path) -> list[Path]:
    """Every file below `folder`, sorted. Folders that are links are not entered."""
    inside = folder.resolve()
    files = []
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() and not (path.is_file() and path.resolve().is_relative_to(inside)):
            raise RequestError(f"{one_line(path)} is a link that leads elsewhere", "Replace it by what it points to, or remove it.")
        if path.is_file():
            files.append(path)
        elif not path.is_dir():
            raise RequestError(f"{one_line(path)} is neither a file nor a folder", "Remove it.")
    return files
