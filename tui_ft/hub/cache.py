"""What of the Hub is on this machine already. Asks no network."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tui_ft.errors import TuiFtError
from tui_ft.text import one_line

Kind = Literal["model", "dataset"]


@dataclass(frozen=True)
class Cached:
    """A repository in the Hub's cache."""

    name: str
    bytes: int
    used: float
    """When it was last used, seconds since 1970."""


def repositories(kind: Kind) -> list[Cached]:
    """What the cache holds of a kind, last used first. Walks the disk.

    Raises:
        TuiFtError: the cache cannot be read.
    """
    from huggingface_hub import CacheNotFound, scan_cache_dir

    try:
        found = [repository for repository in scan_cache_dir().repos if repository.repo_type == kind]
    except CacheNotFound:
        found = []
    except (OSError, ValueError) as error:
        raise TuiFtError(f"the Hub's cache cannot be read: {one_line(error, 200)}", "See HF_HOME and HF_HUB_CACHE.") from None
    rows = {repository.repo_id: Cached(repository.repo_id, repository.size_on_disk, repository.last_accessed) for repository in found}
    if kind == "dataset":
        rows = _prepared() | rows
    return sorted(rows.values(), key=lambda row: -row.used)


def _datasets_root() -> Path:
    from huggingface_hub import constants

    return Path(os.environ.get("HF_DATASETS_CACHE") or Path(constants.HF_HOME) / "datasets")


def _prepared() -> dict[str, Cached]:
    """What the datasets library made of fetched files: it is loaded from there also after the files themselves are gone."""
    try:
        found: dict[str, Cached] = {}
        for file in _datasets_root().glob("*___*/*/*/*/*.arrow"):
            name, state = file.parents[3].name.replace("___", "/", 1), file.stat()
            before = found.get(name, Cached(name, 0, 0.0))
            found[name] = Cached(name, before.bytes + state.st_size, max(before.used, state.st_atime))
    except OSError as error:
        raise TuiFtError(f"the datasets' cache cannot be read: {error.strerror}", "See HF_HOME and HF_DATASETS_CACHE.") from None
    return found


def dataset_folders(name: str) -> list[Path]:
    """The folders of a dataset as the datasets library prepared it: one a configuration and version, each with a dataset_info.json."""
    try:
        return sorted(file.parent for file in _datasets_root().glob(f"{name.replace('/', '___')}/*/*/*/dataset_info.json"))
    except (OSError, ValueError):
        return []
