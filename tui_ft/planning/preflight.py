"""Cheap checks before anything starts: what would fail minutes later is said now, all of it at once. Loads no torch."""

from __future__ import annotations

import difflib
import importlib.util
import json
import os
from collections.abc import Iterator
from pathlib import Path

from tui_ft import demo, home, units
from tui_ft.data import templates
from tui_ft.data.files import SUFFIXES, suffix
from tui_ft.errors import ConfigError, RequestError
from tui_ft.findings import Finding
from tui_ft.hardware import Hardware, free_disk, read
from tui_ft.hub import weights
from tui_ft.planning import model_facts
from tui_ft.planning.planner import make_plan
from tui_ft.recipe import files
from tui_ft.recipe.plan import Plan
from tui_ft.recipe.schema import Recipe
from tui_ft.text import one_line

TEMPLATES = ("model", *templates.OURS)
SPARE_DISK = 1.2
"""Free space wanted, as a multiple of what the run writes."""

_WEIGHTS = ("*.safetensors", "*.bin")
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json", "spiece.model")
_NEEDS = {  # optimizers and trackers that come with packages of their own: name's beginning → module to import, package to install
    "galore_": ("galore_torch", "galore-torch"), "lomo": ("lomo_optim", "lomo-optim"), "adalomo": ("lomo_optim", "lomo-optim"),
    "grokadamw": ("grokadamw", "grokadamw"), "schedule_free": ("schedulefree", "schedulefree"), "apollo_": ("apollo_torch", "apollo-torch"),
    "stable_adamw": ("optimi", "torch-optimi"), "adamw_torch_4bit": ("torchao", "torchao"), "adamw_torch_8bit": ("torchao", "torchao"),
    "adamw_anyprecision": ("torchdistx", "torchdistx"), "adamw_torch_xla": ("torch_xla", "torch-xla"), "adamw_torch_npu": ("torch_npu", "torch-npu"),
    "tensorboard": ("tensorboard", "tensorboard"), "wandb": ("wandb", "wandb"), "mlflow": ("mlflow", "mlflow"),
}  # fmt: skip


def check(recipe: Recipe, hardware: Hardware | None = None) -> list[Finding]:
    """Everything that speaks against starting `recipe` here, errors first; empty when nothing does.

    That the memory cannot suffice is a warning: a person may insist, and `Plan.fits` tells it to whoever starts the run.
    Relative paths count from the current folder. The model's size enters only if its facts are cached
    (`model_facts.facts`): this function starts no child and asks no network.
    """
    recipe = files.absolute(recipe, Path.cwd())
    found = [*_model(recipe), *_data(recipe), *_template(recipe), *_packages(recipe), *_writable(recipe), *_hub(recipe)]
    known = None
    if not any(finding.where == "model.name" and finding.severity == "error" for finding in found):
        known = model_facts.facts(recipe.model, compute=False)
    try:
        plan = make_plan(recipe, facts=known, hardware=hardware if hardware is not None else read())
        found += [*(Finding("warning", "plan", warning) for warning in plan.warnings), *disk_space(recipe, plan)]
    except ConfigError as error:
        found += [Finding("error", problem.where, problem.message, problem.hint) for problem in error.problems]
    return sorted(found, key=lambda finding: finding.severity != "error")


def disk_space(recipe: Recipe, plan: Plan) -> Iterator[Finding]:
    """Whether each disk has room for what the run will write there; silent where the plan does not know how much that is."""
    if plan.disk_bytes is None:
        return
    copy = plan.output_bytes or 0
    hint = "Keep fewer checkpoints (checkpoints.keep), switch checkpoints.zip off, or move TUI_FT_HOME to a larger disk."
    if recipe.output.dir is None or _same_disk(home.runs_folder(), Path(recipe.output.dir)):
        yield from _room(home.runs_folder(), plan.disk_bytes, hint)
    else:
        yield from _room(home.runs_folder(), plan.disk_bytes - copy, hint)
        yield from _room(Path(recipe.output.dir), copy, "Choose an output.dir on a larger disk; the run keeps its own copy of the model.")


def _room(place: Path, need: int, hint: str) -> Iterator[Finding]:
    free = free_disk(place)
    if free is None:
        return
    words = f"the run writes up to {units.size(need)}, and {units.size(free)} are free at {one_line(place, 200)}"
    if need > free:
        yield Finding("error", "disk", words, hint)
    elif need * SPARE_DISK > free:
        yield Finding("warning", "disk", words, hint)


def _same_disk(*places: Path) -> bool:
    """Of folders that may not be there yet; True where it cannot be told, since then the sum must have room."""
    devices = set()
    for place in places:
        existing = next((path for path in (place, *place.parents) if os.path.lexists(path)), place)
        try:
            devices.add(existing.stat().st_dev)
        except OSError:
            return True
    return len(devices) == 1


def _model(recipe: Recipe) -> Iterator[Finding]:
    name, shown = recipe.model.name, one_line(recipe.model.name, 200)
    if name == demo.NAME:
        return
    folder = Path(name)
    if not folder.is_absolute():
        yield from _hub_id("model.name", name, "model")
        if _offline() and model_facts.config_file(recipe.model) is None:
            yield Finding("error", "model.name", f"{shown} is not cached here, and HF_HUB_OFFLINE forbids fetching it", "Unset HF_HUB_OFFLINE.")
        return
    try:
        if weights.gguf_file(name):
            yield from _gguf()
            return
    except RequestError as error:
        yield Finding("error", "model.name", error.message, error.hint)
        return
    if not os.path.isdir(folder):  # noqa: PTH112 - Path.is_dir raises for odd names and closed parents
        yield Finding("error", "model.name", f"there is no model folder {shown}", "Check the path, or give a Hub id.")
        return
    try:
        config = json.loads((folder / "config.json").read_bytes())
        names = [path.name for path in folder.iterdir()]
    except FileNotFoundError:
        adapter = (folder / "adapter_config.json").exists()
        hint = "It holds an adapter: name the model it was trained on." if adapter else "Give the folder that a model was saved in."
        yield Finding("error", "model.name", f"{shown} has no config.json", hint)
        return
    except OSError as error:
        yield Finding("error", "model.name", f"{shown} cannot be read: {error.strerror}", "Check the permissions of the folder and its files.")
        return
    except ValueError:
        yield Finding("error", "model.name", f"{shown}/config.json is not valid JSON", "Copy the model anew.")
        return
    if not isinstance(config, dict) or "model_type" not in config:
        yield Finding("error", "model.name", f"{shown}/config.json names no model_type", "Give the folder that a model was saved in.")
    if not any(path.match(pattern) for path in map(Path, names) for pattern in _WEIGHTS):
        yield Finding("error", "model.name", f"{shown} holds no weights (*.safetensors or *.bin)", "Copy the whole model folder.")
    if not set(_TOKENIZERS).intersection(names):
        yield Finding("error", "model.name", f"{shown} holds no tokenizer", "Copy the tokenizer's files beside the weights.")
    locked = [one_line(name, 100) for name in names if not os.access(folder / name, os.R_OK)]
    if locked:
        yield Finding("error", "model.name", f"{locked[0]} in {shown} cannot be read", "Check its permissions.")


def _gguf() -> Iterator[Finding]:
    if importlib.util.find_spec("gguf") is None:
        yield Finding("error", "model.name", "a GGUF file is read by the package gguf, which is not installed", "pip install gguf")


def _data(recipe: Recipe) -> Iterator[Finding]:
    source, shown = recipe.data.source, one_line(recipe.data.source, 200)
    if source == demo.NAME:
        return
    path = Path(source)
    if not path.is_absolute():
        yield from _hub_id("data.source", source, "dataset")
        return
    try:
        if path.is_dir():
            if not any(suffix(item) in SUFFIXES for item in path.rglob("*")):
                yield Finding("error", "data.source", f"the folder {shown} holds no data files", f"Known are {', '.join(SUFFIXES)}.")
            return
        size = path.stat().st_size
        with path.open("rb"):
            pass
    except FileNotFoundError:
        yield Finding("error", "data.source", f"there is no file or folder {shown}", "Check the path, or give a Hub id.")
        return
    except OSError as error:
        yield Finding("error", "data.source", f"{shown} cannot be read: {error.strerror}", "Check its permissions.")
        return
    if not size:
        yield Finding("error", "data.source", f"{shown} is empty", "Give a file with rows in it.")
    if suffix(path) not in SUFFIXES:
        yield Finding("error", "data.source", f"the ending of {shown} is not known", f"Known are {', '.join(SUFFIXES)}.")


def _hub_id(where: str, name: str, kind: str) -> Iterator[Finding]:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError:
        yield Finding("error", where, f"{one_line(name, 200)!r} is neither a local path nor a Hub id", f"A Hub {kind} is written owner/name.")


def _template(recipe: Recipe) -> Iterator[Finding]:
    name = recipe.prompt.template
    if name.endswith(templates.JINJA):
        try:
            files.read_text(Path(name))
        except RequestError as error:
            yield Finding("error", "prompt.template", error.message, error.hint)
    elif name not in TEMPLATES:
        near = difflib.get_close_matches(name, TEMPLATES, n=1)
        hint = f"Did you mean {near[0]}?" if near else f"Known are {', '.join(TEMPLATES)}, or a .jinja file."
        yield Finding("error", "prompt.template", f"{one_line(name, 60)!r} is not known", hint)


def _packages(recipe: Recipe) -> Iterator[Finding]:
    asked = [("train.optimizer", recipe.train.optimizer), *(("log.trackers", tracker) for tracker in recipe.log.trackers)]
    for where, name in asked:
        for beginning, (module, package) in _NEEDS.items():
            if name.startswith(beginning) and importlib.util.find_spec(module) is None:
                yield Finding("error", where, f"{name} needs the package {package}, which is not installed", f"pip install {package}")


def _writable(recipe: Recipe) -> Iterator[Finding]:
    for where, folder in (("TUI_FT_HOME", str(home.runs_folder())), ("output.dir", recipe.output.dir)):
        if folder is None:
            continue
        existing = next((path for path in (Path(folder), *Path(folder).parents) if os.path.lexists(path)), Path("/"))
        if not existing.is_dir():
            yield Finding("error", where, f"{one_line(existing, 200)} is not a folder", "Choose another place.")
        elif not os.access(existing, os.W_OK | os.X_OK):
            yield Finding("error", where, f"{one_line(existing, 200)} cannot be written", "Check its permissions, or choose another place.")
    for place in (home.home(), home.runs_folder()):
        if exposed := home.exposure(place):
            hint = f"`chmod go-w {one_line(place)}`, or set TUI_FT_HOME to a folder of your own."
            yield Finding("error", "TUI_FT_HOME", f"runs cannot be trusted to {one_line(place, 200)}: {exposed}", hint)


def _hub(recipe: Recipe) -> Iterator[Finding]:
    if not recipe.output.push_to_hub:
        return
    yield from _hub_id("output.push_to_hub", recipe.output.push_to_hub, "model")
    from huggingface_hub import get_token

    if not get_token():
        hint = "Log in: F4 at the wizard's Model step, or `hf auth login`; the run keeps its model in any case."
        yield Finding("warning", "output.push_to_hub", "there is no Hub token, so the push at the end would fail", hint)


def _offline() -> bool:
    from huggingface_hub.constants import HF_HUB_OFFLINE

    return HF_HUB_OFFLINE
