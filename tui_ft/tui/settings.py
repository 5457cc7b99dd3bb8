"""The person's own settings of the terminal program, from `settings.yaml` in the home folder. A file that is wrong is told of, and never stops it."""

from __future__ import annotations

import difflib
import re
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tui_ft import home, text
from tui_ft.tui import keys, themes

LARGEST = 1 << 16


class Settings(BaseModel):
    """What stands in the file; each key may be left out."""

    model_config = ConfigDict(extra="forbid")

    theme: str = Field("auto", description=f"auto, or one of {', '.join(themes.NAMES)}.")
    motion: Literal["auto", "full", "none"] = Field("auto", description="Animations; auto: none over SSH.")
    mouse: bool = Field(True, description="false: the terminal's own selection by mouse, as with --no-mouse.")
    ascii: bool = Field(False, description="Nothing but ASCII characters, for terminals and fonts without others.")
    bell: bool = Field(True, description="Ring when a run that is looked at ends or fails.")
    notify: bool = Field(True, description="A notification on the desktop besides, where the terminal passes it on (OSC 9).")
    keys: dict[str, str] = Field(default_factory=dict, description="By the action's name, the keys that do it: `dashboard.pause: space`.")


def file() -> Path:
    return home.home() / "settings.yaml"


def load() -> tuple[Settings, list[str]]:
    """The settings, and in words what of the file was left out because it is wrong."""
    import yaml

    try:
        with file().open("rb") as stream:
            tree = yaml.safe_load(stream.read(LARGEST))
    except FileNotFoundError:
        return Settings(), []
    except (OSError, yaml.YAMLError, RecursionError) as error:
        return Settings(), [f"{file()} cannot be read: {text.one_line(error, 120)}"]
    if not isinstance(tree, dict):
        return Settings(), [f"{file()} is no list of settings: write them as `theme: {themes.LIGHT.name}`"] if tree else []
    return _understood(tree)


def _understood(tree: dict[Any, Any]) -> tuple[Settings, list[str]]:
    problems = []
    while True:
        try:
            settings = Settings.model_validate(tree)
            break
        except ValidationError as error:
            for item in error.errors():
                name = str(item["loc"][0]) if item["loc"] else ""
                problems.append(_problem(name, item["msg"]))
                tree = {key: value for key, value in tree.items() if str(key) != name}
            if any(not item["loc"] for item in error.errors()):
                return Settings(), problems
    if settings.theme not in ("auto", *themes.NAMES):
        problems.append(f"theme {text.one_line(settings.theme, 40)} is not known; there are {', '.join(themes.NAMES)}")
        settings.theme = "auto"
    settings.keys, wrong = keys.checked(settings.keys)
    return settings, problems + wrong


def _problem(name: str, message: str) -> str:
    shown = text.one_line(name, 40)
    if name in Settings.model_fields:
        return f"{shown}: {message}"
    near = difflib.get_close_matches(name, Settings.model_fields, 1)
    return f"{shown} is no setting" + (f"; did you mean {near[0]}?" if near else f"; there are {', '.join(Settings.model_fields)}")


def keep_theme(name: str) -> None:
    """Write the chosen theme into the file, which stays as it is otherwise.

    Raises:
        OSError: the disk refuses.
    """
    before = ""
    with suppress(FileNotFoundError):
        before = file().read_text(encoding="utf-8")
    entry = f"theme: {name}"
    after, count = re.subn(r"(?m)^theme:.*$", entry, before, count=1)
    home.write_atomically(file(), after if count else f"{before.rstrip()}\n{entry}\n".lstrip())
