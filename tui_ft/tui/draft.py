"""The recipe being edited: what was typed is kept as it was typed, valid or not, and all that is wrong is known by its key."""

from __future__ import annotations

import copy
import json
import re
import shlex
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from tui_ft import home
from tui_ft.errors import ConfigError, Problem, RequestError
from tui_ft.recipe import Recipe, files, presets
from tui_ft.tui import fields

REQUIRED = {"model.name": "choose a model", "data.source": "choose a dataset"}
_PLAIN = re.compile(r"(?!(?i:y|n|yes|no|on|off|true|false|null)$)[A-Za-z/][\w./@-]*")  # a YAML string that needs no quotes
_STANDS_IN = {"model.name": "builtin:demo", "data.source": "builtin:demo"}


State = dict[str, Any]
"""All that a draft is, as it is kept between two sessions."""


class Draft:
    """A recipe on its way: `tree` holds every value, `raw` the text of the fields that were typed into."""

    def __init__(self, tree: dict[str, Any], origin: str = "", raw: dict[str, str] | None = None, base: dict[str, Any] | None = None) -> None:
        self.tree = tree
        self.origin = origin
        """The preset it began from; empty without one."""
        self.base = base or copy.deepcopy(tree)
        """What it began as: `restore` goes back to it, `command` names the differences."""
        self.raw = raw or {}
        self.problems: dict[str, str] = {}
        """What is wrong, by dotted key; the key is empty for what no single field can mend."""
        self.recipe: Recipe | None = None
        """The whole recipe, where nothing is wrong."""
        self.usable: Recipe | None = None
        """The recipe with the last good value in each wrong field: what plan and preview are made of meanwhile."""
        self._good = copy.deepcopy(self.base)
        for key, text in self.raw.items():
            _put(self.tree, key, fields.from_text(key, text))
        self._check()

    @classmethod
    def empty(cls) -> Draft:
        tree = Recipe.model_validate({"model": {"name": "-"}, "data": {"source": "-"}}).model_dump(mode="json")
        tree["model"]["name"] = tree["data"]["source"] = ""
        return cls(tree)

    @classmethod
    def of(cls, recipe: Recipe, origin: str = "") -> Draft:
        return cls(recipe.model_dump(mode="json"), origin)

    @classmethod
    def of_preset(cls, name: str) -> Draft:
        """A draft that begins from a preset.

        Raises:
            RequestError: there is no such preset, or its file is wrong.
        """
        return cls.of(presets.get(name), name)

    @classmethod
    def kept(cls) -> Draft:
        """The draft that was left last time; an empty one if there is none, or none that can be read."""
        with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
            record = json.loads(_file().read_text(encoding="utf-8"))
            known = set(files.known_keys())
            raw = {key: text for key, text in record["raw"].items() if key in known and "." in key and isinstance(text, str)}
            tree = Draft.empty().tree
            _merge(tree, record["tree"])
            base = Draft.empty().tree
            _merge(base, record["base"])
            return cls(tree, str(record["origin"]), raw, base)
        return cls.empty()

    def keep(self) -> None:
        """Save it for next time.

        Raises:
            OSError: the disk refuses.
        """
        home.write_atomically(_file(), json.dumps(self.state(), indent=1))

    def state(self) -> State:
        """A copy of all that it is."""
        return copy.deepcopy({"tree": self.tree, "base": self.base, "raw": self.raw, "origin": self.origin})

    def become(self, state: State) -> None:
        """Be what it was."""
        self.tree, self.base, self.raw, self.origin = copy.deepcopy([state[part] for part in ("tree", "base", "raw", "origin")])
        self._check()

    def take(self, recipe: Recipe) -> None:
        """Hold this recipe; what it began as stays."""
        self.tree, self.raw = recipe.model_dump(mode="json"), {}
        self._check()

    def as_yaml(self) -> str:
        """The recipe as a file; while something is wrong, as it stands."""
        return files.dump(self.recipe) if self.recipe else yaml.safe_dump(self.tree, sort_keys=False, allow_unicode=True)

    @staticmethod
    def forget() -> None:
        """There is nothing left to go on with: the run was started, or the person began anew."""
        with suppress(OSError):
            _file().unlink()

    @property
    def changed(self) -> bool:
        return self.tree != self.base

    def value(self, key: str) -> Any:
        return _at(self.tree, key)

    def text(self, key: str) -> str:
        """What stands in the field: as it was typed, else the value's usual form."""
        return self.raw[key] if key in self.raw else fields.to_text(_at(self.tree, key), fields.separator(key))

    def type(self, key: str, text: str) -> bool:
        """Take what was typed into a field; False if that changes nothing."""
        if text == self.text(key):
            return False
        self.raw[key] = text
        _put(self.tree, key, fields.from_text(key, text))
        self._check()
        return True

    def put(self, key: str, value: Any) -> None:
        """Take a value that was chosen, not typed."""
        self.raw.pop(key, None)
        _put(self.tree, key, value)
        self._check()

    def base_text(self, key: str) -> str:
        """What the field began with, as text."""
        return fields.to_text(_at(self.base, key), fields.separator(key))

    def began_as(self, preset: str) -> None:
        """From now on it counts as unchanged from this preset, which holds the same."""
        self.origin = preset
        self.tree["name"] = preset
        self.raw.pop("name", None)
        self.base = copy.deepcopy(self.tree)
        self._check()

    def restore(self, key: str) -> None:
        """Give a field back what it began with."""
        self.put(key, copy.deepcopy(_at(self.base, key)))

    def require(self) -> Recipe:
        """The whole recipe.

        Raises:
            ConfigError: all that is wrong.
        """
        if self.recipe is None:
            raise ConfigError([Problem(key, message) for key, message in self.problems.items()])
        return self.recipe

    def command(self) -> str:
        """The command that starts the same run; empty without a preset to begin from, or while something is wrong."""
        if not self.origin or self.recipe is None:
            return ""
        try:
            settings = [f"{key}={_yaml(value)}" for key, value in self.differences() if presets.get(self.origin)]
        except RequestError:  # the preset was deleted meanwhile
            return ""
        return " ".join(["tui-ft run", shlex.quote(self.origin), *(f"--set {shlex.quote(setting)}" for setting in settings)])

    def differences(self) -> list[tuple[str, Any]]:
        """The keys whose value is not the one it began with, with the new value."""
        return [(key, _at(self.tree, key)) for key in _leaves() if _at(self.tree, key) != _at(self.base, key)]

    def differences_from(self, state: State) -> list[str]:
        """The keys whose value is not that of another state."""
        return [key for key in _leaves() if _at(self.tree, key) != _at(state["tree"], key)]

    def _check(self) -> None:
        self.problems = {}
        self.recipe = None
        try:
            self.recipe = self.usable = files.validate(self.tree)
            self._good = copy.deepcopy(self.tree)
        except ConfigError as error:
            for problem in error.problems:
                key, message = _place(problem)
                self.problems.setdefault(key, message)
            self.usable = self._repaired()

    def _repaired(self) -> Recipe | None:
        """The recipe with the last good value wherever something is wrong."""
        tree = copy.deepcopy(self.tree)
        keys = set(files.known_keys())
        for key in self.problems:
            if key in keys and "." in key:
                good = _at(self._good, key)
                _put(tree, key, good if good != "" else _STANDS_IN.get(key, good))
        with suppress(ConfigError):
            return files.validate(tree)
        return self.usable


def _place(problem: Problem) -> tuple[str, str]:
    """The field a problem is shown at: its key, or the key that its message begins with."""
    key, message = problem.where, problem.message
    if key in REQUIRED and "at least 1 character" in message:
        return key, REQUIRED[key]
    if "valid dictionary" in message:
        return key, "write it as name: column, name: column"
    message = re.sub(r", unable to parse string as \w+ \w+", "", message)
    known = set(files.known_keys())
    first = message.split(" ", 1)[0]
    if first in known and "." in first and (not key or "." not in key):
        return first, message.partition(" ")[2]
    if key == "method":
        return ("method.layers" if "needs layers" in message else "method.quantization"), message
    return key, message


def _leaves() -> list[str]:
    """The keys that hold a value, not a section."""
    known = list(files.known_keys())
    sections = {key.partition(".")[0] for key in known if "." in key}
    return [key for key in known if key not in sections]


def _at(tree: dict[str, Any], key: str) -> Any:
    section, _, leaf = key.rpartition(".")
    return (tree[section] if section else tree)[leaf]


def _put(tree: dict[str, Any], key: str, value: Any) -> None:
    section, _, leaf = key.rpartition(".")
    (tree[section] if section else tree)[leaf] = value


def _merge(tree: dict[str, Any], other: dict[str, Any]) -> None:
    """Take the values of the keys that exist: a draft of an older or newer version loses what is not known here."""
    for key, value in tree.items():
        if key not in other:
            continue
        if isinstance(value, dict) and key != "columns":
            _merge(value, other[key])
        else:
            tree[key] = other[key]


def _yaml(value: Any) -> str:
    """A value as `--set` reads it."""
    plain = not isinstance(value, (list, dict, str, type(None))) or (isinstance(value, str) and _PLAIN.fullmatch(value))
    return fields.to_text(value) if plain else json.dumps(value, ensure_ascii=False)


def _file() -> Path:
    return home.cache_folder() / "wizard-draft.json"
