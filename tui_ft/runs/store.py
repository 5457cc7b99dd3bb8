"""Run directories: create, find, read, delete. The layout stands here and nowhere else."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tui_ft import __version__, home
from tui_ft.errors import RequestError, TuiFtError
from tui_ft.recipe import Plan, Recipe
from tui_ft.runs.identity import Identity
from tui_ft.text import one_line

LIBRARIES = ("torch", "transformers", "trl", "peft", "bitsandbytes", "accelerate", "datasets", "tokenizers")


class Run:
    """One run directory. Every property is a path; every method reads the disk anew."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.id = path.name

    def __repr__(self) -> str:
        return f"Run({self.id})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Run) and other.path == self.path

    def __hash__(self) -> int:
        return hash(self.path)

    @property
    def lock_file(self) -> Path:
        return self.path / "lock"

    @property
    def owner_file(self) -> Path:
        return self.path / "owner.json"

    @property
    def status_file(self) -> Path:
        return self.path / "status.json"

    @property
    def events(self) -> Path:
        return self.path / "events"

    @property
    def commands(self) -> Path:
        return self.path / "cmd"

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    @property
    def checkpoints(self) -> Path:
        return self.path / "ckpt"

    @property
    def model(self) -> Path:
        """The final model with its tokenizer; there once the run has ended well."""
        return self.path / "model"

    @property
    def report(self) -> Path:
        return self.path / "report"

    def record(self) -> dict[str, Any]:
        """`run.json`: what never changes. Empty if it cannot be read."""
        return read_json(self.path / "run.json")

    def recipe(self) -> Recipe:
        """The recipe as the run was started with it, paths absolute.

        Raises:
            TuiFtError: run.json is missing or damaged.
        """
        try:
            return Recipe.model_validate(self.record()["recipe"])
        except (KeyError, ValidationError) as error:
            raise TuiFtError(f"{self.path / 'run.json'} is missing or damaged: {one_line(error, 200)}") from None

    def attempt(self) -> int:
        """The number of the newest attempt that was planned; 0 before the first."""
        numbers = [int(path.stem) for path in (self.path / "plan").glob("*.json") if path.stem.isdigit()]
        return max(numbers, default=0)

    def plan(self, attempt: int | None = None) -> Plan:
        """What the planner resolved for an attempt, by default the newest.

        Raises:
            TuiFtError: there is no readable plan.
        """
        file = self.path / "plan" / f"{attempt or self.attempt()}.json"
        try:
            return Plan.model_validate(read_json(file))
        except ValidationError as error:
            raise TuiFtError(f"{file} is missing or damaged: {one_line(error, 200)}") from None

    def write_plan(self, attempt: int, plan: Plan) -> None:
        home.write_atomically(self.path / "plan" / f"{attempt}.json", plan.model_dump_json(indent=1))

    def owner(self) -> tuple[Identity, int] | None:
        """The supervisor that last held this run, and the attempt it is at."""
        record = read_json(self.owner_file)
        try:
            return Identity.model_validate(record), int(record["attempt"])
        except (KeyError, TypeError, ValueError):
            return None

    def exit_record(self, attempt: int) -> dict[str, Any]:
        """How the supervisor saw an attempt end: code, signal, outcome, reason. Empty if it did not."""
        return read_json(self.path / "exit" / f"{attempt}.json")

    def write_exit_record(self, attempt: int, record: dict[str, Any]) -> None:
        home.write_atomically(self.path / "exit" / f"{attempt}.json", json.dumps(record))

    def bytes_on_disk(self) -> int:
        return sum(file.stat().st_size for file in self.path.rglob("*") if file.is_file() and not file.is_symlink())

    def delete(self) -> None:
        """Remove the directory: first out of sight under another name, so that no reader meets half of it.

        Raises:
            TuiFtError: the file system refuses.
        """
        gone = self.path.with_name(f".{self.id}.deleted")
        try:
            self.path.rename(gone)
            shutil.rmtree(gone)
        except OSError as error:
            raise TuiFtError(f"{self.path} cannot be deleted: {error.strerror}", "Check the permissions of the folder.") from None


def read_json(file: Path) -> dict[str, Any]:
    """A small JSON object of ours; empty when missing or damaged, since a reader never fails on another's half-done work."""
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def create(recipe: Recipe, plan: Plan, consent: dict[str, str] | None = None) -> Run:
    """Make the directory of a new run: it appears whole or not at all.

    Args:
        recipe: with absolute paths.
        plan: of the first attempt.
        consent: repositories whose own code may run, each with the commit that was consented to.

    Raises:
        TuiFtError: the file system refuses.
    """
    root = home.runs_folder()
    staged: Path | None = None
    try:
        home.private_folder(root)
        stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
        staged = root / f".{recipe.name}-{stamp}-{os.getpid()}.new"
        staged.mkdir(mode=0o700)
        for folder in ("plan", "events", "cmd/tmp", "cmd/new", "cmd/done", "exit", "logs", "ckpt", "report"):
            home.private_folder(staged / folder)
        record = {
            "recipe": recipe.model_dump(mode="json"),
            "created": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "versions": {"tui-ft": __version__, **{name: _version(name) for name in LIBRARIES}},
            "engine": "single",
            "trust_remote_code": consent or {},
        }
        home.write_atomically(staged / "run.json", json.dumps(record, indent=1))
        Run(staged).write_plan(1, plan)
        for number in range(1, 1000):
            target = root / (f"{recipe.name}-{stamp}" + (f"-{number}" if number > 1 else ""))
            if not target.exists():
                staged.rename(target)
                return Run(target)
        raise TuiFtError(f"{root} already holds a thousand runs of this second")
    except OSError as error:
        if staged:
            shutil.rmtree(staged, ignore_errors=True)
        raise TuiFtError(f"a run cannot be created in {root}: {error.strerror}", "Free some space, or move everything with TUI_FT_HOME.") from None


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "missing"


def all_runs() -> list[Run]:
    """Every run, newest first."""
    root = home.runs_folder()
    folders = [path for path in root.iterdir() if _is_run(path)] if root.is_dir() else []
    return [Run(path) for path in sorted(folders, key=_created, reverse=True)]


def _is_run(path: Path) -> bool:
    return not path.name.startswith(".") and (path / "run.json").is_file()


def _created(path: Path) -> tuple[str, str]:
    """The time in the run's name, then the name: sorting needs no file to be opened."""
    match = re.search(r"-(\d{8}-\d{6})(?:-\d+)?$", path.name)
    return (match[1] if match else time.strftime("%Y%m%d-%H%M%S", time.localtime(path.stat().st_mtime)), path.name)


def find(reference: str) -> Run:
    """The run called by an id, a unique prefix of one, or `latest`.

    Raises:
        RequestError: there is none, or several.
    """
    runs = all_runs()
    if not runs:
        raise RequestError("there are no runs yet", "`tui-ft demo` makes the first one.")
    if reference == "latest":
        return runs[0]
    exact = [run for run in runs if run.id == reference]
    matching = exact or [run for run in runs if run.id.startswith(reference)]
    if len(matching) == 1:
        return matching[0]
    if matching:
        raise RequestError(f"{reference!r} could be any of {', '.join(run.id for run in matching[:5])}", "Give more of the id.")
    raise RequestError(f"there is no run {one_line(reference, 80)!r}", f"`tui-ft runs` lists them; the newest is {runs[0].id}.")


def destroy(path: Path) -> None:
    """Delete whatever it is, never what a link leads to; what cannot be deleted stays."""
    with suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()


def iterate_lines(file: Path, offset: int) -> Iterator[tuple[bytes, int]]:
    """The complete lines of an append-only file from a byte offset, each with the offset after it.

    A torn last line is not an error: it is a write in progress, or the last breath of a killed writer.
    """
    with file.open("rb") as stream:
        stream.seek(offset)
        for line in stream:
            if not line.endswith(b"\n"):
                return
            offset += len(line)
            yield line, offset
