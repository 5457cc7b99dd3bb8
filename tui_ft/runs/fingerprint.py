"""What decides the numbers of a training, kept with each checkpoint and held against what is there when somebody goes on from it.

A resume with another batch, seed, dataset or library would train on without a word and end elsewhere. Here each difference gets a name, and
is refused or accepted knowingly. No torch.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import xxhash
from pydantic import BaseModel

from tui_ft.errors import RequestError
from tui_ft.recipe import Plan, Recipe
from tui_ft.runs.manifest import Manifest
from tui_ft.runs.store import Run
from tui_ft.text import one_line

LIBRARIES = ("torch", "transformers", "trl", "peft", "bitsandbytes", "accelerate")
"""Those that decide arithmetic."""
ALL = "all"
DATA, MODEL, REVISION = "data.source", "model.name", "model.revision"
SAMPLES, SAMPLE = 16, 1 << 20
"""Of a large file so many pieces of so many bytes are hashed: weights that were trained on differ everywhere."""

_IRRELEVANT = {
    "data.source", "data.max_bad_rows",  # the rows themselves are compared
    "train.epochs", "train.max_steps",  # how far, not what; and a person may change it
    "train.length_grouped",  # the plan's own is compared
    "train.micro_batch",  # halved when memory runs out; the effective batch stays
    "train.activation_checkpointing",  # recomputes the same numbers
    "model.revision",  # a name that may move: the run stays with its commit
}  # fmt: skip


class Difference(BaseModel):
    """One thing that is not what it was when the checkpoint was written."""

    key: str
    before: str
    now: str
    why: str = ""
    """Where values say nothing to a person, what has become of it."""

    def __str__(self) -> str:
        return f"{self.key}: {self.why}" if self.why else f"{self.key} was {self.before} and is {self.now} now"


class Changed(RequestError):
    """The run would not go on as it was; carries what has changed, for a screen to ask."""

    def __init__(self, run: Run, differences: list[Difference]) -> None:
        self.differences = differences
        keys = ",".join(difference.key for difference in differences)
        super().__init__(
            f"{run.id} would not go on as it began: {'; '.join(str(difference) for difference in differences)}",
            f"Bring that back, or accept it knowingly: `tui-ft resume {run.id} --accept {keys}`. The result is then another one than without a stop.",
        )


def settings_of(recipe: Recipe, plan: Plan) -> dict[str, Any]:
    """Dotted keys with their values: those of the recipe that decide the training, `auto` as the plan resolved it."""
    sections = recipe.model_dump(mode="json", include={"model", "data", "prompt", "method", "train"})
    flat = {f"{section}.{key}": value for section, values in sections.items() for key, value in values.items()}
    resolved = {
        "train.precision": plan.precision,
        "train.optimizer": plan.optimizer,
        "train.packing": plan.packing,
        "train.effective_batch": plan.effective_batch,
        "plan.length_grouped": plan.length_grouped,
        "plan.row_length": plan.row_length,
        "plan.attention": plan.attention,
        "hardware.gpus": plan.gpu.name if plan.gpu else "none",
    }
    return {key: value for key, value in {**flat, **resolved}.items() if key not in _IRRELEVANT}


def versions() -> dict[str, str]:
    """Of the libraries that decide arithmetic, as they are installed now."""
    found = {}
    for library in LIBRARIES:
        with suppress(metadata.PackageNotFoundError):
            found[library] = metadata.version(library)
    return found


def files(paths: Iterable[Path]) -> dict[str, dict[str, Any]]:
    """Path → size, date and hash of each file that can be read."""
    found = {}
    for path in paths:
        with suppress(OSError):
            state = path.stat()
            found[str(path)] = {"size": state.st_size, "mtime_ns": state.st_mtime_ns, "xxh3": _hash(path, state.st_size)}
    return found


def model_files(name: str) -> list[Path]:
    """The files of a local model that decide what it says; none for a model of the Hub, which has a commit."""
    path = Path(name).expanduser()
    if path.is_file():
        return [path]
    suffixes = {".safetensors", ".bin", ".json", ".gguf", ".py", ".model"}
    return sorted(file for file in path.iterdir() if file.suffix in suffixes and file.is_file()) if path.is_dir() else []


def differences(manifest: Manifest, recipe: Recipe, plan: Plan) -> list[Difference]:
    """What is not as it was when the checkpoint of this manifest was written. Only what both sides know is compared.

    A file that has its old size and date counts as unchanged; any other is hashed. A model of the Hub is not compared: the worker takes
    the commit that the run began with.
    """
    now = settings_of(recipe, plan)
    before = {**manifest.settings, **manifest.versions}
    found = [_difference(key, before[key], value) for key, value in {**now, **versions()}.items() if key in before and before[key] != value]
    for key, known in manifest.inputs.items():
        changed = [why for path, entry in known.items() if (why := _file_changed(Path(path), entry))]
        if changed:
            more = f", and {len(changed) - 1} more" if len(changed) > 1 else ""
            found.append(Difference(key=one_line(key, 60), before="as it was", now="changed", why=changed[0] + more))
    return found


def require_same(run: Run, found: list[Difference], accepted: Iterable[str]) -> list[Difference]:
    """The differences that a person has accepted.

    Raises:
        Changed: there are others.
    """
    names = set(accepted)
    others = [difference for difference in found if ALL not in names and difference.key not in names]
    if others:
        raise Changed(run, others)
    return found


def _difference(key: str, before: Any, now: Any) -> Difference:
    return Difference(key=key, before=one_line(_word(before), 80), now=one_line(_word(now), 80))


def _word(value: Any) -> str:
    return "not set" if value is None else str(value) or "empty"


def _file_changed(path: Path, entry: dict[str, Any]) -> str:
    try:
        state = path.stat()
        if (state.st_size, state.st_mtime_ns) == (entry.get("size"), entry.get("mtime_ns")):
            return ""
        same = state.st_size == entry.get("size") and _hash(path, state.st_size) == entry.get("xxh3")
    except OSError:
        return f"{one_line(path, 300)} cannot be read"
    return "" if same else f"{one_line(path, 300)} was changed"


def _hash(path: Path, size: int) -> str:
    """Of a whole file, or of pieces at even distances of a large one."""
    digest = xxhash.xxh3_128()
    with path.open("rb") as stream:
        if size <= SAMPLES * SAMPLE:
            digest.update(stream.read())
            return digest.hexdigest()
        for piece in range(SAMPLES):
            stream.seek((size - SAMPLE) * piece // (SAMPLES - 1), os.SEEK_SET)
            digest.update(stream.read(SAMPLE))
    return digest.hexdigest()
