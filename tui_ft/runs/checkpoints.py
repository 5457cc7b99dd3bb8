"""Checkpoints on disk: published whole, verified before use, rotated by step. No torch: a folder is a folder."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import xxhash
from pydantic import BaseModel

from tui_ft.runs.commands import sync_folder
from tui_ft.runs.store import Run, read_json

MANIFEST = "manifest.json"
CHUNK = 1 << 22


class CheckpointInfo(BaseModel):
    step: int
    path: str
    bytes: int
    eval_loss: float | None = None


def folder(run: Run, step: int) -> Path:
    return run.checkpoints / f"checkpoint-{step}"


def staging(run: Run) -> Path:
    """An empty folder for the next checkpoint; its name never looks like a finished one."""
    discard_staging(run)
    place = run.checkpoints / ".staging"
    place.mkdir(mode=0o700)
    return place


def discard_staging(run: Run) -> None:
    """Remove a checkpoint that was not published; never fails, since it comes after a failure."""
    shutil.rmtree(run.checkpoints / ".staging", ignore_errors=True)


def publish(staged: Path, run: Run, step: int, facts: dict[str, Any]) -> Path:
    """Make a written checkpoint durable and give it its name, in this order: files, manifest, folders, rename.

    A crash at any point leaves either the old state or the new one. One that already has the name is replaced.

    Raises:
        OSError: the disk refuses; nothing was published.
    """
    files = {}
    for path in sorted(staged.rglob("*")):
        if path.is_file():
            files[str(path.relative_to(staged))] = {"size": path.stat().st_size, "xxh3": _hash(path)}
            _sync(path)
    body = {"format": 1, "step": step, **facts, "files": files}
    (staged / MANIFEST).write_text(json.dumps({**body, "self": _self_hash(body)}), encoding="utf-8")
    _sync(staged / MANIFEST)
    for directory, _, _ in os.walk(staged):
        sync_folder(Path(directory))
    target = folder(run, step)
    if target.exists():
        _remove(target)
    staged.rename(target)
    sync_folder(run.checkpoints)
    return target


def verify(checkpoint: Path) -> str:
    """Why a checkpoint cannot be used; empty when it can: every file is there with its size and hash."""
    manifest = read_json(checkpoint / MANIFEST)
    if not manifest:
        return "its manifest is missing or damaged"
    said = manifest.pop("self", None)
    if said != _self_hash(manifest):
        return "its manifest was changed"
    for name, entry in manifest["files"].items():
        file = checkpoint / name
        if not file.is_file():
            return f"{name} is missing"
        if file.stat().st_size != entry["size"]:
            return f"{name} has {file.stat().st_size} bytes instead of {entry['size']}"
        if _hash(file) != entry["xxh3"]:
            return f"the content of {name} was changed"
    return ""


def newest_valid(run: Run, step: int | None = None) -> tuple[Path | None, list[str]]:
    """The newest checkpoint that verifies (or the one at `step`), and why others were moved to quarantine.

    A step that was asked for is never replaced by another: it is given or, damaged, None.
    """
    notes: list[str] = []
    for checkpoint in reversed(steps(run) if step is None else [step]):
        place = folder(run, checkpoint)
        why = verify(place)
        if not why:
            return place, notes
        notes.append(f"checkpoint {checkpoint} is set aside: {why}")
        set_aside(run, checkpoint)
    return None, notes


def set_aside(run: Run, step: int) -> None:
    """Move a checkpoint into quarantine, out of the way of resume and rotation but not lost."""
    place = folder(run, step)
    if place.exists():
        place.rename(run_quarantine(run) / f"{place.name}-{time.time_ns()}")


def run_quarantine(run: Run) -> Path:
    place = run.checkpoints / "quarantine"
    place.mkdir(mode=0o700, exist_ok=True)
    return place


def rotate(run: Run, keep: int, best: int | None) -> None:
    """Delete all but the newest `keep` and the best. Sorted by step, since a copied folder has any date."""
    for old in steps(run)[:-keep]:
        if old != best:
            _remove(folder(run, old))
            folder(run, old).with_suffix(".zip").unlink(missing_ok=True)


def steps(run: Run) -> list[int]:
    """The steps of the published checkpoints, rising."""
    names = [path.name.removeprefix("checkpoint-") for path in run.checkpoints.glob("checkpoint-*") if path.is_dir()]
    return sorted(int(name) for name in names if name.isdigit())


def listing(run: Run) -> list[CheckpointInfo]:
    """The published checkpoints, oldest first, from their manifests alone."""
    found = []
    for step in steps(run):
        manifest = read_json(folder(run, step) / MANIFEST)
        size = sum(int(entry.get("size", 0)) for entry in manifest.get("files", {}).values())
        if manifest:
            found.append(CheckpointInfo(step=step, path=str(folder(run, step)), bytes=size, eval_loss=manifest.get("eval_loss")))
    return found


def _remove(path: Path) -> None:
    """Out of sight in one step, then gone: a reader never meets half a checkpoint under its name."""
    trash = path.with_name(f".trash-{path.name}-{time.time_ns()}")
    path.rename(trash)
    shutil.rmtree(trash, ignore_errors=True)


def _hash(path: Path) -> str:
    digest = xxhash.xxh3_128()
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _self_hash(body: dict[str, Any]) -> str:
    return xxhash.xxh3_128(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _sync(path: Path) -> None:
    with path.open("rb") as stream:
        os.fsync(stream.fileno())
