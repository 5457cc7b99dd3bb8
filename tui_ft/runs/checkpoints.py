"""Checkpoints on disk: published whole, verified before use, rotated by step. No torch: a folder is a folder."""

from __future__ import annotations

import json
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field

from tui_ft import hardware, home
from tui_ft.runs.commands import sync_folder
from tui_ft.runs.manifest import MANIFEST, Manifest, hash_file, read_manifest, self_hash
from tui_ft.runs.store import Run, destroy, read_json
from tui_ft.text import one_line

ROOM = 1.2
"""Free space for the next checkpoint, in sizes of the newest one: it is written before an old one goes."""
QUARANTINED = 3
"""So many of what earlier attempts set aside are kept, beside all that the present one does."""

OnBytes = Callable[[int], None]
"""Told of the bytes that were hashed since the last call."""


class CheckpointInfo(BaseModel):
    """A checkpoint as far as its manifest, names and sizes tell."""

    step: int
    path: str
    bytes: int
    eval_loss: float | None = None
    best: bool = Field(False, description="Of those there are, the one with the lowest validation loss.")
    zip: int | None = Field(None, description="Bytes of its ZIP; None where there is none.")
    damage: str = Field("", description="Why it cannot be used, as far as can be seen without reading all of it, or as `verify` found.")
    verified: float | None = Field(None, description="When all of it was read and found whole, in Unix time; None: not since it was written.")


def folder(run: Run, step: int) -> Path:
    return run.checkpoints / f"checkpoint-{step}"


def archive(run: Run, step: int) -> Path:
    """Where the ZIP of a checkpoint stands: beside its folder."""
    return run.checkpoints / f"checkpoint-{step}.zip"


def steps(run: Run) -> list[int]:
    """The steps of the published checkpoints, rising."""
    names = [path.name.removeprefix("checkpoint-") for path in run.checkpoints.glob("checkpoint-*") if path.is_dir()]
    return sorted(int(name) for name in names if name.isascii() and name.isdigit() and str(int(name)) == name)


# --- writing -------------------------------------------------------------------------------------------------------


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

    A crash at any point leaves either the old state or the new one. One that already has the name steps aside until the new one
    stands there, and `clean_up` brings it back if that never came.

    Raises:
        OSError: the disk refuses; nothing was published.
    """
    files = {}
    for path in sorted(staged.rglob("*")):
        if path.is_file():
            files[str(path.relative_to(staged))] = {"size": path.stat().st_size, "xxh3": hash_file(path)}
            _sync(path)
    body = {"format": 1, "step": step, **facts, "files": files}
    (staged / MANIFEST).write_text(json.dumps({**body, "self": self_hash(body)}), encoding="utf-8")
    _sync(staged / MANIFEST)
    for directory, _, _ in os.walk(staged):
        sync_folder(Path(directory))
    target, replaced = folder(run, step), run.checkpoints / f".replaced-{step}"
    if target.exists():
        _remove(replaced)
        target.rename(replaced)
    staged.rename(target)
    sync_folder(run.checkpoints)
    _remove(replaced)
    return target


def rotate(run: Run, keep: int, best: int | None) -> None:
    """Delete all but the newest `keep` and the best, each with its ZIP. Sorted by step, since a copied folder has any date.

    Never fails: one that cannot be deleted is tried again next time.
    """
    for old in steps(run)[:-keep]:
        if old != best:
            with suppress(OSError):
                delete(run, old)


def delete(run: Run, step: int) -> int:
    """Remove a checkpoint with its ZIP, and give the bytes that are free again.

    Raises:
        OSError: it is gone already, or the file system refuses.
    """
    freed = sum(size for _, size in _files(folder(run, step)))
    with suppress(FileNotFoundError):
        freed += archive(run, step).stat().st_size
        archive(run, step).unlink()  # first: a crash in between leaves no archive that nobody rotates
    folder(run, step).lstat()
    _remove(folder(run, step))
    return freed


def clean_up(run: Run) -> list[str]:
    """Remove what a killed worker left half done, and older inmates of the quarantine; what a person should know of it, in words.

    Only for whoever holds the run and is not saving.
    """
    discard_staging(run)
    for replaced in run.checkpoints.glob(".replaced-*"):
        target = run.checkpoints / replaced.name.replace(".replaced-", "checkpoint-", 1)
        if target.exists():
            _remove(replaced)
        else:
            replaced.rename(target)  # killed between the two renames: the new one was never there
    for trash in [*run.checkpoints.glob(".trash-*"), *run.checkpoints.glob(".checkpoint-*.zip.*")]:
        destroy(trash)
    inmates = sorted((run.checkpoints / "quarantine").glob("*"), key=_age)
    for old in inmates[:-QUARANTINED]:
        destroy(old)
    gone = len(inmates) - QUARANTINED
    return [f"{gone} of what was set aside earlier is deleted; the newest {QUARANTINED} stay"] if gone > 0 else []


def room_for_checkpoint(run: Run) -> int | None:
    """Bytes that are missing on the run's disk for the next checkpoint; None when there is room, or nothing to judge by yet."""
    there = steps(run)
    if not there:
        return None
    need = round(ROOM * sum(size for _, size in _files(folder(run, there[-1]))))
    free = hardware.free_disk(run.checkpoints)
    return need - free if free is not None and free < need else None


# --- reading -------------------------------------------------------------------------------------------------------


def damage(checkpoint: Path, manifest: Manifest | str | None = None) -> str:
    """Why a checkpoint cannot be used, as far as names and sizes tell; empty when nothing speaks against it. Reads the manifest alone.

    A file that the manifest does not name counts: who loads the folder would load it, too.
    """
    manifest = manifest or read_manifest(checkpoint)
    if isinstance(manifest, str):
        return manifest
    if checkpoint.is_symlink():
        return "it is a link to somewhere else"
    try:
        there = dict(_files(checkpoint))
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    for name, entry in manifest.files.items():
        if name not in there:
            return f"{one_line(name, 80)} is missing"
        if there[name] < 0:
            return f"{one_line(name, 80)} is a link or something else that is no file"
        if there[name] != entry.size:
            return f"{one_line(name, 80)} has {there[name]} bytes instead of {entry.size}"
    strangers = there.keys() - manifest.files.keys() - {MANIFEST}
    named = [name for name in sorted(strangers) if not Path(name).name.startswith(".")]  # .nfs…, .DS_Store: nobody loads them
    return f"{one_line(named[0], 80)} does not belong to it" if named else ""


def verify(checkpoint: Path, on_bytes: OnBytes = lambda _: None) -> str:
    """Why a checkpoint cannot be used; empty when it can: every file is there with its size and hash. Reads all of it."""
    manifest = read_manifest(checkpoint)
    found = damage(checkpoint, manifest)
    if found or isinstance(manifest, str):
        return found
    for name, entry in manifest.files.items():
        try:
            if hash_file(checkpoint / name, on_bytes) != entry.xxh3:
                return f"the content of {one_line(name, 80)} was changed"
        except OSError as error:
            return f"{one_line(name, 80)} cannot be read: {error.strerror}"
    return ""


def listing(run: Run) -> list[CheckpointInfo]:
    """The published checkpoints, oldest first, damaged ones among them. Reads no more than their manifests."""
    verified = _verified(run)
    found = [_info(run, step, verified.get(step)) for step in steps(run)]
    lowest = best({info.step: info.eval_loss for info in found if not info.damage})
    return [info.model_copy(update={"best": info.step == lowest}) for info in found]


class Listing:
    """`listing` for whoever looks every second: made anew when something was published, packed, verified or deleted, and now and then for damage."""

    EVERY = 10
    """Looks after which it is made anew in any case; each reads all manifests and the sizes of all files."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._stamp: int | None = None
        self._looks = 0
        self._found: list[CheckpointInfo] = []

    def read(self) -> list[CheckpointInfo]:
        try:
            stamp = self._run.checkpoints.stat().st_mtime_ns
        except OSError:
            stamp = None
        self._looks += 1
        if stamp is None or stamp != self._stamp or self._looks >= self.EVERY:
            self._found, self._stamp, self._looks = listing(self._run), stamp, 0
        return self._found


def remember_verified(run: Run, step: int, found: str) -> None:
    """Keep what `verify` found, for the list: it holds while nothing in the checkpoint is younger.

    Raises:
        OSError: it cannot be written.
    """
    there = {str(other): entry for other, entry in _verified(run).items() if other in steps(run)}
    entry = {"t": time.time(), "self": _digest(folder(run, step)), "damage": found}
    home.write_atomically(run.checkpoints / "verified.json", json.dumps({**there, str(step): entry}))


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
    """Move a checkpoint with its ZIP into quarantine, out of the way of resume and rotation but not lost."""
    for place in (archive(run, step), folder(run, step)):
        if place.exists():
            place.rename(run_quarantine(run) / f"{place.stem}-{time.time_ns()}{place.suffix}")


def run_quarantine(run: Run) -> Path:
    place = run.checkpoints / "quarantine"
    place.mkdir(mode=0o700, exist_ok=True)
    return place


def _info(run: Run, step: int, known: dict[str, Any] | None) -> CheckpointInfo:
    place = folder(run, step)
    manifest = read_manifest(place)
    files = dict(_files(place))
    info = CheckpointInfo(step=step, path=str(place), bytes=sum(size for size in files.values() if size > 0), damage=damage(place, manifest))
    with suppress(OSError):
        info.zip = archive(run, step).stat().st_size
    if isinstance(manifest, str):
        return info
    info.eval_loss = manifest.eval_loss if manifest.eval_loss is not None and math.isfinite(manifest.eval_loss) else None
    if known and known.get("self") == manifest.digest and isinstance(known.get("t"), float):
        with suppress(OSError):
            untouched = all((place / name).stat().st_mtime <= known["t"] for name in files)
            info.verified = known["t"] if untouched and not known.get("damage") else None
            info.damage = info.damage or (one_line(known.get("damage", ""), 200) if untouched else "")
    return info


def _verified(run: Run) -> dict[int, dict[str, Any]]:
    return {int(step): entry for step, entry in read_json(run.checkpoints / "verified.json").items() if step.isdigit() and isinstance(entry, dict)}


def _digest(checkpoint: Path) -> str:
    manifest = read_manifest(checkpoint)
    return "" if isinstance(manifest, str) else manifest.digest


def best(losses: Mapping[int, float | None]) -> int | None:
    """The step with the lowest validation loss, the first of equal ones; None where nothing was measured."""
    measured = [(loss, step) for step, loss in losses.items() if loss is not None and math.isfinite(loss)]
    return min(measured)[1] if measured else None


def _files(checkpoint: Path) -> Iterator[tuple[str, int]]:
    """(path below the checkpoint, size) of all that lies in it; size -1 for what is neither a file nor a folder of its own."""
    for directory, folders, names in os.walk(checkpoint):
        place = Path(directory)
        links = [name for name in folders if (place / name).is_symlink()]
        for name in [*names, *links]:
            path = place / name
            is_file = path.is_file() and not path.is_symlink()
            with suppress(FileNotFoundError):  # rotated away while we look
                yield str(path.relative_to(checkpoint)), path.stat().st_size if is_file else -1


def _age(inmate: Path) -> tuple[int, str]:
    """When it was set aside, which its name ends with."""
    mark = inmate.stem.rpartition("-")[2]
    return (int(mark) if mark.isascii() and mark.isdigit() else 0, inmate.name)


def _remove(path: Path) -> None:
    """Out of sight in one step, then gone: a reader never meets half a checkpoint under its name."""
    trash = path.with_name(f".trash-{path.name}-{time.time_ns()}")
    with suppress(FileNotFoundError):
        path.rename(trash)
    destroy(trash)


def _sync(path: Path) -> None:
    with path.open("rb") as stream:
        os.fsync(stream.fileno())
