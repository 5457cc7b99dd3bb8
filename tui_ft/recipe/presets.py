"""Recipes by name: those that come with tui-ft, and the user's own."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tui_ft import home
from tui_ft.errors import ConfigError, RequestError
from tui_ft.recipe import files, secrets
from tui_ft.recipe.schema import Recipe
from tui_ft.text import one_line

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_ENDINGS = (".yaml", ".yml", ".json")
_PATH_KEYS = ("model.name", "data.source", "prompt.template", "output.dir")


@dataclass(frozen=True)
class PresetInfo:
    """One line of the list of presets."""

    name: str
    about: str
    """What it is for; for a file that cannot be read, why."""
    bundled: bool
    """True for those that come with tui-ft: they can be neither changed nor deleted."""
    path: Path


def names() -> list[PresetInfo]:
    """All presets, the bundled ones first, each group by name. A broken file is listed with what is wrong."""
    return [
        PresetInfo(path.stem, _about(path), bundled, path)
        for folder, bundled in ((home.bundled_presets_folder(), True), (home.user_presets_folder(), False))
        for path in sorted(folder.glob("*.yaml"))
        if _NAME.fullmatch(path.stem) and (bundled or not _bundled(path.stem).is_file())
    ]


def _about(path: Path) -> str:
    try:
        return one_line(files.load(path).about)
    except RequestError as error:
        return f"cannot be used: {one_line(error.lines()[0])}"


def get(name: str) -> Recipe:
    """The preset of that name, its paths absolute.

    Raises:
        RequestError: there is none.
        ConfigError: its file is wrong.
    """
    path = _find(name)
    if path is None:
        raise RequestError(f"there is no preset {one_line(name, 80)!r}", _nearest(name))
    return files.absolute(files.load(path), path.parent)


def save(recipe: Recipe, name: str, overwrite: bool = False) -> Path:
    """Keep `recipe` as the user's preset `name`; relative paths in it count from the current folder.

    Raises:
        RequestError: the name is not one, is taken, or the recipe seems to hold a secret; nothing is written.
    """
    path = _user(name)
    if _bundled(name).is_file():
        raise RequestError(f"{name} comes with tui-ft and cannot be replaced", f"Choose another name, e.g. my-{name}.")
    if path.exists() and not overwrite:
        raise RequestError(f"there is a preset {name} already", "Choose another name, or overwrite it on purpose.")
    _refuse_secrets(recipe)
    named = files.absolute(recipe, Path.cwd())
    named.name = name
    try:
        home.write_atomically(path, files.dump(named))
    except OSError as error:
        raise RequestError(f"the preset cannot be saved at {path}: {error.strerror}", "Check its permissions and free space.") from None
    return path


def delete(name: str) -> None:
    """Delete the user's preset `name`.

    Raises:
        RequestError: there is none, or it comes with tui-ft.
    """
    path = _user(name)
    if _bundled(name).is_file():
        raise RequestError(f"{name} comes with tui-ft and cannot be deleted", "Only presets that you saved can be.")
    try:
        path.unlink()
    except FileNotFoundError:
        raise RequestError(f"there is no preset {name!r}", _nearest(name)) from None
    except OSError as error:
        raise RequestError(f"{path} cannot be deleted: {error.strerror}") from None


def open_recipe(ref: str, settings: Iterable[str] = ()) -> Recipe:
    """The recipe that a person means: a file if `ref` is written as a path, else a preset, else a file in the current folder.

    Paths in the recipe count from its own folder, those in `settings` (`a.b=value`) from the current one.

    Raises:
        RequestError: there is no such recipe, or it cannot be read.
        ConfigError: all that is wrong in it or in the settings.
    """
    path = _locate(ref)
    recipe = files.absolute(files.load(path), path.absolute().parent)
    settings = list(settings)
    if settings:
        recipe = _set(recipe, settings)
    _refuse_secrets(recipe)
    return recipe


def _locate(ref: str) -> Path:
    if os.sep in ref or ref.endswith(_ENDINGS):
        path = Path(os.path.expanduser(ref))  # noqa: PTH111 - Path.expanduser raises for an unknown ~user
        if not os.path.lexists(path):
            raise RequestError(f"there is no file {one_line(ref, 200)}", _nearest(Path(ref).stem))
        return path
    path_or_none = _find(ref)
    if path_or_none is not None:
        return path_or_none
    if os.path.isfile(ref):  # noqa: PTH113 - Path.is_file raises for odd names and closed parents
        return Path(ref)
    raise RequestError(f"{one_line(ref, 80)!r} is neither a preset nor a file", _nearest(ref))


def _set(recipe: Recipe, settings: list[str]) -> Recipe:
    changed = files.with_settings(recipe, settings)
    given = {setting.partition("=")[0].strip() for setting in settings}
    here = files.absolute(changed, Path.cwd())
    for key in given.intersection(_PATH_KEYS):
        section, leaf = key.split(".")
        setattr(getattr(changed, section), leaf, getattr(getattr(here, section), leaf))
    return changed


def _refuse_secrets(recipe: Recipe) -> None:
    problems = secrets.find(recipe)
    if problems:
        raise ConfigError(problems)


def _find(name: str) -> Path | None:
    if not _NAME.fullmatch(name):
        return None
    return next((path for path in (_bundled(name), home.user_presets_folder() / f"{name}.yaml") if path.is_file()), None)


def _bundled(name: str) -> Path:
    return home.bundled_presets_folder() / f"{name}.yaml"


def _user(name: str) -> Path:
    if not _NAME.fullmatch(name):
        raise RequestError(
            f"{one_line(name, 80)!r} is not a name for a preset", "Use letters, digits, dot, dash and underscore, starting with a letter or digit."
        )
    return home.user_presets_folder() / f"{name}.yaml"


def _nearest(name: str) -> str:
    known = [info.name for info in names()]
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
    return f"Did you mean {' or '.join(near)}?" if near else f"The presets are {', '.join(known)}."
